"""Writes the table of the recorded cells, as CSV and as Markdown."""

from __future__ import annotations

import numpy as np

from fit.settings import Settings
from paper import sections
from paper.counts import Counts
from paper.files import read_rows, write_rows
from paper.records import Results
from paper.summary import PAPER, ious, mean_of
from paper.wording import NAMES, NOT_YET, percent, rows

CSV_COLUMNS = (
    "dataset", "architecture", "seeds", "iou_mean", "iou_spread", "compute_iou", "mean_iou", "parameters", "gflop",
    "seconds_per_image", "seconds_per_step",
)  # fmt: skip
COLUMNS = (
    "data", "network", "seeds", "IoU of a case, % ± standard deviation over seeds", "points over U-Net, 95 % interval over cases",
    "over seeds and cases", "authors' `compute_iou`, %", "authors' `mean_iou`, %", "the paper, %", "parameters", "GFLOP", "s/image",
    "s/step",
)  # fmt: skip
NOTES = """\
- **IoU of a case**: the IoU of an image (nuclei, polyps) or of all slices of a patient (liver, nodule), at a threshold of 0.5 and at the
  stored pixels, averaged over the cases that show the organ. For UNet++ with deep supervision, the mean of its heads is measured, as in
  the paper.
- **compute_iou** and **mean_iou** are the two measures of the authors' code (`keras/helper_functions.py`), over the pixels of all images
  together: the IoU of the organ at 0.5; and the mean IoU over organ and background and over the thresholds 0.50, 0.55 … 0.95. Their test
  script prints the first, and their trainings report the second; the paper does not say which of them its table has. mean_iou is higher,
  because most of an image is background. Compare the paper's figures with these two columns.
- Intervals are 95 % bootstrap intervals of the mean difference, paired by seed and by case. **Over cases** shows the variation between
  cases for the same weights. **Over seeds and cases** also includes the variation between trainings, which one seed cannot show.
- A difference is of the seeds that both networks have, so it is not that of the two means where one network has more seeds.
- **s/image** is the processor time of one thread for an image of the patch's size, with batch norm folded; **s/step** is that of a training
  step. All networks of a data set are timed in turns.
- **The paper**: Zhou et al. 2018, quoted from memory; its mean gains agree with the abstract's 3.9 and 3.4 points. Its polyps are those of
  ASU-Mayo's videos (the authors' `keras/README.md`), ours those of Kvasir-SEG. Image sizes and splits differ on all data sets."""


def write_table(results: Results, of_line: dict[tuple[str, str], Settings]) -> str:
    """Write table.csv and table.md from the records, and return the text of table.md.

    Args:
        results: The records, with `speed.csv`.
        of_line: The lines of the table: (data set, architecture), with the settings of its trainings.
    """
    speeds = {(r["dataset"], r["network"]): r for r in read_rows(results.folder / "speed.csv")}
    lines = {line: _figures(results, line, speeds[line]) for line in of_line}
    write_rows(results.folder / "table.csv", CSV_COLUMNS, [[*line, *figures] for line, figures in lines.items()])
    datasets = list(dict.fromkeys(dataset for dataset, _ in of_line))
    text = "\n".join([
        "# UNet++, U-Net and wide U-Net on four data sets",
        "",
        "Made by `python training/reproduce.py` from the records in `cells.csv` and `cells/`. [README.md](README.md) is the summary.",
        "",
        *rows(COLUMNS, [_line(results, line, figures) for line, figures in lines.items()]),
        "",
        *sections.trainings(results, of_line),
        "",
        *NOTES.splitlines(),
        *sections.few(results, datasets),
        "",
        "## Gain of UNet++ with deep supervision",
        "",
        *sections.gains(results, datasets),
        "",
        "## Twice the steps",
        "",
        *sections.doubling(results, of_line),
        "",
        "## Each head of UNet++ with deep supervision",
        "",
        *sections.heads(results, datasets),
        "",
        "## The paper's loss compared with that of its code",
        "",
        *sections.losses(results),
        "",
    ])  # fmt: skip
    (results.folder / "table.md").write_text(text, encoding="utf-8")
    return text


def _figures(results: Results, line: tuple[str, str], cost: dict[str, str]) -> list[str]:
    """The values of `CSV_COLUMNS` after the first two."""
    each = ious(results, line)
    return [
        str(len(each)),
        f"{np.mean(each):.4f}" if each else "",
        f"{np.std(each, ddof=1):.4f}" if len(each) > 1 else "",
        *(f"{value:.4f}" if (value := mean_of(results, line, of)) is not None else "" for of in (Counts.compute_iou, Counts.mean_iou)),
        cost["parameters"], cost["gflop"], cost["seconds_per_image"], cost["seconds_per_step"],
    ]  # fmt: skip


def _line(results: Results, line: tuple[str, str], figures: list[str]) -> list[str]:
    dataset, architecture = line
    seeds, mean, spread, compute_iou, mean_iou, parameters, gflop, image, step = figures
    iou = percent(float(mean)) + (f" ± {percent(float(spread))}" if spread else "") if mean else NOT_YET
    gains = sections.gains_over(results, [dataset], architecture, "unet") if architecture != "unet" else ["", ""]
    authors = [percent(float(value)) if value else "" for value in (compute_iou, mean_iou)]
    paper = f"{PAPER[dataset][architecture]:.2f}" if architecture in PAPER.get(dataset, {}) else ""
    return [
        dataset, NAMES[architecture], seeds, iou, *gains, *authors, paper, f"{int(parameters):,}", gflop, image, step,
    ]  # fmt: skip
