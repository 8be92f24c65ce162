"""Results of several models on one volume, as one. NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .masks import measure
from .note import Note
from .result import Result
from .segment import Segment
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
