"""Candidates: places to search for a nodule, and the nodule found there in the windows around them. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core.volume import bounding_box, crop
from .measurements import SOLID_HU
from .region_growing import END, Plane, Sections, follow, near, without_tails
from .segments import can_be_nodule
from .windows import COARSE, FINE, Window, Windows

MARGIN_MM = (
    5.0  # least margin around a nodule in its window: nearer to the edge, the network sees too little of what it is
)
BEYOND_MM = 2.0  # predicted beyond the ends of a nodule, in case the threshold is lowered
LEAST_MASS_MM = 20.0  # least diameter of a mass: the fine window shows smaller nodules whole
LEAST_MASS_MM3 = np.pi / 6 * LEAST_MASS_MM**3
AT_MM = 3.0  # a point this near to a nodule means it, whatever else is there
PART = 0.3  # a nodule that is less than this of a mass, in volume, is only a fragment of it: 2/3 of its diameter
SAME = 0.5  # share of a nodule's voxels that lie in a larger one: the two are the same

Ranges = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Nodule:
    """A nodule in a volume.

    Attributes:
        box: The slices, rows and columns that contain it.
        mask: bool, of the shape of the box.
        window: That in which it was found.
    """

    box: Ranges
    mask: np.ndarray
    window: Window

    @property
    def middle(self) -> np.ndarray:
        """Slice, row and column of the middle of its box."""
        return np.array([(along.start + along.stop - 1) / 2 for along in self.box])


@dataclass(frozen=True, eq=False)
class Candidate:
    """A place to search for a nodule.

    Attributes:
        index: Slice, row and column; may lie between voxels.
        within_mm: Largest distance of the nodule from the index.
        least_mm: Least diameter, of a sphere of the same volume.
        may_be_mass: False where coarse pixels have shown that it is none.
        windows: Those that the network has looked at, on some slices: a fine one, and a coarse one where it was needed.
    """

    index: np.ndarray
    within_mm: float
    least_mm: float
    may_be_mass: bool = True
    windows: tuple[Window, ...] = ()


def followed(candidate: Candidate, windows: Windows, threshold: float) -> Candidate:
    """Look at what lies at a candidate: in a fine window, and in a coarse one if it does not fit or may be part of a mass.

    The network finds only fragments of a mass whose edges lie outside the window, and nothing of one that ends at the chest
    wall or the diaphragm, where it looks like them.
    """

    def grown(window: Window) -> Nodule | None:
        return nodule_in(window, candidate, windows, windows.plane_of(window), threshold)

    fine = windows.around(candidate.index[1:], FINE)
    found = grown(fine)
    if found and not has_room(found, windows):
        fine = windows.around(found.middle[1:], FINE)
        found = grown(fine)
    middle = candidate.index if found is None else found.middle
    coarse = windows.around(middle[1:], COARSE)
    seen: Nodule | None = None
    if candidate.may_be_mass or (found and not has_room(found, windows)):
        seen = grown(coarse)
        if seen and not has_room(seen, windows):
            coarse = windows.around(seen.middle[1:], COARSE)
            seen = grown(coarse)
    for nodule in filter(None, (found, seen)):
        beyond = int(BEYOND_MM / windows.spacing_mm[0])
        windows.predict(nodule.window, range(nodule.box[0].start - beyond, nodule.box[0].stop + beyond))
    return replace(candidate, windows=(fine, coarse) if seen else (fine,))


def nodule_at(candidate: Candidate, windows: Windows, threshold: float) -> Nodule | None:
    """The nodule at a candidate, as far as its slices were predicted: the fine one, unless it is cut or a part of a mass."""
    found = [nodule_in(w, candidate, windows, w.probability.get, threshold) for w in candidate.windows]
    fine, coarse = (*found, None)[:2]
    if fine is None or coarse is None:
        return fine or coarse
    is_mass = np.count_nonzero(coarse.mask) * windows.volume.voxel_volume_ml * 1000 >= LEAST_MASS_MM3
    if not has_room(fine, windows) or (is_mass and (_is_part(fine, coarse) or _is_apart(fine, candidate, windows))):
        return coarse
    return fine


def nodule_in(window: Window, candidate: Candidate, windows: Windows, plane: Plane, threshold: float) -> Nodule | None:
    """The nodule at a candidate in a window, or else the nearest one.

    Args:
        plane: The probability in the window.
    """
    starts = 0, window.rows.start, window.columns.start
    tried: Sections = {}
    steps_mm = windows.volume.ijk_to_ras[:3, 2::-1].T
    for seed in near(plane, candidate.index - starts, candidate.within_mm, steps_mm, threshold):
        if seed[0] in tried and tried[seed[0]][seed[1:]]:
            continue
        sections = follow(plane, seed, threshold, windows.spacing_mm)
        tried |= {k: section | tried.get(k, False) for k, section in sections.items()}
        sections = without_tails(sections)
        first = min(sections)
        mask = np.stack([sections[k] for k in sorted(sections)])
        tight = bounding_box(mask)
        if tight is None:
            continue
        box = tuple(slice(t.start + s, t.stop + s) for t, s in zip(tight, (first, *starts[1:]), strict=True))
        nodule = Nodule(box, mask[tight], window)
        if can_be_nodule(
            nodule.mask, crop(windows.volume, box), candidate.least_mm, bool(cut_by_scan(nodule, windows))
        ):
            return nodule
    return None


def cut_by_scan(nodule: Nodule, windows: Windows) -> list[str]:
    """The ends of the scan, `inferior` and `superior`, that a nodule reaches: it may go on beyond them."""
    ends = {"inferior": nodule.box[0].start == 0, "superior": nodule.box[0].stop == len(windows.volume.array)}
    return [side for side, is_reached in ends.items() if is_reached]


def has_room(nodule: Nodule, windows: Windows) -> bool:
    """True if there is a margin between a nodule and the edges of its window, except where they are the edges of the slice."""
    edges = nodule.window.rows, nodule.window.columns
    sizes, spacing_mm = windows.volume.array.shape[1:], windows.spacing_mm[1:]
    for along, edge, size, mm in zip(nodule.box[1:], edges, sizes, spacing_mm, strict=True):
        if edge.start > 0 and (along.start - edge.start) * mm < MARGIN_MM:
            return False
        if edge.stop < size and (edge.stop - along.stop) * mm < MARGIN_MM:
            return False
    return True


def is_seen_whole(nodule: Nodule, windows: Windows) -> bool:
    """True if the nodule ends because nothing follows, and not because the network has not seen the next slice."""
    areas = np.count_nonzero(nodule.mask, axis=(1, 2))
    return not any(
        0 <= beyond < len(windows.volume.array)
        and beyond not in nodule.window.probability
        and area >= END * areas.max()
        for beyond, area in ((nodule.box[0].start - 1, areas[0]), (nodule.box[0].stop, areas[-1]))
    )


def clipped(nodule: Nodule, region: Ranges) -> Nodule | None:
    """The part of a nodule in a box of slices, rows and columns; None if there is none."""
    box = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(nodule.box, region, strict=True))
    if any(along.start >= along.stop for along in box):
        return None
    mask = nodule.mask[_within(box, nodule.box)]
    return Nodule(box, mask, nodule.window) if mask.any() else None


def label_apart(nodules: Sequence[Nodule]) -> tuple[Ranges, np.ndarray, list[int]]:
    """Label one or more nodules in one array, each of them once; of two that share voxels, the larger comes first.

    Returns:
        The box of slices, rows and columns that contains them all; their uint16 labels in it; and the label of each nodule, 0 if
        it is the same as another one.
    """
    around = tuple(
        slice(min(n.box[axis].start for n in nodules), max(n.box[axis].stop for n in nodules)) for axis in range(3)
    )
    labels = np.zeros([along.stop - along.start for along in around], np.uint16)
    values = [0] * len(nodules)
    order = sorted(range(len(nodules)), key=lambda n: -np.count_nonzero(nodules[n].mask))
    for value, number in enumerate(order, start=1):
        here, mask = labels[_within(nodules[number].box, around)], nodules[number].mask
        if np.count_nonzero(here[mask]) < SAME * np.count_nonzero(mask):
            here[mask & (here == 0)] = values[number] = value
    return around, labels, values


def _is_part(nodule: Nodule, mass: Nodule) -> bool:
    """True if a nodule is a fragment of a mass."""
    own, shared, size = clipped(nodule, mass.box), clipped(mass, nodule.box), np.count_nonzero(nodule.mask)
    if own is None or shared is None or size >= PART * np.count_nonzero(mass.mask):
        return False
    return bool(np.count_nonzero(own.mask & shared.mask) >= SAME * size)


def _is_apart(nodule: Nodule, candidate: Candidate, windows: Windows) -> bool:
    """True if a candidate lies in tissue, but not at the nodule, as in the end of a mass, of which little is seen."""
    if windows.volume.array[tuple(np.rint(candidate.index).astype(int))] < SOLID_HU:
        return False
    steps_mm = windows.volume.ijk_to_ras[:3, 2::-1].T
    voxels = np.argwhere(nodule.mask) + [along.start for along in nodule.box]
    return bool(np.linalg.norm((voxels - candidate.index) @ steps_mm, axis=1).min() > AT_MM)


def _within(box: Ranges, around: Ranges) -> Ranges:
    """A box counted from the first voxel of one around it."""
    return tuple(slice(b.start - a.start, b.stop - a.start) for b, a in zip(box, around, strict=True))
