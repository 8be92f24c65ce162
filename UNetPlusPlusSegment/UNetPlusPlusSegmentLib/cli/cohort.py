"""`unetpp-segment cohort`: many scans, with a line on stderr as each one ends."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import files
from ..core.request import Request
from ..core.table import rounded
from ..jobs.cohort import one_after_the_other, run_cohort
from ..jobs.dask_cluster import on_cluster, on_this_computer
from ..jobs.worker_client import Worker


def cohort(given: argparse.Namespace, request: Request) -> list[dict[str, Any]]:
    """Run a cohort as the arguments say.

    Returns:
        The manifest line of each case.

    Raises:
        ValueError: It cannot be run, or cannot be finished.
    """
    series = files.read_series_table(given.series) if given.series else None
    inputs = given.inputs[0] if len(given.inputs) == 1 and Path(given.inputs[0]).is_dir() else given.inputs
    points = files.read_points_table(given.points_of_cases) if given.points_of_cases else None
    said = _Lines(given.quiet)
    with Worker() as worker:
        if given.dask:
            run = on_cluster(given.dask)
        elif given.workers != 1:
            run = on_this_computer(given.workers)
        else:
            run = one_after_the_other(worker)
        return run_cohort(run, inputs, given.output, request, said.progress, series, said.ended, given.format, points)


class _Lines:
    """Prints how many cases there are to do, and the outcome of each."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._started = time.monotonic()
        self._total = self._before = self._done = 0

    def progress(self, done: int, total: int, case: str) -> None:
        """Called before each case."""
        if not self._total:
            self._total, self._before, self._done = total, done, done
            self._say(f"{total - done} of {total} cases to do")

    def ended(self, record: Mapping[str, Any]) -> None:
        """Called after each case."""
        self._done += 1
        left = self._total - self._done
        seconds_left = (time.monotonic() - self._started) / (self._done - self._before) * left
        self._say(f"{record['case']}: {in_words(record)}" + (f", about {duration(seconds_left)} left" if left else ""))

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line, file=sys.stderr, flush=True)


def in_words(record: Mapping[str, Any]) -> str:
    """The outcome of a case: `Liver 1,146 ml, expected Dice 0.95 (48 s)`."""
    if record["status"] != "done":
        return f"failed ({duration(record.get('seconds') or 0)})"
    found = record["measurements"]
    nodules = [each["mean_diameter_rounded_mm"] for each in found.values() if "mean_diameter_rounded_mm" in each]
    if nodules or not found:
        largest = f", the largest {max(nodules)} mm" if nodules else ""
        texts = [f"{len(nodules)} nodule{'s' * (len(nodules) != 1)}{largest}"]
    else:
        texts = [_volume(name, each["volume_ml"]) for name, each in found.items()]
    dice = [each["expected_dice"] for each in found.values() if each.get("expected_dice") is not None]
    if dice:
        texts.append(f"expected Dice {min(dice):.2f}")
    return f"{', '.join(texts)} ({duration(record['seconds'])})"


def _volume(name: str, volume_ml: float) -> str:
    return f"{name} {rounded('volume_ml', volume_ml):,} ml" if volume_ml else f"{name} not found"


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours, whichever is easiest to read."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
