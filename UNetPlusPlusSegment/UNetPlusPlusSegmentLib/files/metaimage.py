"""MetaImage files, read with SimpleITK. It fills in 1 mm and a position where the header has none, so the header is also read here."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..core.volume import Volume
from .geometry import UNITS_MM, Place, place_of, place_volume
from .images import COMPRESSION, FileError, array_of, read_image

IO = "MetaImageIO"
HEADER_BYTES = 1 << 16
MAX_DIMENSIONS = 10  # ITK writes beyond its memory if a header claims more
SPACING = ("elementspacing", "elementsize")
DIRECTIONS = ("transformmatrix", "rotation", "orientation")
ORIGIN = ("offset", "position", "origin")
SLOPE, INTERCEPT = "elementtointensityfunctionslope", "elementtointensityfunctionoffset"  # which ITK ignores


def read_metaimage(path: Path, force: bool = False) -> tuple[Volume, list[str]]:
    """Read a MetaImage file (`.mha`, or `.mhd` with the file that it names).

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
    fields = _fields(path)
    dimensions = fields.get("ndims", "0").split(" ")[0]
    if not dimensions.isdigit() or int(dimensions) > MAX_DIMENSIONS:
        raise FileError(f"{path} has a damaged header: copy it again, or export it again from its source.")
    name = fields.get("elementdatafile", "")
    data = path if name.upper() == "LOCAL" else path.parent / name
    by = COMPRESSION if fields.get("compresseddata", "").lower() in ("true", "t", "1") else 1
    most_bytes = data.stat().st_size * by if data.is_file() else math.inf  # infinite if the header names several files
    image = read_image(path, IO, most_bytes=most_bytes)
    said = place_of(image)
    unit_mm = UNITS_MM.get(fields.get("distanceunits", "").lower(), 1.0)

    def tells(names: tuple[str, ...]) -> bool:
        return any(name in fields for name in names)

    place = Place(
        tuple(s * unit_mm for s in said.spacing_mm) if tells(SPACING) else (np.nan,) * 3,
        said.directions if tells(DIRECTIONS) else None,
        np.array(said.origin) * unit_mm if tells(ORIGIN) else None,
    )
    return place_volume(path, _scaled(path, array_of(image), fields), place, force)


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


def _fields(path: Path) -> dict[str, str]:
    """The fields of the header by name, in lower case; the last one names the data file."""
    with path.open("rb") as stream:
        header = stream.read(HEADER_BYTES)
    fields = {}
    for line in header.split(b"\n"):
        name, equals, value = line.decode("latin-1").partition("=")
        if equals:
            fields[name.strip().lower()] = value.strip()
        if name.strip().lower() == "elementdatafile":
            break
    return fields
