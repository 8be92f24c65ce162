"""Measures a nodule model in windows that are not centred on the nodule: per nodule, by size and by head, and compared with readers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from data.slices import Slice, read_slices
from data.targets import Target, load_target
from measure.heads import answer_of, answers
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.engine.pixel_box import Box, grid_size
from UNetPlusPlusSegmentLib.engine.predictor import Predictor
from UNetPlusPlusSegmentLib.network.bundle import Bundle
from UNetPlusPlusSegmentLib.nodule.engine import NoduleEngine

THRESHOLDS = (0.5, 0.4, 0.6, 0.3)  # candidates for a model's threshold; of equally good ones, the first is used
WINDOW, SHIFT = 96, 16  # side of a window, and its largest shift along rows and columns, in pixels
SEED = 0  # of the shifts
SIZES_MM = {"small": (0, 6), "medium": (6, 15), "large": (15, np.inf)}  # equivalent diameter on the largest slice
# Limits of the distance between slices, which crops do not record: it is chosen so that the true nodule is as long as it is wide.
SLICE_MM = 0.6, 2.0
# Agreement of the readers on the same patients, from the README of the data.
READERS = {
    "one reader against two or more of the others": {"dice": 0.789, "iou": 0.663, "slice_iou": 0.688},
    "one reader against a consensus that holds that reader": {"dice": 0.868, "slice_iou": 0.793},
}


def evaluate(bundle: Bundle, data: Path, split: str = "val", draws: int = 5, target: Target | None = None) -> dict:
    """Compare with the pixels that two or more readers marked, at the stored pixel size.

    Dice and IoU are computed over all slices of a nodule together, and slice IoU is the mean over its slices; all are then averaged over
    draws and nodules. For the heads, everything that the network marks in the window counts. `pointed` is the product's result at
    `balanced` for a point at the true voxel nearest to the nodule's middle, in a scan that consists of this window only. Crops do not
    record the distance between slices, so it is chosen as `volume_of` says.

    Returns:
        `answers`, by output (`L4`, `L1-L4`), and `pointed`: each with the figures of `all` nodules and of each size in `SIZES_MM`.
        `levels`: the figures of what at least one reader, or three, marked. `readers`: the agreement of readers, quoted.
    """
    engine = NoduleEngine(bundle)
    target = target or load_target(bundle.target)
    nodules = crops_of(data, split, target)
    draw = np.random.default_rng(SEED)
    found: dict[str, list[tuple[float, dict]]] = defaultdict(list)
    levels: dict[str, list[tuple[float, dict]]] = defaultdict(list)
    for items in nodules:
        counts = np.stack([marks_of(data, item) for item in items])
        size_mm = max(
            2 * np.sqrt((c >= 2).sum() / np.pi) * item.pixel_mm for c, item in zip(counts, items, strict=True)
        )
        for readers in (1, 3):
            levels[f"{readers} or more readers"].append((size_mm, _scores(counts >= readers, counts >= 2)))
        for _ in range(draws):
            window = _window(counts.shape[1:], draw.integers(-SHIFT, SHIFT + 1, size=2))
            truth = counts[(slice(None), *window)] >= 2
            seen = hu_of(items, target)[(slice(None), *window)], items[0].pixel_mm
            for name, probability in _probabilities(engine, *seen).items():
                found[name].append((size_mm, _scores(probability >= bundle.threshold, truth)))
            at_point = pointed(engine, *seen, truth).labelmap > 0
            found["pointed"].append((size_mm, _scores(at_point, truth)))
    return {
        "command": f"python training/evaluate.py <bundle> --data <nodule> --split {split} --moved-crops --draws {draws}",
        "nodules": len(nodules),
        "slices": sum(map(len, nodules)),
        "patients": len({items[0].row["patient"] for items in nodules}),
        "answer": answer_of(bundle),
        "pointed": _by_size(found.pop("pointed")),
        "answers": {name: _by_size(scores) for name, scores in found.items()},
        "levels": {name: _by_size(scores) for name, scores in levels.items()},
        "readers": READERS,
    }


def best_answer(bundle: Bundle, data: Path, split: str = "val", target: Target | None = None) -> tuple[int, float]:
    """The first head to average, and the one of `THRESHOLDS`, that give the highest mean Dice for a point in each nodule.

    One window per nodule is used. Candidates are the deepest head alone and the means from each head to the deepest.
    """
    choices = [(level, threshold) for level in reversed(bundle.load_network().heads) for threshold in THRESHOLDS]
    engines = {level: NoduleEngine(replace(bundle, average_from=level)) for level, _ in choices}
    target = target or load_target(bundle.target)
    draw, dices = np.random.default_rng(SEED), []
    for items in crops_of(data, split, target):
        window = _window(items[0].image.shape, draw.integers(-SHIFT, SHIFT + 1, size=2))
        truth = np.stack([item.mask[0] for item in items])[(slice(None), *window)]
        seen = hu_of(items, target)[(slice(None), *window)], items[0].pixel_mm
        masks = [pointed(engines[level], *seen, truth, threshold).labelmap > 0 for level, threshold in choices]
        dices.append([_scores(mask, truth)["dice"] for mask in masks])
    return choices[int(np.argmax(np.mean(dices, axis=0)))]


def crops_of(data: Path, split: str, target: Target) -> list[list[Slice]]:
    """The slices of each nodule of a split, in order."""
    nodules: dict[tuple[str, str], list[Slice]] = defaultdict(list)
    for item in read_slices(data, target, split):
        nodules[item.row["patient"], item.row["nodule"]].append(item)
    return [sorted(items, key=lambda item: int(item.row["slice"])) for items in nodules.values()]


def marks_of(data: Path, item: Slice) -> np.ndarray:
    """The number of readers who marked each pixel: uint8 (rows, columns)."""
    with Image.open(data / "masks" / item.row["file"]) as picture:
        return np.asarray(picture)


def _window(shape: tuple[int, int], shift: np.ndarray) -> tuple[slice, slice]:
    rows, columns = ((n - WINDOW) // 2 + int(s) for n, s in zip(shape, shift, strict=True))
    return slice(rows, rows + WINDOW), slice(columns, columns + WINDOW)


def hu_of(items: list[Slice], target: Target) -> np.ndarray:
    """The slices as float32 HU (slices, rows, columns)."""
    return np.stack([target.to_hu(item.image) for item in items])


def _probabilities(engine: Predictor, hu: np.ndarray, pixel_mm: float) -> dict[str, np.ndarray]:
    """Probabilities (slices, rows, columns) by output, at the stored pixels; the network sees only the window."""
    box = Box.whole(len(hu), grid_size(hu.shape[1:], (pixel_mm, pixel_mm), engine.bundle.pixel_mm))
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    for _, heads in engine.heads(hu, range(len(hu)), box, engine.bundle.depth, Tensor.cpu):
        heads = F.interpolate(heads, hu.shape[1:], mode="bilinear")
        for name, probability in answers(heads, engine.bundle.depth).items():
            parts[name].append(probability.numpy())
    return {name: np.concatenate(part) for name, part in parts.items()}


def pointed(
    engine: NoduleEngine, hu: np.ndarray, pixel_mm: float, truth: np.ndarray, threshold: float | None = None
) -> Result:
    """The product's result for a scan that consists of this window only, with a point in the middle of the true nodule."""
    at, volume = np.argwhere(truth), volume_of(hu, pixel_mm, truth)
    middle = at[np.abs(at - at.mean(axis=0)).sum(axis=1).argmin()]
    point = (volume.ijk_to_ras @ [*middle[::-1], 1])[:3]
    request = Request(engine.bundle.target, threshold=threshold, points=(point,), force=True)
    return engine.predict(volume, request).at()


