#!/usr/bin/env python
"""Makes a bundle of a checkpoint: measures it, and writes the folder with card and figures.

python training/export.py runs/liver/last.ckpt NAME-v1.0.0 --data ../shared/data/liver --volumes ../shared/data/volumes
python training/export.py runs/nodule-half/last.ckpt NAME-v1.0.0 --data ../shared/data/nodule

The heads that it averages, and the threshold of a nodule model, are chosen on the people on whom the training was validated. With
--volumes or --pairs its evaluation.json also says how the model does on whole CTs; that of a nodule model always says how it does on crops
moved off the nodule.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from card.from_checkpoint import bundle_from_checkpoint
from data.slices import DataError
from data.targets import Target, TargetError, load_target
from fit.checkpoint import read_checkpoint, require_unseen
from measure import nodule_crops, per_patient, whole_pairs, whole_scans
from measure.answer import answered
from UNetPlusPlusSegmentLib.files import FileError, check_output
from UNetPlusPlusSegmentLib.network.bundle import BundleError


def main(arguments: list[str] | None = None) -> int:
    """Export; 0 done, 1 refused with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="checkpoint of train.py")
    parser.add_argument("folder", type=Path, help="the bundle to make: <name>-v<major>.<minor>.<patch>")
    parser.add_argument("--data", type=Path, required=True, help="slice folder to measure it on")
    parser.add_argument(
        "--split", default="val", help="split to measure it on, or a fold such as train:1/3 (%(default)s)"
    )
    parser.add_argument("--volumes", type=Path, help="folder of whole CTs to measure the model on, too")
    parser.add_argument("--pairs", type=Path, help="folder of whole CTs with segmentations beside them, likewise")
    parser.add_argument(
        "--segment",
        action="append",
        default=[],
        metavar="LABEL=SEGMENTS",
        help="with --pairs: the segments (joined by +) that are the truth of a label, if the files use other names",
    )
    parser.add_argument(
        "--target",
        metavar="NAME",
        help="name or YAML file that describes the model now: its name, terms, post-processing and licence; without it as it was"
        " described when it was trained",
    )
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="those that the model is to have; without it all")
    parser.add_argument("--level", type=int, help="prune the network to this depth (the paper's L1 to L4)")
    given = parser.parse_args(arguments)
    try:
        if given.folder.exists():
            raise BundleError(f"{given.folder} exists already: a model is never overwritten. Give it a new version.")
        if not re.search(r"-v\d+\.\d+\.\d+$", given.folder.name):
            raise BundleError(f"{given.folder.name} names no version: call it {given.folder.name}-v1.0.0, say.")
        check_output(given.folder, ("",))
        if given.volumes and not given.volumes.is_dir():
            raise FileError(f"{given.volumes} is not a folder: give --volumes the folder of the whole CTs.")
        target = load_target(given.target) if given.target else None
        goal = target or read_checkpoint(given.checkpoint).target
        if given.labels:
            target = goal.only(given.labels)
        figures, average_from, threshold = measure(
            given.checkpoint, given.folder.name, given.data, given.split, given.volumes, given.level, given.pairs, target,
            given.segment,
        )  # fmt: skip
        bundle_from_checkpoint(given.checkpoint, given.folder, figures, average_from, threshold, given.level, target)
    except (BundleError, DataError, FileError, TargetError) as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 1
    print(per_patient.as_table(figures))
    if "moved_crops" in figures:
        print(nodule_crops.as_table(figures["moved_crops"]))
    print(f"written: {given.folder}")
    return 0


def measure(
    checkpoint: Path,
    name: str,
    data: Path,
    split: str,
    volumes: Path | None,
    level: int | None = None,
    pairs: Path | None = None,
    target: Target | None = None,
    segments: Sequence[str] = (),
) -> tuple[dict, int, float]:
    """The figures of a checkpoint's card, and its answer: the first head to average, and the threshold.

    `target` describes the model anew, as for `bundle_from_checkpoint`; `segments` as for `whole_pairs.measure`.

    Raises:
        BundleError, DataError, FileError: It has learned from people on whom it would be measured, or data, `volumes` or `pairs` do
            not fit it; known before anything is measured.
    """
    trained = read_checkpoint(checkpoint)
    goal, validated_on = target or trained.target, trained.settings.splits[1]
    with contextlib.suppress(DataError):  # what reads it next says more of it
        require_unseen(trained, data, goal.slices, validated_on)
    if split != validated_on:
        require_unseen(trained, data, goal.slices, split)
    with tempfile.TemporaryDirectory() as scratch:
        unmeasured = bundle_from_checkpoint(checkpoint, Path(scratch) / name, {}, level=level, target=target)
        if volumes:
            whole_scans.check_folder(unmeasured, volumes)
        if pairs:
            whole_pairs.pairs_for(unmeasured, pairs, segments)
        model, figures = answered(unmeasured, data, validated_on, goal)
        if figures is None or split != validated_on:
            figures = per_patient.evaluate(model, data, split, target=goal)
        if model.engine == "nodule":
            figures["moved_crops"] = nodule_crops.evaluate(model, data, split, target=goal)
        if volumes:
            figures["whole_cts"] = whole_scans.measure(model, volumes)
        if pairs:
            figures["pairs"] = whole_pairs.measure(model, pairs, segments=segments)
        return figures, model.average_from, model.threshold


if __name__ == "__main__":
    sys.exit(main())
