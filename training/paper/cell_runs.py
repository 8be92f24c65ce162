"""One cell of the table: its settings, its training, and what is measured of it."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from torch.nn import functional as F

from data.slices import Slice, read_slices, to_network_grid
from fit.settings import Settings, SettingsError, load_settings
from fit.task import SegmentationTask
from fit.training import train
from measure.heads import answers
from measure.pooled import Pooled
from paper.cells import Cell, Measured, ResultsError, split_of
from paper.figures import examples
from UNetPlusPlusSegmentLib.network.unetpp import NodeGrid, fold_batch_norm

EPOCHS = 12  # checkpoints and validations of a cell, where it has steps enough


def settings_of(cell: Cell, given: argparse.Namespace) -> Settings:
    """The settings of a cell's training: the data set's config, and what the cell and the command line say."""
    plain = load_settings(given.configs / f"{cell.dataset}.yaml")
    wanted = given.steps or plain.steps
    if wanted < 2:
        raise SettingsError(f"--steps {wanted} is too few for a training: give 2 or more.")
    per_epoch = max(2, round(wanted / EPOCHS))
    steps = per_epoch * max(1, round(wanted / per_epoch))  # the last step has a checkpoint
    return replace(
        plain,
        name=f"{cell.name}-{steps}",
        data=str(given.data / cell.dataset),
        runs=given.runs,
        architecture=cell.architecture,
        loss=cell.loss,
        seed=cell.seed,
        steps=steps,
        steps_per_epoch=per_epoch,
        warmup_steps=min(plain.warmup_steps, steps // 10),
        threads=given.threads,
    )


def run(cell: Cell, settings: Settings) -> Measured:
    """Train a cell, from its last checkpoint if there is one, and measure it."""
    before = settings.folder / "settings.yaml"
    if before.exists():  # what belongs to this machine may differ
        here = replace(load_settings(before), threads=settings.threads, data=settings.data, runs=settings.runs)
        if here != settings:
            raise ResultsError(
                f"{settings.folder} is a training with other settings: remove it, or give another --runs."
            )
    train(settings, resume=True)
    log = read_log(settings.folder / "tensorboard")
    ious, found = _measure(load_network(settings), settings, split_of(cell.dataset))
    return Measured(settings.steps, max(minutes for _, minutes, *_ in log), ious, log, found)


def _measure(
    network: NodeGrid, settings: Settings, split: str
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """The IoU of each case that shows a label, by answer: the mean over the labels that it shows; and what was found on the images
    that are drawn.
    """
    target = settings.goal
    items = read_slices(settings.data, target, split)
    drawn = {item.row["file"] for item in examples(items, target)}
    pooled: dict[str, dict[str, list[Pooled]]] = defaultdict(
        lambda: defaultdict(lambda: [Pooled() for _ in target.labels])
    )
    found = {}
    for item, heads in zip(items, _probabilities(network, items, settings.pixel_mm), strict=True):
        masks = {name: (probability >= 0.5).numpy() for name, probability in _answers(heads).items()}
        known = [number for number in range(len(target.labels)) if item.knows(number)]
        for (name, mask), number in product(masks.items(), known):
            pooled[item.row[target.slices.group]][name][number].add(mask[number], item.mask[number], item.pixel_mm)
        if item.row["file"] in drawn:
            found[item.row["file"]] = np.logical_or.reduce(masks["all"])
    return {case: _mean_ious(by) for case, by in pooled.items() if any(p.true for p in by["all"])}, found


def _mean_ious(by_answer: Mapping[str, Sequence[Pooled]]) -> dict[str, float]:
    """The mean IoU over the labels that a case shows, by answer."""
    return {name: float(np.mean([p.iou for p in of_labels if p.true])) for name, of_labels in by_answer.items()}


def _answers(heads: torch.Tensor) -> dict[str, torch.Tensor]:
    """The mean of all heads, and where there are several, each by itself."""
    if len(heads) == 1:
        return {"all": heads[0]}
    return {"all": heads.mean(0)} | {n: each for n, each in answers(heads, len(heads)).items() if "-" not in n}


def load_network(settings: Settings) -> NodeGrid:
    """The network with the averaged weights of the last step, batch norm folded."""
    saved = torch.load(settings.folder / "last.ckpt", map_location="cpu", weights_only=True)
    if saved["global_step"] != settings.steps:
        raise ResultsError(
            f"{settings.folder} ended after {saved['global_step']} of {settings.steps} steps: run the command again."
        )
    task = SegmentationTask(settings, [0])
    task.load_state_dict(saved["state_dict"])
    return fold_batch_norm(task.network)


def _probabilities(network: NodeGrid, items: list[Slice], pixel_mm: float) -> Iterator[torch.Tensor]:
    """Probabilities (heads, labels, rows, columns) of each image at its stored pixels; the network sees its own."""
    for item in items:
        image, _ = to_network_grid(item, pixel_mm)
        with torch.inference_mode():
            heads = torch.stack([head.sigmoid() for head in network(image[None])])[:, 0]
        yield F.interpolate(heads, item.mask.shape[1:], mode="bilinear")


def read_log(folder: Path) -> list[tuple[int, float, str, float]]:
    """The losses and validations of a training from its TensorBoard files, of which every resumption has begun a new one.

    Returns:
        (step, minutes, what, value); the minutes do not count the time in which the training was stopped. What was done twice because
        a kill came between checkpoints is told once, as it was done last.
    """
    sessions = [list(LegacyEventFileLoader(str(path)).Load()) for path in folder.glob("events.out.tfevents.*")]
    before, told = 0.0, {}
    for events in sorted(sessions, key=lambda events: events[0].wall_time):
        for event in events:
            minutes = before + (event.wall_time - events[0].wall_time) / 60
            for value in event.summary.value:
                if value.tag in ("loss", "iou", "val_iou"):
                    told[event.step + 1, value.tag] = (minutes, value.simple_value)
        before = minutes
    return [(step, minutes, what, value) for (step, what), (minutes, value) in sorted(told.items())]
