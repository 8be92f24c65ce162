"""DICOM headers: what kind of file it is, and what is needed to stack an image. pydicom; no pixels are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import Tag

from .dicom_elements import START_BYTES, Fields, PixelData
from .frames import Frame, frames_of
from .images import FileError, printable, quiet

CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "enhanced CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "enhanced CT converted from single slices",
}
SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # of masks, and of a label map
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
GREY = ("MONOCHROME1", "MONOCHROME2", "")
ABOUT_UNIT = 0.05  # how far rounding may take the axes of a slice from orthogonal unit vectors
# Attributes that may distinguish the acquisitions of a series, in the order in which they are tried.
ACQUISITION = (
    "AcquisitionNumber", "TemporalPositionIdentifier", "SeriesNumber", "SeriesDescription", "ProtocolName", "ImageType",
    "NominalPercentageOfCardiacPhase", "ContrastBolusAgent", "KVP", "ConvolutionKernel", "SeriesTime", "TriggerTime",
    "EchoTime", "SliceThickness",
)  # fmt: skip
# These increase from slice to slice.
SEQUENTIAL = ("InstanceNumber", "AcquisitionDateTime", "AcquisitionTime", "ContentTime")
TAGS = (
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "Modality", "StudyDate", "SeriesDate", "AcquisitionDate", "StudyID", "PatientID", "PatientName", "PatientBirthDate",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "SpacingBetweenSlices",
    "RescaleIntercept", "RescaleSlope", "RescaleType", "ModalityLUTSequence",
    *ACQUISITION, *SEQUENTIAL,
)  # fmt: skip


class DamagedFileError(FileError):
    """A DICOM file that is truncated or emptied; the message says which."""


class Group(NamedTuple):
    """What slices of a stack have in common: identifiers, size and kind of pixels."""

    patient: tuple[str, ...]
    study: str | tuple[str, ...]
    series: str | tuple[str, ...]
    frame_of_reference: str
    modality: str
    size: tuple[int, int]
    is_grey: bool
    own: Path | None  # the file, if it has several frames


# Names for messages, in the order of `Group`.
GROUP_FIELDS = (
    "Patient ID or Name", "Study Instance UID", "Series Instance UID", "Frame of Reference UID", "Modality",
    "number of rows and columns", "kind of pixels", "file",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Header:
    """What stacking needs from the header of a DICOM image file; lengths in mm, directions and positions in LPS.

    Attributes:
        patient: The same for all images of a person; contains identifiers, so never show it.
        size: Columns, rows, frames.
        position: Centre of the first pixel; None if it is not given.
        directions: 3 × 3; its columns are I, J and the normal of the slice. None if they are not given.
        spacing: Along I and J, and the slice thickness; NaN where it is not given.
        rescaling: Whether it has a rescale intercept and a rescale slope.
        rescale: Slope and intercept in the functional groups of a single frame; None if it has none there.
        unit: Unit of the rescaled values; empty if it is not given, as of several frames, which `frames_of` gives.
        unread: Why its values cannot be read, worded to follow the file's name in a message; empty if they can.
        acquisition: Values by the names of `ACQUISITION` and `SEQUENTIAL`; empty where they are not given.
        end: Where the pixel data ends in the file.
        is_odd: True if GDCM would misread the file: an element has an unknown type, which GDCM may take for gigabytes of data; or
            low values are shown white (MONOCHROME1), which GDCM inverts.
    """

    path: Path
    sop_class: str
    instance: str
    series: str
    modality: str
    date: str
    patient: tuple[str, ...]
    group: Group
    size: tuple[int, int, int]
    is_grey: bool
    position: np.ndarray | None
    directions: np.ndarray | None
    spacing: tuple[float, ...]
    rescaling: tuple[bool, bool]
    rescale: tuple[float, float] | None
    unit: str
    unread: str
    acquisition: dict[str, str]
    end: int
    is_odd: bool

    @property
    def is_placed(self) -> bool:
        """True if it gives its position and orientation in the patient."""
        return self.position is not None and self.directions is not None

    @property
    def is_usable(self) -> bool:
        """True if it can be a slice of a volume: it has grey values, a pixel size and a position."""
        return self.is_grey and self.is_placed and min(self.size) > 0 and all(s > 0 for s in self.spacing[:2])

    @property
    def is_identified(self) -> bool:
        """True if it gives the UIDs of its study, series and frame of reference, and its own."""
        group = self.group
        return isinstance(group.study, str) and all((self.series, self.instance, group.frame_of_reference))

    @property
    def description(self) -> str:
        """Series Description."""
        return self.acquisition["SeriesDescription"]


def start_of(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
        FileError: It cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(START_BYTES)
    except FileNotFoundError as error:
        raise FileError(f"There is no file or folder {printable(path)}: check the path.") from error
    except OSError as error:
        raise FileError(
            f"{printable(path)} cannot be read ({error.strerror}), so a series may lack slices: make it readable, or remove it."
        ) from error


def is_dicom(start: bytes) -> bool:
    """True if the first bytes of a file are those of DICOM; some archives omit the preamble."""
    return start[128:132] == b"DICM" or start[:4] in (
        b"\x08\0\x05\0",
        b"\x08\0\x08\0",
        b"\x08\0\x16\0",
        b"\x08\0\0\0",
        b"\x02\0\0\0",
    )


def class_of(path: Path) -> str:
    """The SOP class of a DICOM file, from the file meta information in its first bytes; empty if it is not there."""
    found = re.search(rb"\x02\0\x02\0UI..([0-9.]*)", start_of(path), re.DOTALL)
    return found[1].decode() if found else ""


def read_header(path: Path) -> Header | None:
    """Read the header of a DICOM file.

    Args:
        path: A file that `is_dicom`.

    Returns:
        None if it is not an image, judged by its SOP class and by whether it has pixels.

    Raises:
        DamagedFileError: It is, or may be, a CT image, but is truncated or emptied.
    """
    with quiet():
        return _read(path)


def _read(path: Path) -> Header | None:
    pixels, cause = PixelData(), None
    try:
        with path.open("rb") as stream:
            data = read_partial(stream, pixels.stop, force=True, specific_tags=[*map(Tag, TAGS)])
            pixels.look_after(stream)
        fields = Fields(data)
        is_whole = pixels.is_whole and fields.fits(pixels.coded_pixels)
        if is_whole and (fields.uid("SOPClassUID") not in CT_CLASSES or fields.holds(pixels.pixel_bytes)):
            return _header(path, fields, pixels) if pixels.pixel_bytes is not None else None
    except Exception as error:  # whatever pydicom meets in a damaged file
        fields, cause = Fields(Dataset()), error
    sop_class = fields.uid("SOPClassUID")
    if sop_class and sop_class not in CT_CLASSES:
        return None
    raise DamagedFileError(
        f"{printable(path)} is a {CT_CLASSES.get(sop_class, 'DICOM')} image that is damaged or incomplete, so its series"
        " would lack a slice: copy it again, or remove it."
    ) from cause


def _header(path: Path, fields: Fields, pixels: PixelData) -> Header:
    columns, rows, frames = (fields.integer(name) for name in ("Columns", "Rows", "NumberOfFrames"))
    size = (columns, rows, max(frames, 1))
    place = frames_of(path)[0] if pixels.has_frames and size[2] == 1 else _place(fields)
    acquisition = {name: fields.text(name) for name in (*ACQUISITION, *SEQUENTIAL)}
    is_grey = fields.integer("SamplesPerPixel") <= 1 and fields.text("PhotometricInterpretation") in GREY
    series, patient = fields.uid("SeriesInstanceUID"), _patient(fields)
    of_study = fields.uid("StudyInstanceUID") or (fields.text("StudyID"), fields.text("StudyDate"))
    of_series = series or (acquisition["SeriesNumber"], acquisition["SeriesDescription"])
    frame, own = fields.uid("FrameOfReferenceUID"), path if size[2] > 1 else None
    sop_class = fields.uid("SOPClassUID")
    modality = fields.text("Modality").upper() or ("CT" if sop_class in CT_CLASSES else "")
    told = [place.rescale is not None or bool(fields.numbers(name, 1)) for name in ("RescaleIntercept", "RescaleSlope")]
    return Header(
        path=path,
        sop_class=sop_class,
        instance=fields.uid("SOPInstanceUID"),
        series=series,
        modality=modality,
        date=next(filter(None, map(fields.text, ("StudyDate", "SeriesDate", "AcquisitionDate"))), ""),
        patient=patient,
        group=Group(patient, of_study, of_series, frame, modality, size[:2], is_grey, own),
        size=size,
        is_grey=is_grey,
        position=_or_none(place.origin, 3),
        directions=_or_none(place.directions, 3, 3),
        spacing=place.spacing,
        rescaling=(told[0], told[1]),
        rescale=place.rescale,
        unit=place.unit or fields.text("RescaleType").upper(),
        unread=_unread(fields),
        acquisition=acquisition,
        end=pixels.end,
        is_odd=pixels.is_odd or fields.text("PhotometricInterpretation") == "MONOCHROME1",
    )


def _unread(fields: Fields) -> str:
    stored, high = fields.integer("BitsStored"), fields.integer("HighBit")
    if fields.has_items("ModalityLUTSequence"):
        return "converts its values to HU with a table (Modality LUT Sequence)"
    if stored and high != stored - 1:
        return f"stores its values in other bits than DICOM allows (High Bit {high} for {stored} Bits Stored)"
    return ""


def _or_none(numbers: Sequence[float], *shape: int) -> np.ndarray | None:
    return np.reshape(numbers, shape) if numbers else None


def _patient(fields: Fields) -> tuple[str, ...]:
    """Identifiers that are the same for a person, however the name is written."""
    name = re.sub(r"[\W_]+", "", fields.text("PatientName")).casefold()
    return tuple(filter(None, (fields.text("PatientID").casefold(), name))) or (fields.text("PatientBirthDate"),)


def _place(fields: Fields) -> Frame:
    """The position of the single image in a file; empty or NaN where it is not given."""
    row_mm, column_mm = fields.numbers("PixelSpacing", 2) or (np.nan, np.nan)
    thickness = [*fields.numbers("SliceThickness", 1), *fields.numbers("SpacingBetweenSlices", 1)]
    return Frame(
        tuple(fields.numbers("ImagePositionPatient", 3)),
        _directions(fields.numbers("ImageOrientationPatient", 6)),
        (column_mm, row_mm, next((t for t in thickness if t > 0), np.nan)),
    )


def _directions(orientation: Sequence[float]) -> tuple[float, ...]:
    """3 × 3, row by row, with columns I, J and the normal; empty if Image Orientation (Patient) is missing or invalid."""
    if len(orientation) != 6:
        return ()
    along, down = np.reshape(orientation, (2, 3))
    if np.abs([along @ along - 1, down @ down - 1, along @ down]).max() > ABOUT_UNIT:
        return ()
    return tuple(np.column_stack([along, down, np.cross(along, down)]).ravel())
