"""The table of the recorded cells, with spreads and paired intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fit.settings import Settings
from paper.cells import COMPARED_LOSS, Cell, Results, read_rows, split_of, write_rows

NAMES = {
    "unet": "U-Net", "wide_unet": "wide U-Net", "unet_plus": "UNet+", "unetpp": "UNet++", "unetpp_ds": "UNet++, deep supervision",
}  # fmt: skip
# IoU of the paper's table in per cent, as recalled; their mean gains are the abstract's 3.9 and 3.4 points.
PAPER = {
    "nuclei": {"unet": 90.77, "wide_unet": 90.92, "unetpp": 92.63, "unetpp_ds": 92.52},
    "polyp": {"unet": 30.08, "wide_unet": 30.14, "unetpp": 33.45, "unetpp_ds": 32.12},
    "liver": {"unet": 76.62, "wide_unet": 76.58, "unetpp": 79.70, "unetpp_ds": 82.90},
    "nodule": {"unet": 71.47, "wide_unet": 73.38, "unetpp": 76.44, "unetpp_ds": 77.21},
}
PAPER_GAIN = {"unet": 3.9, "wide_unet": 3.4}
NOT_YET = "not yet run"
DRAWS = 10_000


def write_table(results: Results, of_line: dict[tuple[str, str], Settings]) -> str:
    """Write table.csv and table.md from what is on record; return the latter's text.

    Args:
        results: The records, `speed.csv` among them.
        of_line: The table's lines: (data set, architecture) and the settings of its trainings.
    """
    speeds = {(r["dataset"], r["network"]): r for r in read_rows(results.folder / "speed.csv")}
    csv_rows, lines = [], []
    for dataset, architecture in of_line:
        cost = speeds[dataset, architecture]
        done = done_cells(results, dataset, architecture)
        means = [np.mean(list(results.ious(cell).values())) for cell in done]
        mean, spread, iou = "", "", NOT_YET
        if done:
            mean = f"{np.mean(means):.4f}"
            iou = f"{100 * np.mean(means):.2f}"
        if len(done) > 1:
            spread = f"{np.std(means, ddof=1):.4f}"
            iou += f" ± {100 * np.std(means, ddof=1):.2f}"
        costs = [cost["parameters"], cost["gflop"], cost["seconds_per_image"]]
        csv_rows.append([dataset, architecture, len(done), mean, spread, *costs])
        paper = f"{PAPER[dataset][architecture]:.2f}" if architecture in PAPER.get(dataset, {}) else ""
        lines.append(
            f"| {dataset} | {NAMES[architecture]} | {iou} | {len(done)} | {_difference(results, dataset, architecture)} |"
            f" {paper} | {int(cost['parameters']):,} | {cost['gflop']} | {cost['seconds_per_image']} |"
        )
    header = ["dataset", "architecture", "seeds", "iou_mean", "iou_spread", "parameters", "gflop", "seconds_per_image"]
    write_rows(results.folder / "table.csv", header, csv_rows)
    text = "\n".join([
        "# UNet++, U-Net and wide U-Net on four data sets",
        "",
        "Made by `python training/reproduce.py`; the records are in `cells.csv` and `cells/`.",
        "",
        "| data | network | IoU, % ± spread | seeds | points over U-Net, 95 % interval | paper | parameters | GFLOP | s/image |",
        "|---|---|---|---|---|---|---|---|---|",
        *lines,
        "",
        *_sizes(results, of_line),
        "",
        "IoU is that of a case's pixels, averaged over the cases: a case is an image of nuclei or polyps, and all slices of"
        " a patient for liver and nodule. UNet++ with deep supervision answers with the mean of its heads. The interval is a"
        " bootstrap over the cases, paired: each case's difference, averaged over the seeds both networks have."
        " Parameters, GFLOP and seconds are those of one image of the patch's size, batch norm folded: processor time of one thread,"
        " all networks of a data set in turns in one run. The paper's figures are as recalled.",
        "",
        "## The gain of deep supervision's UNet++",
        "",
        *_gains(results, [dataset for dataset, _ in of_line]),
        "",
        "## What each head of deep supervision's UNet++ says",
        "",
        *_heads(results, [dataset for dataset, _ in of_line]),
        "",
        "## The paper's loss against its code's",
        "",
        *_losses(results),
        "",
    ])  # fmt: skip
    (results.folder / "table.md").write_text(text, encoding="utf-8")
    return text


def paired(results: Results, one: Sequence[Cell], other: Sequence[Cell]) -> tuple[float, float, float] | None:
    """The mean difference of IoU, one less other, and its 95 % interval, from a bootstrap over the cases; None if either lacks.

    Only seeds that both have count: they were trained on the same patches in the same order.
    """
    seeds = {cell.seed for cell in one} & {cell.seed for cell in other}
    if not seeds:
        return None
    first, second = ([results.ious(cell) for cell in cells if cell.seed in seeds] for cells in (one, other))
    cases = list(first[0])
    difference = np.array([np.mean([a[case] - b[case] for a, b in zip(first, second, strict=True)]) for case in cases])
    draws = np.random.default_rng(0).choice(difference, (DRAWS, len(cases))).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(difference.mean()), float(low), float(high)


def done_cells(results: Results, dataset: str, architecture: str, loss: str = "bce_dice") -> list[Cell]:
    """The finished cells of one line of the table, by seed."""
    cells = [c for c in results.done() if (c.dataset, c.architecture, c.loss) == (dataset, architecture, loss)]
    return sorted(cells, key=lambda cell: cell.seed)


def _difference(results: Results, dataset: str, architecture: str) -> str:
    if architecture == "unet":
        return ""
    found = paired(results, done_cells(results, dataset, architecture), done_cells(results, dataset, "unet"))
    return _points(found) if found else NOT_YET


def _points(found: tuple[float, float, float]) -> str:
    mean, low, high = (100 * x for x in found)
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def _sizes(results: Results, of_line: dict[tuple[str, str], Settings]) -> list[str]:
    """Patch, steps, cases and minutes of each data set's trainings."""
    lines = []
    for dataset in dict.fromkeys(dataset for dataset, _ in of_line):
        settings = next(s for (d, _), s in of_line.items() if d == dataset)
        rows = [row for cell, row in results.done().items() if cell.dataset == dataset]
        minutes = [float(row["minutes"]) for row in rows]
        took = f"; {min(minutes):.0f} to {max(minutes):.0f} minutes each, beside other work" if minutes else ""
        cases = f", {rows[0]['cases']} cases of `{split_of(dataset)}`" if rows else ""
        rows_columns = "×".join(map(str, settings.patch))
        lines.append(
            f"- {dataset}: patches of {rows_columns}, {settings.steps} steps of {settings.batch_size}{cases}{took}."
        )
    return lines


