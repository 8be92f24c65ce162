"""Positions of DICOM slices along the normal of their stack, compared with tolerances, and gaps between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .dicom_headers import Header

SAME_PLACE = 0.02  # in steps: slices closer than this have the same position
SAME_PLACE_MM = 1e-3
MOVES_PIXELS = 2.0  # slices can be in one stack if differences in axes or pixel size move their corners by less
EVEN = 0.15  # in steps: gaps that differ by less are equal
# In steps: at a longer gap, with more than two slices missing, the stack is split; and no slice may be moved further.
LONGEST_HOLE = 3.5
FEWEST_SLICES = 3  # fewer slices do not show whether they are evenly spaced
ROUNDED_MM = 0.6  # how far positions rounded to whole mm may be from even spacing


def in_one_plane(one: Header, other: Header) -> bool:
    """True if no corner of a slice moves by more than `MOVES_PIXELS` when given the axes and pixel size of the other."""
    size = np.array(one.size[:2]) - 1
    steps = [np.array(header.directions)[:, :2] * header.spacing[:2] for header in (one, other)]
    pixel_mm = min(one.spacing[:2])
    return bool((np.linalg.norm((steps[0] - steps[1]) * size, axis=0) <= MOVES_PIXELS * pixel_mm).all())


def mean_plane(slices: Sequence[Header]) -> tuple[np.ndarray, tuple[float, ...]]:
    """Directions and spacing of a stack: medians, which a few outliers do not change."""
    directions = np.median([header.directions for header in slices], axis=0)
    spacing = np.median([header.spacing for header in slices], axis=0)
    return directions / np.linalg.norm(directions, axis=0), tuple(spacing.tolist())


def along_normal(slices: Sequence[Header]) -> np.ndarray:
    """Positions of slices along the normal of their stack, in mm."""
    return np.array([header.position for header in slices]) @ mean_plane(slices)[0][:, 2]


def in_order(slices: Sequence[Header]) -> list[Header]:
    """Slices sorted along their normal; unchanged if some have no position."""
    if not all(header.is_placed for header in slices):
        return list(slices)
    return [slices[index] for index in np.argsort(along_normal(slices), kind="stable")]


def step_of(places: np.ndarray) -> float:
    """The usual distance between neighbouring slices: the lower median of the gaps."""
    gaps = np.sort(np.diff(places))
    return float(gaps[(len(gaps) - 1) // 2]) if len(gaps) else 0.0


def missing_places(slices: Sequence[Header]) -> list[tuple[int, list[float]]]:
    """Find missing slices: gaps of two or three steps.

    A series of such gaps up to one end of the stack is only a wider spacing if the instance numbers are consecutive there.
    Positions that were merely rounded to whole mm have no gaps either.

    Args:
        slices: In order along their normal.

    Returns:
        For each gap, the index of the slice before it, and the positions of the missing slices in mm along the normal.
    """
    places = along_normal(slices)
    gaps, step = np.diff(places), step_of(places)
    if step <= 0 or _is_rounded(slices, places):
        return []
    found = []
    for index, gap in enumerate(gaps):
        steps = round(gap / step)
        if not 2 <= steps <= LONGEST_HOLE or abs(gap - steps * step) > EVEN * step:
            continue
        alike = np.abs(gaps - gap) <= EVEN * step
        after, before = _length(alike[index + 1 :]), _length(alike[:index][::-1])
        reaches_end = index + 1 + after == len(gaps) or index == before
        if 1 + before + after < FEWEST_SLICES or not reaches_end or _counted_on(slices, index) == steps:
            found.append((index, [float(places[index] + n * gap / steps) for n in range(1, steps)]))
    return found


def place_in_words(header: Header, along_mm: float = 0.0) -> str:
    """Position of a slice, or of one `along_mm` further along its normal, on the patient axis closest to the normal: `z = -60 mm`."""
    normal = np.array(header.directions)[:, 2]
    axis = int(np.abs(normal).argmax())
    return f"{'xyz'[axis]} = {round(float(np.array(header.position)[axis] + along_mm * normal[axis]), 2):g} mm"


def _counted_on(slices: Sequence[Header], index: int) -> int:
    """By how much the instance number changes after a slice; 0 if it is not given."""
    before, after = (header.acquisition["InstanceNumber"] for header in slices[index : index + 2])
    return abs(int(after) - int(before)) if before.isdecimal() and after.isdecimal() else 0


def _is_rounded(slices: Sequence[Header], places: np.ndarray) -> bool:
    """True if positions are whole mm close to even spacing, and the slices are numbered without a gap."""
    if any(_counted_on(slices, index) != 1 for index in range(len(slices) - 1)):
        return False
    axis = int(np.abs(mean_plane(slices)[0][:, 2]).argmax())
    along = np.array([header.position for header in slices])[:, axis]
    index = np.arange(len(places))
    even = np.polyval(np.polyfit(index, places, 1), index)
    return bool((along == np.rint(along)).all() and np.abs(places - even).max() <= ROUNDED_MM)


def coincident(places: np.ndarray) -> np.ndarray:
    """For each slice but the first, whether it has the position of the one before it."""
    gaps = np.diff(places)
    real = gaps[gaps > SAME_PLACE_MM]
    return gaps <= max(SAME_PLACE_MM, SAME_PLACE * float(np.median(real)) if len(real) else 0.0)


def _length(alike: np.ndarray) -> int:
    """The number of True values before the first False."""
    return len(alike) if alike.all() else int(alike.argmin())
