"""The choice of a stack: which slices of a DICOM folder are meant, and a refusal where a part of them would be left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .dicom_folder import headers_in
from .dicom_headers import CT_CLASSES, GROUP_FIELDS, Header
from .dicom_pixels import same_pixels
from .dicom_places import EVEN, FEWEST_SLICES, along_normal, mean_plane, missing_places, place_in_words, step_of
from .dicom_series import Stack, stacks_of
from .images import FileError, in_text

MOST_LISTED = 12  # series in a message
PARALLEL = 0.999  # cosine of the angle between two normals
VOLUME_ENDINGS = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd", ".hdr")


def stacks_in(folder: Path) -> tuple[list[Stack], list[str]]:
    """All stacks of slices in a folder and the folders in it, and notes."""
    headers, notes = headers_in(folder)
    return stacks_of(headers, same_pixels), notes


def choose_stack(folder: Path, series: str | None) -> tuple[Stack, list[str]]:
    """The stack of slices to read from a folder, and notes.

    Raises:
        FileError: There is none, or a part of it would be left out.
    """
    stacks, notes = stacks_in(folder)
    fit = _fitting(folder, stacks, series)
    taken, *others = sorted(fit, key=_unlikely)
    if series is None and taken.count == 1 and len(others) >= FEWEST_SLICES:
        raise FileError(
            f"The folder {folder} holds {len(fit)} CT images that all have different identifiers, as some anonymisers leave them, so"
            " that no two form a series: give the series as the scanner made it, or choose an image with --series, by number or UID."
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
    return taken, [*notes, *_continuation(taken, stacks)]


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


def _continuation(taken: Stack, stacks: Sequence[Stack]) -> list[str]:
    """Refuse a stack that lacks slices which lie there under other identifiers; a note on such as would only make it longer.

    Only stacks that lie wholly where the one that was taken has no slice are looked at: others are scans of their own.
    """
    if not taken.is_usable or taken.count < FEWEST_SLICES or taken.first.size[2] > 1:
        return []
    places = along_normal(taken.slices)
    step, normal = step_of(places), mean_plane(taken.slices)[0][:, 2]
    gaps = np.array([mm for _, along in missing_places(taken.slices) for mm in along])
    ends = np.array([places[0] - step, places[-1] + step])
    notes = []
    placed = [each for each in stacks if each is not taken and all(header.is_usable for header in each.slices)]
    for other in placed:  # not in files of many frames, such as a DICOM SEG: they say where each lies in another way
        if abs(np.array(other.first.directions)[:, 2] @ normal) < PARALLEL:
            continue
        at = np.array([header.position for header in other.slices]) @ normal
        if np.abs(at[:, None] - places).min() < step / 2:
            continue
        fields = _differences(taken.first, other.first)
        if not fields:  # parted by its acquisitions
            continue
        for header, mm in zip(other.slices, at, strict=True):
            told = f"{in_text(header.path)} has {' and '.join(fields)}"
            if len(gaps) and np.abs(gaps - mm).min() <= EVEN * step:
                raise FileError(
                    f"The series {taken.in_words()} lacks the slice at {place_in_words(header)}, though it is there: {told} than the"
                    " other slices. Correct that, or export the series again from its source."
                )
            if len(fields) == 1 and np.abs(ends - mm).min() <= EVEN * step:
                notes.append(
                    f"The scan may go on at {place_in_words(header)} in what was left out: {told} than the slices taken."
                )
    return notes


def _differences(one: Header, other: Header) -> list[str]:
    """In words, by which fields another slice does not lie in the stack of one."""
    fields = [f"another {name}" for name, a, b in zip(GROUP_FIELDS, one.group, other.group, strict=True) if a != b]
    if one.group.size == other.group.size and not np.allclose(one.spacing[:2], other.spacing[:2], rtol=1e-3):
        fields.append("another Pixel Spacing")
    if not np.allclose(np.array(one.directions), np.array(other.directions), atol=1e-3):
        fields.append("another Image Orientation (Patient)")
    return fields
