"""The predictor: a bundle's network on a device, slices in, probabilities out, in batches that fit the memory. torch and NumPy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.note import Note
from ..core.request import Request
from ..core.volume import Volume, VolumeError, check_ct
from ..network.bundle import Bundle
from ..network.device import Device, choose_device, is_out_of_memory
from .pixel_box import Box
from .slice_pool import Answer, Item, in_order

MANY = 2**31

ProgressCallback = Callable[
    [int, int, str], None
]  # (done, in all, phase of `core.progress`); raising in it stops the run


def ignore_progress(done: int, total: int, phase: str) -> None:
    """Tell nobody."""


class Predictor:
    """A bundle's network on a device, ready for many slices."""

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        """Load and check the weights.

        Raises:
            BundleError, DeviceError: The model or the device cannot be used.
        """
        self.bundle, self.device = bundle, choose_device(device)
        self._whole = bundle.load_network()
        self._pruned: dict[int, torch.nn.Module] = {}
        self._most = self._threads = MANY  # slices in a batch, and batches at once; fewer after memory ran out
        self._lock = threading.Lock()
        self.notes: list[Note] = []  # what the engine had to do to go on

    def check(self, volume: Volume, request: Request) -> list[Note]:
        """Refuse what cannot be segmented, before time is spent on it; returns notes for the user.

        Raises:
            VolumeError: The volume is no CT or cannot be one, or the box reaches beyond it.
            RequestError: The request is for what the model does not do.
        """
        self.bundle.check_request(request)
        if request.box and any(along.stop > n for along, n in zip(request.box, volume.array.shape, strict=True)):
            reach = ", ".join(f"{along.start} to {along.stop}" for along in request.box)
            raise VolumeError(
                f"The box (K, J, I: {reach}) reaches beyond this volume of {' × '.join(map(str, volume.array.shape))} voxels."
            )
        return check_ct(volume, request.force)

    def threshold_of(self, request: Request) -> float:
        """The threshold of a request; the model's own if it names none."""
        return self.bundle.threshold if request.threshold is None else request.threshold

    def probability_and_uncertainty(self, heads: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of the heads that the model averages, and standard deviation of all, of (heads 1…level, …)."""
        deviation = (
            (heads - heads.mean(0)).square_().mean(0).sqrt_()
        )  # Tensor.std over the first axis is 20 times slower
        return heads[min(self.bundle.average_from, len(heads)) - 1 :].mean(0), deviation

    def heads(
        self,
        axial: np.ndarray,
        chosen: Sequence[int],
        box: Box,
        level: int,
        then: Callable[[Tensor], Answer],
    ) -> Iterator[tuple[Sequence[int], Answer]]:
        """Run the network on some slices: one in each thread of a processor, batch by batch on a graphics card.

        Args:
            axial: HU, axes (slice, row, column) in axial order.
            chosen: Which slices.
            box: Its `grid` is the size that slices are resampled to, its rows and columns the part that the network sees.
            level: Depth to prune the network to; where it has no head, the next deeper one, or the deepest.
            then: What becomes of float32 probabilities (heads 1…level, slices, rows, columns) inside the box, of several
                labels (heads 1…level, slices, labels, rows, columns); on the device and in the thread that computed them.

        Yields:
            The slices of a batch, in order, and what `then` made of them.
        """
        rest = list(chosen)
        while rest:
            device = self.device
            threads = min(self._threads, device.threads)
            share = -(-len(rest) // threads)
            size = min(self._most, device.batch(box.size[0] * box.size[1]), share)
            parts = [rest[n : n + size] for n in range(0, len(rest), size)]

            @torch.inference_mode()
            def task(part: Sequence[int]) -> Answer:
                return then(self._run(axial[part], box, level))

            try:
                for part, answer in zip(parts, self.in_threads(task, parts), strict=True):
                    yield part, answer
                    rest = rest[len(part) :]
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or (device.kind == "cpu" and size == 1):
                    raise
            if rest:  # only now: inside the except clause, the failed attempt still holds its memory
                self._take_less(device, size, threads)

    def in_threads(self, task: Callable[[Item], Answer], items: Sequence[Item]) -> Iterator[Answer]:
        """The answer of a task to each item, as `in_order`; after memory ran out, in fewer threads."""
        done = 0
        while done < len(items):
            threads = min(self._threads, self.device.threads, len(items) - done)
            try:
                for answer in in_order(task, items[done:], threads):
                    yield answer
                    done += 1
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or threads == 1:
                    raise
            if done < len(items):  # only now, as above
                with self._lock:
                    self._compute_in(min(self._threads, threads // 2))

    def _run(self, slices: np.ndarray, box: Box, level: int) -> Tensor:
        """Probabilities as `then` in `heads` takes them, of slices (n, rows, columns) that fit the memory together."""
        low, high = self.bundle.window_hu
        network = self._network(level)
        weight = next(network.parameters())  # another thread may have moved on to another device
        image = torch.from_numpy(np.ascontiguousarray(slices))
        image = image.pin_memory() if weight.is_cuda else image
        image = image.to(weight.device, non_blocking=True).float()
        # The training images were clipped before they were resampled: the other order would draw the edges elsewhere.
        image = image.clamp_(low, high).sub_(low).div_(high - low)[:, None]
        if tuple(image.shape[-2:]) != box.grid:
            image = F.interpolate(image, box.grid, mode="bilinear", antialias=True)
        image = image[(..., *box.inside)]
        logits = network(image.to(weight.dtype).contiguous(memory_format=torch.channels_last))
        return torch.stack([torch.sigmoid(h.float()).squeeze(1) for h in logits])

    def _compute_in(self, threads: int) -> None:
        self._threads = threads
        text = f"Memory ran out on {self.device.label}: fewer slices were computed at a time."
        self.notes = [Note("smaller-batches", text)]

    def _take_less(self, device: Device, slices: int, threads: int) -> None:
        """After batches of `slices` slices in `threads` threads were too much for a device: less from now on, or the processor."""
        with self._lock:
            if self.device is not device:
                return  # another thread was faster
            if slices > 1:
                self._most = slices // 2
                text = f"Memory ran out on {device.label}: slices were computed {self._most} at a time."
                self.notes = [Note("smaller-batches", text)]
            elif threads > 1:
                self._compute_in(1)
            else:
                self.device, self._most, self._threads = choose_device("cpu"), MANY, MANY
                self._pruned.clear()
                text = f"Memory ran out on {device.label}: the network ran on the processor instead."
                self.notes = [Note("moved-to-processor", text)]
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _network(self, level: int) -> torch.nn.Module:
        level = min((head for head in self._whole.heads if head >= level), default=self._whole.heads[-1])
        with self._lock:
            if level not in self._pruned:
                small = self._whole.pruned(level, all_heads=True).to(self.device.kind, self.device.dtype)
                small.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub lacks this form
                self._pruned[level] = small
            return self._pruned[level]
