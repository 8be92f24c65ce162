"""Measures a model on a split of its slice folder: per patient, for each head and for means of several heads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from data.slices import Slice, read_slices
from data.targets import Target, load_target
from measure.heads import answer_of, answers, level_times
from measure.pictures import FOUND, TRUTH, Panel, save_atlas
from measure.pooled import FEW, Pooled, means_of, summary, true_coverage
from measure.truth import in_label_map, target_of
from UNetPlusPlusSegmentLib.core.agreement import TOLERANCE_MM, dice
from UNetPlusPlusSegmentLib.engine.label_map import has_steps, label_map, postprocess
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.engine.pixel_box import Box, grid_size
from UNetPlusPlusSegmentLib.network.bundle import Bundle

WORST = 12  # slices that are drawn for each patient


def evaluate(
    bundle: Bundle,
    data: str | Path,
    split: str = "val",
    every: int = 1,
    pictures: Path | None = None,
    target: Target | None = None,
) -> dict:
    """Measure the network alone and, if the card has post-processing or several labels, also the product's result.

    Both are measured for each head and for the means of several. Masks are compared at the stored pixels. Dice and IoU are pooled over
    a patient's slices. So are the in-plane distances between outlines, on slices whose pixel size comes from the scan's header. The
    product's result is compared with what a label map can show of a label, which loses what it shares with labels that take priority.

    Args:
        bundle: The model.
        data: Slice folder.
        split: Split to measure on. For each label, only slices where it is known count.
        every: Take only every N-th slice.
        pictures: Folder for a picture of each patient's worst slices; None: draw none.
        target: How to read the folder and its labels; None: the shipped target that the bundle names.

    Returns:
        `heads` (the network alone) and `postprocessed` (the product's result): from the name of an output (`L4`, `L3-L4`) to its
        `summary`. With several labels these are means over the labels, and `labels` has both for each label. `time`: the time of a
        slice by level, divided by that of the deepest one.

    Raises:
        BundleError, DataError, TargetError: The model or the data cannot be used, or the target lacks a label of the model.
    """
    names = [label.name for label in bundle.labels]
    target = target_of(bundle, target or load_target(bundle.target))
    engine = SliceEngine(bundle)
    items = read_slices(data, target, split)[::every]
    counts: dict[str, dict] = {name: defaultdict(lambda: defaultdict(lambda: defaultdict(Pooled))) for name in names}
    for patient, scans in _by_patient(items, target).items():
        drawn: list[tuple[Slice, np.ndarray]] = []
        for scan in scans:
            found = _found(engine, scan, target)
            truths = {"heads": scan, "postprocessed": [in_label_map(item, target) for item in scan]}
            answered = [(kind, answer, masks) for kind, by in found.items() for answer, masks in by.items()]
            for (kind, answer, masks), (number, name) in product(answered, enumerate(names)):
                _add(counts[name][kind][answer], patient, truths[kind], masks[:, number], number, target)
            drawn += zip(scan, found["heads"][answer_of(bundle)], strict=True)
        if pictures:
            _draw_worst(pictures / f"{patient}.png", f"{patient}, {answer_of(bundle)} of {bundle.name}", drawn)
    return {
        "command": f"python training/evaluate.py <bundle> --data <{bundle.target}> --split {split}"
        + (f" --every {every}" if every > 1 else ""),
        "split": split,
        "slices": len(items),
        "surface_tolerance_mm": TOLERANCE_MM,
        **_by_label({name: _summaries(of_kind) for name, of_kind in counts.items()}),
        "time": level_times(bundle, engine.device, _grid(bundle, items[0])),
    }


def _summaries(of_kind: dict[str, dict[str, dict[str, Pooled]]]) -> dict[str, dict[str, dict]]:
    return {kind: {answer: summary(pooled) for answer, pooled in each.items()} for kind, each in of_kind.items()}


def _by_label(of_label: dict[str, dict[str, dict[str, dict]]]) -> dict:
    """For one label, its figures; for several, the means of Dice and IoU over the labels that occur, and `labels` with each label's."""
    first, *others = of_label.values()
    if not others:
        return first
    means = {
        kind: {answer: means_of([each[kind][answer] for each in of_label.values()]) for answer in by_answer}
        for kind, by_answer in first.items()
    }
    return {**means, "labels": of_label}


def _add(
    pooled: dict[str, Pooled], patient: str, scan: list[Slice], masks: np.ndarray, label: int, target: Target
) -> None:
    for item, mask in zip(scan, masks, strict=True):
        if item.knows(label):
            pooled[patient].add(mask, item.mask[label], item.pixel_mm, outlines=_is_measured(item, target))


def _by_patient(items: list[Slice], target: Target) -> dict[str, list[list[Slice]]]:
    """The slices of each patient, grouped by scan (by nodule, if the images are crops), in anatomical order."""
    patients: dict[str, dict[tuple, list[Slice]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        patients[item.row[target.slices.group]][item.row.get("volume"), item.row.get("nodule")].append(item)
    for scans in patients.values():
        for scan in scans.values():
            scan.sort(key=lambda item: int(item.row.get("slice", 0)))
    return {patient: list(scans.values()) for patient, scans in patients.items()}


def _is_measured(item: Slice, target: Target) -> bool:
    """True if the pixel size was read from the scan's header, not recalled or assumed."""
    return target.slices.pixel_mm.known(item.row) is not None and item.row.get("size_from", "header") == "header"


def _found(engine: SliceEngine, scan: list[Slice], target: Target) -> dict[str, dict[str, np.ndarray]]:
    """Masks of the network alone (`heads`) and, where that differs, of the product (`postprocessed`), by output.

    Each is bool (slices, labels, rows, columns) at the stored pixels.
    """
    card = engine.bundle
    masks: dict[str, list[np.ndarray]] = defaultdict(list)
    maps: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = defaultdict(lambda: ([], []))
    for heads in _probabilities(engine, scan, target):
        for name, probability in answers(heads, card.depth).items():
            masks[name].append((probability >= card.threshold).numpy())
            maps[name][0].append(label_map(probability.numpy(), card, card.threshold))
            maps[name][1].append(probability.half().numpy())
    found = {"heads": {name: np.stack(each) for name, each in masks.items()}}
    if len(card.labels) > 1 or has_steps(card):
        values = np.array([label.value for label in card.labels])[:, None, None]
        found["postprocessed"] = {}
        for name, (labels, probabilities) in maps.items():
            labelmap = np.stack(labels)
            postprocess(labelmap, card, partial(_weights, np.stack(probabilities), card.threshold))
            found["postprocessed"][name] = labelmap[:, None] == values
    return found


def _weights(
    probability: np.ndarray, threshold: float, number: int, parts: np.ndarray, corner: Sequence[int]
) -> np.ndarray:
    """As `engine.signs.weights_of_parts`, but from probabilities (slices, labels, rows, columns) on the same pixels as the parts."""
    box = tuple(slice(start, start + length) for start, length in zip(corner, parts.shape, strict=True))
    excess = np.maximum(probability[:, number][box] - threshold, 0)
    return np.bincount(parts.ravel(), weights=excess.ravel())


def _probabilities(engine: SliceEngine, items: list[Slice], target: Target) -> Iterator[torch.Tensor]:
    """Probabilities (heads, labels, rows, columns) of each slice at its stored pixels."""
    for item in items:
        hu = target.to_hu(item.image)[None]
        for _, heads in engine.heads(
            hu, [0], Box.whole(1, _grid(engine.bundle, item)), engine.bundle.depth, torch.Tensor.cpu
        ):
            of_labels = heads.reshape(len(heads), -1, *heads.shape[-2:])
            yield F.interpolate(of_labels, hu.shape[1:], mode="bilinear")


def _grid(bundle: Bundle, item: Slice) -> tuple[int, int]:
    return grid_size(item.image.shape[:2], (item.pixel_mm, item.pixel_mm), bundle.pixel_mm)


def _draw_worst(path: Path, title: str, slices: list[tuple[Slice, np.ndarray]]) -> None:
    """Draw the slices with the most wrong pixels, the worst first; no file is written if no pixel is wrong."""
    wrong = [np.count_nonzero((mask != item.mask) & _trusted(item)) for item, mask in slices]
    panels = []
    for at in sorted(np.flatnonzero(wrong), key=lambda at: -wrong[at])[:WORST]:
        item, found = slices[at]
        truth, mask = ((each & _trusted(item)).any(axis=0) for each in (item.mask, found))
        how_good = f"Dice {dice(mask, truth):.3f}" if truth.any() else "no organ"
        panels.append(
            Panel(f"{item.row['file']}: {how_good}, {wrong[at]} pixels wrong", item.image, {TRUTH: truth, FOUND: mask})
        )
    if panels:
        save_atlas(path, panels, f"{title}, without post-processing: truth green, found red; most wrong pixels first")


def _trusted(item: Slice) -> np.ndarray:
    """bool (labels, 1, 1): the labels whose masks are complete."""
    return np.array([item.knows(label) for label in range(len(item.mask))])[:, None, None]


def as_table(figures: dict) -> str:
    """The figures as lines of text."""
    lines = [f"{figures['slices']} slices of {figures['split']}"]
    for label, each in figures.get("labels", {"": figures}).items():
        lines += [label] if label else []
        lines += ["the network alone", *(_line(name, head) for name, head in each["heads"].items())]
        if "postprocessed" in each:
            lines += ["as the product takes it, by the card, each scan's slices stacked in order"]
            lines += [_line(name, head) for name, head in each["postprocessed"].items()]
        lines += _warning(each["heads"])
    if "labels" in figures:
        lines += ["mean of the labels"]
        lines += [
            f"{name:>5}  Dice {mean['dice']}  IoU {mean['iou']}" for name, mean in figures["postprocessed"].items()
        ]
    device, reference, *levels = figures["time"].items()
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in levels)
    return "\n".join([*lines, f"time of a slice as ratio to {reference[1]}: {ratios} ({device[1]})"])


def _warning(heads: dict[str, dict]) -> list[str]:
    """What the intervals over a few patients are worth; all heads are measured on the same ones."""
    people = len(next(iter(heads.values()))["patients"])
    if not 2 <= people < FEW:
        return []
    return [
        f"{people} patients are few: such an interval over them contains the true mean {100 * true_coverage(people):.0f} % of the time,"
        " not 95 %."
    ]


def _line(name: str, head: dict) -> str:
    everyone = {**head["patients"], **head["without_organ"]}
    false = ", ".join(f"{p} {f['worst_false_mm2']:.0f} mm²" for p, f in everyone.items() if f["worst_false_mm2"])
    end = f"false: {false or '-'}"
    if head["dice"] is None:
        return f"{name:>5}  no patient with the organ  {end}"
    each = ", ".join(f"{p} {f['dice']:.3f}" for p, f in head["patients"].items())
    outlines = ", ".join(
        f"{p} {'∞' if f['hausdorff95_mm'] is None else f['hausdorff95_mm']} mm {f['surface_dice']:.3f}"
        for p, f in head["patients"].items()
        if "surface_dice" in f
    )
    interval = " ({:.3f}–{:.3f})".format(*head["dice_95"]) if head["dice_95"] else ""
    return (
        f"{name:>5}  Dice {head['dice']:.4f}{interval}  IoU {head['iou']:.4f}  [{each}]"
        f"  HD95, surface Dice: [{outlines}]  {end}"
    )
