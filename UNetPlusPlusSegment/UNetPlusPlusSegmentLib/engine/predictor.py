"""The predictor: a bundle's network on a device, slices in, probabilities out, in batches that fit the memory. torch and NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from ..core.note import Note
from ..core.request import Request, RequestError
from ..core.volume import Volume, VolumeError, check_ct
from ..network.bundle import Bundle
from ..network.device import choose_device, is_out_of_memory
from .pixel_box import Box

ProgressCallback = Callable[[int, int], None]  # (slices done, slices in all); raising in it stops the run


def ignore_progress(done: int, total: int) -> None:
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
        self._most = 2**31  # slices at once; less after memory ran out
        self.notes: list[Note] = []  # what the engine had to do to go on

    def check(self, volume: Volume, request: Request) -> list[Note]:
        """Refuse what cannot be segmented, before time is spent on it; returns notes for the user.

        Raises:
            VolumeError: The volume is no CT or cannot be one, or the box reaches beyond it.
            RequestError: The request is for another target.
        """
        if request.target != self.bundle.target:
            raise RequestError(f"The model {self.bundle.name} is for {self.bundle.target}, not for {request.target}.")
        if request.box and any(along.stop > n for along, n in zip(request.box, volume.array.shape, strict=True)):
            reach = ", ".join(f"{along.start} to {along.stop}" for along in request.box)
            raise VolumeError(
                f"The box (K, J, I: {reach}) reaches beyond this volume of {' × '.join(map(str, volume.array.shape))} voxels."
            )
        return check_ct(volume, request.force)

    def threshold_of(self, request: Request) -> float:
        """The threshold of a request; the model's own if it names none."""
        return self.bundle.threshold if request.threshold is None else request.threshold

    def probability_and_uncertainty(self, heads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of the heads that the model averages, and standard deviation of all, of (heads 1…level, …)."""
        deviation = (
            (heads - heads.mean(0)).square_().mean(0).sqrt_()
        )  # Tensor.std over the first axis is 20 times slower
        return heads[min(self.bundle.average_from, len(heads)) - 1 :].mean(0), deviation

    def heads(
        self, axial: np.ndarray, chosen: Sequence[int], box: Box, level: int
    ) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """Run the network on some slices, batch by batch.

        Args:
            axial: HU, axes (slice, row, column) in axial order.
            chosen: Which slices.
            box: Its `grid` is the size that slices are resampled to, its rows and columns the part that the network sees.
            level: Depth to prune the network to; where it has no head, the next deeper one, or the deepest.

        Yields:
            The slices of a batch and float32 probabilities (heads 1…level, slices, rows, columns) inside the box, on the CPU;
            of several labels (heads 1…level, slices, labels, rows, columns).
        """
        rest = list(chosen)
        while rest:
            part = rest[: min(self._most, self.device.batch(box.size[0] * box.size[1]))]
            heads = None
            try:
                heads = self._run(axial[part], box, level)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or (self.device.kind == "cpu" and len(part) == 1):
                    raise
            if heads is None:  # only now: inside the except clause, the failed attempt still holds its memory
                self._take_less(len(part))
            else:
                yield part, heads
                rest = rest[len(part) :]

    def _run(self, slices: np.ndarray, box: Box, level: int) -> torch.Tensor:
        """Probabilities as `heads` yields them, for slices (n, rows, columns) that fit the memory together."""
        low, high = self.bundle.window_hu
        device, dtype = self.device.kind, self.device.dtype
        image = torch.from_numpy(np.ascontiguousarray(slices, dtype=np.float32)).to(device)
        # The training images were clipped before they were resampled: the other order would draw the edges elsewhere.
        image = image.clamp_(low, high).sub_(low).div_(high - low)[:, None]
        if tuple(image.shape[-2:]) != box.grid:
            image = F.interpolate(image, box.grid, mode="bilinear", antialias=True)
        image = image[(..., *box.inside)]
        with torch.inference_mode():
            logits = self._network(level)(image.to(dtype).contiguous(memory_format=torch.channels_last))
            return torch.stack([torch.sigmoid(h.float()).squeeze(1) for h in logits]).cpu()

    def _take_less(self, slices: int) -> None:
        """After `slices` slices were too much: half of them from now on, or the processor."""
        label = self.device.label
        if slices > 1:
            self._most = slices // 2
            text = f"Memory ran out on {label}: slices were computed {self._most} at a time."
            self.notes = [Note("smaller-batches", text)]
        else:
            self.device, self._most = choose_device("cpu"), 2**31
            self._pruned.clear()
            text = f"Memory ran out on {label}: the network ran on the processor instead."
            self.notes = [Note("moved-to-processor", text)]
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _network(self, level: int) -> torch.nn.Module:
        level = min((head for head in self._whole.heads if head >= level), default=self._whole.heads[-1])
        if level not in self._pruned:
            small = self._whole.pruned(level, all_heads=True)
            self._pruned[level] = small.to(self.device.kind, self.device.dtype, memory_format=torch.channels_last)
        return self._pruned[level]
