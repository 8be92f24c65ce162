"""SimpleITK images: reading them safely and quietly, and their position in the patient. NumPy and SimpleITK only."""

from __future__ import annotations

import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from threading import Lock

import numpy as np
import SimpleITK as sitk

COMPRESSION = 1100  # highest ratio of gzip: deflate packs 1,032 zeros into a byte
# For DICOM files: the highest ratio, and a size that is allowed at any ratio, as a slice of nothing but air compresses even better.
SLICE_COMPRESSION, SLICE_BYTES = 400, 1 << 26
GDCM = "GDCMImageIO"  # SimpleITK's DICOM reader
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])  # ITK uses mm towards Left, Posterior, Superior; the matrix is its own inverse


class FileError(ValueError):
    """A file that cannot be read or written; the message says why and what to do."""


def _shared(change: Callable[[], AbstractContextManager[None]]) -> Callable[[], AbstractContextManager[None]]:
    """Share a change of the whole process among threads: the first to need it makes it, and the last to leave undoes it.

    If each thread undid its own, one that began during another's would bring that one's back, for good.
    """
    lock, made, users = Lock(), ExitStack(), 0

    @contextmanager
    @wraps(change)
    def shared() -> Iterator[None]:
        nonlocal users
        with lock:
            if not users:
                made.enter_context(change())
            users += 1
        try:
            yield
        finally:
            with lock:
                users -= 1
                if not users:
                    made.close()

    return shared


