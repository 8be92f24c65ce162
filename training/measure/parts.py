"""Parts of a label on dense runs laid back as volumes, whole and cut short: which light ones post-processing should drop."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from data.targets import Target
from measure.laid_back import Scan, cut_short, dense_runs
from UNetPlusPlusSegmentLib.core.masks import components
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.engine.label_map import heavy_parts
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.engine.signs import weights_of_parts
from UNetPlusPlusSegmentLib.network.bundle import Bundle
from UNetPlusPlusSegmentLib.network.card import PostProcessing

LEAST, AT_END = (
    (1.0, 0.3, 0.2, 0.1, 0.05),
    (1.0, 0.3, 0.2, 0.1, 0.05, 0.03),
)  # shares that are tried; 1: the heaviest alone
STEPS = [
    PostProcessing(least_part=least, least_part_at_end=end) for least, end in product(LEAST, AT_END) if end <= least
]
CUTS = tuple(np.arange(0.15, 0.9, 0.05).round(2).tolist())  # shares of the organ's height that are left
COUNTS = 0.005  # a difference of Dice that does


def measure(bundle: Bundle, folder: Path, target: Target, split: str) -> dict:
    """Dice of the parts that stay, by the shares in a card's post-processing; holes are not filled.

    Each slice is segmented by itself, so the network runs once for each scan, at `accurate`, and slices are left out afterwards.

    Returns:
        `labels`: by name, and by `whole`, `lower` and `upper` of scans, a row for each pair of shares: mean and least Dice, and the
        number of scans in which it is better, or worse, than that of the heaviest part alone.
    """
    bare = replace(
        bundle,
        postprocessing=PostProcessing(),
        labels=tuple(replace(each, postprocessing=None) for each in bundle.labels),
    )
    engine = SliceEngine(bare)
    found: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    scans = 0
    for scan in dense_runs(folder, target, split):
        scans += 1
        maps = engine.predict(scan.volume, Request(bundle.target, speed="accurate"))
        labelmap = maps.at().labelmap
        for (first, stop, kind), (number, label) in product(_ranges(scan), enumerate(bundle.labels)):
            parts = components(labelmap[first:stop] == label.value)
            truth, stored = scan.truth[number, first:stop], scan.stored[first:stop]
            if parts.max() and truth[stored].any():
                weights = weights_of_parts(maps.pixels, maps.threshold, number, parts, (first, 0, 0), parts.shape[1:])
                found[label.name][kind].append(_dices(parts[stored], truth[stored], weights, parts[[0, -1]]))
    return {
        "command": f"python training/evaluate.py <bundle> --data <{bundle.target}> --split {split} --parts",
        "split": split,
        "scans": scans,
        "labels": {
            name: {kind: _compared(np.array(dices)) for kind, dices in by_kind.items()}
            for name, by_kind in found.items()
        },
    }


def _ranges(scan: Scan) -> list[tuple[int, int, str]]:
    """First slice, last slice + 1 and kind of the whole scan, and of what is left of it when it is cut short."""
    slices = len(scan.stored)
    short = [(each, each.change.split(" ")[0]) for each in cut_short(scan, CUTS)]
    lengths = [(len(each.stored), kind) for each, kind in short]
    return [
        (0, slices, "whole"),
        *((0, n, kind) if kind == "lower" else (slices - n, slices, kind) for n, kind in lengths),
    ]


def _dices(parts: np.ndarray, truth: np.ndarray, weights: np.ndarray, ends: np.ndarray) -> list[float]:
    """Dice with each of `STEPS`."""
    sizes = np.bincount(parts.ravel(), minlength=len(weights))
    overlaps = np.bincount(parts[truth], minlength=len(weights))
    kept = [heavy_parts(weights, ends, steps) for steps in STEPS]
    return [float(2 * overlaps[keep].sum() / (sizes[keep].sum() + truth.sum())) for keep in kept]


def _compared(dices: np.ndarray) -> list[dict]:
    """Rows for `STEPS`, of Dice (scans, steps); the first of them keeps the heaviest part alone."""
    gains = dices - dices[:, :1]
    return [
        {
            "least_part": steps.least_part,
            "least_part_at_end": steps.least_part_at_end,
            "dice": round(float(dices[:, n].mean()), 4),
            "dice_least": round(float(dices[:, n].min()), 4),
            "better": int((gains[:, n] > COUNTS).sum()),
            "worse": int((gains[:, n] < -COUNTS).sum()),
            "scans": len(dices),
        }
        for n, steps in enumerate(STEPS)
    ]


def as_table(figures: dict) -> str:
    """The figures as lines of text."""
    lines = [
        f"{figures['scans']} scans of {figures['split']}; better and worse than the heaviest part alone by {COUNTS:g}"
    ]
    for name, by_kind in figures["labels"].items():
        for kind, rows in by_kind.items():
            lines += [f"{name}, {kind}", *(_line(row) for row in rows)]
    return "\n".join(lines)


def _line(row: dict) -> str:
    return (
        f"  least_part {row['least_part']:4}  at_end {row['least_part_at_end']:4}  Dice {row['dice']:.4f}"
        f" (least {row['dice_least']:.3f})  better {row['better']}, worse {row['worse']} of {row['scans']}"
    )
