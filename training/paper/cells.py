"""The cells of the paper's table: which trainings it needs, in the order in which they are worth having."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_SEEDS = {"nuclei": 3, "polyp": 2, "liver": 2, "nodule": 3}
SPLIT = {
    "nuclei": "test",
    "polyp": "test",
    "liver": "val",
    "nodule": "val",
}  # what a cell is measured on; another's is `val`
DATASETS = tuple(SPLIT)
ARCHITECTURES = ("unet", "wide_unet", "unetpp", "unetpp_ds")
TABLE_LOSS = "bce_dice"  # what the authors' code computes
# Where the paper's eq. 3 stands beside the code's loss, and beside itself with the background's cross-entropy, which it lacks.
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
        """Of its folders, of the run and of the record."""
        return f"{self.dataset}-{self.architecture}-{self.loss}-{self.seed}"


def split_of(dataset: str) -> str:
    """The split that a cell is measured on."""
    return SPLIT.get(dataset, "val")


def planned(datasets: Sequence[str], architectures: Sequence[str], seeds: int | None = None) -> list[Cell]:
    """All cells of a table: the first seed of all, then the next; a seed's compared losses after its table."""
    most = {dataset: seeds or DEFAULT_SEEDS.get(dataset, 1) for dataset in datasets}
    cells = []
    for seed in range(1, max(most.values()) + 1):
        wanted = [dataset for dataset in datasets if seed <= most[dataset]]
        cells += [Cell(dataset, architecture, seed) for dataset in wanted for architecture in architectures]
        dataset, architecture = COMPARED_ON
        if dataset in wanted and architecture in architectures:
            cells += [Cell(dataset, architecture, seed, loss) for loss in COMPARED_LOSSES]
    return cells
