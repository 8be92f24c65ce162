"""The Lightning trainer of a run, and its folder: checkpoints, logs, precision, processes."""

from __future__ import annotations

import os
import shutil

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from fit.settings import Settings, SettingsError
from fit.task import has_fast_bf16
from fit.weights import averaging


def trainer_of(settings: Settings) -> L.Trainer:
    """A trainer that keeps the best checkpoint (its `checkpoint_callback`) and, after every epoch, the last."""
    callbacks: list[Callback] = [
        ModelCheckpoint(settings.folder, "best", monitor="val_dice", mode="max", enable_version_counter=False),
        # Lightning's save_last skips the epochs that were no better: a resumed run would do them again.
        ModelCheckpoint(settings.folder, "last", enable_version_counter=False),
        LearningRateMonitor(),
    ]
    if settings.ema_decay:
        callbacks.append(averaging(settings.ema_decay))
    if settings.patience:
        callbacks.append(EarlyStopping("val_dice", mode="max", patience=settings.patience))
    return L.Trainer(
        max_steps=settings.steps,
        callbacks=callbacks,
        # A resumed training gets a CSV file of its own (csv/version_1): Lightning would empty the first one.
        logger=[CSVLogger(settings.folder, "csv"), TensorBoardLogger(settings.folder, "", "tensorboard")],
        precision="bf16-mixed" if has_fast_bf16() else "32-true",
        **_processes(),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_model_summary=False,
    )


def make_folder(settings: Settings, task: nn.Module) -> None:
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
