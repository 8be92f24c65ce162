"""Region growing: one nodule through the slices of a map, which may be computed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage

from .segments import MOST_DIAMETER_MM

# A section with a smaller share of the largest one's area is the last. Such ends hold 1 % of a sphere, so there is hardly a
# second one; a vessel that leaves the nodule through the slices continues, and is not followed.
END = 0.16

Plane = Callable[[int], np.ndarray | None]  # probability (rows, columns) of a slice; None outside, or where unknown
Sections = dict[int, np.ndarray]  # by slice; the pixels of an object, as `Spots` has them


class Spots:
    """What reaches a threshold on each slice of a map, in spots: pixels that touch one another, even at a corner only.

    Pixels are numbered by row × `stride` + column. After each row comes one number more, which no pixel has, so that the numbers
    of neighbours differ by the same steps everywhere.
    """

    def __init__(self, plane: Plane, columns: int, threshold: float) -> None:
        """Each slice is requested when it is first needed."""
        self._plane, self._threshold, self.stride = plane, threshold, columns + 1
        self._steps = np.add.outer([-self.stride, 0, self.stride], [-1, 0, 1]).ravel()
        self._known: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def on(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of all spots on a slice, in ascending order, and the number of the spot to which each belongs."""
        if k not in self._known:
            here = self._plane(k)
            reached = np.zeros((0, 0), bool) if here is None else here >= self._threshold
            numbers, _ = ndimage.label(reached, np.ones((3, 3)))
            rows, columns = reached.nonzero()
            self._known[k] = rows * self.stride + columns, numbers[rows, columns]
        return self._known[k]

    def touching(self, k: int, pixels: np.ndarray) -> np.ndarray:
        """The pixels of all spots on a slice that touch some pixels, of this slice or of one beside it."""
        known, numbers = self.on(k)
        if not len(known):
            return known
        around = np.add.outer(self._steps, pixels).ravel()
        at = known.searchsorted(around)
        touched = np.zeros(numbers.max() + 1, bool)
        touched[numbers[at[known.take(at, mode="clip") == around]]] = True
        return known[touched[numbers]]


def follow(spots: Spots, k: int, first: np.ndarray, slice_mm: float) -> Sections:
    """Follow the object to which a spot belongs, up and down until it ends.

    On each slice it is everything that touches its section on the previous slice, even at a corner only: on thick
    slices, the sections of a slanting nodule may overlap no more than that.

    Args:
        spots: On the slice `k`, then on slices next to those that were needed before.
        k: The first slice.
        first: The pixels of the spot.
        slice_mm: Distance between slices; what is longer than `MOST_DIAMETER_MM` is followed no further.

    Returns:
        Its sections, without gaps, with tails of vessels (see `without_tails`).
    """
    sections, largest = {k: first}, len(first)
    ends, going = {1: k, -1: k}, [1, -1]
    while going:
        for way in tuple(going):
            section = first[:0]
            if len(sections) * slice_mm < MOST_DIAMETER_MM:
                section = spots.touching(ends[way] + way, sections[ends[way]])
            if len(section):
                ends[way] += way
                sections[ends[way]] = section
                largest = max(largest, len(section))
            if len(section) < END * largest:
                going.remove(way)
    return sections


def without_tails(sections: Sections) -> Sections:
    """The slices around the largest section, up to the ends: following may have begun in a tail."""
    middle = max(sections, key=lambda k: (len(sections[k]), -k))
    kept = {middle: sections[middle]}
    for way in (1, -1):
        k = middle
        while len(sections[k]) >= END * len(sections[middle]) and k + way in sections:
            k += way
            kept[k] = sections[k]
    return kept


def near(spots: Spots, centre: np.ndarray, within_mm: float, steps_mm: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Slices and pixels of the spots near a point, slice by slice from the point's own on, the nearest first on each.

    The user, who points at something, sees only the slice of the point. A slice is computed only if those nearer to it hold nothing.

    Args:
        spots: On any slice.
        centre: Slice, row, column; may lie between voxels.
        within_mm: Largest distance.
        steps_mm: 3 × 3, its rows the steps from slice to slice, row to row and column to column.
    """
    reach = int(within_mm / np.linalg.norm(steps_mm[0])) + 1
    middle = round(float(centre[0]))
    for k in sorted(range(middle - reach, middle + reach + 1), key=lambda k: abs(k - centre[0])):
        pixels, numbers = spots.on(k)
        offsets = np.column_stack([np.full(len(pixels), k), *divmod(pixels, spots.stride)]) - centre
        distances_mm = np.linalg.norm(offsets @ steps_mm, axis=1)
        nearest = np.argsort(distances_mm, kind="stable")[: np.count_nonzero(distances_mm <= within_mm)]
        for number in dict.fromkeys(numbers[nearest].tolist()):
            yield k, pixels[numbers == number]
