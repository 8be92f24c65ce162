#!/usr/bin/env python
"""The times for which a user waits: until a cancelled job stops, while the window is frozen, and after a click on a nodule.

python benchmarks/waiting.py [--scan tiled_200] [--speed balanced] [--moments 12] [--model NAME_OR_FOLDER]

Prints the seconds of one run and writes them into benchmarks/README.md. Needs slicer-core. Linux only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scans
import slicer
from tables import machine, spread, table, write

from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.jobs.protocol import Progress, ResultReady
from UNetPlusPlusSegmentLib.jobs.worker_client import Worker
from UNetPlusPlusSegmentLib.network.bundle import choose_bundle
from UNetPlusPlusSegmentLib.scene import mrml, showing

ROUNDS = 5  # measurements of what blocks the window
Job = tuple[Path, Request]  # the model's folder, and the request


def main() -> None:
    """Measure, and write the section of the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", choices=scans.SCANS, default="tiled_200")
    parser.add_argument("--speed", default="balanced")
    parser.add_argument(
        "--moments",
        type=int,
        default=12,
        help="number of moments, spread evenly over the job, at which it is cancelled",
    )
    parser.add_argument("--model", default="", help="default: the newest model for the liver")
    given = parser.parse_args()
    slicer.mrmlScene = slicer.vtkMRMLScene()
    scan = scans.load(given.scan)
    node = slicer.util.addVolumeFromArray(scan.array, scan.ijk_to_ras, given.scan)
    job = choose_bundle("liver", given.model or None).folder, Request(speed=given.speed)
    with Worker() as worker:
        worker.wait(submit(worker, node, job))  # the first job loads everything
        pid = worker.pid
        rounds = [timed(blocked, worker, node, job) for _ in range(ROUNDS)]
        took_s, blocks = statistics.median(took for took, _ in rounds), [each for _, each in rounds]
        stops = [stopped(worker, node, job, share * took_s) for share in np.linspace(0, 0.95, given.moments)]
        killed = worker.pid != pid
    with Worker() as worker:
        clicks = clicked(worker)
    rows = [
        ("a cancelled job has stopped", spread(stops, 2), f"{given.moments} moments of a job of {took_s:.0f} s"),
        ("the volume is handed over", spread([hand for hand, _ in blocks], 2), "the window is frozen"),
        ("the result is in the scene", spread([take for _, take in blocks], 2), "the window is frozen"),
        ("a nodule that was clicked on is in the scene", spread(clicks, 2), "chest_111, from the second click on"),
    ]
    about = f"{given.scan}, {given.speed}; {machine()}."
    if killed:
        about += " Some jobs did not stop within half a second, so the worker was killed and started again."
    write("waiting", f"{about}\n\n{table(('until', 'seconds', ''), rows)}")


def timed(function: Callable, *arguments: Any, **options: Any) -> tuple[float, Any]:
    """The duration of a call in seconds, and its result."""
    begun = time.perf_counter()
    result = function(*arguments, **options)
    return time.perf_counter() - begun, result


def submit(worker: Worker, node: Any, job: Job) -> int:
    """Start a job as the module does, and return its number."""
    return worker.submit(mrml.volume_from_node(node), *job)


def blocked(worker: Worker, node: Any, job: Job) -> tuple[float, float]:
    """The seconds for which a run blocks the calling thread: to hand over the volume, and to take the mask into the scene."""
    handing_s, number = timed(submit, worker, node, job)
    while True:
        polling_s, events = timed(worker.poll)
        for event in events:
            if isinstance(event, ResultReady) and event.job == number:
                found, segmentation = event.result, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
                showing_s, _ = timed(showing.show_segmentation, found.labelmap, found.segments, node, segmentation)
                return handing_s, polling_s + showing_s
        time.sleep(0.01)


def clicked(worker: Worker) -> list[float]:
    """The seconds from each click on a nodule until it is in the scene, without the first click, which loads the model."""
    scan, readers = scans.load("chest_111"), scans.readers()
    node = slicer.util.addVolumeFromArray(scan.array, scan.ijk_to_ras, "chest_111")
    middle = np.argwhere(readers >= 3).mean(axis=0).round()[::-1]
    r, a, s = (float(mm) for mm in (scan.ijk_to_ras @ [*middle, 1])[:3])
    job = choose_bundle("nodule").folder, Request("nodule", points=((r, a, s),))
    return [timed(blocked, worker, node, job)[0] for _ in range(ROUNDS + 1)][1:]


def stopped(worker: Worker, node: Any, job: Job, moment_s: float) -> float:
    """The seconds from a click on Cancel, `moment_s` after the start, until the job has ended and the next may begin."""
    worker.wait(worker.ask_device())  # restarts the worker if the last cancellation killed it
    number = submit(worker, node, job)
    time.sleep(moment_s)
    begun = time.perf_counter()
    worker.cancel(number)
    while all(isinstance(event, Progress) for event in worker.poll()):
        time.sleep(0.01)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
