#!/usr/bin/env python
"""Measures a bundle or a checkpoint on a split of its slice folder: per patient, per deep-supervision level.

python training/evaluate.py UNetPlusPlusSegment/Resources/Models/liver-ct-v0.1.0 --data ../shared/data/liver
python training/evaluate.py runs/liver/best.ckpt --data ../shared/data/liver --split val -o figures.json --pictures worst/
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from cards import bundle_from_checkpoint
from slices import DataError, Slice, read_slices
from targets import TARGETS, Target
from UNetPlusPlusSegmentLib.bundles import Bundle, BundleError, read_bundle
from UNetPlusPlusSegmentLib.inference import Box, SliceEngine, grid_size

BOOTSTRAP_DRAWS = 2000


@dataclass
class Pooled:
    """Pixels of one patient, counted over all slices."""

    overlap: int = 0
    found: int = 0
    true: int = 0
    false_mm2: float = 0.0  # largest area found on a slice without the organ

    def add(self, found: np.ndarray, truth: np.ndarray, pixel_mm: float) -> None:
        """Add one slice: bool (rows, columns) each."""
        self.overlap += int((found & truth).sum())
        self.found += int(found.sum())
        self.true += int(truth.sum())
        if not truth.any():
            self.false_mm2 = max(self.false_mm2, float(found.sum()) * pixel_mm**2)

    @property
    def dice(self) -> float:
        """2·overlap / (found + true)."""
        return 2 * self.overlap / (self.found + self.true)

    @property
    def iou(self) -> float:
        """Overlap / union."""
        return self.overlap / (self.found + self.true - self.overlap)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write JSON; 0 done, 1 refused with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="bundle folder, or checkpoint of train.py")
    parser.add_argument("--data", required=True, help="slice folder")
    parser.add_argument("--split", default="val")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th slice only")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as scratch:  # a checkpoint becomes a bundle: both are measured on one path
            model = given.model
            bundle = read_bundle(model) if model.is_dir() else bundle_from_checkpoint(model, Path(scratch) / "m", {})
            figures = evaluate(bundle, given.data, given.split, given.every)
    except (BundleError, DataError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    print(as_table(figures))
    if given.output:
        given.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def evaluate(bundle: Bundle, data: str | Path, split: str = "val", every: int = 1) -> dict:
    """Figures of the network alone, without post-processing: each level's own head, and means of several.

    Masks are compared at the stored pixels. Dice and IoU are pooled over a patient's slices; the mean is over the patients with the organ,
    its 95 % interval from a bootstrap over them.
    """
    target = TARGETS[bundle.target]
    patients: dict[str, list[Slice]] = defaultdict(list)
    for item in read_slices(data, target, split)[::every]:
        patients[item.row[target.group]].append(item)
    engine = SliceEngine(bundle)
    counts: dict[str, dict[str, Pooled]] = defaultdict(lambda: defaultdict(Pooled))
    for patient, items in patients.items():
        for item, chances in zip(items, _chances(engine, items, target), strict=True):
            for name, chance in _answers(chances).items():
                counts[name][patient].add((chance >= bundle.threshold).numpy(), item.mask, item.pixel_mm)
    return {
        "command": f"python training/evaluate.py <bundle> --data <{bundle.target}> --split {split}"
        + (f" --every {every}" if every > 1 else ""),
        "split": split,
        "slices": sum(map(len, patients.values())),
        "heads": {name: _summary(pooled) for name, pooled in counts.items()},
    }


def _chances(engine: SliceEngine, items: list[Slice], target: Target) -> Iterable[torch.Tensor]:
    """Probabilities (heads, rows, columns) of each slice at its stored pixels."""
    for item in items:
        hu = target.to_hu(item.image)[None]
        box = Box.whole(1, grid_size(hu.shape[1:], (item.pixel_mm, item.pixel_mm), engine.bundle.pixel_mm))
        for _, heads in engine.heads(hu, [0], box, len(engine.bundle.card["architecture"]["arguments"]["filters"]) - 1):
            yield F.interpolate(heads, hu.shape[1:], mode="bilinear")[:, 0]


def _answers(chances: torch.Tensor) -> dict[str, torch.Tensor]:
    """What one could take of heads 1…depth: each by itself (`L2`), and the mean from one of them to the last (`L2-L4`)."""
    depth = len(chances)
    alone = {f"L{level}": chances[level - 1] for level in range(1, depth + 1)}
    return alone | {f"L{first}-L{depth}": chances[first - 1 :].mean(0) for first in range(1, depth)}


def _summary(pooled: dict[str, Pooled]) -> dict:
    with_organ = {name: p for name, p in pooled.items() if p.true}
    dice = np.array([p.dice for p in with_organ.values()])
    draws = np.random.default_rng(0).choice(dice, (BOOTSTRAP_DRAWS, len(dice))).mean(1) if len(dice) else np.zeros(1)
    return {
        "dice": round(float(dice.mean()), 4),
        "dice_95": [round(float(x), 4) for x in np.percentile(draws, [2.5, 97.5])],
        "iou": round(float(np.mean([p.iou for p in with_organ.values()])), 4),
        "patients": {
            name: {"dice": round(p.dice, 4), "iou": round(p.iou, 4), "worst_false_mm2": round(p.false_mm2, 1)}
            for name, p in with_organ.items()
        },
        "without_organ": {name: {"worst_false_mm2": round(p.false_mm2, 1)} for name, p in pooled.items() if not p.true},
    }


def as_table(figures: dict) -> str:
    """The figures as lines of text."""
    lines = [f"{figures['slices']} slices of {figures['split']}"]
    for name, head in figures["heads"].items():
        each = ", ".join(f"{p} {f['dice']:.3f}" for p, f in head["patients"].items())
        everyone = {**head["patients"], **head["without_organ"]}
        false = ", ".join(f"{p} {f['worst_false_mm2']:.0f} mm²" for p, f in everyone.items() if f["worst_false_mm2"])
        low, high = head["dice_95"]
        lines.append(
            f"{name:>5}  Dice {head['dice']:.4f} ({low:.3f}–{high:.3f})  IoU {head['iou']:.4f}  [{each}]  false: {false or '-'}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
