"""Packed weights: a bundle stores kernels in int8 and everything else in float32. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

STEPS = 127  # int8 steps from zero to the largest weight of a channel
LARGEST_FP16 = 65504.0
# Suffix of the key that holds the step sizes of a kernel: float32 (n, 1, 1, 1), one for each of the n channels along its first axis.
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
            packed[key] = value.detach().cpu().float()  # a variance may exceed the range of fp16
        else:
            kernel = value.detach().cpu().float()
            most = kernel.abs().amax(dim=tuple(range(1, kernel.ndim)), keepdim=True)
            step = (most / STEPS).clamp_min(torch.finfo(torch.float32).tiny)
            packed[key] = (kernel / step).round().to(torch.int8)
            packed[key + STEP] = step
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Unpack a state dict to float32; fp16 kernels, as in bundles of schema 1, are read as they are.

    Bundles up to schema 2 hold batch-norm variances in fp16, where a variance that is too large became infinite. It is read
    as the largest fp16 value: an infinite variance would silence its channel and spoil any average of weights.

    Raises:
        KeyError: An int8 kernel has no step sizes.
    """
    return {
        key: value.float() * packed[key + STEP]
        if value.dtype == torch.int8
        else value.float().clamp(-LARGEST_FP16, LARGEST_FP16)
        if value.dtype == torch.float16
        else value
        for key, value in packed.items()
        if not key.endswith(STEP)
    }
