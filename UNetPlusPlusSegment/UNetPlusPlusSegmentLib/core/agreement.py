"""Agreement of two masks, in two or three dimensions: Dice and surface distances. NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from .volume import bounding_box

ROUNDING_MM = 1e-6  # rounding errors of an oblique matrix
TOLERANCE_MM = 2.0  # surfaces this close count as the same: about one pixel of a 256 × 256 slice of an abdomen


class Distances(NamedTuple):
    """Distances in mm from each surface voxel of one mask to the nearest one of the other; infinite if the other is empty."""

    to_truth: np.ndarray
    to_found: np.ndarray


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient of two bool arrays, at least one of which is not empty: 2·overlap / (found + true), 0…1."""
    return 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))


def surface_distances(found: np.ndarray, truth: np.ndarray, steps_mm: np.ndarray) -> Distances:
    """Distances between the surfaces of two masks; in two dimensions, between their outlines.

    A surface voxel is one with a face at the edge of the array or next to a voxel outside the mask.

    Args:
        found, truth: bool, of the same shape.
        steps_mm: Shape (axes, axes); row n is the step in mm from one voxel to the next along axis n.
    """
    box = bounding_box(found | truth)
    if box is None:
        return Distances(np.empty(0), np.empty(0))
    one, other = (_surface_voxels(mask[box]) @ steps_mm for mask in (found, truth))
    return Distances(_to_nearest(one, other), _to_nearest(other, one))


def hausdorff95_mm(distances: Sequence[np.ndarray]) -> float | None:
    """The 95 % Hausdorff distance: the larger of the 95 % quantiles of the two directions; None if it is infinite.

    Args:
        distances: Both directions, as `surface_distances` returns them; several slices may be concatenated. An empty
            direction is ignored.
    """
    farthest = max(np.quantile(each, 0.95, method="inverted_cdf") for each in distances if len(each))
    return float(farthest) if np.isfinite(farthest) else None


def surface_dice(distances: Sequence[np.ndarray]) -> float:
    """Surface Dice: the share of the two surfaces within `TOLERANCE_MM` of each other, 0…1; `distances` as in `hausdorff95_mm`."""
    return sum(np.count_nonzero(each <= TOLERANCE_MM + ROUNDING_MM) for each in distances) / sum(map(len, distances))


def _surface_voxels(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask & ~ndimage.binary_erosion(mask))


def _to_nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    if not len(others) or not len(points):
        return np.full(len(points), np.inf)
    return KDTree(others, leafsize=32).query(points)[0]
