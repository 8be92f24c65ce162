"""Made-up lungs with balls in them, and a nodule engine whose result is known: what is brighter than -300 HU."""

from __future__ import annotations

import numpy as np

from UNetPlusPlusSegmentLib.core.volume import Volume

LUNG, TISSUE = -850, 30
SHAPE, SPACING_MM = (30, 140, 150), np.array([2.0, 0.7, 0.7])  # K, J, I
MATRIX = np.diag([-0.7, -0.7, 2.0, 1.0])  # array axes run to S, P and L
MATRIX[:3, 3] = (52, -3, -200)
EVERYTHING = np.s_[0:30, 0:140, 0:150]


def ball(centre: tuple, half_axes_mm: float | tuple, shape=SHAPE, spacing_mm=SPACING_MM) -> np.ndarray:
    """A ball, bool (K, J, I): centre in voxels and half axes in mm, both along K, J, I."""
    offset_mm = (np.indices(shape).T - centre) * spacing_mm
    return (((offset_mm / half_axes_mm) ** 2).sum(axis=-1) <= 1).T


def lung_with(*spots: np.ndarray, matrix=MATRIX) -> Volume:
    return Volume(np.where(np.logical_or.reduce(spots), TISSUE, LUNG).astype(np.int16), matrix)


def ras(index: tuple, matrix=MATRIX) -> list[float]:
    """R, A, S in mm of a voxel (k, j, i)."""
    return (matrix @ [*index[::-1], 1])[:3].tolist()


A, B = ball((10.5, 50, 40), 6), ball((20.5, 100, 110), (6, 5, 4))


def dice(a, b) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))
