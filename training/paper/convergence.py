"""Sentences about whether the trainings have converged, from trainings with a quarter, half and all of the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paper.cells import ARCHITECTURES
from paper.records import Results
from paper.sections import seeds_differ
from paper.summary import ENOUGH, End, after_half, doubled, validations
from paper.wording import NAMES, NOT_YET

SLOW, UNDECIDED = "not converged after half of the steps", "undecided"


def _doublings(results: Results, dataset: str) -> tuple[dict[str, tuple[End, End]], dict[str, float]]:
    """For each network with both, the ends of half the steps and of all, and the validation IoU that the second half added."""
    ends = {NAMES[a]: both for a in ARCHITECTURES if (both := doubled(results, (dataset, a)))}
    return ends, {name: whole.validation - half.validation for name, (half, whole) in ends.items()}


def still_learning(results: Results, datasets: Sequence[str]) -> list[str]:
    """A warning about data sets whose trainings have not, or may not have, converged."""
    judged = {dataset: _judged(_doublings(results, dataset)[1]) for dataset in datasets}
    slow, undecided = ([d for d in datasets if judged[d] == verdict] for verdict in (SLOW, UNDECIDED))
    lines = []
    if slow:
        lines.append(
            f"- The trainings had not converged after half of the steps on {', '.join(slow)}; whether they have after all of them is not"
            " known (see below). A gain there also says how fast a network learns: with more steps it may grow or shrink."
            f"{_gain_after_half(results, slow)}"
        )
    if undecided:
        lines.append(f"- Whether the trainings have converged has not been decided on {', '.join(undecided)}.")
    return lines


def _gain_after_half(results: Results, datasets: Sequence[str]) -> str:
    """A sentence about the gain of UNet++ with deep supervision over U-Net after half of the steps and after all, with the same seeds."""
    there = {d: both for d in datasets if (both := after_half(results, d, "unetpp_ds", "unet"))}
    gains = [
        f"{100 * half:+.2f} instead of {100 * whole:+.2f} on {dataset}" for dataset, (half, whole) in there.items()
    ]
    begin = f" After half of them, the gain of {NAMES['unetpp_ds']} over U-Net was, with the same seeds,"
    return f"{begin} {', '.join(gains)}." if gains else ""


def _judged(added: Mapping[str, float]) -> str:
    """Whether a data set has converged, by the validation IoU that the second half of the steps added to each network."""
    if max(added.values(), default=0.0) >= ENOUGH:
        return SLOW
    return "converged" if len(added) == len(ARCHITECTURES) else UNDECIDED


def ended(results: Results, datasets: Sequence[str]) -> list[str]:
    """The rule, and for each data set, the largest gain of validation IoU that twice the steps bring to a network."""
    differ = seeds_differ(results, datasets, "validation IoU", lambda line: validations(results, results.of(*line)))
    lines = [
        f"A data set has converged if twice the steps add less than {100 * ENOUGH} points of validation IoU for every network. If they add"
        " more, half of the steps were too few, and whether all of them are enough remains open. Each network is judged by one training"
        " with half of the steps and one with all. The largest of four such differences may exceed the limit by chance, so look at the"
        f" averages, too. {differ}".rstrip(),
        "",
    ]
    for dataset in datasets:
        ends, added = _doublings(results, dataset)
        if not ends:
            lines.append(f"- {dataset}: {NOT_YET}.")
            continue
        most = max(added, key=lambda name: added[name])
        half, whole = ends[most]
        lines.append(
            f"- {dataset}: {_judged(added)}. {whole.steps} steps instead of {half.steps} add at most {100 * added[most]:+.2f} points, for"
            f" {most} ({len(ends)} of {len(ARCHITECTURES)} networks have been compared).{_on_average(results, dataset)}"
        )
    return lines


def _on_average(results: Results, dataset: str) -> str:
    """A sentence about what both doublings added, averaged over the networks; empty unless all networks have both."""
    (before, first), (_, second) = (_doublings(each, dataset) for each in (results.half, results))
    if min(len(first), len(second)) < len(ARCHITECTURES):
        return ""
    half, whole = next(iter(before.values()))
    means = [100 * float(np.mean([*added.values()])) for added in (first, second)]
    return (
        f" On average over the networks, the doubling from {half.steps} to {whole.steps} added {means[0]:+.2f}, and the next one"
        f" {means[1]:+.2f}."
    )
