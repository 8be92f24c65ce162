"""NIfTI-1 files: what SimpleITK passes over in silence, looked for before it reads. NumPy only.

It fills what a truncated file lacks with anything, makes 1 mm of a voxel size of 0 or NaN, and 0 HU of a NaN.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from itertools import product
from pathlib import Path

import numpy as np

from .images import FileError

HEADER_BYTES = 348  # NIfTI-1; a NIfTI-2 header has 540
CHUNK_BYTES = 1 << 22
TOLERANCE_MM = 0.5  # between two places that are meant as one: a matrix in single precision, or a rounded one
FLOATS = {16: "f4", 64: "f8"}  # by the code of their data type


def find_lost_values(path: Path) -> np.ndarray:
    """Refuse a NIfTI file that SimpleITK would misread, and find the values that it would lose.

    Args:
        path: A `.nii` or `.nii.gz` that is there and may be read. It is gone through once, which takes about a second for a
            large CT and finds any damage.

    Returns:
        Where the voxels that are NaN or infinite lie in the flat array.

    Raises:
        FileError: NIfTI-2, truncated, damaged, no NIfTI at all, or with an impossible voxel size.

    Source: nifti1.h of the NIFTI Data Format Working Group, for the offsets of `dim` and its followers.
    """
    packed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            header = stream.read(HEADER_BYTES)
            order = _byte_order(path, header)
            start, needed = _check_sizes(path, header, order)
            datatype, bits = struct.unpack_from(order + "2h", header, 70)
            stream.seek(start)
            found, lost = 0, [np.empty(0, int)]
            while chunk := stream.read(min(CHUNK_BYTES, needed - found)):
                if datatype in FLOATS:
                    values = np.frombuffer(chunk[: len(chunk) // (bits // 8) * (bits // 8)], order + FLOATS[datatype])
                    lost.append(found // values.itemsize + np.flatnonzero(~np.isfinite(values)))
                found += len(chunk)
            stream.read(1)  # the end of the compressed data, with its checksum
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileError(f"{path} is damaged or incomplete: copy it again.") from error
    if found < needed:
        raise FileError(f"{path} is incomplete, it holds {found} of {needed} bytes of voxels: copy it again.")
    return np.concatenate(lost)


def notes_on_place(path: Path, ijk_to_ras: np.ndarray) -> list[str]:
    """What the header says of the place in the patient, where that is not what was read.

    Args:
        path: A file that `find_lost_values` has let pass.
        ijk_to_ras: As it was read, 4 × 4 in mm.

    Source: nifti1.h, "3D IMAGE (VOLUME) ORIENTATION AND LOCATION IN SPACE". SimpleITK takes the size
    of the voxels from pixdim, and the rest from the qform or the sform.
    """
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
        header = stream.read(HEADER_BYTES)
    order = _byte_order(path, header)
    qform, sform = struct.unpack_from(order + "2h", header, 252)
    if qform <= 0 and sform <= 0:
        return ["The NIfTI header does not say how the patient lies: left and right, front and back are a guess."]
    if sform <= 0:
        return []
    steps = np.reshape(struct.unpack_from(order + "12f", header, 280), (3, 4))
    sizes = np.array(struct.unpack_from(order + "8h", header, 40))[1:4]
    corners = np.array([*product(*((0, size - 1) for size in sizes), [1])])
    away_mm = np.linalg.norm(corners @ (steps - ijk_to_ras[:3]).T, axis=1).max()
    if away_mm <= TOLERANCE_MM:
        return []
    return [
        f"The NIfTI header contradicts itself by up to {away_mm:.1f} mm: programs that follow its sform place the volume elsewhere, or"
        " give it another size."
    ]


def _byte_order(path: Path, header: bytes) -> str:
    if header[:4] in (struct.pack("<i", 540), struct.pack(">i", 540)):
        raise FileError(
            f"{path} is NIfTI-2, which is not read here: save it as NIfTI-1 or NRRD, for instance with nibabel,"
            " nibabel.save(nibabel.Nifti1Image.from_image(nibabel.load('in.nii.gz')), 'out.nii.gz')."
        )
    order = next((o for o in "<>" if header[:4] == struct.pack(o + "i", HEADER_BYTES)), None)
    if order is None or len(header) < HEADER_BYTES:
        raise FileError(f"{path} is no NIfTI file, though its name says so: copy it again, or correct its ending.")
    return order


def _check_sizes(path: Path, header: bytes, order: str) -> tuple[int, int]:
    """Where the voxels begin, and how many bytes they take."""
    count, *sizes = struct.unpack_from(order + "8h", header, 40)
    bits = struct.unpack_from(order + "h", header, 72)[0]
    pixel_mm = struct.unpack_from(order + "3f", header, 80)[:count]
    start = struct.unpack_from(order + "f", header, 108)[0]
    if not (1 <= count <= 7 and min(sizes[:count]) > 0 and bits > 0 and HEADER_BYTES <= start < 2**31):
        raise FileError(f"{path} has a damaged header: copy it again, or export it again from where it came.")
    if not all(math.isfinite(s) and s > 0 for s in pixel_mm):
        spacing = " × ".join(f"{s:g}" for s in pixel_mm)
        raise FileError(f"{path} says that its voxels measure {spacing} mm: correct pixdim in its header.")
    return int(start), math.prod(sizes[:count]) * bits // 8
