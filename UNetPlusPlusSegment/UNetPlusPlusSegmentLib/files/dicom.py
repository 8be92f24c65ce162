"""DICOM: reads one file, or the CT series of a folder, into a volume. SimpleITK (GDCM) decodes the pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.volume import Volume
from .dicom_choice import choose_stack, stacks_in
from .dicom_folder import PACKED
from .dicom_grid import grid_of
from .dicom_headers import SEGMENTATION_CLASSES, DamagedFileError, Header, is_dicom, read_header, start_of
from .dicom_pixels import count_phases, rescaled, values_of
from .dicom_places import along_normal, in_one_plane, place_in_words
from .dicom_series import Stack
from .frames import Frame, frames_of, order_of
from .geometry import place_volume
from .images import FileError, printable


def read_dicom_file(path: Path, force: bool = False) -> tuple[Volume, list[str]]:
    """Read one DICOM file, with one slice or many frames.

    Args:
        path: The file.
        force: Assume 1 mm for a missing pixel size.

    Returns:
        The volume and notes for the user.

    Raises:
        FileError: It is not a grey-value DICOM image.
    """
    header = _image(path)
    volume, notes = _read_stack(Stack([header]), force)
    if header.modality != "CT":
        notes.insert(
            0, f"According to its DICOM header, this is not CT: its modality is {header.modality or 'missing'}."
        )
    if header.size[2] == 1:
        notes.append("Only the slice in this file was read: give the folder to read the whole series.")
    return volume, notes


def read_dicom_folder(folder: Path, series: str | None, force: bool = False) -> tuple[Volume, list[str]]:
    """Read the CT series with the most slices from a folder and its subfolders, or the series asked for.

    Args:
        folder: Contains DICOM files, among others.
        series: Series Instance UID, or number in `list_series`, of a series of any modality; None for the largest CT series.
        force: Assume 1 mm for a missing pixel size.

    Returns:
        The volume and notes for the user.

    Raises:
        FileError: There is no such series, or its slices do not form a volume.
    """
    taken, notes = choose_stack(folder, series)
    volume, more = _read_stack(taken, force)
    return volume, notes + more


def list_series(folder: str | Path) -> list[dict[str, Any]]:
    """List the series in a folder of DICOM files and its subfolders.

    Returns:
        One entry for each stack of slices, with its number and Series Instance UID; `read_volume` takes either as `series`. The
        patient appears only as a running number.

    Raises:
        FileError: A file is damaged or not readable, or there is no image.
    """
    if not Path(folder).is_dir():
        what = "is a file" if Path(folder).exists() else "does not exist"
        raise FileError(f"{folder} {what}: give a folder with DICOM series, and check the path.")
    stacks, _ = stacks_in(Path(folder))
    patients = list(dict.fromkeys(stack.first.patient for stack in stacks))
    return [_entry(stack, patients.index(stack.first.patient) + 1) for stack in stacks]


def slices_of(path: Path, series: str | None = None) -> list[Path]:
    """The file of each slice of the volume that `read_dicom_file` or `read_dicom_folder` reads, in the order of the slices.

    A multi-frame file is repeated for each of its frames.

    Raises:
        FileError: It is not DICOM, or UIDs are missing.
    """
    if path.is_dir():
        stack = choose_stack(path, series)[0]
    elif is_dicom(start_of(path)):
        stack = Stack([_image(path)])
    else:
        raise FileError(
            f"{path} is not DICOM, but a DICOM SEG must refer to a DICOM series: give the series, or choose another output format."
        )
    if not all(header.is_identified for header in stack.slices):
        raise FileError(
            f"The slices in {path} lack UIDs that a DICOM SEG needs (of instance, series, study or frame of reference), which some"
            " anonymisers remove: write .seg.nrrd instead, or give the original series of the scanner."
        )
    return [header.path for header in stack.slices for _ in range(header.size[2])]


def _image(path: Path) -> Header:
    """The header of a file that must be a DICOM image."""
    start = start_of(path)
    try:
        header = read_header(path) if is_dicom(start) else None
    except DamagedFileError as error:
        raise FileError(f"{printable(path)} is damaged or incomplete: copy it again.") from error
    if header is None:
        if path.suffix.lower() in PACKED:
            raise FileError(f"{printable(path)} is an archive: unpack it, and give its contents.")
        what = "is damaged or contains no image" if is_dicom(start) else "is damaged or has an unknown format"
        raise FileError(
            f"{printable(path)} {what}: give .nrrd, .nhdr, .nii, .nii.gz, .hdr, .mha, .mhd, a DICOM image or a DICOM folder."
        )
    return header


def _read_stack(stack: Stack, force: bool) -> tuple[Volume, list[str]]:
    first = stack.first
    if first.sop_class in SEGMENTATION_CLASSES:
        raise FileError(
            f"{printable(first.path)} is a segmentation (DICOM SEG), not an image: give the CT series it was made from."
        )
    _check_readable(stack)
    if first.size[2] > 1:
        return _read_frames(first, force)
    place, notes = grid_of(stack)
    notes += _check_rescaled(stack, [header.rescaling for header in stack.slices])
    array = np.stack([values_of(header)[0] for header in stack.slices])
    _check_phases(stack, array)
    volume, more = place_volume(first.path, array, place, force)
    return volume, [*more, *notes, *_left_out(stack)]


def _left_out(stack: Stack) -> list[str]:
    """Notes on images of the series that are not part of the volume."""
    notes = []
    if stack.copies:
        slices, were = ("slices", "were") if stack.copies > 1 else ("slice", "was")
        notes.append(f"{stack.copies} duplicate {slices} with the same pixels at the same position {were} ignored.")
    if stack.aside:
        at = " and ".join(dict.fromkeys(map(place_in_words, stack.aside)))
        images, were = ("images", "were") if len(stack.aside) > 1 else ("image", "was")
        notes.append(
            f"{len(stack.aside)} {images} at {at}, perhaps from bolus tracking, {were} left out, as not part of the stack."
        )
    return notes


def _check_readable(stack: Stack) -> None:
    """Refuse pixel values that GDCM would silently misread."""
    unread = next((header for header in stack.slices if header.unread), None)
    if unread:
        raise FileError(
            f"{printable(unread.path)} {unread.unread}, which is not supported: export the series in another format, for instance as NIfTI."
        )


def _check_rescaled(stack: Stack, told: Sequence[tuple[bool, bool]]) -> list[str]:
    """Refuse a stack if only some of its slices say how their values become HU: the others would mostly be off by 1,024.

    Args:
        stack: For messages.
        told: For each slice or frame, whether it has an intercept and a slope.

    Returns:
        A note if none of them says so, or if the rescaled values are not HU.
    """
    first, parts = stack.first, "frames" if stack.first.size[2] > 1 else "slices"
    for index, name in enumerate(("Rescale Intercept", "Rescale Slope")):
        lost = [n for n, each in enumerate(told) if not each[index]]
        if 0 < len(lost) < len(told):
            example = printable(stack.slices[lost[0]].path) if parts == "slices" else f"frame {lost[0] + 1}"
            raise FileError(
                f"{len(lost)} of the {parts} of the series {stack.in_words()} do not say how their values become HU ({name}),"
                f" such as {example}: copy the series again, or give the original series of the scanner."
            )
    if first.modality == "CT" and not told[0][0]:
        return [
            "The DICOM header does not say how the values become HU (no Rescale Intercept): they were assumed to be HU already."
        ]
    if first.modality == "CT" and first.unit not in ("", "HU", "US"):  # US: unspecified
        return [f"According to the DICOM header, the values are not in HU but in {first.unit}."]
    return []


def _check_phases(stack: Stack, array: np.ndarray) -> None:
    """Refuse interleaved phases of a scan that no header tells apart; they show in the values."""
    phases = count_phases(array)
    if phases > 1:
        raise FileError(
            f"The series {stack.in_words()} in {printable(stack.first.path.parent)} mixes {phases} phases of a scan, whose slices"
            " alternate, and no header tells them apart: give a folder with a single phase."
        )


def _read_frames(file: Header, force: bool) -> tuple[Volume, list[str]]:
    stack, frames = _stack_of_frames(file)
    if file.size[2] != len(frames):
        raise FileError(
            f"{printable(file.path)} contains {file.size[2]} frames but gives the positions of {len(frames)}: export it again."
        )
    place, notes = grid_of(stack)  # refuses two frames at the same position
    rescale = [frame.rescale for frame in frames if frame.rescale]
    told = [(frame.rescale is not None,) * 2 for frame in frames] if rescale else [file.rescaling]
    notes += _check_rescaled(Stack([replace(file, unit=frames[0].unit or file.unit)]), told)
    array = rescaled(file, rescale) if rescale else values_of(file)
    array = array[order_of(frames)]
    _check_phases(stack, array)
    volume, more = place_volume(file.path, array, place, force)
    return volume, [*more, *notes]


def _stack_of_frames(file: Header) -> tuple[Stack, list[Frame]]:
    """The frames of a file, as a stack sorted along the normal and in stored order.

    Raises:
        FileError: Their positions are missing, or they do not form one stack.
    """
    frames = frames_of(file.path)
    if not frames:
        raise FileError(
            f"{printable(file.path)} has several frames but not their positions in the patient: export it as a series"
            " of single slices."
        )
    slices = [_of_frame(file, frames[index]) for index in order_of(frames)]
    if not all(in_one_plane(slices[0], header) for header in slices):
        raise FileError(
            f"The frames of {printable(file.path)} do not form one stack: export it as a series of single slices."
        )
    return Stack(slices), frames


def _of_frame(file: Header, frame: Frame) -> Header:
    """A frame, described as if it were a slice in its own file."""
    return replace(
        file,
        size=(*file.size[:2], 1),
        position=np.array(frame.origin),
        directions=np.reshape(frame.directions, (3, 3)),
        spacing=frame.spacing,
    )


def _entry(stack: Stack, patient: int) -> dict[str, Any]:
    first, spacing_mm = stack.first, _spacing_of(stack)
    date = first.date
    return {
        "number": stack.number,
        "uid": first.series,
        "modality": first.modality,
        "description": first.description,
        "part": stack.part,
        "slices": stack.count,
        "size": list(first.size[:2]),
        "spacing_mm": [round(float(s), 4) if s > 0 else None for s in spacing_mm],
        "date": f"{date[:4]}-{date[4:6]}-{date[6:8]}" if re.fullmatch(r"\d{8}", date) else date,
        "patient": patient,
    }


def _spacing_of(stack: Stack) -> tuple[float, ...]:
    """Spacing along I, J and the normal, in mm; NaN or 0 where it is not given."""
    if stack.first.size[2] > 1:
        try:
            stack = _stack_of_frames(stack.first)[0]
        except FileError:
            return stack.first.spacing
    first = stack.first
    step = (
        float(np.median(np.diff(along_normal(stack.slices))))
        if stack.is_usable and stack.count > 1
        else first.spacing[2]
    )
    return (*first.spacing[:2], step)
