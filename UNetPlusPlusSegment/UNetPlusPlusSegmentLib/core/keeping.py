"""Combining a new result with findings that are kept from an earlier one. NumPy."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import count

import numpy as np

from .result import Result
from .segment import overlapping


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
        The new findings that overlap no kept one, with numbers that the kept ones do not use, followed by the kept findings; and
        for each kept finding, its value in `before` and its new value.
    """
    same = {old: new for new, old in overlapping(before.labelmap, result.labelmap).items()}
    gone = {int(result.labelmap[at]) for at in removed} | {same[value] for value in kept if value in same}
    labelmap = np.where(np.isin(result.labelmap, [*gone]), 0, result.labelmap)
    stay = [each for each in before.segments if each.value in kept]
    taken = {each.name.rpartition(" ")[2] for each in stay}
    free = (n for n in count(1) if str(n) not in taken)
    segments = [
        replace(each, name=f"{each.name.rpartition(' ')[0]} {next(free)}")
        for each in result.segments
        if each.value not in gone
    ]
    values = {}
    for value, each in enumerate(stay, start=1 + max((each.value for each in result.segments), default=0)):
        labelmap[(before.labelmap == each.value) & (labelmap == 0)] = value
        values[each.value] = value
        segments.append(replace(each, value=value))
    return replace(result, labelmap=labelmap, segments=tuple(segments)), values
