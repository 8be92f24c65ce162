"""CT in one DICOM file with many frames, made up with pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"


def sequence(**values) -> pydicom.Sequence:
    item = pydicom.Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return pydicom.Sequence([item])


def enhanced_ct(path: Path, positions_mm, aside_mm=0.0, scales=((1, -1000),), placed=True):
    """Frames of 4 × 5 pixels of 0.7 × 0.5 mm, whose HU are 10 times their place in the file; `positions_mm` along S, in file order.

    `scales` are the slope and intercept of each frame; a frame without them does not say how its values become HU.
    """
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = ENHANCED_CT
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.SeriesInstanceUID, header.Modality = generate_uid(), "CT"
    header.Rows, header.Columns, header.NumberOfFrames = 4, 5, len(positions_mm)
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 1
    header.SharedFunctionalGroupsSequence = sequence(
        PixelMeasuresSequence=sequence(PixelSpacing=[0.7, 0.5], SliceThickness=3.0),
        PlaneOrientationSequence=sequence(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
    )
    frames = []
    for number, position in enumerate(positions_mm):
        groups = {}
        if scale := scales[number % len(scales)]:
            groups["PixelValueTransformationSequence"] = sequence(RescaleSlope=scale[0], RescaleIntercept=scale[1])
        if placed:
            groups["PlanePositionSequence"] = sequence(ImagePositionPatient=[10 + aside_mm * number, 20, position])
        frames += sequence(**groups)
    header.PerFrameFunctionalGroupsSequence = pydicom.Sequence(frames)
    stored = [
        (10 * number - intercept) / slope
        for number, (slope, intercept) in ((n, scales[n % len(scales)] or (1, 0)) for n in range(len(positions_mm)))
    ]
    header.PixelData = np.repeat(stored, 4 * 5).astype("<i2").tobytes()
    header.save_as(path, enforce_file_format=True)
    return path
