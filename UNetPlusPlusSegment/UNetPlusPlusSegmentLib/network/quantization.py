"""Weights as a bundle stores them: kernels in int8, everything else in float32. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

FP16_MOST = torch.finfo(torch.float16).max
STEPS = 127  # of an int8 kernel, from zero to the largest weight of a channel
# Added to a kernel's key for the size of its steps: float32 (n, 1, 1, 1), one for each of the n along its first axis.
STEP = ".step"


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pack a state dict into half the size of fp16: 9 MB for the paper's UNet++, or 8 MB compressed.

    The weights change by 0.8 % (root mean square), without bias.
    """
    packed = {}
    for key, value in state.items():
        if not value.is_floating_point():
            packed[key] = value.cpu()
        elif value.ndim < 2:
            # A running variance can exceed fp16's largest number, 65504; these are less than 1 % of the file.
            packed[key] = value.detach().cpu().float()
        else:
            kernel = value.detach().cpu().float()
            most = kernel.abs().amax(dim=tuple(range(1, kernel.ndim)), keepdim=True)
            step = (most / STEPS).clamp_min(torch.finfo(torch.float32).tiny)
            packed[key] = (kernel / step).round().to(torch.int8)
            packed[key + STEP] = step
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Unpack a state dict to float32; bundles of schema 1 have kernels in fp16, those of 1 and 2 everything else.

    A running variance beyond the range of fp16 was stored there as infinite, which would silence its channel and never be forgotten
    in a training: it is read as the largest number of fp16.

    Raises:
        KeyError: An int8 kernel has no step sizes.
    """
    state = {}
    for key, value in packed.items():
        if key.endswith(STEP):
            continue
        if value.dtype == torch.int8:
            value = value.float() * packed[key + STEP]
        elif value.dtype == torch.float16:
            value = value.float().clamp(-FP16_MOST, FP16_MOST)
        state[key] = value
    return state
