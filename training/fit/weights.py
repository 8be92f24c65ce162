"""The initial weights of a training, and the moving average of its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from fit.checkpoint import read_checkpoint
from fit.settings import SettingsError
from UNetPlusPlusSegmentLib.network.bundle import BundleError, read_bundle


def load_weights(network: nn.Module, source: str) -> None:
    """Load the weights of a bundle folder or a checkpoint of the same architecture; from a checkpoint, the averaged ones.

    If the number of labels differs, the heads keep their random weights.

    Raises:
        SettingsError: `source` cannot be read, or has another architecture.
    """
    try:
        path = Path(source)
        state = read_bundle(path).load_state() if path.is_dir() else read_checkpoint(path).state
    except BundleError as error:
        raise SettingsError(f"init_from: {error}") from error
    own = network.state_dict()
    heads = {k: v for k, v in own.items() if k.startswith("outputs.") and k in state and v.shape != state[k].shape}
    try:
        network.load_state_dict({**state, **heads})
    except RuntimeError as error:
        raise SettingsError(
            f"init_from={source!r} has other filters or another architecture than this training: give those that it was trained with."
        ) from error


def averaging(decay: float) -> WeightAveraging:
    """An exponential moving average of weights and batch statistics. Its decay grows from 0.1, so that the random start is forgotten."""

    def step(average: Tensor, current: Tensor, count: Tensor) -> Tensor:
        if not average.is_floating_point():
            return current
        return torch.lerp(average, current, 1 - min(decay, (1 + float(count)) / (10 + float(count))))

    return WeightAveraging(use_buffers=True, avg_fn=step)
