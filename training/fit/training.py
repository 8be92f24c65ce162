"""Runs a training, from its settings to its best checkpoint."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from data.provenance import NOTHING, Provenance
from fit.checkpoint import provenance_of, read_checkpoint
from fit.settings import Settings, SettingsError
from fit.slice_data import SliceData
from fit.task import SegmentationTask
from fit.trainer import make_folder, trainer_of
from fit.weights import load_weights
from UNetPlusPlusSegmentLib.network.bundle import BundleError


def train(settings: Settings, resume: bool = False) -> Path:
    """Train, and return the path of the checkpoint with the best validation Dice.

    Raises:
        SettingsError, DataError: The settings or the data cannot be used; raised before the first step.
    """
    L.seed_everything(settings.seed, workers=True, verbose=False)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    last = settings.folder / "last.ckpt"
    if last.exists() and not resume:
        raise SettingsError(
            f"{settings.folder} already holds a training: add --resume to continue it, or give another name=…"
        )
    if last.exists():
        check_network(last, settings)
    else:
        check_folds(settings)
    data = SliceData(settings)
    start = last if last.exists() else settings.init_from
    task = SegmentationTask(settings, data.groups, data.sources, _inherited(start, settings))
    if settings.init_from and not last.exists():
        load_weights(task.network, settings.init_from)
    make_folder(settings, task)
    best = ModelCheckpoint(settings.folder, "best", monitor="val_dice", mode="max", enable_version_counter=False)
    trainer = trainer_of(settings, best)
    data.check_processes(trainer.world_size)
    trainer.fit(task, data, ckpt_path=last if last.exists() else None, weights_only=True)
    return Path(best.best_model_path)


def check_network(last: Path, settings: Settings) -> None:
    """Check that a training to be resumed is one of the same network and labels.

    Raises:
        SettingsError: It is one of another network or of other labels, or its checkpoint cannot be read.
    """
    try:
        before = read_checkpoint(last).settings
    except BundleError as error:
        raise SettingsError(f"--resume: {error}") from error
    learned, wanted = ([(label.name, label.made_of) for label in each.goal.labels] for each in (before, settings))
    is_same = before.architecture == settings.architecture and before.network_arguments == settings.network_arguments
    if not is_same or learned != wanted:
        raise SettingsError(
            f"{last} belongs to a training with another network or other labels: resume it with the settings.yaml beside it, or give"
            " another name=…"
        )


def check_folds(settings: Settings) -> None:
    """Check that a training which holds out a fold does not go on from weights that have seen it, nor is taught by them.

    Only checkpoints trained on the same `data` are checked: a bundle does not say what it held out.

    Raises:
        SettingsError: The checkpoint was trained on the same folder with another fold, or cannot be read.
    """
    for key in ("init_from", "teacher") if settings.fold else ():
        weights = getattr(settings, key)
        if not weights or Path(weights).is_dir():
            continue
        try:
            before = read_checkpoint(Path(weights)).settings
        except BundleError as error:
            raise SettingsError(f"{key}: {error}") from error
        if before.fold != settings.fold and Path(before.data).resolve() == Path(settings.data).resolve():
            how = f"with fold={before.fold}" if before.fold else "without a fold"
            raise SettingsError(
                f"{key}={weights!r} was trained on {settings.data} {how}, so it has seen people whom fold={settings.fold} holds out:"
                f" give weights trained with fold={settings.fold}."
            )


def _inherited(start: Path | str, settings: Settings) -> Provenance:
    """What the weights that a training starts from and is taught by have learned from; an empty name stands for none.

    Raises:
        SettingsError: They do not say it.
    """
    inherited = NOTHING
    for key, weights in (
        ("init_from" if start == settings.init_from else "--resume", start),
        ("teacher", settings.teacher),
    ):
        try:
            inherited = inherited.going_on_from(provenance_of(weights) if weights else NOTHING)
        except BundleError as error:
            raise SettingsError(f"{key}: {error}") from error
    return inherited
