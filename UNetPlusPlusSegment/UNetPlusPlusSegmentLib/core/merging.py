"""Merging the results of several models on one volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .masks import measure
from .note import Note
from .result import Result
from .segment import MOST_SEGMENTS, Segment
from .volume import Volume, clean_hu


def merged(results: Sequence[Result], volume: Volume) -> Result:
    """Put the segments of several results into one label map, in which each voxel has one label.

    A voxel that several results claim goes to the first of them, and segments that lose voxels are measured again. If several
    segments have the same name, only the first is kept, and a note says so. If there are more than `MOST_SEGMENTS`, only so many of
    each result are taken that all fit, and a note says so.

    Args:
        results: One or more, in order of precedence. Values and names of segments are unique within each.
        volume: The CT that they were made from, in HU.

    Returns:
        A result with the segments numbered in order, all notes and the names of all models; times and slices are added up. A
        single result is returned as it is.
    """
    first, *others = results
    if not others:
        return first
    hu = Volume(clean_hu(volume.array)[0], volume.ijk_to_ras)
    labelmap = np.zeros_like(first.labelmap)
    segments: dict[str, Segment] = {}
    notes = list(dict.fromkeys(note for result in results for note in result.notes))
    counts = [len(result.segments) for result in results]
    most = next(n for n in range(MOST_SEGMENTS, 0, -1) if sum(min(n, each) for each in counts) <= MOST_SEGMENTS)
    for result in results:
        if len(result.segments) > most:
            text = f"Only the first {most} of the {len(result.segments)} segments from {result.model} fit into the segmentation."
            notes.append(Note("not-all-kept", text))
        for segment in result.segments[:most]:
            if segment.name in segments:
                text = f"{segment.name} from {result.model} was left out, because another of the chosen models also segments it."
                notes.append(Note("left-out", text))
                continue
            claimed = result.labelmap == segment.value
            free = claimed & (labelmap == 0)
            value = len(segments) + 1
            labelmap[free] = value
            measurements = segment.measurements
            if (free != claimed).any():
                # The model's own measurements still say something about the part that is left, but not about an empty segment.
                measurements = {**(measurements if free.any() else {}), **measure(free, hu)}
            segments[segment.name] = replace(segment, value=value, measurements=measurements)
    return replace(
        first,
        labelmap=labelmap,
        segments=tuple(segments.values()),
        notes=tuple(notes),
        threshold=first.threshold if len({result.threshold for result in results}) == 1 else None,
        model=", ".join(dict.fromkeys(result.model for result in results)),
        device=", ".join(dict.fromkeys(result.device for result in results)),
        slices=sum(result.slices for result in results),
        seconds=sum(result.seconds for result in results),
    )
