"""The result of a run: label map, segments and notes, which can be had again at another threshold; and the maps. NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..core.segment import Segment
from ..core.volume import Volume
from ..network.bundle import Bundle
from .maps import Maps

Cut = tuple[np.ndarray, tuple[Segment, ...], list[str]]  # label map, its segments, notes about them


@dataclass(frozen=True)
class Result:
    """A segmentation of one volume.

    Attributes:
        labelmap: uint8 (K, J, I), the volume's own voxels.
        segments: What the values of the label map mean, with measurements; an organ not found has 0 ml.
        notes: Sentences the user should read.
        cut: Makes label map, segments and notes of the maps at a threshold.
        device: Device and precision that were used.
        slices: How many slices the network saw at full quality.
        seconds: From the decoded volume, model loaded, to the final label map.
    """

    volume: Volume
    bundle: Bundle
    maps: Maps
    threshold: float
    labelmap: np.ndarray
    segments: tuple[Segment, ...]
    notes: tuple[str, ...]
    device: str
    slices: int
    seconds: float
    cut: Callable[[float], Cut]

    def with_threshold(self, threshold: float) -> Result:
        """The same run cut at another probability; the network does not run again."""
        labelmap, segments, notes = self.cut(self.bundle.threshold_or_own(threshold))
        return replace(self, threshold=threshold, labelmap=labelmap, segments=segments, notes=tuple(notes))

    def probability(self) -> np.ndarray:
        """float32 (K, J, I), 0…1: the heads' mean. Outside the box that was looked at it is 0."""
        return self._on_voxels(self.maps.probability)

    def uncertainty(self) -> np.ndarray:
        """float32 (K, J, I): the standard deviation of the deep-supervision heads, 0…0.5."""
        return self._on_voxels(self.maps.spread)

    def _on_voxels(self, grid: np.ndarray) -> np.ndarray:
        whole = np.zeros(self.volume.array.shape, np.float32)
        turned = self.maps.order.apply(whole)
        for k, part in enumerate(grid):
            if part.any():
                turned[k] = self.maps.on_voxels(part, turned.shape[1:])
        return whole
