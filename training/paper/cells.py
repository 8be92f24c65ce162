"""The cells of the paper's table: which trainings it needs, and what is on record of those that are done."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

DEFAULT_SEEDS = {"nuclei": 3, "polyp": 1, "liver": 1, "nodule": 3}
SPLIT = {
    "nuclei": "test",
    "polyp": "test",
    "liver": "val",
    "nodule": "val",
}  # what a cell is measured on; another's is `val`
EXAMPLES = 3  # cases of each data set that are drawn
DATASETS = tuple(SPLIT)
ARCHITECTURES = ("unet", "wide_unet", "unetpp", "unetpp_ds")
COMPARED_LOSS = ("nuclei", "unetpp_ds", "hybrid")  # where the paper's loss stands beside its code's
COLUMNS = ("dataset", "architecture", "loss", "seed", "steps", "minutes", "cases", "iou")


class ResultsError(ValueError):
    """Recorded results that cannot be gone on from: which, why, and the way out."""


@dataclass(frozen=True)
class Cell:
    """One training of the table."""

    dataset: str
    architecture: str
    seed: int
    loss: str = "bce_dice"  # what the authors' code computes

    @property
    def name(self) -> str:
        """Of its folders, of the run and of the record."""
        return f"{self.dataset}-{self.architecture}-{self.loss}-{self.seed}"


def split_of(dataset: str) -> str:
    """The split that a cell is measured on."""
    return SPLIT.get(dataset, "val")


def planned(datasets: Sequence[str], architectures: Sequence[str], seeds: int | None = None) -> list[Cell]:
    """All cells of a table, in the order in which they are worth having: the first seed of all, then the next."""
    most = {dataset: seeds or DEFAULT_SEEDS.get(dataset, 1) for dataset in datasets}
    cells = []
    for seed in range(1, max(most.values()) + 1):
        wanted = [dataset for dataset in datasets if seed <= most[dataset]]
        cells += [Cell(dataset, architecture, seed) for dataset in wanted for architecture in architectures]
        dataset, architecture, loss = COMPARED_LOSS
        if dataset in wanted and architecture in architectures:
            cells.append(Cell(dataset, architecture, seed, loss))
    return cells


@dataclass(frozen=True)
class Measured:
    """The record of a finished cell.

    Attributes:
        ious: From a case to its IoU by answer: `all` (what the table takes), and L1…L4 under deep supervision.
        log: Rows (step, minutes, what, value) of the training.
        examples: bool (rows, columns) of what was found, by image.
    """

    steps: int
    minutes: float
    ious: dict[str, dict[str, float]]
    log: list[tuple[int, float, str, float]]
    examples: dict[str, np.ndarray]


class Results:
    """The folder of records: `cells.csv` has a line for every finished cell, `cells/<name>/` what lies behind it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def done(self) -> dict[Cell, dict[str, str]]:
        """The finished cells and their lines."""
        path = self.folder / "cells.csv"
        rows = read_rows(path) if path.exists() else []
        try:
            return {Cell(r["dataset"], r["architecture"], int(r["seed"]), r["loss"]): r for r in rows}
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(
                f"{path} is damaged ({error!r}): restore it from git, or give another --results."
            ) from error

    def check_steps(self, steps: dict[str, int]) -> None:
        """Refuse to put trainings of unequal length into one table.

        Raises:
            ResultsError: A cell on record made other steps than `steps` of its data set.
        """
        for cell, row in self.done().items():
            if cell.dataset in steps and int(row["steps"]) != steps[cell.dataset]:
                raise ResultsError(
                    f"{self.folder} holds {cell.name} with {row['steps']} steps, these trainings have {steps[cell.dataset]}:"
                    " give the same --steps, or another --results."
                )

    def record(self, cell: Cell, measured: Measured) -> None:
        """Write a finished cell: first what lies behind it, then its line, so that a line is never without."""
        folder = self.folder / "cells" / cell.name
        folder.mkdir(parents=True, exist_ok=True)
        answers = list(next(iter(measured.ious.values())))
        cases = [[case, *(f"{by[a]:.4f}" for a in answers)] for case, by in measured.ious.items()]
        write_rows(folder / "cases.csv", ["case", *answers], cases)
        log = [[step, f"{minutes:.2f}", what, f"{value:.4f}"] for step, minutes, what, value in measured.log]
        write_rows(folder / "log.csv", ["step", "minutes", "what", "value"], log)
        for name, mask in measured.examples.items():
            Image.fromarray(mask).save((folder / name).with_suffix(".png"))
        rows: dict[Cell, list[object]] = {c: [r[column] for column in COLUMNS] for c, r in self.done().items()}
        mean = np.mean([by["all"] for by in measured.ious.values()])
        rows[cell] = [
            cell.dataset, cell.architecture, cell.loss, cell.seed, measured.steps, f"{measured.minutes:.1f}", len(measured.ious),
            f"{mean:.4f}",
        ]  # fmt: skip
        write_rows(self.folder / "cells.csv", COLUMNS, rows.values())

    def ious(self, cell: Cell, answer: str = "all") -> dict[str, float]:
        """The IoU of each case of a finished cell."""
        return {row["case"]: float(row[answer]) for row in read_rows(self.folder / "cells" / cell.name / "cases.csv")}

    def log(self, cell: Cell) -> list[tuple[int, float, str, float]]:
        """The training log of a finished cell."""
        rows = read_rows(self.folder / "cells" / cell.name / "log.csv")
        return [(int(r["step"]), float(r["minutes"]), r["what"], float(r["value"])) for r in rows]

    def example(self, cell: Cell, name: str) -> np.ndarray:
        """The mask that a finished cell found on one of the example images: bool (rows, columns)."""
        with Image.open((self.folder / "cells" / cell.name / name).with_suffix(".png")) as picture:
            return np.asarray(picture)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    part.replace(path)
