#!/usr/bin/env python
"""Makes the table of the UNet++ paper again on real data: every architecture on every data set, with spread and intervals.

python training/reproduce.py                                  # all cells not done yet, then the table; stop and start it at will
python training/reproduce.py --datasets nuclei --seeds 1
python training/reproduce.py --steps 24 --seeds 1 --results runs/short      # a run through everything
python training/reproduce.py --figures                        # the figures of what is on record
python training/reproduce.py --configs training/configs/table-paper --results runs/paper     # the paper's sizes, on a GPU

All trainings of a data set are alike in all but the network: split, loss, optimiser, steps, and the patches in their order. Nothing is
chosen by looking at the validation: the averaged weights of the last step count.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from torch.nn import functional as F

from data.slices import DataError, Slice, read_slices, to_network_grid
from data.targets import TARGETS, Target
from fit.settings import Settings, SettingsError, load_settings
from fit.task import SegmentationTask
from measure.heads import answers
from measure.pictures import PicturesError
from measure.pooled import Pooled
from paper import cells
from paper.cells import Cell, Measured, Results, ResultsError
from paper.figures import examples, write_figures
from paper.table import measure_speeds, write_table
from train import train
from UNetPlusPlusSegmentLib.network.unetpp import ARCHITECTURES, NodeGrid, fold_batch_norm

TRAINING = Path(__file__).resolve().parent
EPOCHS = 12  # checkpoints and validations of a cell, where it has steps enough


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing and write the table, or draw the figures; 0 done, 1 refused with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=cells.DATASETS, default=cells.DATASETS, metavar="NAME")
    parser.add_argument(
        "--architectures", nargs="+", choices=list(ARCHITECTURES), default=cells.ARCHITECTURES, metavar="NAME"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help=f"trainings of each; without it {cells.DEFAULT_SEEDS}")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="of each training; without it those of the data set's config"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder with a slice folder of each name"
    )
    parser.add_argument("--configs", type=Path, default=TRAINING / "configs" / "table", help="folder of <dataset>.yaml")
    parser.add_argument("--results", type=Path, default=TRAINING / "results", help="where the records and the table go")
    parser.add_argument("--runs", default="runs/reproduce", help="where checkpoints go")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: all cores")
    parser.add_argument("--figures", action="store_true", help="train nothing, draw what is on record")
    given = parser.parse_args(arguments)
    results = Results(given.results)
    try:
        # The table has a line for all that was or could be run, whatever is asked for today.
        recorded = [cell.architecture for cell in results.done()]
        lines = dict.fromkeys([*cells.ARCHITECTURES, *given.architectures, *recorded])
        everything = {
            cell: settings_of(cell, given) for cell in cells.planned(cells.DATASETS, list(lines), given.seeds)
        }
        if given.figures:
            if not results.done():
                raise ResultsError(
                    f"{results.folder} has no finished cell to draw: run the command without --figures first."
                )
            of_dataset = {
                cell.dataset: settings for cell, settings in everything.items() if cell.dataset in given.datasets
            }
            print("\n".join(write_figures(results, of_dataset)))
            return 0
        results.check_steps({cell.dataset: settings.steps for cell, settings in everything.items()})
        wanted = cells.planned(given.datasets, given.architectures, given.seeds)
        missing = [cell for cell in wanted if cell not in results.done()]
        of_line = {(cell.dataset, cell.architecture): settings for cell, settings in everything.items()}
        measure_speeds(results.folder / "speed.csv", of_line)
        for number, cell in enumerate(missing, start=1):
            write_table(results, of_line)  # before each: what is there may be all there will be
            print(f"{cell.name}: cell {number} of {len(missing)} to do, {everything[cell].steps} steps", flush=True)
            results.record(cell, run(cell, everything[cell]))
            print(f"{cell.name}: IoU {results.done()[cell]['iou']}", flush=True)
        print(write_table(results, of_line))
    except (ResultsError, SettingsError, DataError, PicturesError) as error:
        print(f"reproduce.py: {error}", file=sys.stderr)
        return 1
    return 0


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
    here = {
        "threads": settings.threads,
        "data": settings.data,
        "runs": settings.runs,
    }  # of this machine: they may differ
    if before.exists() and replace(load_settings(before), **here) != settings:
        raise ResultsError(f"{settings.folder} is a training with other settings: remove it, or give another --runs.")
    train(settings, resume=True)
    log = read_log(settings.folder / "tensorboard")
    network = load_network(settings)
    target = TARGETS[settings.target]
    items = read_slices(settings.data, target, cells.SPLIT[cell.dataset])
    drawn = {item.row["file"] for item in examples(items, target)}
    pooled: dict[str, dict[str, Pooled]] = defaultdict(lambda: defaultdict(Pooled))
    found = {}
    for item, chances in zip(items, _chances(network, items, target, settings.pixel_mm), strict=True):
        of_answer = {"all": chances.mean(0)}
        if len(chances) > 1:
            of_answer |= {name: chance for name, chance in answers(chances, len(chances)).items() if "-" not in name}
        for name, chance in of_answer.items():
            pooled[item.row[target.group]][name].add((chance >= 0.5).numpy(), item.mask, item.pixel_mm)
        if item.row["file"] in drawn:
            found[item.row["file"]] = (of_answer["all"] >= 0.5).numpy()
    ious = {case: {name: p.iou for name, p in by.items()} for case, by in pooled.items() if by["all"].true}
    return Measured(settings.steps, max(minutes for _, minutes, *_ in log), ious, log, found)


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


def _chances(network: NodeGrid, items: list[Slice], target: Target, pixel_mm: float) -> Iterator[torch.Tensor]:
    """Probabilities (heads, rows, columns) of each image at its stored pixels; the network sees its own."""
    for item in items:
        image, _ = to_network_grid(item, target, pixel_mm)
        with torch.inference_mode():
            heads = torch.stack([head.sigmoid() for head in network(image[None])])[:, 0]
        yield F.interpolate(heads, item.mask.shape, mode="bilinear")[:, 0]


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


if __name__ == "__main__":
    sys.exit(main())
