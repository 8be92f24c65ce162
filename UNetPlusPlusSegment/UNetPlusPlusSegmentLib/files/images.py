"""SimpleITK images: their place in the patient, and their silence. NumPy and SimpleITK only."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.volume import Volume

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


def name_of(path: Path) -> str:
    """The name of a file for SimpleITK, which ends the whole process on one that is no text.

    Raises:
        FileError: It is such a one, as old archives leave behind.
    """
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise FileError(
            f"{name.encode(errors='backslashreplace').decode()} has a name that is no text: rename it."
        ) from error
    return name


def read_image(path: Path, image_io: str) -> sitk.Image:
    """Read one grey-value volume.

    Args:
        path: A file that is there and may be read.
        image_io: The reader of SimpleITK to use, so that the ending decides and nothing is guessed.

    Raises:
        FileError: It cannot be read, or is something else.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(name_of(path))
    try:
        with silence():
            reader.ReadImageInformation()
            _check_header(path, reader)
            return reader.Execute()
    except RuntimeError as error:
        raise FileError(f"{path} {_what_is_wrong(path, image_io, str(error))}") from error


def volume_from_image(image: sitk.Image) -> Volume:
    """The voxels (K, J, I) of a 3D grey-value image, and its place from LPS to RAS.

    Raises:
        VolumeError: The image is no such thing.
    """
    array = sitk.GetArrayFromImage(image)
    if image.GetDimension() != 3:
        return Volume(array, np.eye(4))  # which says what is wrong with it
    directions = np.reshape(image.GetDirection(), (3, 3))
    return Volume(array, ijk_to_ras(directions * image.GetSpacing(), image.GetOrigin()))


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


def _check_header(path: Path, reader: sitk.ImageFileReader) -> None:
    size, values, kind = reader.GetSize(), reader.GetNumberOfComponents(), reader.GetPixelID()
    if values in (3, 4) and kind == sitk.sitkVectorUInt8:
        what = "a colour image (RGB)"
    elif values > 1:
        what = f"an image with {values} values in each voxel"
    elif len(size) > 3:
        what = f"a sequence ({len(size)}D, {' × '.join(map(str, size))})"
    elif len(size) < 3:
        what = f"a flat picture ({len(size)}D, {' × '.join(map(str, size))}) without a place in the patient"
    else:
        # GDCM counts the frames of a multi-frame file with a negative step where they run down; nobody else may.
        downwards_allowed = reader.GetImageIO() == GDCM
        if all(np.isfinite(s) and (s > 0 or (s < 0 and downwards_allowed)) for s in reader.GetSpacing()):
            return
        spacing = " × ".join(f"{s:g}" for s in reader.GetSpacing())
        raise FileError(
            f"{path} says that its voxels measure {spacing} mm: correct the spacing in the file, or export it again"
            " from where it came."
        )
    raise FileError(f"{path} is {what}, not one volume of grey values: save the frame or channel that is meant as one.")


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
