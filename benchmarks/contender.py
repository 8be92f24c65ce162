#!/usr/bin/env python
"""A contender runs in its own process, which waits until it is asked to work, so that several contenders can be timed in turn.

Protocol, one JSON object per line: on stdin, the keyword arguments of each turn; on stdout, first a description of the contender, then
the measurements of each turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    import numpy as np
    import torch

    from UNetPlusPlusSegmentLib.core.volume import Volume
    from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
    from UNetPlusPlusSegmentLib.network.unetpp import NodeGrid

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parent / "UNetPlusPlusSegment"
COLD_S = 3.0  # time until a program that imports torch has begun its work
SIZE = 512  # rows and columns of the slices on which networks are compared


class Contender:
    """The parent's side of a contender."""

    def __init__(self, name: str, *arguments: str, python: str = sys.executable) -> None:
        """Prepare the command; `start` runs it."""
        self._command = [python, __file__, name, *arguments]
        self.ready: dict = {}  # its description of itself, once it has started

    def start(self) -> None:
        """Start the process, and wait until it is ready."""
        path = os.pathsep.join([str(LIBRARY), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            self._command, env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._to, self._from = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self.ready = self._heard()

    def turn(self, **job: object) -> dict:
        """Let it work once, and return what it measured."""
        self._to.write(json.dumps(job) + "\n")
        self._to.flush()
        return self._heard()

    def close(self) -> None:
        """End the process."""
        self._to.close()
        self._process.wait()

    def _heard(self) -> dict:
        line = self._from.readline()
        if not line:
            raise SystemExit(f"{' '.join(self._command)} ended unexpectedly; its output above says why.")
        return json.loads(line)


@contextmanager
def busy_computer() -> Iterator[None]:
    """Run another program that uses all cores during the block."""
    program = "import torch\nimage = torch.randn(1500, 1500)\nwhile True:\n    image @ image"
    other = subprocess.Popen([sys.executable, "-c", program])
    time.sleep(COLD_S)
    try:
        yield
    finally:
        other.kill()
        other.wait()


def cold_start_s(model: str) -> float:
    """Seconds from the start of a process, imports and model included, to the first slice of a scan."""
    program = """
import sys, time
from UNetPlusPlusSegmentLib import read_volume, segment
from UNetPlusPlusSegmentLib.jobs.allocator import keep_freed_memory
keep_freed_memory()
class Done(Exception): pass
def first(done, total, phase):
    if phase == "slices": raise Done
try: segment(sys.argv[1], model=sys.argv[2] or None, device="cpu", progress=first)
except Done: print(time.time())
"""
    import scans

    path = os.pathsep.join([str(LIBRARY), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", program, str(scans.DATA / "abdomen_dicom"), model]
    started = time.time()
    said = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    return float(said.stdout) - started


@contextmanager
def running(contenders: Sequence[Contender]) -> Iterator[None]:
    """Start the contenders one after the other, and end them after the block."""
    started = []
    try:
        for each in contenders:
            each.start()
            started.append(each)
        yield
    finally:
        for each in started:
            each.close()


# The child's side: each contender is a function that prepares the work, and returns its description and a function for its turns.

Turn = Callable[..., dict]


def ours_on_a_volume(scan: str, model: str, target: str = "liver") -> tuple[dict, Turn]:
    """Our engine on a whole volume; {"speed", "threads"} → seconds, slices, peak memory; {"save": file} saves the mask.

    With the speed `reference`, it computes the mask with which all speeds are compared; this is not timed.
    """
    from UNetPlusPlusSegmentLib.jobs.openmp import let_threads_sleep

    let_threads_sleep()

    import numpy as np
    import scans
    import torch

    from UNetPlusPlusSegmentLib.api import load_engine
    from UNetPlusPlusSegmentLib.core.request import Request
    from UNetPlusPlusSegmentLib.core.volume import axial_volume
    from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
    from UNetPlusPlusSegmentLib.jobs.allocator import keep_freed_memory
    from UNetPlusPlusSegmentLib.network.bundle import choose_bundle
    from UNetPlusPlusSegmentLib.network.device import Device

    keep_freed_memory()
    volume, engine = scans.load(scan), load_engine(choose_bundle(target, model or None), "cpu")
    exact = Device("cpu", torch.float32, "cpu (float32)")
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # all that torch may use, whatever this processor has
        engine.device = exact
    usual = engine.device

    def turn(speed: str, save: str = "", threads: int | None = None) -> dict:
        if speed == "reference" and isinstance(engine, SliceEngine):
            engine.device = exact
            mask = _reference(engine, volume)
            engine.device = usual
            engine._pruned.clear()
            np.save(save, np.packbits(mask > 0))
            return {"slices": len(axial_volume(volume).array)}
        _forget_peak()
        idle = _memory("VmRSS")
        result = engine.predict(volume, Request(target, speed=speed, threads=threads)).at()
        peak = _memory("VmHWM") - idle
        if save:
            np.save(save, np.packbits(result.labelmap > 0))
        return {"seconds": result.seconds, "slices": result.slices, "peak_bytes": peak, "device": result.device}

    about = {"shape": volume.array.shape, "model": engine.bundle.name, "device": usual.label, "threads": usual.threads}
    return about, turn


def ours_on_slices(level: str, dtype: str) -> tuple[dict, Turn]:
    """Our network as the engine runs it, pruned to a level, on whole slices; {"slices": n} → seconds of each slice."""
    import torch

    from UNetPlusPlusSegmentLib.jobs.allocator import keep_freed_memory
    from UNetPlusPlusSegmentLib.network.unetpp import fold_batch_norm, unetpp_ds

    keep_freed_memory()
    network = fold_batch_norm(unetpp_ds(batch_norm=True)).pruned(int(level), all_heads=True)
    image = _lay_out(network, getattr(torch, dtype), torch.channels_last)
    return {}, _slices(lambda: network(image))


def lever(lever: str) -> tuple[dict, Turn]:
    """The paper's network with one set of optimisations: `plain`, `channels_last`, `faults`, `both`, `folded`."""
    import torch

    from UNetPlusPlusSegmentLib.jobs.allocator import keep_freed_memory
    from UNetPlusPlusSegmentLib.network.unetpp import fold_batch_norm, unetpp_ds

    if lever in ("faults", "both", "folded"):
        keep_freed_memory()
    network = unetpp_ds(batch_norm=True).eval()
    network = fold_batch_norm(network) if lever == "folded" else network
    layout = torch.contiguous_format if lever in ("plain", "faults") else torch.channels_last
    image = _lay_out(network, torch.float32, layout)
    return {}, _slices(lambda: network(image))


def paper() -> tuple[dict, Turn]:
    """The paper's UNet++ without deep supervision, fp32, with torch's defaults."""
    import torch

    from UNetPlusPlusSegmentLib.network.unetpp import unetpp

    network, image = unetpp().eval(), torch.randn(1, 1, SIZE, SIZE)
    return {}, _slices(lambda: network(image))


def monai() -> tuple[dict, Turn]:
    """MONAI's BasicUNetPlusPlus with its defaults, fp32."""
    import torch
    from monai.networks.nets import BasicUNetPlusPlus

    network, image = (
        BasicUNetPlusPlus(spatial_dims=2, in_channels=1, out_channels=2).eval(),
        torch.randn(1, 1, SIZE, SIZE),
    )
    return {}, _slices(lambda: network(image))


def smp() -> tuple[dict, Turn]:
    """segmentation-models-pytorch's UnetPlusPlus with a ResNet 34, fp32."""
    import segmentation_models_pytorch
    import torch

    network = segmentation_models_pytorch.UnetPlusPlus("resnet34", encoder_weights=None, in_channels=1).eval()
    image = torch.randn(1, 1, SIZE, SIZE)
    return {}, _slices(lambda: network(image))


def openvino(precision: str) -> tuple[dict, Turn]:
    """Our network in OpenVINO, `float32` or `int8` (NNCF's post-training quantisation; only its time matters here)."""
    import numpy as np
    import openvino
    import torch

    from UNetPlusPlusSegmentLib.network.unetpp import fold_batch_norm, unetpp_ds

    network, image = fold_batch_norm(unetpp_ds(batch_norm=True)), np.random.rand(1, 1, SIZE, SIZE).astype(np.float32)
    model = openvino.convert_model(network, example_input=torch.rand(1, 1, 64, 64))
    model.reshape(list(image.shape))
    if precision == "int8":
        import nncf

        model = nncf.quantize(model, nncf.Dataset([image]), subset_size=1)
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", threads)
    return {}, _slices(lambda: compiled(image))


def convolutions(level: str, dtype: str) -> tuple[dict, Turn]:
    """The limit: only the network's convolutions, each on a prepared input; {"slices": n} → seconds."""
    import torch
    from torch import nn

    from UNetPlusPlusSegmentLib.jobs.allocator import keep_freed_memory
    from UNetPlusPlusSegmentLib.network.unetpp import fold_batch_norm, unetpp_ds

    keep_freed_memory()
    network = fold_batch_norm(unetpp_ds(batch_norm=True)).pruned(int(level), all_heads=True)
    image = _lay_out(network, getattr(torch, dtype), torch.channels_last)
    layers: list[tuple[nn.Conv2d | nn.ConvTranspose2d, torch.Size]] = []
    hooks = [
        module.register_forward_hook(lambda layer, given, made: layers.append((layer, given[0].shape)))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.inference_mode():
        network(image)
    for hook in hooks:
        hook.remove()
    # This also holds for transposed convolutions, because each of their outputs comes from one input.
    multiplications = sum(layer.weight.numel() * shape[2] * shape[3] for layer, shape in layers)

    def turn(slices: int) -> dict:
        seconds = 0.0
        with torch.inference_mode():
            for layer, shape in layers:
                given = torch.randn(shape, dtype=image.dtype).contiguous(memory_format=torch.channels_last)
                layer(given)
                tries = []
                for _ in range(slices):
                    started = time.perf_counter()
                    layer(given)
                    tries.append(time.perf_counter() - started)
                seconds += min(tries)
        return {"seconds": [seconds], "gflops": 2 * multiplications / seconds / 1e9}

    return {"gflop": 2 * multiplications / 1e9}, turn


def _lay_out(network: NodeGrid, dtype: torch.dtype, layout: torch.memory_format) -> torch.Tensor:
    """Convert a network's weights to a type and memory layout, and return an image of `SIZE` rows and columns in the same."""
    import torch

    network.to(dtype, memory_format=layout)  # type: ignore[call-overload]  # torch declares no overload for the layout
    return torch.randn(1, 1, SIZE, SIZE, dtype=dtype).contiguous(memory_format=layout)


def _reference(engine: SliceEngine, volume: Volume) -> np.ndarray:
    """The mask (K, J, I) with every slice at full depth; slices that a tiled scan repeats are computed only once."""
    import numpy as np

    from UNetPlusPlusSegmentLib.core.request import Request
    from UNetPlusPlusSegmentLib.core.volume import Volume, axial_order, axial_volume

    axial = axial_volume(volume)
    first: dict[bytes, int] = {}
    number = [first.setdefault(one.tobytes(), k) for k, one in enumerate(axial.array)]
    distinct = sorted(first.values())
    alone = engine.predict(Volume(axial.array[distinct], axial.ijk_to_ras), Request(speed="accurate"))
    each, shape = np.searchsorted(distinct, number), axial.array.shape
    pixels = replace(
        alone.pixels, probability=alone.pixels.probability[each], uncertainty=alone.pixels.uncertainty[each]
    )
    maps = replace(alone, volume=axial, box=tuple(slice(0, size) for size in shape), shape=shape, pixels=pixels)
    return axial_order(volume).undo(maps.at().labelmap)


def _slices(run: Callable[[], object]) -> Turn:
    import torch

    with torch.inference_mode():
        run()  # the first run chooses algorithms and allocates memory

    def turn(slices: int) -> dict:
        _forget_peak()
        idle = _memory("VmRSS")
        seconds = []
        with torch.inference_mode():
            for _ in range(slices):
                started = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - started)
        return {"seconds": seconds, "peak_bytes": _memory("VmHWM") - idle}

    return turn


def _memory(what: str) -> int:
    """VmRSS (current memory) or VmHWM (the peak since `_forget_peak`), in bytes; Linux only."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def _forget_peak() -> None:
    from UNetPlusPlusSegmentLib.jobs.allocator import give_back_freed_memory

    give_back_freed_memory()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


CONTENDERS = (ours_on_a_volume, ours_on_slices, lever, paper, monai, smp, openvino, convolutions)


def main(name: str, *arguments: str) -> None:
    """Serve turns until stdin closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    about, turn = next(each for each in CONTENDERS if each.__name__ == name)(*arguments)
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(turn(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
