"""MetaImage files, read with NumPy; SimpleITK reads the position from the header.

SimpleITK fills in 1 mm and a position where the header has none, so the header is also read here. Its voxels are not used: it reports no
damage of compressed ones, and leaves those that are missing to chance.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.volume import Volume
from .geometry import UNITS_MM, Place, place_of, place_volume
from .images import FileError, array_of, read_information

HEADER_BYTES = 1 << 16
CHUNK_BYTES = 1 << 18
FIELD = re.compile(rb"[ \t]*([^=:]*?)[ \t]*[=:][ \t]*(.*?)\s*")
MAX_DIMENSIONS = 10  # ITK writes beyond its memory if a header claims more
SPACING = ("elementspacing", "elementsize")
DIRECTIONS = ("transformmatrix", "rotation", "orientation")
ORIGIN = ("offset", "position", "origin")
SLOPE, INTERCEPT = "elementtointensityfunctionslope", "elementtointensityfunctionoffset"  # which ITK ignores
BIG_ENDIAN = ("elementbyteordermsb", "binarydatabyteordermsb")


def read_metaimage(path: Path, force: bool = False) -> tuple[Volume, list[str]]:
    """Read a MetaImage file (`.mha`, or `.mhd` with the files that it names).

    Args:
        path: A file that exists and is readable.
        force: Assume 1 mm for a missing spacing.

    Returns:
        The volume and notes for the user. Values are scaled as the header says, to float32 or float64.

    Raises:
        FileError: It is damaged, is not a single grey-value volume, or has no voxel size.
        VolumeError: Its position is invalid.

    Source: https://itk.org/Wiki/ITK/MetaIO/Documentation
    """
    header = read_metaimage_header(path)
    fields, end = _fields(path)
    array = _voxels(path, header, fields, end)
    said = place_of(header)
    unit_mm = UNITS_MM.get(fields.get("distanceunits", "").lower(), 1.0)

    def tells(names: tuple[str, ...]) -> bool:
        return any(name in fields for name in names)

    place = Place(
        tuple(s * unit_mm for s in said.spacing_mm) if tells(SPACING) else (np.nan,) * 3,
        said.directions if tells(DIRECTIONS) else None,
        np.array(said.origin) * unit_mm if tells(ORIGIN) else None,
    )
    return place_volume(path, _scaled(path, array, fields), place, force)


def read_metaimage_header(path: Path) -> sitk.ImageFileReader:
    """A SimpleITK reader that has read the header, if this can do no harm.

    Raises:
        FileError: It is damaged, or not that of a single grey-value volume.
    """
    dimensions = _fields(path)[0].get("ndims", "0").split(" ")[0]
    if not dimensions.isdigit() or int(dimensions) > MAX_DIMENSIONS:
        raise _damaged_header(path)
    return read_information(path, "MetaImageIO")


def _voxels(path: Path, header: sitk.ImageFileReader, fields: Mapping[str, str], end: int) -> np.ndarray:
    """The voxels (K, J, I) as they are stored."""
    size = header.GetSize()
    kind = array_of(sitk.Image([1] * 3, header.GetPixelID(), header.GetNumberOfComponents())).dtype
    data = _data_files(path, fields, end, size)
    each = math.prod(size) * kind.itemsize // len(data)
    try:
        skipped = int(fields.get("headersize", 0))
    except ValueError as error:
        raise _damaged_header(path) from error
    content = bytearray()
    for file in data:
        start = skipped or (end if file == path else 0)
        content += _content(path, file, start, each, _is_true(fields, "compresseddata"))
    stored = kind.newbyteorder(">" if any(_is_true(fields, name) for name in BIG_ENDIAN) else "<")
    return np.frombuffer(content, stored).reshape(size[2::-1]).astype(kind, copy=False)


def _data_files(path: Path, fields: Mapping[str, str], end: int, size: Sequence[int]) -> list[Path]:
    """The files with the voxels, in order, each with the same number of them; the header's own if they follow it."""
    name = fields.get("elementdatafile", "")
    kind, *words = name.split() or [""]
    needed = size[-1]  # of several files
    try:
        if name.upper() == "LOCAL":
            return [path]
        if kind.upper() == "LIST":
            names = list(filter(None, map(str.strip, _text(path.read_bytes()[end:]).splitlines())))
        elif "%" in kind:  # perhaps with the first and last number, and the step
            first, last, step = (*map(int, words), *(1, needed, 1)[len(words) :])
            names = [kind % number for number in range(first, last + 1, step)[:needed]]
        else:
            return [path.parent / name]
    except (TypeError, ValueError) as error:
        raise _damaged_header(path) from error
    if len(names) < needed:
        raise FileError(f"{path} names {len(names)} data files, but needs {needed}: export it again from its source.")
    return [path.parent / each for each in names[:needed]]


def _content(path: Path, file: Path, start: int, count: int, is_packed: bool) -> bytearray:
    """The bytes of the voxels in a file, from `start`, or at its end if that is negative."""
    content, unpack = bytearray(), zlib.decompressobj(zlib.MAX_WBITS | 32) if is_packed else None  # zlib or gzip
    try:
        if not file.is_file():  # a device or a pipe may never end
            raise FileNotFoundError(file)
        with file.open("rb") as stream:
            stream.seek(start if start >= 0 else max(0, file.stat().st_size - count))
            # Compressed data is read to its end, where it has a checksum, but never more than one byte too many.
            while (len(content) < count or (unpack and not unpack.eof and len(content) == count)) and (
                chunk := stream.read(CHUNK_BYTES)
            ):
                left = count - len(content)
                content += unpack.decompress(chunk, left + 1) if unpack else chunk[:left]
        if len(content) != count or (unpack and not unpack.eof):
            raise ValueError("it has another length")
        return content
    except (OSError, ValueError, zlib.error) as error:
        raise FileError(
            f"{path} is damaged or incomplete: copy it again."
            if file == path
            else f"{path} cannot be read: a data file that it names is missing or damaged. Copy all of them again."
        ) from error


def _damaged_header(path: Path) -> FileError:
    return FileError(f"{path} has a damaged header: copy it again, or export it again from its source.")


def _is_true(fields: Mapping[str, str], name: str) -> bool:
    return fields.get(name, "").startswith(("T", "t", "1"))


def _scaled(path: Path, array: np.ndarray, fields: dict[str, str]) -> np.ndarray:
    try:
        slope, intercept = float(fields.get(SLOPE, 1)), float(fields.get(INTERCEPT, 0))
    except ValueError:
        slope = intercept = math.nan
    if (slope, intercept) == (1, 0):
        return array
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope):
        raise FileError(
            f"{path} says that its values are scaled by {fields.get(SLOPE, 1)} and {fields.get(INTERCEPT, 0)}, which is impossible:"
            " correct ElementToIntensityFunctionSlope and Offset in its header, or export it again from its source."
        )
    exact = array.dtype if array.dtype.kind == "f" else np.float32
    return (array.astype(np.float64) * slope + intercept).astype(exact)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields of the header by name, in lower case, and where it ends; the last one names the data file."""
    with path.open("rb") as stream:
        header = stream.read(HEADER_BYTES)
    fields, end = {}, 0
    for line in header.split(b"\n"):
        end += len(line) + 1
        if found := FIELD.fullmatch(line):
            name, value = map(_text, found.groups())
            fields[name.lower()] = value
            if name.lower() == "elementdatafile":
                break
    return fields, end


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")  # as Python writes the names of files
