#!/usr/bin/env python
"""Makes a bundle of a checkpoint: measures it, fills the card from the measurement, writes the folder.

python training/export.py runs/liver/best.ckpt UNetPlusPlusSegment/Resources/Models/liver-ct-v1.0.0 --data ../shared/data/liver
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from cards import bundle_from_checkpoint
from evaluate import as_table, evaluate
from slices import DataError
from UNetPlusPlusSegmentLib.bundles import BundleError


def main(arguments: list[str] | None = None) -> int:
    """Export; 0 done, 1 refused with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path, help="the bundle to make: <name>-v<major>.<minor>.<patch>")
    parser.add_argument("--data", required=True, help="slice folder to measure it on")
    parser.add_argument("--split", default="val")
    given = parser.parse_args(arguments)
    try:
        if given.folder.exists():
            raise BundleError(f"{given.folder} exists already: a model is never overwritten. Give it a new version.")
        if not re.search(r"-v\d+\.\d+\.\d+$", given.folder.name):
            raise BundleError(f"{given.folder.name} names no version: call it {given.folder.name}-v1.0.0, say.")
        with tempfile.TemporaryDirectory() as scratch:
            unmeasured = bundle_from_checkpoint(given.checkpoint, Path(scratch) / given.folder.name, figures={})
            figures = evaluate(unmeasured, given.data, given.split)
        bundle_from_checkpoint(given.checkpoint, given.folder, figures)
    except (BundleError, DataError) as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 1
    print(as_table(figures))
    print(f"written: {given.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
