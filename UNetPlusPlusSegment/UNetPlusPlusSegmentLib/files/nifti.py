"""NIfTI-1 files, read with NumPy.

Not read with SimpleITK, which fills the missing part of a truncated file with arbitrary values, turns a voxel size of 0 into 1 mm and
NaN into 0 HU, and refuses axes that are out of square by rounding.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import product
from pathlib import Path

import numpy as np

from ..core.volume import Volume
from .geometry import Place, ijk_to_ras_of, nearest_rotation, place_volume
from .images import LPS_TO_RAS, FileError, check_shape

HEADER_BYTES = 348  # NIfTI-1; a NIfTI-2 header has 540
CHUNK_BYTES = 1 << 22
SINGLE, PAIR = b"n+1\0", b"ni1\0"  # the magic at the end of the header
IMAGE_ENDINGS = (".img", ".img.gz", ".IMG")
GZIP = b"\x1f\x8b"
TOLERANCE_MM = (
    0.5  # two positions this close are meant to be the same: matrices are stored in single precision, or rounded
)
ORTHONORMAL = 1e-4  # tolerance for a matrix times its transpose, in single precision
TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
    32: "c8", 1792: "c16", 128: "V3", 2304: "V4",
}  # fmt: skip
VALUES = {"c": 2, "V": 3}  # number of values in a voxel, if more than one
UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # metre, millimetre, micrometre; any other is taken for mm


@dataclass(frozen=True)
class Header:
    """The fields of a NIfTI-1 header that are needed, as stored; names as in nifti1.h."""

    order: str  # byte order, "<" or ">"
    is_pair: bool  # the voxels are in a separate file
    dim: tuple[int, ...]  # the sizes, without their number
    datatype: int
    vox_offset: int
    pixdim: tuple[float, ...]  # qfac, then the spacings along I, J and K
    scl: tuple[float, float]  # slope and intercept
    unit_mm: float
    qform_code: int
    sform_code: int
    quatern: tuple[float, ...]  # b, c, d
    qoffset: tuple[float, ...]
    srow: np.ndarray  # 3 × 4

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels as stored."""
        return np.dtype(self.order + TYPES[self.datatype])


def read_nifti(path: Path, force: bool = False) -> tuple[Volume, list[str]]:
    """Read a NIfTI-1 file, compressed or not, whatever its ending says; or a pair of header and image.

    Args:
        path: A file that exists and is readable; for a pair, the header (`.hdr`) next to its image (`.img`).
        force: Assume 1 mm for a missing spacing.

    Returns:
        The volume and notes for the user. Values are scaled as the header says, to float32 or float64.

    Raises:
        FileError: It is NIfTI-2, Analyze or not NIfTI at all, is truncated or damaged, is not a single grey-value volume, or has an
            impossible position.

    Source: nifti1.h of the NIFTI Data Format Working Group. The choice between qform and sform is that of ITK
    (`itk::NiftiImageIO::SetImageIOOrientationFromNIfTI`), so that masks have the same position in programs built on it.
    """
    with _opened(path) as stream:
        header = _header(path, stream.read(HEADER_BYTES))
        if not header.is_pair:
            array = _voxels(path, header, stream)
    if header.is_pair:
        image = _image_of(path)
        with _opened(image) as stream:
            array = _voxels(image, header, stream)
    slope, intercept = header.scl
    if math.isfinite(slope) and math.isfinite(intercept) and slope != 0 and (slope, intercept) != (1, 0):
        exact = array.dtype if array.dtype.kind == "f" else np.float32
        with np.errstate(all="ignore"):  # overflow becomes infinity, which counts as not measured
            array = (array.astype(np.float64) * slope + intercept).astype(exact)
    place, notes = _place(path, header)
    volume, more = place_volume(path, array, place, force)
    return volume, [*more, *(notes or _contradiction(header, volume.ijk_to_ras))]


def nifti_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray, bool]:
    """From the header of a NIfTI-1 file: sizes along I, J and K, `ijk_to_ras`, and whether its values have 8 bits.

    Raises:
        FileError: It is damaged or not NIfTI-1.
    """
    with _opened(path) as stream:
        header = _header(path, stream.read(HEADER_BYTES))
    place, _ = _place(path, header)
    size = (*header.dim, 1, 1)[:3]
    return size, ijk_to_ras_of(place), header.dtype.itemsize == 1


