#!/usr/bin/env python
"""Whole volumes: our speeds compared with other programs slice by slice, and with our own network on every slice at full depth.

python benchmarks/whole_volume.py [--rounds 5] [--model NAME_OR_FOLDER] [--parts times agreement "long scans"]

Prints the ratios of one run and writes them into benchmarks/README.md. Linux only.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import scans
from contender import Contender, busy_computer, cold_start_s, running
from tables import machine, spread, table, write

from UNetPlusPlusSegmentLib.core.agreement import dice

AGREEMENT = ("abdomen_dicom", "abdomen_3mm", "CTChest4", "tiled_200")
SPEEDS = ("accurate", "balanced", "fast")
ON_PROCESSORS = (
    ("abdomen_dicom", "accurate", "liver"),
    ("liver_119", "balanced", "liver"),
    ("chest_111", "balanced", "nodule"),
)
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}  # the most that torch and oneDNN may use


def main() -> None:
    """Measure, and write the sections of the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--slices",
        type=int,
        default=2,
        help="slices that peers compute per round; their time per volume is scaled from these",
    )
    parser.add_argument("--model", default="", help="default: the newest model for the liver")
    parser.add_argument("--smp-python", help="Python of an environment with segmentation-models-pytorch")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all; each is written when it is done"
    )
    given = parser.parse_args()
    for name in given.parts:
        write(name, PARTS[name](given))


def _agreement(given: argparse.Namespace) -> str:
    """A table of the agreement between the mask of each speed and that of every slice at full depth."""
    rows = [row for scan in AGREEMENT for row in _agreement_on(scan, given.model)]
    return table(("scan", "speed", "slices seen", "Dice with reference", "Dice with the other tool"), rows)


def _agreement_on(scan: str, model: str) -> list[tuple]:
    ours, rows = Contender("ours_on_a_volume", scan, model), []
    with running([ours]), tempfile.TemporaryDirectory() as folder:
        shape = ours.ready["shape"]

        def mask(speed: str) -> tuple[np.ndarray, dict]:
            file = Path(folder) / f"{speed}.npy"
            measured = ours.turn(speed=speed, save=str(file))
            return np.unpackbits(np.load(file), count=int(np.prod(shape))).reshape(shape).view(bool), measured

        reference, whole = mask("reference")
        other = scans.truth(scan)
        exact = "float32" in ours.ready["device"]  # then `accurate` is the reference
        for speed in ("reference", *SPEEDS[exact:]):
            found, measured = (reference, whole) if speed == "reference" else mask(speed)
            truth = "" if other is None else f"{dice(found, other):.4f}"
            rows.append((scan, speed, f"{measured['slices']} of {whole['slices']}",
                         f"{dice(found, reference):.4f}", truth))  # fmt: skip
    return rows


def _times(given: argparse.Namespace) -> str:
    """A table of the times of our speeds and of the peers, in turn, on the tiled volume and on the stack that shows liver everywhere."""
    ours = {scan: Contender("ours_on_a_volume", scan, given.model) for scan in ("tiled_200", "all_liver_80")}
    peers = {"MONAI BasicUNetPlusPlus": Contender("monai"), "paper's layout": Contender("paper")}
    if given.smp_python:
        peers["SMP UnetPlusPlus r34"] = Contender("smp", python=given.smp_python)
    with running([*ours.values(), *peers.values()]):
        took, a_slice, peak = _take_turns(ours, peers, given.rounds, given.slices)
        slices = {scan: each.ready["shape"][0] for scan, each in ours.items()}
        about = ours["tiled_200"].ready
    rows = []
    for (scan, speed), seconds in took.items():
        ratios = (
            spread([slices[scan] * s / own for s, own in zip(a_slice[name][: len(seconds)], seconds, strict=True)])
            for name in peers
        )
        rows.append((f"{scan}, {speed}", spread(seconds, 1), *ratios, f"{peak[scan, speed] / 1e6:.0f}"))
    for name, seconds in a_slice.items():
        rows.append((f"{name}, a slice", spread(seconds, 2), *[""] * len(peers), f"{peak[name] / 1e6:.0f}"))
    head = ("", "seconds", *(f"times faster than {name}" for name in peers), "peak MB")
    text = f"{about['model']}, {about['device']}; {machine()}; {given.rounds} rounds.\n\n{table(head, rows)}"
    return text if given.smp_python else f"{text}\n\nSMP: skipped, no `--smp-python` was given."


def _take_turns(
    ours: Mapping[str, Contender], peers: Mapping[str, Contender], rounds: int, slices: int
) -> tuple[dict[tuple[str, str], list[float]], dict[str, list[float]], dict[object, int]]:
    """Seconds per volume by (scan, speed), seconds per slice by peer, and the peak memory of each in bytes."""
    timed = [(scan, speed) for scan in ours for speed in SPEEDS if (scan, speed) != ("tiled_200", "accurate")]
    took: dict[tuple[str, str], list[float]] = {which: [] for which in timed}
    a_slice: dict[str, list[float]] = {name: [] for name in peers}
    peak: dict[object, int] = defaultdict(int)
    for count in range(rounds):
        for name, peer in peers.items():
            measured = peer.turn(slices=slices)
            a_slice[name].append(float(np.mean(measured["seconds"])))
            peak[name] = max(peak[name], measured["peak_bytes"])
        for scan, speed in timed:
            if speed == "accurate" and count:
                continue  # it takes long, so it runs in the first round only
            measured = ours[scan].turn(speed=speed)
            took[scan, speed].append(measured["seconds"])
            peak[scan, speed] = max(peak[scan, speed], measured["peak_bytes"])
    return took, a_slice, peak


