"""SimpleITK images: their place in the patient, and their silence. NumPy and SimpleITK only."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

COMPRESSION = 1100  # at most: deflate packs 1,032 zeros into a byte
SLICE_COMPRESSION, SLICE_BYTES = (
    400,
    1 << 26,
)  # of a DICOM file; a slice of air alone may be packed more, and takes little
GDCM = "GDCMImageIO"  # SimpleITK's DICOM reader
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])  # ITK counts mm towards Left, Posterior, Superior; its own inverse


class FileError(ValueError):
    """A file that cannot be read or written; the message says why and what to do."""


@contextmanager
def silence() -> Iterator[None]:
    """Keep what C++ writes straight to file descriptor 2 off the user's terminal.

    ITK, GDCM, OpenJPEG, zlib and nifti_clib warn there, past `sys.stderr`; whoever reads a file here says in a sentence
    of his own what is wrong with it. The descriptor belongs to the whole process: keep the block short.
    """
    if sys.stderr:
        sys.stderr.flush()
    try:
        terminal = os.dup(2)
    except OSError:  # a window without a terminal has no descriptor 2
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def in_text(path: Path) -> str:
    """The name of a file for a message; what is no text in it, as old archives leave behind, in figures."""
    return str(path).encode(errors="backslashreplace").decode()


def name_of(path: Path) -> str:
    """The name of a file for SimpleITK, which ends the whole process on one that is no text.

    Raises:
        FileError: It is such a one.
    """
    if in_text(path) != str(path):
        raise FileError(f"{in_text(path)} has a name that is not valid text: rename it.")
    return str(path)


def read_image(
    path: Path, image_io: str, called: Path | None = None, most_bytes: float | None = None, most_values: int = 1
) -> sitk.Image:
    """Read one grey-value volume.

    Args:
        path: A file that is there and may be read.
        image_io: The reader of SimpleITK to use, so that the ending decides and nothing is guessed.
        called: The name for messages, where `path` is a copy.
        most_bytes: Of voxels that there can be; as many as a DICOM file can hold if None. SimpleITK takes the
            memory that a header claims, and a damaged one may claim all.
        most_values: In a voxel, as the layers of a segmentation.

    Raises:
        FileError: It cannot be read, or is something else.
    """
    reader = read_information(path, image_io, called, most_values)
    voxel = sitk.Image([1] * reader.GetDimension(), reader.GetPixelID(), reader.GetNumberOfComponents())
    claimed = math.prod(reader.GetSize()) * voxel.GetSizeOfPixelComponent() * voxel.GetNumberOfComponentsPerPixel()
    if most_bytes is None:
        most_bytes = max(SLICE_BYTES, path.stat().st_size * SLICE_COMPRESSION)
    if claimed > most_bytes:
        raise FileError(f"{in_text(called or path)} {_what_is_wrong(path, image_io, '')}")
    try:
        with silence():
            return reader.Execute()
    except RuntimeError as error:
        raise FileError(f"{in_text(called or path)} {_what_is_wrong(path, image_io, str(error))}") from error


def read_information(
    path: Path, image_io: str, called: Path | None = None, most_values: int = 1
) -> sitk.ImageFileReader:
    """A reader that has seen the header of one grey-value volume, and could read the rest; arguments as of `read_image`.

    Raises:
        FileError: It cannot be read, or is something else.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(name_of(path))
    try:
        with silence():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise FileError(f"{in_text(called or path)} {_what_is_wrong(path, image_io, str(error))}") from error
    _check_header(called or path, reader, most_values)
    return reader


def array_of(image: sitk.Image) -> np.ndarray:
    """The voxels (K, J, I) of an image that `read_image` has let pass."""
    return sitk.GetArrayFromImage(image).reshape(image.GetSize()[2::-1])


def ijk_to_ras(steps_lps: np.ndarray, origin_lps: np.ndarray) -> np.ndarray:
    """A 4 × 4 matrix in RAS mm from LPS.

    Args:
        steps_lps: 3 × 3, its columns the steps from voxel to voxel along I, J and K.
        origin_lps: Centre of voxel (0, 0, 0).
    """
    matrix = np.eye(4)
    matrix[:3, :3] = LPS_TO_RAS @ steps_lps
    matrix[:3, 3] = LPS_TO_RAS @ origin_lps
    return matrix


def image_from_array(array: np.ndarray, ijk_to_ras: np.ndarray) -> sitk.Image:
    """A 3D image in LPS of an array (K, J, I) placed by a 4 × 4 matrix in RAS."""
    image = sitk.GetImageFromArray(array, isVector=False)
    steps = LPS_TO_RAS @ ijk_to_ras[:3, :3]
    spacing_mm = np.linalg.norm(steps, axis=0)
    image.SetSpacing(spacing_mm.tolist())
    image.SetDirection((steps / spacing_mm).ravel().tolist())
    image.SetOrigin((LPS_TO_RAS @ ijk_to_ras[:3, 3]).tolist())
    return image


def check_shape(path: Path, size: tuple[int, ...], values: int, is_colour: bool) -> tuple[int, ...]:
    """Refuse what is no single volume of grey values; a sequence of one frame is one.

    Args:
        path: The file, for messages.
        size: Voxels along each axis, fastest first.
        values: In each voxel.
        is_colour: Whether these are red, green and blue.

    Returns:
        The three sizes.

    Raises:
        FileError: It is something else.
    """
    count = len(size)
    while count > 3 and size[count - 1] == 1:
        count -= 1
    by = " × ".join(map(str, size))
    if is_colour:
        what = "a colour image (RGB)"
    elif values > 1:
        what = f"an image with {values} values in each voxel"
    elif count > 3:
        what = f"a sequence ({count}D, {by})"
    elif count < 3:
        what = f"a flat picture ({count}D, {by}) without a place in the patient"
    else:
        return size[:3]
    raise FileError(
        f"{path} is {what}, not a single volume of grey values: save the frame or channel that you mean as a volume of its"
        " own."
    )


def _check_header(path: Path, reader: sitk.ImageFileReader, most_values: int) -> None:
    values = reader.GetNumberOfComponents()
    is_colour = values in (3, 4) and reader.GetPixelID() == sitk.sitkVectorUInt8
    if values > most_values:
        check_shape(path, reader.GetSize(), values, is_colour)
    else:
        check_shape(path, reader.GetSize(), 1, is_colour=False)
    # Of DICOM the spacing is read elsewhere. GDCM counts the frames of a file with a negative step where they run down.
    if reader.GetImageIO() == GDCM or all(np.isfinite(s) and s > 0 for s in reader.GetSpacing()):
        return
    spacing = " × ".join(f"{s:g}" for s in reader.GetSpacing())
    raise FileError(
        f"{path} says that its voxels measure {spacing} mm: correct the spacing in the file, or export it again from"
        " where it came."
    )


def _what_is_wrong(path: Path, image_io: str, error: str) -> str:
    if "allocat" in error.lower():
        return "does not fit into this computer's memory: crop it, or close other programs."
    if "orthonormal" in error:
        return "has axes that are not at right angles, which NIfTI files may not have here: convert it to NRRD."
    if image_io == GDCM:
        return (
            "cannot be decoded: the DICOM file is damaged, incomplete or compressed in an unusual way. Copy it again,"
            " or export the series again without compression."
        )
    if path.suffix.lower() in (".nhdr", ".mhd"):
        return "cannot be read: it is damaged, or the data file that it names is missing or damaged. Copy both again."
    return "cannot be read: it is damaged, incomplete or of another format than its name says. Copy or export it again."
