"""Runs a training, from its settings to its best checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lightning as L
import torch

from data.provenance import NOTHING, Provenance, may_overlap
from fit.checkpoint import people_in, provenance_of, read_checkpoint, sources_in
from fit.settings import Settings, SettingsError, differences_of
from fit.slice_data import SliceData
from fit.task import SegmentationTask
from fit.trainer import BestCheckpoint, make_folder, trainer_of
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
        check_settings(last, settings)
    inherited = inherited_by(settings, last if last.exists() else None)
    data = SliceData(settings)
    task = SegmentationTask(settings, data.groups, data.own, inherited)
    if settings.init_from and not last.exists():
        load_weights(task.network, settings.init_from)
    make_folder(settings, task)
    best = BestCheckpoint(settings.folder, "best", monitor="val_dice", mode="max", enable_version_counter=False)
    trainer = trainer_of(settings, best)
    data.check_processes(trainer.world_size)
    trainer.fit(task, data, ckpt_path=last if last.exists() else None, weights_only=True)
    return Path(best.best_model_path)


def check_settings(last: Path, settings: Settings) -> None:
    """Check that a training is resumed with the settings that it began with, except for neutral ones.

    Raises:
        SettingsError: Another setting differs, or the checkpoint cannot be read.
    """
    try:
        trained = read_checkpoint(last)
        differing = differences_of(replace(trained.settings, also=trained.also), settings)
    except (BundleError, SettingsError) as error:
        raise SettingsError(f"--resume: {error}") from error
    if differing:
        raise SettingsError(
            f"{last} belongs to a training with another {', '.join(differing)}: resume it with the settings that it began with, or give"
            f" another name=… with init_from={last} to go on from its weights."
        )


def inherited_by(settings: Settings, last: Path | None = None) -> Provenance:
    """What the weights that a training goes on from and is taught by were trained on.

    Args:
        settings: Of the training.
        last: The checkpoint from which it is resumed, if it is.

    Raises:
        SettingsError: They do not say it, or may have been trained on people on whom this training is validated.
        DataError: As for `read_rows`.
    """
    first = ("--resume", str(last)) if last else ("init_from", settings.init_from)
    inherited = NOTHING
    for key, weights in (first, ("teacher", settings.teacher)):
        if not weights:
            continue
        try:
            before = provenance_of(weights)
        except BundleError as error:
            raise SettingsError(f"{key}: {error}") from error
        _check_held_out(key, weights, before, settings)
        inherited = inherited.going_on_from(before)
    return inherited


def _check_held_out(key: str, weights: str, before: Provenance, settings: Settings) -> None:
    """Raise a SettingsError if weights have, or may have, learned from the people on whom a training is validated.

    Where it is not known on whom they were trained, a fold is refused unless their sources are other data than those of the people held
    out. With `val` they are taken: models are measured on it, so their trainings have held it out too.
    """
    held_out = [(folder, kind) for folder, kind in settings.folders if kind.structures], settings.splits[1]
    whom = f"fold={settings.fold}" if settings.fold else "`val`"
    seen = {*before.people} & {*people_in(*held_out)}
    unclear = before.unnamed if settings.fold and key != "--resume" else ()  # a resumed one was checked when it began
    if unclear and not seen:
        sources = sources_in(*held_out)
        unclear = tuple(one for one in unclear if any(may_overlap(one, other) for other in sources))
    if not (seen or unclear):
        return
    learned = f"{len(seen)} of the people" if seen else f"{unclear[0].name}, and perhaps from people"
    other = f"weights trained with {whom}" if settings.fold else "weights that have not seen them"
    way_out = "give another name=…" if key == "--resume" else f'give {key}="" or {other}'
    raise SettingsError(
        f"{key}={weights!r} has learned from {learned} whom {whom} holds out, so that the figures would be too good: {way_out}."
    )
