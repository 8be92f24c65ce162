"""Intervals of the mean difference of two networks: from a bootstrap over people, and from one over seeds and people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

DRAWS = 10_000


@dataclass(frozen=True)
class Gain:
    """A mean difference of IoU and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def points(self) -> str:
        """In points of IoU."""
        return f"{100 * self.mean:+.2f} ({100 * self.low:+.2f} to {100 * self.high:+.2f})"


def difference(one: Mapping[int, Mapping[str, float]], other: Mapping[int, Mapping[str, float]]) -> np.ndarray:
    """IoU of one network less that of another: (seeds, cases), of the seeds that both have.

    These were trained on the same patches in the same order, so they are paired, and so is each case with itself.

    Args:
        one: From a seed to the IoU of each case.
        other: The same.
    """
    seeds = sorted(one.keys() & other.keys())
    return np.array([[one[seed][case] - other[seed][case] for case in one[seed]] for seed in seeds])


def gain(differences: Sequence[np.ndarray], over_seeds: bool) -> Gain | None:
    """The mean over data sets of the mean difference, with a percentile interval; None if a data set has no seed.

    Args:
        differences: Of each data set, (seeds, cases).
        over_seeds: Draw seeds, too, not cases alone. All seeds of a draw are given the same cases, as all were measured on the same
            people: to draw them anew for every seed would take each person for as many strangers as there are seeds.
    """
    if not differences or not all(map(len, differences)):
        return None
    rng = np.random.default_rng(0)
    drawn = np.mean([_draws(each, over_seeds, rng) for each in differences], axis=0)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Gain(float(np.mean([each.mean() for each in differences])), float(low), float(high))


def _draws(each: np.ndarray, over_seeds: bool, rng: np.random.Generator) -> np.ndarray:
    """Means of a difference (seeds, cases) over cases, and if wanted seeds, that were drawn with replacement: (DRAWS,)."""
    seeds, cases = each.shape
    seed_shares = rng.multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS) / seeds if over_seeds else 1 / seeds
    case_shares = rng.multinomial(cases, np.full(cases, 1 / cases), DRAWS) / cases
    return np.sum(np.broadcast_to(seed_shares, (DRAWS, seeds)) @ each * case_shares, axis=1)


def true_coverage(drawn: int) -> float:
    """How often the 95 % interval of a mean holds the truth, if a bootstrap over so few values of a normal distribution made it.

    A bootstrap takes the spread of the values about their own mean for that about the true one, and the normal quantile for Student's:
    with many values that is 0.95, with four 0.81, with three 0.75.
    """
    shrunk = stats.norm.ppf(0.975) * np.sqrt((drawn - 1) / drawn)
    return float(2 * stats.t.cdf(shrunk, drawn - 1) - 1)
