#!/usr/bin/env python
"""Makes the table of the UNet++ paper again on real data: every architecture on every data set, with spread and intervals.

python training/reproduce.py                  # all cells not done yet, then table, figures and page; stop and start it at will
python training/reproduce.py --datasets nuclei --seeds 1
python training/reproduce.py --steps 24 --seeds 1 --results runs/short      # a run through everything
python training/reproduce.py --no-training                    # only record what is trained, table, figures and page
python training/reproduce.py --configs training/configs/table-paper --results runs/paper     # the paper's sizes, on a GPU

All trainings of a data set are alike in all but the network: split, loss, optimiser, steps, and the patches in their order. Nothing is
chosen by looking at the validation: the averaged weights of the last step count.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from data.slices import DataError
from fit.settings import Settings, SettingsError
from measure.pictures import PicturesError
from paper import cells
from paper.cell_runs import is_trained, run, settings_of
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
    """A training, and the records that it belongs into."""

    results: Results
    cell: Cell
    settings: Settings


def main(arguments: list[str] | None = None) -> int:
    """Run and record what is missing, and write table, figures and page; 0 done, 1 refused with one line on stderr."""
    given = _parser().parse_args(arguments)
    results = Results(given.results)
    try:
        # The table has a line for all that was or could be run, whatever is asked for today.
        recorded = results.done()
        lines = dict.fromkeys([*cells.ARCHITECTURES, *given.architectures, *(cell.architecture for cell in recorded)])
        datasets = dict.fromkeys([*cells.DATASETS, *given.datasets, *(cell.dataset for cell in recorded)])
        of_line = {(d, a): settings_of(Cell(d, a, seed=1), given) for d in datasets for a in lines}
        for (dataset, _), settings in of_line.items():
            results.check_steps(dataset, settings.steps)
        measure_speeds(results.folder / "speed.csv", of_line)
        for job in jobs_of(results, given):
            write_table(results, of_line)  # before each: what is there may be all there will be
            print(f"{job.settings.name}: begun", flush=True)
            job.results.record(job.cell, run(job.cell, job.settings))
            print(f"{job.settings.name}: IoU {job.results.done()[job.cell]['iou']}", flush=True)
        print(write_table(results, of_line))
        figures = write_figures(results, {dataset: settings for (dataset, _), settings in of_line.items()})
        print("\n".join([*figures, write_page(results, of_line)]))
    except (ResultsError, SettingsError, DataError, PicturesError) as error:
        print(f"reproduce.py: {error}", file=sys.stderr)
        return 1
    return 0


def jobs_of(results: Results, given: argparse.Namespace) -> list[Job]:
    """What was asked for and is not on record: the first seed of all, the same with half of the steps, then the other seeds.

    Raises:
        ResultsError: Trainings of other lengths are on record.
    """
    planned = cells.planned(given.datasets, given.architectures, given.seeds)
    halved = [cell for cell in planned if cell.seed == 1 and cell.loss == cells.TABLE_LOSS]
    jobs = [
        *(Job(results, cell, settings_of(cell, given)) for cell in planned if cell.seed == 1),
        *(Job(results.half, cell, settings_of(cell, given, share=0.5)) for cell in halved),
        *(Job(results, cell, settings_of(cell, given)) for cell in planned if cell.seed > 1),
    ]
    for job in jobs:
        job.results.check_steps(job.cell.dataset, job.settings.steps)
    missing = [job for job in jobs if job.cell not in job.results.done()]
    return [job for job in missing if is_trained(job.settings)] if given.no_training else missing


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--datasets",
        nargs="+",
        default=cells.DATASETS,
        metavar="NAME",
        help="of configs: the paper's four, or your own",
    )
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
    parser.add_argument(
        "--no-training",
        action="store_true",
        help="train nothing: record the trainings in --runs that are complete, and write table, figures and page",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
