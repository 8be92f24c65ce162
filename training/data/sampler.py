"""Draws slices for a training: patients alike, a share of slices with the organ, and the same draw for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

from data.slices import Slice


class BalancedSampler(Sampler):
    """Draws `length` slices an epoch, `with_organ` of them with a label, each patient as often as any other.

    A patient of 500 slices would else count ten times as much as one of 50. Where there are no patients, each image is its own.
    Slices without the organ count alike: two of one patient show less that can be mistaken for it than 200 of another.
    The draw depends on (seed, epoch) alone; the ranks of a distributed training take every `world`-th of it, so their shares are disjoint.
    Yields (index, seed of the augmentation). `epoch` is asked when a draw begins: a resumed training makes its first draw before
    Lightning would have said which epoch it is.
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
        faint: np.ndarray | None = None,
    ) -> None:
        """Prepare it.

        Args:
            slices: All that may be drawn.
            length: Draws of an epoch, over all ranks.
            with_organ: Share of slices that show a label.
            seed: Of the draw.
            rank, world: This process, and how many there are.
            epoch: Which epoch it is.
            faint: bool, one of each slice: those with a label that are drawn as often as all others with one; None: no slice is.
        """
        has = np.array([s.mask.any() for s in slices])
        patients = np.array([s.row.get("patient", s.row["file"]) for s in slices])
        faint = np.zeros(len(slices), bool) if faint is None else faint
        kinds = (_by_patient(patients, has & each) for each in (~faint, faint))
        self.positive = [kind for kind in kinds if kind]
        self.negative = [np.flatnonzero(~has)] if not has.all() else []
        self.length, self.with_organ, self.seed, self.rank, self.world = length, with_organ, seed, rank, world
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.world

    def draws(self) -> list[tuple[int, int]]:
        """The epoch's draw over all ranks."""
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
    """The indices of the chosen slices, one array for each patient who has any."""
    return [np.flatnonzero(chosen & (patients == one)) for one in np.unique(patients[chosen])]


def _take(pools: list[np.ndarray], count: int, generator: np.random.Generator) -> np.ndarray:
    """Round after round one slice of every patient, in a new order each; none again before the patient's slices are used up."""
    if not count:
        return np.empty(0, dtype=int)
    rounds = -(-count // len(pools))
    series = [
        np.concatenate([generator.permutation(pool) for _ in range(-(-rounds // len(pool)))])[:rounds] for pool in pools
    ]
    drawn = [series[one][turn] for turn in range(rounds) for one in generator.permutation(len(pools))]
    return np.array(drawn[:count], dtype=int)
