"""DICOM: one file, or the CT series of a folder, to a volume. SimpleITK (GDCM) and NumPy; `frames` for what lies in one file."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import SimpleITK as sitk

from ..core.volume import Volume
from .frames import Frame, frames_of
from .images import GDCM, FileError, ijk_to_ras, name_of, read_image, silence

CLASS_UID, INSTANCE_UID, MODALITY, DESCRIPTION = "0008|0016", "0008|0018", "0008|0060", "0008|103e"
SERIES_UID, POSITION, ORIENTATION = "0020|000e", "0020|0032", "0020|0037"
THICKNESS, PIXEL_SPACING = "0018|0050", "0028|0030"
SEGMENTATION_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
CT_CLASSES = (b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.2.1\0")  # as they lie in a file
TOLERANCE_MM = 0.1  # slices nearer than this to an even, upright stack are said to be in one


@dataclass(frozen=True)
class Header:
    """What the stacking needs of one DICOM image file; lengths in mm, directions and positions in LPS."""

    path: Path
    series: str
    modality: str
    description: str
    instance: str
    is_segmentation: bool
    is_placed: bool  # says where it lies in the patient
    size: tuple[int, int, int]  # columns, rows, frames
    origin: tuple[float, ...]
    directions: tuple[float, ...]  # 3 × 3 by rows; its columns are I, J and the normal of the slice
    spacing: tuple[float, ...]

    @property
    def plane(self) -> tuple:
        """Equal for slices that can lie on one stack; a file with many frames is a stack of its own."""
        frames = self.path if self.size[2] > 1 else None
        return self.size[:2], tuple(np.round(self.directions, 3)), tuple(np.round(self.spacing[:2], 4)), frames


def read_dicom_file(path: Path) -> tuple[Volume, list[str]]:
    """Read one DICOM file, with one slice or many frames.

    Returns:
        The volume and notes for the user.

    Raises:
        FileError: It is no DICOM image of grey values.
    """
    header = _header(path)
    if header is None:
        raise FileError(
            f"{path} is damaged or no image that can be read here: give .nrrd, .nhdr, .nii, .nii.gz, .mha, .mhd, a"
            " DICOM image or a DICOM folder."
        )
    volume, notes = _read_stack([header])
    if header.modality != "CT":
        notes.insert(0, f"By its DICOM header this is no CT but {header.modality or 'of no modality'}.")
    if header.size[2] == 1:
        notes.append("Only the slice in this file was read; for its whole series give the folder.")
    return volume, notes


def read_dicom_folder(folder: Path, series: str | None) -> tuple[Volume, list[str]]:
    """Read the CT series with the most slices of a folder and the folders in it, or the series asked for.

    Args:
        folder: With DICOM files, among others.
        series: Series Instance UID; then the modality does not matter.

    Returns:
        The volume and notes for the user.

    Raises:
        FileError: There is no such series, or it is no stack of slices.
    """
    taken, notes = _choose_stack(folder, series)
    volume, more = _read_stack(taken)
    return volume, notes + more


def slices_of(path: Path, series: str | None = None) -> list[Path]:
    """The files that `read_dicom_file` or `read_dicom_folder` makes a volume of, one for each of its slices, in their order.

    Raises:
        FileError: It is no DICOM, one file with many frames, or a series that does not say which it is.
    """
    header = None if path.is_dir() else _header(path)
    if not path.is_dir() and header is None:
        raise FileError(
            f"{path} is no DICOM image, and a DICOM SEG refers to one: give the DICOM series, or another output."
        )
    stack = [header] if header else _choose_stack(path, series)[0]
    if stack[0].size[2] > 1:
        raise FileError(
            f"{stack[0].path} holds many frames in one file, of which no DICOM SEG is written here: write .seg.nrrd."
        )
    if not all(header.series and header.instance for header in stack):
        raise FileError(
            f"The slices in {path} have lost the identifiers by which a DICOM SEG refers to them, as some anonymisers do:"
            " write .seg.nrrd, or give the series as the scanner made it."
        )
    return [header.path for header in _in_order(stack)]


def _choose_stack(folder: Path, series: str | None) -> tuple[list[Header], list[str]]:
    """The stack of slices to read from a folder, and notes."""
    stacks, notes = _scan(folder)
    if not stacks:
        raise FileError(f"The folder {folder} holds no DICOM image: give a folder with a CT series, or a volume file.")
    listed = "; ".join(_in_words(stack) for stack in stacks)
    if series is None:
        fit = [stack for stack in stacks if stack[0].modality == "CT"]
        if not fit:
            raise FileError(
                f"The folder {folder} holds no CT series, only {listed}: give another folder, or choose one of these"
                " with --series UID."
            )
    else:
        fit = [stack for stack in stacks if stack[0].series == series]
        if not fit:
            raise FileError(f"The folder {folder} holds no series {series}, only {listed}: choose one of these.")
    taken, *others = sorted(fit, key=_slices, reverse=True)
    if others:
        notes.append(
            f"Of several stacks of slices the largest was taken, {_in_words(taken)}; --series UID chooses another"
            f" series. Left out: {'; '.join(map(_in_words, others))}."
        )
    return taken, notes


def _scan(folder: Path) -> tuple[list[list[Header]], list[str]]:
    """All stacks of slices under a folder, and notes; each image once, however often it was copied."""
    stacks: dict[tuple, list[Header]] = defaultdict(list)
    seen, left_out, visited = set(), [], set()
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        if os.path.realpath(place) in visited:  # by a link
            folders.clear()
            continue
        visited.add(os.path.realpath(place))
        folders.sort()
        for path in (Path(place, name) for name in sorted(names)):
            if not path.is_file():
                continue
            start = _start(path)
            header = _header(path)
            if header is None and any(uid in start for uid in CT_CLASSES):
                raise FileError(
                    f"{path} is a CT image that is damaged or incomplete, so its series would lack a slice: copy it"
                    " again, or remove it."
                )
            if header is None:
                left_out += [path] if start[128:132] == b"DICM" and path.name.upper() != "DICOMDIR" else []
            elif not header.instance or (header.instance, header.origin) not in seen:
                seen.add((header.instance, header.origin))  # anonymisers have given one name to all
                stacks[header.series, header.plane].append(header)
    left = f"Left out, as they hold no image: {left_out[0]}" if left_out else ""
    notes = [left + (f" and {len(left_out) - 1} more DICOM files." if left_out[1:] else ".")] if left else []
    return list(stacks.values()), notes


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(1024)
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    raise FileError(
        f"{error.filename} cannot be read ({error.strerror}), so a series may lack slices: make it readable, or remove it."
    ) from error


def _header(path: Path) -> Header | None:
    """The header of a DICOM image; None if it is none that GDCM can read."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(GDCM)
    reader.SetFileName(name_of(path))
    try:
        with silence():
            reader.ReadImageInformation()
    except RuntimeError:
        return None

    def text(tag: str) -> str:
        value = reader.GetMetaData(tag) if reader.HasMetaDataKey(tag) else ""
        return value.encode(errors="surrogateescape").decode(errors="replace").strip(" \0")  # not all write UTF-8

    spacing = list(reader.GetSpacing())
    if reader.GetSize()[2] == 1:
        spacing[:2] = _numbers(text(PIXEL_SPACING), 2)[::-1]  # GDCM makes 1 mm of what is missing
        spacing[2] = max(_numbers(text(THICKNESS), 1)[0], 0) or spacing[2]  # GDCM takes the distance of slices
    return Header(
        path=path,
        series=text(SERIES_UID),
        modality=text(MODALITY),
        description=text(DESCRIPTION),
        instance=text(INSTANCE_UID),
        is_segmentation=text(CLASS_UID) == SEGMENTATION_CLASS,
        is_placed=reader.HasMetaDataKey(POSITION) and any(_numbers(text(ORIENTATION), 6)),
        size=reader.GetSize(),
        origin=reader.GetOrigin(),
        directions=reader.GetDirection(),
        spacing=tuple(spacing),
    )


