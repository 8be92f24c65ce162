"""Figures for the lines of the table, computed from the records: means over the seeds, and gains; and the paper's own figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from paper.cells import ARCHITECTURES, Cell
from paper.counts import Counts
from paper.intervals import difference
from paper.records import Results

# IoU of the paper's table in per cent, as recalled; the mean gains of UNet++ with deep supervision are the abstract's 3.9 and 3.4 points.
PAPER = {
    "nuclei": {"unet": 90.77, "wide_unet": 90.92, "unetpp": 92.63, "unetpp_ds": 92.52},
    "polyp": {"unet": 30.08, "wide_unet": 30.14, "unetpp": 33.45, "unetpp_ds": 32.12},
    "liver": {"unet": 76.62, "wide_unet": 76.58, "unetpp": 79.70, "unetpp_ds": 82.90},
    "nodule": {"unet": 71.47, "wide_unet": 73.38, "unetpp": 76.44, "unetpp_ds": 77.21},
}
BASELINES = ("unet", "wide_unet")
ENOUGH = 0.005  # validation IoU; a training has converged if twice the steps add less than this
Line = tuple[str, str] | tuple[str, str, str]  # data set, architecture and, if it is not the table's, the loss


class End(NamedTuple):
    """The means over some trainings at their last step."""

    steps: int
    validation: float  # IoU of the last validation
    iou: float  # IoU of a case


def by_seed(results: Results, line: Line, answer: str = "all") -> dict[int, dict[str, float]]:
    """The IoU of each case, by seed."""
    return {cell.seed: results.counts(cell).ious(answer) for cell in results.of(*line)}


def ious(results: Results, line: Line, answer: str = "all") -> list[float]:
    """The mean IoU over the cases, one value for each seed."""
    return [float(np.mean(list(of_case.values()))) for of_case in by_seed(results, line, answer).values()]


def mean_of(results: Results, line: Line, figure: Callable[[Counts], float]) -> float | None:
    """The mean over the seeds of a figure computed from the counts; None if there are no seeds."""
    figures = [figure(results.counts(cell)) for cell in results.of(*line)]
    return float(np.mean(figures)) if figures else None


def differences(results: Results, datasets: Iterable[str], one: str, other: str) -> list[np.ndarray]:
    """The IoU of one architecture minus that of another on each data set, (seeds, cases), for the seeds that both have."""
    return [difference(by_seed(results, (d, one)), by_seed(results, (d, other))) for d in datasets]


def deepest_over_mean(results: Results, dataset: str) -> np.ndarray:
    """The IoU of the deepest head of UNet++ with deep supervision minus that of the mean of its heads, (seeds, cases)."""
    line = (dataset, "unetpp_ds")
    return difference(by_seed(results, line, "L4"), by_seed(results, line))


def paper_gain(datasets: Sequence[str], other: str) -> float | None:
    """The paper's mean gain of UNet++ with deep supervision over another network; None without data sets, or if it lacks one of them."""
    if not datasets or not PAPER.keys() >= {*datasets}:
        return None
    return float(np.mean([PAPER[d]["unetpp_ds"] - PAPER[d][other] for d in datasets])) / 100


def compared(results: Results, datasets: Iterable[str], one: str, other: str) -> list[str]:
    """The data sets on which both architectures have a seed in common."""
    return [d for d in dict.fromkeys(datasets) if _seeds(results, d, one) & _seeds(results, d, other)]


def doubled(results: Results, line: Line) -> tuple[End, End] | None:
    """The ends of the trainings with half the steps and with all steps, for the seeds that have both; None if there are none."""
    cells = [cell for cell in results.of(*line) if cell in results.half.done()]
    return (_end(results.half, cells), _end(results, cells)) if cells else None


def validations(results: Results, cells: Iterable[Cell]) -> list[float]:
    """The IoU of the last validation, one value for each cell."""
    return [[value for _, _, what, value in results.log(cell) if what == "val_iou"][-1] for cell in cells]


def between_seeds(
    results: Results, datasets: Iterable[str], figure: Callable[[Line], Sequence[float]]
) -> tuple[float, Line] | None:
    """The largest difference between seeds of one network, and its line of the table; None if no network has two seeds.

    Args:
        results: The records.
        datasets: The data sets to look at.
        figure: The values of a line of the table, one for each seed.
    """
    of_lines = {(d, a): figure((d, a)) for d in datasets for a in ARCHITECTURES if len(_seeds(results, d, a)) > 1}
    ranges: dict[Line, float] = {line: max(each) - min(each) for line, each in of_lines.items()}
    most = max(ranges, key=lambda line: ranges[line], default=None)
    return None if most is None else (ranges[most], most)


def _end(results: Results, cells: Sequence[Cell]) -> End:
    done = results.done()
    of_cases = [float(done[cell]["iou"]) for cell in cells]
    return End(int(done[cells[0]]["steps"]), float(np.mean(validations(results, cells))), float(np.mean(of_cases)))


def _seeds(results: Results, dataset: str, architecture: str) -> set[int]:
    return {cell.seed for cell in results.of(dataset, architecture)}
