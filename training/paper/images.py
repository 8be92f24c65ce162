"""Draws what each network found: on a few images of each data set, and along the edge of one nucleus and one nodule."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from data.slices import Slice, read_slices
from data.targets import Target
from fit.settings import Settings
from measure.pictures import FOUND, TRUTH, Panel, private_folder, save_atlas
from paper.cells import ARCHITECTURES, Cell, split_of
from paper.records import Results
from paper.wording import NAMES

EXAMPLES = 3  # cases of each data set that are drawn
# Data sets whose images may be published, with their credit lines; pictures of the others go to a folder that git ignores.
CREDITS = {"nuclei": "Data Science Bowl 2018, BBBC038, CC0", "nodule": "LIDC-IDRI, CC BY 3.0"}
MARGIN = 6  # pixels shown round an object


def examples(items: list[Slice], target: Target) -> list[Slice]:
    """The images to draw: from a few evenly spread cases, the image that shows most of the organ."""
    largest: dict[str, Slice] = {}
    for item in items:
        case = item.row[target.slices.group]
        if item.mask.any() and (case not in largest or item.mask.sum() > largest[case].mask.sum()):
            largest[case] = item
    chosen = np.linspace(0, len(largest) - 1, min(EXAMPLES, len(largest)) + 2).round()[1:-1]
    return [list(largest.values())[int(at)] for at in dict.fromkeys(chosen)]


def draw_examples(results: Results, dataset: str, settings: Settings) -> str:
    """Draw image, truth and what each network found, and return the path of the file."""
    first = _first(results, dataset)
    folder = results.folder if dataset in CREDITS else private_folder(results.folder / "private")
    target = settings.goal
    panels = []
    for item in examples(read_slices(settings.data, target, split_of(dataset)), target):
        whole = (slice(None), slice(None))
        panels += [Panel("image", item.image, {}), Panel("truth", item.image, {TRUTH: item.shown})]
        panels += [_answer(item, cell, results.example(cell, item.row["file"]), whole) for cell in first]
    path = folder / f"examples-{dataset}.png"
    credit = CREDITS.get(dataset, "not to be published")
    save_atlas(path, panels, f"{dataset}: truth green, found red. {credit}", columns=2 + len(first), side=1.9)
    return str(path)


def draw_edge(results: Results, of_dataset: dict[str, Settings]) -> str:
    """Draw, for each data set whose images may be published, the object of the example images on which the networks differ most.

    Returns:
        The path of the file; empty if none of these data sets has two networks to compare.
    """
    panels: list[Panel] = []
    compared = [dataset for dataset in of_dataset if dataset in CREDITS and len(_first(results, dataset)) > 1]
    for dataset in compared:
        first, target = _first(results, dataset), of_dataset[dataset].goal
        items = examples(read_slices(of_dataset[dataset].data, target, split_of(dataset)), target)
        found = [[results.example(cell, item.row["file"]) for cell in first] for item in items]
        windows = [(n, w, d) for n, item in enumerate(items) for w, d in differences(item.shown, np.array(found[n]))]
        number, window, _ = max(windows, key=lambda each: each[2])
        item = items[number]
        row = [Panel(f"{dataset}, image", item.image[window], {})]
        row += [_answer(item, cell, mask, window) for cell, mask in zip(first, found[number], strict=True)]
        panels += row + [Panel("", np.full((1, 1), 255, np.uint8), {})] * (1 + len(ARCHITECTURES) - len(row))
    if not panels:
        return ""
    path = results.folder / "edge.png"
    title = "Truth green, found red; IoU within the window. " + "; ".join(CREDITS[dataset] for dataset in compared)
    save_atlas(path, panels, title, columns=1 + len(ARCHITECTURES), side=2.2)
    return str(path)


def differences(truth: np.ndarray, found: np.ndarray) -> list[tuple[tuple[slice, slice], int]]:
    """A window about each object of the truth, and the number of pixels in it on which the networks are not of one mind.

    Args:
        truth: bool (rows, columns).
        found: bool (networks, rows, columns).
    """
    differ = np.ptp(found.astype(np.uint8), axis=0)
    boxes = ndimage.find_objects(ndimage.label(truth)[0])
    windows = [tuple(slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in box) for box in boxes]
    return [((rows, columns), int(differ[rows, columns].sum())) for rows, columns in windows]


def _first(results: Results, dataset: str) -> list[Cell]:
    """The cell with the first seed of each network on record."""
    return [cells[0] for architecture in ARCHITECTURES if (cells := results.of(dataset, architecture))]


def _answer(item: Slice, cell: Cell, found: np.ndarray, window: tuple[slice, slice]) -> Panel:
    truth, mask = item.shown[window], found[window]
    iou = (mask & truth).sum() / max(1, (mask | truth).sum())
    return Panel(f"{NAMES[cell.architecture]}\nIoU {iou:.2f}", item.image[window], {TRUTH: truth, FOUND: mask})
