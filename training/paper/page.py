"""Writes the page for readers who ask whether UNet++ helps; every figure in it is read from the records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fit.settings import Settings
from paper.cells import ARCHITECTURES, planned
from paper.counts import Counts
from paper.files import read_rows
from paper.intervals import Gain
from paper.records import Results
from paper.sections import few
from paper.summary import (
    BASELINES,
    ENOUGH,
    PAPER,
    End,
    compared,
    differences,
    doubled,
    gain_over,
    ious,
    mean_of,
    paper_gain,
)
from paper.wording import NAMES, NOT_YET, percent, points, rows

START = 0.833  # IoU on DSB2018's validation of the reproduction with which this project began
FIGURES = {
    "learning.png": "IoU of the validation while learning",
    "pruning.png": "IoU against time of the pruned networks",
    "edge.png": "Where the networks differ most on one nucleus and one nodule",
    "examples-nuclei.png": "Three images of nuclei, and what each network found",
    "examples-nodule.png": "Three nodules, and what each network found",
}


def write_page(results: Results, of_line: dict[tuple[str, str], Settings]) -> str:
    """Write README.md from the records, and return its path."""
    datasets = list(dict.fromkeys(dataset for dataset, _ in of_line))
    done = len(results.done()) + len(results.half.done())
    wanted = planned(datasets, ARCHITECTURES)
    of = len(wanted) + len(datasets) * len(ARCHITECTURES)
    text = "\n".join([
        "# Does UNet++ help me?",
        "",
        "U-Net, wide U-Net and UNet++, without and with deep supervision, were trained in the same way on"
        f" {', '.join(datasets)}. This page is based on {done} of {of} trainings. `python training/reproduce.py` runs the others,"
        " continues where it stopped, and writes this page again. [table.md](table.md) has the whole table.",
        "",
        *_holds(results, datasets),
        *_still_learning(results, datasets),
        "",
        *_gains(results, datasets),
        "",
        "Intervals are over seeds and cases. With a single seed they are over cases only, and leave out the variation between trainings.",
        "",
        "## Have the trainings converged?",
        "",
        f"A data set has converged if twice the steps add less than {100 * ENOUGH} points of validation IoU for every network.",
        "",
        *_ended(results, datasets),
        "",
        "## What it costs, and what pruning gives back",
        "",
        *_costs(results, datasets),
        "",
        "## Why the paper's IoU on nuclei is higher",
        "",
        *_scales(results),
        "",
        "## Limits",
        "",
        "- All networks were trained in the same way, tuned for none of them, on small images (the sizes are in the table). Another"
        " optimiser, more filters or whole images may give other results.",
        "- Each data set has one split. Intervals over cases apply to other cases of the same source, not to another hospital.",
        *few(results, datasets),
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
            *(points(gain_over(results, [dataset], "unetpp_ds", other, True)) for other in BASELINES),
        ])  # fmt: skip
    means = [points(_mean_gain(results, datasets, other)) for other in BASELINES]
    papers = [paper_gain(compared(results, datasets, "unetpp_ds", other), other) for other in BASELINES]
    lines.append(["**mean**", *[""] * len(ARCHITECTURES), *means])
    in_paper = ["" if each is None else f"{100 * each:+.2f}" for each in papers]
    lines.append(["the paper, on the same data sets", *[""] * len(ARCHITECTURES), *in_paper])
    head = [
        "IoU of a case, % (seeds)", *(NAMES[a] for a in ARCHITECTURES),
        *(f"deep supervision over {NAMES[other]}, points (95 %)" for other in BASELINES),
    ]  # fmt: skip
    return rows(head, lines)


def _mean_gain(results: Results, datasets: Sequence[str], other: str) -> Gain | None:
    return gain_over(results, compared(results, datasets, "unetpp_ds", other), "unetpp_ds", other, True)


def _holds(results: Results, datasets: Sequence[str]) -> list[str]:
    """Sentences about the gains: for each data set, and for their mean compared with the paper's."""
    lines = []
    for architecture in ("unetpp", "unetpp_ds"):
        said: dict[str, list[str]] = {}
        for dataset in compared(results, datasets, architecture, "unet"):
            verdict = _verdict(gain_over(results, [dataset], architecture, "unet", True))
            (of_seeds,) = differences(results, [dataset], architecture, "unet")
            said.setdefault(verdict, []).append(dataset if len(of_seeds) > 1 else f"{dataset} (one seed)")
        of_data = "; ".join(f"{verdict} on {', '.join(names)}" for verdict, names in said.items()) or NOT_YET
        lines.append(f"- {NAMES[architecture]}, compared with U-Net: {of_data}.")
    for other in BASELINES:
        there, mean = compared(results, datasets, "unetpp_ds", other), _mean_gain(results, datasets, other)
        papers = paper_gain(there, other)
        if mean is None or papers is None:
            lines.append(f"- Deep supervision's gain over {NAMES[other]}, compared with the paper's: {NOT_YET}.")
            continue
        inside = "within" if mean.low <= papers <= mean.high else "outside"
        lines.append(
            f"- Deep supervision's gain over {NAMES[other]} on {', '.join(there)} is {mean.points} points. The paper's gain on the same"
            f" data, {100 * papers:+.2f}, lies {inside} this interval."
        )
    best = {a: float(np.mean(each)) for a in ARCHITECTURES if (each := ious(results, ("nuclei", a)))}
    if best:
        first = max(best, key=lambda name: best[name])
        together = float(np.mean([results.counts(cell).compute_iou() for cell in results.of("nuclei", first)]))
        lines.append(
            f"- The best network on nuclei is {NAMES[first]}, with a mean IoU per image of {best[first]:.3f}, or {together:.3f} over the"
            f" pixels of all images together. The reproduction with which this project began had {START}, the mean over batches of images."
        )
    unet = ious(results, ("nodule", "unet"))
    if len(unet) > 1:
        lines.append(
            f"- Different seeds of U-Net differ by up to {100 * (max(unet) - min(unet)):.1f} points on nodules."
        )
    return lines


