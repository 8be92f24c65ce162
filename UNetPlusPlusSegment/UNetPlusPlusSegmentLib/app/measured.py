"""What the app measures itself: segments that a visitor has changed, or that were loaded without measurements."""
# ruff: noqa: ANN001 (Slicer's nodes have no types to import)

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..core.volume import Volume, clean_hu
from ..jobs.corrections import measured_as_nodule
from ..scene import mrml
from ..scene.snapshots import Snapshot


class Measurements:
    """The measurements of one case that are newer than those of its cohort.

    A segment is measured again if its voxels have changed since they were last measured, here or by a run.
    """

    def __init__(self, volumeNode, measured: Snapshot | None, target: str | None = None) -> None:  # noqa: N803
        """Measure nothing yet.

        Args:
            volumeNode: The CT.
            measured: Segments that the cohort has measured as they are; None: there are none.
            target: The target of the cohort; None if there is none.
        """
        self._target = target
        self._volume_node = volumeNode
        self._hu: Volume | None = None  # the CT without padding, read when it is first needed
        self._shapes = {} if measured is None else shapes_of(measured)
        self._found: dict[str, Mapping[str, Any]] = {}
        self._busy = asyncio.Lock()

    def of(self, segment_id: str) -> Mapping[str, Any] | None:
        """The measurements of a segment; None if those of the cohort still hold."""
        return self._found.get(segment_id)

    async def update(self, state: Snapshot) -> None:
        """Measure the segments that have changed, in another thread."""
        async with self._busy:
            if self._hu is None:
                self._hu = await asyncio.to_thread(_without_padding, mrml.volume_from_node(self._volume_node))
            before, shapes = self._shapes, await asyncio.to_thread(shapes_of, state)
            changed = {each for each, shape in shapes.items() if before.get(each) != shape}
            found = await asyncio.to_thread(measured_again, state, changed, self._hu, self._target)
            # Only segments that no run has replaced meanwhile.
            still = {each for each in changed if self._shapes.get(each) == before.get(each)}
            self._found |= {each: found[each] for each in still}
            self._shapes = self._shapes | {each: shapes[each] for each in still}

    def replaced(self, found: Mapping[str, Mapping[str, Any]], kept: Collection[str], state: Snapshot | None) -> None:
        """Take over what a run has measured, except of the segments in `kept`, which a visitor has edited.

        Args:
            found: The measurements of the run, by segment.
            kept: The segments that it left as they are.
            state: The segmentation now.
        """
        stay = {each: measured for each, measured in self._found.items() if each in kept or each not in found}
        self._found = {**found, **stay}
        self._shapes = self._shapes | (shapes_of(state, found) if state else {})


def shapes_of(state: Snapshot, ids: Collection[str] | None = None) -> dict[str, bytes]:
    """A hash of the voxels of each segment (or of those in `ids`), by ID, to detect changes."""
    return {
        each: hashlib.blake2b(np.packbits(state.labelmap == segment.value).tobytes(), digest_size=16).digest()
        for each, segment in zip(state.ids, state.segments, strict=True)
        if ids is None or each in ids
    }


def measured_again(state: Snapshot, ids: Collection[str], hu: Volume, target: str | None) -> dict[str, dict[str, Any]]:
    """Measure segments for the table of the page.

    Args:
        state: The segmentation.
        ids: IDs of the segments to measure.
        hu: The CT without padding.
        target: The target of the cohort; None if there is none.

    Returns:
        By ID: `volume_ml` and `mean_hu`; for nodules also what `measured_as_nodule` measures.
    """
    found: dict[str, dict[str, Any]] = {}
    for each, segment in zip(state.ids, state.segments, strict=True):
        if each not in ids:
            continue
        mask = state.labelmap == segment.value
        inside = hu.array[mask]
        mean = float(inside.mean(dtype=np.float64)) if inside.size else None
        of_all = {"volume_ml": inside.size * hu.voxel_volume_ml, "mean_hu": mean}
        found[each] = measured_as_nodule(segment, mask, hu, target) | of_all
    return found


def _without_padding(volume: Volume) -> Volume:
    return Volume(clean_hu(volume.array)[0], volume.ijk_to_ras)
