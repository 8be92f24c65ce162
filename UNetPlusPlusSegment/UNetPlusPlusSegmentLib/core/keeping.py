"""A result beside what is kept of an earlier one of the same run. NumPy."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import count

import numpy as np

from .result import Result
from .segment import overlapping


def beside_kept(
    result: Result, before: Result, kept: Collection[int], removed: Iterable[tuple[int, ...]]
) -> tuple[Result, dict[int, int]]:
    """Put findings beside some of an earlier result, which are kept as they were.

    Args:
        result: Numbered findings, as nodules are.
        before: Others of the same run.
        kept: Values of the findings in it that are kept, whether they are among the new ones or not.
        removed: Voxels (k, j, i) of findings that are left out.

    Returns:
        The other findings, with numbers that are free, and after them what is kept; and the values of the latter, by those before.
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
