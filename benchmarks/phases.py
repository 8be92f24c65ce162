#!/usr/bin/env python
"""The phases of a run, from reading a file to the segmentation in the scene and in a file, as shares of its time.

python benchmarks/phases.py [--speed balanced] [--rounds 3] [--model NAME_OR_FOLDER]

Prints the shares and writes them into benchmarks/README.md. Needs slicer-core. Linux only.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import scans
import slicer
from tables import machine, table, write
from waiting import blocked

from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.engine import organ
from UNetPlusPlusSegmentLib.files import read_volume
from UNetPlusPlusSegmentLib.files.writing import write_segmentation, write_volume
from UNetPlusPlusSegmentLib.jobs.worker_client import Worker
from UNetPlusPlusSegmentLib.network.bundle import Bundle, choose_bundle

SCANS = ("CTChest4", "liver_119", "tiled_600")
INSIDE = {  # phases of the engine, and the functions whose time they are
    "check and clean": ((organ.SliceEngine, "check"), (organ, "clean_hu")),
    "find": ((organ.SliceEngine, "_find_organ"),),
    "network": ((organ.SliceEngine, "_fill"),),
    "components": ((organ, "postprocess"),),
    "measure": ((organ, "measure"),),
}
ORDER = ("read", "hand over", *INSIDE, "back to voxels", "into the scene", "write")

Seconds = dict[str, list[float]]  # from a phase to its seconds in each round


def main() -> None:
    """Measure, and write the section of the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", default="balanced")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="", help="default: the newest model for the liver")
    given = parser.parse_args()
    slicer.mrmlScene = slicer.vtkMRMLScene()
    bundle = choose_bundle("liver", given.model or None)
    rows = []
    for scan in SCANS:
        seconds = phases(scan, bundle, given.speed, given.rounds)
        middle = {name: statistics.median(seconds[name]) for name in ORDER}
        whole = sum(middle.values())
        rows.append((scan, f"{whole:.2f}", *(f"{100 * middle[name] / whole:.0f} %" for name in ORDER)))
    about = f"{bundle.name}, {given.speed}; {machine()}; {given.rounds} rounds."
    write("phases", f"{about}\n\n{table(('', 'seconds', *ORDER), rows)}")


def phases(scan: str, bundle: Bundle, speed: str, rounds: int) -> Seconds:
    """The seconds of each phase on a scan, by round."""
    seconds: Seconds = defaultdict(list)
    volume, request = scans.load(scan), Request(speed=speed)
    node = slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, scan)
    engine = organ.SliceEngine(bundle)
    engine.predict(volume, request)  # the first run of a process chooses algorithms
    with tempfile.TemporaryDirectory() as folder, Worker() as worker:
        file = Path(folder) / "ct.nii.gz"
        write_volume(file, volume.array, volume.ijk_to_ras)
        blocked(worker, node, (bundle.folder, request))
        for _ in range(rounds):
            with timed(seconds["read"]):
                read_volume(file)
            whole: list[float] = []
            with timed(whole), inside(seconds):
                result = engine.predict(volume, request).at()
            seconds["back to voxels"].append(whole[0] - sum(seconds[name][-1] for name in INSIDE))
            with timed(seconds["write"]):
                write_segmentation(Path(folder) / "liver.seg.nrrd", result.labelmap, volume.ijk_to_ras, result.segments)
            hand_over, into_scene = blocked(worker, node, (bundle.folder, request))
            seconds["hand over"].append(hand_over)
            seconds["into the scene"].append(into_scene)
    slicer.mrmlScene.Clear()
    return seconds


@contextmanager
def timed(to: list[float]) -> Iterator[None]:
    """Append the seconds that the block takes."""
    begun = time.perf_counter()
    yield
    to.append(time.perf_counter() - begun)


@contextmanager
def inside(seconds: Seconds) -> Iterator[None]:
    """Time the phases of `INSIDE` in the block; the parts of a phase are added up."""
    parts: Seconds = defaultdict(list)

    def wrapped(function: Callable, name: str) -> Callable:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            with timed(parts[name]):
                return function(*arguments, **options)

        return call

    patches = [
        mock.patch.object(owner, attribute, wrapped(getattr(owner, attribute), name))
        for name, places in INSIDE.items()
        for owner, attribute in places
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()
    for name in INSIDE:
        seconds[name].append(sum(parts[name]))


if __name__ == "__main__":
    main()
