"""Frames: where each image of a multi-frame DICOM file lies, which SimpleITK takes for even. pydicom."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom

from .images import FileError


class Frame(NamedTuple):
    """The place of an image in the patient: LPS, mm."""

    origin: tuple[float, ...]  # centre of its first pixel
    directions: tuple[float, ...]  # 3 × 3 by rows; its columns are I, J and the normal
    spacing: tuple[float, ...]  # along I and J, and its thickness


def frames_of(path: Path) -> list[Frame]:
    """The frames of a DICOM file as they lie in it, from its functional groups (PS3.3 C.7.6.16); none if it has no such groups.

    Raises:
        FileError: A frame does not say where it lies, or they are scaled to HU in different ways.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's may quote the patient's name
        try:
            return _frames_of(path)
        except FileError:
            raise
        except Exception as error:  # whatever pydicom meets in a damaged file
            raise FileError(f"{path} is damaged or incomplete: copy it again.") from error


def _frames_of(path: Path) -> list[Frame]:
    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]

    def values(frame: pydicom.Dataset, group: str, name: str, count: int) -> list[float]:
        for items in (frame.get(group), shared.get(group)):
            if items and items[0].get(name) is not None:
                found = np.atleast_1d(items[0].get(name)).astype(float)
                if len(found) == count and np.isfinite(found).all():
                    return found.tolist()
        raise FileError(
            f"{path} does not say where each of its frames lies in the patient, or how large its pixels are: export it"
            " as a series of single slices."
        )

    frames, scales = [], set()
    for frame in header.get("PerFrameFunctionalGroupsSequence") or ():
        along, down = np.reshape(values(frame, "PlaneOrientationSequence", "ImageOrientationPatient", 6), (2, 3))
        directions = np.column_stack([along, down, np.cross(along, down)])
        row_mm, column_mm = values(frame, "PixelMeasuresSequence", "PixelSpacing", 2)
        thickness_mm = values(frame, "PixelMeasuresSequence", "SliceThickness", 1)
        origin = values(frame, "PlanePositionSequence", "ImagePositionPatient", 3)
        frames.append(Frame(tuple(origin), tuple(directions.ravel()), (column_mm, row_mm, *thickness_mm)))
        transformation = (frame.get("PixelValueTransformationSequence") or [{}])[0]
        scales.add((transformation.get("RescaleSlope"), transformation.get("RescaleIntercept")))
    if len(scales) > 1:
        raise FileError(
            f"The frames of {path} are scaled to HU in different ways, which is not read here: export it as a series of"
            " single slices."
        )
    return frames
