"""Writes the page for readers who ask whether UNet++ helps; every figure in it is read from the records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fit.settings import Settings
from paper.cells import ARCHITECTURES, planned, split_of
from paper.convergence import ended, still_learning
from paper.counts import THRESHOLDS, Counts
from paper.files import read_rows
from paper.intervals import Gain, gain
from paper.records import Results
from paper.sections import FEW, few, mixed_precisions, one_seed, seeds_differ
from paper.summary import (
    BASELINES,
    PAPER,
    compared,
    deepest_over_mean,
    differences,
    ious,
    mean_difference,
    mean_of,
    paper_gain,
)
from paper.wording import NAMES, NOT_YET, percent, points, rows

# The reproduction with which this project began: its IoU on the validation images of DSB2018, the mean over batches. A fifth of the 670
# images made 9 batches, of 16 therefore.
START, BATCH = 0.833, 16
FIGURES = {
    "learning.png": "IoU of the validation while learning",
    "pruning.png": "IoU against time of the pruned networks",
    "edge.png": "From the images below, the nucleus and the nodule on which the networks differ most",
    "examples-nuclei.png": "Three images of nuclei, and what each network found",
    "examples-nodule.png": "Three nodules, and what each network found",
}


def write_page(results: Results, of_line: dict[tuple[str, str], Settings]) -> str:
    """Write README.md from the records, and return its path."""
    datasets = list(dict.fromkeys(dataset for dataset, _ in of_line))
    done = sum(len(each.done()) for each in (results, results.half, results.half.half))
    of = len(planned(datasets, ARCHITECTURES)) + 2 * len(datasets) * len(ARCHITECTURES)
    rest = (
        " runs the others, continues where it stopped, and writes this page again"
        if done < of
        else " makes it from nothing"
    )
    text = "\n".join([
        "# Does UNet++ help me?",
        "",
        "U-Net, wide U-Net and UNet++, without and with deep supervision, were trained in the same way on"
        f" {', '.join(datasets)}. This page is based on {done} of {of} trainings. `python training/reproduce.py`{rest}."
        " [table.md](table.md) has the whole table.",
        "",
        *_holds(results, datasets),
        *still_learning(results, datasets),
        "",
        *_gains(results, datasets),
        "",
        "The IoU of UNet++ with deep supervision is that of the mean of its four heads, as in the paper. A gain uses only the seeds that"
        " both networks have, so it may differ from the difference of two columns. Intervals are over seeds and cases."
        f"{_single(results, datasets)}",
        "",
        "## Have the trainings converged?",
        "",
        *ended(results, datasets),
        "",
        "## What it costs, and what pruning gives back",
        "",
        *_costs(results, datasets),
        "",
        "## Why the paper's IoUs may differ",
        "",
        *_scales(results),
        "",
        *_certainty(results, datasets),
        "",
        "## Limits",
        "",
        "- All networks were trained in the same way, tuned for none of them, on small images (their sizes are in [table.md](table.md))."
        " Another optimiser, more filters or whole images may give other results.",
        "- Each data set has one split. Intervals over cases apply to other cases of the same source, not to another hospital.",
        *_splits(of_line),
        *few(results, datasets),
        *mixed_precisions(results, datasets),
        "",
        *_figures(results),
    ])  # fmt: skip
    path = results.folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return str(path)


def _gains(results: Results, datasets: Sequence[str]) -> list[str]:
    """A table with the IoU of each network, the gains of UNet++ with deep supervision, and the paper's gains."""
    lines = []
    for dataset in datasets:
        of_networks = [ious(results, (dataset, architecture)) for architecture in ARCHITECTURES]
        lines.append([
            dataset,
            *(f"{percent(float(np.mean(each)))} ({len(each)})" if each else NOT_YET for each in of_networks),
            *(_gain_over(results, [dataset], other) for other in BASELINES),
        ])  # fmt: skip
    there = {other: compared(results, datasets, "unetpp_ds", other) for other in BASELINES}
    means = [_gain_over(results, names, other) for other, names in there.items()]
    papers = [paper_gain(names, other) for other, names in there.items()]
    lines.append(["**mean of those run**", *[""] * len(ARCHITECTURES), *means])
    in_paper = ["" if each is None else f"{100 * each:+.2f}" for each in papers]
    lines.append(["mean of the paper's gains on these", *[""] * len(ARCHITECTURES), *in_paper])
    head = [
        "IoU of a case, % (seeds)", *(NAMES[a] for a in ARCHITECTURES),
        *(f"{NAMES['unetpp_ds']} over {NAMES[other]}, points (95 %)" for other in BASELINES),
    ]  # fmt: skip
    return rows(head, lines)


