"""The figures of the table: learning curves, accuracy against time of the pruned networks, and what each network found."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data.slices import Slice, read_slices
from data.targets import Target
from fit.settings import Settings
from measure.pictures import FOUND, TRUTH, Panel, private_folder, save_atlas
from paper.cells import ARCHITECTURES, EXAMPLES, Cell, Results, read_rows, split_of
from paper.table import NAMES, done_cells

# Whose images may be published, and how they want to be named; the others' pictures go to an ignored folder.
CREDITS = {"nuclei": "Data Science Bowl 2018, BBBC038, CC0", "nodule": "LIDC-IDRI, CC BY 3.0"}


def write_figures(results: Results, of_dataset: dict[str, Settings]) -> list[str]:
    """Draw what is on record; returns the files' paths.

    Raises:
        DataError: The images are not there.
        PicturesError: Pictures that must stay private would not.
    """
    drawn = [_draw_learning(results, list(of_dataset)), _draw_pruning(results, list(of_dataset))]
    drawn += [_draw_examples(results, dataset, settings) for dataset, settings in of_dataset.items()]
    return [path for path in drawn if path]


def examples(items: list[Slice], target: Target) -> list[Slice]:
    """The images that are drawn: of a few cases at even distances, the one that shows most of the organ."""
    largest: dict[str, Slice] = {}
    for item in items:
        case = item.row[target.slices.group]
        if item.mask.any() and (case not in largest or item.mask.sum() > largest[case].mask.sum()):
            largest[case] = item
    chosen = np.linspace(0, len(largest) - 1, min(EXAMPLES, len(largest)) + 2).round()[1:-1]
    return [list(largest.values())[int(at)] for at in dict.fromkeys(chosen)]


def _draw_learning(results: Results, datasets: list[str]) -> str:
    figure = Figure(figsize=(3.2 * len(datasets), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        for number, architecture in enumerate(ARCHITECTURES):
            for nth, cell in enumerate(done_cells(results, dataset, architecture)):
                points = [(step, value) for step, _, what, value in results.log(cell) if what == "val_iou"]
                label = NAMES[architecture] if nth == 0 else None
                axes.plot(*zip(*points, strict=True), color=f"C{number}", linewidth=1, marker=".", label=label)
        axes.set(title=dataset, xlabel="steps", ylabel="IoU of the validation")
        if axes.lines:
            axes.legend(fontsize=6)
    path = results.folder / "learning.png"
    figure.savefig(path, dpi=110)
    return str(path)


def _draw_pruning(results: Results, datasets: list[str]) -> str:
    seconds = {
        (r["dataset"], r["network"]): float(r["seconds_per_image"]) for r in read_rows(results.folder / "speed.csv")
    }
    figure = Figure(figsize=(3.2 * len(datasets), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        done = done_cells(results, dataset, "unetpp_ds")
        by_level = defaultdict(list)
        for level in ("L1", "L2", "L3", "L4") if done else ():
            by_level[level] = [100 * np.mean(list(results.ious(cell, level).values())) for cell in done]
        for level, ious in by_level.items():
            at = 1000 * seconds[dataset, level]
            axes.errorbar(at, np.mean(ious), np.std(ious, ddof=1) if len(ious) > 1 else None, fmt="o", color="C0")
            axes.annotate(level, (at, np.mean(ious)), textcoords="offset points", xytext=(5, -10), fontsize=8)
        axes.set(title=dataset, xlabel="ms an image, one thread", ylabel="IoU, %")
        if not done:
            axes.text(0.5, 0.5, "not yet run", ha="center", transform=axes.transAxes)
    path = results.folder / "pruning.png"
    figure.savefig(path, dpi=110)
    return str(path)


def _draw_examples(results: Results, dataset: str, settings: Settings) -> str:
    first = {a: cells[0] for a in ARCHITECTURES if (cells := done_cells(results, dataset, a))}
    if not first:
        return ""
    folder = results.folder if dataset in CREDITS else private_folder(results.folder / "private")
    target = settings.goal
    panels = []
    for item in examples(read_slices(settings.data, target, split_of(dataset)), target):
        panels += [Panel("image", item.image, {}), Panel("truth", item.image, {TRUTH: item.shown})]
        panels += [_answer(results, cell, item) for cell in first.values()]
    path = folder / f"examples-{dataset}.png"
    credit = CREDITS.get(dataset, "not to be published")
    save_atlas(path, panels, f"{dataset}: truth green, found red. {credit}", columns=2 + len(first), side=1.6)
    return str(path)


def _answer(results: Results, cell: Cell, item: Slice) -> Panel:
    found = results.example(cell, item.row["file"])
    iou = (found & item.shown).sum() / max(1, (found | item.shown).sum())
    return Panel(f"{NAMES[cell.architecture]}\nIoU {iou:.2f}", item.image, {TRUTH: item.shown, FOUND: found})
