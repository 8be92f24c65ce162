"""The slice engine: segments organs slice by slice, on the part of the volume that may hold them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.masks import largest_component, measure
from ..core.note import Note
from ..core.progress import BETWEEN, OVERVIEW, SLICES
from ..core.request import Request
from ..core.segment import Segment
from ..core.trust import FEW_SLICES, LEAST_SLICES
from ..core.volume import AxialOrder, Volume, axial_order, clean_hu, crop, inside_box
from ..network.bundle import Bundle
from ..network.card import Speed
from .label_map import label_map, postprocess
from .maps import Found, Maps, PixelMaps
from .pixel_box import Box, aligned, body_ranges, every, grid_size
from .predictor import Predictor, ProgressCallback, ignore_progress, refuse_unknown
from .signs import SIGNS, weights_of_parts
from .slice_pool import in_order, threads_of_torch
from .trust import cut_by_box, judge, notes_about

# The coarse pass that finds the organ first: distance of its slices, size of its pixels as a multiple of the network's, level that the
# network is pruned to, and lowest probability of a hit. Fine and deep enough to miss no liver.
COARSE_STEP_MM, COARSE_PIXEL, COARSE_LEVEL, COARSE_PROBABILITY = 20.0, 2.0, 3, 0.3
AIR_PIXELS = 8  # margin of air around the body that the network sees


class SliceEngine(Predictor):
    """A model for organs on a device, ready for many volumes."""

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        """Load and check the weights.

        Raises:
            BundleError, DeviceError: The model or the device cannot be used.
        """
        fitted = [each for label in bundle.labels for each in label.expected_dice.values()]
        refuse_unknown(bundle, {name for each in fitted for name in each.weights}, SIGNS)
        super().__init__(bundle, device)

    def predict(self, volume: Volume, request: Request, progress: ProgressCallback = ignore_progress) -> OrganMaps:
        """Run the network on a CT volume, slice by slice.

        Args:
            volume: In HU; any orientation.
            request: `accurate` predicts every slice. `balanced` and `fast` find the organ first and interpolate slices between
                similar ones, with the settings of the model. If it has several labels, only those asked for are looked for; where
                they are found, all labels are computed, because they share most of the network and compete for pixels.
            progress: Called after each batch of slices with the number done, the total and the phase. An exception that it raises
                stops the run.

        Returns:
            The maps, whose `at()` gives the segmentation.

        Raises:
            VolumeError: The volume is not CT, or the box extends beyond it.
            RequestError: The model cannot do what is asked.
            BundleError: The model does not have this speed.
        """
        started = time.perf_counter()
        notes = self.check(volume, request)  # on the whole volume, as a box inside the body may contain no air
        speed = self.bundle.speed(request.speed)
        threshold = self.threshold_of(request)
        box = request.box or tuple(slice(0, size) for size in volume.array.shape)
        part = crop(volume, box)
        order = axial_order(part)
        axial, more = clean_hu(order.apply(part.array))
        hu = order.undo(axial)
        grid = grid_size(axial.shape[1:], order.spacing_mm[1:], self.bundle.pixel_mm)
        labels = self.bundle.labels_of(*request.targets)
        if len(axial) < LEAST_SLICES and any(request.speed in label.expected_dice for label in labels):
            more.append(FEW_SLICES)
        asked = [self.bundle.labels.index(label) for label in labels]
        with threads_of_torch(request.threads):
            seen = (
                self._find_organ(axial, order, grid, speed, asked, progress)
                if speed.find_first
                else Box.whole(len(axial), grid)
            )
            pixels = PixelMaps.empty(len(axial), order, seen, len(self.bundle.labels))
            slices = self._fill(pixels, axial, speed, threshold, asked, progress)
            inside = inside_box(box, request.turned) if request.turned else None
            if inside is not None:
                pixels.cut(order.apply(inside))
        return OrganMaps(
            bundle=self.bundle, labels=labels, volume=Volume(hu, part.ijk_to_ras),
            box=box, shape=volume.array.shape, pixels=pixels, inside=inside,
            threshold=threshold, notes=(*notes, *more, *self.notes), device=self.device.label, slices=slices,
            seconds=time.perf_counter() - started, threads=request.threads, speed=request.speed,
        )  # fmt: skip

    def _fill(
        self,
        pixels: PixelMaps,
        axial: np.ndarray,
        speed: Speed,
        threshold: float,
        asked: Sequence[int],
        progress: ProgressCallback,
    ) -> int:
        """Compute the maps on the slices of their box, and beyond it as far as the organ extends.

        Returns:
            The number of slices that the network predicted; the others are interpolated.
        """
        first, last = pixels.box.slices
        slice_mm = pixels.order.spacing_mm[0]
        beyond = max(1, round(COARSE_STEP_MM / 2 / slice_mm))
        gap = max(1, int(speed.step_mm / slice_mm + 0.01))  # with a tolerance: 4.0 mm counts as twice 2.001 mm
        seen: list[int] = []
        todo, phase = every(gap, first, last - 1) if first < last else [], SLICES
        while todo:
            before = len(seen)
            for part, halves in self.heads(axial, todo, pixels.box, speed.level, self._halves):
                pixels.probability[part], pixels.uncertainty[part] = halves
                seen += part
                progress(len(seen) - before, len(todo), phase)
            seen.sort()
            organ = {k: _of(pixels.probability[k], asked) >= threshold for k in seen}
            todo = [*_between(seen, organ, speed.change), *_beyond(seen, organ, gap, beyond, len(axial))]
            phase = BETWEEN
        _interpolate(pixels, seen)
        return len(seen)

    def _halves(self, heads: Tensor) -> tuple[Tensor, ...]:
        """Probability and uncertainty in float16, as `PixelMaps` keeps them."""
        return tuple(each.half().cpu() for each in self.probability_and_uncertainty(heads))

    def _find_organ(
        self,
        axial: np.ndarray,
        order: AxialOrder,
        fine: tuple[int, int],
        speed: Speed,
        asked: Sequence[int],
        progress: ProgressCallback,
    ) -> Box:
        """The box around the organ, with a margin, in the grid of the fine pass; an empty box if there is no organ."""
        size, cell = axial.shape[1:], 2**self._whole.depth
        grid = grid_size(size, order.spacing_mm[1:], self.bundle.pixel_mm * COARSE_PIXEL)
        step = max(1, round(COARSE_STEP_MM / order.spacing_mm[0]))
        chosen = every(step, 0, len(axial) - 1)
        body = body_ranges(axial, chosen)
        ranges = [
            aligned(low * new / old - AIR_PIXELS, high * new / old + AIR_PIXELS, new, cell)
            for (low, high), old, new in zip(body, size, grid, strict=True)
        ]
        coarse = self._coarse_pass(axial, chosen, Box(grid, (0, len(axial)), *ranges), asked, progress)
        if not coarse.hit.any():
            return Box(fine, (0, 0), (0, 0), (0, 0))
        margin = speed.margin_mm / self.bundle.pixel_mm
        for axis, ((low, high), old, new) in enumerate(zip(body, size, fine, strict=True)):
            hit = ranges[axis][0] + np.flatnonzero(coarse.organ.any(axis=(0, 2 - axis)))
            low = max(hit[0] * new / grid[axis] - margin, low * new / old - AIR_PIXELS)
            high = min((hit[-1] + 1) * new / grid[axis] + margin, high * new / old + AIR_PIXELS)
            ranges[axis] = aligned(low, high, new, cell)
        return Box(fine, coarse.slices, *ranges)

    def _coarse_pass(
        self, axial: np.ndarray, chosen: Sequence[int], box: Box, asked: Sequence[int], progress: ProgressCallback
    ) -> _Coarse:
        """Look for the organ at larger pixels, with a pruned network.

        First on slices 2 cm apart; then half way between two slices where the organ ends, or between all of them if it was not found.
        """
        probability: dict[int, np.ndarray] = {}
        for _ in range(2):
            before = len(probability)
            for part, deepest in self.heads(axial, chosen, box, COARSE_LEVEL, lambda heads: heads[-1].cpu()):
                probability.update(zip(part, deepest.numpy(), strict=True))
                progress(len(probability) - before, len(chosen), OVERVIEW)
            seen = sorted(probability)
            found = np.stack([_of(probability[k], asked) for k in seen], axis=1) >= COARSE_PROBABILITY
            organ = np.any([largest_component(label, at_least=0.1) for label in found], axis=0)
            coarse = _Coarse(seen, organ, np.any(organ, axis=(1, 2)))
            chosen = coarse.slices_between()
        return coarse


def _of(plane: np.ndarray, asked: Sequence[int] | slice = np.s_[:]) -> np.ndarray:
    """The labels asked for in one slice of a map, as (labels, rows, columns); with a single label, `plane` lacks the first axis."""
    return (plane if plane.ndim == 3 else plane[np.newaxis])[asked]


@dataclass(frozen=True, eq=False, kw_only=True)
class OrganMaps(Maps):
    """The outcome of a run for one or more organs.

    Attributes:
        speed: Name of the speed of the run.
    """

    speed: str

    def _find(self, threshold: float, show_from: float | None) -> Found:
        """Threshold on the volume's voxels, post-process and measure."""
        labelmap = np.zeros(self.volume.array.shape, np.uint8)
        axial = self.pixels.order.apply(labelmap)
        asked = [self.bundle.labels.index(label) for label in self.labels]
        inside = None if self.inside is None else self.pixels.order.apply(self.inside)

        def on_voxels(k: int) -> None:
            labels = _of(self.pixels.probability[k])
            if (labels[asked] >= threshold / 2).any():
                probability = np.stack([self.pixels.on_voxels(plane, axial.shape[1:]) for plane in labels])
                axial[k] = label_map(probability, self.bundle, threshold)
                if inside is not None:
                    axial[k] *= inside[k]

        deque(in_order(on_voxels, range(len(axial))), maxlen=0)

        def weigh(number: int, parts: np.ndarray, corner: Sequence[int]) -> np.ndarray:
            return weights_of_parts(self.pixels, threshold, number, parts, corner, axial.shape[1:])

        dropped = postprocess(axial, self.bundle, weigh)
        if self.labels != self.bundle.labels:  # only now, so that the other labels have won their voxels
            labelmap[~np.isin(labelmap, [label.value for label in self.labels])] = 0
        segments: list[Segment] = []
        notes: list[Note] = []
        for number, label in zip(asked, self.labels, strict=True):
            mask = labelmap == label.value
            dropped_ml = dropped.get(label.value, 0) * self.volume.voxel_volume_ml
            found = self._look_at(number, mask, threshold, dropped_ml)
            if found["volume_ml"]:
                notes += notes_about(label, found, cut_by_box(self, mask))
            else:
                notes.append(Note("not-found", f"No {label.name.lower()} was found."))
            segments.append(Segment(label.value, label.name, label.terminology, label.color, found))
        return labelmap, tuple(segments), notes

    def _on_voxels(self, planes: np.ndarray) -> np.ndarray:
        whole = super()._on_voxels(planes)
        if self.inside is not None:
            whole[self.box] *= self.inside
        return whole

    def _look_at(self, number: int, mask: np.ndarray, threshold: float, dropped_ml: float) -> dict[str, Any]:
        """The measurements of a label's mask and, of one that is not empty, what can be trusted of it, side by side."""
        if not mask.any():
            return measure(mask, self.volume)
        fitted = self.bundle.labels[number].expected_dice.get(self.speed)
        looks: list[Callable[[], dict[str, Any]]] = [
            lambda: judge(self, number, mask, threshold, dropped_ml, fitted).as_measurements(),
            lambda: measure(mask, self.volume),
        ]
        trusted, measured = in_order(lambda look: look(), looks)
        return measured | trusted


