"""The module's logic with a real worker process and a model that can be checked by hand, for tests on a scene."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from Testing.support.bright import segmented
from Testing.support.mrml_scene import GRIDS
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.files import write_volume
from UNetPlusPlusSegmentLib.network.bundle import read_bundle

PATIENCE_S = 600  # before a test says that something hangs: on a busy computer it is only slow
LONG = 10_000  # slices: work for more than ten seconds, which is not over while a test is busy with something else
GRID = GRIDS["oblique"] @ np.diag([4.0, 4.0, 2.0, 1.0])


def a_scan(slices: int = 30) -> np.ndarray:
    """Noise below 50 HU with a block of 90 HU inside, without any symmetry."""
    array = np.random.default_rng(0).integers(-900, 50, (slices, 40, 50)).astype(np.int16)
    array[slices // 3 : slices // 2, 8:25, 15:40] = 90
    array[slices // 3, 25:30, 15:20] = 90
    return array


def a_cohort(folder: Path) -> Path:
    """Make a folder with two scans, and a text file that calls itself one."""
    folder.mkdir()
    for name in ("one.nrrd", "two.nii.gz"):
        write_volume(folder / name, a_scan(), np.diag([-2.0, -2.0, 3.0, 1.0]))
    (folder / "broken.nrrd").write_text("not a volume")
    return folder


def expected(models, array, ijk_to_ras=GRID, threshold=None):
    engine = SliceEngine(read_bundle(models / "bright-v1.0.0"), "cpu")
    return segmented(engine, Volume(array, ijk_to_ras), speed="balanced", threshold=threshold).labelmap


def wait(logic, until) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < deadline, "nothing happened for too long"
        logic.poll()
        time.sleep(0.01)


def a_run(logic, volumeNode, *arguments, **options):
    """A run that has ended."""
    run = logic.start(volumeNode, *arguments, device="cpu", **options)
    wait(logic, lambda: not run.running)
    return run


def started(logic, volumeNode, *arguments, **options):
    """A long run in which some slices are done."""
    run = logic.start(volumeNode, *arguments, device="cpu", speed="accurate", **options)
    wait(logic, lambda: run.progress is not None)
    assert run.running
    return run
