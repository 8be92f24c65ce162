#!/usr/bin/env python
"""Trains a network on a slice folder.

python training/train.py --config training/configs/liver.yaml
python training/train.py --config training/configs/liver.yaml name=liver-2 steps=4000 --resume
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import lightning as L
import torch

from data.slices import DataError
from fit.settings import Settings, SettingsError, load_settings
from fit.slice_data import SliceData
from fit.task import SegmentationTask
from fit.trainer import make_folder, trainer_of
from fit.weights import load_weights


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
    data = SliceData(settings)
    task = SegmentationTask(settings, data.groups, data.patients)
    make_folder(settings, task)
    if settings.init_from and not last.exists():
        load_weights(task.network, settings.init_from)
    trainer = trainer_of(settings)
    data.check_processes(trainer.world_size)
    trainer.fit(task, data, ckpt_path=last if last.exists() else None, weights_only=True)
    return Path(trainer.checkpoint_callback.best_model_path)


if __name__ == "__main__":
    sys.exit(main())
