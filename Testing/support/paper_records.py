"""Records of the paper's table with IoUs that a test chooses."""

from __future__ import annotations

import numpy as np

from fit.settings import Settings
from paper.cells import Cell
from paper.counts import THRESHOLDS, Counts
from paper.records import Measured, Results

LEVELS = ("L1", "L2", "L3", "L4")
SIDE = 100  # of a case's square image, the upper half of which is the organ


def counted(of_case: dict[str, float]) -> Counts:
    """Counts of cases in which a network finds only a share of the organ: that share is the IoU."""
    counts = Counts(of_case, labels=1)
    truth = np.zeros((1, SIDE, SIDE), bool)
    truth[:, : SIDE // 2] = True
    for case, iou in of_case.items():
        found = np.zeros_like(truth)
        found[0].flat[: round(iou * SIDE**2 / 2)] = True
        counts.add(case, truth, [True], dict.fromkeys([*THRESHOLDS, *LEVELS], found))
    return counts


def settings_of(cell: Cell, **others: object) -> Settings:
    """The default settings, with the data set, network, loss and seed of a cell."""
    of_cell = {"target": cell.dataset, "architecture": cell.architecture, "loss": cell.loss, "seed": cell.seed}
    return Settings(name=cell.name, data="data", **{**of_cell, **others})


def record(
    results: Results,
    cell: Cell,
    steps: int = 10,
    validation: float = 0.5,
    processor: str = "a processor",
    **ious: float,
) -> None:
    """Record a cell with these IoUs; the first half of its steps took two minutes, the second half one."""
    log = [(steps // 2, 2.0, "val_iou", validation / 2), (steps, 3.0, "val_iou", validation)]
    example = {"a.png": np.eye(8, dtype=bool)}
    settings = settings_of(cell, steps=steps, steps_per_epoch=steps)
    results.record(cell, Measured(settings, 1.0, counted(ious), log, example, "0123456789ab", processor))
