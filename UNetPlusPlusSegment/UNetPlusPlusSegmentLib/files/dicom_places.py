"""Places of DICOM slices: where they lie along the normal of their stack, and where one is missing. NumPy only; compares by tolerance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .dicom_headers import Header

SAME_PLACE = 0.02  # of a step: slices nearer than this lie at one place
SAME_PLACE_MM = 1e-3
MOVES_PIXELS = 2.0  # slices whose corners differ by less, from turned axes or other pixels, lie in one plane's stack
EVEN = 0.15  # of a step: gaps that differ by less are alike
LONGEST_HOLE = 3.5  # steps: beyond, more than two slices would be missing, and the stack is parted
FEWEST_SLICES = 3  # of a part whose evenness says something
ROUNDED_MM = 0.6  # so far may positions that were rounded to whole mm lie from an even line


def in_one_plane(one: Header, other: Header) -> bool:
    """True if no corner moves by more than `MOVES_PIXELS` when a slice is drawn with the axes and pixels of another."""
    size = np.array(one.size[:2]) - 1
    steps = [np.array(header.directions)[:, :2] * header.spacing[:2] for header in (one, other)]
    pixel_mm = min(one.spacing[:2])
    return bool((np.linalg.norm((steps[0] - steps[1]) * size, axis=0) <= MOVES_PIXELS * pixel_mm).all())


def mean_plane(slices: Sequence[Header]) -> tuple[np.ndarray, tuple[float, ...]]:
    """Directions and spacing of a stack whose slices are placed: medians, which a few odd ones do not move."""
    directions = np.median([header.directions for header in slices], axis=0)
    spacing = np.median([header.spacing for header in slices], axis=0)
    return directions / np.linalg.norm(directions, axis=0), tuple(spacing.tolist())


def along_normal(slices: Sequence[Header]) -> np.ndarray:
    """Places of slices along the normal of their stack, in mm."""
    return np.array([header.position for header in slices]) @ mean_plane(slices)[0][:, 2]


def in_order(slices: Sequence[Header]) -> list[Header]:
    """Slices sorted along their normal; as they come where they have no place."""
    if not all(header.is_placed for header in slices):
        return list(slices)
    return [slices[index] for index in np.argsort(along_normal(slices), kind="stable")]


def step_of(places: np.ndarray) -> float:
    """The usual distance of neighbouring slices: of their gaps the middle one, or the shorter of the two middle ones."""
    gaps = np.sort(np.diff(places))
    return float(gaps[(len(gaps) - 1) // 2]) if len(gaps) else 0.0


def missing_places(slices: Sequence[Header]) -> list[tuple[int, list[float]]]:
    """Places at which slices of a stack are missing: where a gap is two or three steps.

    From a row of such gaps to one end of the stack nothing is missing if the instance numbers go on by one: there the steps
    are wider. Nor is anything missing between positions that were only rounded to whole mm.

    Args:
        slices: In order along their normal.

    Returns:
        For each such gap the index of the slice before it, and the places in mm along the normal.
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
    """The place of a slice, or one so many mm further along its normal, on the axis of the patient that runs most nearly along it."""
    normal = np.array(header.directions)[:, 2]
    axis = int(np.abs(normal).argmax())
    return f"{'xyz'[axis]} = {round(float(np.array(header.position)[axis] + along_mm * normal[axis]), 2):g} mm"


def _counted_on(slices: Sequence[Header], index: int) -> int:
    """By how much the instance number changes after a slice; 0 if it is not told."""
    before, after = (header.acquisition["InstanceNumber"] for header in slices[index : index + 2])
    return abs(int(after) - int(before)) if before.isdecimal() and after.isdecimal() else 0


def _is_rounded(slices: Sequence[Header], places: np.ndarray) -> bool:
    """True if positions are whole mm about an even line, and the slices are numbered without a gap."""
    if any(_counted_on(slices, index) != 1 for index in range(len(slices) - 1)):
        return False
    axis = int(np.abs(mean_plane(slices)[0][:, 2]).argmax())
    along = np.array([header.position for header in slices])[:, axis]
    index = np.arange(len(places))
    even = np.polyval(np.polyfit(index, places, 1), index)
    return bool((along == np.rint(along)).all() and np.abs(places - even).max() <= ROUNDED_MM)


def coincident(places: np.ndarray) -> np.ndarray:
    """For each slice but the first, whether it lies where the one before it lies."""
    gaps = np.diff(places)
    real = gaps[gaps > SAME_PLACE_MM]
    return gaps <= max(SAME_PLACE_MM, SAME_PLACE * float(np.median(real)) if len(real) else 0.0)


def _length(alike: np.ndarray) -> int:
    """The number of True values before the first False."""
    return len(alike) if alike.all() else int(alike.argmin())