def _single(results: Results, datasets: Sequence[str]) -> str:
    """A sentence about the intervals of gains from a single seed; empty if there are none."""
    if not any(len(each) == 1 for other in BASELINES for each in differences(results, datasets, "unetpp_ds", other)):
        return ""
    return " With a single seed they are over cases only, and leave out the variation between trainings: another seed may say otherwise."


def _gain_over(results: Results, datasets: Sequence[str], other: str) -> str:
    """The mean gain of UNet++ with deep supervision over another network with its interval, as text."""
    of_each = differences(results, datasets, "unetpp_ds", other)
    return points(gain(of_each, over_seeds=True)) + one_seed(of_each)


def _holds(results: Results, datasets: Sequence[str]) -> list[str]:
    """Sentences about the gains: for each data set, and for their mean compared with the paper's."""
    lines = []
    for architecture in ("unetpp", "unetpp_ds"):
        verdicts = _verdicts(datasets, differences(results, datasets, architecture, "unet"))
        lines.append(f"- {NAMES[architecture]}, compared with U-Net: {verdicts}.")
    over_mean = _verdicts(datasets, [deepest_over_mean(results, dataset) for dataset in datasets])
    over_unet = _verdicts(datasets, differences(results, datasets, "unetpp_ds", "unet", "L4"))
    lines += [
        f"- Its deepest head, L4, alone, compared with the mean of its four heads: {over_mean}.",
        f"- Its deepest head, L4, alone, compared with U-Net: {over_unet}.",
        "- *Better* and *worse* mean that the 95 % interval of the difference in IoU lies above or below 0. From a few seeds it is too"
        " narrow ([Limits](#limits)).",
    ]
    if differ := seeds_differ(results, datasets, "the IoU of a case", lambda line: ious(results, line)):
        lines.append(f"- {differ}")
    lines += [_mean_gain(results, datasets, other) for other in BASELINES]
    best = {a: float(np.mean(each)) for a in ARCHITECTURES if (each := ious(results, ("nuclei", a)))}
    if best:
        first = max(best, key=lambda name: best[name])
        of_batches = float(np.mean([results.counts(cell).batch_iou(BATCH) for cell in results.of("nuclei", first)]))
        lines.append(
            f"- On nuclei {NAMES[first]} has the highest mean IoU per image, {best[first]:.3f}. As the mean over batches of {BATCH} images,"
            f" within which pixels are pooled, it is {of_batches:.3f}. The reproduction with which this project began reported {START},"
            " such a mean on other images of the same set."
        )
    return lines


def _verdicts(datasets: Sequence[str], of_each: Sequence[np.ndarray]) -> str:
    """A verdict on the differences (seeds, cases) on each data set that has seeds, those of one verdict together."""
    said: dict[str, list[str]] = {}
    for dataset, of_seeds in zip(datasets, of_each, strict=True):
        if found := gain([of_seeds], over_seeds=True):
            seeds = "one seed" if len(of_seeds) == 1 else f"{len(of_seeds)} seeds"
            said.setdefault(_verdict(found, of_seeds.shape[1]), []).append(f"{dataset} ({seeds})")
    return "; ".join(f"{verdict} on {', '.join(names)}" for verdict, names in said.items()) or NOT_YET


def _verdict(found: Gain, cases: int) -> str:
    if cases < FEW:  # of few, even equally good networks often differ all in one direction
        return "too few cases to tell"
    if found.low <= 0 <= found.high:
        return "no clear difference"
    return "better" if found.low > 0 else "worse"


def _mean_gain(results: Results, datasets: Sequence[str], other: str) -> str:
    """Sentences about the mean gain of UNet++ with deep supervision, its extremes, the authors' measures, and the paper's mean gain."""
    there = compared(results, datasets, "unetpp_ds", other)
    of_each = differences(results, there, "unetpp_ds", other)
    mean, papers = gain(of_each, over_seeds=True), paper_gain(there, other)
    begin = f"- The mean gain of {NAMES['unetpp_ds']} over {NAMES[other]}"
    if mean is None:
        return f"{begin}: {NOT_YET}."
    sizes = {dataset: 100 * float(each.mean()) for dataset, each in zip(there, of_each, strict=True)}
    least, most = (pick(sizes, key=lambda dataset: sizes[dataset]) for pick in (min, max))
    extremes = f", from {sizes[least]:+.2f} on {least} to {sizes[most]:+.2f} on {most}" if len(there) > 1 else ""
    if len(there) > 2:
        rest = [each for dataset, each in zip(there, of_each, strict=True) if dataset != most]
        extremes += f"; without {most} it is {points(gain(rest, over_seeds=True))}"
    together, both = (
        100 * mean_difference(results, there, "unetpp_ds", other, figure)
        for figure in (Counts.compute_iou, Counts.mean_iou)
    )
    authors = f"By the authors' two measures it is {together:+.2f} (`compute_iou`) and {both:+.2f} (`mean_iou`)"
    in_paper = "" if papers is None else f"; the mean of the paper's gains is {100 * papers:+.2f}"
    return f"{begin} on {', '.join(there)} is {mean.points} points{one_seed(of_each)}{extremes}. {authors}{in_paper}."