def _gains(results: Results, datasets: Sequence[str]) -> list[str]:
    lines = ["| over | mean gain, points | data sets | paper |", "|---|---|---|---|"]
    for other, paper in PAPER_GAIN.items():
        gains = {
            dataset: paired(results, done_cells(results, dataset, "unetpp_ds"), done_cells(results, dataset, other))
            for dataset in dict.fromkeys(datasets)
        }
        there = {dataset: gain[0] for dataset, gain in gains.items() if gain}
        mean = f"{100 * np.mean(list(there.values())):+.2f}" if there else NOT_YET
        lines.append(f"| {NAMES[other]} | {mean} | {', '.join(there) or '-'} | {paper:+} |")
    return lines


def _heads(results: Results, datasets: Sequence[str]) -> list[str]:
    """IoU of the mean of the heads, which the table takes, and of each by itself, averaged over the seeds."""
    lines = ["| data | mean of the heads | L1 | L2 | L3 | L4 |", "|---|---|---|---|---|---|"]
    for dataset in dict.fromkeys(datasets):
        done = done_cells(results, dataset, "unetpp_ds")
        means = [
            np.mean([np.mean(list(results.ious(cell, answer).values())) for cell in done]) if done else None
            for answer in ("all", "L1", "L2", "L3", "L4")
        ]
        said = " | ".join(NOT_YET if mean is None else f"{100 * mean:.2f}" for mean in means)
        lines.append(f"| {dataset} | {said} |")
    return lines


def _losses(results: Results) -> list[str]:
    dataset, architecture, loss = COMPARED_LOSS
    papers, codes = done_cells(results, dataset, architecture, loss), done_cells(results, dataset, architecture)
    found = paired(results, papers, codes)
    said = f"{_points(found)} points of IoU" if found else NOT_YET
    return [
        f"Eq. 3 of the paper (`loss=hybrid`) less ½ BCE + Dice over the batch, as the authors' code has it (`loss=bce_dice`, the table's):"
        f" {said}, on {dataset} with {NAMES[architecture]}, {len(papers)} seeds."
    ]