def check_whole(path: Path) -> None:
    """Refuse a NIfTI file that is incomplete: ITK's writer does not report a full disk.

    Raises:
        FileError: It is truncated or damaged.
    """
    with _opened(path) as stream:
        header = _header(path, stream.read(HEADER_BYTES))
        for _ in _chunks(path, header, stream):
            pass


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    """Open a file, decompressing it if needed; errors of the decompression become a FileError."""
    with path.open("rb") as raw:
        packed = raw.read(2) == GZIP
        raw.seek(0)
        try:
            with gzip.open(raw) if packed else raw as stream:
                yield stream
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FileError(f"{path} is damaged or incomplete: copy it again.") from error


def _header(path: Path, content: bytes) -> Header:
    if content[:4] in (struct.pack("<i", 540), struct.pack(">i", 540)):
        raise FileError(
            f"{path} is NIfTI-2, which is not supported: save it as NIfTI-1 or NRRD, for instance with nibabel:"
            " nibabel.save(nibabel.Nifti1Image.from_image(nibabel.load('in.nii.gz')), 'out.nii.gz')."
        )
    order = next((o for o in "<>" if content[:4] == struct.pack(o + "i", HEADER_BYTES)), None)
    if order is None or len(content) < HEADER_BYTES:
        raise FileError(f"{path} is not a NIfTI file, though its name says so: copy it again, or correct its ending.")

    magic, is_header = content[344:348], path.name.lower().endswith(".hdr")
    is_pair = is_header and magic == PAIR
    if is_header and magic not in (SINGLE, PAIR):
        raise FileError(
            f"{path} is an Analyze file, which does not tell left from right: give the DICOM series that it was made from, or convert"
            " that series to NIfTI or NRRD."
        )

    def values(form: str, offset: int) -> tuple:
        return struct.unpack_from(order + form, content, offset)

    count, *sizes = values("8h", 40)
    (datatype,), (start,), (units,) = values("h", 70), values("f", 108), values("B", 123)
    first = 0 if is_pair else HEADER_BYTES
    whole = 1 <= count <= 7 and min(sizes[:count]) > 0 and datatype in TYPES and first <= start < 2**31
    srow = np.reshape(values("12f", 280), (3, 4))
    qform_code, sform_code = values("2h", 252)
    if not whole or (sform_code > 0 and not np.isfinite(srow).all()):
        raise FileError(f"{path} has a damaged header: copy it again, or export it again from its source.")
    return Header(
        order=order,
        is_pair=is_pair,
        dim=tuple(sizes[:count]),
        datatype=datatype,
        vox_offset=int(start),
        pixdim=values("4f", 76),
        scl=values("2f", 112),
        unit_mm=UNITS_MM.get(units & 7, 1.0),
        qform_code=qform_code,
        sform_code=sform_code,
        quatern=values("3f", 256),
        qoffset=values("3f", 268),
        srow=srow,
    )


def _image_of(path: Path) -> Path:
    """The image file that belongs to a header."""
    stem = path.name[: path.name.lower().rfind(".hdr")]
    found = [path.with_name(stem + ending) for ending in IMAGE_ENDINGS]
    image = next((each for each in found if each.is_file()), None)
    if image is None:
        raise FileError(
            f"{path} is the header of a NIfTI pair, and its image {found[0].name} is missing: copy both again."
        )
    return image


def _voxels(path: Path, header: Header, stream: BufferedIOBase) -> np.ndarray:
    """The voxels (K, J, I) as they are stored."""
    kind, sizes = header.dtype.kind, header.dim
    # NIfTI stores the values of a voxel along the fifth axis.
    is_vector = math.prod(sizes[4:5]) == math.prod(sizes[3:]) > 1
    values = VALUES.get(kind) or (sizes[4] if is_vector else 1)
    size = check_shape(path, sizes[:3] if is_vector else sizes, values, is_colour=kind == "V")
    content = bytearray()  # grows with the data, so that a damaged header cannot claim all memory
    for chunk in _chunks(path, header, stream):
        content += chunk
    return np.frombuffer(content, header.dtype).reshape(size[::-1]).astype(header.dtype.newbyteorder("="), copy=False)


