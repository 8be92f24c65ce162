"""Which separate parts of a label post-processing should keep: Dice for several choices, on whole and on shortened scans."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from data.targets import Target
from measure.dense_runs import Scan, cut_short, dense_runs
from measure.truth import target_of
from UNetPlusPlusSegmentLib.core.masks import components
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.engine.label_map import heavy_parts
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.engine.signs import weights_of_parts
from UNetPlusPlusSegmentLib.network.bundle import Bundle
from UNetPlusPlusSegmentLib.network.card import PostProcessing

# Shares of the heaviest part's weight that are tried for `least_part` and `least_part_at_end`; 1 keeps the heaviest part alone.
LEAST, AT_END = (1.0, 0.3, 0.2, 0.1, 0.05), (1.0, 0.3, 0.2, 0.1, 0.05, 0.03)
STEPS = [
    PostProcessing(least_part=least, least_part_at_end=end) for least, end in product(LEAST, AT_END) if end <= least
]
CUTS = tuple(np.arange(0.15, 0.9, 0.05).round(2).tolist())  # shares of the organ's height that are left
COUNTS = 0.005  # smallest difference of Dice that counts as better or worse


def measure(bundle: Bundle, folder: Path, target: Target, split: str) -> dict:
    """Dice for each pair of `least_part` and `least_part_at_end` in a card's post-processing; holes are not filled.

    Each slice is segmented by itself, so the network runs only once for each scan, at `accurate`; scans are shortened afterwards.

    Returns:
        `labels`: for each label, and for `whole` scans and their `lower` and `upper` parts, a row for each pair: mean and lowest Dice,
        and the numbers of scans in which it is better or worse than with the heaviest part alone.
    """
    bare = replace(
        bundle,
        postprocessing=PostProcessing(),
        labels=tuple(replace(each, postprocessing=None) for each in bundle.labels),
    )
    engine = SliceEngine(bare)
    found: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    scans = 0
    for scan in dense_runs(folder, target_of(bundle, target), split):
        scans += 1
        maps = engine.predict(scan.volume, Request(bundle.target, speed="accurate"))
        labelmap = maps.at().labelmap
        for (first, stop, kind), (number, label) in product(_ranges(scan), enumerate(bundle.labels)):
            parts = components(labelmap[first:stop] == label.value)
            truth, stored = scan.truth[number, first:stop], scan.stored[first:stop]
            if parts.max() and scan.known[number] and truth[stored].any():
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
    """First slice, last slice + 1 and kind (whole, lower, upper) of the whole scan and of each shortened one."""
    slices = len(scan.stored)
    short = [(each, each.change.split(" ")[0]) for each in cut_short(scan, CUTS)]
    lengths = [(len(each.stored), kind) for each, kind in short]
    return [
        (0, slices, "whole"),
        *((0, n, kind) if kind == "lower" else (slices - n, slices, kind) for n, kind in lengths),
    ]


def _dices(parts: np.ndarray, truth: np.ndarray, weights: np.ndarray, ends: np.ndarray) -> list[float]:
    """The Dice with each of `STEPS`."""
    sizes = np.bincount(parts.ravel(), minlength=len(weights))
    overlaps = np.bincount(parts[truth], minlength=len(weights))
    kept = [heavy_parts(weights, ends, steps) for steps in STEPS]
    return [float(2 * overlaps[keep].sum() / (sizes[keep].sum() + truth.sum())) for keep in kept]


def _compared(dices: np.ndarray) -> list[dict]:
    """A row for each of `STEPS`, from the Dice (scans, steps); the first step keeps the heaviest part alone."""
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
        f"{figures['scans']} scans of {figures['split']}; better or worse: by more than {COUNTS:g} than with the heaviest part alone"
    ]
    for name, by_kind in figures["labels"].items():
        for kind, rows in by_kind.items():
            lines += [f"{name}, {kind}", *(_line(row) for row in rows)]
    return "\n".join(lines)


def _line(row: dict) -> str:
    return (
        f"  least_part {row['least_part']:4}  at_end {row['least_part_at_end']:4}  Dice {row['dice']:.4f}"
        f" (lowest {row['dice_least']:.3f})  better {row['better']}, worse {row['worse']} of {row['scans']}"
    )
