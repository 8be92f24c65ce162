"""Vessels: what in a chest is bright with contrast medium and goes on as a vessel does. NumPy and SimpleITK only."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from .nodule_targets import Nodule
from .regions import bounding_box

# Soft tissue stays below it, vessels full of contrast medium and calcified nodules do not; a calcified nodule is all
# there is of its bright piece, a vessel goes on. Of the 890 nodules of LIDC-IDRI's crops, as two readers marked them, 5
# would be taken for a vessel (Testing/test_vessels.py).
CONTRAST_HU = 160
LEAST_SHARE = 0.2  # of a spot's voxels that are so bright
BEYOND = 2.0  # the bright pieces that it touches have so many times the bright voxels in it


class Vessels:
    """The bright pieces of a volume, corner-connected."""

    def __init__(self, hu: np.ndarray, around: np.ndarray) -> None:
        """Find them.

        Args:
            hu: (slices, rows, columns).
            around: bool, the same shape: the lungs; pieces are looked for in the box that holds them.
        """
        self._labels = np.zeros(hu.shape, np.uint32)
        self._sizes = np.zeros(0, int)
        box = bounding_box(around)
        if box is not None:
            bright = sitk.GetImageFromArray((hu[box] >= CONTRAST_HU).view(np.uint8))
            pieces = sitk.GetArrayFromImage(sitk.ConnectedComponent(bright, True))
            self._labels[box] = pieces
            self._sizes = np.bincount(pieces[pieces > 0])  # of all voxels it would take twice the memory of the labels

    def hold(self, nodule: Nodule) -> bool:
        """Whether what looks like a nodule is part of one of them."""
        here = self._labels[nodule.box][nodule.mask]
        bright = here[here > 0]
        if len(bright) <= LEAST_SHARE * len(here):
            return False
        return bool(self._sizes[np.unique(bright)].sum() > BEYOND * len(bright))