def _verdict(found: Gain | None) -> str:
    if found is None or found.low <= 0 <= found.high:
        return "no clear difference"
    return "better" if found.low > 0 else "worse"


def _doublings(results: Results, dataset: str) -> tuple[dict[str, tuple[End, End]], dict[str, float]]:
    """For each network with both, the ends of half the steps and of all, and the validation IoU that the second half added."""
    ends = {NAMES[a]: both for a in ARCHITECTURES if (both := doubled(results, (dataset, a)))}
    return ends, {name: whole.validation - half.validation for name, (half, whole) in ends.items()}


def _still_learning(results: Results, datasets: Sequence[str]) -> list[str]:
    """A warning about data sets whose trainings have not converged."""
    names = [d for d in datasets if max(_doublings(results, d)[1].values(), default=0.0) >= ENOUGH]
    if not names:
        return []
    return [
        f"- The trainings on {', '.join(names)} have not converged (below), so a gain there also says how fast a network learns: with more"
        " steps it may shrink."
    ]


def _ended(results: Results, datasets: Sequence[str]) -> list[str]:
    """For each data set, the largest gain of validation IoU that twice the steps bring to a network."""
    lines = []
    for dataset in datasets:
        ends, added = _doublings(results, dataset)
        if not ends:
            lines.append(f"- {dataset}: {NOT_YET}.")
            continue
        most = max(added, key=lambda name: added[name])
        half, whole = ends[most]
        verdict = "converged" if added[most] < ENOUGH else "not converged"
        lines.append(
            f"- {dataset}: {verdict}. {whole.steps} steps instead of {half.steps} add at most {100 * added[most]:+.2f} points, for {most}"
            f" ({len(ends)} of {len(ARCHITECTURES)} networks have been compared)."
        )
    return lines


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
        "time of UNet++ (U-Net = 1)",
        *(f"{level}: IoU in % at time (L4 = 1)" for level in ("L4", "L3", "L2", "L1")),
    ]
    return [
        *rows(head, lines),
        "",
        "Times are for one image on one thread of a processor. Pruning needs no further training.",
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
        " say which of them its table has. It also used other images of the same collection.",
    ]


def _figures(results: Results) -> list[str]:
    there = {name: text for name, text in FIGURES.items() if (results.folder / name).exists()}
    return [line for name, text in there.items() for line in (f"![{text}]({name})", "")]
