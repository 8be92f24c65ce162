"""The sections below the table: trainings, limits of small samples, gains, twice the steps, heads, and losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fit.settings import Settings
from measure.pooled import FEW, true_coverage
from paper.cells import COMPARED_LOSSES, COMPARED_ON, TABLE_LOSS, split_of
from paper.counts import THRESHOLDS
from paper.intervals import difference, gain
from paper.records import Results
from paper.summary import (
    BASELINES,
    ENOUGH,
    Line,
    between_seeds,
    by_seed,
    compared,
    deepest_over_mean,
    differences,
    doubled,
    ious,
    paper_gain,
)
from paper.wording import NAMES, NOT_YET, percent, points, rows

LOSSES = {
    TABLE_LOSS: "½ BCE + Dice of the batch (the authors' code, and the table)",
    "hybrid": "eq. 3 of the paper",
    "hybrid_background": "eq. 3 with the background's cross-entropy",
}


def trainings(results: Results, of_line: dict[tuple[str, str], Settings]) -> list[str]:
    """Patch, steps, cases, duration, processor and commit of each data set's trainings."""
    lines = []
    for dataset in dict.fromkeys(dataset for dataset, _ in of_line):
        settings = next(s for (d, _), s in of_line.items() if d == dataset)
        done = [row for cell, row in results.done().items() if cell.dataset == dataset]
        minutes = [float(row["minutes"]) for row in done]
        took = f"; {min(minutes):.0f} to {max(minutes):.0f} minutes each, beside other work" if minutes else ""
        cases = f", {done[0]['cases']} cases of `{split_of(dataset)}`" if done else ""
        made = {f"{row['processor']}, commit {row['commit']}" for row in done if row["commit"]}
        where = f" ({'; '.join(sorted(made))})" if made else ""
        patch = "×".join(map(str, settings.patch))
        lines.append(
            f"- {dataset}: patches of {patch}, {settings.steps} steps with batches of {settings.batch_size}{cases}{took}{where}."
        )
    return lines


def few(results: Results, datasets: Sequence[str]) -> list[str]:
    """Warnings about intervals over two or three seeds, and about data sets with few people."""
    lines = [
        "- Bootstrap intervals over few values are too narrow. If seeds alone made the difference, normally distributed, a 95 % interval"
        f" over three of them would contain the true mean {100 * true_coverage(3):.0f} % of the time, and one over two"
        f" {100 * true_coverage(2):.0f} %."
    ]
    for dataset in datasets:
        people = next((int(row["cases"]) for cell, row in results.done().items() if cell.dataset == dataset), FEW)
        if people < FEW:
            lines.append(
                f"- {dataset} is measured on {people} people only: an interval over them would contain the true mean"
                f" {100 * true_coverage(people):.0f} % of the time, and one of two equally good networks would be better on all of them"
                f" with a chance of 1 in {2 ** (people - 1)}. Nothing can be decided on these people alone."
            )
    return lines


def mixed_precisions(results: Results, datasets: Sequence[str]) -> list[str]:
    """The trainings that computed in another precision than most of their data set, whose seeds so differ by more than the seed."""
    lines = []
    done = [(cell, *row["processor"].rpartition(", ")[1:]) for cell, row in results.done().items()]
    for dataset in datasets:
        said = [(cell, precision) for cell, comma, precision in done if comma and cell.dataset == dataset]
        for most, _ in Counter(precision for _, precision in said).most_common(1):
            others = [
                f"{NAMES[cell.architecture]}'s seed {cell.seed} ({precision})"
                for cell, precision in said
                if precision != most
            ]
            if others:
                lines.append(
                    f"- {dataset}: most trainings computed in {most}, but {', '.join(others)} did not: this difference between seeds"
                    " may be one of precision, too."
                )
    return lines


def gains(results: Results, datasets: Sequence[str]) -> list[str]:
    """The gain of UNet++ with deep supervision over U-Net and wide U-Net: for each data set, their mean, and the paper's."""
    head = ["data"]
    for other in BASELINES:
        head += [f"over {NAMES[other]}, 95 % over cases", "over seeds and cases", "in the paper"]
    there = {other: compared(results, datasets, "unetpp_ds", other) for other in BASELINES}
    lines = [[d, *_gains_of(results, {other: [d] for other in BASELINES})] for d in datasets]
    return rows(head, [*lines, ["**mean of those run**", *_gains_of(results, there)]])


def _gains_of(results: Results, datasets: Mapping[str, Sequence[str]]) -> list[str]:
    """Our gains over each baseline on some data sets, and the paper's on the same."""
    cells: list[str] = []
    for other, names in datasets.items():
        papers = paper_gain(names, other)
        cells += [*gains_over(results, names, "unetpp_ds", other), "" if papers is None else f"{100 * papers:+.2f}"]
    return cells


def gains_over(results: Results, datasets: Sequence[str], one: str, other: str) -> list[str]:
    """The mean gain of one architecture over another with its interval over cases, and over seeds and cases, where there are seeds."""
    of_each = differences(results, datasets, one, other)
    return [points(gain(of_each, over_seeds=False)), over_seeds(of_each)]


def over_seeds(of_each: Sequence[np.ndarray]) -> str:
    """The mean of differences (seeds, cases), with an interval over seeds and cases; with one seed, without."""
    mean, note = gain(of_each, over_seeds=True), one_seed(of_each)
    return f"{100 * mean.mean:+.2f}{note}" if mean and note else points(mean)


