"""What a mask becomes: connected components, filled holes, segments with their measurements. NumPy and SimpleITK only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .volumes import Volume


@dataclass(frozen=True)
class Segment:
    """A named region of a label map, as Slicer shows it.

    Attributes:
        value: Its value in the label map.
        name: For the user.
        terminology: Slicer's seven-part string.
        color: Red, green, blue, 0…255.
        measurements: `volume_ml`, `mean_hu` (None if empty), …
    """

    value: int
    name: str
    terminology: str
    color: tuple[int, int, int]
    measurements: Mapping[str, object]


def largest_component(mask: np.ndarray, at_least: float = 1.0, corners: bool = False) -> np.ndarray:
    """Keep the largest component of a 3D bool array.

    Args:
        mask: bool, any axis order.
        at_least: Keep every other component, too, that has this share of the largest one's voxels.
        corners: Whether voxels that touch only at an edge or a corner are connected, and not only those that share a face.

    Returns:
        A bool array of the same shape; of two components of one size the first in array order stays.
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
    """Fill what a 3D bool array encloses on every side (face-connected background)."""
    filled = mask.copy()
    box = bounding_box(mask)
    if box is not None:
        filled[box] = _array(sitk.BinaryFillhole(_image(mask[box]))).astype(bool)
    return filled


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest slices that hold every True voxel; None if there is none."""
    ranges: tuple[slice, ...] = ()
    for axis in range(mask.ndim):  # what earlier axes have ruled out is not looked at again
        hit = np.flatnonzero(mask[ranges].any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not len(hit):
            return None
        ranges += (slice(int(hit[0]), int(hit[-1]) + 1),)
    return ranges


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


def overlapping(before: np.ndarray, after: np.ndarray) -> dict[int, int]:
    """Which region of one label map goes on as which of another on the same voxels.

    Returns:
        From the value of a region of `after` to that of `before` with which it shares the most voxels; each value once.
    """
    both = (before > 0) & (after > 0)
    pairs, counts = np.unique(np.stack([before[both], after[both]]), axis=1, return_counts=True)
    found: dict[int, int] = {}
    for old, new in pairs.T[np.argsort(-counts, kind="stable")].tolist():
        if new not in found and old not in found.values():
            found[new] = old
    return found


def as_columns(measurements: Mapping[str, object]) -> dict[str, object]:
    """Measurements for a table: a point `…_ras` in three columns, `…_r_mm`, `…_a_mm` and `…_s_mm`; of lines none."""
    columns: dict[str, object] = {}
    for key, value in measurements.items():
        if not key.endswith("_ras"):
            columns[key] = value
        elif np.ndim(value) == 1:
            columns |= {f"{key.removesuffix('ras')}{axis}_mm": x for axis, x in zip("ras", value, strict=True)}
    return columns


def _image(mask: np.ndarray) -> sitk.Image:
    return sitk.GetImageFromArray(np.ascontiguousarray(mask).view(np.uint8))


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)
