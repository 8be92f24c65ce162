"""The predictor: runs a bundle's network on slices, in batches that fit into memory. torch and NumPy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..core.note import Note
from ..core.request import Request
from ..core.volume import Volume, VolumeError, check_ct, tilt_degrees
from ..network.bundle import Bundle, BundleError
from ..network.device import Device, choose_device, is_out_of_memory
from ..network.resampling import onto_grid
from .pixel_box import Box
from .slice_pool import Answer, Item, in_order

MANY = 2**31
MOST_TILT = 15  # degrees; the liver's outline grows worse with the angle

# Called with (done, total, phase of `core.progress`); an exception that it raises stops the run.
ProgressCallback = Callable[[int, int, str], None]


def ignore_progress(done: int, total: int, phase: str) -> None:
    """Report no progress."""


def refuse_unknown(bundle: Bundle, used: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a bundle whose card judges results by something that this version does not measure.

    Raises:
        BundleError: One of the names in use is not known.
    """
    unknown = sorted({*used} - {*known})
    if unknown:
        raise BundleError(
            f"The model {bundle.name} uses {unknown[0]!r}, which this version does not know. Update the extension, or choose another"
            " model."
        )


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
        self._most = self._threads = MANY  # slices in a batch, and batches at once; lowered when memory runs out
        self._lock = threading.Lock()
        self.notes: list[Note] = []  # how the engine reduced its use of memory

    def check(self, volume: Volume, request: Request) -> list[Note]:
        """Refuse what cannot be segmented, before time is spent on it; returns notes for the user.

        Raises:
            VolumeError: The volume is not CT, or the box extends beyond it.
            RequestError: The model cannot do what is asked.
        """
        self.bundle.check_request(request)
        if request.box and any(along.stop > n for along, n in zip(request.box, volume.array.shape, strict=True)):
            reach = ", ".join(f"{along.start} to {along.stop}" for along in request.box)
            raise VolumeError(
                f"The box (K, J, I: {reach}) reaches beyond this volume of {' × '.join(map(str, volume.array.shape))} voxels:"
                " give a smaller box."
            )
        notes = check_ct(volume, request.force)
        tilt = round(tilt_degrees(volume))
        if tilt > MOST_TILT:
            text = (
                f"The slices are tilted by {tilt}° from axial, which the models have not learned: check the result, and note that"
                " diameters are measured in the tilted plane."
            )
            notes.append(Note("tilted", text))
        return notes

    def threshold_of(self, request: Request) -> float:
        """The threshold of a request, or the model's own if it has none."""
        return self.bundle.threshold if request.threshold is None else request.threshold

    def probability_and_uncertainty(self, heads: Tensor) -> tuple[Tensor, Tensor]:
        """From heads (1…level, …): the mean of those that the model averages, and the standard deviation of all."""
        # Tensor.std over the first axis is 20 times slower.
        deviation = (heads - heads.mean(0)).square_().mean(0).sqrt_()
        return heads[min(self.bundle.average_from, len(heads)) - 1 :].mean(0), deviation

    def heads(
        self,
        axial: np.ndarray,
        chosen: Sequence[int],
        box: Box,
        level: int,
        then: Callable[[Tensor], Answer],
    ) -> Iterator[tuple[Sequence[int], Answer]]:
        """Run the network on some slices: one in each thread on the CPU, batch by batch on a graphics card.

        If memory runs out, it goes on with smaller batches, then in one thread, and at last on the CPU.

        Args:
            axial: HU, axes (slice, row, column) in axial order.
            chosen: Indices of the slices.
            box: Slices are resampled to its `grid`; the network sees its rows and columns.
            level: Depth to prune the network to. If there is no head at this depth, the next deeper one is used, or the deepest.
            then: Called with float32 probabilities (heads 1…level, slices, rows, columns) inside the box, or (heads 1…level,
                slices, labels, rows, columns) for several labels; on the device and in the thread that computed them.

        Yields:
            The slices of a batch, in order, and what `then` returned for them.
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
            if rest:  # not inside the except clause, where the failed attempt still holds its memory
                self._reduce_load(device, size, threads)

    def in_threads(self, task: Callable[[Item], Answer], items: Sequence[Item]) -> Iterator[Answer]:
        """The results of a task for each item, as `in_order` gives them; in fewer threads if memory runs out."""
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
            if done < len(items):  # outside the except clause, as above
                with self._lock:
                    self._limit_threads(min(self._threads, threads // 2))

    def _run(self, slices: np.ndarray, box: Box, level: int) -> Tensor:
        """Probabilities of one batch of slices (n, rows, columns), in the shape described in `heads`."""
        low, high = self.bundle.window_hu
        network = self._network(level)
        weight = next(network.parameters())  # not self.device, which another thread may have changed
        image = torch.from_numpy(np.ascontiguousarray(slices))
        image = image.pin_memory() if weight.is_cuda else image
        image = image.to(weight.device, non_blocking=True).float()
        # Clipped before resampling, like the training images: the other order would shift edges.
        image = image.clamp_(low, high).sub_(low).div_(high - low)[:, None]
        if tuple(image.shape[-2:]) != box.grid:
            image = onto_grid(image, box.grid)
        image = image[(..., *box.inside)]
        logits = network(image.to(weight.dtype).contiguous(memory_format=torch.channels_last))
        return torch.stack([torch.sigmoid(h.float()).squeeze(1) for h in logits])

    def _limit_threads(self, threads: int) -> None:
        self._threads = threads
        text = f"Memory ran out on {self.device.label}: fewer slices were computed at a time."
        self.notes = [Note("smaller-batches", text)]

    def _reduce_load(self, device: Device, slices: int, threads: int) -> None:
        """Use smaller batches, fewer threads or the CPU, after `slices` slices in `threads` threads did not fit into memory."""
        with self._lock:
            if self.device is not device:
                return  # another thread has already reacted
            if slices > 1:
                self._most = slices // 2
                text = f"Memory ran out on {device.label}: slices were computed {self._most} at a time."
                self.notes = [Note("smaller-batches", text)]
            elif threads > 1:
                self._limit_threads(1)
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
