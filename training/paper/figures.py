"""Draws the figures of the table: learning curves, and IoU against time of the pruned networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fit.settings import Settings
from paper.cells import ARCHITECTURES
from paper.files import read_rows
from paper.images import draw_edge, draw_examples
from paper.records import Results
from paper.summary import ious
from paper.wording import NAMES

SHOWN = 0.15  # range of IoU shown below the worst network's end; the steep start, much the same for all networks, is left out


def write_figures(results: Results, of_dataset: dict[str, Settings]) -> list[str]:
    """Draw what is on record, and return the paths of the files.

    Raises:
        DataError: The images of a data set cannot be read.
        PicturesError: Pictures that must stay private could be committed.
    """
    there = {dataset: settings for dataset, settings in of_dataset.items() if _lines(results, dataset)}
    if not there:
        return []
    drawn = [_draw_learning(results, list(there)), _draw_pruning(results, list(there)), draw_edge(results, there)]
    drawn += [draw_examples(results, dataset, settings) for dataset, settings in there.items()]
    return [path for path in drawn if path]


def _lines(results: Results, dataset: str) -> list[str]:
    return [architecture for architecture in ARCHITECTURES if results.of(dataset, architecture)]


def _draw_learning(results: Results, datasets: Sequence[str]) -> str:
    figure, all_axes = _row(datasets)
    for axes, dataset in zip(all_axes, datasets, strict=True):
        best, worst = 0.0, 1.0
        for architecture in _lines(results, dataset):
            for nth, cell in enumerate(results.of(dataset, architecture)):
                steps, values = zip(*((s, v) for s, _, what, v in results.log(cell) if what == "val_iou"), strict=True)
                label = NAMES[architecture] if nth == 0 else None
                axes.plot(steps, values, color=_color(architecture), linewidth=1.2, marker=".", label=label)
                best, worst = max(best, *values), min(worst, values[-1])
        ends = max(0, worst - SHOWN), best + 0.02
        axes.set(title=dataset, xlabel="steps", ylabel="IoU of the validation", ylim=ends)
    _legend_below(figure, all_axes)
    return _save(figure, results, "learning.png")


def _draw_pruning(results: Results, datasets: Sequence[str]) -> str:
    seconds = {
        (r["dataset"], r["network"]): float(r["seconds_per_image"]) for r in read_rows(results.folder / "speed.csv")
    }
    figure, all_axes = _row(datasets)
    for axes, dataset in zip(all_axes, datasets, strict=True):
        levels = [level for level in ("L1", "L2", "L3", "L4") if results.of(dataset, "unetpp_ds")]
        times = [1000 * seconds[dataset, level] for level in levels]
        heights = [
            _mark(axes, at, ious(results, (dataset, "unetpp_ds"), level), "o", "unetpp_ds")
            for at, level in zip(times, levels, strict=True)
        ]
        if levels:
            axes.plot(times, heights, color=_color("unetpp_ds"), label=f"{NAMES['unetpp_ds']}, pruned to L1…L4")
        for at, height, level in zip(times, heights, levels, strict=True):
            axes.annotate(level, (at, height), textcoords="offset points", xytext=(4, -12), fontsize=9)
        for architecture in _lines(results, dataset):
            at, each = 1000 * seconds[dataset, architecture], ious(results, (dataset, architecture))
            _mark(axes, at, each, "x", architecture, NAMES[architecture])
        axes.set(title=dataset, xlabel="ms an image, one thread", ylabel="IoU of a case, %")
        axes.margins(0.12)
        axes.set_xlim(left=0)
    _legend_below(figure, all_axes)
    return _save(figure, results, "pruning.png")


def _mark(
    axes: Axes, at: float, of_seeds: Sequence[float], mark: str, architecture: str, label: str | None = None
) -> float:
    """Draw the mean over the seeds with their standard deviation, and return the mean in per cent."""
    spread = 100 * np.std(of_seeds, ddof=1) if len(of_seeds) > 1 else None
    mean = 100 * float(np.mean(of_seeds))
    axes.errorbar(at, mean, spread, fmt=mark, color=_color(architecture), label=label)
    return mean


def _color(architecture: str) -> str:
    return f"C{ARCHITECTURES.index(architecture)}"


def _row(datasets: Sequence[str]) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(4 * len(datasets), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, len(datasets), squeeze=False)[0]


def _legend_below(figure: Figure, all_axes: Sequence[Axes]) -> None:
    """One legend for all parts of a figure, below them, where it covers no curve."""
    named = {name: line for axes in all_axes for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), fontsize=8, loc="outside lower center", ncols=len(named))


def _save(figure: Figure, results: Results, name: str) -> str:
    path = results.folder / name
    figure.savefig(path, dpi=110)
    return str(path)
