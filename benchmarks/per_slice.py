#!/usr/bin/env python
"""The time of one 512² slice: pruned levels, the effect of each optimisation, other programs, and the limit set by the convolutions.

python benchmarks/per_slice.py [--rounds 5] [--slices 2] [--smp-python PATH] [--openvino-python PATH]

Prints the ratios of one run and writes them into benchmarks/README.md. Linux only.
"""

from __future__ import annotations

import argparse
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


def main() -> None:
    """Measure, and write the section of the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=2, help="slices that each contender computes per round")
    parser.add_argument("--smp-python", help="Python of an environment with segmentation-models-pytorch")
    parser.add_argument("--openvino-python", help="Python of an environment with torch, openvino and nncf")
    given = parser.parse_args()
    contenders, limits, skipped = _contenders(given)
    measured = _measure(contenders, limits, given)
    first = measured[next(iter(contenders))].seconds
    rows = [
        (name, spread(one.seconds, 2), spread([a / b for a, b in zip(first, one.seconds, strict=True)], 1),
         f"{one.peak_bytes / 1e6:.0f}")
        for name, one in measured.items()
    ]  # fmt: skip
    notes = [
        f"The convolutions of {name} alone, each on a prepared input, reach {spread(measured[name].gflops)} GFLOP/s; the network"
        f" reaches {spread(measured[name].shares)} % of that."
        for name in limits
    ]
    head = ("512×512, batch 1", "seconds", f"times faster than {next(iter(contenders))}", "peak MB")
    others = "".join(f" --{name}-python …" for name in ("smp", "openvino") if getattr(given, f"{name}_python"))
    text = f"""
{machine()}. `python benchmarks/per_slice.py --rounds {given.rounds} --slices {given.slices}{others}`;
medians (lowest–highest) of interleaved rounds.

{table(head, rows)}

{" ".join([*notes, *skipped])}
"""
    write("one slice", text.strip())


@dataclass
class Measured:
    """The measurements of one contender over all rounds.

    Attributes:
        seconds: Mean time per slice, by round.
        peak_bytes: Largest growth of memory.
        shares: Time of the convolutions alone, in % of that of the network, by round.
        gflops: Speed of the convolutions alone, by round.
    """

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    shares: list[float] = field(default_factory=list)
    gflops: list[float] = field(default_factory=list)


def _contenders(given: argparse.Namespace) -> tuple[dict[str, Contender], dict[str, Contender], list[str]]:
    """All contenders by name; the others are compared with the first one.

    Returns:
        The networks; for some of them, under the same name, their convolutions alone; and a sentence for each contender that is skipped.
    """
    from UNetPlusPlusSegmentLib.network.device import cpu_has_bf16

    dtypes = ("float32", "bfloat16") if cpu_has_bf16() else ("float32",)
    networks = {"MONAI BasicUNetPlusPlus": Contender("monai"), "paper's layout, one head": Contender("paper")}
    if given.smp_python:
        networks["SMP UnetPlusPlus r34"] = Contender("smp", python=given.smp_python)
    networks |= {f"paper's UNet++, {words}": Contender("lever", name) for words, name in LEVERS.items()}
    networks |= {f"ours, L{level}, {dtype}": Contender("ours_on_slices", str(level), dtype)
                 for dtype in dtypes for level in (4, 3, 2, 1)}  # fmt: skip
    if given.openvino_python:
        for precision in ("float32", "int8"):
            networks[f"ours, L4, OpenVINO, {precision}"] = Contender(
                "openvino", precision, python=given.openvino_python
            )
    limits = {f"ours, L4, {dtype}": Contender("convolutions", "4", dtype) for dtype in dtypes}
    skipped = [] if "bfloat16" in dtypes else ["bf16: skipped, because this processor does not support it."]
    return networks, limits, skipped if given.smp_python else [*skipped, "SMP: skipped, no `--smp-python` was given."]


def _measure(
    networks: dict[str, Contender], limits: dict[str, Contender], given: argparse.Namespace
) -> dict[str, Measured]:
    """Let all contenders compute slices in turn, in several rounds."""
    results = {name: Measured() for name in networks}
    with running([*networks.values(), *limits.values()]):
        for _ in range(given.rounds):
            for name, network in networks.items():
                result, turn = results[name], network.turn(slices=given.slices)
                result.seconds.append(float(np.mean(turn["seconds"])))
                result.peak_bytes = max(result.peak_bytes, turn["peak_bytes"])
                if name in limits:
                    limit = limits[name].turn(slices=given.slices)
                    result.shares.append(100 * limit["seconds"][0] / min(turn["seconds"]))
                    result.gflops.append(limit["gflops"])
    return results


if __name__ == "__main__":
    main()
