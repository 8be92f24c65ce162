"""DICOM pixels: the values of a file, decoded by SimpleITK (GDCM)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .dicom_headers import Header
from .images import GDCM, in_text, read_image


def same_pixels(one: Header, other: Header) -> bool:
    """Whether two images have the same values; quickly so if they are copies of one file."""
    if one.path.stat().st_size == other.path.stat().st_size and one.path.read_bytes() == other.path.read_bytes():
        return True
    return bool(np.array_equal(values_of(one.path), values_of(other.path)))


def values_of(path: Path) -> np.ndarray:
    """The images (frame, row, column) of a DICOM file in the unit of its rescaling, HU in CT."""
    if in_text(path) == str(path):
        return sitk.GetArrayFromImage(read_image(path, GDCM))
    with tempfile.TemporaryDirectory() as folder:  # SimpleITK takes no name that is not text
        link = Path(folder, "slice.dcm")
        link.symlink_to(path.absolute())
        return sitk.GetArrayFromImage(read_image(link, GDCM))
