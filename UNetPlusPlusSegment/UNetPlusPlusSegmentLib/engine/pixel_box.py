"""Boxes: which slices, and which part of them, the network sees, in pixels of the network's size. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BODY_HU = -300  # patient and table are denser, air and lung less dense
Range = tuple[int, int]  # half-open


@dataclass(frozen=True)
class Box:
    """Half-open ranges of slices, rows and columns; `grid` is the number of rows and columns that cover a whole slice."""

    grid: tuple[int, int]
    slices: Range
    rows: Range
    columns: Range

    @classmethod
    def whole(cls, slices: int, grid: tuple[int, int]) -> Box:
        """The box that contains everything."""
        return cls(grid, (0, slices), (0, grid[0]), (0, grid[1]))

    @property
    def size(self) -> tuple[int, int]:
        """Number of rows and columns inside."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def inside(self) -> tuple[slice, slice]:
        """Slices of rows and columns, to index an array of the grid with."""
        return slice(*self.rows), slice(*self.columns)


def grid_size(size: tuple[int, int], spacing_mm: Sequence[float], pixel_mm: float) -> tuple[int, int]:
    """Number of rows and columns that cover the same field of view with pixels of about `pixel_mm`."""
    rows, columns = (max(1, round(n * float(mm) / pixel_mm)) for n, mm in zip(size, spacing_mm, strict=True))
    return rows, columns


def aligned(low: float, high: float, size: int, step: int) -> Range:
    """The smallest range around [low, high) within [0, size) that begins and ends on a multiple of `step`, or ends at `size`.

    The network's poolings divide a slice into cells of `step` pixels. A box cut between cells leaves them as they are in the
    whole slice; a box cut through cells changed the mask of the first liver model by 2 %.
    """
    last_cell = (size - 1) // step * step
    first = min(max(0, int(low // step) * step), last_cell)
    return first, min(size, max(int(-(-high // step)) * step, first + step))


def every(step: int, first: int, last: int) -> list[int]:
    """Every `step`-th number from `first`, and `last`."""
    return sorted({*range(first, last, step), last})


def body_ranges(axial: np.ndarray, chosen: Sequence[int]) -> tuple[Range, Range]:
    """The ranges of rows and columns that contain patient and table, found on every fourth row and column.

    Args:
        axial: HU, axes (slice, row, column).
        chosen: The slices to look at.
    """
    body = np.any(axial[:, ::4, ::4][chosen] > BODY_HU, axis=0)
    ranges = []
    for axis, size in ((1, axial.shape[1]), (0, axial.shape[2])):
        hit = np.flatnonzero(body.any(axis))
        ranges.append((max(0, 4 * int(hit[0]) - 3), min(size, 4 * int(hit[-1]) + 4)) if len(hit) else (0, size))
    return ranges[0], ranges[1]
