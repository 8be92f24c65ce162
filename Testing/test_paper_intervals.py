"""Intervals of a gain: if only the cases differ, or only the seeds, the result is known in advance."""

import numpy as np
import pytest
from scipy import stats

from measure.pooled import true_coverage
from paper.intervals import difference, gain


def of_seeds(*seeds: list[float]) -> dict[int, dict[str, float]]:
    return {number: {f"case {n}": iou for n, iou in enumerate(ious)} for number, ious in enumerate(seeds, start=1)}


def width(found) -> float:
    return found.high - found.low


def test_a_difference_is_paired_by_case_and_by_seed():
    ours, theirs = of_seeds([0.95, 0.45], [0.75, 0.3]), of_seeds([0.9, 0.4], [0.7, 0.25], [0, 0])
    # The cases differ far more from each other than the networks do: unpaired, the interval would be wide.
    assert difference(ours, theirs) == pytest.approx(np.full((2, 2), 0.05))
    assert gain([difference(ours, theirs)], over_seeds=True).low == pytest.approx(0.05)


def test_without_a_seed_in_common_there_is_no_gain():
    assert gain([difference(of_seeds([0.5]), {})], over_seeds=False) is None
    assert gain([], over_seeds=True) is None


def test_if_only_the_seeds_differ_only_the_interval_over_seeds_has_a_width():
    each = np.repeat([[0.0], [0.1], [0.2]], 50, axis=1)
    over_cases, over_both = gain([each], over_seeds=False), gain([each], over_seeds=True)
    assert (over_cases.low, over_cases.high) == pytest.approx((0.1, 0.1))
    # All three draws are the lowest seed with a chance of 1/27, more than 2.5 %: the interval reaches from it to the highest.
    assert (over_both.mean, over_both.low, over_both.high) == pytest.approx((0.1, 0.0, 0.2))


def test_if_only_the_cases_differ_more_seeds_do_not_narrow_the_interval():
    cases = np.random.default_rng(1).normal(0.02, 0.1, 200)
    # Of a mean over 200 people, however many seeds they were measured with.
    expected = 2 * 1.96 * cases.std() / np.sqrt(200)
    for seeds in (1, 3, 10):
        each = np.tile(cases, (seeds, 1))
        assert width(gain([each], over_seeds=True)) == pytest.approx(expected, rel=0.05)
        assert width(gain([each], over_seeds=False)) == pytest.approx(expected, rel=0.05)


def test_both_spreads_add_up_as_variances():
    rng = np.random.default_rng(2)
    seeds, cases = rng.normal(0, 0.02, (40, 1)), rng.normal(0, 0.2, (1, 100))
    variance = seeds.var() / 40 + cases.var() / 100
    assert width(gain([seeds + cases], over_seeds=True)) == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.05)


def test_the_mean_over_data_sets_weighs_them_equally_and_resamples_each_separately():
    cases = np.random.default_rng(3).normal(0, 0.1, (1, 100))
    one, two = gain([cases], over_seeds=False), gain([cases, cases - 0.3], over_seeds=False)
    assert two.mean == pytest.approx(one.mean - 0.15)
    assert width(two) == pytest.approx(width(one) / np.sqrt(2), rel=0.06)


def test_the_coverage_of_an_interval_over_four_people_agrees_with_simulated_trials():
    rng = np.random.default_rng(4)
    people = rng.normal(0, 1, (400, 4))
    found = [gain([each[None]], over_seeds=False) for each in people]
    held = np.mean([each.low <= 0 <= each.high for each in found])
    assert held == pytest.approx(true_coverage(4), abs=3 * np.sqrt(0.81 * 0.19 / 400))
    assert true_coverage(4) == pytest.approx(0.81, abs=0.005) and true_coverage(3) == pytest.approx(0.75, abs=0.005)
    pairs = [gain([each[None, :2]], over_seeds=False) for each in people]
    assert np.mean([each.low <= 0 <= each.high for each in pairs]) == pytest.approx(true_coverage(2), abs=0.075)
    assert true_coverage(100_000) == pytest.approx(0.95, abs=1e-4) and true_coverage(4) < stats.norm.cdf(1.96)


def test_points_are_hundredths():
    assert gain([np.array([[0.0123]])], over_seeds=True).points == "+1.23 (+1.23 to +1.23)"
