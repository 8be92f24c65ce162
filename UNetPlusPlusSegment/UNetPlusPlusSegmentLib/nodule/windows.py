"""Windows: parts of the slices of a volume, predicted one slice after the other. torch and NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ..core.volume import Volume, axial_order
from ..engine.pixel_box import Box
from ..engine.predictor import Predictor
from .region_growing import Spots

# The two sizes that windows come in: side in the network's pixels, and how many times larger these are than the network's own.
# Fine: 40 mm with pixels of 0.5 mm, in which nodules of up to 3 cm fit. Coarse: 128 mm, for a mass of 8 cm with room around it.
FINE, COARSE = (80, 1), (128, 2)
MARGIN_MM = 5.0  # around a nodule in its window, at least: nearer to the edge the network sees too little of what it is
STEP_MM = 2.5  # between the slices searched, unless each of them is: readers find nodules of 4 mm at this distance


@dataclass(frozen=True, eq=False)
class Window:
    """A part of every slice, and the network's answers there; another window over the same place may give others.

    Attributes:
        rows, columns: Voxels.
        grid: Rows and columns of the network's image of it.
        probability, uncertainty: float16 (rows, columns) on its voxels, of each slice predicted so far.
    """

    rows: slice
    columns: slice
    grid: tuple[int, int]
    probability: dict[int, np.ndarray] = field(default_factory=dict)
    uncertainty: dict[int, np.ndarray] = field(default_factory=dict)


class Windows:
    """The windows of a volume.

    Attributes:
        volume: HU without padding, in axial order: its slices run to Superior, rows to Posterior, columns to Left.
        spacing_mm: Distance between slices, rows and columns.
        steps_mm: 3 × 3, its rows the steps from slice to slice, row to row and column to column, along R, A and S.
        level: Depth to prune the network to.
    """

    def __init__(self, predictor: Predictor, volume: Volume, level: int) -> None:
        """Nothing is predicted yet."""
        self.predictor, self.volume, self.level = predictor, volume, level
        self.spacing_mm = axial_order(volume).spacing_mm
        self.steps_mm = volume.ijk_to_ras[:3, 2::-1].T

    def around(self, middle: Iterable[float], size: tuple[int, int]) -> Window:
        """The window of a size, `FINE` or `COARSE`, around a row and a column, shifted to lie within the slice.

        A whole number of voxels is covered by a whole number of pixels, which the network need not pad unless the window is as
        large as the slice.
        """
        side, times = size
        pixel_mm = times * self.predictor.bundle.pixel_mm
        ranges, grid = [], []
        for centre, most, mm in zip(middle, self.volume.array.shape[1:], self.spacing_mm[1:], strict=True):
            voxels, pixels = round(side * pixel_mm / mm), side
            if voxels >= most:
                voxels, pixels = most, max(1, round(most * mm / pixel_mm))
            first = min(max(0, round(centre - (voxels - 1) / 2)), most - voxels)
            ranges.append(slice(first, first + voxels))
            grid.append(pixels)
        return Window(ranges[0], ranges[1], (grid[0], grid[1]))

    def predict(self, window: Window, slices: Iterable[int], progress: Callable[[int], None] = lambda _: None) -> None:
        """Predict a window on those of some slices where it has not been predicted yet; `progress` gets the number done."""
        count = len(self.volume.array)
        missing = [k for k in slices if 0 <= k < count and k not in window.probability]
        size = window.rows.stop - window.rows.start, window.columns.stop - window.columns.start
        here = self.volume.array[:, window.rows, window.columns]

        def on_voxels(heads: Tensor) -> list[np.ndarray]:
            maps = self.predictor.probability_and_uncertainty(heads)
            return [F.interpolate(m[:, None], size, mode="bilinear")[:, 0].half().cpu().numpy() for m in maps]

        for part, maps in self.predictor.heads(here, missing, Box.whole(count, window.grid), self.level, on_voxels):
            for known, planes in zip((window.probability, window.uncertainty), maps, strict=True):
                known.update(zip(part, planes, strict=True))
            progress(len(window.probability))

    def spots(self, window: Window, threshold: float, looks: bool = False) -> Spots:
        """The spots in a window at a threshold; if it `looks`, each slice is predicted when it is first needed.

        The slices beside it are predicted with it: three at once take less time than two alone, and most are needed next.
        """

        def plane(k: int) -> np.ndarray | None:
            if looks and k not in window.probability:
                self.predict(window, range(k - 1, k + 2))
            return window.probability.get(k)

        return Spots(plane, window.columns.stop - window.columns.start, threshold)
