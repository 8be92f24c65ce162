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


def differences(
    results: Results, datasets: Iterable[str], one: str, other: str, answer: str = "all"
) -> list[np.ndarray]:
    """The IoU of one architecture, by one of its answers, minus that of another on each data set, (seeds, cases), for common seeds."""
    return [difference(by_seed(results, (d, one), answer), by_seed(results, (d, other))) for d in datasets]


def mean_difference(
    results: Results, datasets: Iterable[str], one: str, other: str, figure: Callable[[Counts], float]
) -> float:
    """The mean over data sets and common seeds of a figure computed from the counts: of one architecture minus that of another."""
    means = []
    for dataset in datasets:
        of_one, of_other = (
            {cell.seed: figure(results.counts(cell)) for cell in results.of(dataset, each)} for each in (one, other)
        )
        means.append(np.mean([of_one[seed] - of_other[seed] for seed in of_one.keys() & of_other.keys()]))
    return float(np.mean(means))


def after_half(results: Results, dataset: str, one: str, other: str) -> tuple[float, float] | None:
    """The mean gain of one architecture over another after half of the steps, and after all, for the seeds that have both."""
    trainings = [by_seed(each, (dataset, network)) for each in (results.half, results) for network in (one, other)]
    seeds = set.intersection(*map(set, trainings))
    if not seeds:
        return None
    half, half_other, whole, other_whole = ({seed: each[seed] for seed in seeds} for each in trainings)
    return float(difference(half, half_other).mean()), float(difference(whole, other_whole).mean())


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
    results: Results, dataset: str, figure: Callable[[Line], Sequence[float]]
) -> tuple[float, str] | None:
    """The largest difference between seeds of one network on a data set, and that network; None if no network has two seeds.

    Args:
        results: The records.
        dataset: The data set.
        figure: The values of a line of the table, one for each seed.
    """
    of_networks = {a: figure((dataset, a)) for a in ARCHITECTURES if len(_seeds(results, dataset, a)) > 1}
    return max(((max(each) - min(each), network) for network, each in of_networks.items()), default=None)


def _end(results: Results, cells: Sequence[Cell]) -> End:
    done = results.done()
    of_cases = [float(done[cell]["iou"]) for cell in cells]
    return End(int(done[cells[0]]["steps"]), float(np.mean(validations(results, cells))), float(np.mean(of_cases)))


def _seeds(results: Results, dataset: str, architecture: str) -> set[int]:
    return {cell.seed for cell in results.of(dataset, architecture)}
