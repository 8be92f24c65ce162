#!/usr/bin/env python
"""Reproduces the table of the UNet++ paper on real data: every architecture on every data set, with spread and intervals.

python training/reproduce.py                  # train what is missing, then write table, figures and page; can be stopped and resumed
python training/reproduce.py --datasets nuclei --seeds 1
python training/reproduce.py --steps 24 --seeds 1 --results runs/short      # a short test of everything
python training/reproduce.py --no-training                    # only record finished trainings and write table, figures and page
python training/reproduce.py --configs training/configs/table-paper --results runs/paper     # the paper's sizes, on a GPU

The trainings of a data set differ only in the network: they have the same split, loss, optimiser and number of steps, and see the same
patches in the same order. Nothing is selected on the validation: what is measured are the averaged weights after the last step.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from data.slices import DataError
from fit.settings import Settings, SettingsError
from measure.pictures import PicturesError
from paper import cells
from paper.cell_runs import cases_of, is_trained, run, settings_of
from paper.cells import Cell
from paper.figures import write_figures
from paper.page import write_page
from paper.records import Results, ResultsError
from paper.speeds import measure_speeds
from paper.table import write_table
from UNetPlusPlusSegmentLib.network.unetpp import ARCHITECTURES

TRAINING = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Job:
    """A training to run: its cell of the table, its settings, and where its result is recorded."""

    results: Results
    cell: Cell
    settings: Settings


def main(arguments: list[str] | None = None) -> int:
    """Train and record what is missing, and write table, figures and page; returns 0, or 1 after printing the reason to stderr."""
    given = _parser().parse_args(arguments)
    if given.threads:  # for measurements; each training sets it for itself
        torch.set_num_threads(given.threads)
    results = Results(given.results)
    try:
        # The table has a line for everything on record and in the plan that has a config, whatever is asked for today.
        recorded = results.done()
        in_plan = [dataset for dataset in cells.DATASETS if (given.configs / f"{dataset}.yaml").is_file()]
        lines = dict.fromkeys([*cells.ARCHITECTURES, *given.architectures, *(cell.architecture for cell in recorded)])
        datasets = dict.fromkeys([*in_plan, *given.datasets, *(cell.dataset for cell in recorded)])
        of_line = {(d, a): settings_of(Cell(d, a, seed=1), given) for d in datasets for a in lines}
        for records, share in ((results, 1), *shorter(results)):
            for cell in records.done():
                settings = settings_of(cell, given, share)
                records.check_settings(cell, settings)
                records.check_cases(cell, cases_of(cell, settings))
        measure_speeds(results.folder / "speed.csv", of_line)
        for job in jobs_of(results, given):
            write_table(results, of_line), write_page(results, of_line)  # current if this training is interrupted
            print(f"{job.settings.name}: training", flush=True)
            job.results.record(job.cell, run(job.cell, job.settings))
            print(f"{job.settings.name}: IoU {job.results.done()[job.cell]['iou']}", flush=True)
        print(write_table(results, of_line))
        figures = write_figures(results, {dataset: settings for (dataset, _), settings in of_line.items()})
        print("\n".join([*figures, write_page(results, of_line)]))
    except (ResultsError, SettingsError, DataError, PicturesError) as error:
        print(f"reproduce.py: {error}", file=sys.stderr)
        return 1
    return 0


def shorter(results: Results) -> list[tuple[Results, float]]:
    """The records of the shorter trainings, and their share of the steps."""
    return [(results.half, 0.5), (results.half.half, 0.25)]


def jobs_of(results: Results, given: argparse.Namespace) -> list[Job]:
    """The trainings that were asked for and are not on record: the first seeds, the same with fewer steps, then the other seeds."""
    planned = cells.planned(given.datasets, given.architectures, given.seeds)
    doubled = [cell for cell in planned if cell.seed == 1 and cell.loss == cells.TABLE_LOSS]
    jobs = [
        *(Job(results, cell, settings_of(cell, given)) for cell in planned if cell.seed == 1),
        *(
            Job(records, cell, settings_of(cell, given, share))
            for records, share in shorter(results)
            for cell in doubled
        ),
        *(Job(results, cell, settings_of(cell, given)) for cell in planned if cell.seed > 1),
    ]
    missing = [job for job in jobs if job.cell not in job.results.done()]
    return [job for job in missing if is_trained(job.settings)] if given.no_training else missing


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--datasets",
        nargs="+",
        default=cells.DATASETS,
        metavar="NAME",
        help="data sets that have a config in --configs; default: the paper's four",
    )
    parser.add_argument(
        "--architectures", nargs="+", choices=list(ARCHITECTURES), default=cells.ARCHITECTURES, metavar="NAME",
        help=f"networks to train, of {', '.join(ARCHITECTURES)}; default: {', '.join(cells.ARCHITECTURES)}",
    )  # fmt: skip
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help=f"trainings of each network; default: {', '.join(f'{n} on {d}' for d, n in cells.DEFAULT_SEEDS.items())}",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="steps of each training; default: those of the data set's config"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data"),
        help="folder with a slice folder for each data set (%(default)s)",
    )
    parser.add_argument(
        "--configs",
        type=Path,
        default=TRAINING / "configs" / "table",
        help="folder with a <dataset>.yaml for each data set",
    )
    parser.add_argument(
        "--results", type=Path, default=TRAINING / "results", help="folder for records, table and figures"
    )
    parser.add_argument("--runs", default="runs/reproduce", help="folder for checkpoints (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0: all cores")
    parser.add_argument(
        "--no-training",
        action="store_true",
        help="do not train: record the finished trainings in --runs, and write table, figures and page",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
