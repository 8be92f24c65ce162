"""Masks: connected components and their boxes, filled holes, distances, measurements. NumPy, SimpleITK and SciPy.

Each library is used where it is faster: on masks of 5 million voxels, SciPy finds boxes 4 to 20 times as fast, SimpleITK computes
distances and fills holes 1.5 times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from .volume import Volume, bounding_box


def components(mask: np.ndarray, corners: bool = False, least: float | None = None) -> np.ndarray:
    """Number the connected components of a bool array.

    Args:
        mask: bool, two or three axes.
        corners: Connect voxels that touch only at an edge or a corner, not just those that share a face.
        least: Drop components of fewer voxels, and number the others by size, the largest first.

    Returns:
        Integers of the same shape: 0 outside the mask, 1…n in its components, in array order unless `least` is given.
    """
    labels = sitk.ConnectedComponent(_image(mask), corners)
    return _array(labels if least is None else sitk.RelabelComponent(labels, minimumObjectSize=int(np.ceil(least))))


def boxes(labels: np.ndarray) -> dict[int, tuple[slice, ...]]:
    """The smallest box that contains each value above 0, in the order of the values."""
    return {value: box for value, box in enumerate(ndimage.find_objects(labels), start=1) if box}


def distance_mm(mask: np.ndarray, spacing_mm: Sequence[float] | np.ndarray) -> np.ndarray:
    """Distance from the mask, to the middle of its nearest voxel, in the order of the axes; 0 or less inside."""
    image = _image(mask)
    image.SetSpacing([float(mm) for mm in spacing_mm[::-1]])
    return _array(sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True))


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
    labels = components(mask[box], corners)
    sizes = np.bincount(labels[mask[box]])
    if at_least < 1:
        kept[box] = (sizes >= at_least * sizes.max())[labels] & mask[box]
    else:
        kept[box] = labels == sizes.argmax()
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