def volume_of(hu: np.ndarray, pixel_mm: float, truth: np.ndarray) -> Volume:
    """A window as a volume. Its slices are spaced so that the true nodule is as long as it is wide, within `SLICE_MM`."""
    wide_mm = 2 * np.sqrt(truth.sum(axis=(1, 2)).max() / np.pi) * pixel_mm
    return Volume(hu, np.diag([-pixel_mm, -pixel_mm, np.clip(wide_mm / len(truth), *SLICE_MM), 1]))


def _scores(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice and IoU of all pixels of a stack, and the mean IoU of its slices, where two empty slices count as 1."""
    both, either = (op(found, truth).sum(axis=(1, 2)) for op in (np.logical_and, np.logical_or))
    slices = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    return {
        "dice": 2 * both.sum() / (both.sum() + either.sum()),
        "iou": both.sum() / either.sum(),
        "slice_iou": slices.mean(),
    }


def _by_size(scores: list[tuple[float, dict]]) -> dict[str, dict]:
    """Means over nodules and draws, for all and for each size; `n` is the number of nodules times draws."""
    table = {}
    for name, (low, high) in {"all": (0, np.inf), **SIZES_MM}.items():
        of_size = [each for size_mm, each in scores if low <= size_mm < high]
        means = {key: round(float(np.mean([each[key] for each in of_size])), 4) for key in (of_size or [{}])[0]}
        table[name] = {**means, "n": len(of_size)}
    return table


def as_table(figures: dict) -> str:
    """The figures as lines of text."""
    head = f"{figures['nodules']} nodules, {figures['slices']} slices, {figures['patients']} patients"
    lines = [f"{head}: Dice / IoU per nodule, mean IoU of its slices; the product averages {figures['answer']}"]
    rows = {**figures["answers"], "pointed": figures["pointed"], **figures["levels"]}
    for name, sizes in rows.items():
        cells = [
            f"{size} {each['dice']:.3f} / {each['iou']:.3f}, {each['slice_iou']:.3f} ({each['n']})"
            for size, each in sizes.items()
            if each["n"]
        ]
        lines.append(f"{name:>18}  " + "  ".join(cells))
    for name, each in figures["readers"].items():
        lines.append(f"{name}: " + ", ".join(f"{key} {value}" for key, value in each.items()))
    return "\n".join(lines)
