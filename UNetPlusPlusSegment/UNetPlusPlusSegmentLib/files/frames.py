"""Frames: the position of each image in a multi-frame DICOM file; SimpleITK would assume that they are evenly spaced. pydicom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom

from .images import FileError, printable, quiet


class Frame(NamedTuple):
    """The position of an image in the patient: LPS, mm."""

    origin: tuple[float, ...]  # centre of its first pixel
    directions: tuple[float, ...]  # 3 × 3, row by row; its columns are I, J and the normal
    spacing: tuple[float, ...]  # along I and J, and the slice thickness, NaN if not given
    rescale: tuple[float, float] | None = None  # slope and intercept of its values; None if not given
    slice_step: float | None = None  # from its slice to the next; None if not given
    unit: str = ""  # of its rescaled values; empty if not given


def frames_of(path: Path) -> list[Frame]:
    """The frames of a DICOM file in stored order, from its functional groups (PS3.3 C.7.6.16); empty if it has none.

    Raises:
        FileError: A frame does not give its position.
    """
    with quiet():
        try:
            return _frames_of(path)
        except FileError:
            raise
        except Exception as error:  # whatever pydicom meets in a damaged file
            raise FileError(f"{printable(path)} is damaged or incomplete: copy it again.") from error


def order_of(frames: Sequence[Frame]) -> list[int]:
    """Indices that sort parallel frames along their normal."""
    normal = np.reshape(frames[0].directions, (3, 3))[:, 2]
    return np.argsort([np.dot(frame.origin, normal) for frame in frames], kind="stable").tolist()


def _frames_of(path: Path) -> list[Frame]:
    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    groups = [_Groups(frame, shared) for frame in header.get("PerFrameFunctionalGroupsSequence") or ()]
    frames = [group.frame() for group in groups]
    if None in frames:
        raise FileError(
            f"{printable(path)} does not say where each of its frames lies in the patient, or how large its pixels are: export"
            " it as a series of single slices."
        )
    return [frame for frame in frames if frame]


class _Groups:
    """The functional groups of one frame: its own, or those that all frames share."""

    def __init__(self, own: pydicom.Dataset, shared: pydicom.Dataset) -> None:
        self._each = (own, shared)

    def frame(self) -> Frame | None:
        """The frame; None if its position or pixel size is not given."""
        orientation = self._values("PlaneOrientationSequence", "ImageOrientationPatient", 6)
        pixel = self._values("PixelMeasuresSequence", "PixelSpacing", 2)
        thickness_mm = self._values("PixelMeasuresSequence", "SliceThickness", 1) or [np.nan]
        origin = self._values("PlanePositionSequence", "ImagePositionPatient", 3)
        if not (orientation and pixel and origin):
            return None
        along, down = np.reshape(orientation, (2, 3))
        directions = np.column_stack([along, down, np.cross(along, down)])
        slope = self._values("PixelValueTransformationSequence", "RescaleSlope", 1)
        intercept = self._values("PixelValueTransformationSequence", "RescaleIntercept", 1)
        slice_step = self._values("PixelMeasuresSequence", "SpacingBetweenSlices", 1)
        return Frame(
            tuple(origin),
            tuple(directions.ravel()),
            (pixel[1], pixel[0], thickness_mm[0]),
            (slope[0], intercept[0]) if slope and intercept else None,
            slice_step[0] if slice_step else None,
            str(next(self._given("PixelValueTransformationSequence", "RescaleType"), "")).upper(),
        )

    def _values(self, group: str, name: str, count: int) -> list[float]:
        """Exactly `count` finite numbers, or none."""
        for value in self._given(group, name):
            found = np.atleast_1d(value).astype(float)
            if len(found) == count and np.isfinite(found).all():
                return found.tolist()
        return []

    def _given(self, group: str, name: str) -> Iterator[Any]:
        """The values of an attribute: that of the frame before that of all frames."""
        for items in (each.get(group) for each in self._each):
            if items and items[0].get(name) is not None:
                yield items[0].get(name)