def _costs(results: Results, datasets: Sequence[str]) -> list[str]:
    """A table with the time per image relative to U-Net, and with IoU and time of UNet++ pruned to each level."""
    seconds = {
        (r["dataset"], r["network"]): float(r["seconds_per_image"]) for r in read_rows(results.folder / "speed.csv")
    }
    lines = []
    for dataset in datasets:
        line = [dataset, f"{seconds[dataset, 'unetpp_ds'] / seconds[dataset, 'unet']:.1f}"]
        for level in ("L4", "L3", "L2", "L1"):
            each = ious(results, (dataset, "unetpp_ds"), level)
            said = percent(float(np.mean(each))) if each else NOT_YET
            line.append(f"{said} at {seconds[dataset, level] / seconds[dataset, 'L4']:.2f}")
        lines.append(line)
    head = [
        "data",
        f"time of {NAMES['unetpp_ds']} (U-Net = 1)",
        *(f"{level}: IoU in % at time (L4 = 1)" for level in ("L4", "L3", "L2", "L1")),
    ]
    return [
        *rows(head, lines),
        "",
        "L1 to L4 are the single heads, each at the time of the network pruned to it; the table above has the mean of all four. Times are"
        " for one image on one thread of a processor. Pruning needs no further training.",
    ]


def _scales(results: Results) -> list[str]:
    line = ("nuclei", "unetpp_ds")
    ours = ious(results, line)
    if not ours:
        return [f"{NOT_YET.capitalize()}."]
    case = percent(float(np.mean(ours)))
    together, both = (percent(mean_of(results, line, of)) for of in (Counts.compute_iou, Counts.mean_iou))
    return [
        f"The paper reports {PAPER['nuclei']['unetpp_ds']} % on nuclei with deep supervision. Our network has a mean IoU per image of"
        f" {case} %. The authors' code has two other measures: by `compute_iou`, over the pixels of all images together, the same weights"
        f" have {together} %, and by `mean_iou`, the mean over nuclei and background and over ten thresholds, {both} %. The paper does not"
        " say which of them its table has. It also shrank these images to 96², and split them in its own way. Its polyps are others,"
        " ASU-Mayo's videos; ours are the images of Kvasir-SEG.",
    ]


def _certainty(results: Results, datasets: Sequence[str]) -> list[str]:
    """How many pixels UNet++ with deep supervision and U-Net find at the highest threshold that `mean_iou` counts."""
    highest = max(THRESHOLDS, key=lambda answer: THRESHOLDS[answer])
    there = compared(results, datasets, "unetpp_ds", "unet")
    if not there:
        return []
    found = {
        (dataset, network): mean_of(results, (dataset, network), lambda counts: counts.pooled(highest).marked)
        for dataset in there
        for network in ("unetpp_ds", "unet")
    }
    said = ", ".join(f"{found[d, 'unetpp_ds']:.2f} ({found[d, 'unet']:.2f}) on {d}" for d in there)
    return [
        f"`mean_iou` gives a threshold of {THRESHOLDS[highest]} as much weight as one of 0.5. There, {NAMES['unetpp_ds']} (the mean of its"
        f" heads) finds, for each true pixel, {said}: the figures in brackets are those of U-Net. A network that is less sure of its"
        " pixels loses by this measure, whatever it finds at 0.5.",
    ]


def _splits(of_line: dict[tuple[str, str], Settings]) -> list[str]:
    """Limits that follow from how the data sets are split, and from what a case is."""
    settings_of = {dataset: settings for (dataset, _), settings in of_line.items()}
    same = [dataset for dataset in settings_of if split_of(dataset) == "val"]
    images = [dataset for dataset, settings in settings_of.items() if settings.goal.slices.group == "file"]
    return [
        f"- {', '.join(same)}: the people of `val` serve for the validation while learning and for the measurement. No weights are chosen"
        " by them, but whether the steps are enough is judged on them too.",
        f"- {', '.join(images)}: a case is an image. Which images are of the same person or slide is not known, so all count as"
        " independent, which makes intervals too narrow.",
    ]


def _figures(results: Results) -> list[str]:
    there = {name: text for name, text in FIGURES.items() if (results.folder / name).exists()}
    return [line for name, text in there.items() for line in (f"![{text}]({name})", "")]
