"""Damaged files of every kind end in a result, a noted one or one sentence, in time, and in no more memory than they are worth."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from Testing.support import fuzz
from Testing.support.bright import bright_bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc"),
]
SHELL_INPUTS, SHELL_SECONDS = 50, 120


def test_a_thousand_damaged_inputs_end_well(shared_data):
    ends, wrong, figures = fuzz.run(shared_data("volumes").parent)
    assert not wrong, f"{len(wrong)} of {fuzz.COUNT}, {figures}:\n" + "\n".join(wrong[:10])
    assert sum(ends.values()) == fuzz.COUNT
    assert min(ends["read"], ends["noted"], ends["refused"]) > 50  # each kind of end is tried


def test_fifty_damaged_inputs_end_well_in_a_shell(shared_data, tmp_path):
    bright_bundle(tmp_path / "models" / "liver-ct-v99.0.0")
    environment = {**os.environ, "PYTHONPATH": str(fuzz.LIBRARY), "UNETPP_MODELS": str(tmp_path / "models")}
    made, out = tmp_path / "made", tmp_path / "out"
    made.mkdir()
    out.mkdir()
    for what, path in fuzz.inputs(shared_data("volumes").parent, made, SHELL_INPUTS, fuzz.SEED + 1):
        command = [sys.executable, "-m", "UNetPlusPlusSegmentLib.cli.main", "liver", path, "-o", out / "x.seg.nrrd"]
        done = subprocess.run(
            [*map(str, command), "--device", "cpu", "--json"], env=environment, capture_output=True, text=True,
            timeout=SHELL_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 1), f"{what}: {done.returncode}, {done.stderr}"
        said = done.stderr.splitlines()
        assert len(said) == done.returncode, f"{what}: {done.stderr}"
        assert not any("unexpected" in line or "Traceback" in line for line in said), f"{what}: {done.stderr}"
        assert [p.name for p in out.iterdir()] == ["x.seg.nrrd"] * (done.returncode == 0), what
        for left in out.iterdir():
            left.unlink()
