"""Trainings of one step on a made-up slice folder."""

from __future__ import annotations

from pathlib import Path

import train


def command(folder: Path, data: Path, *arguments: str) -> list[str]:
    """The arguments of train.py for a training in the folder."""
    config = folder / "tiny.yaml"
    config.write_text(
        f"name: tiny\ntarget: liver\ndata: {data}\nruns: {folder / 'runs'}\nfilters: [2, 3, 4, 5, 6]\npixel_mm: 2.0\n"
        "patch: [32, 32]\nbatch_size: 2\nsteps: 1\nsteps_per_epoch: 1\nvalidation_stride: 1\nthreads: 1\n"
    )
    return ["--config", str(config), *arguments]


def trained(folder: Path, data: Path, *arguments: str) -> Path:
    """The last checkpoint of a training of one step in the folder."""
    assert train.main(command(folder, data, *arguments)) == 0
    return folder / "runs" / "tiny" / "last.ckpt"
