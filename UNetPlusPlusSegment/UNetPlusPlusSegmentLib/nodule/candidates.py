"""Candidates: places to search for a nodule, and the nodule found there in the windows around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..engine.trust import SIDES
from .region_growing import END, Sections, Spots, follow, near, without_tails
from .segments import MASS_MM, can_be_nodule, sphere_mm
from .windows import COARSE, FINE, MARGIN_MM, STEP_MM, Window, Windows

NEAR_MM = 10.0  # a nodule this close to a place is the one meant

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

    def lies_in(self, region: np.ndarray) -> bool:
        """True if at least half of it lies where a region of the volume (slices, rows, columns) is not 0."""
        return 2 * np.count_nonzero(region[self.box][self.mask]) >= np.count_nonzero(self.mask)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A place to search for a nodule.

    Attributes:
        index: Slice, row and column; may lie between voxels.
        may_be_mass: False where coarse pixels have shown that it is none.
        windows: Those that the network has looked at, on some slices: a fine one, and a coarse one where it was needed.
    """

    index: np.ndarray
    may_be_mass: bool = True
    windows: tuple[Window, ...] = ()


def followed(candidate: Candidate, windows: Windows, threshold: float) -> Candidate:
    """Look at what lies at a candidate: in a fine window, and in a coarse one if it does not fit or may be part of a mass.

    The network finds only fragments of a mass whose edges lie outside the window, and nothing of one that ends at the chest
    wall or the diaphragm, where it looks like them. A window too near to what it shows is moved to its middle, once.
    """
    seen: list[Window] = []
    middle, beyond = candidate.index, int(STEP_MM / windows.spacing_mm[0])  # in case the threshold is lowered
    for size in (FINE, COARSE):
        for _ in range(2):
            window = windows.around(middle[1:], size)
            found = nodule_in(window, windows.spots(window, threshold, looks=True), candidate.index, windows)
            middle = found.middle if found else middle
            if found is None or has_room(found, windows):
                break
        if found:
            windows.predict(window, range(found.box[0].start - beyond, found.box[0].stop + beyond))
        seen.append(window)
        if not candidate.may_be_mass and (found is None or has_room(found, windows)):
            break
    return replace(candidate, windows=tuple(seen))


def nodule_at(candidate: Candidate, windows: Windows, threshold: float) -> Nodule | None:
    """The nodule at a candidate, as far as its slices were predicted.

    It is the fine one, unless that is cut, or a part of a mass, or farther from the candidate than a mass: where little is seen of the
    end of one, something beside it may be found.
    """
    found = [nodule_in(w, windows.spots(w, threshold), candidate.index, windows) for w in candidate.windows]
    fine, coarse = (*found, None)[:2]
    if fine is None or coarse is None:
        return fine or coarse
    away_mm, mass_away_mm = (_away_mm(nodule, candidate.index, windows) for nodule in (fine, coarse))
    is_of_mass = is_mass(coarse, windows) and (is_part(fine, coarse) or mass_away_mm < away_mm)
    return coarse if is_of_mass or not has_room(fine, windows) else fine


def nodule_in(window: Window, spots: Spots, index: np.ndarray, windows: Windows) -> Nodule | None:
    """The nodule at an index in a window, or else the nearest one."""
    starts = np.array([0, window.rows.start, window.columns.start])
    tried: list[Sections] = []
    for k, first in near(spots, index - starts, NEAR_MM, windows.steps_mm):
        if any(first[0] in sections.get(k, ()) for sections in tried):
            continue
        tried.append(follow(spots, k, first, windows.spacing_mm[0]))
        sections = without_tails(tried[-1])
        voxels = np.concatenate(
            [np.column_stack([np.full(len(p), k), *divmod(p, spots.stride)]) for k, p in sections.items()]
        )
        least, most = voxels.min(axis=0), voxels.max(axis=0)
        mask = np.zeros(most - least + 1, bool)
        mask[tuple((voxels - least).T)] = True
        box = tuple(map(slice, (least + starts).tolist(), (most + starts + 1).tolist()))
        is_cut = box[0].start == 0 or box[0].stop == len(windows.volume.array)
        if can_be_nodule(mask, windows.steps_mm, is_cut):
            return Nodule(box, mask, window)
    return None


def is_mass(nodule: Nodule, windows: Windows) -> bool:
    """True if it is too large for a fine window."""
    return sphere_mm(nodule.mask, windows.steps_mm) > MASS_MM