def _read_stack(stack: list[Header]) -> tuple[Volume, list[str]]:
    first = stack[0]
    if first.is_segmentation:
        raise FileError(
            f"{first.path} is a DICOM SEG, a segmentation and no image: give the CT series that it was made from."
        )
    frames = frames_of(first.path) if len(stack) == 1 and (first.size[2] > 1 or not all(first.spacing)) else []
    if frames:
        return _read_frames(first, frames)
    if first.size[2] > 1:
        raise FileError(
            f"{first.path} holds many frames and does not say where they lie in the patient: export it as a series of"
            " single slices."
        )
    if not all(math.isfinite(s) and s > 0 for s in first.spacing):
        raise FileError(
            f"{first.path} gives no pixel size, or an impossible one ({first.spacing[1]:g} × {first.spacing[0]:g} mm):"
            " export the series again from where it came."
        )
    stack = _in_order(stack)
    matrix, notes = _place(stack)
    slices = [sitk.GetArrayFromImage(read_image(header.path, GDCM))[0] for header in stack]
    return Volume(np.stack(slices), matrix), notes


def _read_frames(file: Header, frames: list[Frame]) -> tuple[Volume, list[str]]:
    size = (*file.size[:2], 1)
    stack = [replace(file, size=size, is_placed=True, **frame._asdict()) for frame in frames]
    images = sitk.GetArrayFromImage(read_image(file.path, GDCM))
    if len({header.plane for header in stack}) > 1 or len(images) != len(stack):
        raise FileError(f"The frames of {file.path} do not lie in one stack: export it as series of single slices.")
    if not all(s > 0 for s in stack[0].spacing):
        raise FileError(f"{file.path} gives an impossible pixel size: export it again from where it came.")
    ordered = _in_order(stack)
    matrix, notes = _place(ordered)  # which refuses two in one place
    return Volume(images[[stack.index(header) for header in ordered]], matrix), notes


