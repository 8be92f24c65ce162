"""The heads of a network: what one could take of them, and what each level costs."""

from __future__ import annotations

import time
from collections import defaultdict

import numpy as np
import torch

from UNetPlusPlusSegmentLib.network.bundle import Bundle
from UNetPlusPlusSegmentLib.network.device import Device

ROUNDS = 9  # of the timing


def answers(probabilities: torch.Tensor, depth: int) -> dict[str, torch.Tensor]:
    """What one could take of the heads up to a depth: each by itself (`L2`), and the mean from one to the last (`L2-L4`)."""
    levels = range(depth - len(probabilities) + 1, depth + 1)  # without deep supervision there is but one head
    alone = {f"L{level}": one for level, one in zip(levels, probabilities, strict=True)}
    return alone | {f"L{level}-L{depth}": probabilities[n:].mean(0) for n, level in enumerate(levels) if level < depth}


def answer_of(bundle: Bundle) -> str:
    """The name of the answer that the card has the product give when it takes all heads."""
    first, depth = bundle.average_from, bundle.depth
    return f"L{first}-L{depth}" if first < depth else f"L{depth}"


def level_times(bundle: Bundle, device: Device, size: tuple[int, int]) -> dict:
    """The time that each pruned network, and all heads together, take for a slice of (rows, columns), as ratio to the deepest head's.

    Each round runs them all, one after the other, and gives one ratio of each: whatever else the machine does weighs on all alike.
    """
    depth = bundle.depth
    whole = bundle.load_network()
    networks = {f"L{level}": whole.pruned(level) for level in whole.heads}
    if len(whole.heads) > 1:
        networks[f"L1-L{depth}"] = whole
    image = torch.rand(1, 1, *size).to(device.kind, device.dtype, memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = defaultdict(list)
    with torch.inference_mode():
        for network in networks.values():
            network.to(device.kind, device.dtype, memory_format=torch.channels_last)(image)
        for _ in range(ROUNDS):
            for name, network in networks.items():
                start = time.perf_counter()
                [head.cpu() for head in network(image)]
                seconds[name].append(time.perf_counter() - start)
    deepest = np.array(seconds[f"L{depth}"])
    ratios = {name: round(float(np.median(each / deepest)), 3) for name, each in seconds.items()}
    return {"device": device.label, "ratio_to": f"L{depth}", **ratios}
