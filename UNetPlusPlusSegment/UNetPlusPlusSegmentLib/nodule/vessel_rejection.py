"""Vessel rejection: candidates that continue like a vessel, with contrast medium or without. NumPy and SimpleITK only."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from ..core.volume import Volume, axial_order, bounding_box, crop
from .candidates import Nodule

# Soft tissue stays below this; vessels with contrast medium and calcified nodules do not. A calcified nodule is the whole
# of its bright component; a vessel continues. Of the 890 nodules of LIDC-IDRI's crops, as marked by two readers, 5 would
# be taken for a vessel (Testing/test_vessels.py).
CONTRAST_HU = 160
LEAST_SHARE = 0.2  # of such bright voxels in a candidate
BEYOND = 2.0  # the bright components that it touches have this many times its own bright voxels

# A nodule is surrounded by lung or the chest wall; a vessel continues with the same density. Of LIDC-IDRI's nodules, 2 in 100
# would be taken for a vessel from their slices alone (Testing/test_vessels.py).
LUNG_HU, LEAST_HU = -850.0, -500.0  # a vessel is denser; with ground glass, continuation cannot be judged
AROUND_MM = 1.5, 5.0  # distance from its outline; its blurred rim is nearer
WALL_MM = 3.0  # accuracy of the edge of the lungs
MOST_AROUND = 0.4  # volume of its continuation there, as a share of its own


class Vessels:
    """The corner-connected bright components of a volume."""

    def __init__(self, hu: np.ndarray, around: np.ndarray) -> None:
        """Find them.

        Args:
            hu: (slices, rows, columns).
            around: bool, the same shape: the lungs; components are searched for in the box that contains them.
        """
        self._labels = np.zeros(hu.shape, np.uint32)
        self._sizes = np.zeros(0, int)
        box = bounding_box(around)
        if box is not None:
            bright = sitk.GetImageFromArray((hu[box] >= CONTRAST_HU).view(np.uint8))
            pieces = sitk.GetArrayFromImage(sitk.ConnectedComponent(bright, True))
            self._labels[box] = pieces
            self._sizes = np.bincount(pieces[pieces > 0])  # on all voxels it would take twice the memory of the labels

    def contain(self, nodule: Nodule) -> bool:
        """True if a candidate is part of one of them."""
        here = self._labels[nodule.box][nodule.mask]
        bright = here[here > 0]
        if len(bright) <= LEAST_SHARE * len(here):
            return False
        return bool(self._sizes[np.unique(bright)].sum() > BEYOND * len(bright))


def continues_as_vessel(nodule: Nodule, volume: Volume, lungs: np.ndarray) -> bool:
    """True if a candidate continues in the lungs with its own density.

    Args:
        nodule: The candidate, in axial order like the rest.
        volume: HU.
        lungs: bool, the same shape.
    """
    spacing_mm = axial_order(volume).spacing_mm
    near_mm, far_mm = AROUND_MM[0], max(AROUND_MM[1], spacing_mm[0]) + 0.01  # the next slice, at least
    margins = [int(np.ceil((far_mm + WALL_MM) / mm)) for mm in spacing_mm]
    box = tuple(slice(max(0, b.start - m), b.stop + m) for b, m in zip(nodule.box, margins, strict=True))
    mask = np.zeros([min(b.stop, n) - b.start for b, n in zip(box, lungs.shape, strict=True)], bool)
    mask[tuple(slice(n.start - b.start, n.stop - b.start) for n, b in zip(nodule.box, box, strict=True))] = nodule.mask
    hu = crop(volume, box).array
    dense_hu = np.percentile(hu[mask], 80)
    if dense_hu < LEAST_HU:
        return False
    away_mm = _distance_mm(mask, spacing_mm)
    inner = lungs[box] if lungs[box].all() else lungs[box] & (_distance_mm(~lungs[box], spacing_mm) > WALL_MM)
    reached = mask | ((hu >= (dense_hu + LUNG_HU) / 2) & inner & (away_mm <= far_mm))
    pieces = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(reached.view(np.uint8)), True))
    own = np.isin(pieces, np.unique(pieces[mask]))
    return bool(np.count_nonzero(own & (away_mm > near_mm)) > MOST_AROUND * np.count_nonzero(mask))


def _distance_mm(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Distance of every voxel from the outline of a mask; below zero inside."""
    image = sitk.GetImageFromArray(mask.view(np.uint8))
    image.SetSpacing(spacing_mm[::-1])
    return sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, False, False, True))
