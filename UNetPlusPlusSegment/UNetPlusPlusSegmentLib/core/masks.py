"""Masks: connected components, filled holes, measurements. NumPy and SimpleITK only."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from .volume import Volume, bounding_box


def largest_component(mask: np.ndarray, at_least: float = 1.0, corners: bool = False) -> np.ndarray:
    """Keep the largest component of a 3D bool array.

    Args:
        mask: bool, any axis order.
        at_least: Also keep every component with at least this share of the largest one's voxels.
        corners: Connect voxels that touch only at an edge or a corner, not just those that share a face.

    Returns:
        A bool array of the same shape; of two components of the same size, the first in array order is kept.
    """
    kept = np.zeros(mask.shape, bool)
    box = bounding_box(mask)
    if box is None:
        return kept
    labels = _array(sitk.ConnectedComponent(_image(mask[box]), corners))
    sizes = np.bincount(labels.ravel())[1:]
    stay = sizes >= at_least * sizes.max() if at_least < 1 else np.arange(len(sizes)) == sizes.argmax()
    kept[box] = np.concatenate([[False], stay])[labels]
    return kept


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of a 3D bool array, enclosed on every side (face-connected background)."""
    filled = mask.copy()
    box = bounding_box(mask)
    if box is not None:
        filled[box] = _array(sitk.BinaryFillhole(_image(mask[box]))).astype(bool)
    return filled


def measure(mask: np.ndarray, volume: Volume) -> dict[str, float | None]:
    """Volume in ml and mean HU of a region.

    Args:
        mask: bool (K, J, I) on the volume's voxels.
        volume: The CT in HU.

    Returns:
        `volume_ml` and `mean_hu`; the latter None where the mask is empty.
    """
    box = bounding_box(mask)
    if box is None:
        return {"volume_ml": 0.0, "mean_hu": None}
    inside = volume.array[box][mask[box]]
    return {"volume_ml": inside.size * volume.voxel_volume_ml, "mean_hu": float(inside.mean(dtype=np.float64))}


def _image(mask: np.ndarray) -> sitk.Image:
    return sitk.GetImageFromArray(np.ascontiguousarray(mask).view(np.uint8))


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)
