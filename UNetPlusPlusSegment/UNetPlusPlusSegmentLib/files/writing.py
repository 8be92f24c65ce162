"""Writing: segmentations as Slicer keeps them, maps and tables, each file whole or not at all."""

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
from ..core.volume import bounding_box
from .images import FileError, image_from_array, name_of, silence
from .nifti import check_whole

NIFTI = ".nii.gz"
MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
LEFT_AFTER_S = 24 * 3600.0  # nothing is written for so long


def check_output(path: str | Path, endings: Sequence[str]) -> None:
    """Refuse an output file before time is spent on what goes into it.

    Args:
        path: The file to write; one that is there may be replaced.
        endings: Those allowed, e.g. (".seg.nrrd", ".nii.gz").

    Raises:
        FileError: Another ending, a folder, or a place where nothing can be written.
    """
    path = Path(path)
    name_of(path)
    target = Path(os.path.realpath(path))
    if not path.name.lower().endswith(tuple(endings)):
        raise FileError(f"{path} cannot be written: its name must end in {' or '.join(endings)}.")
    folder = target.parent
    try:
        if target.exists() and not target.is_file():
            what = "a folder has that name" if target.is_dir() else "it is no file"
            raise FileError(f"{path} cannot be written: {what}. Choose another name.")
        if target.is_symlink():
            raise FileError(f"{path} cannot be written: it is a link that leads back to itself. Choose another name.")
        if not folder.is_dir():
            raise FileError(f"{path} cannot be written: there is no folder {folder}. Create it first.")
        if target.exists():
            target.open("ab").close()  # replacing it would get past its protection
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FileError(
            f"{path} cannot be written: {error.strerror or error}. Choose another place, or get permission to write there."
        ) from error


def check_grid(path: str | Path, ijk_to_ras: np.ndarray) -> None:
    """Refuse an output file whose format cannot hold this grid: NIfTI as ITK writes it, and axes not at right angles.

    Raises:
        FileError: It would be moved to another place without a word.
    """
    steps = ijk_to_ras[:3, :3] / np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    if str(path).lower().endswith(NIFTI) and np.abs(steps.T @ steps - np.eye(3)).max() > 1e-4:
        raise FileError(
            f"{path} cannot be written: the slices of this CT are tilted against their stack, and NIfTI files that every"
            " program reads hold no such grid. Write NRRD instead (.seg.nrrd for a segmentation, .nrrd for a map)."
        )


def write_segmentation(
    path: str | Path, labelmap: np.ndarray, ijk_to_ras: np.ndarray, segments: Sequence[Segment]
) -> None:
    """Write a segmentation: `.seg.nrrd` with all that Slicer knows of it, `.nii.gz` with the voxels alone.

    Args:
        path: The file; what it held is replaced when the new one is whole.
        labelmap: uint8 (K, J, I), 0 where there is no segment.
        ijk_to_ras: 4 × 4, in mm.
        segments: One for each value of the label map, and for each that could have been there.

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
        path: The file; what it held is replaced when the new one is whole.
        array: (K, J, I); float16 becomes float32, which the formats know.
        ijk_to_ras: 4 × 4, in mm.

    Raises:
        FileError: It cannot be written.
    """
    array = array.astype(np.float32) if array.dtype == np.float16 else array
    _write_image(path, image_from_array(array, ijk_to_ras), ijk_to_ras)


def write_report(path: str | Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> None:
    """Write a table as CSV (UTF-8); what is None or missing leaves a cell empty.

    Args:
        path: The file; what it held is replaced when the new one is whole.
        rows: By the names of the columns.
        columns: The first ones, there even if no row is; after them come all others of the rows.

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
        table.writerows(rows)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and move that file there at the end; on any failure nothing is left or lost.

    Where `path` is a link, the file that it leads to is replaced, and the link stays. What a process that was killed left beside
    `path` goes with the next one that writes it; what another one is writing there stays.

    Raises:
        FileError: From an OSError, or from a RuntimeError of SimpleITK.
    """
    path, target = Path(path), Path(os.path.realpath(path))
    ending = "".join(path.suffixes[-2:]).lower()  # the writer goes by it
    mark = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"
    beside = target.with_name(f"{mark}{MACHINE}-{os.getpid()}-{secrets.token_hex(4)}{ending}")
    try:
        yield beside
        beside.replace(target)
        with suppress(OSError):
            for other in target.parent.glob(f"{mark}*-*-*"):
                if _is_left(other):
                    other.unlink()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "the disk may be full or the folder gone"
        raise FileError(f"{path} could not be written: {reason}. Free some space, or choose another place.") from error
    finally:
        beside.unlink(missing_ok=True)


def _is_left(path: Path) -> bool:
    """True if the process that wrote a file of `whole_file` no longer runs, or on another machine cannot be writing any more."""
    _, machine, process, _ = path.name.split("-", 3)
    if machine == MACHINE and sys.platform != "win32":  # there, the signal would end the process
        try:
            os.kill(int(process), 0)
        except (ProcessLookupError, OverflowError, ValueError):
            return True
        except PermissionError:  # it runs, for somebody else
            return False
        return False
    return time.time() - path.stat().st_mtime > LEFT_AFTER_S


def _write_image(path: str | Path, image: sitk.Image, ijk_to_ras: np.ndarray) -> None:
    check_grid(path, ijk_to_ras)
    with whole_file(path) as beside:
        with silence():
            sitk.WriteImage(image, name_of(beside), useCompression=True)
        if str(path).lower().endswith(NIFTI):
            _check_whole(beside)


def _check_whole(path: Path) -> None:
    """ITK's NIfTI writer says nothing when the disk is full."""
    try:
        check_whole(path)
    except FileError as error:
        raise OSError(None, "only a part of it came onto the disk") from error


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
    """First and last voxel along I, J and K; as Slicer has it, last before first if there is none."""
    box = bounding_box(mask)
    if box is None:
        return "0 -1 0 -1 0 -1"
    return " ".join(f"{along.start} {along.stop - 1}" for along in reversed(box))
