"""The Lightning trainer of a run (checkpoints, logs, precision, processes), and the run folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from fit.settings import Settings, SettingsError
from fit.task import has_fast_bf16
from fit.weights import averaging


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoint, also of a run folder that was moved since, whose best score Lightning would forget."""

    @property
    def state_key(self) -> str:
        """As Lightning's own, which older trainings have."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        models = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": models, "dirpath": self.dirpath})


def trainer_of(settings: Settings, best: ModelCheckpoint) -> L.Trainer:
    """A trainer that keeps the best checkpoint, `best`, and saves `last.ckpt` after every epoch."""
    callbacks: list[Callback] = [
        best,
        # Lightning's save_last skips epochs without improvement: a resumed run would repeat them.
        ModelCheckpoint(settings.folder, "last", enable_version_counter=False),
        LearningRateMonitor(),
    ]
    if settings.ema_decay:
        callbacks.append(averaging(settings.ema_decay))
    if settings.patience:
        # Asked after the validation, not at the end of the epoch: there a resumed training has none yet.
        callbacks.append(
            EarlyStopping("val_dice", mode="max", patience=settings.patience, check_on_train_epoch_end=False)
        )
    return L.Trainer(
        max_steps=settings.steps,
        callbacks=callbacks,
        # A resumed training gets its own CSV file (csv/version_1): Lightning would empty the first one.
        logger=[CSVLogger(settings.folder, "csv"), TensorBoardLogger(settings.folder, "", "tensorboard")],
        precision="bf16-mixed" if has_fast_bf16() else "32-true",
        **_processes(),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_model_summary=False,
    )


def make_folder(settings: Settings, task: nn.Module) -> None:
    """Make the run folder, save the settings in it, and check that the checkpoints will fit on the disk.

    Raises:
        SettingsError: There is too little space, or the folder cannot be written to.
    """
    weights = sum(p.numel() for p in task.parameters()) * 4
    # Four values per weight (weight, average, two moments of AdamW) in three files: best, last and the one being written.
    needed = weights * 4 * 3
    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(settings.folder).free
        if free < needed:
            raise SettingsError(
                f"The checkpoints need {needed / 1e9:.1f} GB, but the disk of {settings.folder} has {free / 1e9:.1f} GB left:"
                " free some space, or give another runs=…"
            )
        settings.save(settings.folder / "settings.yaml")
    except OSError as error:
        raise SettingsError(
            f"{settings.folder} cannot be written to ({error.strerror}): give another runs=…"
        ) from error


def _processes() -> dict:
    """Lightning's arguments for the processes that torchrun or Slurm started; without these, for one process."""
    of = os.environ
    if "TORCHELASTIC_RUN_ID" in of:
        here, nodes = int(of["LOCAL_WORLD_SIZE"]), int(of["GROUP_WORLD_SIZE"])
    elif "SLURM_NTASKS_PER_NODE" in of:
        here, nodes = int(of["SLURM_NTASKS_PER_NODE"]), int(of.get("SLURM_NNODES", 1))
    else:
        here, nodes = 1, 1
    return {"devices": here, "num_nodes": nodes, "strategy": "ddp" if here * nodes > 1 else "auto"}
