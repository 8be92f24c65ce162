"""How far a run has come: phase by phase, each to its end and not beyond it, and shown on a terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from itertools import groupby

import numpy as np
import pytest

from Testing.support.bright import bright_bundle
from UNetPlusPlusSegmentLib.api import load_engine
from UNetPlusPlusSegmentLib.cli.terminal import ProgressBar
from UNetPlusPlusSegmentLib.core import progress
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.volume import Volume


def tilted_liver() -> Volume:
    """A body with an organ that moves from slice to slice, so that slices between those predicted first are needed."""
    array = np.full((60, 60, 60), -1000, np.int16)
    array[:, 4:-4, 4:-4] = -60
    for k in range(12, 48):
        array[k, 20:35, k - 6 : k + 6] = 100
    return Volume(array, np.diag([-2.0, -2.0, 1.0, 1.0]))


def test_each_phase_of_an_organ_s_run_is_counted_to_its_end_and_not_beyond(tmp_path):
    seen: list[tuple[int, int, str]] = []
    engine = load_engine(bright_bundle(tmp_path / "liver-v1.0.0"), "cpu")
    engine.predict(tilted_liver(), Request(), lambda *report: seen.append(report))
    phases = [phase for phase, _ in groupby(phase for *_, phase in seen)]
    assert phases == ["overview", "slices", "slices between"]
    assert all(0 < done <= total for done, total, _ in seen)
    last = {phase: (done, total) for done, total, phase in seen}
    assert all(done == total for done, total in last.values())


def test_the_time_left_is_that_of_the_phase_and_known_from_its_second_report_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    pace = progress.Pace()

    def left(after_s: float, done: int, total: int, phase: str) -> float | None:
        now[0] += after_s
        return pace.seconds_left(done, total, phase)

    assert left(0, 0, 0, "lungs") is None
    assert left(60, 1, 9, "search") is None
    assert left(2, 3, 9, "search") == 6
    assert left(1, 4, 9, "search") == 5
    assert left(1, 1, 4, "candidates") is None
    assert left(3, 2, 4, "candidates") == 6
    assert left(9, 1, 2, "candidates") is None  # the same phase, once more


def test_a_terminal_shows_the_phase_what_is_done_of_it_and_the_time_left(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar(quiet=False) as bar:
        for report in ((0, 0, "lungs"), (10, 80, "search"), (80, 80, "search"), (3, 9, "candidates")):
            bar.show(*report)
    first, *lines = terminal.getvalue().split("\r")
    assert [line.strip("█░ ") for line in lines] == [
        "lungs", "search 10 of 80", "search 80 of 80, 0 s left", "candidates 3 of 9", "", "",
    ]  # fmt: skip
    assert [line.count("█") for line in lines] == [0, 3, 30, 10, 0, 0]
    assert {line.count("█") + line.count("░") for line in lines[:-2]} == {30}
    assert (first, lines[-1]) == ("", "") and "".join(lines).isprintable(), "a console of Windows shows other orders"
    widths = [len(line.rstrip()) for line in lines]
    assert all(len(line) >= before for line, before in zip(lines[1:-1], widths, strict=False)), "nothing stays of it"


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_names_and_models_give_a_terminal_no_orders_but_the_bar_does():
    code = (
        "import sys\nfrom UNetPlusPlusSegmentLib.cli import terminal\nterminal.prepare_streams()\n"
        "print('Liver\x1b]0;hello\x07\\r\x9b2Jé')\nprint('a\x1b[2J.nrrd', file=sys.stderr)\n"
        "with terminal.ProgressBar(quiet=False) as bar:\n    bar.show(1, 2, 'search')\n"
    )
    ours, its = os.openpty()
    subprocess.run([sys.executable, "-X", "utf8", "-c", code], stdout=its, stderr=its, check=True)
    os.close(its)
    shown = os.read(ours, 1 << 12).decode()
    os.close(ours)
    assert shown.startswith("Liver\\x1b]0;hello\\x07\\x0d\\x9b2Jé\r\na\\x1b[2J.nrrd\r\n\r███")
    assert shown.replace("\r\n", "").replace("\r", "").isprintable()


def test_stderr_is_written_through_the_stream_that_python_opens_for_a_console():
    """On Windows, it shows every letter; bytes of UTF-8 would be shown as letters of an old code page."""
    code = (
        "import io, sys\nfrom UNetPlusPlusSegmentLib.cli import terminal\n"
        "class Console(io.FileIO):\n    def write(self, data):\n"
        "        super().write(bytes(data).decode().encode('cp850'))\n        return len(data)\n"
        "terminal.open = lambda descriptor, mode, buffering: Console(descriptor, mode)\n"
        "terminal.prepare_streams()\nprint('3 mm³ × ½', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", code], stderr=subprocess.PIPE, check=True)
    assert done.stderr.decode("cp850").splitlines() == ["3 mm³ × ½"]