@_shared
@contextmanager
def silence() -> Iterator[None]:
    """Keep C++ warnings, which go straight to file descriptor 2, off the user's terminal.

    ITK, GDCM, OpenJPEG, zlib and nifti_clib write there, bypassing `sys.stderr`; the readers here report problems in their own
    words. The descriptor belongs to the whole process, so keep the block short.
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


@_shared
@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings of pydicom and highdicom off the terminal and out of logs, as they may quote the patient's name."""
    loggers = [logging.getLogger(name) for name in ("highdicom", "pydicom")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def printable(path: Path) -> str:
    """The path of a file for a message; bytes that are not valid text, as in old archives, are escaped."""
    return str(path).encode(errors="backslashreplace").decode()


def sitk_name(path: Path) -> str:
    """The path of a file for SimpleITK, which would end the whole process on a name that is not valid text.

    Raises:
        FileError: The name is not valid text.
    """
    if printable(path) != str(path):
        raise FileError(f"{printable(path)} has a name that is not valid text: rename it.")
    return str(path)


def hint_about(path: str | Path) -> str:
    """A sentence for an error of SimpleITK; empty if the path cannot be the reason.

    In Python on Windows, ITK opens names in the code page of the system, but gets them in UTF-8
    (https://github.com/InsightSoftwareConsortium/ITK/issues/6739).
    """
    if sys.platform == "win32" and not str(path).isascii():
        return (
            " On Windows, letters such as ü in the path may also be the reason: choose a folder and a name without them, or turn on"
            " *Use Unicode UTF-8 for worldwide language support* in the regional settings."
        )
    return ""


def read_image(
    path: Path, image_io: str, called: Path | None = None, most_bytes: float | None = None, most_values: int = 1
) -> sitk.Image:
    """Read one grey-value volume.

    Args:
        path: A file that exists and is readable.
        image_io: The SimpleITK reader to use, so that the format is not guessed.
        called: The path for messages, if `path` is a temporary copy.
        most_bytes: Largest plausible size of the voxels; None for that of a DICOM file. SimpleITK allocates whatever the header
            claims, and a damaged header may claim all memory.
        most_values: Largest number of values in a voxel, such as the layers of a segmentation.

    Raises:
        FileError: It cannot be read, or is not such a volume.
    """
    reader = read_information(path, image_io, called, most_values)
    voxel = sitk.Image([1] * reader.GetDimension(), reader.GetPixelID(), reader.GetNumberOfComponents())
    claimed = math.prod(reader.GetSize()) * voxel.GetSizeOfPixelComponent() * voxel.GetNumberOfComponentsPerPixel()
    if most_bytes is None:
        most_bytes = max(SLICE_BYTES, path.stat().st_size * SLICE_COMPRESSION)
    if claimed > most_bytes:
        raise FileError(f"{printable(called or path)} {_what_is_wrong(path, image_io, '')}")
    try:
        with silence():
            return reader.Execute()
    except RuntimeError as error:
        wrong = _what_is_wrong(path, image_io, str(error)) + hint_about(path)
        raise FileError(f"{printable(called or path)} {wrong}") from error


def read_information(
    path: Path, image_io: str, called: Path | None = None, most_values: int = 1
) -> sitk.ImageFileReader:
    """A SimpleITK reader that has read the header of a grey-value volume; arguments as in `read_image`.

    Raises:
        FileError: It cannot be read, or is not such a volume.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(sitk_name(path))
    try:
        with silence():
            reader.ReadImageInformation()
    except RuntimeError as error:
        wrong = _what_is_wrong(path, image_io, str(error)) + hint_about(path)
        raise FileError(f"{printable(called or path)} {wrong}") from error
    _check_header(called or path, reader, most_values)
    return reader


def array_of(image: sitk.Image) -> np.ndarray:
    """The voxels (K, J, I) of an image from `read_image`."""
    return sitk.GetArrayFromImage(image).reshape(image.GetSize()[2::-1])


def ijk_to_ras(steps_lps: np.ndarray, origin_lps: np.ndarray) -> np.ndarray:
    """A 4 × 4 matrix in RAS mm from LPS.

    Args:
        steps_lps: 3 × 3; its columns are the steps from voxel to voxel along I, J and K.
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
    """Refuse images that are not a single grey-value volume; a sequence with one frame is accepted.

    Args:
        path: The file, for messages.
        size: Number of voxels along each axis, fastest first.
        values: Number of values in each voxel.
        is_colour: True if these are red, green and blue.

    Returns:
        The three sizes.

    Raises:
        FileError: It is not such a volume.
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
        what = f"a flat picture ({count}D, {by}) without a position in the patient"
    else:
        return size[:3]
    raise FileError(
        f"{path} is {what}, not a single volume of grey values: save the frame or channel that you need as a separate volume."
    )


def _check_header(path: Path, reader: sitk.ImageFileReader, most_values: int) -> None:
    values = reader.GetNumberOfComponents()
    is_colour = values in (3, 4) and reader.GetPixelID() == sitk.sitkVectorUInt8
    if values > most_values:
        check_shape(path, reader.GetSize(), values, is_colour)
    else:
        check_shape(path, reader.GetSize(), 1, is_colour=False)
    # The spacing of DICOM is read elsewhere; GDCM gives it a negative sign for frames in descending order.
    if reader.GetImageIO() == GDCM or all(np.isfinite(s) and s > 0 for s in reader.GetSpacing()):
        return
    spacing = " × ".join(f"{s:g}" for s in reader.GetSpacing())
    raise FileError(
        f"{path} says that its voxels measure {spacing} mm: correct the spacing in the file, or export it again from"
        " its source."
    )


def _what_is_wrong(path: Path, image_io: str, error: str) -> str:
    if "allocat" in error.lower():
        return "does not fit into this computer's memory: crop it, or close other programs."
    if "orthonormal" in error:
        return "has axes that are not at right angles, which is not supported for NIfTI files: convert it to NRRD."
    if image_io == GDCM:
        return (
            "cannot be decoded: the DICOM file is damaged, incomplete or compressed in an unusual way. Copy it again,"
            " or export the series again without compression."
        )
    if path.suffix.lower() in (".nhdr", ".mhd"):
        return "cannot be read: it is damaged, or the data file that it names is missing or damaged. Copy both again."
    return "cannot be read: it is damaged, incomplete or in another format than its name says. Copy or export it again."
