"""Windows: maps on the voxels of a volume, predicted only where they are needed. torch and NumPy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ..core.volume import Volume, axial_order
from ..engine.pixel_box import Box
from ..engine.predictor import Predictor, ProgressCallback
from .region_growing import Plane


@dataclass(frozen=True, eq=False)
class Window:
    """A part of every slice, and the network's prediction there; another window over the same place may give another.

    Attributes:
        rows, columns: Voxels.
        grid: Rows and columns of the network's image of it.
        planes: The probability, float16 (rows, columns), of each slice predicted so far.
    """

    rows: slice
    columns: slice
    grid: tuple[int, int]
    planes: dict[int, np.ndarray] = field(default_factory=dict)


class Patches:
    """The maps of a volume, 0 where nothing has been predicted.

    Attributes:
        volume: In axial order: its slices run to Superior, rows to Posterior, columns to Left.
        probability, uncertainty: float16, on the volume's voxels; where windows overlap, those of the last one.
        slices: Number of windows of a slice that have been predicted.
        expected: Number that will be predicted, as far as known.
        level: Depth to prune the network to.
    """

    def __init__(self, predictor: Predictor, volume: Volume, level: int, progress: ProgressCallback) -> None:
        """Nothing is computed yet.

        Args:
            volume: HU without padding, in axial order.
            level: Depth to prune the network to.
        """
        self._predictor, self.volume, self.level, self._progress = predictor, volume, level, progress
        self.spacing_mm = axial_order(volume).spacing_mm
        self.probability, self.uncertainty = (np.zeros(volume.array.shape, np.float16) for _ in range(2))
        self.slices = self.expected = 0

    def window(self, centre: Iterable[float], sides_mm: Iterable[float], pixel_mm: float) -> Window:
        """A window around a row and a column, with at least these sides, shifted to lie within the slice.

        Its pixels are close to `pixel_mm`: a whole number of voxels is covered by a whole number of pixels, which the
        network need not pad unless the window is the whole slice.
        """
        step = 2**self._predictor.bundle.depth
        ranges, grid = [], []
        for middle, side_mm, size, mm in zip(
            centre, sides_mm, self.volume.array.shape[1:], self.spacing_mm[1:], strict=True
        ):
            pixels = step * -(-side_mm // (step * pixel_mm))
            voxels = round(pixels * pixel_mm / mm)
            if voxels >= size:
                voxels, pixels = size, max(1, round(size * mm / pixel_mm))
            first = min(max(0, round(middle - (voxels - 1) / 2)), size - voxels)
            ranges.append(slice(first, first + voxels))
            grid.append(int(pixels))
        return Window(ranges[0], ranges[1], (grid[0], grid[1]))

    def predict(self, window: Window, slices: Iterable[int]) -> None:
        """Predict a window on those of some slices where it has not been predicted yet."""
        slices = [k for k in slices if 0 <= k < len(self.volume.array) and k not in window.planes]
        size = window.rows.stop - window.rows.start, window.columns.stop - window.columns.start
        here = self.volume.array[:, window.rows, window.columns]
        self.expected = max(self.expected, self.slices + len(slices))
        whole = Box.whole(len(here), window.grid)

        def on_voxels(heads: Tensor) -> list[Tensor]:
            predicted = self._predictor.probability_and_uncertainty(heads)
            return [F.interpolate(each[:, None], size, mode="bilinear")[:, 0].half().cpu() for each in predicted]

        for part, predicted in self._predictor.heads(here, slices, whole, self.level, on_voxels):
            for own, values in zip((self.probability, self.uncertainty), predicted, strict=True):
                own[part, window.rows, window.columns] = values
            window.planes.update(zip(part, self.probability[part, window.rows, window.columns], strict=True))
            self.slices += len(part)
            self._progress(self.slices, self.expected)

    def take(self, other: Patches, window: Window) -> None:
        """Copy the maps of other patches of this volume in a window of theirs."""
        for k in window.planes:
            at = k, window.rows, window.columns
            self.probability[at], self.uncertainty[at] = other.probability[at], other.uncertainty[at]

    def plane_of(self, window: Window) -> Plane:
        """The probability in a window by slice; each slice is predicted when it is first requested."""

        def plane(k: int) -> np.ndarray | None:
            self.predict(window, [k])
            return window.planes.get(k)

        return plane
