"""Figures of a model on a split of its slice folder: per patient, for each head and for means of several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from data.slices import Slice, read_slices
from data.targets import TARGETS, Target
from measure.heads import answer_of, answers, level_times
from measure.pictures import FOUND, TRUTH, Panel, save_atlas
from measure.pooled import TOLERANCE_MM, Pooled, dice, summary
from UNetPlusPlusSegmentLib.core.masks import fill_holes, largest_component
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.engine.pixel_box import Box, grid_size
from UNetPlusPlusSegmentLib.network.bundle import Bundle
from UNetPlusPlusSegmentLib.network.card import PostProcessing

WORST = 12  # slices of a patient that are drawn
# Of a card's post-processing, as the engine takes them.
STEPS = {"largest_component": largest_component, "fill_holes": fill_holes}


def evaluate(
    bundle: Bundle, data: str | Path, split: str = "val", every: int = 1, pictures: Path | None = None
) -> dict:
    """Figures of the network alone and, where the card has post-processing, of what the product makes of it.

    Both for each level's own head and for means of several. Masks are compared at the stored pixels; Dice and IoU are pooled over a
    patient's slices, and so are distances between outlines, in plane, on the slices whose pixel size stands in the scan's header.

    Args:
        bundle: What to measure.
        data: Slice folder.
        split: Its rows that count.
        every: Take every n-th slice only.
        pictures: A folder for an atlas of each patient's worst slices.

    Returns:
        `heads` and `postprocessed`: from the name of an answer (`L4`, `L3-L4`) to its `summary`. `time`: a slice's time by level, as
        ratio to the deepest's.

    Raises:
        BundleError, DataError: The model or the data cannot be used.
    """
    target = TARGETS[bundle.target]
    engine = SliceEngine(bundle)
    items = read_slices(data, target, split)[::every]
    counts: dict[str, dict[str, dict[str, Pooled]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(Pooled)))
    for patient, scans in _by_patient(items, target).items():
        drawn: list[tuple[Slice, np.ndarray]] = []
        for scan in scans:
            found = _found(engine, scan, target)
            for name, masks in found.items():
                for kind, made in _as_used(masks, bundle.postprocessing).items():
                    _add(counts[kind][name][patient], scan, made, target)
            drawn += zip(scan, found[answer_of(bundle)], strict=True)
        if pictures:
            _draw_worst(pictures / f"{patient}.png", f"{patient}, {answer_of(bundle)} of {bundle.name}", drawn)
    return {
        "command": f"python training/evaluate.py <bundle> --data <{bundle.target}> --split {split}"
        + (f" --every {every}" if every > 1 else ""),
        "split": split,
        "slices": len(items),
        "surface_tolerance_mm": TOLERANCE_MM,
        **{kind: {name: summary(pooled) for name, pooled in by_name.items()} for kind, by_name in counts.items()},
        "time": level_times(bundle, engine.device, _grid(bundle, items[0])),
    }


def _as_used(masks: np.ndarray, how: PostProcessing) -> dict[str, np.ndarray]:
    """A scan's masks (slices, rows, columns) as the network says them, and as the product takes them where that differs."""
    steps = [step for key, step in STEPS.items() if getattr(how, key)]
    made = masks
    for step in steps:
        made = step(made)
    return {"heads": masks, "postprocessed": made} if steps else {"heads": masks}


def _add(pooled: Pooled, scan: list[Slice], masks: np.ndarray, target: Target) -> None:
    for item, mask in zip(scan, masks, strict=True):
        pooled.add(mask, item.mask, item.pixel_mm, outlines=_is_measured(item, target))


def _by_patient(items: list[Slice], target: Target) -> dict[str, list[list[Slice]]]:
    """The slices of each patient, scan by scan (nodule by nodule, where a file is the crop of one), in the order they lie in."""
    patients: dict[str, dict[tuple, list[Slice]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        patients[item.row[target.group]][item.row.get("volume"), item.row.get("nodule")].append(item)
    for scans in patients.values():
        for scan in scans.values():
            scan.sort(key=lambda item: int(item.row.get("slice", 0)))
    return {patient: list(scans.values()) for patient, scans in patients.items()}


def _is_measured(item: Slice, target: Target) -> bool:
    """True if the pixel size was read from the scan's header, not recalled or taken as usual."""
    return target.pixel_mm(item.row) is not None and item.row.get("size_from", "header") == "header"


def _found(engine: SliceEngine, scan: list[Slice], target: Target) -> dict[str, np.ndarray]:
    """The masks by answer: bool (slices, rows, columns) at the stored pixels."""
    each = [answers(heads, engine.bundle.depth) for heads in _probabilities(engine, scan, target)]
    threshold = engine.bundle.threshold
    return {name: np.stack([(a[name] >= threshold).numpy() for a in each]) for name in each[0]}


def _probabilities(engine: SliceEngine, items: list[Slice], target: Target) -> Iterator[torch.Tensor]:
    """Probabilities (heads, rows, columns) of each slice at its stored pixels."""
    for item in items:
        hu = target.to_hu(item.image)[None]
        for _, heads in engine.heads(
            hu, [0], Box.whole(1, _grid(engine.bundle, item)), engine.bundle.depth, torch.Tensor.cpu
        ):
            yield F.interpolate(heads, hu.shape[1:], mode="bilinear")[:, 0]


def _grid(bundle: Bundle, item: Slice) -> tuple[int, int]:
    return grid_size(item.image.shape[:2], (item.pixel_mm, item.pixel_mm), bundle.pixel_mm)


def _draw_worst(path: Path, title: str, slices: list[tuple[Slice, np.ndarray]]) -> None:
    """An atlas of the slices with the most wrong pixels, the worst first; none if no pixel is wrong."""
    wrong = [np.count_nonzero(mask != item.mask) for item, mask in slices]
    panels = []
    for at in sorted(np.flatnonzero(wrong), key=lambda at: -wrong[at])[:WORST]:
        item, mask = slices[at]
        how_good = f"Dice {dice(mask, item.mask):.3f}" if item.mask.any() else "no organ"
        panels.append(
            Panel(
                f"{item.row['file']}: {how_good}, {wrong[at]} pixels wrong", item.image, {TRUTH: item.mask, FOUND: mask}
            )
        )
    if panels:
        save_atlas(path, panels, f"{title}, without post-processing: truth green, found red; most wrong pixels first")


def as_table(figures: dict) -> str:
    """The figures as lines of text."""
    lines = [f"{figures['slices']} slices of {figures['split']}, the network alone"]
    lines += [_line(name, head) for name, head in figures["heads"].items()]
    if "postprocessed" in figures:
        lines += ["after the post-processing of the card, each scan's slices stacked in order"]
        lines += [_line(name, head) for name, head in figures["postprocessed"].items()]
    device, reference, *levels = figures["time"].items()
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in levels)
    return "\n".join([*lines, f"time of a slice as ratio to {reference[1]}: {ratios} ({device[1]})"])


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
    low, high = head["dice_95"]
    return (
        f"{name:>5}  Dice {head['dice']:.4f} ({low:.3f}–{high:.3f})  IoU {head['iou']:.4f}  [{each}]"
        f"  HD95, surface Dice: [{outlines}]  {end}"
    )
