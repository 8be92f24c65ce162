#!/usr/bin/env python
"""Measures a bundle or a checkpoint on a split of its slice folder: per patient, per deep-supervision level.

python training/evaluate.py UNetPlusPlusSegment/Resources/Models/liver-ct-v1.0.0 --data ../shared/data/liver
python training/evaluate.py runs/liver/best.ckpt --data ../shared/data/liver --split val -o figures.json --pictures runs/liver/worst
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from card.cards import bundle_from_checkpoint
from data.slices import DataError, Slice, read_slices
from data.targets import TARGETS, Target
from measure.pictures import FOUND, TRUTH, Panel, PicturesError, private_folder, save_atlas
from measure.pooled import TOLERANCE_MM, Pooled, dice, summary
from UNetPlusPlusSegmentLib.core.masks import fill_holes, largest_component
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.engine.pixel_box import Box, grid_size
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError, read_bundle

WORST = 12  # slices of a patient that are drawn
ROUNDS = 9  # of the timing
# Of a card's post-processing, as the engine takes them.
STEPS = {"largest_component": largest_component, "fill_holes": fill_holes}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write JSON; 0 done, 1 refused with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="bundle folder, or checkpoint of train.py")
    parser.add_argument("--data", required=True, help="slice folder")
    parser.add_argument("--split", default="val")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th slice only")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help=f"draw the {WORST} worst slices of each patient: a PNG each"
    )
    given = parser.parse_args(arguments)
    try:
        pictures = private_folder(given.pictures) if given.pictures else None
        with tempfile.TemporaryDirectory() as scratch:  # a checkpoint becomes a bundle: both are measured on one path
            model = given.model
            bundle = read_bundle(model) if model.is_dir() else bundle_from_checkpoint(model, Path(scratch) / "m", {})
            figures = evaluate(bundle, given.data, given.split, given.every, pictures)
    except (BundleError, DataError, PicturesError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    print(as_table(figures))
    if given.output:
        given.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


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
    steps = [step for key, step in STEPS.items() if getattr(bundle.postprocessing, key)]
    items = read_slices(data, target, split)[::every]
    counts: dict[str, dict[str, dict[str, Pooled]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(Pooled)))
    for patient, scans in _by_patient(items, target).items():
        panels = []
        for scan in scans:
            found = _found(engine, scan, target)
            for name, raw in found.items():
                made = raw
                for step in steps:
                    made = step(made)
                for kind, masks in {"heads": raw, **({"postprocessed": made} if steps else {})}.items():
                    for item, mask in zip(scan, masks, strict=True):
                        known = _is_measured(item, target)
                        counts[kind][name][patient].add(mask, item.mask, item.pixel_mm, outlines=known)
            panels += zip(scan, found[answer_of(bundle)], strict=True)
        if pictures:
            _draw_worst(pictures / f"{patient}.png", f"{patient}, {answer_of(bundle)} of {bundle.name}", panels)
    return {
        "command": f"python training/evaluate.py <bundle> --data <{bundle.target}> --split {split}"
        + (f" --every {every}" if every > 1 else ""),
        "split": split,
        "slices": len(items),
        "surface_tolerance_mm": TOLERANCE_MM,
        **{kind: {name: summary(pooled) for name, pooled in by_name.items()} for kind, by_name in counts.items()},
        "time": _times(bundle, engine, items[0]),
    }


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
    """Whether the pixel size was read from the scan's header, not recalled or taken as usual."""
    return target.pixel_mm(item.row) is not None and item.row.get("size_from", "header") == "header"


def _found(engine: SliceEngine, scan: list[Slice], target: Target) -> dict[str, np.ndarray]:
    """What each answer finds: bool (slices, rows, columns) at the stored pixels."""
    each = [answers(chances, engine.bundle.depth) for chances in _chances(engine, scan, target)]
    threshold = engine.bundle.threshold
    return {name: np.stack([(a[name] >= threshold).numpy() for a in each]) for name in each[0]}


def _chances(engine: SliceEngine, items: list[Slice], target: Target) -> Iterator[torch.Tensor]:
    """Probabilities (heads, rows, columns) of each slice at its stored pixels."""
    for item in items:
        hu = target.to_hu(item.image)[None]
        for _, heads in engine.heads(hu, [0], Box.whole(1, _grid(engine.bundle, item)), engine.bundle.depth):
            yield F.interpolate(heads, hu.shape[1:], mode="bilinear")[:, 0]


def _grid(bundle: Bundle, item: Slice) -> tuple[int, int]:
    return grid_size(item.image.shape[:2], (item.pixel_mm, item.pixel_mm), bundle.pixel_mm)


def answers(chances: torch.Tensor, depth: int) -> dict[str, torch.Tensor]:
    """What one could take of the heads up to a depth: each by itself (`L2`), and the mean from one to the last (`L2-L4`)."""
    levels = range(depth - len(chances) + 1, depth + 1)  # without deep supervision there is but one head
    alone = {f"L{level}": chance for level, chance in zip(levels, chances, strict=True)}
    return alone | {f"L{level}-L{depth}": chances[n:].mean(0) for n, level in enumerate(levels) if level < depth}


def answer_of(bundle: Bundle) -> str:
    """The name of the answer that the card has the product give when it takes all heads."""
    first, depth = bundle.average_from, bundle.depth
    return f"L{first}-L{depth}" if first < depth else f"L{depth}"


def _times(bundle: Bundle, engine: SliceEngine, item: Slice) -> dict:
    """The time that each pruned network, and all heads together, take for one slice, as ratio to the deepest head's.

    Each round runs them all, one after the other, and gives one ratio of each: whatever else the machine does weighs on all alike.
    """
    depth, device = bundle.depth, engine.device
    whole = bundle.load_network()
    networks = {f"L{level}": whole.pruned(level) for level in whole.heads}
    if len(whole.heads) > 1:
        networks[f"L1-L{depth}"] = whole
    image = torch.rand(1, 1, *_grid(bundle, item)).to(device.kind, device.dtype, memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = defaultdict(list)
    with torch.inference_mode():
        for network in networks.values():
            network.to(device.kind, device.dtype, memory_format=torch.channels_last)(image)
        for _ in range(ROUNDS):
            for name, network in networks.items():
                start = time.perf_counter()
                [head.cpu() for head in network(image)]
                seconds[name].append(time.perf_counter() - start)
    deepest = np.array(seconds[f"L{depth}"])
    ratios = {name: round(float(np.median(each / deepest)), 3) for name, each in seconds.items()}
    return {"device": device.label, "ratio_to": f"L{depth}", **ratios}


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


if __name__ == "__main__":
    sys.exit(main())
