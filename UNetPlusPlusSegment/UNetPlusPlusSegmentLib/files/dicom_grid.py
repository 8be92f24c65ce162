"""The voxel grid of a DICOM stack, or a refusal that says why it has none."""

from __future__ import annotations

import numpy as np

from .dicom_places import (
    LONGEST_HOLE,
    MOVES_PIXELS,
    along_normal,
    coincident,
    mean_plane,
    missing_places,
    place_in_words,
)
from .dicom_series import Stack
from .geometry import Place
from .images import FileError, printable

TOLERANCE_MM = 0.1  # slices this close to an even, upright stack count as one
MOST_PLACES = 6  # most positions named in a message


def grid_of(stack: Stack) -> tuple[Place, list[str]]:
    """The grid of slices sorted along their normal, and notes on its approximations.

    Raises:
        FileError: A slice is missing or has no position, has the position of another one, is shifted to the side, or lies far
            from its place on an even grid.
    """
    slices, first = stack.slices, stack.first
    if len(slices) == 1:
        return Place(first.spacing, first.directions, first.position), []
    if not all(header.is_placed for header in slices):
        raise FileError(
            f"The series {stack.in_words()} in {printable(first.path.parent)} does not say where its images lie in the"
            " patient: give the original series of the scanner."
        )
    _check_gaps(stack)
    _check_in_line(stack)
    directions, spacing = mean_plane(slices)
    normal, places = directions[:, 2], along_normal(slices)
    distances = np.diff(places)
    positions = np.array([header.position for header in slices])
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    aside = step - normal * (step @ normal)
    error_mm = np.linalg.norm(positions - positions[0] - np.outer(np.arange(len(slices)), step), axis=1).max()
    apart = f"{distances.min():.2f} to {distances.max():.2f} mm apart"
    if error_mm > LONGEST_HOLE * (step @ normal):
        raise FileError(
            f"The series {stack.in_words()} in {printable(first.path.parent)} fits no even grid, as its slices are {apart}, and would"
            f" be moved by up to {error_mm:.0f} mm: give a reconstruction with even steps, or a folder with the slices of one part."
        )
    notes = []
    if np.linalg.norm(aside) * (len(slices) - 1) < TOLERANCE_MM:
        step = step - aside
    else:
        tilt = np.degrees(np.arctan2(np.linalg.norm(aside), step @ normal))
        notes.append(f"The slices are tilted by {tilt:.1f}° (gantry tilt), and the grid is sheared to match.")
    if error_mm > TOLERANCE_MM:
        # The true thickness of each slice, halfway to its neighbours, in steps of the grid.
        thickness = np.gradient(places) / (step @ normal)
        notes.append(
            f"The slices are {apart} and were treated as evenly spaced, {step @ normal:.2f} mm: positions are wrong by up to"
            f" {error_mm:.1f} mm, and true volumes are up to {1 - thickness.min():.0%} smaller or {thickness.max() - 1:.0%} larger."
        )
    step_mm = float(np.linalg.norm(step))
    return Place((*spacing[:2], step_mm), np.column_stack([directions[:, :2], step / step_mm]), positions[0]), notes


def _check_gaps(stack: Stack) -> None:
    """Refuse several images at the same position, and stacks in which one or two slices are missing."""
    slices, where = stack.slices, printable(stack.first.path.parent)
    twice = coincident(along_normal(slices))
    if twice.any():
        count = 1 + int((~twice).sum())
        raise FileError(
            f"The series {stack.in_words()} in {where} is a sequence, with {len(slices)} images at {count}"
            f" position{'s' * (count > 1)}, and no header tells its time points apart: give a folder with a single time point."
        )
    places = along_normal(slices)
    missing = missing_places(slices)
    if missing:
        at = [place_in_words(slices[index], mm - places[index]) for index, along in missing for mm in along]
        after = printable(slices[missing[0][0]].path)
        raise FileError(
            f"The series {stack.in_words()} in {where} lacks {len(at)} slice{'s' * (len(at) > 1)}, at"
            f" {', '.join(at[:MOST_PLACES])}{', …' * (len(at) > MOST_PLACES)}"
            f"{f' (the first one after {after})' * (slices[0].path != slices[-1].path)}: copy the series again, or export it again from"
            " its source."
        )


def _check_in_line(stack: Stack) -> None:
    """Refuse a stack in which a slice is shifted sideways against the one before it, beyond a common tilt."""
    slices = stack.slices
    normal = mean_plane(slices)[0][:, 2]
    steps = np.diff([header.position for header in slices], axis=0)
    aside = steps - np.outer(steps @ normal, normal)
    tilted = np.median(aside / (steps @ normal)[:, None], axis=0)  # sideways mm per mm along the normal
    off_mm = np.linalg.norm(aside - np.outer(steps @ normal, tilted), axis=1)
    if off_mm.max() > MOVES_PIXELS * min(slices[0].spacing[:2]):
        index = int(off_mm.argmax())
        raise FileError(
            f"The series {stack.in_words()} is not a straight stack, as if the patient or the table had moved:"
            f" {printable(slices[index + 1].path)}, at {place_in_words(slices[index + 1])}, lies {off_mm[index]:.0f} mm to the side of"
            " the slice before it. Put the two parts into separate folders, and give one of them."
        )
