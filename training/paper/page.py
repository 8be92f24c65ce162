"""The page for one who asks whether UNet++ helps: every figure in it is read from the records."""

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
from paper.summary import ENOUGH, PAPER, PAPER_GAIN, compared, doubled, gain_over, ious, mean_of
from paper.wording import NAMES, NOT_YET, percent, points, rows

START = 0.833  # IoU on DSB2018's validation of the reproduction that this project began with
FIGURES = {
    "learning.png": "IoU of the validation while learning",
    "pruning.png": "IoU against time of the pruned networks",
    "edge.png": "Where the networks differ most on one nucleus and one nodule",
    "examples-nuclei.png": "Three images of nuclei, and what each network found",
    "examples-nodule.png": "Three nodules, and what each network found",
}


def write_page(results: Results, of_line: dict[tuple[str, str], Settings]) -> str:
    """Write README.md from what is on record; return its path."""
    datasets = list(dict.fromkeys(dataset for dataset, _ in of_line))
    done = len(results.done()) + len(results.half.done())
    wanted = planned(datasets, ARCHITECTURES)
    of = len(wanted) + len(datasets) * len(ARCHITECTURES)
    text = "\n".join([
        "# Does UNet++ help me?",
        "",
        f"On record: {done} of {of} trainings. `python training/reproduce.py` makes the rest, goes on where it stopped,"
        " and writes this page. Every figure is read from the records; the whole table is [table.md](table.md).",
        "",
        *_holds(results, datasets),
        "",
        *_gains(results, datasets),
        "",
        "The intervals are over seeds and cases; with one seed over cases alone, which leaves out what another training would change.",
        "",
        "## Has learning ended?",
        "",
        *_ended(results, datasets),
        "",
        "## What it costs, and what pruning gives back",
        "",
        *_costs(results, datasets),
        "",
        "## Why 92.6 is not 0.83",
        "",
        *_scales(results),
        "",
        "## What this cannot tell",
        "",
        "- One recipe, chosen for none of the four networks, on small images (the sizes are in the table): another optimiser,"
        " more filters or whole images may say something else.",
        "- One split of each data set. An interval over cases is for other cases of the same source, not for another hospital.",
        *few(results, datasets),
        "",
        *_figures(results),
    ])  # fmt: skip
    path = results.folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return str(path)


def _gains(results: Results, datasets: Sequence[str]) -> list[str]:
    """IoU of each network, and the gains of UNet++ with deep supervision, beside the paper's."""
    lines = []
    for dataset in datasets:
        of_networks = [ious(results, (dataset, architecture)) for architecture in ARCHITECTURES]
        lines.append([
            dataset,
            *(f"{percent(float(np.mean(each)))} ({len(each)})" if each else NOT_YET for each in of_networks),
            *(points(gain_over(results, [dataset], "unetpp_ds", other, True)) for other in PAPER_GAIN),
        ])  # fmt: skip
    means = [points(_mean_gain(results, datasets, other)) for other in PAPER_GAIN]
    lines.append(["**mean**", *[""] * len(ARCHITECTURES), *means])
    lines.append(["the paper", *[""] * len(ARCHITECTURES), *(f"{papers:+}" for papers in PAPER_GAIN.values())])
    head = [
        "IoU of a case, % (seeds)", *(NAMES[a] for a in ARCHITECTURES),
        *(f"the last over {NAMES[other]}, points (95 %)" for other in PAPER_GAIN),
    ]  # fmt: skip
    return rows(head, lines)


def _mean_gain(results: Results, datasets: Sequence[str], other: str) -> Gain | None:
    return gain_over(results, compared(results, datasets, "unetpp_ds", other), "unetpp_ds", other, True)


