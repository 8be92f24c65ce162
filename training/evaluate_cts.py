#!/usr/bin/env python
"""Measures a liver model on a whole CT, as a user gets it: what it finds in a chest that shows no liver.

python training/evaluate_cts.py UNetPlusPlusSegment/Resources/Models/liver-ct-v1.0.0 --volumes ../shared/data/volumes
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from evaluate_clicks import CLEAN
from UNetPlusPlusSegmentLib.api import load_engine
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.files import FileError, read_volume
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError, read_bundle


def main(arguments: list[str] | None = None) -> int:
    """Measure and print JSON; 0 done, 1 refused with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--volumes", type=Path, required=True, help="folder of the whole CTs")
    parser.add_argument("--speed", default="balanced")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    try:
        bundle = read_bundle(given.bundle)
        figures = measure(bundle, given.volumes, given.speed, given.device)
    except (BundleError, FileError) as error:
        print(f"evaluate_cts.py: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"model": bundle.name, **figures}, indent=2))
    return 0


def measure(bundle: Bundle, folder: Path, speed: str = "balanced", device: str = "auto") -> dict:
    """What is found, in ml, where there is nothing to find; and what the user is told."""
    clean, _ = read_volume(folder / CLEAN)
    result = load_engine(bundle, device).predict(clean, Request(bundle.target, speed=speed)).at()
    return {
        "command": f"python training/evaluate_cts.py <bundle> --volumes <volumes> --speed {speed}",
        f"{CLEAN}, no liver": {
            "ml": round(sum(segment.measurements["volume_ml"] for segment in result.segments), 2),
            "notes": [*map(str, result.notes)],
        },
    }


if __name__ == "__main__":
    sys.exit(main())
