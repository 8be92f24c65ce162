#!/usr/bin/env python
"""Trains a network on a slice folder.

python training/train.py --config training/configs/liver.yaml
python training/train.py --config training/configs/liver.yaml name=liver-2 steps=4000 --resume
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from data.augmentation import Augment
from data.lookalikes import Piece, pieces_of
from data.slices import BalancedSampler, DataError, Slice, SliceDataset, read_slices, to_network_grid
from data.targets import TARGETS, Target
from fit.settings import Settings, SettingsError, load_settings
from fit.task import SegmentationTask, has_fast_bf16
from UNetPlusPlusSegmentLib.network.bundle import read_bundle


def main(arguments: list[str] | None = None) -> int:
    """Run a training; 0 done, 1 refused with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of settings")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint, if there is one")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file's")
    given = parser.parse_intermixed_args(arguments)
    try:
        train(load_settings(given.config, given.overrides), resume=given.resume)
    except (SettingsError, DataError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


def train(settings: Settings, resume: bool = False) -> Path:
    """Train as `settings` say; return the checkpoint with the best validation Dice."""
    L.seed_everything(settings.seed, workers=True, verbose=False)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    last = settings.folder / "last.ckpt"
    if last.exists() and not resume:
        raise SettingsError(
            f"{settings.folder} holds a training already: add --resume to go on, or give another name=…"
        )
    target = TARGETS[settings.target]
    training, validation = (read_all(settings, split) for split in ("train", "val"))
    validation = validation[:: settings.validation_stride]
    names = sorted({item.row[target.group] for item in validation}) if target.group == "patient" else ["all"]
    groups = [names.index(item.row.get("patient", "all")) for item in validation]

    task = SegmentationTask(settings, groups)
    task.patients = len({item.row[target.group] for item in training})
    _prepare_folder(settings, task)
    if settings.init_from and not last.exists():
        load_weights(task, settings.init_from)
    best = ModelCheckpoint(settings.folder, "best", monitor="val_dice", mode="max", enable_version_counter=False)
    # Lightning's save_last skips the epochs that were no better: a resumed run would do them again.
    every_epoch = ModelCheckpoint(settings.folder, "last", enable_version_counter=False)
    trainer = L.Trainer(
        max_steps=settings.steps,
        callbacks=[
            best,
            every_epoch,
            LearningRateMonitor(),
            *([averaging(settings.ema_decay)] if settings.ema_decay else []),
            *([EarlyStopping("val_dice", mode="max", patience=settings.patience)] if settings.patience else []),
        ],
        # A resumed training gets a CSV file of its own (csv/version_1): Lightning would empty the first one.
        logger=[CSVLogger(settings.folder, "csv"), TensorBoardLogger(settings.folder, "", "tensorboard")],
        precision="bf16-mixed" if has_fast_bf16() else "32-true",
        **_processes(),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_model_summary=False,
    )
    sampler = BalancedSampler(
        training,
        settings.steps_per_epoch * settings.batch_size * trainer.world_size,
        settings.with_organ,
        settings.seed,
        trainer.global_rank,
        trainer.world_size,
        epoch=lambda: trainer.global_step // settings.steps_per_epoch,
    )
    augment = Augment(settings, target.window_hu, pieces_beside(training, target, settings) if settings.paste else ())
    patches = SliceDataset(training, target, settings.pixel_mm, augment)
    whole = SliceDataset(validation, target, settings.pixel_mm)
    if len(whole) < trainer.world_size:
        raise SettingsError(
            f"{len(whole)} images of `val` are too few for {trainer.world_size} processes: give a smaller validation_stride."
        )
    mine = Subset(whole, range(trainer.global_rank, len(whole), trainer.world_size))
    trainer.fit(
        task,
        DataLoader(patches, settings.batch_size, sampler=sampler, drop_last=True),
        DataLoader(mine, 1),
        ckpt_path=last if resume and last.exists() else None,
        weights_only=True,
    )
    return Path(best.best_model_path)


def read_all(settings: Settings, split: str) -> list[Slice]:
    """The slices of a split, of `data` and of all that `also` names, in the window of the target.

    Raises:
        DataError: As of `read_slices`; or a patient of that name is in two folders.
    """
    target = TARGETS[settings.target]
    slices = read_slices(settings.data, target, split)
    for name, folder in settings.also.items():
        other = TARGETS[name]
        more = read_slices(folder, other, split)
        twice = {item.row[target.group] for item in slices} & {item.row[other.group] for item in more}
        if twice:
            raise DataError(
                f"{', '.join(sorted(twice))} is in {folder} and in {settings.data}: rename it in one of them."
            )
        slices += [item.in_window(other.window_hu, target.window_hu) for item in more]
    return slices


def pieces_beside(slices: list[Slice], target: Target, settings: Settings) -> list[Piece]:
    """Cuts at the network's pixels through all that is easily mistaken for the organ, where it is marked."""
    found = []
    for item in slices:
        if item.beside is not None and item.beside.any():
            image, beside = to_network_grid(replace(item, mask=item.beside), target, settings.pixel_mm)
            found += pieces_of(image[0].numpy(), beside[0].numpy() > 0, settings.pixel_mm or item.pixel_mm)
    return found


def _prepare_folder(settings: Settings, task: SegmentationTask) -> None:
    """Make the run's folder, and see before the first step that its checkpoints will fit on the disk."""
    weights = sum(p.numel() for p in task.parameters()) * 4
    # Weights, their average and two moments of the optimiser; in best, last and the checkpoint being written.
    needed = weights * 4 * 3
    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(settings.folder).free
        if free < needed:
            raise SettingsError(
                f"The disk of {settings.folder} has {free / 1e9:.1f} GB left, the checkpoints need {needed / 1e9:.1f}:"
                " make room, or give another runs=…"
            )
        settings.save(settings.folder / "settings.yaml")
    except OSError as error:
        raise SettingsError(
            f"{settings.folder} cannot be written to ({error.strerror}): give another runs=…"
        ) from error


def _processes() -> dict:
    """Lightning's arguments for the processes that torchrun or Slurm started; one process otherwise."""
    of = os.environ
    if "TORCHELASTIC_RUN_ID" in of:
        here, nodes = int(of["LOCAL_WORLD_SIZE"]), int(of["GROUP_WORLD_SIZE"])
    elif "SLURM_NTASKS_PER_NODE" in of:
        here, nodes = int(of["SLURM_NTASKS_PER_NODE"]), int(of.get("SLURM_NNODES", 1))
    else:
        here, nodes = 1, 1
    return {"devices": here, "num_nodes": nodes, "strategy": "ddp" if here * nodes > 1 else "auto"}


def load_weights(task: SegmentationTask, source: str) -> None:
    """Start from a bundle folder or a checkpoint of the same architecture: from its averaged weights, which were validated.

    Raises:
        SettingsError: It cannot be read, or is of another architecture.
    """
    try:
        if Path(source).is_dir():
            state = read_bundle(source).load_state()
        else:
            state = torch.load(source, map_location="cpu", weights_only=True)["state_dict"]
            state = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
        task.network.load_state_dict(state)
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


if __name__ == "__main__":
    sys.exit(main())
