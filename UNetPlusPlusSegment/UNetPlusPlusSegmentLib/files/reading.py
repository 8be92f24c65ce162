"""Reading: one CT volume from a NRRD, NIfTI or MetaImage file, a DICOM file or a DICOM folder."""

from __future__ import annotations

import stat
from pathlib import Path

from ..core.volume import Volume
from .dicom import read_dicom_file, read_dicom_folder
from .images import FileError
from .metaimage import read_metaimage
from .nifti import read_nifti
from .nrrd import read_nrrd

READERS = {
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".hdr": read_nifti,
    ".mha": read_metaimage,
    ".mhd": read_metaimage,
}


def read_volume(path: str | Path, series: str | None = None, force: bool = False) -> tuple[Volume, list[str]]:
    """Read a volume with its position in the patient.

    Args:
        path: `.nrrd`, `.nhdr`, `.nii`, `.nii.gz`, `.hdr` or `.img` (a NIfTI pair), `.mha` or `.mhd`; any other file is taken
            for DICOM. From a folder and its subfolders, the CT series with the most slices is read.
        series: The series to read from a folder, CT or not: its Series Instance UID, or its number in `list_series`.
        force: Assume 1 mm where the file does not give the voxel size.

    Returns:
        The volume, and notes for the user: which series was read, and what in its geometry is approximate or a guess.

    Raises:
        FileError: It does not exist, cannot be read, is damaged, or is not a single grey-value volume.
        VolumeError: Its position in the patient is invalid.
    """
    path = Path(path)
    if _is_folder(path):
        return read_dicom_folder(path, series, force)
    if series is not None:
        raise FileError(
            f"{path} is a single file, which has no series to choose from: leave --series out, or give the folder."
        )
    if path.suffix.lower() == ".img" and (header := path.with_suffix(".hdr")).is_file():
        path = header
    read = READERS.get(volume_ending(path), read_dicom_file)
    return read(path, force=force)


def volume_ending(path: Path) -> str:
    """The file name ending, in lower case, if it is one of a volume format; otherwise empty."""
    return next((e for e in sorted(READERS, key=len, reverse=True) if path.name.lower().endswith(e)), "")


def case_name(path: Path) -> str:
    """The name of a file without its volume ending, or the name of a folder, also of `.` and `..`."""
    path = path.resolve() if path.name in ("", "..") else path
    return path.name[: len(path.name) - len(volume_ending(path))]


def _is_folder(path: Path) -> bool:
    """True for a folder, False for a readable file; refuses everything else."""
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
        raise FileError(
            f"You have no permission to read {path}: ask for it, or copy the data to a folder of your own."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise FileError(f"{path} cannot be read ({error}): check the path and the disk.") from error
    if not is_file:
        raise FileError(f"{path} is neither a file nor a folder: give a volume file or a DICOM folder.")
    if not status.st_size:
        raise FileError(f"{path} is empty (0 bytes): copy it again.")
    return False
