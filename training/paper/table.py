"""The table of the recorded cells, as CSV and as a page."""

from __future__ import annotations

import numpy as np

from fit.settings import Settings
from paper import sections
from paper.counts import Counts
from paper.files import read_rows, write_rows
from paper.records import Results
from paper.summary import PAPER, gain_over, ious, mean_of, seconds_per_step
from paper.wording import NAMES, NOT_YET, percent, points, rows

CSV_COLUMNS = (
    "dataset", "architecture", "seeds", "iou_mean", "iou_spread", "compute_iou", "mean_iou", "parameters", "gflop",
    "seconds_per_image", "seconds_per_step",
)  # fmt: skip
COLUMNS = (
    "data", "network", "seeds", "IoU of a case, % ± spread over seeds", "points over U-Net, 95 % interval over cases",
    "over seeds and cases", "authors' `compute_iou`, %", "authors' `mean_iou`, %", "the paper, %", "parameters", "GFLOP", "s/image",
    "s/step",
)  # fmt: skip
NOTES = """\
- **IoU of a case** is that of the pixels of an image (nuclei, polyps) or of all slices of a patient (liver, nodule), at a probability
  of 0.5 and at the stored pixels, averaged over the cases. UNet++ with deep supervision answers with the mean of its heads.
- **compute_iou** and **mean_iou** are the two measures in the authors' code (`keras/helper_functions.py`), over the pixels of all
  images together: the organ at 0.5; and the mean of organ and background, and of the thresholds 0.50, 0.55 … 0.95. Their test script
  prints the first, their trainings watch the second; which of them the paper's table has, it does not say. The background, most of an
  image, lifts mean_iou above the organ's IoU. Hold the paper's 92.6 against these two columns, and an IoU of 0.83 against the first.
- The intervals are 95 % bootstraps of the mean difference, paired by seed and by case. **Over cases**: what other people would change,
  for the same weights. **Over seeds and cases**: what other people and another training would change.
- **s/step** is what a training step took in the fastest epoch, which other work of the machine slowed the least; **s/image** the
  processor time of one thread for an image of the patch's size, batch norm folded, all networks of a data set in turns. The paper's
  figures are as recalled."""


def write_table(results: Results, of_line: dict[tuple[str, str], Settings]) -> str:
    """Write table.csv and table.md from what is on record; return the latter's text.

    Args:
        results: The records, `speed.csv` among them.
        of_line: The table's lines: (data set, architecture) and the settings of its trainings.
    """
    speeds = {(r["dataset"], r["network"]): r for r in read_rows(results.folder / "speed.csv")}
    lines = {line: _figures(results, line, speeds[line]) for line in of_line}
    write_rows(results.folder / "table.csv", CSV_COLUMNS, [[*line, *figures] for line, figures in lines.items()])
    datasets = list(dict.fromkeys(dataset for dataset, _ in of_line))
    text = "\n".join([
        "# UNet++, U-Net and wide U-Net on four data sets",
        "",
        "Made by `python training/reproduce.py`; the records are in `cells.csv` and `cells/`. In two minutes: [README.md](README.md).",
        "",
        *rows(COLUMNS, [_line(results, line, figures) for line, figures in lines.items()]),
        "",
        *sections.trainings(results, of_line),
        "",
        *NOTES.splitlines(),
        *sections.few(results, datasets),
        "",
        "## The gain of deep supervision's UNet++",
        "",
        *sections.gains(results, datasets),
        "",
        "## Twice the steps",
        "",
        *sections.doubling(results, list(of_line)),
        "",
        "## What each head of deep supervision's UNet++ says",
        "",
        *sections.heads(results, datasets),
        "",
        "## The paper's loss against its code's",
        "",
        *sections.losses(results),
        "",
    ])  # fmt: skip
    (results.folder / "table.md").write_text(text, encoding="utf-8")
    return text


def _figures(results: Results, line: tuple[str, str], cost: dict[str, str]) -> list[str]:
    """The values of `CSV_COLUMNS` after the first two."""
    each = ious(results, line)
    step = seconds_per_step(results, line)
    return [
        str(len(each)),
        f"{np.mean(each):.4f}" if each else "",
        f"{np.std(each, ddof=1):.4f}" if len(each) > 1 else "",
        *(f"{value:.4f}" if (value := mean_of(results, line, of)) is not None else "" for of in (Counts.compute_iou, Counts.mean_iou)),
        cost["parameters"], cost["gflop"], cost["seconds_per_image"],
        f"{step:.2f}" if step is not None else "",
    ]  # fmt: skip


def _line(results: Results, line: tuple[str, str], figures: list[str]) -> list[str]:
    dataset, architecture = line
    seeds, mean, spread, compute_iou, mean_iou, parameters, gflop, image, step = figures
    iou = percent(float(mean)) + (f" ± {percent(float(spread))}" if spread else "") if mean else NOT_YET
    gains = ["", ""]
    if architecture != "unet":
        gains = [points(gain_over(results, [dataset], architecture, "unet", over)) for over in (False, True)]
    authors = [percent(float(value)) if value else "" for value in (compute_iou, mean_iou)]
    paper = f"{PAPER[dataset][architecture]:.2f}" if architecture in PAPER.get(dataset, {}) else ""
    return [
        dataset, NAMES[architecture], seeds, iou, *gains, *authors, paper, f"{int(parameters):,}", gflop, image, step,
    ]  # fmt: skip
