"""The choice of a stack in a DICOM folder; refuses to read a scan only in part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .dicom_folder import headers_in
from .dicom_headers import CT_CLASSES, GROUP_FIELDS, Header
from .dicom_pixels import same_pixels
from .dicom_places import EVEN, FEWEST_SLICES, along_normal, mean_plane, missing_places, place_in_words, step_of
from .dicom_series import Stack, stacks_of
from .images import FileError, printable

MOST_LISTED = 12  # most series named in a message
PARALLEL = 0.999  # cosine of the angle between two normals
VOLUME_ENDINGS = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd", ".hdr")


def stacks_in(folder: Path) -> tuple[list[Stack], list[str]]:
    """All stacks of slices in a folder and its subfolders, and notes."""
    headers, notes = headers_in(folder)
    return stacks_of(headers, same_pixels), notes


def choose_stack(folder: Path, series: str | None) -> tuple[Stack, list[str]]:
    """The stack of slices to read from a folder, and notes.

    Raises:
        FileError: There is none, or a part of the scan would be left out.
    """
    stacks, notes = stacks_in(folder)
    fit = _fitting(folder, stacks, series)
    taken, *others = sorted(fit, key=_unlikely)
    if series is None and taken.count == 1 and len(others) >= FEWEST_SLICES:
        raise FileError(
            f"The folder {folder} contains {len(fit)} CT images without common identifiers, which some anonymisers remove, so that they do"
            " not form a series: give the original series of the scanner, or choose one image with --series, by number or UID."
        )
    _check_in_one_file(folder, taken, others, series)
    _check_none_lost(taken, stacks)
    patients = len({stack.first.patient for stack in stacks} - {("",)})
    if patients > 1 and series is None:
        notes.insert(0, f"The folder contains images of {patients} patients; only one of them was read.")
    if others:
        notes.append(
            f"The folder contains several stacks of slices; the largest was read, {taken.in_words()}. Choose another with --series, by"
            f" number or UID. Left out: {_listed(others)}."
        )
    return taken, [*notes, *_continuation(taken, stacks)]


def _fitting(folder: Path, stacks: Sequence[Stack], series: str | None) -> list[Stack]:
    """The stacks of the series asked for, or of CT if none was; at least one."""
    if series is not None:
        fit = [stack for stack in stacks if series in (stack.first.series, str(stack.number))]
        if not fit:
            raise FileError(
                f"The folder {folder} contains no series {series}, only {_listed(stacks)}: choose one of these."
            )
        return fit
    fit = [stack for stack in stacks if stack.first.modality == "CT"]
    if not fit:
        raise FileError(
            f"The folder {folder} contains no CT series, only {_listed(stacks)}: give another folder, or choose one of"
            " these with --series, by number or UID."
        )
    _check_no_volumes(folder, stacks)
    return fit


def _check_in_one_file(folder: Path, taken: Stack, others: Sequence[Stack], series: str | None) -> None:
    """Refuse one of several multi-frame files of a series, unless chosen by number: it may be only a part of the scan."""
    first = taken.first
    parts = [s for s in (taken, *others) if s.first.series == first.series and s.first.size[2] > 1]
    if first.size[2] > 1 and first.series and len(parts) > 1 and series != str(taken.number):
        raise FileError(
            f"The series {taken.in_words()} in {folder} is spread over {len(parts)} multi-frame files, which may be parts of one scan"
            " or several scans: export it as a series of single slices, or choose one file with --series, by its number."
        )


def _unlikely(stack: Stack) -> tuple[bool, int, bool]:
    """Sort key that puts the stack most likely meant first: many positions (unlike bolus tracking), and not derived (like a MIP)."""
    return not stack.is_usable, -stack.places, "DERIVED" in stack.first.acquisition["ImageType"]


def _listed(stacks: Sequence[Stack]) -> str:
    """The first stacks, for a message, and the number of the others."""
    words = "; ".join(stack.in_words() for stack in stacks[:MOST_LISTED])
    more = len(stacks) - MOST_LISTED
    return words + (f"; and {more} more, which `unetpp-segment series` lists" if more > 0 else "")


def _check_no_volumes(folder: Path, stacks: Sequence[Stack]) -> None:
    """Refuse a folder of volume files with DICOM only in subfolders: it is unlikely to be what was meant."""
    volumes = sorted(path.name for path in folder.iterdir() if path.name.lower().endswith(VOLUME_ENDINGS))
    here = any(header.path.parent == folder for stack in stacks for header in stack.slices)
    if volumes and not here:
        raise FileError(
            f"The folder {folder} contains volume files ({', '.join(volumes[:3])}{', …' * (len(volumes) > 3)}) as well as folders"
            f" with DICOM: give one of the files, give the folder {printable(stacks[0].first.path.parent)}, or use the command cohort."
        )


def _check_none_lost(taken: Stack, stacks: Sequence[Stack]) -> None:
    """Refuse a series if some of its slices lack a position or pixel size."""
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
            f" such as {printable(lost[0].path)}: give the original series of the scanner, or remove these slices."
        )


def _continuation(taken: Stack, stacks: Sequence[Stack]) -> list[str]:
    """Refuse a stack whose missing slices are in the folder under other identifiers; note slices that would continue it.

    Only stacks with no slice at the position of one in the chosen stack are considered: others are separate scans.
    """
    if not taken.is_usable or taken.count < FEWEST_SLICES or taken.first.size[2] > 1:
        return []
    places = along_normal(taken.slices)
    step, normal = step_of(places), mean_plane(taken.slices)[0][:, 2]
    gaps = np.array([mm for _, along in missing_places(taken.slices) for mm in along])
    ends = np.array([places[0] - step, places[-1] + step])
    notes = []
    placed = [each for each in stacks if each is not taken and all(header.is_usable for header in each.slices)]
    for other in placed:  # not multi-frame files, such as a DICOM SEG, which give positions in another way
        if abs(np.array(other.first.directions)[:, 2] @ normal) < PARALLEL:
            continue
        at = np.array([header.position for header in other.slices]) @ normal
        if np.abs(at[:, None] - places).min() < step / 2:
            continue
        fields = _differences(taken.first, other.first)
        if not fields:  # another acquisition of the same series
            continue
        for header, mm in zip(other.slices, at, strict=True):
            told = f"{printable(header.path)} has {' and '.join(fields)}"
            if len(gaps) and np.abs(gaps - mm).min() <= EVEN * step:
                raise FileError(
                    f"The series {taken.in_words()} lacks the slice at {place_in_words(header)}, although it is there: {told} than"
                    " the other slices. Correct that, or export the series again from its source."
                )
            if len(fields) == 1 and np.abs(ends - mm).min() <= EVEN * step:
                notes.append(
                    f"The scan may continue at {place_in_words(header)} with slices that were left out: {told} than the slices read."
                )
    return notes


def _differences(one: Header, other: Header) -> list[str]:
    """The fields, for a message, that keep two slices from being in one stack."""
    fields = [f"a different {name}" for name, a, b in zip(GROUP_FIELDS, one.group, other.group, strict=True) if a != b]
    if one.group.size == other.group.size and not np.allclose(one.spacing[:2], other.spacing[:2], rtol=1e-3):
        fields.append("a different Pixel Spacing")
    if not np.allclose(np.array(one.directions), np.array(other.directions), atol=1e-3):
        fields.append("a different Image Orientation (Patient)")
    return fields
