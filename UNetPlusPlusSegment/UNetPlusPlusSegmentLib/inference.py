"""The slice engine: a CT volume and a bundle in, a label map on the volume's own voxels out. torch and NumPy; knows no Slicer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from .bundles import Bundle
from .devices import choose_device
from .regions import Segment, fill_holes, largest_component, measure
from .volumes import AxialOrder, Volume, axial_order, check_ct, clean_hu

SPEEDS = ("accurate", "balanced", "fast")

# The coarse pass of a speed that finds the organ first: steps and pixels fine enough that no liver slips through.
COARSE_STEP_MM, COARSE_PIXEL, COARSE_LEVEL, COARSE_PROBABILITY = 10.0, 1.5, 3, 0.3
MARGIN_MM = 20.0

Progress = Callable[[int, int], None]  # (slices done, slices in all); raising in it stops the run
Cut = tuple[np.ndarray, tuple[Segment, ...], list[str]]  # label map, its segments, notes about them


@dataclass(frozen=True)
class Box:
    """Half-open ranges of slices, rows and columns in a grid of `grid` rows and columns over the whole slice."""

    grid: tuple[int, int]
    slices: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]

    @classmethod
    def whole(cls, slices: int, grid: tuple[int, int]) -> Box:
        """The box that leaves nothing out."""
        return cls(grid, (0, slices), (0, grid[0]), (0, grid[1]))


@dataclass(frozen=True)
class Maps:
    """What the network said, in axial order at its own pixel size: enough to threshold again without running it.

    Attributes:
        probability: float16 (slices, rows, columns), mean over the heads that the model averages.
        spread: the same for the standard deviation of all heads: the uncertainty.
    """

    probability: np.ndarray
    spread: np.ndarray
    order: AxialOrder


@dataclass(frozen=True)
class Result:
    """A segmentation of one volume.

    Attributes:
        labelmap: uint8 (K, J, I), the volume's own voxels.
        segments: What the values of the label map mean, with measurements; an organ not found has 0 ml.
        notes: Sentences the user should read.
        cut: Makes label map, segments and notes of the maps at a threshold.
        device: Device and precision that were used.
        slices: How many slices the network saw at full quality.
        seconds: From the decoded volume, model loaded, to the final label map.
    """

    volume: Volume
    bundle: Bundle
    maps: Maps
    threshold: float
    labelmap: np.ndarray
    segments: tuple[Segment, ...]
    notes: tuple[str, ...]
    device: str
    slices: int
    seconds: float
    cut: Callable[[float], Cut]

    def with_threshold(self, threshold: float) -> Result:
        """The same run cut at another probability; the network does not run again."""
        labelmap, segments, notes = self.cut(threshold)
        return replace(self, threshold=threshold, labelmap=labelmap, segments=segments, notes=tuple(notes))

    def probability(self) -> np.ndarray:
        """float32 (K, J, I), 0…1: the heads' mean. Outside the box that was looked at it is 0."""
        return self._on_voxels(self.maps.probability)

    def uncertainty(self) -> np.ndarray:
        """float32 (K, J, I): the standard deviation of the deep-supervision heads, 0…0.5."""
        return self._on_voxels(self.maps.spread)

    def _on_voxels(self, grid: np.ndarray) -> np.ndarray:
        whole = np.zeros(self.volume.array.shape, np.float32)
        turned = self.maps.order.apply(whole)
        for k in np.flatnonzero(grid.any(axis=(1, 2))):
            turned[k] = _resize(grid[k], turned.shape[1:])
        return whole


