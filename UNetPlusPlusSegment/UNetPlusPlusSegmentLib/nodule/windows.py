"""Windows: maps on the voxels of a volume, predicted only where they are needed. torch and NumPy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ..core.volume import Volume, axial_order
from ..engine.pixel_box import Box
from ..engine.predictor import Predictor, ProgressCallback, ignore_progress
from ..engine.slice_pool import Answer, Item
from .region_growing import Plane

Planes = tuple[np.ndarray, np.ndarray]  # probability and uncertainty, float16 (slices, rows, columns)


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
        progress: Called after each batch.
    """

    def __init__(self, predictor: Predictor, volume: Volume, level: int, progress: ProgressCallback) -> None:
        """Nothing is computed yet.

        Args:
            volume: HU without padding, in axial order.
            level: Depth to prune the network to.
        """
        self._predictor, self.volume, self.level, self.progress = predictor, volume, level, progress
        self.spacing_mm = axial_order(volume).spacing_mm
        self.probability, self.uncertainty = (np.zeros(volume.array.shape, np.float16) for _ in range(2))
        self.slices = self.expected = 0
        self._later: list[tuple[Window, Sequence[int], Planes]] | None = None  # of a task, what the maps will hold

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
        missing = self._missing(window, slices)
        self.expected = max(self.expected, self.slices + len(missing))
        for part, planes in self._predicted(window, missing):
            self._keep(window, part, planes)

    def predict_all(self, windows: Sequence[tuple[Window, int]]) -> None:
        """Predict each window on a slice of its own, where it has not been predicted yet."""
        windows = [(window, k) for window, k in windows if self._missing(window, [k])]
        self.expected = self.slices + len(windows)

        def task(at: tuple[Window, int]) -> list[tuple[Sequence[int], Planes]]:
            return list(self._predicted(at[0], [at[1]]))

        for (window, _), predicted in zip(windows, self._predictor.in_threads(task, windows), strict=True):
            for part, planes in predicted:
                self._keep(window, part, planes)

    def in_threads(self, task: Callable[[Patches, Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """The answer of a task to each item; its patches are its own until it is done, and then become part of these."""
        if len(items) < 2:
            return [task(self, item) for item in items]

        def on_its_own(item: Item) -> tuple[Answer, Patches]:
            own = copy.copy(self)
            own._later, own.progress = [], ignore_progress
            own.slices = own.expected = 0
            return task(own, item), own

        answers = []
        for answer, own in self._predictor.in_threads(on_its_own, items):
            for window, part, planes in own._later or ():
                self._write(window, part, planes)
            self.slices += own.slices
            self.expected = max(self.expected, self.slices)
            if own.slices:
                self.progress(self.slices, self.expected)
            answers.append(answer)
        return answers

    def take(self, other: Patches, window: Window) -> None:
        """Copy the maps of other patches of this volume in a window of theirs."""
        part = sorted(window.planes)
        at = part, window.rows, window.columns
        self._write(window, part, (other.probability[at], other.uncertainty[at]))

    def _missing(self, window: Window, slices: Iterable[int]) -> list[int]:
        return [k for k in slices if 0 <= k < len(self.volume.array) and k not in window.planes]

    def _predicted(self, window: Window, slices: Sequence[int]) -> Iterator[tuple[Sequence[int], Planes]]:
        """Probability and uncertainty in a window, float16 (slices, rows, columns) on its voxels, batch by batch."""
        size = window.rows.stop - window.rows.start, window.columns.stop - window.columns.start
        here = self.volume.array[:, window.rows, window.columns]

        def on_voxels(heads: Tensor) -> Planes:
            probability, uncertainty = (
                F.interpolate(each[:, None], size, mode="bilinear")[:, 0].half().cpu().numpy()
                for each in self._predictor.probability_and_uncertainty(heads)
            )
            return probability, uncertainty

        return self._predictor.heads(here, slices, Box.whole(len(here), window.grid), self.level, on_voxels)

    def _keep(self, window: Window, part: Sequence[int], planes: Planes) -> None:
        self._write(window, part, planes)
        window.planes.update(zip(part, planes[0], strict=True))
        self.slices += len(part)
        self.progress(self.slices, self.expected)

    def _write(self, window: Window, part: Sequence[int], planes: Planes) -> None:
        if self._later is not None:
            self._later.append((window, part, planes))
            return
        for own, values in zip((self.probability, self.uncertainty), planes, strict=True):
            own[part, window.rows, window.columns] = values

    def plane_of(self, window: Window) -> Plane:
        """The probability in a window by slice; each slice is predicted when it is first requested."""

        def plane(k: int) -> np.ndarray | None:
            self.predict(window, [k])
            return window.planes.get(k)

        return plane
