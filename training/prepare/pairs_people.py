"""The people behind the cases: which cases show the same person, and which split each person is in."""

from __future__ import annotations

import argparse
import csv
import math
import random
import re
from collections import defaultdict
from collections.abc import Collection, Sequence

from slicefolder import SPLITS, PrepareError, SliceFolder, assign_splits
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
    """Write the split into the rows: that of the split file, or a drawn one.

    People of the folder that is replaced keep their split, so that weights trained on it have seen nobody in `val`.

    Raises:
        PrepareError: The split file lacks a person, there are fewer people than folds, or the folder's table cannot be read.
    """
    people = sorted({str(row["patient"]) for row in folder.rows})
    if not people:
        return
    before = {} if given.split or given.folds == 1 else _splits_before(folder)
    split_of = assign_splits(people, given) if given.split else _drawn(people, before, given)
    if before:
        new = {split: [each for each in people if each not in before and split_of[each] == split] for split in SPLITS}
        where = "".join(f" New in `{split}`: {', '.join(names)}." for split, names in new.items() if names)
        folder.note(f"{len(before)} of {len(people)} people keep the split that they had.{where}")
    for row in folder.rows:
        row["split"] = split_of[str(row["patient"])]
    if not given.split and "val" not in split_of.values():
        way_out = "hold out a fold when you train (fold=1/3)" if len(people) > 1 else "add cases of other people"
        anew = ", or choose another -o FOLDER to draw all anew" if before else ""
        folder.note(f"all people are for training, so nobody is left for validation: {way_out}{anew}.")


def _drawn(people: Sequence[str], before: dict[str, str], given: argparse.Namespace) -> dict[str, str]:
    """The split of each person: that of before, or drawn so that one of N people is in `val`.

    Who is added to a folder is there to be learned from, so `val` grows only with each N of them.
    """
    folds = _number_of_folds(people, given)
    share = len(people) / folds
    wanted = 0 if folds == 1 else max(1, math.floor(share)) if before else math.ceil(share)
    split_of = dict(before)
    for person in random.Random(given.seed).sample(people, len(people)):
        is_needed = [*split_of.values()].count("val") < wanted
        split_of.setdefault(person, "val" if is_needed else "train")
    return split_of


def _splits_before(folder: SliceFolder) -> dict[str, str]:
    """The split of everybody who was in the folder that is replaced, known by their own name or that of one of their cases.

    Two people who turn out to be one are for training if one of them was.

    Raises:
        PrepareError: Its slices.csv cannot be read.
    """
    table = folder.path / "slices.csv"
    if not table.exists():
        return {}
    before: defaultdict[object, set[str | None]] = defaultdict(set)
    now: defaultdict[str, set[str | None]] = defaultdict(set)
    try:
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name in {row.get("patient"), row.get("volume")}:
                    before[name].add(row.get("split"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PrepareError(
            f"{table} cannot be read ({error}), so nobody would keep the split that it gives them: choose another -o FOLDER."
        ) from error
    for row in folder.rows:
        now[str(row["patient"])] |= before[row["patient"]] | before[row["volume"]]
    known = {person: [split for split in SPLITS if split in splits] for person, splits in now.items()}
    return {person: splits[0] for person, splits in known.items() if splits}