@dataclass(frozen=True, eq=False)
class _Coarse:
    """The coarse pass so far: indices of the slices seen, masks of the organ on them, and whether each mask holds anything."""

    seen: list[int]
    organ: np.ndarray
    hit: np.ndarray

    def slices_between(self) -> list[int]:
        """The slices half way between two of which only one shows the organ, or between any two if none does."""
        ends = [n for n in range(len(self.seen) - 1) if self.hit[n] != self.hit[n + 1] or not self.hit.any()]
        return [(self.seen[n] + self.seen[n + 1]) // 2 for n in ends if self.seen[n + 1] - self.seen[n] > 1]

    @property
    def slices(self) -> tuple[int, int]:
        """Half-open range from the last slice before the organ to the first one after it."""
        found = np.flatnonzero(self.hit)
        return self.seen[max(0, found[0] - 1)], self.seen[min(len(self.seen) - 1, found[-1] + 1)] + 1


def _between(seen: list[int], organ: dict[int, np.ndarray], most: float) -> Iterator[int]:
    """The slices half way between two whose masks differ by more than `most` (1 − Dice)."""
    for a, b in pairwise(seen):
        if b - a > 1 and _difference(organ[a], organ[b]) > most:
            yield (a + b) // 2


def _beyond(seen: list[int], organ: dict[int, np.ndarray], gap: int, beyond: int, slices: int) -> Iterator[int]:
    """If the organ reaches the lowest or highest slice seen, every `gap`-th of the next `beyond` slices on that side."""
    low, high = seen[0], seen[-1]
    if low > 0 and organ[low].any():
        yield from every(gap, max(0, low - beyond), low)[:-1]
    if high < slices - 1 and organ[high].any():
        yield from every(gap, high, min(slices - 1, high + beyond))[1:]


def _interpolate(pixels: PixelMaps, seen: list[int]) -> None:
    """Interpolate the maps on the slices between those that the network has seen."""

    def between(ends: tuple[int, int]) -> None:
        a, b = ends
        # torch, as NumPy is slow in float16.
        for planes in map(torch.from_numpy, (pixels.probability, pixels.uncertainty)):
            step = planes[b] - planes[a]
            for k in range(a + 1, b):
                share = float(np.float16((k - a) / (b - a)))
                torch.add(planes[a], step * share, out=planes[k])

    deque(in_order(between, [*pairwise(seen)]), maxlen=0)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """1 − Dice of two masks: 0 if they are the same, 1 if they have nothing in common."""
    return np.count_nonzero(a ^ b) / max(1, np.count_nonzero(a) + np.count_nonzero(b))
