"""Writing: segmentations in Slicer's form, maps and tables. Files appear only when they are complete."""

from __future__ import annotations

import csv
import hashlib
import os
import platform
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.segment import Segment
from ..core.table import to_cell
from ..core.volume import bounding_box
from .images import FileError, hint_about, image_from_array, silence, sitk_name
from .nifti import check_whole

NIFTI = ".nii.gz"
MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
LEFT_AFTER_S = 24 * 3600.0  # no file takes this long to write
IN_USE_S = 1.0  # a virus scanner or a search index may look into a new file for that long


def check_output(path: str | Path, endings: Sequence[str]) -> None:
    """Refuse an output file that could not be written, before time is spent on its content.

    Args:
        path: The file to write; an existing file may be replaced.
        endings: The endings allowed, such as (".seg.nrrd", ".nii.gz").

    Raises:
        FileError: It has another ending, is a folder, or cannot be written there.
    """
    path = Path(path)
    sitk_name(path)
    target = Path(os.path.realpath(path))
    if not path.name.lower().endswith(tuple(endings)):
        raise FileError(f"{path} cannot be written: its name must end in {' or '.join(endings)}.")
    folder = target.parent
    try:
        if target.exists() and not target.is_file():
            what = "a folder has that name" if target.is_dir() else "it is not a regular file"
            raise FileError(f"{path} cannot be written: {what}. Choose another name.")
        if target.is_symlink():
            raise FileError(f"{path} cannot be written: it is a link that leads back to itself. Choose another name.")
        if not folder.is_dir():
            raise FileError(f"{path} cannot be written: there is no folder {folder}. Create it first.")
        if target.exists():
            target.open("ab").close()  # without this check, replacing it would ignore its write protection
        tempfile.TemporaryFile(dir=folder).close()
        if hint_about(folder) and path.name.lower().endswith((".nrrd", NIFTI)):
            _try_writing_in(folder)
    except OSError as error:
        raise FileError(
            f"{path} cannot be written: {error.strerror or error}. Close it in other programs, get permission to write there, or choose"
            " another place."
        ) from error


def _try_writing_in(folder: Path) -> None:
    """Refuse a folder that SimpleITK cannot write to, though others can."""
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        try:
            with silence():
                sitk.WriteImage(sitk.Image(1, 1, 1, sitk.sitkUInt8), str(Path(inside, "voxel.nrrd")))
        except RuntimeError as error:
            raise FileError(f"SimpleITK cannot write in {folder}.{hint_about(folder)}") from error


def check_grid(path: str | Path, ijk_to_ras: np.ndarray) -> None:
    """Refuse NIfTI, as ITK writes it, for a grid whose axes are not at right angles.

    Raises:
        FileError: The format would silently change the position of the voxels.
    """
    steps = ijk_to_ras[:3, :3] / np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    if str(path).lower().endswith(NIFTI) and np.abs(steps.T @ steps - np.eye(3)).max() > 1e-4:
        raise FileError(
            f"{path} cannot be written: the slices of this CT are tilted (gantry tilt), and a NIfTI file that every program can read"
            " cannot hold such a grid. Write NRRD instead (.seg.nrrd for a segmentation, .nrrd for a map)."
        )


def write_segmentation(
    path: str | Path, labelmap: np.ndarray, ijk_to_ras: np.ndarray, segments: Sequence[Segment]
) -> None:
    """Write a segmentation: `.seg.nrrd` with names, colours and terminology for Slicer, `.nii.gz` with the voxels only.

    Args:
        path: The file; an existing one is replaced once the new one is complete.
        labelmap: uint8 (K, J, I), 0 where there is no segment.
        ijk_to_ras: 4 × 4, in mm.
        segments: One for each value of the label map; some may be empty.

    Raises:
        FileError: It cannot be written.

    Source: `vtkMRMLSegmentationStorageNode::WriteBinaryLabelmapRepresentation` (Slicer), for the keys.
    """
    image = image_from_array(labelmap, ijk_to_ras)
    if not str(path).lower().endswith(NIFTI):
        for key, value in _slicer_keys(labelmap, segments).items():
            image.SetMetaData(key, value)
    _write_image(path, image, ijk_to_ras)


