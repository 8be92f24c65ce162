"""Search: the places in a region where the network sees something, in coarse pixels on slices a few mm apart. torch and NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..core.masks import boxes, components, distance_mm
from ..core.volume import Volume, bounding_box
from ..engine.pixel_box import Box, aligned, grid_size
from ..engine.slice_pool import in_order
from .candidates import LEAST_MASS_MM, LEAST_MASS_MM3, Candidate, nodule_in
from .decision import probability
from .segments import LEAST_DIAMETER_MM
from .windows import COARSE, Windows

STEP_MM = 2.5  # between slices, unless each of them is searched: readers find nodules of 4 mm at this distance
ROOM_MM = 8.0  # margin around the region
LEVELS = (0.9, 0.6, 0.3)  # of probability: each component above one that contains no peak yet gets one
LEAST_PEAK_MM3 = 8.0  # least volume of such a component: of 119 nodules of three readers the smallest has 19
PEAK_MM = 3.0  # largest distance of a nodule from its peak
HOPELESS = 0.02  # a candidate that is less likely than this, as far as the search has seen it, is not looked at again

Peak = tuple[tuple[int, int, int], float]  # slice, row and column, and the least probability in its component
Extent = tuple[tuple[int, int], ...]  # first slice, row and column, and those after the last


def searched_slices(inside: np.ndarray, slice_mm: float, every: bool) -> list[int]:
    """The slices of a region, bool (slices, rows, columns), that are searched: every one, or some `STEP_MM` apart."""
    of_region = np.flatnonzero(inside.any(axis=(1, 2)))
    gap = 1 if every else max(1, int(STEP_MM / slice_mm + 0.01))
    return of_region[min(gap, len(of_region)) // 2 :: gap].tolist()


def search(
    windows: Windows,
    inside: np.ndarray,
    slices: Sequence[int],
    threshold: float,
    least_inside: float,
    progress: Callable[[int], None],
) -> list[Candidate]:
    """Find the candidates in a region.

    Args:
        windows: Of the volume.
        inside: bool (slices, rows, columns), the region; a peak lies in it.
        slices: Those to search, evenly spaced.
        threshold: Least probability of a voxel of a nodule.
        least_inside: Share of a candidate that lies in the region, at least.
        progress: Called with the number of slices done.
    """
    region = bounding_box(np.asarray(inside.any(axis=0)))
    if region is None:
        return []
    size, bundle = inside.shape[1:], windows.predictor.bundle
    grid = grid_size(size, windows.spacing_mm[1:], COARSE[1] * bundle.pixel_mm)
    step = np.array(
        [slices[1] - slices[0] if len(slices) > 1 else 1, size[0] / grid[0], size[1] / grid[1]]
    )  # in voxels
    step_mm = step * windows.spacing_mm
    rows, columns = (
        aligned(along.start / n - ROOM_MM / mm, along.stop / n + ROOM_MM / mm, most, 2**bundle.depth)
        for along, n, mm, most in zip(region, step[1:], step_mm[1:], grid, strict=True)
    )
    box = Box(grid, (0, len(inside)), rows, columns)
    maps = np.zeros((2, len(slices), *box.size), np.float16)
    first = np.array([slices[0], (rows[0] + 0.5) * step[1] - 0.5, (columns[0] + 0.5) * step[2] - 0.5])

    def of_heads(heads: Tensor) -> np.ndarray:
        return torch.stack(windows.predictor.probability_and_uncertainty(heads)).half().cpu().numpy()

    done = 0
    for part, planes in windows.predictor.heads(windows.volume.array, slices, box, windows.level, of_heads):
        maps[:, done : done + len(part)] = planes
        done += len(part)
        progress(done)
    places = np.ix_(
        *(
            np.rint(np.arange(n) * s + f).astype(int).clip(0, most - 1)
            for n, s, f, most in zip(maps.shape[1:], step, first, inside.shape, strict=True)
        )
    )
    inside = inside[places]
    coarse = Volume(windows.volume.array[places], np.diag([*-step_mm[:0:-1], step_mm[0], 1]))
    seen = Windows(windows.predictor, coarse, windows.level)

    def looked_at(peak: Peak) -> tuple[Extent, Candidate] | None:
        """What the search has seen at a peak, and the candidate there, unless it is hopeless."""
        index, least = peak
        place = Candidate(np.array(index), PEAK_MM, 0)
        window = seen.around(index[1:], COARSE)
        for known, planes in zip((window.probability, window.uncertainty), maps, strict=True):
            known.update(enumerate(planes[:, window.rows, window.columns]))
        nodule = nodule_in(window, place, seen, window.probability.get, least)
        if nodule is None or inside[nodule.box][nodule.mask].mean() < least_inside:
            return None
        if bundle.decision and probability(bundle.decision, nodule, seen) < HOPELESS:
            return None
        mass = nodule_in(window, replace(place, least_mm=LEAST_MASS_MM), seen, window.probability.get, threshold)
        extent = tuple((along.start, along.stop) for along in nodule.box)
        return extent, Candidate(first + np.array(index) * step, PEAK_MM, LEAST_DIAMETER_MM, mass is not None)

    candidates: dict[Extent, Candidate] = {}
    for each in in_order(looked_at, peaks(maps[0], inside, step_mm)):
        if each:
            candidates.setdefault(*each)  # several peaks may belong to one object
    return [*candidates.values()]


def peaks(probability: np.ndarray, inside: np.ndarray, spacing_mm: np.ndarray) -> list[Peak]:
    """The most probable voxel of each component of a map, and of each part of a component that stands out.

    One as large as a mass has another where it is thickest: a mass at the hilum is one component with the vessels there, which may well
    be the more probable part of it.

    Args:
        probability: (slices, rows, columns).
        inside: bool, the same shape: True where a peak may lie.
        spacing_mm: Along its axes.
    """
    found: list[Peak] = []
    part = np.where(inside, probability, 0).astype(np.float32)
    voxel_mm3 = float(np.prod(spacing_mm))
    for least in LEVELS:
        labels = components(part >= least, corners=True, least=LEAST_PEAK_MM3 / voxel_mm3)
        known = {int(labels[at]) for at, _ in found}
        for value, ranges in boxes(labels).items():
            if value in known:
                continue
            mask = labels[ranges] == value
            places = [np.where(mask, part[ranges], 0).argmax()]
            if np.count_nonzero(mask) * voxel_mm3 >= LEAST_MASS_MM3:
                places.append(distance_mm(np.pad(mask, 1), spacing_mm)[1:-1, 1:-1, 1:-1].argmin())
            for place in places:
                k, row, column = (
                    int(a) + along.start for a, along in zip(np.unravel_index(place, mask.shape), ranges, strict=True)
                )
                found.append(((k, row, column), least))
    return found
