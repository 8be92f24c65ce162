"""Search: the places in a region where the network sees something, in coarse pixels on slices a few mm apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..core.masks import boxes, components, distance_mm
from ..core.volume import Volume, bounding_box, crop, wider
from ..engine.pixel_box import grid_size
from ..engine.slice_pool import in_order
from .candidates import Candidate, is_mass, nodule_in
from .decision import probability
from .segments import LEAST_DIAMETER_MM
from .windows import COARSE, MARGIN_MM, STEP_MM, Window, Windows

SURE = 0.9  # probability that tells apart what the threshold leaves joined
# A candidate less likely than this, as far as the search has seen it, is not looked at again. Of 200 nodules that would be shown, in
# crops of people whom the network had not seen, this loses one, and 0.05 three.
HOPELESS = 0.02

Place = tuple[np.ndarray, float]  # slice, row and column, and the least probability in its component
Part = tuple[tuple[slice, ...], np.ndarray, float]  # box, mask in it, and the same
Extent = tuple[tuple[int, int], ...]  # first slice, row and column, and those after the last


def searched_slices(inside: np.ndarray, slice_mm: float, every: bool) -> range:
    """The slices of a region, bool (slices, rows, columns), that are searched: every one, or some `STEP_MM` apart."""
    of_region = np.flatnonzero(inside.any(axis=(1, 2))).tolist()
    gap = 1 if every else max(1, int(STEP_MM / slice_mm + 0.01))
    return range(of_region[min(gap, len(of_region)) // 2], of_region[-1] + 1, gap) if of_region else range(0)


def search(
    windows: Windows,
    inside: np.ndarray,
    slices: range,
    threshold: float,
    mostly: bool,
    progress: Callable[[int], None],
) -> list[Candidate]:
    """Find the candidates in a region.

    Args:
        windows: Of the volume.
        inside: bool (slices, rows, columns), the region; each candidate lies in it.
        slices: Those to search.
        threshold: Least probability of a voxel of a nodule.
        mostly: At least half of a candidate must lie in the region.
        progress: Called with the number of slices done.
    """
    region = bounding_box(np.asarray(inside.any(axis=0)))
    if region is None:
        return []
    margins = np.ceil(MARGIN_MM / np.array(windows.spacing_mm[1:])).astype(int).tolist()
    rows, columns = wider(region, margins)
    step, first = np.array([slices.step, 1, 1]), np.array([slices.start, rows.start, columns.start])
    searched = np.s_[:: slices.step]
    box = (slice(slices.start, slices.stop), rows, columns)
    inside, part = inside[box][searched], crop(windows.volume, box)
    part = Volume(part.array[searched], part.ijk_to_ras @ np.diag([1, 1, slices.step, 1]))
    seen, size, bundle = Windows(windows.predictor, part, windows.level), part.array.shape[1:], windows.predictor.bundle
    whole = Window(
        slice(0, size[0]), slice(0, size[1]), grid_size(size, seen.spacing_mm[1:], COARSE[1] * bundle.pixel_mm)
    )
    seen.predict(whole, range(len(slices)), progress)

    chances = np.stack([whole.probability[k] for k in range(len(slices))])
    spots = {least: seen.spots(whole, least) for least in (max(SURE, threshold), threshold)}

    def looked_at(place: Place) -> tuple[Extent, Candidate] | None:
        """What the search has seen at a place, and the candidate there, unless it is hopeless."""
        index, least = place
        nodule = nodule_in(whole, spots[least], index, seen)
        if nodule is None or (mostly and not nodule.lies_in(inside)):
            return None
        if bundle.decision and probability(bundle.decision, nodule, seen) < HOPELESS:
            return None
        all_of_it = nodule if least == threshold else nodule_in(whole, spots[threshold], index, seen)
        extent = tuple((along.start, along.stop) for along in nodule.box)
        return extent, Candidate(first + index * step, all_of_it is not None and is_mass(all_of_it, seen))

    candidates: dict[Extent, Candidate] = {}
    for each in in_order(looked_at, places(chances, inside, threshold, seen.spacing_mm)):
        if each:
            candidates.setdefault(*each)  # several places may belong to one object
    return [*candidates.values()]


def places(chances: np.ndarray, inside: np.ndarray, threshold: float, spacing_mm: tuple[float, ...]) -> list[Place]:
    """Where each component of a map is thickest, or each part of it that stands out.

    A vessel joined to a nodule, or to a mass at the hilum, may well be the more probable part; it is not the thicker one.

    Args:
        chances: Probability (slices, rows, columns).
        inside: bool, the same shape: True where a place may lie.
        threshold: Least probability of a voxel of a nodule.
        spacing_mm: Along its axes.
    """
    least_voxels = float(np.pi / 6 * LEAST_DIAMETER_MM**3 / np.prod(spacing_mm))
    parts: list[Part] = []
    for least in (max(SURE, threshold), threshold):
        labels = components((chances >= least) & inside, corners=True, least=least_voxels)
        known = {labels[box][mask][0] for box, mask, _ in parts}
        parts += [(box, labels[box] == value, least) for value, box in boxes(labels).items() if value not in known]

    def thickest(part: Part) -> Place:
        box, mask, least = part
        depth = distance_mm(np.pad(mask, 1), spacing_mm)
        return np.add(np.unravel_index(depth.argmin(), depth.shape), [along.start - 1 for along in box]), least

    return [*in_order(thickest, parts)]