class SliceEngine:
    """A bundle on a device, ready for many volumes."""

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        """Load and check the weights.

        Raises:
            BundleError, DeviceError: The model or the device cannot be used.
        """
        self.bundle, self.device = bundle, choose_device(device)
        self._whole = bundle.load_network()
        self._pruned: dict[int, torch.nn.Module] = {}

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
            speed: `accurate` looks at every slice, `balanced` and `fast` find the organ first; the card says at which depth.
            threshold: Probability 0…1; the bundle's own if None.
            force: Run on what does not look like CT, too.
            progress: Called after each batch; an exception raised in it stops the run and passes through.

        Raises:
            VolumeError: The volume is no CT or cannot be one.
        """
        started = time.perf_counter()
        notes = check_ct(volume, force)
        hu, more = clean_hu(volume.array)
        notes += more
        volume = Volume(hu, volume.ijk_to_ras)
        threshold = self.bundle.threshold if threshold is None else threshold
        how = self.bundle.speed(speed)
        order = axial_order(volume)
        turned = order.apply(hu)
        grid = grid_size(turned.shape[1:], order.spacing_mm[1:], self.bundle.pixel_mm)
        box = self._find(turned, order, grid) if how.find_first else Box.whole(len(turned), grid)
        maps = Maps(*(np.zeros((turned.shape[0], *grid), np.float16) for _ in range(2)), order)
        slices = self._fill(maps, turned, box, how.level, threshold, progress) if box else 0
        return self._result(volume, maps, partial(_cut, maps, volume, self.bundle, notes), threshold, slices, started)

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

    def _fill(self, maps: Maps, turned: np.ndarray, box: Box, level: int, threshold: float, progress: Progress) -> int:
        """Compute the maps inside `box`; where the organ goes on beyond its first or last slice, follow it. Returns the slices seen."""
        first, last = box.slices
        step = max(1, round(COARSE_STEP_MM / maps.order.spacing_mm[0]))
        todo, seen = list(range(first, last)), 0
        rows, columns = slice(*box.rows), slice(*box.columns)
        while todo:
            total = seen + len(todo)
            for part, heads in self.heads(turned, todo, box, level):
                maps.probability[part, rows, columns], maps.spread[part, rows, columns] = self.mean_and_spread(heads)
                seen += len(part)
                progress(seen, total)
            todo = []
            if first > 0 and (maps.probability[first] >= threshold).any():
                todo += range(max(0, first - step), first)
                first = todo[0]
            if last < len(turned) and (maps.probability[last - 1] >= threshold).any():
                beyond = min(len(turned), last + step)
                todo += range(last, beyond)
                last = beyond
        return seen

    def _find(self, turned: np.ndarray, order: AxialOrder, fine: tuple[int, int]) -> Box | None:
        """The box in the grid of the fine pass that holds the organ with a margin; None if there is no organ.

        A coarse pass sees every n-th slice, at larger pixels, with a pruned network.
        """
        pixel_mm = self.bundle.pixel_mm * COARSE_PIXEL
        step = max(1, round(COARSE_STEP_MM / order.spacing_mm[0]))
        chosen = list(range(step // 2 if step < len(turned) else 0, len(turned), step))
        grid = grid_size(turned.shape[1:], order.spacing_mm[1:], pixel_mm)
        level = min(COARSE_LEVEL, self._whole.depth)
        passes = self.heads(turned, chosen, Box.whole(len(turned), grid), level)
        chances = np.concatenate([heads[-1].numpy() for _, heads in passes])
        organ = largest_component(chances >= COARSE_PROBABILITY, at_least=0.1)
        if not organ.any():
            return None
        where = np.nonzero(organ)
        first, last = chosen[where[0].min()] - step, chosen[where[0].max()] + step + 1
        ranges = []
        for hit, coarse_size, size in zip(where[1:], grid, fine, strict=True):
            margin = MARGIN_MM / self.bundle.pixel_mm
            low = int(hit.min() * size / coarse_size - margin)
            high = int(np.ceil((hit.max() + 1) * size / coarse_size + margin))
            ranges.append(_in_steps(low, high, size, 2**self._whole.depth))
        return Box(fine, (max(0, first), min(len(turned), last)), *ranges)

    def mean_and_spread(self, heads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of the heads that the model averages, and standard deviation of all, of (heads 1…level, …)."""
        return heads[min(self.bundle.average_from, len(heads)) - 1 :].mean(0), heads.std(0, correction=0)

    def heads(
        self, turned: np.ndarray, chosen: Sequence[int], box: Box, level: int, batch: int | None = None
    ) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """Run the network on some slices, batch by batch.

        Args:
            turned: HU, axes (slice, row, column) in axial order.
            chosen: Which slices.
            box: Its `grid` is the size that slices are resampled to, its rows and columns what is looked at.
            level: Depth to prune the network to.
            batch: How many slices at once; as the device likes whole slices if None.

        Yields:
            The slices of a batch and float32 probabilities (heads 1…level, slices, rows, columns) inside the box, on the CPU.
        """
        network = self._network(level)
        low, high = self.bundle.window_hu
        device, dtype = self.device.kind, self.device.dtype
        batch = batch or self.device.batch
        for start in range(0, len(chosen), batch):
            part = chosen[start : start + batch]
            image = torch.from_numpy(np.ascontiguousarray(turned[part], dtype=np.float32)).to(device)
            # The training images were clipped before they were resampled: the other order would draw the edges elsewhere.
            image = image.clamp_(low, high).sub_(low).div_(high - low)[:, None]
            if tuple(image.shape[-2:]) != box.grid:
                image = F.interpolate(image, box.grid, mode="bilinear", antialias=True)
            image = image[..., slice(*box.rows), slice(*box.columns)]
            with torch.inference_mode():
                logits = network(image.to(dtype).contiguous(memory_format=torch.channels_last))
                yield part, torch.stack([torch.sigmoid(h[:, 0].float()) for h in logits]).cpu()

    def _network(self, level: int) -> torch.nn.Module:
        if level not in self._pruned:
            small = self._whole.pruned(level, all_heads=True)
            self._pruned[level] = small.to(self.device.kind, self.device.dtype, memory_format=torch.channels_last)
        return self._pruned[level]


