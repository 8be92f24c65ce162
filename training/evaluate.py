#!/usr/bin/env python
"""Measures a bundle or a checkpoint: per patient and head on a split of its slice folder, or on whole CTs as a user runs it.

python training/evaluate.py UNetPlusPlusSegment/Resources/Models/liver-ct-v2.0.0 --data ../shared/data/liver
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

from card.amend import amend_bundle
from card.from_checkpoint import bundle_from_checkpoint
from data.slices import DataError, read_rows
from data.targets import Target, TargetError, load_target
from fit.checkpoint import read_checkpoint, seen_by
from measure import chests, kinds, nodule_crops, parts, per_patient, whole_pairs, whole_scans
from measure.answer import answered
from measure.per_patient import WORST
from measure.pictures import PicturesError, private_folder
from UNetPlusPlusSegmentLib.core.request import DEVICES, SPEEDS
from UNetPlusPlusSegmentLib.files import FileError, check_output
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError, read_bundle
from UNetPlusPlusSegmentLib.network.device import DeviceError

# Where each option looks.
PLACES = {
    "moved_crops": "data", "kinds": "data", "parts": "data", "pictures": "data", "segment": "pairs", "chests": "volumes",
    "time": "volumes",
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table or JSON, and write JSON if asked to; returns 0, or 1 after printing the reason to stderr."""
    parser = _parser()
    given = parser.parse_args(arguments)
    for option, place in PLACES.items():
        if getattr(given, option) and getattr(given, place) is None:
            parser.error(f"--{option.replace('_', '-')} needs --{place}")
    try:
        if given.output:
            check_output(given.output, (".json",))
        with tempfile.TemporaryDirectory() as scratch:
            is_checkpoint, target = not given.model.is_dir(), _target(given)
            made = Path(scratch) / (given.model.resolve().parent.name or "checkpoint")  # a name that the user knows
            bundle = bundle_from_checkpoint(given.model, made, {}) if is_checkpoint else read_bundle(given.model)
            check(bundle, given, target)
            if is_checkpoint:
                bundle = _as_exported(bundle, given)
                if given.data:
                    _warn_of_seen(given, target)
            figures, text = measure(bundle, given, target)
    except (BundleError, DataError, DeviceError, FileError, PicturesError, TargetError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    print(text)
    if given.output:
        given.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def check(bundle: Bundle, given: argparse.Namespace, target: Target | None) -> None:
    """Refuse, before time is spent, what the model or the folder cannot give.

    Raises:
        BundleError, DataError, FileError, PicturesError, TargetError: The reason.
    """
    if (given.moved_crops or given.kinds or given.time or given.chests) and bundle.engine != "nodule":
        raise BundleError(
            f"--moved-crops, --kinds, --time and --chests are for nodule models, but {bundle.name} is a model of {bundle.target}:"
            " leave the option out."
        )
    if given.kinds:
        kinds.kinds_in(given.kinds)
    if given.data:
        read_rows(given.data, (target or load_target(bundle.target)).slices, given.split)
    if given.pictures:
        private_folder(given.pictures)
    if given.pairs:
        whole_pairs.pairs_for(bundle, given.pairs, given.segment)
    if given.chests:
        chests.check_folder(given.volumes)
    elif given.volumes and not given.time:
        whole_scans.check_folder(bundle, given.volumes)


def _as_exported(bundle: Bundle, given: argparse.Namespace) -> Bundle:
    """The bundle of a checkpoint as export.py would make it: with its answer, unless every head is measured anyway."""
    other = given.pairs or given.volumes or given.parts or given.pictures
    if bundle.engine != "nodule" and not other:
        return bundle
    settings = read_checkpoint(given.model).settings
    target = load_target(given.target) if given.target else settings.goal
    bundle, _ = answered(bundle, given.data or settings.data, settings.splits[1], target)
    amend_bundle(bundle, {})  # a worker process reads its folder
    return bundle


def _warn_of_seen(given: argparse.Namespace, target: Target | None) -> None:
    """Print a warning to stderr if a checkpoint has learned from people on whom it is measured."""
    trained = read_checkpoint(given.model)
    seen = seen_by(trained, given.data, (target or trained.target).slices, given.split)
    if seen:
        print(
            f"evaluate.py: warning: {given.model} has learned from {len(seen)} of the people in {given.split}, so the figures are better"
            " than on others. Folds are dealt anew when people are added.",
            file=sys.stderr,
        )


def _target(given: argparse.Namespace) -> Target | None:
    """The target named with --target, or else that of a checkpoint or of the slice folder; None: the shipped one that the bundle names."""
    if given.target:
        return load_target(given.target)
    if not given.model.is_dir():
        return read_checkpoint(given.model).target
    beside = given.data / "target.yaml" if given.data else None
    return load_target(str(beside)) if beside and beside.is_file() else None


def measure(bundle: Bundle, given: argparse.Namespace, target: Target | None) -> tuple[dict, str]:
    """The figures that were asked for, and the text to print."""
    if given.pairs:
        on_pairs = whole_pairs.measure(bundle, given.pairs, given.speed, given.device, given.segment)
        figures = {"model": bundle.name, **on_pairs}
        return figures, json.dumps(figures, indent=2)
    if given.chests:
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
    figures = per_patient.evaluate(bundle, given.data, given.split, given.every, given.pictures, target)
    return figures, per_patient.as_table(figures)


def _count(text: str) -> int:
    """A whole number above zero.

    Raises:
        ArgumentTypeError: It is not one.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"it must be a whole number above zero; got {text}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="bundle folder, or checkpoint of train.py")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write the figures to this JSON file")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", type=Path, metavar="FOLDER", help="measure on a slice folder")
    where.add_argument(
        "--pairs", type=Path, metavar="FOLDER", help="measure on whole CTs of any organ, with segmentations beside them"
    )
    where.add_argument(
        "--volumes", type=Path, metavar="FOLDER", help="measure on the whole CTs that are used for the shipped models"
    )
    slices = parser.add_argument_group("with --data")
    slices.add_argument("--split", default="val", help="split to measure on, or a fold such as train:1/3 (%(default)s)")
    slices.add_argument(
        "--target",
        metavar="NAME",
        help="name or YAML file of the target; default: that of the checkpoint, or FOLDER/target.yaml, or that of the bundle",
    )
    slices.add_argument("--every", type=_count, default=1, metavar="N", help="take only every N-th slice")
    slices.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help=f"also draw the {WORST} worst slices of each patient, one PNG per patient",
    )
    slices.add_argument(
        "--moved-crops", action="store_true", help="instead: nodules in windows that are not centred on them"
    )
    slices.add_argument("--draws", type=_count, default=5, help="windows per nodule, with --moved-crops (%(default)s)")
    slices.add_argument(
        "--kinds",
        type=Path,
        metavar="RATINGS",
        help="instead: kinds of nodules against the readers' ratings, a file of prepare/nodule_ratings.py",
    )
    slices.add_argument(
        "--parts",
        action="store_true",
        help="instead: which separate parts post-processing should keep, on whole and on shortened scans",
    )
    scans = parser.add_argument_group("with --pairs or --volumes")
    scans.add_argument(
        "--segment",
        action="append",
        default=[],
        metavar="LABEL=SEGMENTS",
        help="with --pairs: the segments (joined by +) that are the truth of a label, if the files use other names",
    )
    scans.add_argument("--speed", choices=SPEEDS, default="balanced", help="(%(default)s)")
    scans.add_argument("--device", choices=DEVICES, default="auto", help="(%(default)s)")
    scans.add_argument(
        "--chests", action="store_true", help="with --volumes, instead: findings in whole chests, FROC and times"
    )
    scans.add_argument(
        "--time", action="store_true", help="with --volumes, instead: times of nodules through a worker process"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