def write_volume(path: str | Path, array: np.ndarray, ijk_to_ras: np.ndarray) -> None:
    """Write a map of numbers, such as a probability, to `.nrrd` or `.nii.gz`.

    Args:
        path: The file; an existing one is replaced once the new one is complete.
        array: (K, J, I); float16 is written as float32, which the formats support.
        ijk_to_ras: 4 × 4, in mm.

    Raises:
        FileError: It cannot be written.
    """
    array = array.astype(np.float32) if array.dtype == np.float16 else array
    _write_image(path, image_from_array(array, ijk_to_ras), ijk_to_ras)


def write_report(path: str | Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> None:
    """Write a table as CSV (UTF-8). Values that are None or missing become empty cells; for texts, see `core.table.to_cell`.

    Args:
        path: The file; an existing one is replaced once the new one is complete.
        rows: Values by column name.
        columns: The first columns, written even if there are no rows; all other columns of the rows follow.

    Raises:
        FileError: It cannot be written.
    """
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    with (
        whole_file(path) as beside,
        beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
    ):
        table = csv.DictWriter(stream, fieldnames=list(names), lineterminator="\n")
        if names:
            table.writeheader()
        table.writerows({name: to_cell(value) for name, value in row.items()} for row in rows)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path next to `path` to write to, and move that file to `path` at the end; if that fails, nothing changes.

    If `path` is a link, the file that it points to is replaced. Temporary files left by killed processes are deleted by the next
    write to `path`; those that other processes are still writing are not.

    Raises:
        FileError: Raised in place of an OSError, or a RuntimeError of SimpleITK.
    """
    path, target = Path(path), Path(os.path.realpath(path))
    ending = "".join(path.suffixes[-2:]).lower()  # writers choose the format by it
    mark = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"
    beside = target.with_name(f"{mark}{MACHINE}-{os.getpid()}-{secrets.token_hex(4)}{ending}")
    try:
        yield beside
        _replace(beside, target)
        with suppress(OSError):
            for other in target.parent.glob(f"{mark}*-*-*"):
                if _is_left(other):
                    other.unlink()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "the disk may be full or the folder gone"
        is_refused = isinstance(error, PermissionError)
        way_out = "Close it in other programs, get permission to write there" if is_refused else "Free some space"
        hint = hint_about(path) if isinstance(error, RuntimeError) else ""
        raise FileError(f"{path} could not be written: {reason}. {way_out}, or choose another place.{hint}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _replace(beside: Path, target: Path) -> None:
    """Move a file over another one, as soon as no program has either of them open; Windows refuses it until then."""
    until = time.monotonic() + IN_USE_S
    while True:
        try:
            beside.replace(target)
            return
        except PermissionError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.05)


def _is_left(path: Path) -> bool:
    """True if the process that wrote a temporary file no longer runs or, on another machine, must have ended by now."""
    _, machine, process, _ = path.name.split("-", 3)
    if machine == MACHINE and sys.platform != "win32":  # on Windows, the signal would end the process
        try:
            os.kill(int(process), 0)
        except (ProcessLookupError, OverflowError, ValueError):
            return True
        except PermissionError:  # it runs, as another user
            return False
        return False
    return time.time() - path.stat().st_mtime > LEFT_AFTER_S


def _write_image(path: str | Path, image: sitk.Image, ijk_to_ras: np.ndarray) -> None:
    check_grid(path, ijk_to_ras)
    with whole_file(path) as beside:
        with silence():
            sitk.WriteImage(image, sitk_name(beside), useCompression=True)
        if str(path).lower().endswith(NIFTI):
            _check_whole(beside)


def _check_whole(path: Path) -> None:
    """Detect a full disk, which ITK's NIfTI writer does not report."""
    try:
        check_whole(path)
    except FileError as error:
        raise OSError(None, "only a part of it was written") from error


def _slicer_keys(labelmap: np.ndarray, segments: Sequence[Segment]) -> dict[str, str]:
    keys = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for index, segment in enumerate(segments):
        fields = {
            "ID": f"Segment_{segment.value}",
            "Name": segment.name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{channel / 255:.6f}" for channel in segment.color),
            "ColorAutoGenerated": "0",
            "Extent": _extent(labelmap == segment.value),
            "LabelValue": str(segment.value),
            "Layer": "0",
            "Tags": f"TerminologyEntry:{segment.terminology}|",
        }
        keys.update({f"Segment{index}_{field}": value for field, value in fields.items()})
    return keys


def _extent(mask: np.ndarray) -> str:
    """First and last voxel along I, J and K; if there is none, last before first, as in Slicer."""
    box = bounding_box(mask)
    if box is None:
        return "0 -1 0 -1 0 -1"
    return " ".join(f"{along.start} {along.stop - 1}" for along in reversed(box))
