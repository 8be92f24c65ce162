"""Rebuilds volumes from the evenly spaced slices of a slice folder, and makes degraded and shortened copies of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from data.slices import DataError, Slice, read_slices
from data.targets import AIR_HU, Target
from measure.truth import in_label_map
from UNetPlusPlusSegmentLib.core.trust import LEAST_SLICES
from UNetPlusPlusSegmentLib.core.volume import Volume, crop

AROUND_MM = 60.0  # kept below and above the labels; the rest of the body costs time and shows nothing new
# Degradations strong enough that some networks fail and others do not; at half the strength, hardly any fails.
NOISE_HU = 60.0, 120.0  # standard deviation
BLOTCHES_HU, BLOTCH_PIXELS = 45.0, 5.0  # of noise as coarse as bowel
BLUR_PIXELS = 4.0
CONTRAST, MIDDLE_HU = 0.2, 60.0  # remaining contrast, about the middle of the liver's window
DARKER_HU = -100.0  # of the labels only; a fatty liver is up to 80 HU darker, an early phase 20
THICK_MM = 10.0  # slice thickness
CUT = (0.15,)  # share of the labels' height that is left


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume with its truth.

    Attributes:
        name, person: As in slices.csv.
        volume: HU, float32 (slices, rows, columns) in axial order.
        truth: bool (labels, slices, rows, columns): what a label map can show of the labels.
        known: bool (labels,): True for labels whose masks are complete on all stored slices.
        stored: bool (slices,): True for slices of the folder; the others repeat the nearest one of these.
        change: How the scan was degraded or shortened; empty: it is unchanged.
    """

    name: str
    person: str
    volume: Volume
    truth: np.ndarray
    known: np.ndarray
    stored: np.ndarray
    change: str = ""

    @property
    def height(self) -> tuple[int, int]:
        """The index of the first slice with a label, and that after the last."""
        shown = np.flatnonzero(self.truth.any(axis=(0, 2, 3)))
        return int(shown[0]), int(shown[-1]) + 1

    def only(self, slices: slice, change: str) -> Scan:
        """The scan with a range of its slices only."""
        volume = crop(self.volume, (slices, slice(0, None), slice(0, None)))
        return replace(self, volume=volume, truth=self.truth[:, slices], stored=self.stored[slices], change=change)

    def with_hu(self, hu: np.ndarray, change: str) -> Scan:
        """The scan with other HU; air stays air."""
        array = np.where(self.volume.array == AIR_HU, AIR_HU, hu).astype(np.float32)
        return replace(self, volume=Volume(array, self.volume.ijk_to_ras), change=change)


def dense_runs(folder: str | Path, target: Target, split: str) -> Iterator[Scan]:
    """The volumes of a split whose slices are evenly spaced where they show a label.

    The columns `slice` and `source_slice_mm` of slices.csv say where slices lie.

    Raises:
        DataError: As for `read_slices`; or there is no such volume.
    """
    by_volume: dict[str, list[Slice]] = defaultdict(list)
    for item in read_slices(folder, target, split):
        if item.row.get("source_slice_mm") and item.row.get("slice"):
            by_volume[item.row["volume"]].append(in_label_map(item, target))
    on_grid = {name: _on_grid(items) for name, items in sorted(by_volume.items())}
    dense = {name: items for name, items in on_grid.items() if _is_dense(items)}
    if not dense:
        raise DataError(
            f"Split {split} of {folder} has no scan with evenly spaced slices. This needs at least {LEAST_SLICES} slices with a"
            " label, and the columns slice and source_slice_mm of slices.csv."
        )
    for items in dense.values():
        yield _rebuilt(sorted(items, key=_number), target)


def _number(item: Slice) -> int:
    return int(item.row["slice"])


def _on_grid(items: list[Slice]) -> list[Slice]:
    """The slices at the usual distance of those that show a label, without what was kept between them of small outlines."""
    shown = np.sort([_number(item) for item in items if item.mask.any()])
    if len(shown) < 2:
        return items
    step = int(np.median(np.diff(shown)))
    first = np.bincount(shown % step).argmax()
    return [item for item in items if _number(item) % step == first]


