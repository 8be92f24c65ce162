#!/usr/bin/env python
"""Fits the decision of a nodule model (which of its findings are shown), writes it into the model's card, and measures it on chests.

python training/decide.py UNetPlusPlusSegment/Resources/Models/lung-nodule-ct-v2.0.0 --data ../shared/data/nodule --split train:1/6 \
    --volumes ../shared/data/volumes

The network must not have been trained on the people of the split: on these its probabilities would be too high.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from card.amend import amend_bundle, check_amendable
from data.slices import DataError
from data.targets import TargetError
from measure import chests
from measure.decision import examples_of_chest, examples_of_crops, fit
from UNetPlusPlusSegmentLib.files import FileError
from UNetPlusPlusSegmentLib.network.bundle import BundleError, read_bundle


def main(arguments: list[str] | None = None) -> int:
    """Fit and write; returns 0, or 1 after printing the reason to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="bundle folder; its model.json and evaluation.json are changed")
    parser.add_argument("--data", type=Path, required=True, help="slice folder of nodules")
    parser.add_argument(
        "--split", required=True, help="split of --data that the network has not seen, such as train:1/6"
    )
    parser.add_argument("--volumes", type=Path, required=True, help="folder of whole CTs")
    given = parser.parse_args(arguments)
    try:
        bundle = read_bundle(given.model)
        check_amendable(bundle)
        if bundle.engine != "nodule":
            raise BundleError(
                f"{bundle.name} is a model of {bundle.target}: only nodule models have a decision to fit."
            )
        chests.check_folder(given.volumes)
        examples = examples_of_crops(bundle, given.data, given.split)
        for chest in chests.CHESTS:
            examples += examples_of_chest(bundle, given.volumes, chest) if chest.fitted else []
        decision, figures = fit(examples)
        bundle = replace(bundle, decision=decision)
        in_chests = chests.measure(bundle, given.volumes)
        text = chests.as_table(in_chests)
        for chest in in_chests["chests"].values():
            del chest["seconds"]  # says nothing about the model
        amend_bundle(bundle, {"decision": {"split": given.split, **figures, "whole_chests": in_chests}})
    except (BundleError, DataError, FileError, TargetError) as error:
        print(f"decide.py: {error}", file=sys.stderr)
        return 1
    print(json.dumps({**asdict(decision), **figures}, indent=2))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
