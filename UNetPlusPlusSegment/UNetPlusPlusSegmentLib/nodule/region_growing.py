"""Region growing: one nodule through the slices of a map, which may be computed on the way. NumPy and SciPy only."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage

from .segments import MOST_DIAMETER_MM

# A section with a smaller share of the largest one's area is the last. Such ends hold 1 % of a sphere, so there is hardly a
# second one; a vessel that leaves the nodule through the slices continues, and is not followed.
END = 0.16

Sections = dict[int, np.ndarray]  # bool (rows, columns) by slice
Plane = Callable[[int], np.ndarray | None]  # probability (rows, columns) of a slice; None outside, or where unknown


def follow(plane: Plane, seed: tuple[int, int, int], threshold: float, slice_mm: float) -> Sections:
    """Follow the object at a seed, up and down until it ends.

    On each slice it is everything that touches its section on the previous slice, even at a corner only: on thick
    slices, the sections of a slanting nodule may overlap no more than that.

    Args:
        plane: Called for the slice of the seed, then for slices next to those that it returned before.
        seed: Slice, row, column.
        threshold: Least probability of a voxel in it.
        slice_mm: Distance between slices; what is longer than `MOST_DIAMETER_MM` is followed no further.

    Returns:
        Its sections, bool (rows, columns), by slice, without gaps, with tails of vessels (see `without_tails`); empty if its
        first slice is not known.
    """
    k = seed[0]
    first = plane(k)
    if first is None:
        return {}
    at_seed = np.zeros(first.shape, bool)
    at_seed[seed[1:]] = True
    sections = {k: _touching(first >= threshold, at_seed)}
    largest = int(np.count_nonzero(sections[k]))
    ends, going = {1: k, -1: k}, [1, -1]
    while going:
        for way in tuple(going):
            here = plane(ends[way] + way) if len(sections) * slice_mm < MOST_DIAMETER_MM else None
            section = None if here is None else _touching(here >= threshold, sections[ends[way]])
            area = 0 if section is None else int(np.count_nonzero(section))
            if section is not None and area:
                ends[way] += way
                sections[ends[way]] = section
                largest = max(largest, area)
            if area < END * largest:
                going.remove(way)
    return sections


def without_tails(sections: Sections) -> Sections:
    """The slices around the largest section, up to the ends: following may have begun in a tail."""
    areas = {k: np.count_nonzero(section) for k, section in sections.items()}
    middle = max(areas, key=lambda k: (areas[k], -k))
    kept = {middle: sections[middle]}
    for way in (1, -1):
        k = middle
        while areas[k] >= END * areas[middle] and k + way in areas:
            k += way
            kept[k] = sections[k]
    return kept


def near(
    plane: Plane, centre: np.ndarray, within_mm: float, steps_mm: np.ndarray, threshold: float
) -> Iterator[tuple[int, int, int]]:
    """Voxels that may belong to a nodule near a point, slice by slice from the point's own on, the nearest first on each.

    Who points at a slice sees no other; a slice is computed only if those nearer hold nothing.

    Args:
        plane: Of any slice.
        centre: Slice, row, column; may lie between voxels.
        within_mm: Largest distance.
        steps_mm: 3 × 3, its rows the steps from slice to slice, row to row and column to column.
        threshold: The least probability.
    """
    reach = int(within_mm / np.linalg.norm(steps_mm[0])) + 1
    middle = round(float(centre[0]))
    for k in sorted(range(middle - reach, middle + reach + 1), key=lambda k: abs(k - centre[0])):
        here = plane(k)
        voxels = np.argwhere(here >= threshold) if here is not None else np.zeros((0, 2), int)
        offsets = np.column_stack([np.full(len(voxels), k), voxels]) - centre
        distances_mm = np.linalg.norm(offsets @ steps_mm, axis=1)
        for at in np.argsort(distances_mm, kind="stable"):
            if distances_mm[at] <= within_mm:
                yield k, int(voxels[at, 0]), int(voxels[at, 1])


def _touching(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The corner-connected components of `mask` that touch `other`, even at a corner only."""
    rows = np.pad(other, 1)
    rows = rows[:-2] | rows[1:-1] | rows[2:]
    beside = mask & (rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:])
    if not beside.any():
        return beside
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    touched = np.zeros(count + 1, bool)
    touched[labels[beside]] = True
    return touched[labels]
