"""Results on one volume put into one: of several models; or of one, beside what is kept of it. NumPy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from .masks import measure
from .note import Note
from .result import Result
from .segment import Segment, overlapping
from .volume import Volume, clean_hu


def merged(results: Sequence[Result], volume: Volume) -> Result:
    """Put the segments of several results into one label map, in which each voxel has one label.

    A voxel that several results claim stays with the first of them, and the segments that lose voxels are measured anew. Of
    segments with the same name only the first is kept, with a note.

    Args:
        results: One or more, those that take precedence first. Values and names of segments are told apart within each.
        volume: The CT that they were made from, in HU.

    Returns:
        A result with the segments numbered in their order, all notes, and the names of all models. The time and the slices are
        summed up. One result comes back as it is.
    """
    first, *others = results
    if not others:
        return first
    hu = Volume(clean_hu(volume.array)[0], volume.ijk_to_ras)
    labelmap = np.zeros_like(first.labelmap)
    segments: dict[str, Segment] = {}
    notes = list(dict.fromkeys(note for result in results for note in result.notes))
    for result in results:
        for segment in result.segments:
            if segment.name in segments:
                text = f"{segment.name} of {result.model} was left out: a model named before it has that segment, too."
                notes.append(Note("left-out", text))
                continue
            claimed = result.labelmap == segment.value
            free = claimed & (labelmap == 0)
            value = len(segments) + 1
            labelmap[free] = value
            measurements = segment.measurements
            if (free != claimed).any():
                # What the model says of its own segment says something of a part of it, and nothing of none.
                measurements = {**(measurements if free.any() else {}), **measure(free, hu)}
            segments[segment.name] = replace(segment, value=value, measurements=measurements)
    return replace(
        first,
        labelmap=labelmap,
        segments=tuple(segments.values()),
        notes=tuple(notes),
        model=", ".join(dict.fromkeys(result.model for result in results)),
        device=", ".join(dict.fromkeys(result.device for result in results)),
        slices=sum(result.slices for result in results),
        seconds=sum(result.seconds for result in results),
    )


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
