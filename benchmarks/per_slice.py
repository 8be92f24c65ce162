#!/usr/bin/env python
"""One 512² slice through the network: pruned levels, what each lever gives, peers, and the limit its convolutions set.

python benchmarks/per_slice.py [--rounds 5] [--slices 2] [--smp-python PATH] [--openvino-python PATH]

Prints ratios of one run and writes them into benchmarks/README.md. Linux.
"""

from __future__ import annotations

import argparse

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
    """Run all and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=2, help="that each contender computes in a round")
    parser.add_argument("--smp-python", help="Python of an environment with segmentation-models-pytorch")
    parser.add_argument("--openvino-python", help="Python of an environment with torch, openvino and nncf")
    given = parser.parse_args()

    from UNetPlusPlusSegmentLib.network.device import cpu_has_bf16

    dtypes = ("float32", "bfloat16") if cpu_has_bf16() else ("float32",)
    ours = {f"ours, L{level}, {dtype}": Contender("ours_on_slices", str(level), dtype)
            for dtype in dtypes for level in (4, 3, 2, 1)}  # fmt: skip
    limits = {f"ours, L4, {dtype}": Contender("convolutions", "4", dtype) for dtype in dtypes}
    levers = {f"paper's UNet++, {words}": Contender("lever", name) for words, name in LEVERS.items()}
    peers = {"MONAI BasicUNetPlusPlus": Contender("monai"), "paper's layout, one head": Contender("paper")}
    if given.smp_python:
        peers["SMP UnetPlusPlus r34"] = Contender("smp", python=given.smp_python)
    if given.openvino_python:
        for precision in ("float32", "int8"):
            ours[f"ours, L4, OpenVINO, {precision}"] = Contender("openvino", precision, python=given.openvino_python)
    everyone = {**peers, **levers, **ours}
    seconds, peak = {name: [] for name in everyone}, dict.fromkeys(everyone, 0)
    shares, gflops = {name: [] for name in limits}, {name: [] for name in limits}
    with running([*everyone.values(), *limits.values()]):
        for _ in range(given.rounds):
            for name, each in everyone.items():
                measured = each.turn(slices=given.slices)
                seconds[name].append(np.mean(measured["seconds"]))
                peak[name] = max(peak[name], measured["peak_bytes"])
                if name in limits:
                    limit = limits[name].turn(slices=given.slices)
                    shares[name].append(100 * limit["seconds"][0] / min(measured["seconds"]))
                    gflops[name].append(limit["gflops"])
    first = next(iter(peers))
    rows = [
        (name, spread(took, 2), spread([a / b for a, b in zip(seconds[first], took, strict=True)], 1),
         f"{peak[name] / 1e6:.0f}")
        for name, took in seconds.items()
    ]  # fmt: skip
    limit = [
        f"The convolutions of {name} alone, each on an input that is there: {spread(gflops[name])} GFLOP/s; the network reaches"
        f" {spread(shares[name])} % of that."
        for name in limits
    ]
    if "bfloat16" not in dtypes:
        limit.append("bf16: skipped, this processor has none.")
    if not given.smp_python:
        limit.append("SMP: skipped, no `--smp-python` was given.")
    text = f"""
{machine()}. `python benchmarks/per_slice.py --rounds {given.rounds} --slices {given.slices}`; medians (least–most) of interleaved rounds.

{table(("512×512, batch 1", "seconds", f"times faster than {first}", "peak MB"), rows)}

{" ".join(limit)}
"""
    write("one slice", text.strip())


if __name__ == "__main__":
    main()
