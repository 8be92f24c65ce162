#!/usr/bin/env python
"""Fits the expected Dice of a bundle's results, on results of networks on people that they have not seen.

python training/fit_trust.py UNetPlusPlusSegment/Resources/Models/liver-ct-v2.0.0 --data ../shared/data/liver \
    --folds runs/liver-fold1/best.ckpt runs/liver-fold2/best.ckpt runs/liver-fold3/best.ckpt --rows runs/trust.csv

Each network of --folds segments the scans of the people that its training left out (`fold=1/3`), unchanged and degraded, at each
speed of the bundle. The coefficients are written into the bundle's model.json. Its evaluation.json gets the accuracy of the
prediction on people left out of the fit, and on results of the bundle itself on `val`, which neither the bundle nor the fit has
seen. To include results of a poor network, add an early checkpoint of a fold beside its last one. With --rows, a run that was
stopped continues where it was; what has changed since is measured again.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from card.amend import amend_bundle, check_amendable
from card.from_checkpoint import bundle_from_checkpoint
from data.slices import DataError
from data.targets import Target, TargetError, load_target
from fit.checkpoint import read_checkpoint, require_unseen
from measure.dense_runs import dense_runs
from measure.expected_dice import Judged, check, fit, judged
from measure.truth import target_of
from UNetPlusPlusSegmentLib.files import FileError, check_output
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError, read_bundle

OF_THE_BUNDLE = ("labels", "priority", "threshold", "average_from", "postprocessing", "speeds")  # for each network


@dataclass(frozen=True)
class Fold:
    """A network, and the people whom its training left out.

    Attributes:
        checkpoint: The network.
        split: The people.
        target: The labels of the bundle, in its order, as the training described them.
    """

    checkpoint: Path
    split: str
    target: Target


def main(arguments: list[str] | None = None) -> int:
    """Fit, print and write; returns 0, or 1 after printing the reason to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="model folder into which the coefficients are written")
    parser.add_argument("--data", type=Path, required=True, help="slice folder")
    parser.add_argument("--folds", type=Path, nargs="+", required=True, help="checkpoints trained with fold=…")
    parser.add_argument("--rows", type=Path, help="CSV that keeps the results, so that a stopped run can continue")
    parser.add_argument(
        "--target",
        help="name or YAML file of the target; default: DATA/target.yaml, or the shipped one that the bundle names",
    )
    given = parser.parse_args(arguments)
    try:
        bundle = read_bundle(given.bundle)
        check_amendable(bundle)
        beside = given.data / "target.yaml"
        target = load_target(given.target or (str(beside) if beside.is_file() else bundle.target))
        if given.rows:
            check_output(given.rows, (".csv",))
        folds = [_fold_of(each, bundle, given.data, target) for each in given.folds]
        for split in dict.fromkeys(("val", *(fold.split for fold in folds))):
            next(dense_runs(given.data, target_of(bundle, target), split))  # or says why there are none
        rows = list(_rows(bundle, folds, given.data, target, given.rows))
        amended, figures = fitted_bundle(bundle, rows)
        figures["command"] = "python training/fit_trust.py <bundle> --data <data> --folds <checkpoints>"
        figures["val"] = _on_val(amended, given.data, target)
        amend_bundle(amended, {"expected_dice": figures})
    except (BundleError, DataError, FileError, TargetError) as error:
        print(f"fit_trust.py: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures, indent=2))
    return 0


def fitted_bundle(bundle: Bundle, rows: list[Judged]) -> tuple[Bundle, dict]:
    """The bundle with coefficients for each label and speed, and the figures of the fit.

    Raises:
        BundleError: There are results of fewer than two people for a label and speed.
    """
    labels, figures = [], {}
    for label in bundle.labels:
        of_speed = {
            speed: [row for row in rows if (row.label, row.speed) == (label.name, speed)] for speed in bundle.speeds
        }
        if any(len({row.person for row in of_this}) < 2 for of_this in of_speed.values()):
            raise BundleError(
                f"The results of {label.name} come from fewer than two people, too few to fit: add folds or data with {label.name}."
            )
        answers = {speed: fit(of_this) for speed, of_this in of_speed.items()}
        labels.append(replace(label, expected_dice={speed: fitted for speed, (fitted, _) in answers.items()}))
        figures[label.name] = {speed: each for speed, (_, each) in answers.items()}
    return replace(bundle, labels=tuple(labels)), {"left_out_people": figures}


def _on_val(bundle: Bundle, data: Path, target: Target) -> dict:
    """How well the coefficients predict results of the bundle itself on `val`, by label and speed."""
    rows = list(judged(bundle, data, target, "val"))
    return {
        label.name: {
            speed: check(of_this, label.expected_dice[speed])
            for speed in bundle.speeds
            if (of_this := [row for row in rows if (row.label, row.speed) == (label.name, speed)])
        }
        for label in bundle.labels
    }


def _rows(bundle: Bundle, folds: list[Fold], data: Path, target: Target, path: Path | None) -> Iterator[Judged]:
    """The results of all networks; one that has results in the CSV for the same data, target and card is not run again."""
    known = _read(path) if path and path.exists() else []
    conditions = _conditions(bundle, data, target) if path else b""
    for fold in folds:
        digest = hashlib.sha256(conditions + fold.checkpoint.read_bytes()).hexdigest()
        name = f"{'/'.join(fold.checkpoint.parts[-2:])} {digest[:16]}"
        rows = [row for row in known if row.model == name]
        if not rows:
            rows = [replace(row, model=name) for row in _of_network(bundle, fold, data, target)]
            if path and rows:
                _append(path, rows)
        yield from rows


def _conditions(bundle: Bundle, data: Path, target: Target) -> bytes:
    """A checksum of all on which the results of a network depend besides its weights."""
    labels = [replace(label, expected_dice={}) for label in bundle.labels]  # what is fitted here changes no result
    card = [getattr(bundle, name) for name in OF_THE_BUNDLE if name != "labels"]
    digest = hashlib.sha256(repr((labels, card, target)).encode())
    stored = (path for part in ("images", "masks") for path in sorted((data / part).iterdir()) if path.is_file())
    for path in (data / "slices.csv", *stored):
        digest.update(f"{path.relative_to(data)} {path.stat().st_size}".encode())
        digest.update(path.read_bytes())
    return digest.digest()


def _fold_of(checkpoint: Path, bundle: Bundle, data: Path, target: Target) -> Fold:
    """The fold that the training of a checkpoint left out.

    Raises:
        BundleError, DataError, TargetError: The network has learned from its people, or does not have the labels of the bundle.
    """
    trained = read_checkpoint(checkpoint)
    if not trained.settings.fold:
        raise BundleError(
            f"{checkpoint} was trained on all people, so none are left to test it on: train it with fold=1/3."
        )
    split = f"train:{trained.settings.fold}"
    require_unseen(trained, data, target.slices, split)
    return Fold(checkpoint, split, target_of(bundle, trained.target))


def _of_network(bundle: Bundle, fold: Fold, data: Path, target: Target) -> Iterator[Judged]:
    """The results of a network on the people of its fold, with the settings of the bundle's card."""
    with tempfile.TemporaryDirectory() as scratch:
        own = bundle_from_checkpoint(fold.checkpoint, Path(scratch) / "fold", {}, target=fold.target)
        network = replace(own, **{name: getattr(bundle, name) for name in OF_THE_BUNDLE})
        yield from judged(network, data, target, fold.split)


def _append(path: Path, rows: list[Judged]) -> None:
    new = not (path.exists() and path.stat().st_size)
    with path.open("a", newline="", encoding="utf-8") as file:
        plain = [{**vars(row), "signs": json.dumps(row.signs)} for row in rows]
        table = csv.DictWriter(file, [*plain[0]])
        if new:
            table.writeheader()
        table.writerows(plain)


def _read(path: Path) -> list[Judged]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Judged(**{**row, "dice": float(row["dice"]), "signs": json.loads(row["signs"])})
            for row in csv.DictReader(file)
        ]


if __name__ == "__main__":
    sys.exit(main())
