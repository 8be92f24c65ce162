"""DICOM pixels: the values in a file, decoded by SimpleITK (GDCM)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.tag import Tag
from pydicom.uid import UID

from .dicom_headers import Header
from .images import GDCM, FileError, printable, quiet, read_image

ESSENCE = (
    "SOPClassUID", "SOPInstanceUID", "Modality", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
)  # fmt: skip
RESCALING = ("RescaleIntercept", "RescaleSlope", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# Multi-frame Grayscale Word Secondary Capture, which GDCM does not rescale.
MANY_FRAMES = UID("1.2.840.10008.5.1.4.1.1.7.3")
BODY_HU = (-200, 300)  # range in which contrast agent makes a difference
BLOCKS = 64  # along the shorter side of a slice; their means have little noise
MOST_PHASES = 3
MUCH_LESS = 0.8  # ratio of changes in `count_phases`: 1.3 or more in scans with slices 2 to 7 mm apart, 0.6 in two phases 20 HU apart


def same_pixels(one: Header, other: Header) -> bool:
    """True if two images have the same values; fast for copies of one file."""
    if one.path.stat().st_size == other.path.stat().st_size and one.path.read_bytes() == other.path.read_bytes():
        return True
    return bool(np.array_equal(values_of(one), values_of(other)))


def values_of(header: Header) -> np.ndarray:
    """The images (frame, row, column) of a DICOM file, rescaled to HU or the unit that it names.

    Raises:
        FileError: It cannot be decoded.
    """
    if header.rescale:
        return rescaled(header, [header.rescale])
    path = header.path
    is_text, is_whole = printable(path) == str(path), header.end >= path.stat().st_size
    if is_text and is_whole and not header.is_odd:
        return _decoded(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "slice.dcm")
        if header.is_odd:
            _write_essence(path, copy)
        else:
            # GDCM would read bytes after the pixel data as elements of any length, and SimpleITK accepts no name that is not valid text.
            copy.write_bytes(path.read_bytes()[: header.end])
        return _decoded(copy, path)


def rescaled(header: Header, rescale: Sequence[tuple[float, float]]) -> np.ndarray:
    """The images (frame, row, column) of a DICOM file with functional groups, rescaled.

    SimpleITK would use the rescaling of the first frame for all, and none in secondary captures.

    Args:
        rescale: Slope and intercept of each frame.

    Raises:
        FileError: It cannot be decoded.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "frames.dcm")
        _write_essence(header.path, copy, is_rescaled=False)
        stored = _decoded(copy, header.path)
    slopes, intercepts = np.array(rescale, np.float32).T[:, :, None, None]
    return stored * slopes + intercepts


def _write_essence(path: Path, copy: Path, is_rescaled: bool = True) -> None:
    """Copy only what is needed to decode a DICOM file, with or without its rescaling."""
    with quiet():
        try:
            wanted = [*ESSENCE, *RESCALING] if is_rescaled else ESSENCE
            data = pydicom.dcmread(path, force=True, specific_tags=[*map(Tag, wanted)])
            if not is_rescaled:
                data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = MANY_FRAMES
            if data.get("PhotometricInterpretation") == "MONOCHROME1":
                data.PhotometricInterpretation = "MONOCHROME2"  # only the display differs, the HU are the same
            data.save_as(copy)
        except Exception as error:  # whatever pydicom meets in a damaged file
            raise FileError(f"{printable(path)} is damaged or incomplete: copy it again.") from error


def _decoded(path: Path, called: Path | None = None) -> np.ndarray:
    return sitk.GetArrayFromImage(read_image(path, GDCM, called))


def count_phases(slices: np.ndarray) -> int:
    """Number of phases that alternate in a stack: 1, unless slices resemble the second or third next much more than the next.

    Args:
        slices: (K, J, I) in HU.
    """
    if len(slices) < 4 * MOST_PHASES:
        return 1
    block = max(1, min(slices.shape[1:]) // BLOCKS)
    rows, columns = (side // block for side in slices.shape[1:])
    small = np.stack([
        np.clip(np.nan_to_num(each[: rows * block, : columns * block]), *BODY_HU)
        .reshape(rows, block, columns, block)
        .mean(axis=(1, 3))
        for each in slices
    ])  # fmt: skip
    change = {n: float(np.median(np.abs(small[n:] - small[:-n]).mean(axis=(1, 2)))) for n in range(1, MOST_PHASES + 1)}
    return next((n for n in range(2, MOST_PHASES + 1) if change[n] < MUCH_LESS * change[1]), 1)