def _in_order(stack: list[Header]) -> list[Header]:
    """Slices sorted along their normal."""
    normal = np.reshape(stack[0].directions, (3, 3))[:, 2]
    return sorted(stack, key=lambda header: np.dot(header.origin, normal))


def _place(stack: list[Header]) -> tuple[np.ndarray, list[str]]:
    """ijk_to_ras of slices sorted along their normal, and notes on what it cannot hold."""
    first = stack[0]
    directions = np.reshape(first.directions, (3, 3))
    normal = directions[:, 2]
    positions = np.array([header.origin for header in stack])
    distances = np.diff(positions @ normal)
    if len(stack) > 1 and not all(header.is_placed for header in stack):
        raise FileError(
            f"The series {first.series} in {first.path.parent} does not say where its images lie in the patient: give"
            " the series that the scanner made."
        )
    if len(stack) > 1 and distances.min() < 1e-3:
        raise FileError(
            f"The series {first.series} in {first.path.parent} is a sequence, with {len(stack)} images at"
            f" {1 + np.count_nonzero(distances >= 1e-3)} places: give a folder with one time point."
        )
    notes = []
    step = normal * first.spacing[2]
    if len(stack) > 1:
        step = (positions[-1] - positions[0]) / (len(stack) - 1)
        aside = step - normal * (step @ normal)
        error_mm = np.linalg.norm(positions - positions[0] - np.outer(np.arange(len(stack)), step), axis=1).max()
        if np.linalg.norm(aside) * (len(stack) - 1) < TOLERANCE_MM:
            step = step - aside
        else:
            tilt = np.degrees(np.arctan2(np.linalg.norm(aside), step @ normal))
            notes.append(
                f"The slices are tilted by {tilt:.1f}° against their stack, and the grid is sheared with them."
            )
        if error_mm > TOLERANCE_MM:
            notes.append(
                f"The slices lie {distances.min():.2f} to {distances.max():.2f} mm apart and are taken as even,"
                f" {step @ normal:.2f} mm: positions are wrong by up to {error_mm:.1f} mm, and volumes approximate."
            )
    steps = np.column_stack([directions[:, :2] * first.spacing[:2], step])
    return ijk_to_ras(steps, first.origin), notes


def _slices(stack: list[Header]) -> int:
    return sum(header.size[2] for header in stack)


def _in_words(stack: list[Header]) -> str:
    first = stack[0]
    about = f", {first.description}" if first.description else ""
    count = f"{_slices(stack)} slice" + "s" * (_slices(stack) > 1)
    return f"{first.modality or 'no modality'} {first.series or 'without UID'} ({count}{about})"


def _numbers(text: str, count: int) -> list[float]:
    """The numbers of a DICOM value; zeros if they are not there."""
    try:
        numbers = [float(part) for part in text.split("\\")]
    except ValueError:
        numbers = []
    return numbers if len(numbers) == count else [0.0] * count
