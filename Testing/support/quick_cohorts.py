"""A cohort without a network: a worker that finds a block in every scan, scans, and what a run left in its folder."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.jobs import cohort as cohorts
from UNetPlusPlusSegmentLib.jobs.manifest import TABLE


class Finder:
    """Stands in for a worker: finds a block in every scan, at once, and a larger one below a threshold of 0.5."""

    def submit(self, volume, folder, request):
        return volume, request.threshold or 0.5

    def result_of(self, submitted):
        volume, threshold = submitted
        labelmap = np.zeros(volume.array.shape, np.uint8)
        labelmap[2 : 4 if threshold >= 0.5 else 5, 2:6, 2:6] = 1
        liver = Segment(1, "Liver", "", (221, 130, 101), {"volume_ml": 1.0})
        return Result(labelmap, (liver,), (), 0.5, "bright-v1.0.0", "cpu", 6, 6, 0.1)


def add_scan(path: Path, aside_mm: float = 0.0) -> None:
    """Write noise, each slice `aside_mm` to the side of the one before it."""
    array, affine = np.random.default_rng(0).integers(-1000, 300, (6, 8, 8), np.int16), np.diag([-2.0, -2.0, 3.0, 1.0])
    affine[1, 2] = aside_mm
    files.write_volume(path, array, affine)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("a.*")}


def rows_of(out: Path) -> dict[str, str]:
    """The status of each case in the table."""
    with (out / TABLE).open(newline="", encoding="utf-8") as stream:
        return {row["case"]: row["status"] for row in csv.DictReader(stream)}


def kill_at_the_next_result(monkeypatch) -> None:
    """Have the next run end as one that is killed when the result of its first case is written, but not recorded."""

    def kill(*_):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(cohorts, "write_picture", kill)
