"""The kind of nodules (solid, part-solid, ground glass) as measured, against the texture ratings of LIDC-IDRI's readers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.slices import DataError
from data.targets import Target, load_target
from measure.nodule_crops import crops_of, hu_of, marks_of, pointed, volume_of
from UNetPlusPlusSegmentLib.network.bundle import Bundle
from UNetPlusPlusSegmentLib.nodule.engine import NoduleEngine
from UNetPlusPlusSegmentLib.nodule.measurements import measure_nodule

KINDS = ("ground-glass", "part-solid", "solid")
LEAST_TEXTURE = (0.0, 2.5, 4.0)  # of each kind; readers rate from 1 (ground glass) through 3 (part-solid) to 5 (solid)


def evaluate(bundle: Bundle, data: Path, ratings: Path, split: str = "val", target: Target | None = None) -> dict:
    """How often the measured kind of a nodule agrees with its readers' rating.

    Args:
        bundle: A nodule model.
        data: Slice folder of nodules.
        ratings: CSV made by `prepare/nodule_ratings.py`.
        split: Split of the folder.
        target: How to read the folder; None: the shipped target of the bundle.

    Returns:
        `agreement` of the ratings with the kind as measured in the pixels that two or more readers marked (`readers`), and in the
        outline that the product gives for a point (`pointed`).

    Raises:
        DataError: None of the nodules of the split is rated.
    """
    engine, target, rated_as = NoduleEngine(bundle), target or load_target(bundle.target), kinds_in(ratings)
    rated: list[str] = []
    measured: dict[str, list[str]] = {"readers": [], "pointed": []}
    for items in crops_of(data, split, target):
        kind = rated_as.get((items[0].row["patient"], items[0].row["nodule"]))
        if kind is None:
            continue
        rated.append(kind)
        truth = np.stack([marks_of(data, item) for item in items]) >= 2
        seen = hu_of(items, target), items[0].pixel_mm
        in_marks = measure_nodule(truth, volume_of(*seen, truth))
        found = pointed(engine, *seen, truth).segments
        measured["readers"].append(in_marks.kind if in_marks else "")
        measured["pointed"].append(found[0].measurements["kind"] if found else "")
    if not rated:
        raise DataError(
            f"{ratings} rates none of the nodules of split {split} of {data}: make it again with prepare/nodule_ratings.py."
        )
    return {
        "command": f"python training/evaluate.py <bundle> --data <nodule> --split {split} --kinds <ratings>",
        "nodules": len(rated),
        **{name: agreement(rated, kinds) for name, kinds in measured.items()},
    }


def kinds_in(ratings: Path) -> dict[tuple[str, str], str]:
    """The rated kind of each nodule, by patient and nodule number.

    Raises:
        DataError: The file cannot be read, or is no table of ratings.
    """
    try:
        with ratings.open(newline="", encoding="utf-8") as file:
            texture = {(row["patient"], row["nodule"]): float(row["texture"]) for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, KeyError, ValueError) as error:
        raise DataError(
            f"{ratings} is no table of ratings ({error}): make one with training/prepare/nodule_ratings.py."
        ) from error
    return {nodule: KINDS[np.searchsorted(LEAST_TEXTURE, each, side="right") - 1] for nodule, each in texture.items()}


def agreement(rated: Sequence[str], measured: Sequence[str]) -> dict:
    """Compare two ratings of the same nodules.

    Returns:
        `rated`: the number of nodules by rated kind, then by measured kind; `agreement`: the share on which both agree; `kappa`:
        Cohen's kappa.
    """
    table = np.array(
        [[sum(pair == (r, m) for pair in zip(rated, measured, strict=True)) for m in KINDS] for r in KINDS]
    )
    agreed = np.trace(table) / len(rated)
    by_chance = float(table.sum(axis=0) @ table.sum(axis=1)) / len(rated) ** 2
    return {
        "rated": {r: dict(zip(KINDS, row, strict=True)) for r, row in zip(KINDS, table.tolist(), strict=True)},
        "agreement": round(float(agreed), 3),
        "kappa": round(float((agreed - by_chance) / (1 - by_chance)), 3) if by_chance < 1 else 1.0,
    }


def as_table(figures: dict) -> str:
    """The figures as lines of text."""
    lines = [f"{figures['nodules']} nodules that readers rated"]
    for name in ("readers", "pointed"):
        each = figures[name]
        lines.append(f"{name}: agreement {each['agreement']}, kappa {each['kappa']}")
        lines += [f"  rated {r}: " + ", ".join(f"{n} {m}" for m, n in row.items()) for r, row in each["rated"].items()]
    return "\n".join(lines)
