"""The cells of the paper's table: the trainings that it needs, the most useful ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_SEEDS = {"nuclei": 3, "polyp": 2, "liver": 2, "nodule": 3}
SPLIT = {"nuclei": "test", "polyp": "test", "liver": "val", "nodule": "val"}  # measured on; other data sets: on `val`
DATASETS = tuple(SPLIT)
ARCHITECTURES = ("unet", "wide_unet", "unetpp", "unetpp_ds")
TABLE_LOSS = "bce_dice"  # the loss of the authors' code
# Where that loss is compared with the paper's eq. 3, and with eq. 3 plus the background's cross-entropy, which it lacks.
COMPARED_ON = ("nuclei", "unetpp_ds")
COMPARED_LOSSES = ("hybrid", "hybrid_background")


@dataclass(frozen=True)
class Cell:
    """One training of the table."""

    dataset: str
    architecture: str
    seed: int
    loss: str = TABLE_LOSS

    @property
    def name(self) -> str:
        """The name of its run folder and of the folder of its record."""
        return f"{self.dataset}-{self.architecture}-{self.loss}-{self.seed}"


def split_of(dataset: str) -> str:
    """The split that a cell is measured on."""
    return SPLIT.get(dataset, "val")


def planned(datasets: Sequence[str], architectures: Sequence[str], seeds: int | None = None) -> list[Cell]:
    """All cells of a table, in the order of the seeds; for each seed, first the table's loss, then the compared losses."""
    most = {dataset: seeds or DEFAULT_SEEDS.get(dataset, 1) for dataset in datasets}
    cells = []
    for seed in range(1, max(most.values()) + 1):
        wanted = [dataset for dataset in datasets if seed <= most[dataset]]
        cells += [Cell(dataset, architecture, seed) for dataset in wanted for architecture in architectures]
        dataset, architecture = COMPARED_ON
        if dataset in wanted and architecture in architectures:
            cells += [Cell(dataset, architecture, seed, loss) for loss in COMPARED_LOSSES]
    return cells
