"""The elements of a DICOM header, however they were written, and where its pixel data ends. pydicom."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

import numpy as np
from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.valuerep import STR_VR, VR

START_BYTES = 1024
TYPES = {str(vr.value) for vr in VR}
UNDEFINED = 0xFFFFFFFF  # length given for compressed pixel data, which is stored in fragments
# The first of the three pixel data elements; the per-frame groups.
PIXELS, FRAMES = Tag(0x7FE0, 0x0008), Tag(0x5200, 0x9230)


class Fields:
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


class PixelData:
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


def _raw(data: Dataset, keyword: str) -> bytes:
    """The bytes of a value as stored in the file, or re-encoded if pydicom has already converted it."""
    tag = Tag(keyword)
    value = data.get_item(tag).value if tag in data else b""
    if isinstance(value, bytes):
        return value
    return "\\".join(map(str, [value or ""] if isinstance(value, str | None) else value)).encode()


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
