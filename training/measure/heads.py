"""The heads of a network: the outputs that they and their means give, and the time of each level."""

from __future__ import annotations

import time
from collections import defaultdict

import numpy as np
import torch

from UNetPlusPlusSegmentLib.network.bundle import Bundle
from UNetPlusPlusSegmentLib.network.device import Device

ROUNDS = 9  # rounds of timing


def answers(probabilities: torch.Tensor, depth: int) -> dict[str, torch.Tensor]:
    """All outputs that the heads can give, by name: each head by itself (`L2`), and the mean of it and all deeper ones (`L2-L4`).

    Args:
        probabilities: (heads, …), the deepest head last.
        depth: Level of the deepest head.
    """
    levels = range(depth - len(probabilities) + 1, depth + 1)  # without deep supervision there is only one head
    alone = {f"L{level}": one for level, one in zip(levels, probabilities, strict=True)}
    return alone | {f"L{level}-L{depth}": probabilities[n:].mean(0) for n, level in enumerate(levels) if level < depth}


def answer_of(bundle: Bundle) -> str:
    """The name of the output that the product gives at full depth, according to the card."""
    first, depth = bundle.average_from, bundle.depth
    return f"L{first}-L{depth}" if first < depth else f"L{depth}"


def best_average(heads: dict[str, dict]) -> int:
    """The shallowest head to average, by the figures of each of `answers`.

    Candidates are the deepest head alone, which is taken where there is no Dice, and the means up to it. Of equals the mean is taken.
    """
    deepest = max(name for name in heads if "-" not in name)
    dices = {
        int(name[1]): head["dice"]
        for name, head in sorted(heads.items())
        if ("-" in name or name == deepest) and head["dice"] is not None
    }
    return max(dices, key=lambda level: dices[level], default=int(deepest[1]))


def level_times(bundle: Bundle, device: Device, size: tuple[int, int]) -> dict:
    """The time per slice of (rows, columns) of each pruned network, and of all heads together, divided by that of the deepest head.

    Medians over rounds. Each round runs all networks in turn and gives one ratio for each, so that other work on the machine slows all of
    them alike.
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
            network.to(device.kind, device.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
            network(image)
        for _ in range(ROUNDS):
            for name, network in networks.items():
                start = time.perf_counter()
                [head.cpu() for head in network(image)]
                seconds[name].append(time.perf_counter() - start)
    deepest = np.array(seconds[f"L{depth}"])
    ratios = {name: round(float(np.median(each / deepest)), 3) for name, each in seconds.items()}
    return {"device": device.label, "ratio_to": f"L{depth}", **ratios}