def _chunks(path: Path, header: Header, stream: BufferedIOBase) -> Iterator[bytes]:
    """The bytes of the voxels, piece by piece; reads to the end, where a compressed file has its checksum."""
    needed, found = math.prod(header.dim) * header.dtype.itemsize, 0
    stream.seek(header.vox_offset)
    while chunk := stream.read(min(CHUNK_BYTES, needed - found)):
        found += len(chunk)
        yield chunk
    stream.read(1)
    if found < needed:
        raise FileError(f"{path} is incomplete, with only {found} of {needed} bytes of voxels: copy it again.")


def _place(path: Path, header: Header) -> tuple[Place, list[str]]:
    """The position of the voxels, and a note if their axes had to be adjusted."""
    size = (*header.dim, 1, 1)[:3]
    spacing = tuple(value * header.unit_mm for value in (*header.pixdim[1 : len(header.dim) + 1], 1.0, 1.0)[:3])
    if header.qform_code <= 0 and header.sform_code <= 0:
        return Place(spacing, None, None), []
    steps, offset = _qform(header) if _follows_qform(header) else (header.srow[:, :3], header.srow[:, 3])
    lengths = np.linalg.norm(steps, axis=0)
    if not (lengths > 0).all() or abs(np.linalg.det(steps / lengths)) < 1e-3:
        raise FileError(
            f"{path} has axes that do not span a volume: correct its sform, or export it again from its source."
        )
    directions, origin = LPS_TO_RAS @ (steps / lengths), LPS_TO_RAS @ offset * header.unit_mm
    if _is_orthonormal(directions):
        return Place(spacing, directions, origin), []
    directions, origin, away = nearest_rotation(size, LPS_TO_RAS @ steps * header.unit_mm, origin)
    if away > 1:
        raise FileError(
            f"{path} has axes that are not at right angles, by up to {away:.1f} voxels: convert it to NRRD, which can hold"
            " such a grid, or export it again from its source."
        )
    return Place(spacing, directions, origin), [
        f"The axes of {path.name} are not quite at right angles; they were corrected, which moves voxels by up to"
        f" {away:.2g} voxels."
    ]


def _follows_qform(header: Header) -> bool:
    """True if ITK uses the qform: not if the sform is the only one, is that of the scanner, or is the same but more exact."""
    if header.qform_code <= 0 or header.sform_code <= 0:
        return header.qform_code > 0
    lengths = np.linalg.norm(header.srow[:, :3], axis=0)
    if not (lengths > 0).all() or not _is_orthonormal(header.srow[:, :3] / lengths):
        return True
    alike = np.abs(np.column_stack(_qform(header)) - header.srow).max() <= ORTHONORMAL
    return not (header.sform_code == 1 or alike)


def _is_orthonormal(directions: np.ndarray) -> bool:
    return bool(np.abs(directions @ directions.T - np.eye(3)).max() <= ORTHONORMAL)


def _qform(header: Header) -> tuple[np.ndarray, np.ndarray]:
    """Steps and offset in RAS, in the header's unit and in single precision, as nifti_quatern_to_mat44 of nifti1_io.c computes them."""
    b, c, d = (value if math.isfinite(value) else 0.0 for value in header.quatern)
    a = 1.0 - (b * b + c * c + d * d)
    if a < 1e-7:  # a rotation by 180°
        scale = 1.0 / math.sqrt(b * b + c * c + d * d)
        a, b, c, d = 0.0, b * scale, c * scale, d * scale
    else:
        a = math.sqrt(a)
    rotation = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
    ])  # fmt: skip
    spacing = [value if 0 < value < math.inf else 1.0 for value in header.pixdim[1:4]]
    flip = -1 if header.pixdim[0] < 0 else 1
    with np.errstate(over="ignore"):
        steps = (rotation * spacing * (1, 1, flip)).astype(np.float32).astype(float)
    offset = [value if math.isfinite(value) else 0.0 for value in header.qoffset]
    return steps, np.array(offset)


def _contradiction(header: Header, ijk_to_ras: np.ndarray) -> list[str]:
    """A note if the sform gives another position than the one that was read."""
    if header.sform_code <= 0:
        return []
    corners = np.array([*product(*((0, size - 1) for size in (*header.dim, 1, 1)[:3]), [1])])
    away_mm = np.linalg.norm(corners @ (header.srow * header.unit_mm - ijk_to_ras[:3]).T, axis=1).max()
    if away_mm <= TOLERANCE_MM:
        return []
    return [
        f"The NIfTI header contradicts itself by up to {away_mm:.1f} mm (sform against qform or pixdim): programs that use its sform"
        " place or scale the volume differently."
    ]
