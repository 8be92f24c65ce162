"""A scan and a model for a real worker process, and helpers to run jobs."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.jobs import worker_client
from UNetPlusPlusSegmentLib.jobs.protocol import JobError, Progress

LIBRARY = Path(worker_client.__file__).parents[1]
PATIENCE_S = 600  # before a test says that a process hangs: on a busy computer it is only slow
LONG = 10_000  # slices: work for more than ten seconds, which is not over while a test is busy with something else
CHATTER = """
import os, threading, time
print("a start-up script that prints")
def chat():
    while True:
        time.sleep(0.01)
        os.write(1, b"a library that prints without an end of line")
threading.Thread(target=chat, daemon=True).start()
"""


def scan(slices: int = 30, dtype: type = np.int16) -> Volume:
    """Noise below 50 HU with a block of 90 HU inside, on an oblique, flipped grid of unequal spacing."""
    draw = np.random.default_rng(0)
    array = draw.integers(-900, 50, (slices, 60, 70))
    array[slices // 3 : slices // 2, 20:45, 15:50] = 90
    c, s = np.cos(0.2), np.sin(0.2)
    ijk_to_ras = np.array([[-1.7, 0, 0, 50.3], [0, 2.1 * c, -4 * s, -7.1], [0, 2.1 * s, 4 * c, 1 / 3], [0, 0, 0, 1]])
    return Volume(array.astype(dtype), ijk_to_ras)


def fake(tmp_path, script: str) -> list[str]:
    """The command of a child process without torch, which starts quickly; `count` is the number of earlier ones."""
    path = tmp_path / "fake.py"
    count = "import json, os, signal, subprocess, sys, time\nfrom pathlib import Path\n" + (
        "log = Path(__file__).with_suffix('.log')\nlog.open('a').write('.')\ncount = len(log.read_text()) - 1\n"
        "def say(what, **more):\n    print(json.dumps({'say': what, **more}), flush=True)\n"
        "def answer():\n    for line in sys.stdin:\n"
        "        say('device', job=json.loads(line)['job'], device='fake', free_memory_bytes=None)\n"
    )
    path.write_text(count + script)
    return [sys.executable, str(path)]


def run(worker, job) -> list:
    """All events of a job, including the last one."""
    events = []
    for _ in until(lambda: events[-1:] and not isinstance(events[-1], Progress)):
        events.extend(worker.poll())
    assert {event.job for event in events} == {job}
    return events


def until(met):
    """Repeat a step until a condition is met."""
    deadline = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < deadline, "nothing happened for too long"
        yield
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """True if any of its threads still runs."""
    try:
        states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):  # one ended while we looked
        return alive(pid)
    return any(state not in "ZX" for state in states)


def cpu_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]) / os.sysconf("SC_CLK_TCK")


def fails(worker, job) -> JobError:
    with pytest.raises(JobError) as caught:
        worker.wait(job)
    assert str(caught.value).count("\n") == 0
    assert str(caught.value).endswith(".")
    return caught.value


def works(worker, bundle, expected) -> None:
    done = worker.wait(worker.submit(scan(), bundle, Request(device="cpu", speed="accurate")))
    np.testing.assert_array_equal(done.result.labelmap, expected.at().labelmap)


def files_in(temporary) -> list:
    return [path for path in temporary.rglob("*") if path.is_file()]
