"""Search: the places in a region where the network sees something, in coarse pixels on slices a few mm apart. torch and NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from ..core.masks import boxes, components
from ..core.volume import bounding_box
from ..engine.pixel_box import Box, aligned, grid_size
from .candidates import Candidate
from .segments import LEAST_DIAMETER_MM
from .windows import COARSE, Windows

STEP_MM = 2.5  # between slices, unless each of them is searched: readers find nodules of 4 mm at this distance
ROOM_MM = 8.0  # margin around the region
LEVELS = (0.9, 0.6, 0.3)  # of probability: each component above one that contains no peak yet gets one
LEAST_PEAK_MM3 = 4.0  # least volume of such a component: a sphere of 2 mm
PEAK_MM = 3.0  # largest distance of a nodule from its peak

Peak = tuple[int, int, int]  # slice, row and column


def searched_slices(inside: np.ndarray, slice_mm: float, every: bool) -> list[int]:
    """The slices of a region, bool (slices, rows, columns), that are searched: every one, or some `STEP_MM` apart."""
    of_region = np.flatnonzero(inside.any(axis=(1, 2)))
    gap = 1 if every else max(1, int(STEP_MM / slice_mm + 0.01))
    return of_region[min(gap, len(of_region)) // 2 :: gap].tolist()


def search(
    windows: Windows, inside: np.ndarray, slices: Sequence[int], progress: Callable[[int], None]
) -> list[Candidate]:
    """Find the candidates in a region.

    Args:
        windows: Of the volume.
        inside: bool (slices, rows, columns), the region; a peak lies in it.
        slices: Those to search, evenly spaced.
        progress: Called with the number of slices done.
    """
    ranges = bounding_box(inside.any(axis=0))
    if ranges is None:
        return []
    size, spacing_mm = inside.shape[1:], windows.spacing_mm
    bundle = windows.predictor.bundle
    grid = grid_size(size, spacing_mm[1:], COARSE[1] * bundle.pixel_mm)
    sides = [
        aligned((along.start - ROOM_MM / mm) * g / n, (along.stop + ROOM_MM / mm) * g / n, g, 2**bundle.depth)
        for along, n, g, mm in zip(ranges, size, grid, spacing_mm[1:], strict=True)
    ]
    box = Box(grid, (0, len(inside)), *sides)

    def of_heads(heads: Tensor) -> np.ndarray:
        return windows.predictor.probability_and_uncertainty(heads)[0].half().cpu().numpy()

    probability = np.zeros((len(slices), *box.size), np.float16)
    done = 0
    axial = windows.volume.array
    for part, planes in windows.predictor.heads(axial, slices, box, windows.level, of_heads):
        probability[done : done + len(part)] = planes
        done += len(part)
        progress(done)
    rows, columns = (
        (np.arange(*side) + 0.5) * n / g - 0.5 for side, n, g in zip(sides, size, grid, strict=True)
    )  # in voxels
    within = inside[
        np.ix_(slices, rows.round().astype(int).clip(0, size[0] - 1), columns.round().astype(int).clip(0, size[1] - 1))
    ]
    gap = slices[1] - slices[0] if len(slices) > 1 else 1
    voxel_mm3 = gap * np.prod(spacing_mm) * (size[0] / grid[0]) * (size[1] / grid[1])
    return [
        Candidate(np.array([slices[k], rows[row], columns[column]], float), PEAK_MM, LEAST_DIAMETER_MM)
        for k, row, column in peaks(probability, within, float(voxel_mm3))
    ]


def peaks(probability: np.ndarray, inside: np.ndarray, voxel_mm3: float) -> list[Peak]:
    """The most probable voxel of each component of a map, and of each part of a component that stands out.

    Args:
        probability: (slices, rows, columns).
        inside: bool, the same shape: True where a peak may lie.
        voxel_mm3: Volume of a voxel.
    """
    found: list[Peak] = []
    part = np.where(inside, probability, 0).astype(np.float32)
    for least in LEVELS:
        labels = components(part >= least, corners=True, least=LEAST_PEAK_MM3 / voxel_mm3)
        known = {int(labels[at]) for at in found}
        for value, ranges in boxes(labels).items():
            if value not in known:
                here = np.where(labels[ranges] == value, part[ranges], 0)
                at = np.unravel_index(here.argmax(), here.shape)
                k, row, column = (int(a) + along.start for a, along in zip(at, ranges, strict=True))
                found.append((k, row, column))
    return found
