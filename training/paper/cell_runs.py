"""Runs one cell of the table: its settings, its training, and its measurement."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from torch.nn import functional as F

from data.slices import Slice, read_rows, read_slices, to_network_grid
from fit.settings import Settings, SettingsError, differences_of, load_settings
from fit.task import SegmentationTask
from fit.training import train
from measure.heads import answers
from paper.cells import Cell, split_of
from paper.counts import THRESHOLDS, Counts
from paper.images import examples
from paper.origin import note_origin, origin
from paper.records import IGNORED, SETTINGS, Measured, ResultsError
from UNetPlusPlusSegmentLib.network.unetpp import NodeGrid, fold_batch_norm

EPOCHS = 12  # checkpoints and validations of a cell that has enough steps


def settings_of(cell: Cell, given: argparse.Namespace, share: float = 1) -> Settings:
    """The settings of a cell's training: the data set's config, changed by the cell and the command line.

    Args:
        cell: The cell.
        given: The command line of reproduce.py.
        share: Share of the steps to make.

    Raises:
        SettingsError: The config cannot be used, or there are fewer than two steps.
    """
    plain = load_settings(given.configs / f"{cell.dataset}.yaml")
    wanted = given.steps or plain.steps
    if wanted < 2:
        raise SettingsError(f"--steps {wanted} is too few for a training: give at least 2.")
    wanted = max(2, round(wanted * share))
    per_epoch = max(2, round(wanted / EPOCHS))
    steps = per_epoch * max(1, round(wanted / per_epoch))  # so that the last step has a checkpoint
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


def is_trained(settings: Settings) -> bool:
    """True if the training has a checkpoint of its last step."""
    last = settings.folder / "last.ckpt"
    return last.exists() and _load(last)["global_step"] == settings.steps


def cases_of(cell: Cell, settings: Settings) -> set[str]:
    """The names of the cases that a cell is measured on.

    Raises:
        DataError: The data cannot be used.
    """
    slices = settings.goal.slices
    return {row[slices.group] for row in read_rows(settings.data, slices, split_of(cell.dataset))}


def run(cell: Cell, settings: Settings) -> Measured:
    """Train a cell, continuing from its last checkpoint if there is one, and measure it.

    Raises:
        ResultsError: The run folder holds a training with other settings.
    """
    before = settings.folder / SETTINGS
    if before.exists() and differences_of(load_settings(before), settings, IGNORED):
        raise ResultsError(
            f"{settings.folder} holds a training with other settings: remove that folder, or give another --runs."
        )
    if not is_trained(settings):
        note_origin(settings.folder)
        train(settings, resume=True)
    log = read_log(settings.folder / "tensorboard")
    counts, found = _measure(load_network(settings), settings, split_of(cell.dataset))
    return Measured(settings, max(minutes for _, minutes, *_ in log), counts, log, found, *origin(settings.folder))


def _measure(network: NodeGrid, settings: Settings, split: str) -> tuple[Counts, dict[str, np.ndarray]]:
    """The pixel counts of all cases, and the masks that were found on the images to be drawn."""
    target = settings.goal
    items = read_slices(settings.data, target, split)
    drawn = {item.row["file"] for item in examples(items, target)}
    counts, found = Counts(dict.fromkeys(item.row[target.slices.group] for item in items), len(target.labels)), {}
    for item, heads in zip(items, _probabilities(network, items, settings.pixel_mm), strict=True):
        masks = _answers(heads)
        known = [item.knows(number) for number in range(len(target.labels))]
        counts.add(item.row[target.slices.group], item.mask, known, masks)
        if item.row["file"] in drawn:
            found[item.row["file"]] = np.logical_or.reduce(masks["all"])
    return counts, found


def _answers(heads: torch.Tensor) -> dict[str, np.ndarray]:
    """Masks, bool (labels, rows, columns), of the mean of all heads at each threshold and, if there are several, of each head at 0.5."""
    masks = {name: heads.mean(0) >= threshold for name, threshold in THRESHOLDS.items()}
    if len(heads) > 1:
        masks |= {name: each >= 0.5 for name, each in answers(heads, len(heads)).items() if "-" not in name}
    return {name: mask.numpy() for name, mask in masks.items()}


def _load(checkpoint: Path) -> dict:
    return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)


def load_network(settings: Settings) -> NodeGrid:
    """The network with the averaged weights of the last step, batch norm folded."""
    saved = _load(settings.folder / "last.ckpt")
    if saved["global_step"] != settings.steps:
        raise ResultsError(
            f"{settings.folder} stopped after {saved['global_step']} of {settings.steps} steps: run the command again to continue."
        )
    task = SegmentationTask(settings, [0])
    task.load_state_dict(saved["state_dict"])
    return fold_batch_norm(task.network)


def _probabilities(network: NodeGrid, items: list[Slice], pixel_mm: float) -> Iterator[torch.Tensor]:
    """Probabilities (heads, labels, rows, columns) of each image at its stored pixels, resampled from the network's.

    Zeros surround the image, as in a training patch; without them, the network would repeat the last row and column.
    """
    step = 2**network.depth
    for item in items:
        image, _ = to_network_grid(item, pixel_mm)
        rows, columns = image.shape[-2:]
        above, left = (-rows % step) // 2, (-columns % step) // 2
        image = F.pad(image, (left, -columns % step - left, above, -rows % step - above))
        with torch.inference_mode():
            heads = torch.stack([head.sigmoid() for head in network(image[None])])[:, 0]
        yield F.interpolate(
            heads[..., above : above + rows, left : left + columns], item.mask.shape[1:], mode="bilinear"
        )


def read_log(folder: Path) -> list[tuple[int, float, str, float]]:
    """The losses and validations of a training, from its TensorBoard files; each time it was resumed, it began a new file.

    Returns:
        (step, minutes, what, value). The minutes leave out the time while the training was stopped. Steps that were repeated after a
        kill between checkpoints appear once, with their last values.
    """
    sessions = [list(LegacyEventFileLoader(str(path)).Load()) for path in folder.glob("events.out.tfevents.*")]
    before, logged = 0.0, {}
    for events in sorted(sessions, key=lambda events: events[0].wall_time):
        for event in events:
            minutes = before + (event.wall_time - events[0].wall_time) / 60
            for value in event.summary.value:
                if value.tag in ("loss", "iou", "val_iou"):
                    logged[event.step + 1, value.tag] = (minutes, value.simple_value)
        before = minutes
    return [(step, minutes, what, value) for (step, what), (minutes, value) in sorted(logged.items())]