def is_part(nodule: Nodule, other: Nodule) -> bool:
    """True if most of a nodule lies in another one."""
    shared = _common(nodule.box, other.box)
    both = nodule.mask[within(shared, nodule.box)] & other.mask[within(shared, other.box)]
    return 2 * np.count_nonzero(both) > np.count_nonzero(nodule.mask)


def _away_mm(nodule: Nodule, index: np.ndarray, windows: Windows) -> float:
    """Distance of an index from the nearest voxel of a nodule."""
    voxels = np.argwhere(nodule.mask) + [along.start for along in nodule.box]
    return float(np.linalg.norm((voxels - index) @ windows.steps_mm, axis=1).min())


def cut_by_scan(nodule: Nodule, windows: Windows) -> list[str]:
    """The sides of the scan, as in `SIDES`, that a nodule reaches: it may go on beyond them."""
    found = []
    for sides, along, size in zip(SIDES, nodule.box, windows.volume.array.shape, strict=True):
        found += [sides[0]] * (along.start == 0) + [sides[1]] * (along.stop == size)
    return found


def reaches_beyond(nodule: Nodule, region: np.ndarray | None) -> bool:
    """True if a part of a nodule lies outside a region, as for `label_apart`."""
    return region is not None and not region[nodule.box][nodule.mask].all()


def has_room(nodule: Nodule, windows: Windows) -> bool:
    """True if there is a margin between a nodule and the edges of its window, except where they are the edges of the slice."""
    edges = nodule.window.rows, nodule.window.columns
    sizes, spacing_mm = windows.volume.array.shape[1:], windows.spacing_mm[1:]
    return all(
        (edge.start == 0 or (along.start - edge.start) * mm >= MARGIN_MM)
        and (edge.stop == size or (edge.stop - along.stop) * mm >= MARGIN_MM)
        for along, edge, size, mm in zip(nodule.box[1:], edges, sizes, spacing_mm, strict=True)
    )


def is_seen_whole(nodule: Nodule, windows: Windows) -> bool:
    """True if the nodule ends because nothing follows, and not because the network has not seen the next slice."""
    areas = np.count_nonzero(nodule.mask, axis=(1, 2))
    return not any(
        0 <= beyond < len(windows.volume.array)
        and beyond not in nodule.window.probability
        and area >= END * areas.max()
        for beyond, area in ((nodule.box[0].start - 1, areas[0]), (nodule.box[0].stop, areas[-1]))
    )


def label_apart(nodules: Sequence[Nodule], region: np.ndarray | None) -> tuple[Ranges, np.ndarray, list[int]]:
    """Label nodules in one array, each of them once; of two that share voxels, the larger comes first.

    Args:
        nodules: One or more.
        region: bool (slices, rows, columns), False where nothing is labelled; None for everywhere.

    Returns:
        The box of slices, rows and columns that contains all of them; the uint16 labels in it; and the label of each nodule,
        0 if most of it lies in others or none of it in the region.
    """
    around = tuple(
        slice(min(n.box[axis].start for n in nodules), max(n.box[axis].stop for n in nodules)) for axis in range(3)
    )
    labels = np.zeros([along.stop - along.start for along in around], np.uint16)
    values = [0] * len(nodules)
    order = sorted(range(len(nodules)), key=lambda n: -np.count_nonzero(nodules[n].mask))
    for value, number in enumerate(order, start=1):
        here, mask = labels[within(nodules[number].box, around)], nodules[number].mask
        if 2 * np.count_nonzero(here[mask]) < np.count_nonzero(mask):
            here[mask & (here == 0)] = values[number] = value
    if region is not None:
        labels *= region[around]
    return around, labels, (np.array(values) * np.isin(values, labels)).tolist()


def _common(box: Ranges, other: Ranges) -> Ranges:
    """What two boxes share; empty if they share nothing."""
    starts = [max(a.start, b.start) for a, b in zip(box, other, strict=True)]
    return tuple(slice(s, max(s, min(a.stop, b.stop))) for s, a, b in zip(starts, box, other, strict=True))


def within(box: Ranges, around: Ranges) -> Ranges:
    """A box counted from the first voxel of one around it."""
    return tuple(slice(b.start - a.start, b.stop - a.start) for b, a in zip(box, around, strict=True))
