#!/usr/bin/env python
"""One 512² slice through the network: pruned levels, what each lever gives, peers, and the limit its convolutions set.

python benchmarks/per_slice.py [--rounds 5] [--slices 2] [--smp-python PATH] [--openvino-python PATH]

Prints ratios of one run and writes them into benchmarks/README.md. Linux.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from contender import Contender, running
from tables import machine, spread, table, write

LEVERS = {
    "four heads, batch norm, contiguous": "plain",
    "+ channels_last": "channels_last",
    "+ freed memory kept": "faults",
    "+ both": "both",
    "+ both, batch norm folded": "folded",
}


@dataclass
class Measured:
    """What the rounds gave, by contender.

    Attributes:
        seconds: Of a slice, one for each round.
        peak_bytes: The most memory that a turn took.
        shares: Of the convolutions' own speed that the network reaches, in per cent.
        gflops: Of the convolutions alone, per second.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    peak_bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    shares: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    gflops: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def main() -> None:
    """Run all and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=2, help="that each contender computes in a round")
    parser.add_argument("--smp-python", help="Python of an environment with segmentation-models-pytorch")
    parser.add_argument("--openvino-python", help="Python of an environment with torch, openvino and nncf")
    given = parser.parse_args()

    from UNetPlusPlusSegmentLib.network.device import cpu_has_bf16

    dtypes = ("float32", "bfloat16") if cpu_has_bf16() else ("float32",)
    limits = {f"ours, L4, {dtype}": Contender("convolutions", "4", dtype) for dtype in dtypes}
    measured = take_turns(contenders(dtypes, given), limits, given.rounds, given.slices)
    skipped = []
    if "bfloat16" not in dtypes:
        skipped.append("bf16: skipped, this processor has none.")
    if not given.smp_python:
        skipped.append("SMP: skipped, no `--smp-python` was given.")
    how = f"`python benchmarks/per_slice.py --rounds {given.rounds} --slices {given.slices}`"
    write(
        "one slice", f"{machine()}. {how}; medians (least–most) of interleaved rounds.\n\n{report(measured, skipped)}"
    )


def contenders(dtypes: Sequence[str], given: argparse.Namespace) -> dict[str, Contender]:
    """All that compute a slice, by name: the peers first, of which the first is what the others are held against."""
    peers = {"MONAI BasicUNetPlusPlus": Contender("monai"), "paper's layout, one head": Contender("paper")}
    if given.smp_python:
        peers["SMP UnetPlusPlus r34"] = Contender("smp", python=given.smp_python)
    levers = {f"paper's UNet++, {words}": Contender("lever", name) for words, name in LEVERS.items()}
    ours = {f"ours, L{level}, {dtype}": Contender("ours_on_slices", str(level), dtype)
            for dtype in dtypes for level in (4, 3, 2, 1)}  # fmt: skip
    if given.openvino_python:
        for precision in ("float32", "int8"):
            ours[f"ours, L4, OpenVINO, {precision}"] = Contender("openvino", precision, python=given.openvino_python)
    return {**peers, **levers, **ours}


def take_turns(
    everyone: Mapping[str, Contender], limits: Mapping[str, Contender], rounds: int, slices: int
) -> Measured:
    """Rounds in which each computes some slices; right after a network that has a limit come its convolutions alone."""
    measured = Measured()
    with running([*everyone.values(), *limits.values()]):
        for _ in range(rounds):
            for name, each in everyone.items():
                turn = each.turn(slices=slices)
                measured.seconds[name].append(float(np.mean(turn["seconds"])))
                measured.peak_bytes[name] = max(measured.peak_bytes[name], turn["peak_bytes"])
                if name in limits:
                    limit = limits[name].turn(slices=slices)
                    measured.shares[name].append(100 * limit["seconds"][0] / min(turn["seconds"]))
                    measured.gflops[name].append(limit["gflops"])
    return measured


def report(measured: Measured, skipped: Sequence[str]) -> str:
    """The table, and below it the limit of the convolutions and what was skipped."""
    first, reference = next(iter(measured.seconds.items()))
    rows = [
        (name, spread(took, 2), spread([a / b for a, b in zip(reference, took, strict=True)], 1),
         f"{measured.peak_bytes[name] / 1e6:.0f}")
        for name, took in measured.seconds.items()
    ]  # fmt: skip
    limits = [
        f"The convolutions of {name} alone, each on an input that is there: {spread(gflops)} GFLOP/s; the network reaches"
        f" {spread(measured.shares[name])} % of that."
        for name, gflops in measured.gflops.items()
    ]
    head = ("512×512, batch 1", "seconds", f"times faster than {first}", "peak MB")
    return f"{table(head, rows)}\n\n{' '.join([*limits, *skipped])}"


if __name__ == "__main__":
    main()