def _threads(given: argparse.Namespace) -> str:
    """A table of the times with one thread, with all threads, and with all while another program uses every core; MONAI in turn."""
    liver = Contender("ours_on_a_volume", "liver_119", given.model)
    chest = Contender("ours_on_a_volume", "chest_111", "", "nodule")
    monai = Contender("monai")
    runs = {
        f"{name}, {speed}": (ours, speed)
        for name, ours, speeds in (("liver_119", liver, SPEEDS), ("chest_111", chest, ("balanced",)))
        for speed in speeds
    }
    with running([liver, chest, monai]):
        seconds = _seconds_by_threads(runs, monai, given.rounds, given.slices)
        slices, about = liver.ready["shape"][0], liver.ready
    rows = []
    for run in runs:
        own, one, busy = (seconds[run, which] for which in ("all", "one", "busy"))
        whole = [slices * a_slice for a_slice in seconds["MONAI", ""]] if runs[run][0] is liver else []
        ratios = [quotient(other, own) for other in (whole, one)] + [quotient(busy, own)]
        rows.append((run, spread(own, 2), *(spread(each, 2) if each else "" for each in ratios)))
    head = (
        "",
        "seconds",
        "times faster than MONAI's",
        "times faster than one thread",
        "times slower on a busy computer",
    )
    cold = spread([cold_start_s(given.model) for _ in range(given.rounds)], 1)
    return (
        f"{about['model']}, {about['device']}; {machine()}; {given.rounds} rounds.\n\n{table(head, rows)}\n\n"
        f"MONAI's BasicUNetPlusPlus takes {spread(seconds['MONAI', ''], 2)} s per slice. From a cold start to the first slice: {cold} s."
    )


def _seconds_by_threads(
    runs: Mapping[str, tuple[Contender, str]], monai: Contender, rounds: int, slices: int
) -> dict[tuple[str, str], list[float]]:
    """Seconds in each round, by run and by `all` threads, `one` thread or a `busy` computer; for MONAI's network, per slice."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for ours, speed in runs.values():
        ours.turn(speed=speed)  # the first run of a process chooses algorithms
    for _ in range(rounds):
        seconds["MONAI", ""].append(float(np.mean(monai.turn(slices=slices)["seconds"])))
        for run, (ours, speed) in runs.items():
            ours.turn(speed=speed)  # not counted: the first run after that of another process is slower
            for which, threads in (("all", None), ("one", 1)):
                seconds[run, which].append(ours.turn(speed=speed, threads=threads)["seconds"])
        with busy_computer():
            for run, (ours, speed) in runs.items():
                if speed == "balanced":
                    seconds[run, "busy"].append(ours.turn(speed=speed)["seconds"])
    return seconds


def quotient(first: list[float], second: list[float]) -> list[float]:
    """The quotients, round by round."""
    return [a / b for a, b in zip(first, second, strict=True)] if first else []


def _processors(given: argparse.Namespace) -> str:
    """A table of the times on this processor and on one that has only AVX2, and of the memory that each thread takes."""
    rows = []
    for allowed in ({}, AVX2):
        models = {"liver": given.model}
        contenders = [
            Contender("ours_on_a_volume", s, models.get(target, ""), target) for s, _, target in ON_PROCESSORS
        ]
        with mock.patch.dict(os.environ, allowed), running(contenders):
            for (scan, speed, _), ours in zip(ON_PROCESSORS, contenders, strict=True):
                ours.turn(speed=speed)  # the first run of a process chooses algorithms
                one = ours.turn(speed=speed, threads=1)["peak_bytes"]
                turns = [ours.turn(speed=speed) for _ in range(given.rounds)]
                more = (max(turn["peak_bytes"] for turn in turns) - one) / max(1, ours.ready["threads"] - 1)
                seconds = spread([turn["seconds"] for turn in turns], 1)
                rows.append(
                    (f"{scan}, {speed}", ours.ready["device"], seconds, *(f"{n / 1e6:.0f}" for n in (one, more)))
                )
    head = ("", "device", "seconds", "peak MB with one thread", "MB more with each further thread")
    return f"{machine()}; {given.rounds} rounds.\n\n{table(head, rows)}"


def _long_scans(given: argparse.Namespace) -> str:
    """A table with the cost of slices without liver, and the memory that a long scan needs in addition to its own."""
    whole, cropped = (Contender("ours_on_a_volume", scan, given.model) for scan in ("tiled_600", "cropped_600"))
    ratios, peak = [], 0
    with running([whole, cropped]):
        for _ in range(max(1, given.rounds // 2)):
            first, second = whole.turn(speed="balanced"), cropped.turn(speed="balanced")
            ratios.append(first["seconds"] / second["seconds"])
            peak = max(peak, first["peak_bytes"])
    return table(
        (
            "liver on 120 of 600 slices, compared with the scan cropped to these",
            "peak RSS − RSS with volume and model loaded",
        ),
        [(f"{spread(ratios, 2)} times the time", f"{peak / 1e6:.0f} MB, the mask's 157 MB included")],
    )


PARTS = {
    "threads": _threads,
    "times": _times,
    "agreement": _agreement,
    "long scans": _long_scans,
    "processors": _processors,
}


if __name__ == "__main__":
    main()
