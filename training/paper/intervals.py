"""Intervals of the mean difference between two networks, from a bootstrap over cases, or over seeds and cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000


@dataclass(frozen=True)
class Gain:
    """A mean difference of IoU and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def points(self) -> str:
        """Mean and interval as text, in points of IoU."""
        return f"{100 * self.mean:+.2f} ({100 * self.low:+.2f} to {100 * self.high:+.2f})"


def difference(one: Mapping[int, Mapping[str, float]], other: Mapping[int, Mapping[str, float]]) -> np.ndarray:
    """The IoU of one network minus that of another, (seeds, cases), for the seeds that both have.

    With the same seed both were trained on the same patches in the same order, so seeds are paired, and so are cases.

    Args:
        one: From a seed to the IoU of each case.
        other: The same for the other network.
    """
    seeds = sorted(one.keys() & other.keys())
    return np.array([[one[seed][case] - other[seed][case] for case in one[seed]] for seed in seeds])


def gain(differences: Sequence[np.ndarray], over_seeds: bool) -> Gain | None:
    """The mean over data sets of the mean difference, with a percentile interval; None if a data set has no seeds.

    Args:
        differences: For each data set, (seeds, cases).
        over_seeds: Resample seeds too, not only cases. All seeds of a draw get the same cases, because all were measured on the same
            people; resampling cases for each seed would treat one person as several independent ones.
    """
    if not differences or not all(map(len, differences)):
        return None
    rng = np.random.default_rng(0)
    drawn = np.mean([_draws(each, over_seeds, rng) for each in differences], axis=0)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Gain(float(np.mean([each.mean() for each in differences])), float(low), float(high))


def _draws(each: np.ndarray, over_seeds: bool, rng: np.random.Generator) -> np.ndarray:
    """Bootstrap means, (DRAWS,), of a difference (seeds, cases): over resampled cases and, if `over_seeds`, resampled seeds."""
    seeds, cases = each.shape
    seed_shares = rng.multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS) / seeds if over_seeds else 1 / seeds
    case_shares = rng.multinomial(cases, np.full(cases, 1 / cases), DRAWS) / cases
    return np.sum(np.broadcast_to(seed_shares, (DRAWS, seeds)) @ each * case_shares, axis=1)
