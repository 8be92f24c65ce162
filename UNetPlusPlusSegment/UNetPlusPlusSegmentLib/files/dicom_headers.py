"""DICOM headers: what kind of file it is, and what is needed to stack an image. pydicom; no pixels are read."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.valuerep import STR_VR, VR

from .frames import Frame, frames_of
from .images import FileError, printable, quiet

CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "enhanced CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "enhanced CT converted from single slices",
}
SEGMENTATION_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
GREY = ("MONOCHROME1", "MONOCHROME2", "")
START_BYTES = 1024
ABOUT_UNIT = 0.05  # how far rounding may take the axes of a slice from orthogonal unit vectors
TYPES = {str(vr.value) for vr in VR}
UNDEFINED = 0xFFFFFFFF  # length given for compressed pixel data, which is stored in fragments
# The first of the three pixel data elements; the per-frame groups.
PIXELS, FRAMES = Tag(0x7FE0, 0x0008), Tag(0x5200, 0x9230)
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
    found, cause = _Found(), None
    try:
        with path.open("rb") as stream:
            data = read_partial(stream, found.stop, force=True, specific_tags=[*map(Tag, TAGS)])
            found.look_after(stream)
        fields = _Fields(data)
        is_whole = found.is_whole and fields.fits(found.coded_pixels)
        if is_whole and (fields.uid("SOPClassUID") not in CT_CLASSES or fields.holds(found.pixel_bytes)):
            return _header(path, fields, found) if found.pixel_bytes is not None else None
    except Exception as error:  # whatever pydicom meets in a damaged file
        fields, cause = _Fields(Dataset()), error
    sop_class = fields.uid("SOPClassUID")
    if sop_class and sop_class not in CT_CLASSES:
        return None
    raise DamagedFileError(
        f"{printable(path)} is a {CT_CLASSES.get(sop_class, 'DICOM')} image that is damaged or incomplete, so its series"
        " would lack a slice: copy it again, or remove it."
    ) from cause


def _header(path: Path, fields: _Fields, found: _Found) -> Header:
    columns, rows, frames = (fields.integer(name) for name in ("Columns", "Rows", "NumberOfFrames"))
    size = (columns, rows, max(frames, 1))
    place = frames_of(path)[0] if found.has_frames and size[2] == 1 else _place(fields)
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
        end=found.end,
        is_odd=found.is_odd or fields.text("PhotometricInterpretation") == "MONOCHROME1",
    )


def _unread(fields: _Fields) -> str:
    stored, high = fields.integer("BitsStored"), fields.integer("HighBit")
    if fields.has_items("ModalityLUTSequence"):
        return "converts its values to HU with a table (Modality LUT Sequence)"
    if stored and high != stored - 1:
        return f"stores its values in other bits than DICOM allows (High Bit {high} for {stored} Bits Stored)"
    return ""


def _or_none(numbers: Sequence[float], *shape: int) -> np.ndarray | None:
    return np.reshape(numbers, shape) if numbers else None


def _patient(fields: _Fields) -> tuple[str, ...]:
    """Identifiers that are the same for a person, however the name is written."""
    name = re.sub(r"[\W_]+", "", fields.text("PatientName")).casefold()
    return tuple(filter(None, (fields.text("PatientID").casefold(), name))) or (fields.text("PatientBirthDate"),)


def _place(fields: _Fields) -> Frame:
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


class _Found:
    """What is found about the pixel data while reading a header."""

    def __init__(self) -> None:
        self.has_frames = False
        self.is_odd = False  # an element has a type that is unknown to DICOM
        self.pixel_bytes: int | None = None  # UNDEFINED if compressed
        self.is_whole = False
        self.end = 0  # of the pixel data, in bytes from the start of the file
        self.coded_pixels = 0  # pixels in a frame according to its JPEG 2000 data; 0 for other formats
        self._offset = 0

    def stop(self, tag: int, vr: str | None, length: int) -> bool:
        """Tell pydicom to stop reading at the pixel data; the arguments are those of its callback."""
        self.has_frames |= tag == FRAMES
        self.is_odd |= vr is not None and vr not in TYPES
        if tag < PIXELS:
            return False
        if tag >> 16 == PIXELS >> 16:
            self.pixel_bytes, self._offset = length, 8 if vr is None else 12
        return True

    def look_after(self, stream: BinaryIO) -> None:
        """Check that the pixel data is complete; `stream` is positioned before it."""
        start, size = stream.tell(), os.fstat(stream.fileno()).st_size
        if self.pixel_bytes is None or start >= size:  # no pixel data, or a deflated file, which pydicom has unpacked
            self.end = size if self.pixel_bytes is not None else start
        elif self.pixel_bytes != UNDEFINED:
            self.end = start + self._offset + self.pixel_bytes
        else:
            self.end = _end_of_fragments(stream, start + self._offset, size)
            stream.seek(start + self._offset)
            self.coded_pixels = _coded_pixels(stream.read(START_BYTES))
        self.is_whole = self.end <= size


def _coded_pixels(fragments: bytes) -> int:
    """Columns times rows of the first JPEG 2000 image in compressed pixel data; 0 if there is none."""
    start = fragments.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(fragments) < start + 24:
        return 0
    right, bottom, left, top = struct.unpack_from(">4I", fragments, start + 8)
    return max(right - left, 0) * max(bottom - top, 0)


def _end_of_fragments(stream: BinaryIO, start: int, size: int) -> int:
    """Where compressed pixel data that begins at `start` ends, with its delimiter; beyond `size` if the delimiter is missing."""
    while start + 8 <= size:
        stream.seek(start)
        group, element, length = struct.unpack("<HHL", stream.read(8))
        if (group, element) == (0xFFFE, 0xE0DD):
            return start + 8
        if (group, element) != (0xFFFE, 0xE000):
            break
        start += 8 + length
    return size + 1


def _raw(data: Dataset, keyword: str) -> bytes:
    """The bytes of a value as stored in the file, or re-encoded if pydicom has already converted it."""
    tag = Tag(keyword)
    value = data.get_item(tag).value if tag in data else b""
    if isinstance(value, bytes):
        return value
    return "\\".join(map(str, [value or ""] if isinstance(value, str | None) else value)).encode()


class _Fields:
    """The values of a header by keyword, whatever type they were written with; empty where they are invalid."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        charsets = _raw(self._data, "SpecificCharacterSet").decode("latin-1").split("\\")
        try:
            self._encodings = convert_encodings([name.strip(" \0") for name in charsets])
        except (LookupError, ValueError):
            self._encodings = ["latin-1"]

    def text(self, keyword: str) -> str:
        """A text on one line, without control characters."""
        value = _raw(self._data, keyword)
        try:
            text = decode_bytes(value, self._encodings, set())
        except (LookupError, ValueError):
            text = value.decode("latin-1")
        return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())

    def uid(self, keyword: str) -> str:
        """A UID of the data set; if it lacks the SOP class, that of the file meta information."""
        own = self.text(keyword)
        if own or keyword != "SOPClassUID":
            return own
        return (
            _raw(getattr(self._data, "file_meta", Dataset()), "MediaStorageSOPClassUID").decode("latin-1").strip(" \0")
        )

    def numbers(self, keyword: str, count: int) -> list[float]:
        """Exactly `count` finite numbers, or none."""
        try:
            values = [float(part) for part in _raw(self._data, keyword).decode("latin-1").strip(" \0").split("\\")]
        except ValueError:
            return []
        return values if len(values) == count and np.isfinite(values).all() else []

    def integer(self, keyword: str) -> int:
        """An integer, stored as binary 16 bits or as text, which only its type tells apart; 0 if there is none."""
        value, tag = _raw(self._data, keyword), Tag(keyword)
        stored: object = self._data.get_item(tag) if tag in self._data else None
        if isinstance(stored, RawDataElement) and len(value) == 2:
            kind = stored.VR if stored.VR in TYPES - {"UN"} else dictionary_VR(tag)
            if kind not in STR_VR:
                return int.from_bytes(value, "little" if stored.is_little_endian else "big")
        try:
            return int(value.strip(b" \0") or b"0")
        except ValueError:
            return 0

    def has_items(self, keyword: str) -> bool:
        """True if a sequence is present and not empty."""
        return Tag(keyword) in self._data and bool(self._data.get_item(Tag(keyword)).value)

    def fits(self, coded_pixels: int) -> bool:
        """True if a JPEG 2000 image has about the size of the header: its decoder allocates whatever the image claims."""
        return coded_pixels <= 4 * self.integer("Rows") * self.integer("Columns")

    def holds(self, pixel_bytes: int | None) -> bool:
        """True if there are pixels, with as many bytes as rows and columns need."""
        rows, columns, frames = (self.integer(name) for name in ("Rows", "Columns", "NumberOfFrames"))
        bits = rows * columns * max(frames, 1) * self.integer("BitsAllocated")
        return pixel_bytes is not None and bits > 0 and pixel_bytes >= bits // 8
