"""Fits the expected Dice: collects the signs and the true Dice of results on people that a network has not seen, and fits coefficients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.optimize import minimize

from data.targets import Target
from measure.dense_runs import Scan, degraded, dense_runs
from measure.truth import target_of
from UNetPlusPlusSegmentLib.core.agreement import dice
from UNetPlusPlusSegmentLib.core.request import SPEEDS, Request
from UNetPlusPlusSegmentLib.core.trust import LEAST_SLICES
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.engine.signs import segment_pixels
from UNetPlusPlusSegmentLib.engine.trust import expected_dice
from UNetPlusPlusSegmentLib.network.bundle import Bundle
from UNetPlusPlusSegmentLib.network.card import ExpectedDice

LEAST_ERROR = 0.01  # floor of 1 − Dice when the range is fitted: experts differ by more than that
RIDGE, SMOOTH = 3e-3, 0.01  # penalty on the squared coefficients; smoothing of the distance near 0
RANGE = 0.1, 0.9  # quantiles of the errors at the ends of the range
BAD, GOOD = 0.85, 0.93  # bad scans have a Dice below, good ones above; the expected Dice should tell them apart


@dataclass(frozen=True)
class Judged:
    """One result compared with the truth: model, scan, person, change, speed, label, true Dice, and the signs that the engine saw."""

    model: str
    scan: str
    person: str
    change: str
    speed: str
    label: str
    dice: float
    signs: dict[str, float]


def judged(bundle: Bundle, folder: Path, target: Target, split: str) -> Iterator[Judged]:
    """The results of a network, at each speed, on a scan of each person of a split and on degraded copies of it.

    Copies with so few slices that the engine expects no Dice of them are left out.
    """
    engine = SliceEngine(bundle)
    people = set()
    for scan in dense_runs(folder, target_of(bundle, target), split):
        if scan.person in people:
            continue
        people.add(scan.person)
        for changed in degraded(scan):
            if len(changed.stored) >= LEAST_SLICES:
                for speed in SPEEDS:
                    yield from _judged(engine, changed, speed)


def _judged(engine: SliceEngine, scan: Scan, speed: str) -> Iterator[Judged]:
    maps = engine.predict(scan.volume, Request(engine.bundle.target, speed=speed))
    result = maps.at()
    for number, label in enumerate(engine.bundle.labels):
        mask, truth = result.labelmap == label.value, scan.truth[number]
        segment = segment_pixels(maps.pixels, number, mask, maps.threshold)
        if segment is None or not scan.known[number] or not truth[scan.stored].any():
            continue
        true_dice = dice(mask[scan.stored], truth[scan.stored])
        yield Judged(
            engine.bundle.name, scan.name, scan.person, scan.change, speed, label.name, true_dice, segment.signs()
        )


def fit(rows: Sequence[Judged]) -> tuple[ExpectedDice, dict]:
    """Fit the coefficients for one label at one speed.

    Returns:
        The coefficients, and how well they predict people left out of the fit, one at a time; see `agreement`.
    """
    names = sorted(rows[0].signs)
    people = np.array([row.person for row in rows])
    as_it_is = np.array([not row.change for row in rows])
    signs = np.array([[1.0, *(row.signs[name] for name in names)] for row in rows])
    true = np.array([row.dice for row in rows])
    left_out = np.empty(len(rows))  # ln(1 − expected Dice)
    for person in np.unique(people):
        others = people != person
        weights = _weights(people[others], as_it_is[others])
        left_out[~others] = signs[~others] @ _solved(signs[others], true[others], weights)
    errors = np.log(np.maximum(1 - true, LEAST_ERROR)) - left_out
    low, high = np.quantile(errors, RANGE).round(4).tolist()
    solution = _solved(signs, true, _weights(people, as_it_is)).round(4).tolist()
    fitted = ExpectedDice(solution[0], dict(zip(names, solution[1:], strict=True)), low, high)
    # The range, too, is judged on people who had no part in it.
    ranges = {person: np.quantile(errors[people != person], RANGE) for person in np.unique(people)}
    lows, highs = np.array([ranges[person] for person in people]).T
    expected = [1 - np.exp(np.minimum(left_out + more, 0)) for more in (0, highs, lows)]
    return fitted, agreement(rows, *expected)


def _weights(people: np.ndarray, as_it_is: np.ndarray) -> np.ndarray:
    """Weights of the results: half for unchanged scans, which users have, half for degraded ones; in each half, the same per person."""
    weights = np.zeros(len(people))
    for half in (as_it_is, ~as_it_is):
        _, which, counts = np.unique(people[half], return_inverse=True, return_counts=True)
        weights[half] = 1 / counts[which] / max(1, len(counts))
    return weights / weights.sum()


def _solved(signs: np.ndarray, true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The coefficients with the smallest weighted mean distance from the true Dice.

    The coefficients of the signs are at least 0, and a small ridge penalty keeps them stable, because the signs are correlated.
    """

    def cost(solution: np.ndarray) -> float:
        expected = 1 - np.exp(np.minimum(signs @ solution, 0))
        distance = np.hypot(expected - true, SMOOTH)  # differentiable at 0
        return float(weights @ distance + RIDGE * np.square(solution[1:]).sum())

    count = signs.shape[1]
    return minimize(cost, np.full(count, 1 / count), bounds=[(None, None), *[(0, None)] * (count - 1)]).x


def check(rows: Sequence[Judged], fitted: ExpectedDice) -> dict:
    """How well coefficients predict other results than those of the fit; see `agreement`."""
    return agreement(rows, *np.transpose([expected_dice(row.signs, fitted) for row in rows]))


def agreement(rows: Sequence[Judged], expected: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict:
    """Compare expected with true Dice.

    Returns:
        Numbers of `people` and `scans`, and of `bad` and `good` scans (Dice below `BAD`, above `GOOD`). `mean_error`: mean of
        |expected − true|; `mean_error_as_they_are`: that of unchanged scans. `told_apart`: for a bad and a good scan, the probability
        that the bad one has the lower expected Dice (None if there are none of either). `in_range`: share of scans whose Dice lies
        between `low` and `high`. `spearman`: rank correlation.
    """
    true = np.array([row.dice for row in rows])
    bad, good = expected[true < BAD], expected[true > GOOD]
    told_apart = np.mean(bad[:, None] < good) if len(bad) and len(good) else None
    errors, as_it_is = np.abs(expected - true), np.array([not row.change for row in rows])
    figures = {
        "mean_error": errors.mean(),
        "mean_error_as_they_are": errors[as_it_is].mean() if as_it_is.any() else None,
        "told_apart": told_apart,
        "in_range": np.mean((low <= true) & (true <= high)),
        "spearman": stats.spearmanr(expected, true).statistic if len(rows) > 2 else None,
    }
    counts = {"people": len({row.person for row in rows}), "scans": len(rows), "bad": len(bad), "good": len(good)}
    return counts | {name: None if value is None else round(float(value), 4) for name, value in figures.items()}
