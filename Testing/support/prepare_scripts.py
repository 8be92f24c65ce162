"""Shared by the tests of the prepare scripts: the path of the scripts, and readers of slice folders."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

PREPARE = Path(__file__).parents[2] / "training" / "prepare"


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "slices.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def refused(script, arguments: list, output: Path, capsys) -> str:
    """Run a script that must refuse its input, and return its message of one line. No output may be left behind."""
    capsys.readouterr()  # of runs before
    beside = set(output.parent.iterdir())
    assert script.main([*map(str, arguments), "-o", str(output)]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if " slices (" not in line]
    assert set(output.parent.iterdir()) == beside, "something was left behind"
    assert len(lines) == 1, lines
    return lines[0]
