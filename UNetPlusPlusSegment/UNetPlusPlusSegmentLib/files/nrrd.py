"""NRRD files, read with SimpleITK. It fills in 1 mm and a position where the header has none, so the header is also read here."""

from __future__ import annotations

import io
import math
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.volume import Volume
from .geometry import ORIENTATION_GUESSED, UNITS_MM, Place, place_of, place_volume
from .images import COMPRESSION, FileError, array_of, read_image, read_information

IO = "NrrdImageIO"
MOST_LAYERS = 1000
BYTES_OF_A_DIGIT = 8  # in memory, at most, for each digit of a text encoding
CHUNK_BYTES = 1 << 20
UNPACKED_BYTES = 1 << 30  # that any bzip2 file may unpack to; damaged or malicious ones of a few kB would fill a disk
HEADER_BYTES = 1 << 20  # longest header; that of a segmentation with hundreds of segments has 0.1 MB
PATIENT_SPACES = {"left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las"}


def read_nrrd(path: Path, force: bool = False) -> tuple[Volume, list[str]]:
    """Read a NRRD file (`.nrrd`, or `.nhdr` with the file that it names).

    Args:
        path: A file that exists and is readable.
        force: Assume 1 mm for a missing spacing.

    Returns:
        The volume and notes for the user.

    Raises:
        FileError: It is damaged, is not a single grey-value volume, or has no voxel size.
        VolumeError: Its position is invalid.

    Source: https://teem.sourceforge.net/nrrd/format.html
    """
    fields = _fields(path)
    if fields.get("encoding", "").lower() in ("bz2", "bzip2"):
        with tempfile.TemporaryDirectory() as folder:
            copy = _unpacked(path, fields, Path(folder))
            image = read_image(copy, IO, path, copy.stat().st_size)
    else:
        image = read_image(path, IO, most_bytes=_most_bytes(path, fields))
    place, notes = _place(path, fields, image)
    volume, more = place_volume(path, array_of(image), place, force)
    return volume, [*more, *notes]


def read_nrrd_layers(path: Path) -> tuple[list[Volume], list[str]]:
    """Read the label maps of a Slicer segmentation, which stores overlapping segments in several layers of one file.

    Returns:
        A volume for each layer, and notes for the user.

    Raises:
        FileError, VolumeError: As for `read_nrrd`.
    """
    fields = _fields(path)
    if len(fields.get("kinds", "").split()) < 4:
        volume, notes = read_nrrd(path)
        return [volume], notes
    image = read_image(path, IO, most_bytes=_most_bytes(path, fields), most_values=MOST_LAYERS)
    place, notes = _place(path, fields, image)
    voxels = sitk.GetArrayFromImage(image).reshape(*image.GetSize()[2::-1], image.GetNumberOfComponentsPerPixel())
    placed = [place_volume(path, np.ascontiguousarray(layer), place, False) for layer in np.moveaxis(voxels, -1, 0)]
    return [volume for volume, _ in placed], [*placed[0][1], *notes]


def text_of_nrrd(path: Path) -> tuple[dict[str, str], int]:
    """The key/value pairs of a NRRD header, such as those of Slicer's segments, and the number of its layers.

    Raises:
        FileError: It cannot be read.
    """
    reader = read_information(path, IO, most_values=MOST_LAYERS)
    return {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}, reader.GetNumberOfComponents()


def _fields(path: Path) -> dict[str, str]:
    """The fields of the header by name, in lower case; none if the file is not NRRD, which SimpleITK then reports."""
    with path.open("rb") as stream:
        header = stream.read(HEADER_BYTES).replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode("latin-1")
    lines = [line for line in header.split("\n")[1:] if not line.startswith("#") and ":=" not in line]
    return {
        name.strip().lower(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon
    }


def _most_bytes(path: Path, fields: Mapping[str, str]) -> float:
    """Largest plausible size of the voxels, from that of the data file; infinite if there are several, 0 if it is none."""
    name = _data_file(fields)
    if name.startswith("LIST") or "%" in name:
        return math.inf
    data = path.parent / name if name else path
    encoding = fields.get("encoding", "").lower()
    by = COMPRESSION if encoding in ("gzip", "gz") else 1 if encoding == "raw" else BYTES_OF_A_DIGIT
    return data.stat().st_size * by if os.path.isfile(data) else 0  # noqa: PTH113 (its name may be too long for `Path.is_file`)


def _data_file(fields: Mapping[str, str]) -> str:
    return fields.get("data file", fields.get("datafile", ""))


def _place(path: Path, fields: Mapping[str, str], image: sitk.Image) -> tuple[Place, list[str]]:
    """The position that a header gives, and a note if it names no anatomical axes."""
    said, placed = place_of(image), "space directions" in fields
    units = fields.get("space units" if placed else "units", "").replace('"', " ").lower().split()
    unit_mm = next((UNITS_MM[unit] for unit in units if unit in UNITS_MM), 1.0)
    spacing = said.spacing_mm if placed else _spacings(fields)
    origin = np.array(said.origin) * unit_mm if "space origin" in fields else None
    place = Place(tuple(s * unit_mm for s in spacing), said.directions if placed else None, origin)
    anatomical = fields.get("space", "").lower().removesuffix("-time") in PATIENT_SPACES
    return place, [] if anatomical or not placed else [ORIENTATION_GUESSED.format(path.name)]


def _spacings(fields: Mapping[str, str]) -> tuple[float, ...]:
    """Spacings along the three spatial axes; NaN where there is none."""
    kinds = fields.get("kinds", "").lower().split()
    values = []
    for axis, text in enumerate(fields.get("spacings", "").split()):
        try:
            value = float(text)
        except ValueError:
            value = np.nan
        if not (axis < len(kinds) and kinds[axis] not in ("domain", "space", "???", "none")):
            values.append(value)
    return (*values, np.nan, np.nan, np.nan)[:3]


def _unpacked(path: Path, fields: Mapping[str, str], folder: Path) -> Path:
    """A copy without bzip2 compression, which ITK's NRRD reader does not support."""
    try:
        import bz2
    except ImportError as error:
        raise FileError(
            f"{path} is compressed with bzip2, which this Python cannot read: save it with gzip compression."
        ) from error
    content = path.read_bytes()
    header, packed = (*re.split(rb"\r?\n\r?\n", content, maxsplit=1), b"")[:2]
    detached = _data_file(fields)
    dropped = (b"encoding", b"data file", b"datafile")
    lines = [line for line in header.splitlines() if not line.lower().startswith(dropped)]
    copy = folder / "unpacked.nrrd"
    try:
        size = (path.parent / detached).stat().st_size if detached else len(packed)
        room = max(UNPACKED_BYTES, size * COMPRESSION)
        with (
            copy.open("wb") as stream,
            bz2.open(path.parent / detached if detached else io.BytesIO(packed)) as data,
        ):
            stream.write(b"\n".join([*lines, b"encoding: raw", b"", b""]))
            while chunk := data.read(CHUNK_BYTES):
                room -= len(chunk)
                if room < 0:
                    raise ValueError("it unpacks to more than any scan")
                stream.write(chunk)
    except (OSError, EOFError, ValueError) as error:
        raise FileError(f"{path} is damaged or incomplete: copy it again.") from error
    return copy
