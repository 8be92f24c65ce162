"""The people behind the cases: which cases show the same person, and which split and fold each person is in."""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Collection, Sequence

from slicefolder import PrepareError, SliceFolder, assign_splits
from UNetPlusPlusSegmentLib.files.pairs import Pair

FOLDS = 5


def people_of(pairs: Sequence[Pair], given: argparse.Namespace) -> dict[str, str]:
    """The person of each case: found in its name with --people, or told by its DICOM headers; otherwise each case is a person.

    Raises:
        PrepareError: The pattern does not match a name, the split file lacks a person or tears one apart, or there are fewer
            people than folds.
    """
    first: dict[tuple[str, ...], str] = {}
    person_of = {}
    for pair in pairs:
        match = re.search(given.people, pair.name) if given.people else None
        if given.people and not match:
            raise PrepareError(f"--people {given.people!r} does not match the case name {pair.name}.")
        name = (match[1] if match.re.groups else match[0]) if match else pair.name
        person_of[pair.name] = name if given.people or given.split else first.setdefault(pair.person, name)
    if given.split:
        _check_splits(pairs, person_of, given)
    elif given.folds:
        _number_of_folds({*person_of.values()}, given)
    return person_of


def _check_splits(pairs: Sequence[Pair], person_of: dict[str, str], given: argparse.Namespace) -> None:
    """Raise a PrepareError if the split file lacks a person, or splits the scans of what DICOM headers call one person."""
    split_of = assign_splits(person_of.values(), given)
    seen: dict[tuple[str, ...], Pair] = {}
    for pair in pairs:
        other = seen.setdefault(pair.person, pair)
        here, there = (split_of[person_of[each.name]] for each in (pair, other))
        if here != there:
            raise PrepareError(
                f"{given.split}: by their DICOM headers {other.name} and {pair.name} are the same person, but they are in two splits,"
                f" {there} and {here}. Give both the same split."
            )


def _number_of_folds(people: Collection[str], given: argparse.Namespace) -> int:
    folds = given.folds or min(FOLDS, len(people))
    if folds > len(people):
        raise PrepareError(
            f"{given.source} has {len(people)} patient(s), too few for {folds} folds: give fewer --folds (with 1, all are for"
            " training), or a --split FILE."
        )
    return folds


def share_out(folder: SliceFolder, given: argparse.Namespace) -> None:
    """Write split and fold into the rows: from the split file, or by drawing people into folds, of which fold 0 is `val`."""
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
        way_out = "hold out a fold when you train (fold=1/3)" if len(people) > 1 else "add cases of other people"
        folder.note(f"all people are for training, so nobody is left for validation: {way_out}.")
    drawn = random.Random(given.seed).sample(people, len(people))
    fold_of = {person: number % folds for number, person in enumerate(drawn)}
    for row in folder.rows:
        row["fold"] = fold_of[str(row["patient"])]
        row["split"] = "val" if folds > 1 and row["fold"] == 0 else "train"