def grid_size(size: tuple[int, int], spacing_mm: np.ndarray, pixel_mm: float) -> tuple[int, int]:
    """Rows and columns that cover the same field with pixels of about `pixel_mm`."""
    rows, columns = (max(1, round(n * float(mm) / pixel_mm)) for n, mm in zip(size, spacing_mm, strict=True))
    return rows, columns


def _in_steps(low: int, high: int, size: int, step: int) -> tuple[int, int]:
    """The smallest range around [low, high) within [0, size) whose length the network need not pad, where there is room for it."""
    low, high = max(0, low), min(size, high)
    length = min(size, -(-(high - low) // step) * step)
    low = max(0, min(low, size - length))
    return low, low + length


def _resize(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, both grids covering the same field."""
    image = torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float32))[None, None]
    return F.interpolate(image, size, mode="bilinear", antialias=False)[0, 0].numpy()


def _cut(maps: Maps, volume: Volume, bundle: Bundle, notes: Sequence[str], threshold: float) -> Cut:
    """Threshold the maps on the volume's voxels, keep what the bundle's post-processing keeps, and measure.

    `notes` are those of the run, to which more may come.
    """
    labelmap = np.zeros(volume.array.shape, np.uint8)
    turned = maps.order.apply(labelmap)
    for k in np.flatnonzero((maps.probability >= threshold / 2).any(axis=(1, 2))):
        turned[k] = _resize(maps.probability[k], turned.shape[1:]) >= threshold
    organ = turned.view(bool)
    if bundle.card["postprocessing"].get("largest_component"):
        organ[:] = largest_component(organ)
    if bundle.card["postprocessing"].get("fill_holes"):
        organ[:] = fill_holes(organ)
    label = bundle.labels[0]
    labelmap *= label.value
    found = Segment(label.value, label.name, label.terminology, label.color, measure(labelmap == label.value, volume))
    none = [] if found.measurements["volume_ml"] else [f"No {label.name.lower()} was found."]
    return labelmap, (found,), [*notes, *none]
