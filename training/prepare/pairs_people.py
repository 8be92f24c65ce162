"""People of prepared pairs: who is who, and which split and fold everybody is in."""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Collection, Sequence

from slicefolder import PrepareError, SliceFolder, assign_splits
from UNetPlusPlusSegmentLib.files.pairs import Pair

FOLDS = 5


def people_of(pairs: Sequence[Pair], given: argparse.Namespace) -> dict[str, str]:
    """The person of each case: as --people finds it in the case's name, or as DICOM headers tell; else the case is a person.

    Raises:
        PrepareError: The pattern does not fit a name; or DICOM headers say that two people are one.
    """
    first: dict[tuple[str, ...], str] = {}
    person_of = {}
    for pair in pairs:
        match = re.search(given.people, pair.name) if given.people else None
        if given.people and not match:
            raise PrepareError(f"--people {given.people!r} finds nobody in the name {pair.name}.")
        name = (match[1] if match.re.groups else match[0]) if match else pair.name
        person_of[pair.name] = name if given.people or given.split else first.setdefault(pair.person, name)
    if given.split:
        _check_splits(pairs, person_of, given)
    elif given.folds:
        _number_of_folds({*person_of.values()}, given)
    return person_of


def _check_splits(pairs: Sequence[Pair], person_of: dict[str, str], given: argparse.Namespace) -> None:
    """Refuse a split file that lacks somebody, and one that tears apart what DICOM headers call one person."""
    split_of = assign_splits(person_of.values(), given)
    seen: dict[tuple[str, ...], Pair] = {}
    for pair in pairs:
        other = seen.setdefault(pair.person, pair)
        here, there = (split_of[person_of[each.name]] for each in (pair, other))
        if here != there:
            raise PrepareError(
                f"{given.split}: {other.name} and {pair.name} are one person by their DICOM headers, but in two splits, {there}"
                f" and {here}."
            )


def _number_of_folds(people: Collection[str], given: argparse.Namespace) -> int:
    folds = given.folds or min(FOLDS, len(people))
    if folds > len(people):
        raise PrepareError(
            f"{given.source} has {len(people)} patient(s), too few for {folds} folds: give fewer --folds (1: all of them to"
            " train), or a --split FILE."
        )
    return folds


def share_out(folder: SliceFolder, given: argparse.Namespace) -> None:
    """Write split and fold into the rows: as the file says, or people drawn into folds, of which fold 0 is `val`."""
    people = sorted({str(row["patient"]) for row in folder.rows})
    if not people:
        return
    if given.split:
        split_of = assign_splits(people, given)
        for row in folder.rows:
            row["split"] = split_of[str(row["patient"])]
        return
    folds = _number_of_folds(people, given)
    if folds == 1:
        folder.note(
            "all people are for training: nobody is left to validate on, unless a training holds out a fold of them."
        )
    drawn = random.Random(given.seed).sample(people, len(people))
    fold_of = {person: number % folds for number, person in enumerate(drawn)}
    for row in folder.rows:
        row["fold"] = fold_of[str(row["patient"])]
        row["split"] = "val" if folds > 1 and row["fold"] == 0 else "train"
