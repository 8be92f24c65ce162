"""The records of the table: a line for every finished cell, and the settings, counts, log and examples behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fit.settings import NEUTRAL, Settings, differences_of, load_settings
from paper.cells import TABLE_LOSS, Cell
from paper.counts import Counts
from paper.files import read_rows, write_rows

COLUMNS = (
    "dataset", "architecture", "loss", "seed", "steps", "minutes", "cases", "iou", "mean_iou", "commit", "processor",
)  # fmt: skip
SETTINGS = "settings.yaml"
IGNORED = (*NEUTRAL, "data")  # a record names the data set, wherever that lies


class ResultsError(ValueError):
    """Recorded results that cannot be continued. The message names the file or folder, the reason and what to do."""


@dataclass(frozen=True)
class Measured:
    """The record of a finished cell.

    Attributes:
        settings: Settings of the training.
        minutes: Duration of the training.
        counts: Pixel counts of its cases.
        log: Rows (step, minutes, what, value) of the training.
        examples: Masks that were found, bool (rows, columns), by image.
        commit: Commit of the code that trained it; empty if unknown.
        processor: Processor that trained it; empty if unknown.
    """

    settings: Settings
    minutes: float
    counts: Counts
    log: list[tuple[int, float, str, float]]
    examples: dict[str, np.ndarray]
    commit: str = ""
    processor: str = ""


class Results:
    """The folder of records: `cells.csv` has a line for every finished cell, and `cells/<name>/` its settings, counts, log and examples.

    `half` holds the records of the trainings with half the steps, and its own `half` those with a quarter: they show what each doubling
    of the steps adds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def half(self) -> Results:
        """The records of the trainings with half as many steps as these."""
        return Results(self.folder / "half")

    def done(self) -> dict[Cell, dict[str, str]]:
        """The finished cells and their lines of cells.csv.

        Raises:
            ResultsError: cells.csv is damaged.
        """
        path = self.folder / "cells.csv"
        rows = read_rows(path) if path.exists() else []
        try:
            return {
                Cell(r["dataset"], r["architecture"], int(r["seed"]), r["loss"]): {name: r[name] for name in COLUMNS}
                for r in rows
            }
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(
                f"{path} is damaged ({error!r}): restore it from git, or give another --results."
            ) from error

    def of(self, dataset: str, architecture: str, loss: str = TABLE_LOSS) -> list[Cell]:
        """The finished cells of one line of the table, in the order of their seeds."""
        cells = [c for c in self.done() if (c.dataset, c.architecture, c.loss) == (dataset, architecture, loss)]
        return sorted(cells, key=lambda cell: cell.seed)

    def check_settings(self, cell: Cell, settings: Settings) -> None:
        """Check that a finished cell was trained with these settings.

        Raises:
            ResultsError: It was trained with other settings, or there is no record of them.
        """
        recorded = self.folder / "cells" / cell.name / SETTINGS
        if not recorded.exists():
            raise ResultsError(
                f"{recorded} is missing: restore it from git, or remove the line of {cell.name} from cells.csv to train it again."
            )
        if differing := differences_of(load_settings(recorded), settings, IGNORED):
            raise ResultsError(
                f"{self.folder} holds {cell.name}, trained with another {', '.join(differing)}: give the settings it was trained with"
                " (--steps, --configs), or another --results, or remove its line from cells.csv to train it again."
            )

    def check_cases(self, cell: Cell, cases: Iterable[str]) -> None:
        """Check that a finished cell was measured on these cases: the table compares networks case by case.

        Raises:
            ResultsError: It was measured on others.
        """
        if differing := {*self.counts(cell).cases} ^ {*cases}:
            raise ResultsError(
                f"{self.folder} holds {cell.name}, measured on other cases ({len(differing)} differ, such as {min(differing)}): give the"
                " data it was measured on (--data), or another --results, or remove its line from cells.csv to train it again."
            )

    def record(self, cell: Cell, measured: Measured) -> None:
        """Write a finished cell: its folder first, then its line, so that every line has its folder."""
        folder = self.folder / "cells" / cell.name
        folder.mkdir(parents=True, exist_ok=True)
        replace(measured.settings, data=cell.dataset, runs="runs", threads=0).save(folder / SETTINGS)
        measured.counts.write(folder / "cases.csv")
        log = [[step, f"{minutes:.2f}", what, f"{value:.4f}"] for step, minutes, what, value in measured.log]
        write_rows(folder / "log.csv", ["step", "minutes", "what", "value"], log)
        for name, mask in measured.examples.items():
            Image.fromarray(mask).save((folder / name).with_suffix(".png"))
        ious = list(measured.counts.ious().values())
        rows: dict[Cell, Sequence[object]] = {other: list(row.values()) for other, row in self.done().items()}
        rows[cell] = [
            cell.dataset, cell.architecture, cell.loss, cell.seed, measured.settings.steps, f"{measured.minutes:.1f}", len(ious),
            f"{np.mean(ious):.4f}", f"{measured.counts.mean_iou():.4f}", measured.commit, measured.processor,
        ]  # fmt: skip
        write_rows(self.folder / "cells.csv", COLUMNS, rows.values())

    def counts(self, cell: Cell) -> Counts:
        """The pixel counts of a finished cell."""
        return Counts.read(self.folder / "cells" / cell.name / "cases.csv")

    def log(self, cell: Cell) -> list[tuple[int, float, str, float]]:
        """The training log of a finished cell."""
        rows = read_rows(self.folder / "cells" / cell.name / "log.csv")
        return [(int(r["step"]), float(r["minutes"]), r["what"], float(r["value"])) for r in rows]

    def example(self, cell: Cell, name: str) -> np.ndarray:
        """The mask that a finished cell found on one of the example images: bool (rows, columns)."""
        with Image.open((self.folder / "cells" / cell.name / name).with_suffix(".png")) as picture:
            return np.asarray(picture)
