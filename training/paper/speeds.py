"""Measures the cost of each network of the table: parameters, GFLOP, seconds per image and per training step."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fit.losses import deep_supervision
from fit.settings import Settings
from fit.task import SegmentationTask, has_fast_bf16
from paper.files import read_rows, write_rows
from UNetPlusPlusSegmentLib.network.unetpp import NodeGrid, build_network, fold_batch_norm

ROUNDS = 5
COLUMNS = ("dataset", "network", "parameters", "gflop", "seconds_per_image", "seconds_per_step", "measured_with")


def measure_speeds(path: Path, of_line: dict[tuple[str, str], Settings]) -> None:
    """Write the cost of every network, and of UNet++ pruned to each level, which is not trained by itself, to a CSV file.

    A data set is kept if the file has all its networks, measured with today's settings; otherwise all of them are timed again, in turns,
    so that other work on the machine slows all of them alike.
    """
    known = [row for row in read_rows(path) if row.keys() == {*COLUMNS}] if path.exists() else []
    rows: list[list[object]] = [[row[name] for name in COLUMNS] for row in known]
    by_dataset: dict[str, dict[str, Settings]] = defaultdict(dict)
    for (dataset, architecture), settings in of_line.items():
        by_dataset[dataset][architecture] = settings
    done = {(row["dataset"], row["network"], row["measured_with"]) for row in known}
    for dataset, of_architecture in by_dataset.items():
        if {(dataset, name, measured_with(settings)) for name, settings in of_architecture.items()} <= done:
            continue
        rows = [row for row in rows if row[0] != dataset]
        rows += [[dataset, *row] for row in _speeds(of_architecture)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, COLUMNS, rows)


def measured_with(settings: Settings) -> str:
    """All that the cost of a network depends on, besides its architecture."""
    network = settings.network_arguments
    batch = (settings.batch_size, network["in_channels"], *settings.patch)
    return (
        f"batch {' x '.join(map(str, batch))}; filters {' '.join(map(str, network['filters']))};"
        f" {'' if settings.batch_norm else 'no '}batch norm; outputs {network['out_channels']}; {settings.loss}"
    )


def _speeds(of_architecture: dict[str, Settings]) -> list[list[object]]:
    settings = next(iter(of_architecture.values()))
    networks = {name: folded_network(s) for name, s in of_architecture.items()}
    of_network = dict(of_architecture)
    if "unetpp_ds" in networks:
        levels = {f"L{level}": networks["unetpp_ds"].pruned(level) for level in networks["unetpp_ds"].heads}
        networks |= levels
        of_network |= dict.fromkeys(levels, of_architecture["unetpp_ds"])
    image = torch.rand(1, settings.goal.slices.channels, *settings.patch)
    with torch.inference_mode():
        image_s = _seconds({name: partial(network, image) for name, network in networks.items()})
    step_s = _seconds({name: training_step(s) for name, s in of_architecture.items()})
    return [
        [
            name,
            *_size(network, image),
            f"{image_s[name]:.4f}",
            f"{step_s[name]:.3g}" if name in step_s else "",
            measured_with(of_network[name]),
        ]
        for name, network in networks.items()
    ]


def training_step(settings: Settings) -> Callable[[], None]:
    """A function that makes one step of such a training, at the precision that trainings have here, on a batch of noise."""
    task = SegmentationTask(settings, [0])
    optimizer = torch.optim.AdamW(task.parameters())
    image = torch.rand(settings.batch_size, settings.goal.slices.channels, *settings.patch)
    truth = torch.randint(2, (settings.batch_size, len(settings.goal.labels), *settings.patch)).float()

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16()):
            loss = deep_supervision(task.loss, task.network(image.contiguous(memory_format=task.layout)), truth)
        loss.backward()
        optimizer.step()

    return step


def _seconds(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median processor time of each of some works; they are done in turns, and the first round is not counted."""
    seconds: dict[str, list[float]] = defaultdict(list)
    threads = torch.get_num_threads()
    # The processor time of a single thread excludes the time when other programs had the processor.
    torch.set_num_threads(1)
    for _ in range(ROUNDS + 1):
        for name, work in works.items():
            start = time.process_time()
            work()
            seconds[name].append(time.process_time() - start)
    torch.set_num_threads(threads)
    return {name: float(np.median(each[1:])) for name, each in seconds.items()}


def _size(network: NodeGrid, image: Tensor) -> tuple[int, str]:
    """The number of parameters, and the GFLOP for one image."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(image)
    return sum(p.numel() for p in network.parameters()), f"{counter.get_total_flops() / 1e9:.2f}"


def folded_network(settings: Settings) -> NodeGrid:
    """An untrained network for these settings, with batch norm folded as in use."""
    return fold_batch_norm(build_network(settings.architecture, **settings.network_arguments))