def _holds(results: Results, datasets: Sequence[str]) -> list[str]:
    """What can be said of the gains: of each data set, and of the mean beside the paper's."""
    lines = []
    for architecture in ("unetpp", "unetpp_ds"):
        said: dict[str, list[str]] = {}
        for dataset in compared(results, datasets, architecture, "unet"):
            said.setdefault(_verdict(gain_over(results, [dataset], architecture, "unet", True)), []).append(dataset)
        of_data = "; ".join(f"{verdict} on {', '.join(names)}" for verdict, names in said.items()) or NOT_YET
        lines.append(f"- {NAMES[architecture]} against U-Net: {of_data}.")
    for other, papers in PAPER_GAIN.items():
        there, mean = compared(results, datasets, "unetpp_ds", other), _mean_gain(results, datasets, other)
        if mean is None:
            lines.append(f"- The paper's {papers:+} points over {NAMES[other]}: {NOT_YET}.")
            continue
        inside = "within" if mean.low <= papers / 100 <= mean.high else "outside"
        lines.append(
            f"- The paper's {papers:+} points over {NAMES[other]}, the mean of its four data sets, lie {inside} our interval for"
            f" {', '.join(there)}: {mean.points}."
        )
    best = {NAMES[a]: float(np.mean(each)) for a in ARCHITECTURES if (each := ious(results, ("nuclei", a)))}
    if best:
        name = max(best, key=lambda name: best[name])
        lines.append(
            f"- The best network on nuclei, {name}, has an IoU of {best[name]:.3f}; the reproduction that this project began with, {START}."
        )
    unet = ious(results, ("nodule", "unet"))
    if len(unet) > 1:
        lines.append(f"- The seeds of U-Net on nodules lie {100 * (max(unet) - min(unet)):.1f} points apart.")
    return lines


def _verdict(found: Gain | None) -> str:
    if found is None or found.low <= 0 <= found.high:
        return "not to be told from it"
    return "better" if found.low > 0 else "worse"


def _ended(results: Results, datasets: Sequence[str]) -> list[str]:
    """The largest gain of validation IoU by twice the steps, of each data set."""
    lines = []
    for dataset in datasets:
        ends = {NAMES[a]: both for a in ARCHITECTURES if (both := doubled(results, (dataset, a)))}
        if not ends:
            lines.append(f"- {dataset}: {NOT_YET}.")
            continue
        added = {name: whole.validation - half.validation for name, (half, whole) in ends.items()}
        most = max(added, key=lambda name: added[name])
        half, whole = ends[most]
        verdict = "less" if added[most] < ENOUGH else "not less"
        lines.append(
            f"- {dataset}: {whole.steps} steps instead of {half.steps} add at most {100 * added[most]:+.2f} points of validation IoU"
            f" ({most}; {len(ends)} of {len(ARCHITECTURES)} networks), {verdict} than {100 * ENOUGH}."
        )
    return lines


def _costs(results: Results, datasets: Sequence[str]) -> list[str]:
    """Time of an image against U-Net's, and IoU and time of UNet++ pruned to each level."""
    seconds = {
        (r["dataset"], r["network"]): float(r["seconds_per_image"]) for r in read_rows(results.folder / "speed.csv")
    }
    lines = []
    for dataset in datasets:
        line = [dataset, f"{seconds[dataset, 'unetpp_ds'] / seconds[dataset, 'unet']:.1f}"]
        for level in ("L4", "L3", "L2", "L1"):
            each = ious(results, (dataset, "unetpp_ds"), level)
            said = f"{percent(float(np.mean(each)))} " if each else ""
            line.append(f"{said}at {seconds[dataset, level] / seconds[dataset, 'L4']:.2f}")
        lines.append(line)
    head = [
        "data",
        "time of UNet++, U-Net = 1",
        *(f"{level}: IoU, % at time, L4 = 1" for level in ("L4", "L3", "L2", "L1")),
    ]
    return [
        *rows(head, lines),
        "",
        "Time is that of one image on one thread of a processor. Pruning needs no further training.",
    ]


def _scales(results: Results) -> list[str]:
    line = ("nuclei", "unetpp_ds")
    ours = ious(results, line)
    if not ours:
        return [f"{NOT_YET.capitalize()}."]
    case = percent(float(np.mean(ours)))
    together, both = (percent(mean_of(results, line, of)) for of in (Counts.compute_iou, Counts.mean_iou))
    return [
        f"The paper has {PAPER['nuclei']['unetpp_ds']} % on nuclei with deep supervision. The same weights of ours have {case} % as mean"
        f" IoU of an image, {together} % by the authors' `compute_iou` (all images' pixels together), and {both} % by their `mean_iou`,"
        " the mean of nuclei and background, and of ten thresholds. Which of the two the paper's table has, it does not say. Theirs were"
        " other images of the same collection, too.",
    ]


def _figures(results: Results) -> list[str]:
    there = {name: text for name, text in FIGURES.items() if (results.folder / name).exists()}
    return [line for name, text in there.items() for line in (f"![{text}]({name})", "")]
