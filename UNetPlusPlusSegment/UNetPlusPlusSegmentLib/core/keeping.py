"""Combining a new result with findings that are kept from an earlier one. NumPy."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import count

import numpy as np

from .note import Note
from .result import Result
from .segment import MOST_SEGMENTS, overlapping


def with_kept_findings(
    result: Result, before: Result, kept: Collection[int], removed: Iterable[tuple[int, ...]]
) -> tuple[Result, dict[int, int]]:
    """Add findings of an earlier result, unchanged, to a new result of the same run.

    Args:
        result: The new result, whose findings have numbered names such as `Nodule 2`.
        before: The earlier result.
        kept: Values in `before` of the findings to keep, whether they were found again or not.
        removed: A voxel (k, j, i) in each new finding to leave out.

    Returns:
        The new findings other than the kept ones, without the voxels of these (their measurements are those of the whole findings)
        and with numbers that the kept ones do not use, followed by the kept findings; and for each kept finding, its value in
        `before` and its new value. If there are more than `MOST_SEGMENTS`, the last new ones are left out, and a note says so.
    """
    same = {old: new for new, old in overlapping(before.labelmap, result.labelmap).items()}
    mine = np.isin(before.labelmap, [*kept])
    covered = {each.value for each in result.segments} - {*np.unique(result.labelmap[~mine]).tolist()}
    gone = {int(result.labelmap[at]) for at in removed} | {same[value] for value in kept if value in same} | covered
    stay = [each for each in before.segments if each.value in kept]
    found = [each for each in result.segments if each.value not in gone]
    new = found[: MOST_SEGMENTS - len(stay)]
    numbers = np.zeros(MOST_SEGMENTS + 1, np.uint8)  # by the values in the new result
    numbers[[each.value for each in new]] = np.arange(1, len(new) + 1)
    labelmap = numbers[result.labelmap]
    values = {each.value: value for value, each in enumerate(stay, start=len(new) + 1)}
    for old, value in values.items():
        labelmap[before.labelmap == old] = value
    taken = {each.name.rpartition(" ")[2] for each in stay}
    free = (n for n in count(1) if str(n) not in taken)
    segments = [
        replace(each, value=int(numbers[each.value]), name=f"{each.name.rpartition(' ')[0]} {next(free)}")
        for each in new
    ]
    segments += [replace(each, value=values[each.value]) for each in stay]
    notes = list(result.notes)
    if len(new) < len(found):
        text = f"Only {MOST_SEGMENTS} nodules fit into a segmentation: the smallest of the new ones were left out."
        notes.append(Note("not-all-kept", text))
    return replace(result, labelmap=labelmap, segments=tuple(segments), notes=tuple(notes)), values
