"""Small made-up volumes, segments and files. DICOM is written with pydicom, independently of the reader under test."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

from UNetPlusPlusSegmentLib.core.segment import Segment

SERIES, STUDY = generate_uid(), generate_uid()
LIVER = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure"
    "~SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^"
)
NODULE = (
    "Segmentation category and type - DICOM master list~SCT^49755003^Morphologically Altered Structure"
    "~SCT^27925004^Nodule~^^~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^"
)
KIDNEY = (  # with a place for the side
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure"
    "~SCT^64033007^Kidney~{}~Anatomic codes - DICOM master list~^^~^^"
)
RIGHT, LEFT = "SCT^24028007^Right", "SCT^7771000^Left"
SEGMENTS = (
    Segment(1, "Liver", LIVER, (221, 130, 101), {}),
    Segment(2, "Nothing, but named", NODULE, (1, 2, 3), {}),
    Segment(7, "Nodule 1", NODULE, (144, 238, 144), {}),
)


def grid(angles=(0, 0, 0), spacing_mm=(0.7, 0.8, 3.0), shear=0.0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing_mm
    matrix[:3, 2] += shear * matrix[:3, 1]
    matrix[:3, 3] = (-120.5, 33.25, 1007.125)
    return matrix


STRAIGHT, OBLIQUE, SHEARED = grid(), grid((20, -10, 30)), grid((5, 0, 0), shear=0.4)
FLIPPED = STRAIGHT * [-1, -1, -1, 1]


def labels() -> np.ndarray:
    labelmap = np.zeros((5, 6, 8), np.uint8)
    labelmap[1:3, 2:4, 3:7] = 1
    labelmap[3, 4, 1:3] = 7
    return labelmap


def ct() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 400, (5, 6, 8)).astype(np.int16)


def written(path: Path, array: np.ndarray | None = None, **options) -> Path:
    """Write an array (or `ct()`) with SimpleITK; returns the path."""
    sitk.WriteImage(sitk.GetImageFromArray(ct() if array is None else array, **options), path, path.suffix != ".nhdr")
    return path


def write_slice(path: Path, position: tuple[float, float, float] = (0, 0, 0), value: int = 40, **tags: object) -> Path:
    """Write a CT slice of 6 rows and 8 columns at 0.5 × 0.7 mm, with one HU value; a tag of None is left out."""
    data = pydicom.Dataset()
    defaults = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "Modality": "CT",
        "ImagePositionPatient": list(position),
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.7],
        "SliceThickness": 2.5,
        "Rows": 6,
        "Columns": 8,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
        "PixelData": np.full((6, 8), value + 1024, np.int16).tobytes(),
    }
    for name, content in {**defaults, **tags}.items():
        if content is not None:
            setattr(data, name, content)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


WHO = {
    "PatientID": "1", "PatientName": "A^B", "PatientBirthDate": "", "PatientSex": "O", "StudyID": "1", "AccessionNumber": "2",
    "StudyDate": "20260101", "StudyTime": "120000", "ReferringPhysicianName": "", "SeriesNumber": 3,
}  # fmt: skip


def five_slices(folder: Path) -> Path:
    """Five slices whose names go down as they go up, at places that only their headers tell; returns their folder."""
    frame = generate_uid()
    for k in range(5):
        write_slice(folder / f"{9 - k}.dcm", (1, 2, 30 + 2.5 * k), FrameOfReferenceUID=frame, InstanceNumber=k, **WHO)
    return folder


def raw_nrrd(path, *lines, encoding="raw", values=None):
    """An int16 NRRD file with these lines in its header, and no other geometry."""
    values = ct() if values is None else values
    sizes = " ".join(map(str, values.shape[::-1]))
    fields = [
        "type: int16",
        f"dimension: {values.ndim}",
        f"sizes: {sizes}",
        "endian: little",
        f"encoding: {encoding}",
        *lines,
    ]
    pack = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}[encoding]
    path.write_bytes("\n".join(["NRRD0004", *fields, "", ""]).encode() + pack(values.astype("<i2").tobytes()))
    return path
