"""The grid of a DICOM stack: one place for all its slices, or a refusal that says why there is none."""

from __future__ import annotations

import numpy as np

from .dicom_places import MOVES_PIXELS, along_normal, coincident, mean_plane, missing_places, place_in_words
from .dicom_series import Stack
from .geometry import Place
from .images import FileError, in_text

TOLERANCE_MM = 0.1  # slices nearer than this to an even, upright stack are said to be in one
MOST_PLACES = 6  # in a message


def grid_of(stack: Stack) -> tuple[Place, list[str]]:
    """The grid of slices sorted along their normal, and notes on what it cannot hold.

    Raises:
        FileError: A slice does not say where it lies, is missing, lies where another one lies, or beside the others.
    """
    slices, first = stack.slices, stack.first
    if len(slices) == 1:
        return Place(first.spacing, first.directions, first.position), []
    if not all(header.is_placed for header in slices):
        raise FileError(
            f"The series {stack.in_words()} in {in_text(first.path.parent)} does not say where its images lie in the"
            " patient: give the series that the scanner made."
        )
    _check_gaps(stack)
    _check_in_line(stack)
    directions, spacing = mean_plane(slices)
    normal, distances = directions[:, 2], np.diff(along_normal(slices))
    positions = np.array([header.position for header in slices])
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    aside = step - normal * (step @ normal)
    error_mm = np.linalg.norm(positions - positions[0] - np.outer(np.arange(len(slices)), step), axis=1).max()
    notes = []
    if np.linalg.norm(aside) * (len(slices) - 1) < TOLERANCE_MM:
        step = step - aside
    else:
        tilt = np.degrees(np.arctan2(np.linalg.norm(aside), step @ normal))
        notes.append(
            f"The slices are tilted by {tilt:.1f}° against their stack, as by a tilted gantry, and the grid is sheared to match."
        )
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
    twice = coincident(along_normal(slices))
    if twice.any():
        count = 1 + int((~twice).sum())
        raise FileError(
            f"The series {stack.in_words()} in {where} is a sequence, with {len(slices)} images at {count}"
            f" place{'s' * (count > 1)}, and nothing in it tells its time points apart: give a folder with one time point."
        )
    places = along_normal(slices)
    missing = missing_places(slices)
    if missing:
        at = [place_in_words(slices[index], mm - places[index]) for index, along in missing for mm in along]
        after = in_text(slices[missing[0][0]].path)
        raise FileError(
            f"The series {stack.in_words()} in {where} lacks {len(at)} slice{'s' * (len(at) > 1)}, at"
            f" {', '.join(at[:MOST_PLACES])}{', …' * (len(at) > MOST_PLACES)}"
            f"{f', the first after {after}' * (slices[0].path != slices[-1].path)}: copy the series again, or export it again from"
            " its source."
        )


def _check_in_line(stack: Stack) -> None:
    """Refuse a stack of which a slice lies further to the side of the one before than the others do."""
    slices = stack.slices
    normal = mean_plane(slices)[0][:, 2]
    steps = np.diff([header.position for header in slices], axis=0)
    aside = steps - np.outer(steps @ normal, normal)
    tilted = np.median(aside / (steps @ normal)[:, None], axis=0)  # mm to the side for each along the normal
    off_mm = np.linalg.norm(aside - np.outer(steps @ normal, tilted), axis=1)
    if off_mm.max() > MOVES_PIXELS * min(slices[0].spacing[:2]):
        index = int(off_mm.argmax())
        raise FileError(
            f"The series {stack.in_words()} is no straight stack, as if the patient or the table had moved:"
            f" {in_text(slices[index + 1].path)}, at {place_in_words(slices[index + 1])}, lies {off_mm[index]:.0f} mm to the side of"
            " the slice before it. Put the parts into folders of their own, and give one of them."
        )