def one_seed(of_each: Sequence[np.ndarray]) -> str:
    """A note after the mean of differences (seeds, cases) if one of them, or each, is from a single seed."""
    seeds = [len(each) for each in of_each]
    if min(seeds, default=0) != 1:
        return ""
    return ", one seed" if max(seeds) == 1 else ", one seed on some"


def seeds_differ(
    results: Results, datasets: Sequence[str], what: str, figure: Callable[[Line], Sequence[float]]
) -> str:
    """Where networks have several seeds, the largest difference between those of one network; empty if none has two."""
    ranges = {dataset: found for dataset in datasets if (found := between_seeds(results, dataset, figure))}
    if not ranges:
        return ""
    said = ", ".join(f"{100 * most:.1f} on {dataset} ({NAMES[network]})" for dataset, (most, network) in ranges.items())
    unknown = ", ".join(dataset for dataset in datasets if dataset not in ranges)
    rest = f" How much they differ on {unknown} is not known." if unknown else ""
    return f"The largest difference between seeds of one network, in points of {what}: {said}.{rest}"


def doubling(results: Results, of_line: Mapping[tuple[str, str], Settings]) -> list[str]:
    """What twice the steps add, compared with a training that was planned for half of them: for a quarter and for half of all steps."""
    head = ["data", "network", "steps", "validation IoU, %", "added", "IoU of a case, %", "added, 95 % over cases"]
    said = [[line[0], NAMES[line[1]], *_doubled(each, line)] for line in of_line for each in (results.half, results)]
    settings_of = {dataset: settings for (dataset, _), settings in of_line.items()}
    pooled = ", ".join(d for d, settings in settings_of.items() if settings.goal.slices.group == "file")
    shares = ", ".join(f"1/{settings.validation_stride} of {dataset}" for dataset, settings in settings_of.items())
    return [
        "Every learning curve ends flat, because the learning rate falls to 0 at the end of each training. So convergence is judged by"
        f" further trainings: a data set has converged if twice the steps add less than {100 * ENOUGH} points of validation IoU for every"
        " network. If they add more, half of the steps were too few, and whether all of them are enough remains open.",
        "",
        "Validation IoU is Dice / (2 - Dice) at the network's pixels, where Dice is that of all images together"
        f" ({pooled}) or the mean over patients. It is computed on a part of the images of `val` ({shares}), so it cannot be compared with"
        " the IoU of a case. Each line compares one training with one other: its differences include the variation between trainings,"
        " which an interval over cases leaves out.",
        "",
        *rows(head, said),
    ]


def _doubled(results: Results, line: Line) -> list[str]:
    """The steps before and after a doubling, both IoUs, and what it added to them."""
    ends = doubled(results, line)
    if ends is None:
        return [NOT_YET] * 5
    half, whole = ends
    added = gain([difference(by_seed(results, line), by_seed(results.half, line))], over_seeds=False)
    return [
        f"{half.steps} → {whole.steps}",
        f"{percent(half.validation)} → {percent(whole.validation)}", f"{100 * (whole.validation - half.validation):+.2f}",
        f"{percent(half.iou)} → {percent(whole.iou)}", points(added),
    ]  # fmt: skip


def heads(results: Results, datasets: Sequence[str]) -> list[str]:
    """The IoU of the mean of the heads, as in the table, and of each head, averaged over the seeds; and what the deepest head gains."""
    lines = []
    for dataset in datasets:
        line = (dataset, "unetpp_ds")
        of_answers = [ious(results, line, answer) for answer in ("all", "L1", "L2", "L3", "L4")]
        means = [percent(float(np.mean(each)) if each else None) for each in of_answers]
        lines.append([dataset, *means, points(gain([deepest_over_mean(results, dataset)], over_seeds=False))])
    return rows(
        ["data", "mean of the heads", "L1", "L2", "L3", "L4", "points of L4 over the mean, 95 % over cases"], lines
    )


def losses(results: Results) -> list[str]:
    """The loss of the authors' code, eq. 3 of the paper, and as a control eq. 3 with the background's cross-entropy."""
    dataset, architecture = COMPARED_ON
    lines = []
    for loss in (TABLE_LOSS, *COMPARED_LOSSES):
        line = (dataset, architecture, loss)
        each = ious(results, line)
        if not each:
            lines.append([LOSSES[loss], NOT_YET, *[""] * 6])
            continue
        less = difference(by_seed(results, line), by_seed(results, (dataset, architecture)))
        at = {THRESHOLDS[answer]: float(np.mean(ious(results, line, answer))) for answer in THRESHOLDS}
        best = max(at, key=lambda threshold: at[threshold])
        precision, recall, marked = np.mean([results.counts(cell).pooled()[1:] for cell in results.of(*line)], axis=0)
        lines.append([
            LOSSES[loss], str(len(each)), percent(float(np.mean(each))), "" if loss == TABLE_LOSS else over_seeds([less]),
            percent(precision), percent(recall), f"{marked:.3f}", f"{percent(at[best])} at {best:.2f}",
        ])  # fmt: skip
    head = [
        "loss", "seeds", "IoU of a case, %", "points over the code's loss, 95 % over seeds and cases", "precision, %", "recall, %",
        "pixels found per true pixel", "IoU at its best threshold from 0.50 up",
    ]  # fmt: skip
    return [
        f"On {dataset}, for {NAMES[architecture]}. Eq. 3 takes the background into account only through Dice. If that matters, three things"
        " are to be expected: too many pixels marked, a better IoU at a higher threshold, and neither of them once the background's half"
        " of the cross-entropy is added. Precision, recall and pixels are over all images together, averaged over the seeds of the line.",
        "",
        *rows(head, lines),
    ]
