"""DICOM SEG of other programs, read: their segments, and the frames of these. Colours need highdicom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset

from ..core.volume import Volume
from .dicom_grid import TOLERANCE_MM
from .dicom_places import SAME_PLACE_MM
from .frames import Frame, frames_of
from .images import FileError, ijk_to_ras, printable, quiet


def segments_of_dicom_seg(path: Path) -> list[tuple[int, str, str, tuple[int, int, int] | None]]:
    """Number, name, terminology (Slicer's seven-part string) and colour of each segment of a DICOM SEG; no pixels are read.

    Raises:
        FileError: It is damaged.
    """
    with _reading(path):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        return [
            (int(item.SegmentNumber), str(item.SegmentLabel), _terminology(item), _color(item))
            for item in header.SegmentSequence
            if item.SegmentNumber  # 0 is the background of a label map
        ]


def series_of_dicom_seg(path: Path) -> str:
    """The UID of the series that a DICOM SEG refers to; empty if it names none.

    Raises:
        FileError: It is damaged.
    """
    with _reading(path):
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["ReferencedSeriesSequence"])
        referenced = header.get("ReferencedSeriesSequence")
        return str(referenced[0].get("SeriesInstanceUID", "")) if referenced else ""


def read_dicom_seg(path: Path) -> list[Volume]:
    """Read each frame of a DICOM SEG as a volume of one slice, with the number of its segment as value and 0 as background.

    Raises:
        FileError: It is damaged, or its frames have no positions.
    """
    frames = frames_of(path)
    with _reading(path):
        data = pydicom.dcmread(path)
        pixels = data.pixel_array.reshape(-1, data.Rows, data.Columns)
        kind = data.SegmentationType
        if kind == "FRACTIONAL":
            pixels = pixels.astype(np.uint16) * 2 >= int(data.MaximumFractionalValue)
        numbers = [1] * len(frames) if kind == "LABELMAP" else [_number_of(data, n) for n in range(len(frames))]
        slices, step = [], _slice_step(frames)
        for frame, plane, number in zip(frames, pixels, numbers, strict=True):
            steps = np.column_stack([np.reshape(frame.directions, (3, 3))[:, :2] * frame.spacing[:2], step])
            values = plane.astype(np.uint16) * number
            slices.append(Volume(values[np.newaxis], ijk_to_ras(steps, np.array(frame.origin))))
        return slices


def _slice_step(frames: Sequence[Frame]) -> np.ndarray:
    """The step from slice to slice, in mm; it leads sideways, too, if the gantry was tilted."""
    normal = np.reshape(frames[0].directions, (3, 3))[:, 2]
    origins = np.array([frame.origin for frame in frames])
    places = origins @ normal
    span = origins[places.argmax()] - origins[places.argmin()]
    rise_mm = span @ normal
    aside = span - rise_mm * normal
    is_tilted = rise_mm > SAME_PLACE_MM and np.linalg.norm(aside) > TOLERANCE_MM
    return _slice_mm(frames[0], np.sort(places)) * (normal + aside / rise_mm if is_tilted else normal)


def _slice_mm(first: Frame, places: np.ndarray) -> float:
    """The distance between slices: slices without voxels have no frames, so the gaps between sorted places may be larger."""
    if first.slice_step:
        return abs(first.slice_step)
    gaps = np.diff(places)
    gaps = gaps[gaps > SAME_PLACE_MM]
    if not len(gaps):
        thick_mm = first.spacing[2]
        return thick_mm if thick_mm > 0 else 1.0  # a thickness of 0 mm is allowed, and some files give none
    return float(gaps[gaps < 1.5 * gaps.min()].mean())  # the mean, as positions may be rounded


def _number_of(data: Dataset, frame: int) -> int:
    for groups in (data.PerFrameFunctionalGroupsSequence[frame], data.SharedFunctionalGroupsSequence[0]):
        if "SegmentIdentificationSequence" in groups:
            return int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    raise ValueError("a frame belongs to no segment")


def _terminology(item: Dataset) -> str:
    """Slicer's seven-part string for the codes of a segment."""

    def code(within: Dataset, keyword: str) -> tuple[str, Dataset | None]:
        found = (within.get(keyword) or [None])[0]
        if found is None:
            return "^^", None
        value = found.get("CodeValue") or found.get("LongCodeValue", "")
        return f"{found.get('CodingSchemeDesignator', '')}^{value}^{found.get('CodeMeaning', '')}", found

    category, _ = code(item, "SegmentedPropertyCategoryCodeSequence")
    kind, inner = code(item, "SegmentedPropertyTypeCodeSequence")
    if inner is None:
        return ""
    modifier, _ = code(inner, "SegmentedPropertyTypeModifierCodeSequence")
    region, place = code(item, "AnatomicRegionSequence")
    side, _ = code(place, "AnatomicRegionModifierSequence") if place is not None else ("^^", None)
    lists = "Segmentation category and type - DICOM master list", "Anatomic codes - DICOM master list"
    return "~".join([lists[0], category, kind, modifier, lists[1], region, side])


def _color(item: Dataset) -> tuple[int, int, int] | None:
    if "RecommendedDisplayCIELabValue" not in item:
        return None
    try:
        import highdicom as hd
    except ImportError:  # a missing colour is no reason to refuse the file
        return None
    red, green, blue = hd.color.CIELabColor.from_dicom_value(item.RecommendedDisplayCIELabValue).to_rgb()
    return int(red), int(green), int(blue)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever error pydicom raises on a damaged file into a FileError."""
    try:
        with quiet():
            yield
    except FileError:
        raise
    except Exception as error:
        raise FileError(f"{printable(path)} is damaged or incomplete: copy it again.") from error
