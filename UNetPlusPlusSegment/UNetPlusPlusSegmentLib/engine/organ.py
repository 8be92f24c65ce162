"""The slice engine: a CT volume and a bundle in, a label map on the volume's own voxels out. NumPy; knows no Slicer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from ..core.masks import fill_holes, largest_component, measure
from ..core.segment import Segment
from ..core.volume import AxialOrder, Volume, axial_order, check_ct, clean_hu
from ..network.bundle import Bundle
from ..network.card import Speed
from .maps import Maps
from .pixel_box import Box, aligned, body_ranges, every, grid_size
from .predictor import Predictor
from .result import Cut, Result

SPEEDS = ("accurate", "balanced", "fast")

# The coarse pass of a speed that finds the organ first: so deep, and pixels so small, that no liver slips through.
COARSE_STEP_MM, COARSE_PIXEL, COARSE_LEVEL, COARSE_PROBABILITY = 20.0, 2.0, 3, 0.3
AIR_PIXELS = 8  # of air that the network sees round the body

Progress = Callable[[int, int], None]  # (slices done, slices in all); raising in it stops the run


class SliceEngine(Predictor):
    """A bundle on a device, ready for many volumes."""

    def segment(
        self,
        volume: Volume,
        speed: str = "balanced",
        threshold: float | None = None,
        force: bool = False,
        progress: Progress = lambda done, total: None,
    ) -> Result:
        """Segment a CT volume slice by slice.

        Args:
            volume: HU; any orientation.
            speed: `accurate` looks at every slice; `balanced` and `fast` find the organ first and interpolate slices between two that
                agree: the card says how far apart.
            threshold: Probability 0…1; the bundle's own if None.
            force: Run on what does not look like CT, too.
            progress: Called after each batch; an exception raised in it stops the run and passes through.

        Raises:
            VolumeError: The volume is no CT or cannot be one.
            BundleError: The threshold is no probability.
        """
        started = time.perf_counter()
        threshold = self.bundle.threshold_or_own(threshold)
        notes = check_ct(volume, force)
        hu, more = clean_hu(volume.array)
        notes += more
        volume = Volume(hu, volume.ijk_to_ras)
        how = self.bundle.speed(speed)
        order = axial_order(volume)
        turned = order.apply(hu)
        grid = grid_size(turned.shape[1:], order.spacing_mm[1:], self.bundle.pixel_mm)
        box = self._find(turned, order, grid, how) if how.find_first else Box.whole(len(turned), grid)
        maps = Maps.empty(len(turned), order, box)
        slices = self._fill(maps, turned, how, threshold, progress)
        cut = partial(_cut, maps, volume, self.bundle, [*notes, *self.notes])
        return self._result(volume, maps, cut, threshold, slices, started)

    def _result(
        self, volume: Volume, maps: Maps, cut: Callable[[float], Cut], threshold: float, slices: int, started: float
    ) -> Result:
        labelmap, segments, notes = cut(threshold)
        seconds = time.perf_counter() - started
        return Result(
            volume,
            self.bundle,
            maps,
            threshold,
            labelmap,
            segments,
            tuple(notes),
            self.device.label,
            slices,
            seconds,
            cut,
        )

    def _fill(self, maps: Maps, turned: np.ndarray, how: Speed, threshold: float, progress: Progress) -> int:
        """Compute the maps of the slices of their box, and of those beyond to which the organ goes on. Returns the slices seen."""
        first, last = maps.box.slices
        beyond = max(1, round(COARSE_STEP_MM / 2 / maps.order.spacing_mm[0]))
        gap = max(1, int(how.step_mm / maps.order.spacing_mm[0] + 0.01))  # 4.0 mm are twice 2.001 mm
        seen: list[int] = []
        todo = every(gap, first, last - 1) if first < last else []
        while todo:
            total = len(seen) + len(todo)
            for part, heads in self.heads(turned, todo, maps.box, how.level):
                maps.probability[part], maps.spread[part] = self.mean_and_spread(heads)
                seen += part
                progress(len(seen), total)
            seen.sort()
            organ = {k: maps.probability[k] >= threshold for k in seen}
            todo = [(a + b) // 2 for a, b in pairwise(seen) if b - a > 1 and _change(organ[a], organ[b]) > how.change]
            low, high = seen[0], seen[-1]
            if low > 0 and organ[low].any():
                todo += every(gap, max(0, low - beyond), low)[:-1]
            if high < len(turned) - 1 and organ[high].any():
                todo += every(gap, high, min(len(turned) - 1, high + beyond))[1:]
        for a, b in pairwise(seen):
            for k in range(a + 1, b):
                share = np.float16((k - a) / (b - a))
                for grid in (maps.probability, maps.spread):
                    grid[k] = grid[a] + share * (grid[b] - grid[a])
        return len(seen)

    def _find(self, turned: np.ndarray, order: AxialOrder, fine: tuple[int, int], how: Speed) -> Box:
        """The box in the grid of the fine pass that holds the organ with a margin; an empty one if there is no organ.

        A coarse pass sees slices 2 cm apart, then those between where the organ ends, or all between if it saw none; at larger
        pixels, with a pruned network.
        """
        size, cell = turned.shape[1:], 2**self._whole.depth
        grid = grid_size(size, order.spacing_mm[1:], self.bundle.pixel_mm * COARSE_PIXEL)
        todo = every(max(1, round(COARSE_STEP_MM / order.spacing_mm[0])), 0, len(turned) - 1)
        body = body_ranges(turned, todo)
        ranges = [
            aligned(low * new / old - AIR_PIXELS, high * new / old + AIR_PIXELS, new, cell)
            for (low, high), old, new in zip(body, size, grid, strict=True)
        ]
        where = Box(grid, (0, len(turned)), *ranges)
        chances: dict[int, np.ndarray] = {}
        for _ in range(2):
            for part, heads in self.heads(turned, todo, where, COARSE_LEVEL):
                chances.update(zip(part, heads[-1].numpy(), strict=True))
            seen = sorted(chances)
            organ = largest_component(np.stack([chances[k] for k in seen]) >= COARSE_PROBABILITY, at_least=0.1)
            hit = organ.any(axis=(1, 2))
            ends = [n for n in range(len(seen) - 1) if hit[n] != hit[n + 1] or not hit.any()]
            todo = [(seen[n] + seen[n + 1]) // 2 for n in ends if seen[n + 1] - seen[n] > 1]
        if not hit.any():
            return Box(fine, (0, 0), (0, 0), (0, 0))
        found = np.flatnonzero(hit)
        first, last = seen[max(0, found[0] - 1)], seen[min(len(seen) - 1, found[-1] + 1)]
        margin = how.margin_mm / self.bundle.pixel_mm
        for axis, ((low, high), old, new) in enumerate(zip(body, size, fine, strict=True)):
            hit = ranges[axis][0] + np.flatnonzero(organ.any(axis=(0, 2 - axis)))
            low = max(hit[0] * new / grid[axis] - margin, low * new / old - AIR_PIXELS)
            high = min((hit[-1] + 1) * new / grid[axis] + margin, high * new / old + AIR_PIXELS)
            ranges[axis] = aligned(low, high, new, cell)
        return Box(fine, (first, last + 1), *ranges)


def _change(a: np.ndarray, b: np.ndarray) -> float:
    """How much two masks differ: 0 the same, 1 nothing in common."""
    return np.count_nonzero(a ^ b) / max(1, np.count_nonzero(a) + np.count_nonzero(b))


def _cut(maps: Maps, volume: Volume, bundle: Bundle, notes: Sequence[str], threshold: float) -> Cut:
    """Threshold the maps on the volume's voxels, keep what the bundle's post-processing keeps, and measure.

    `notes` are those of the run, to which more may come.
    """
    labelmap = np.zeros(volume.array.shape, np.uint8)
    turned = maps.order.apply(labelmap)
    for k, chances in enumerate(maps.probability):
        if (chances >= threshold / 2).any():
            turned[k] = maps.on_voxels(chances, turned.shape[1:]) >= threshold
    organ = turned.view(bool)
    if bundle.postprocessing.largest_component:
        organ[:] = largest_component(organ)
    if bundle.postprocessing.fill_holes:
        organ[:] = fill_holes(organ)
    label = bundle.labels[0]
    labelmap *= label.value
    found = Segment(label.value, label.name, label.terminology, label.color, measure(labelmap == label.value, volume))
    none = [] if found.measurements["volume_ml"] else [f"No {label.name.lower()} was found."]
    return labelmap, (found,), [*notes, *none]
