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
from pathlib import Path

from data.slices import DataError
from fit.settings import Settings, SettingsError
from measure.pictures import PicturesError
from paper import cells
from paper.cell_runs import run, settings_of
from paper.cells import Cell, Results, ResultsError
from paper.figures import write_figures
from paper.speeds import measure_speeds
from paper.table import write_table
from UNetPlusPlusSegmentLib.network.unetpp import ARCHITECTURES

TRAINING = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing and write the table, or draw the figures; 0 done, 1 refused with one line on stderr."""
    given = _parser().parse_args(arguments)
    results = Results(given.results)
    try:
        # The table has a line for all that was or could be run, whatever is asked for today.
        recorded = results.done()
        lines = dict.fromkeys([*cells.ARCHITECTURES, *given.architectures, *(cell.architecture for cell in recorded)])
        datasets = dict.fromkeys([*cells.DATASETS, *given.datasets, *(cell.dataset for cell in recorded)])
        planned = cells.planned(list(datasets), list(lines), given.seeds)
        everything = {cell: settings_of(cell, given) for cell in planned}
        if given.figures:
            draw(results, {cell.dataset: s for cell, s in everything.items() if cell.dataset in given.datasets})
        else:
            run_missing(results, everything, cells.planned(given.datasets, given.architectures, given.seeds))
    except (ResultsError, SettingsError, DataError, PicturesError) as error:
        print(f"reproduce.py: {error}", file=sys.stderr)
        return 1
    return 0


def draw(results: Results, of_dataset: dict[str, Settings]) -> None:
    """Draw the figures of what is on record, and print their paths."""
    if not results.done():
        raise ResultsError(f"{results.folder} has no finished cell to draw: run the command without --figures first.")
    print("\n".join(write_figures(results, of_dataset)))


def run_missing(results: Results, everything: dict[Cell, Settings], wanted: list[Cell]) -> None:
    """Run the wanted cells that are not on record, and write and print the table.

    Args:
        results: The records.
        everything: The settings of all cells that have a line in the table.
        wanted: Those that were asked for.
    """
    results.check_steps({cell.dataset: settings.steps for cell, settings in everything.items()})
    of_line = {(cell.dataset, cell.architecture): settings for cell, settings in everything.items()}
    measure_speeds(results.folder / "speed.csv", of_line)
    missing = [cell for cell in wanted if cell not in results.done()]
    for number, cell in enumerate(missing, start=1):
        write_table(results, of_line)  # before each: what is there may be all there will be
        print(f"{cell.name}: cell {number} of {len(missing)} to do, {everything[cell].steps} steps", flush=True)
        results.record(cell, run(cell, everything[cell]))
        print(f"{cell.name}: IoU {results.done()[cell]['iou']}", flush=True)
    print(write_table(results, of_line))


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
    parser.add_argument("--figures", action="store_true", help="train nothing, draw what is on record")
    return parser


if __name__ == "__main__":
    sys.exit(main())
