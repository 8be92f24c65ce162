"""Draws the slices of a training: every patient equally often, a fixed share with the organ, reproducibly from a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

from data.slices import Slice


class BalancedSampler(Sampler):
    """Draws `length` slices per epoch; a share `with_organ` of them shows a label.

    Of the slices with a label, every patient gives equally many: otherwise one with 500 slices would count ten times as much as one
    with 50. Where there are no patients, each image is its own. Slices without a label are drawn uniformly, whoever they come from: two
    slices of one patient show fewer lookalikes than 200 of another.

    The draw depends only on seed and epoch. Each rank of a distributed training takes every `world`-th item, so their shares are
    disjoint. Yields (index, seed of the augmentation). `epoch` is a function, called when a draw begins, because a resumed training
    makes its first draw before Lightning sets the epoch.
    """

    def __init__(
        self,
        slices: list[Slice],
        length: int,
        with_organ: float,
        seed: int,
        rank: int = 0,
        world: int = 1,
        epoch: Callable[[], int] = lambda: 0,
        groups: np.ndarray | None = None,
    ) -> None:
        """Prepare the draw.

        Args:
            slices: All slices that may be drawn.
            length: Number of draws per epoch, over all ranks.
            with_organ: Share of the draws that show a label.
            seed: Seed of the draw.
            rank, world: Number of this process, and how many there are.
            epoch: Returns the current epoch.
            groups: int, one for each slice. The draws with a label come from each group equally often; None: there is one group.
        """
        has = np.array([s.mask.any() for s in slices])
        patients = np.array([s.group for s in slices])
        groups = np.zeros(len(slices), int) if groups is None else groups
        self.positive = [_by_patient(patients, has & (groups == group)) for group in np.unique(groups[has])]
        self.negative = [np.flatnonzero(~has)] if not has.all() else []
        self.length, self.with_organ, self.seed, self.rank, self.world = length, with_organ, seed, rank, world
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.world

    def draws(self) -> list[tuple[int, int]]:
        """The draw of the current epoch, for all ranks: (index, seed of the augmentation)."""
        generator = np.random.default_rng([self.seed, self.epoch()])
        share = self.with_organ if len(self.negative) else 1.0
        share = share if len(self.positive) else 0.0
        wanted = round(self.length * share)
        parts = np.diff(np.linspace(0, wanted, len(self.positive) + 1).round().astype(int))
        chosen = np.concatenate([
            *(_take(kind, part, generator) for kind, part in zip(self.positive, parts, strict=True)),
            _take(self.negative, self.length - wanted, generator),
        ])  # fmt: skip
        generator.shuffle(chosen)
        seeds = generator.integers(2**31, size=len(chosen))
        return [(int(i), int(s)) for i, s in zip(chosen, seeds, strict=True)]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.draws()[self.rank : len(self) * self.world : self.world])


def _by_patient(patients: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
    """The indices of the chosen slices, as one array for each patient who has any."""
    return [np.flatnonzero(chosen & (patients == one)) for one in np.unique(patients[chosen])]


def _take(pools: list[np.ndarray], count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw `count` indices: one from each pool per round, in a new order each round; no index twice before its pool is used up."""
    if not count:
        return np.empty(0, dtype=int)
    rounds = -(-count // len(pools))
    series = [
        np.concatenate([generator.permutation(pool) for _ in range(-(-rounds // len(pool)))])[:rounds] for pool in pools
    ]
    drawn = [series[one][turn] for turn in range(rounds) for one in generator.permutation(len(pools))]
    return np.array(drawn[:count], dtype=int)
