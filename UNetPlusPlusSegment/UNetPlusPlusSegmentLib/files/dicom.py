"""DICOM: one file, or the CT series of a folder, to a volume. Values by SimpleITK (GDCM); headers, stacks and frames beside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.volume import Volume
from .dicom_folder import PACKED, headers_in
from .dicom_headers import CT_CLASSES, SEGMENTATION_CLASS, DamagedFileError, Header, is_dicom, read_header, start_of
from .dicom_pixels import count_phases, same_pixels, values_of
from .dicom_series import (
    FEWEST_SLICES,
    Stack,
    along_normal,
    coincident,
    in_one_plane,
    in_order,
    mean_plane,
    missing_places,
    stacks_of,
)
from .frames import Frame, frames_of
from .geometry import Place, place_volume
from .images import FileError, in_text

TOLERANCE_MM = 0.1  # slices nearer than this to an even, upright stack are said to be in one
MOST_LISTED = 12  # series in a message
VOLUME_ENDINGS = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")


def read_dicom_file(path: Path, force: bool = False) -> tuple[Volume, list[str]]:
    """Read one DICOM file, with one slice or many frames.

    Args:
        path: The file.
        force: Take 1 mm for a pixel size that is missing.

    Returns:
        The volume and notes for the user.

    Raises:
        FileError: It is no DICOM image of grey values.
    """
    header = _image(path)
    volume, notes = _read_stack(Stack([header]), force)
    if header.modality != "CT":
        notes.insert(0, f"By its DICOM header this is no CT but {header.modality or 'of no modality'}.")
    if header.size[2] == 1:
        notes.append("Only the slice in this file was read; for its whole series give the folder.")
    return volume, notes


def read_dicom_folder(folder: Path, series: str | None, force: bool = False) -> tuple[Volume, list[str]]:
    """Read the CT series with the most slices of a folder and the folders in it, or the series asked for.

    Args:
        folder: With DICOM files, among others.
        series: Series Instance UID, or number in `list_series`; then the modality does not matter.
        force: Take 1 mm for a pixel size that is missing.

    Returns:
        The volume and notes for the user.

    Raises:
        FileError: There is no such series, or it is no stack of slices.
    """
    taken, notes = _choose_stack(folder, series)
    volume, more = _read_stack(taken, force)
    return volume, notes + more


def list_series(folder: str | Path) -> list[dict[str, Any]]:
    """The series in a folder of DICOM files and its subfolders, to choose from.

    Returns:
        One entry for each stack of slices, with its number and Series Instance UID, either of which `read_volume` takes as
        `series`; nothing of the patient but a running number.

    Raises:
        FileError: A file is damaged or may not be read, or there is no image.
    """
    if not Path(folder).is_dir():
        what = "is a file" if Path(folder).exists() else "is not there"
        raise FileError(f"{folder} {what}: give a folder with DICOM series, and check the path.")
    stacks, _ = _stacks_in(Path(folder))
    patients = list(dict.fromkeys(stack.first.patient for stack in stacks))
    return [_entry(stack, patients.index(stack.first.patient) + 1) for stack in stacks]


def slices_of(path: Path, series: str | None = None) -> list[Path]:
    """The files that `read_dicom_file` or `read_dicom_folder` makes a volume of, one for each of its slices, in their order.

    Raises:
        FileError: It is no DICOM, one file with many frames, or a series that does not say which it is.
    """
    if path.is_dir():
        stack = _choose_stack(path, series)[0]
    elif is_dicom(start_of(path)):
        stack = Stack([_image(path)])
    else:
        raise FileError(
            f"{path} is no DICOM image, and a DICOM SEG refers to one: give the DICOM series, or another output."
        )
    if stack.first.size[2] > 1:
        raise FileError(
            f"{in_text(stack.first.path)} holds many frames in one file, of which no DICOM SEG is written here: write"
            " .seg.nrrd."
        )
    if not all(header.series and header.instance for header in stack.slices):
        raise FileError(
            f"The slices in {path} have lost the identifiers by which a DICOM SEG refers to them, as some anonymisers do:"
            " write .seg.nrrd, or give the series as the scanner made it."
        )
    return [header.path for header in stack.slices]


def _image(path: Path) -> Header:
    """The header of a file that must be a DICOM image."""
    start = start_of(path)
    try:
        header = read_header(path) if is_dicom(start) else None
    except DamagedFileError as error:
        raise FileError(f"{in_text(path)} is damaged or incomplete: copy it again.") from error
    if header is None:
        if path.suffix.lower() in PACKED:
            raise FileError(f"{in_text(path)} is packed: unpack it, and give what was in it.")
        what = "is damaged or holds no image" if is_dicom(start) else "is damaged or no image that can be read here"
        raise FileError(
            f"{in_text(path)} {what}: give .nrrd, .nhdr, .nii, .nii.gz, .mha, .mhd, a DICOM image or a DICOM folder."
        )
    return header


def _choose_stack(folder: Path, series: str | None) -> tuple[Stack, list[str]]:
    """The stack of slices to read from a folder, and notes."""
    stacks, notes = _stacks_in(folder)
    fit = _fitting(folder, stacks, series)
    taken, *others = sorted(fit, key=_unlikely)
    if series is None and taken.count == 1 and len(others) >= FEWEST_SLICES:
        raise FileError(
            f"The folder {folder} holds {len(fit)} CT images of which no two belong to one series by their identifiers, as some"
            " anonymisers leave behind: give the series as the scanner made it, or choose an image with --series, by number or"
            " UID."
        )
    _check_in_one_file(folder, taken, others, series)
    _check_none_lost(taken, stacks)
    patients = len({stack.first.patient for stack in stacks} - {("",)})
    if patients > 1 and series is None:
        notes.insert(0, f"The folder holds images of {patients} patients, of whom one was taken.")
    if others:
        notes.append(
            f"Of several stacks of slices the largest was taken, {taken.in_words()}; --series chooses another, by number or"
            f" UID. Left out: {_listed(others)}."
        )
    return taken, notes


def _fitting(folder: Path, stacks: Sequence[Stack], series: str | None) -> list[Stack]:
    """The stacks of the series asked for, or else of CT; at least one."""
    if series is not None:
        fit = [stack for stack in stacks if series in (stack.first.series, str(stack.number))]
        if not fit:
            raise FileError(
                f"The folder {folder} holds no series {series}, only {_listed(stacks)}: choose one of these."
            )
        return fit
    fit = [stack for stack in stacks if stack.first.modality == "CT"]
    if not fit:
        raise FileError(
            f"The folder {folder} holds no CT series, only {_listed(stacks)}: give another folder, or choose one of"
            " these with --series, by number or UID."
        )
    _check_no_volumes(folder, stacks)
    return fit


def _check_in_one_file(folder: Path, taken: Stack, others: Sequence[Stack], series: str | None) -> None:
    """Refuse one of several files of many frames in one series, unless its number was given: it may be a part of the scan."""
    first = taken.first
    parts = [s for s in (taken, *others) if s.first.series == first.series and s.first.size[2] > 1]
    if first.size[2] > 1 and first.series and len(parts) > 1 and series != str(taken.number):
        raise FileError(
            f"The series {taken.in_words()} in {folder} is spread over {len(parts)} files with many frames each, which may be parts"
            " of one scan or several scans: export it as a series of single slices, or choose one file with --series, by its"
            " number."
        )


def _unlikely(stack: Stack) -> tuple[bool, int, bool]:
    """Sorts stacks by how likely one is meant: many places, not many images at one as of a bolus; not made of others, as a MIP."""
    return not stack.is_usable, -stack.places, "DERIVED" in stack.first.acquisition["ImageType"]


def _stacks_in(folder: Path) -> tuple[list[Stack], list[str]]:
    headers, notes = headers_in(folder)
    return stacks_of(headers, same_pixels), notes


def _listed(stacks: Sequence[Stack]) -> str:
    """The first of them in words, and how many there are beside."""
    words = "; ".join(stack.in_words() for stack in stacks[:MOST_LISTED])
    more = len(stacks) - MOST_LISTED
    return words + (f"; and {more} more, which `unetpp-segment series` lists" if more > 0 else "")


def _check_no_volumes(folder: Path, stacks: Sequence[Stack]) -> None:
    """Refuse a folder of volume files in which DICOM lies further down: it is not what was meant."""
    volumes = sorted(path.name for path in folder.iterdir() if path.name.lower().endswith(VOLUME_ENDINGS))
    here = any(header.path.parent == folder for stack in stacks for header in stack.slices)
    if volumes and not here:
        raise FileError(
            f"The folder {folder} holds volume files ({', '.join(volumes[:3])}{', …' * (len(volumes) > 3)}) beside folders"
            f" with DICOM: give one of the files, the folder {in_text(stacks[0].first.path.parent)}, or the command cohort."
        )


def _check_none_lost(taken: Stack, stacks: Sequence[Stack]) -> None:
    """Refuse a series some of whose slices do not say where they lie."""
    lost = [
        header
        for stack in stacks
        for header in stack.slices
        if taken.is_usable and header.group == taken.first.group and not stack.is_usable
        and header.sop_class in CT_CLASSES and "SECONDARY" not in header.acquisition["ImageType"]
    ]  # fmt: skip
    if lost:
        raise FileError(
            f"{len(lost)} slices of the series {taken.in_words()} do not say where they lie or how large their pixels are,"
            f" {in_text(lost[0].path)} for one: give the series as the scanner made it, or remove them."
        )


def _read_stack(stack: Stack, force: bool) -> tuple[Volume, list[str]]:
    first = stack.first
    if first.sop_class == SEGMENTATION_CLASS:
        raise FileError(
            f"{in_text(first.path)} is a DICOM SEG, a segmentation and no image: give the CT series that it was made from."
        )
    if first.size[2] > 1:
        return _read_frames(first, force)
    place, notes = _place(stack)
    _check_rescaled(stack)
    array = np.stack([values_of(header)[0] for header in stack.slices])
    _check_phases(stack, array)
    volume, more = place_volume(first.path, array, place, force)
    if stack.copies:
        notes.append(f"{stack.copies} slices were there more than once, with the same pixels, and count once.")
    return volume, [*more, *notes]


def _check_rescaled(stack: Stack) -> None:
    """Refuse slices of which some say how their values become HU and others do not: these would be off by 1,024, mostly."""
    lost = [header for header in stack.slices if not header.is_rescaled]
    if 0 < len(lost) < len(stack.slices):
        raise FileError(
            f"{len(lost)} of the slices of the series {stack.in_words()} do not say how their values become HU (Rescale"
            f" Intercept), {in_text(lost[0].path)} for one: copy the series again, or give it as the scanner made it."
        )


def _check_phases(stack: Stack, array: np.ndarray) -> None:
    """Refuse phases of a scan that lie between each other and that no header tells apart, but their values do."""
    phases = count_phases(array)
    if phases > 1:
        raise FileError(
            f"The series {stack.in_words()} in {in_text(stack.first.path.parent)} mixes {phases} phases of a scan, whose slices"
            " alternate, and nothing in their headers tells them apart: give a folder with one phase."
        )


def _read_frames(file: Header, force: bool) -> tuple[Volume, list[str]]:
    frames = frames_of(file.path)
    if not frames:
        raise FileError(
            f"{in_text(file.path)} holds many frames and does not say where they lie in the patient: export it as a series"
            " of single slices."
        )
    stack = [_of_frame(file, frame) for frame in frames]
    images = values_of(file)
    if len(images) != len(stack) or not all(in_one_plane(stack[0], header) for header in stack):
        raise FileError(
            f"The frames of {in_text(file.path)} do not lie in one stack: export it as series of single slices."
        )
    ordered = in_order(stack)
    place, notes = _place(Stack(ordered))  # which refuses two in one place
    array = images[[stack.index(header) for header in ordered]]
    _check_phases(Stack(ordered), array)
    volume, more = place_volume(file.path, array, place, force)
    return volume, [*more, *notes]


def _of_frame(file: Header, frame: Frame) -> Header:
    """A frame as if it were a slice in a file of its own."""
    return replace(
        file,
        size=(*file.size[:2], 1),
        position=np.array(frame.origin),
        directions=np.reshape(frame.directions, (3, 3)),
        spacing=frame.spacing,
    )


def _place(stack: Stack) -> tuple[Place, list[str]]:
    """The grid of slices sorted along their normal, and notes on what it cannot hold."""
    slices, first = stack.slices, stack.first
    if len(slices) == 1:
        return Place(first.spacing, first.directions, first.position), []
    if not all(header.is_placed for header in slices):
        raise FileError(
            f"The series {stack.in_words()} in {in_text(first.path.parent)} does not say where its images lie in the"
            " patient: give the series that the scanner made."
        )
    _check_gaps(stack)
    directions, spacing = mean_plane(slices)
    normal, places = directions[:, 2], along_normal(slices)
    positions, distances = np.array([header.position for header in slices]), np.diff(places)
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    aside = step - normal * (step @ normal)
    error_mm = np.linalg.norm(positions - positions[0] - np.outer(np.arange(len(slices)), step), axis=1).max()
    notes = []
    if np.linalg.norm(aside) * (len(slices) - 1) < TOLERANCE_MM:
        step = step - aside
    else:
        tilt = np.degrees(np.arctan2(np.linalg.norm(aside), step @ normal))
        notes.append(f"The slices are tilted by {tilt:.1f}° against their stack, and the grid is sheared with them.")
    if error_mm > TOLERANCE_MM:
        notes.append(
            f"The slices lie {distances.min():.2f} to {distances.max():.2f} mm apart and are taken as even,"
            f" {step @ normal:.2f} mm: positions are wrong by up to {error_mm:.1f} mm, and volumes approximate."
        )
    step_mm = float(np.linalg.norm(step))
    return Place((*spacing[:2], step_mm), np.column_stack([directions[:, :2], step / step_mm]), positions[0]), notes


def _check_gaps(stack: Stack) -> None:
    """Refuse images at one place, and a stack in which one or two slices are missing."""
    slices, where = stack.slices, in_text(stack.first.path.parent)
    places = along_normal(slices)
    twice = coincident(places)
    if twice.any():
        raise FileError(
            f"The series {stack.in_words()} in {where} is a sequence, with {len(slices)} images at {1 + int((~twice).sum())}"
            " places, and nothing in it tells its time points apart: give a folder with one time point."
        )
    missing = missing_places(places)
    if missing:
        (index, _), *_ = missing
        normal = mean_plane(slices)[0][:, 2]
        axis = int(np.abs(normal).argmax())
        at = [
            np.array(slices[i].position)[axis] + (p - places[i]) * normal[axis] for i, along in missing for p in along
        ]
        raise FileError(
            f"The series {stack.in_words()} in {where} lacks {len(at)} slice{'s' * (len(at) > 1)}, at"
            f" {', '.join(f'{x:g}' for x in np.round(at[:6], 2))} mm along its {'xyz'[axis]} axis, the first after"
            f" {in_text(Path(slices[index].path.name))}: copy the series again, or give another one."
        )


def _entry(stack: Stack, patient: int) -> dict[str, Any]:
    first = stack.first
    places = along_normal(stack.slices) if stack.is_usable and first.size[2] == 1 else np.zeros(1)
    step = float(np.median(np.diff(places))) if len(places) > 1 else first.spacing[2]
    spacing = [round(float(s), 4) if s > 0 else None for s in (*first.spacing[:2], step)]
    date = first.date
    return {
        "number": stack.number,
        "uid": first.series,
        "modality": first.modality,
        "description": first.description,
        "part": stack.part,
        "slices": stack.count,
        "size": list(first.size[:2]),
        "spacing_mm": spacing,
        "date": f"{date[:4]}-{date[4:6]}-{date[6:8]}" if re.fullmatch(r"\d{8}", date) else date,
        "patient": patient,
    }
