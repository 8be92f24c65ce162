"""A real CT series with identifiers like those of a scanner, which tests change in the ways of archives; nothing of it is kept."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from UNetPlusPlusSegmentLib.core.volume import Volume

STUDY, SERIES, FRAME = generate_uid(), generate_uid(), generate_uid()
MIDDLE = slice(160, 352)  # of the rows and of the columns: smaller files, faster tests
SHARED = {
    "SOPClassUID": CTImageStorage, "StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "FrameOfReferenceUID": FRAME,
    "PatientID": "P1", "PatientName": "Doe^Jane", "PatientBirthDate": "", "PatientSex": "", "StudyID": "1",
    "AccessionNumber": "", "SeriesNumber": 3,
}  # fmt: skip

Edit = Callable[[pydicom.Dataset, int], None]


@functools.cache
def _slices(folder: Path) -> tuple[bytes, ...]:
    """The middle of each slice, uncompressed, lowest slice first, as the content of a file."""
    contents = {}
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        hu = sitk.GetArrayFromImage(sitk.ReadImage(path))[0, MIDDLE, MIDDLE]
        x, y, z = data.ImagePositionPatient
        column_mm, row_mm = data.PixelSpacing
        data.ImagePositionPatient = [x + column_mm * MIDDLE.start, y + row_mm * MIDDLE.start, z]
        data.Rows, data.Columns = hu.shape
        data.RescaleIntercept, data.RescaleSlope = -1024, 1
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data["PixelData"] = pydicom.DataElement("PixelData", "OW", (hu + 1024).astype("<i2").tobytes())
        stream = io.BytesIO()
        data.save_as(stream)
        contents[z] = stream.getvalue()
    return tuple(contents[z] for z in sorted(contents))


def write_series(
    source: Path, folder: Path, edit: Edit | None = None, name: str = "IM{:04}", count: int = 20
) -> list[Path]:
    """Copy the first slices of a series, lowest first, with new identifiers.

    Args:
        source: The real series.
        folder: Where to, made if need be.
        edit: Changes a slice, by its data set and index.
        name: Of the files.
        count: Slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, content in enumerate(_slices(source)[:count]):
        data = pydicom.dcmread(io.BytesIO(content))
        for key, value in SHARED.items():
            setattr(data, key, value)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.InstanceNumber, data.AcquisitionNumber = index + 1, 1
        if edit:
            edit(data, index)
        paths.append(folder / name.format(index))
        data.save_as(paths[-1])
    return paths


def shift(data: pydicom.Dataset, mm: float) -> None:
    x, y, z = data.ImagePositionPatient
    data.ImagePositionPatient = [x, y, z + mm]


def darken(data: pydicom.Dataset, hu: int = 60) -> None:
    """Make another contrast phase: other values from the same pixels."""
    data.RescaleIntercept = float(data.RescaleIntercept) - hu


def assert_same(volume: Volume, clean: Volume) -> None:
    """Check that two volumes have the same voxels at the same places."""
    np.testing.assert_array_equal(volume.array, clean.array)
    np.testing.assert_allclose(volume.ijk_to_ras, clean.ijk_to_ras, atol=1e-6)
