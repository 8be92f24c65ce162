#!/usr/bin/env python
"""Trains a network on a slice folder. fit/settings.py lists all settings.

python training/train.py --config training/configs/liver.yaml
python training/train.py --config training/configs/liver.yaml name=liver-2 steps=4000
python training/train.py --config runs/liver-2/settings.yaml --resume
"""

from __future__ import annotations

import argparse
import sys

from data.slices import DataError
from fit.settings import SettingsError, load_settings
from fit.training import train


def main(arguments: list[str] | None = None) -> int:
    """Train; returns 0, or 1 after printing the reason to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of settings")
    parser.add_argument(
        "--resume", action="store_true", help="continue from the run's last checkpoint, if there is one"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that override those of the file")
    given = parser.parse_intermixed_args(arguments)
    try:
        train(load_settings(given.config, given.overrides), resume=given.resume)
    except (SettingsError, DataError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