def _is_dense(items: list[Slice]) -> bool:
    shown = np.sort([_number(item) for item in items if item.mask.any()])
    return len(shown) >= LEAST_SLICES and bool(np.median(np.diff(shown)) == np.diff(shown).min())


def _rebuilt(items: list[Slice], target: Target) -> Scan:
    row = items[0].row
    shown = [_number(item) for item in items if item.mask.any()]
    step, slice_mm = int(np.diff(shown).min()), float(row["source_slice_mm"])
    around = AROUND_MM / slice_mm
    items = [item for item in items if shown[0] - around <= _number(item) <= shown[-1] + around]
    numbers = np.array([_number(item) for item in items])
    places = np.arange(numbers[0], numbers[-1] + 1, step)
    distance = np.abs(places[:, None] - numbers)
    nearest = distance.argmin(axis=1)
    hu = np.stack([target.to_hu(items[n].image) for n in nearest])
    truth = np.stack([items[n].mask for n in nearest], axis=1)
    known = np.array([all(item.knows(label) for item in items) for label in range(len(truth))])
    matrix = np.diag([-items[0].pixel_mm, -items[0].pixel_mm, slice_mm * step, 1.0])
    return Scan(row["volume"], row[target.slices.group], Volume(hu, matrix), truth, known, distance.min(axis=1) == 0)


def degraded(scan: Scan) -> Iterator[Scan]:
    """The scan as it is, then with noise, blurred, with less contrast, with a darker organ, with thick slices, and cut short."""
    yield scan
    hu, draw = scan.volume.array, np.random.default_rng(0)
    for deviation in NOISE_HU:
        yield scan.with_hu(hu + draw.normal(0, deviation, hu.shape), f"noise of {deviation:g} HU")
    coarse = gaussian_filter(draw.normal(0, 1, hu.shape), (0, BLOTCH_PIXELS, BLOTCH_PIXELS))
    yield scan.with_hu(hu + BLOTCHES_HU / coarse.std() * coarse, f"blotches of {BLOTCHES_HU:g} HU")
    yield scan.with_hu(gaussian_filter(hu, (0, BLUR_PIXELS, BLUR_PIXELS)), f"blurred by {BLUR_PIXELS:g} pixels")
    yield scan.with_hu(MIDDLE_HU + CONTRAST * (hu - MIDDLE_HU), f"{CONTRAST:g} of the contrast")
    yield scan.with_hu(hu + DARKER_HU * scan.truth.any(axis=0), f"organ {DARKER_HU:+g} HU")
    together = round(THICK_MM / scan.volume.spacing_mm[2])
    if together > 1:
        yield _thick(scan, together)
    yield from cut_short(scan)


def _thick(scan: Scan, together: int) -> Scan:
    """The scan with slices that are means of `together` slices; their truth is that of the middle one."""
    count = len(scan.stored) // together
    stacked = scan.volume.array[: count * together].reshape(count, together, *scan.volume.array.shape[1:])
    middle = slice(together // 2, count * together, together)
    matrix = scan.volume.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, 2] * (together - 1) / 2
    matrix[:3, 2] *= together
    volume = Volume(stacked.mean(axis=1), matrix)
    return replace(
        scan, volume=volume, truth=scan.truth[:, middle], stored=scan.stored[middle], change=f"{THICK_MM:g} mm slices"
    )


def cut_short(scan: Scan, shares: tuple[float, ...] = CUT) -> Iterator[Scan]:
    """For each share, the scan cut to the lower share of the labels' height with all below it, and to the upper share with all above."""
    first, stop = scan.height
    for share in shares:
        height = max(1, round(share * (stop - first)))
        yield scan.only(slice(0, first + height), f"lower {share:g}")
        yield scan.only(slice(stop - height, len(scan.stored)), f"upper {share:g}")
