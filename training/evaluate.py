#!/usr/bin/env python
"""Measures a bundle or a checkpoint: on a split of its slice folder, per patient and head, or on whole CTs, as a user gets them.

python training/evaluate.py UNetPlusPlusSegment/Resources/Models/liver-ct-v1.0.0 --data ../shared/data/liver
python training/evaluate.py runs/liver/best.ckpt --data ../shared/data/liver --split val -o figures.json --pictures runs/liver/worst
python training/evaluate.py MODEL --data data/spleen --target spleen.yaml
python training/evaluate.py MODEL --data ../shared/data/liver --split train --parts
python training/evaluate.py NODULE_MODEL --data ../shared/data/nodule --moved-crops
python training/evaluate.py NODULE_MODEL --data ../shared/data/nodule --kinds ratings.csv
python training/evaluate.py MODEL --pairs CASES
python training/evaluate.py MODEL --volumes ../shared/data/volumes
python training/evaluate.py NODULE_MODEL --volumes ../shared/data/volumes --chests
python training/evaluate.py NODULE_MODEL --volumes ../shared/data/volumes --time
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from card.from_checkpoint import bundle_from_checkpoint
from data.slices import DataError
from data.targets import Target, TargetError, load_target
from fit.checkpoint import read_checkpoint
from measure import chests, kinds, nodule_crops, parts, per_patient, whole_pairs, whole_scans
from measure.per_patient import WORST
from measure.pictures import PicturesError, private_folder
from UNetPlusPlusSegmentLib.files import FileError
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError, read_bundle


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table or JSON, write JSON; 0 done, 1 refused with one line on stderr."""
    given = _parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as scratch:  # a checkpoint becomes a bundle: both are measured on one path
            model = given.model
            bundle = read_bundle(model) if model.is_dir() else bundle_from_checkpoint(model, Path(scratch) / "m", {})
            figures, text = measure(bundle, given, _target(given))
    except (BundleError, DataError, FileError, PicturesError, TargetError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    print(text)
    if given.output:
        given.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _target(given: argparse.Namespace) -> Target | None:
    """The target that was named, or that a checkpoint holds; None: the shipped one of the bundle's name."""
    if given.target:
        return load_target(given.target)
    return None if given.model.is_dir() else read_checkpoint(given.model).target


def measure(bundle: Bundle, given: argparse.Namespace, target: Target | None) -> tuple[dict, str]:
    """The figures that were asked for, and what is printed of them."""
    if (given.moved_crops or given.kinds or given.time or given.chests) and bundle.engine != "nodule":
        raise BundleError(
            f"--moved-crops, --kinds, --time and --chests are for nodule models; {bundle.name} is for {bundle.target}."
        )
    if given.pairs:
        on_pairs = whole_pairs.measure(bundle, given.pairs, given.speed, given.device, given.segment)
        figures = {"model": bundle.name, **on_pairs}
        return figures, json.dumps(figures, indent=2)
    if given.chests and given.volumes:
        figures = {"model": bundle.name, **chests.measure(bundle, given.volumes, given.speed, given.device)}
        return figures, chests.as_table(figures)
    if given.volumes:
        on_scans = whole_scans.times if given.time else whole_scans.measure
        figures = {"model": bundle.name, **on_scans(bundle, given.volumes, given.speed, given.device)}
        return figures, json.dumps(figures, indent=2)
    if given.moved_crops:
        figures = nodule_crops.evaluate(bundle, given.data, given.split, given.draws, target)
        return figures, nodule_crops.as_table(figures)
    if given.kinds:
        figures = kinds.evaluate(bundle, given.data, given.kinds, given.split, target)
        return figures, kinds.as_table(figures)
    if given.parts:
        figures = parts.measure(bundle, given.data, target or load_target(bundle.target), given.split)
        return figures, parts.as_table(figures)
    pictures = private_folder(given.pictures) if given.pictures else None
    figures = per_patient.evaluate(bundle, given.data, given.split, given.every, pictures, target)
    return figures, per_patient.as_table(figures)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="bundle folder, or checkpoint of train.py")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures as JSON")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", type=Path, metavar="FOLDER", help="slice folder")
    where.add_argument(
        "--pairs", type=Path, metavar="FOLDER", help="whole CTs of any organ, with segmentations beside them"
    )
    where.add_argument(
        "--volumes", type=Path, metavar="FOLDER", help="the whole CTs that the shipped models are measured on"
    )
    slices = parser.add_argument_group("with --data")
    slices.add_argument("--split", default="val")
    slices.add_argument(
        "--target", metavar="NAME", help="name or YAML file; without it the checkpoint's, or the bundle's of that name"
    )
    slices.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th slice only")
    slices.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help=f"draw the {WORST} worst slices of each patient: a PNG each"
    )
    slices.add_argument(
        "--moved-crops", action="store_true", help="nodules in windows that were moved off them instead"
    )
    slices.add_argument(
        "--kinds",
        type=Path,
        metavar="RATINGS",
        help="kinds of nodules against what readers rated instead: the file of prepare/nodule_ratings.py",
    )
    slices.add_argument(
        "--parts",
        action="store_true",
        help="shares of a card's post-processing, on dense runs laid back as volumes and cut short",
    )
    slices.add_argument("--draws", type=int, default=5, help="windows of each nodule (5)")
    scans = parser.add_argument_group("with --pairs or --volumes")
    scans.add_argument(
        "--segment",
        action="append",
        default=[],
        metavar="LABEL=SEGMENTS",
        help="the truth of a label where the files call it otherwise; + between several; only with --pairs",
    )
    scans.add_argument("--speed", default="balanced")
    scans.add_argument("--device", default="auto")
    scans.add_argument("--chests", action="store_true", help="findings in whole chests: FROC and times, instead")
    scans.add_argument("--time", action="store_true", help="the times of nodules, through a worker process, instead")
    return parser


if __name__ == "__main__":
    sys.exit(main())
