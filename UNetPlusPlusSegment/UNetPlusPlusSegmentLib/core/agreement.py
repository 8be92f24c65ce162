"""Agreement of two masks: Dice, and how far their surfaces lie apart. NumPy and SciPy; of two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from .volume import bounding_box

ROUNDING_MM = 1e-6  # of an oblique matrix
TOLERANCE_MM = 2.0  # a surface within it counts as met: about a pixel of the 256² slices of an abdomen


class Distances(NamedTuple):
    """mm from each outermost voxel of one mask to the nearest outermost one of the other; infinite where the other is empty."""

    to_truth: np.ndarray
    to_found: np.ndarray


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """2·overlap / (found + true) of two bool arrays, one of which holds something."""
    return 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))


def surface_distances(found: np.ndarray, truth: np.ndarray, steps_mm: np.ndarray) -> Distances:
    """Distances between the surfaces of two masks; in two dimensions, between their outlines.

    A voxel is outermost if a neighbour across one of its faces, or the edge of the array, is not in the mask.

    Args:
        found, truth: bool, of one shape.
        steps_mm: (axes, axes): in row n the way from a voxel to the next along axis n, in mm.
    """
    box = bounding_box(found | truth)
    if box is None:
        return Distances(np.empty(0), np.empty(0))
    one, other = (_outermost(mask[box]) @ steps_mm for mask in (found, truth))
    return Distances(_to_nearest(one, other), _to_nearest(other, one))


def hausdorff95_mm(distances: Sequence[np.ndarray]) -> float | None:
    """The 95 % surface distance: the larger of the 95 % quantiles of both directions; None if it is infinite.

    Args:
        distances: As of `surface_distances`, those of several slices joined; an empty direction does not count.
    """
    farthest = max(np.quantile(each, 0.95, method="inverted_cdf") for each in distances if len(each))
    return float(farthest) if np.isfinite(farthest) else None


def surface_dice(distances: Sequence[np.ndarray], tolerance_mm: float = TOLERANCE_MM) -> float:
    """The share of both surfaces that lies within the tolerance of the other one, 0…1; arguments as of `hausdorff95_mm`."""
    return sum(np.count_nonzero(each <= tolerance_mm + ROUNDING_MM) for each in distances) / sum(map(len, distances))


def _outermost(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask & ~ndimage.binary_erosion(mask))


def _to_nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    if not len(others) or not len(points):
        return np.full(len(points), np.inf)
    return KDTree(others, leafsize=32).query(points)[0]
