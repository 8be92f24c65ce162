"""The weights that a training starts from, and the average that it ends with."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from fit.settings import SettingsError
from UNetPlusPlusSegmentLib.network.bundle import read_bundle


def load_weights(network: nn.Module, source: str) -> None:
    """Start from a bundle folder or a checkpoint of the same architecture: from its averaged weights, which were validated.

    Heads for another number of labels stay as they are: they know nothing of these labels.

    Raises:
        SettingsError: It cannot be read, or is of another architecture.
    """
    try:
        if Path(source).is_dir():
            state = read_bundle(source).load_state()
        else:
            state = torch.load(source, map_location="cpu", weights_only=True)["state_dict"]
            state = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
        own = network.state_dict()
        heads = {k: v for k, v in own.items() if k.startswith("outputs.") and k in state and v.shape != state[k].shape}
        network.load_state_dict({**state, **heads})
    except Exception as error:  # pickle, too, says in many ways that a file is no checkpoint
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise SettingsError(
            f"init_from={source!r} is no bundle or checkpoint of this architecture: {reason}"
        ) from error


def averaging(decay: float) -> WeightAveraging:
    """An exponential moving average of weights and batch statistics that forgets the random start: its decay grows from 0.1."""

    def step(average: Tensor, current: Tensor, count: Tensor) -> Tensor:
        if not average.is_floating_point():
            return current
        return torch.lerp(average, current, 1 - min(decay, (1 + float(count)) / (10 + float(count))))

    return WeightAveraging(use_buffers=True, avg_fn=step)
