"""Reading: one CT volume from a NRRD, NIfTI or MetaImage file, a DICOM file or a DICOM folder."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import numpy as np

from ..core.volume import Volume
from .dicom import read_dicom_file, read_dicom_folder
from .images import FileError, read_image, volume_from_image
from .nifti import find_lost_values, notes_on_place

IMAGE_IO = {
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}


def read_volume(path: str | Path, series: str | None = None) -> tuple[Volume, list[str]]:
    """Read a volume with its place in the patient.

    Args:
        path: `.nrrd`, `.nhdr`, `.nii`, `.nii.gz`, `.mha` or `.mhd`; any other file is taken for DICOM. Of a folder and the
            folders in it, the CT series with the most slices is read.
        series: Series Instance UID of what to read from a folder, CT or not.

    Returns:
        The volume, and notes for the user: which series was taken, how far its geometry is approximated.

    Raises:
        FileError: It is not there, may not be read, is damaged, or is not one volume of grey values.
        VolumeError: Its place in the patient makes no sense.
    """
    path = Path(path)
    if _is_folder(path):
        return read_dicom_folder(path, series)
    if series is not None:
        raise FileError(
            f"{path} is a file, which has no series to choose from: leave --series out, or give its folder."
        )
    ending = next((e for e in sorted(IMAGE_IO, key=len, reverse=True) if path.name.lower().endswith(e)), None)
    if ending is None:
        return read_dicom_file(path)
    lost = find_lost_values(path) if IMAGE_IO[ending] == "NiftiImageIO" else ()
    if IMAGE_IO[ending] == "MetaImageIO":
        _check_dimensions(path)
    volume = volume_from_image(read_image(path, IMAGE_IO[ending]))
    if len(lost):
        volume.array.reshape(-1)[lost] = np.nan
    return volume, notes_on_place(path, volume.ijk_to_ras) if IMAGE_IO[ending] == "NiftiImageIO" else []


def _check_dimensions(path: Path) -> None:
    """ITK writes past the end of its memory when a MetaImage header claims more than 10 dimensions."""
    with path.open("rb") as stream:
        claimed = re.search(rb"NDims\s*=\s*(\d+)", stream.read(4096))
    if claimed and int(claimed[1]) > 10:
        raise FileError(f"{path} has a damaged header: copy it again, or export it again from where it came.")


def _is_folder(path: Path) -> bool:
    """Whether it is a folder, after what keeps it from being read at all."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            next(path.iterdir(), None)  # may it be read?
            return True
        is_file = stat.S_ISREG(status.st_mode)
        if is_file:
            path.open("rb").close()
    except FileNotFoundError as error:
        raise FileError(f"There is no file or folder {path}: check the path.") from error
    except PermissionError as error:
        raise FileError(f"You may not read {path}: ask for permission, or copy it to a place of yours.") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise FileError(f"{path} cannot be read ({error}): check the path and the disk.") from error
    if not is_file:
        raise FileError(f"{path} is neither a file nor a folder: give a volume file or a DICOM folder.")
    if not status.st_size:
        raise FileError(f"{path} is empty (0 bytes): copy it again.")
    return False
