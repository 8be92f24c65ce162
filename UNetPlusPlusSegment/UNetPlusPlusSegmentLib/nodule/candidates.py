"""Candidates: places to search for a nodule, and the nodule found there in the maps of patches. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.masks import boxes, components
from ..core.volume import bounding_box, crop
from .region_growing import END, Plane, Sections, follow, near, without_tails
from .segments import can_be_nodule
from .windows import Patches, Window

MARGIN_MM = 5.0  # least margin around a nodule in its window
SAME = 0.5  # share of a nodule's voxels that lie in a larger one: the two are the same
PEAKS = (0.9, 0.6, 0.3)  # levels of probability: each component above one that contains no peak yet gets one
LEAST_PEAK_MM3 = 4.0  # least volume of such a component: a sphere of 2 mm

Ranges = tuple[slice, ...]
Peak = tuple[tuple[int, int, int], float]  # slice, row and column, and the least probability of its component


@dataclass(frozen=True, eq=False)
class Candidate:
    """A place to search for a nodule.

    Attributes:
        index: Slice, row and column; may lie between voxels.
        window: The part of the slices that the network sees.
        within_mm: Largest distance of the nodule from the index.
        least_mm: Least diameter, of a sphere of the same volume.
    """

    index: np.ndarray
    window: Window
    within_mm: float
    least_mm: float


@dataclass(frozen=True, eq=False)
class Nodule:
    """The box of slices, rows and columns that contains a nodule, and the nodule's mask in it."""

    box: Ranges
    mask: np.ndarray


def section_of(candidate: Candidate, patches: Patches, plane: Plane, threshold: float) -> Nodule | None:
    """The section of the object at a candidate, on the candidate's own slice; None if there is none."""
    starts = 0, candidate.window.rows.start, candidate.window.columns.start
    seed = tuple(round(float(i)) - start for i, start in zip(candidate.index, starts, strict=True))
    if not all(
        0 <= at < n.stop - n.start
        for at, n in zip(seed[1:], (candidate.window.rows, candidate.window.columns), strict=True)
    ):
        return None  # the window is that of a nodule beside it
    section = follow(lambda k: plane(k) if k == seed[0] else None, seed, threshold, patches.spacing_mm).get(seed[0])
    tight = None if section is None else bounding_box(section)
    if section is None or tight is None:
        return None
    rows, columns = tight
    box = (
        slice(seed[0], seed[0] + 1),
        *(
            slice(along.start + start, along.stop + start)
            for along, start in zip((rows, columns), starts[1:], strict=True)
        ),
    )
    return Nodule(box, section[None, rows, columns])


def section_mm(candidate: Candidate, patches: Patches, plane: Plane, threshold: float) -> float:
    """Diameter of a disc with the area of the section at a candidate; 0 if there is none."""
    section = section_of(candidate, patches, plane, threshold)
    pixel_mm2 = patches.spacing_mm[1] * patches.spacing_mm[2]
    return 0.0 if section is None else 2 * float(np.sqrt(np.count_nonzero(section.mask) * pixel_mm2 / np.pi))


def nodule_of(candidate: Candidate, patches: Patches, plane: Plane, threshold: float) -> Nodule | None:
    """The nodule at a candidate, or else the nearest one.

    Args:
        plane: The probability in the candidate's window.
    """
    rows, columns = candidate.window.rows, candidate.window.columns
    place = candidate.index - [0, rows.start, columns.start]
    tried: Sections = {}
    for seed in near(plane, place, candidate.within_mm, patches.volume.ijk_to_ras[:3, 2::-1].T, threshold):
        if seed[0] in tried and tried[seed[0]][seed[1:]]:
            continue
        followed = follow(plane, seed, threshold, patches.spacing_mm)
        tried |= {k: section | tried.get(k, False) for k, section in followed.items()}
        sections = without_tails(followed)
        first, last = min(sections), max(sections)
        mask = np.stack([sections[k] for k in range(first, last + 1)])
        tight = bounding_box(mask)
        if tight is None:
            continue
        starts = first, rows.start, columns.start
        box = tuple(slice(along.start + s, along.stop + s) for along, s in zip(tight, starts, strict=True))
        is_cut = box[0].start == 0 or box[0].stop == len(patches.volume.array)
        if can_be_nodule(mask[tight], crop(patches.volume, box), candidate.least_mm, is_cut):
            return Nodule(box, mask[tight])
    return None


def has_room(nodule: Nodule, window: Window, patches: Patches) -> bool:
    """True if there is a margin between a nodule and the edges of its window, except where they are the edges of the slice."""
    sizes, spacing_mm = patches.volume.array.shape[1:], patches.spacing_mm[1:]
    for along, edge, size, mm in zip(nodule.box[1:], (window.rows, window.columns), sizes, spacing_mm, strict=True):
        if edge.start > 0 and (along.start - edge.start) * mm < MARGIN_MM:
            return False
        if edge.stop < size and (edge.stop - along.stop) * mm < MARGIN_MM:
            return False
    return True


def is_seen_whole(nodule: Nodule, window: Window, patches: Patches) -> bool:
    """True if the nodule ends because nothing follows, and not because the network has not seen the next slice."""
    areas = np.count_nonzero(nodule.mask, axis=(1, 2))
    return not any(
        0 <= beyond < len(patches.volume.array) and beyond not in window.planes and area >= END * areas.max()
        for beyond, area in ((nodule.box[0].start - 1, areas[0]), (nodule.box[0].stop, areas[-1]))
    )


def label_apart(nodules: Sequence[Nodule]) -> tuple[Ranges, np.ndarray]:
    """Label one or more nodules in one array, each of them once; of two that share voxels, the larger comes first.

    Returns:
        The box of slices, rows and columns that contains them all, and their uint16 labels in it, from 1 on.
    """
    around = tuple(
        slice(min(n.box[axis].start for n in nodules), max(n.box[axis].stop for n in nodules)) for axis in range(3)
    )
    labels = np.zeros([along.stop - along.start for along in around], np.uint16)
    for value, nodule in enumerate(sorted(nodules, key=lambda n: -np.count_nonzero(n.mask)), start=1):
        pairs = zip(nodule.box, around, strict=True)
        here = labels[tuple(slice(b.start - a.start, b.stop - a.start) for b, a in pairs)]
        if np.count_nonzero(here[nodule.mask]) < SAME * np.count_nonzero(nodule.mask):
            here[nodule.mask & (here == 0)] = value
    return around, labels


def peaks(probability: np.ndarray, inside: np.ndarray, voxel_mm3: float) -> list[Peak]:
    """The most probable voxel of each component of a map, and of each part of a component that stands out.

    Args:
        probability: (slices, rows, columns).
        inside: bool, the same shape: True where a peak may lie.
        voxel_mm3: Volume of a voxel.

    Returns:
        Slice, row and column of each, and the least probability in its component.
    """
    found: list[Peak] = []
    box = bounding_box(probability >= min(PEAKS))
    if box is None:
        return found
    part = np.where(inside[box], probability[box], 0).astype(np.float32)
    for least in PEAKS:
        labels = components(part >= least, corners=True, least=int(LEAST_PEAK_MM3 / voxel_mm3))
        known = {int(labels[at]) for at, _ in found}
        for value, ranges in boxes(labels).items():
            if value in known:
                continue
            here = np.where(labels[ranges] == value, part[ranges], 0)
            at = np.unravel_index(here.argmax(), here.shape)
            found.append((tuple(int(a) + along.start for a, along in zip(at, ranges, strict=True)), least))
    return [(tuple(a + along.start for a, along in zip(at, box, strict=True)), least) for at, least in found]
