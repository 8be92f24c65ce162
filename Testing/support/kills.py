"""Kills processes of a cohort at random moments, and repeats the command until all cases are done.

`python Testing/support/kills.py [COUNT] [SEED]` kills COUNT processes (100) and prints when; it needs the shared data and Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import SimpleITK as sitk

REPOSITORY = Path(__file__).parents[2]
LIBRARY = REPOSITORY / "UNetPlusPlusSegment"
COUNT, SEED = 100, 18
SHARES = {"command": 5, "worker": 2, "both": 1, "dask": 2}  # of ten kills; both: the command and its worker
CASES, MOST_IN_A_ROW = 5, 6
PATIENCE_S = 120.0
PROGRAM = "UNetPlusPlusSegmentLib.cli.main"
WORKER = "UNetPlusPlusSegmentLib.jobs.worker_main"
CLUSTER = """
import sys
from distributed import LocalCluster
with LocalCluster(2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50) as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""
TABLE, MANIFEST, ENDING = "measurements.csv", "manifest.jsonl", ".seg.nrrd"


class Wrong(AssertionError):
    """Something that must not happen after a kill."""


def check(condition: object, what: str) -> None:
    """Raise `Wrong` unless the condition holds."""
    if not condition:
        raise Wrong(what)


def make_scans(data: Path, folder: Path) -> None:
    """Small scans: every fourth voxel of a real CT, each starting at another slice."""
    ct = sitk.Cast(sitk.ReadImage(data / "volumes/abdomen_3mm_ct.nii.gz"), sitk.sitkInt16)
    folder.mkdir()
    for case in range(CASES):
        sitk.WriteImage(ct[::4, ::4, 5 * case : 5 * case + 25], folder / f"scan{case}.nrrd")


class Killing:
    """A cohort of small scans, the durations of its stages, and the checks after each kill.

    All processes that it starts have a mark in their environment, by which left-over ones are found, and use one folder for
    temporary files.
    """

    def __init__(self, data: Path, models: Path, folder: Path, seed: int) -> None:
        self.draw, self.ends = random.Random(seed), Counter[str]()
        self._inputs, self._temporary = folder / "in", folder / "tmp"
        self._folder, self._number = folder, 0
        self._mark = f"UNETPP_KILLS={uuid.uuid4().hex}"
        self.environment = {
            **os.environ, "PYTHONPATH": str(LIBRARY), "UNETPP_MODELS": str(models), "TMPDIR": str(self._temporary),
            "DASK_TEMPORARY_DIRECTORY": str(folder / "dask"), "OMP_NUM_THREADS": "1", **dict([self._mark.split("=")]),
            # Otherwise the cluster gives up a killed process that takes more than 15 s to start again.
            "DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "1 day",
        }  # fmt: skip
        folder.mkdir()
        self._temporary.mkdir()
        make_scans(data, self._inputs)
        self._whole, self._stage_s = folder / "whole", [0.0]
        with Command(self._asked(self._whole), self.environment) as command:
            started = time.monotonic()
            for _ in command.lines():
                self._stage_s.append(time.monotonic() - started - sum(self._stage_s))
            command.end()
        self._stage_s = self._stage_s[1:]  # until the first case, each case, and the end
        check(command.code == 0, command.said())

    def kill_all(self, kills: dict[str, int], *victims: str) -> None:
        """Kill each of these victims the given number of times."""
        for victim in victims:
            if victim != "dask":
                self.kill(victim, kills[victim])
            elif kills[victim]:
                with cluster_of(self.environment) as address:
                    self.kill(victim, kills[victim], address)
        self.check_nothing_left()

    def kill(self, victim: str, count: int, cluster: str | None = None) -> None:
        """Kill a victim `count` times, several times in a row for one output folder, until each cohort is done."""
        while count:
            self._number += 1
            out = self._folder / f"out{self._number}"
            for _ in range(min(count, self.draw.randint(1, MOST_IN_A_ROW))):
                count -= self._kill_once(victim, out, cluster)
            for _ in range(3):  # a case fails if its worker is killed, and is done by the next call
                with Command(self._asked(out, cluster), self.environment) as command:
                    command.end()
                self._check(out)
                if command.code == 0:
                    break
            self._check_done(out, command)

    def check_nothing_left(self) -> None:
        """Wait for all processes to end, and check that no temporary files are left."""
        deadline = time.monotonic() + PATIENCE_S
        while left := self.processes():
            check(
                time.monotonic() < deadline, f"left over: {[Path(f'/proc/{pid}/cmdline').read_bytes() for pid in left]}"
            )
            time.sleep(0.05)
        with Command(self._asked(self._folder / "last"), self.environment) as command:
            command.end()  # removes what the killed processes could not
        left = [path for path in self._temporary.rglob("*") if not _is_pythons_probe(path)]
        check(not left, f"temporary files left over: {left}")

    def processes(self, of: str = "", parent: int | None = None) -> list[int]:
        """The living processes started here, with these words in their command line and with this parent."""
        return [pid for pid in all_processes() if _is(pid, self._mark, of, parent)]

    def _asked(self, out: Path, cluster: str | None = None) -> list[str]:
        words = [PROGRAM, "cohort", "liver", self._inputs, "-o", out, "--device", "cpu"]
        return [sys.executable, "-m", *map(str, words), *(["--dask", cluster] if cluster else [])]

    def _kill_once(self, victim: str, out: Path, cluster: str | None) -> bool:
        """Run the command, and kill the victim at a random moment; returns False if the command had ended before."""
        line = self.draw.randrange(len(self._stage_s))  # so that each stage is hit, also on a slow computer
        known = _done(out)
        with Command(self._asked(out, cluster), self.environment) as command:
            seen = 0
            while seen < min(line, CASES - len(known)) and command.line():
                seen += 1
            delay = self.draw.uniform(0, 1.2) * self._stage_s[line]
            worker = None
            if victim in ("worker", "both"):
                worker = self._wait_for(command, lambda: self.processes(WORKER, command.pid))
            time.sleep(delay)
            if victim == "dask":
                worker = self.draw.choice(self._wait_for(command, self._dask_processes) or [None])
            elif worker:
                worker = worker[0]
            ended = command.has_ended
            if not ended and worker:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            if victim in ("command", "both"):
                command.kill()
            phase = self._phase(out, seen, known)
            if victim in ("worker", "dask"):
                command.end()
                check("Traceback" not in command.said(), command.said())
        self._check(out)
        check(known <= _done(out), f"lost: {known - _done(out)}")
        killed = not ended and (victim == "command" or worker is not None)
        self.ends[f"{victim}, {phase}"] += killed
        return killed

    def _dask_processes(self) -> list[int]:
        """Dask processes that have one of our workers: if they are killed while they start, Dask may give them up and wait forever."""
        return [pid for pid in self.processes("spawn_main") if self.processes(WORKER, pid)]

    def _wait_for(self, command: Command, find) -> list[int]:
        while not (found := find()) and not command.has_ended:
            time.sleep(0.002)
        return found

    def _phase(self, out: Path, seen: int, known: set[str]) -> str:
        done = _done(out)
        written = {path.name.removesuffix(ENDING) for path in out.glob(f"[!.]*{ENDING}")}
        if [*out.glob(".*")]:
            return "while a file was written"
        if len(done) == CASES:
            return "with the last case recorded"
        if written - done:
            return "with a case written, but not recorded"
        if not seen:
            return "before its first case"
        return "in its first case" if done == known else "in a later case"

    def _check(self, out: Path) -> None:
        """Check what must hold at any moment: every file is complete, and no case was done twice."""
        for path in out.glob(f"[!.]*{ENDING}"):
            ours, theirs = (sitk.GetArrayFromImage(sitk.ReadImage(each)) for each in (path, self._whole / path.name))
            check(np.array_equal(ours, theirs), f"{path} is another result")
        records = _records(out)
        for case, count in Counter(each["case"] for each in records if each["status"] == "done").items():
            check(count == 1, f"{case} was done {count} times")
            check((out / f"{case}{ENDING}").is_file(), f"{case} is done and has no result")
        if (out / TABLE).exists():
            with (out / TABLE).open(newline="") as ours, (self._whole / TABLE).open(newline="") as theirs:
                rows, expected = ([*csv.reader(stream)] for stream in (ours, theirs))
            check(rows[0] == expected[0] and len(rows) > 1, f"{out / TABLE} is not whole: {rows}")
            for row in rows[1:]:
                check("failed" in row or row in expected, f"{row} is no row of {expected}")

    def _check_done(self, out: Path, command: Command) -> None:
        check(command.code == 0, command.said())
        names = {path.name for path in out.iterdir()}
        check(names == {path.name for path in self._whole.iterdir()}, f"in the folder lie {sorted(names)}")
        check((out / TABLE).read_text() == (self._whole / TABLE).read_text(), "the table is another one")


class Command:
    """A running command, whose lines on stderr are read one by one."""

    def __init__(self, asked: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            asked, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._said: list[str] = []

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.stderr.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        return self._process.returncode

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def line(self) -> str:
        """The next line on stderr; empty at the end."""
        line = self._process.stderr.readline()
        self._said.append(line)
        return line

    def lines(self) -> Iterator[str]:
        while line := self.line():
            yield line

    def end(self) -> None:
        """Wait until it ends."""
        _, rest = self._process.communicate(timeout=PATIENCE_S)
        self._said.append(rest)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        return f"exit code {self.code}: {''.join(self._said)}"


def shared_memory() -> set[str]:
    """Files in shared memory that no living process has mapped or open; other programs use shared memory too."""
    names = {path.name for path in Path("/dev/shm").iterdir()}
    for pid in all_processes():
        with contextlib.suppress(OSError):
            mapped = Path(f"/proc/{pid}/maps").read_text().splitlines()
            names -= {Path(line.split()[-1]).name for line in mapped if "/dev/shm/" in line}
            names -= {each.readlink().name for each in Path(f"/proc/{pid}/fd").iterdir()}
    return names


def _is_pythons_probe(path: Path) -> bool:
    """True for the four-byte file with which Python's `tempfile` tests a folder, left if it was killed meanwhile."""
    return re.fullmatch(r"[a-z0-9_]{8}", path.name) and path.is_file() and path.read_bytes() in (b"", b"blat")


def all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _is(pid: int, mark: str, of: str, parent: int | None) -> bool:
    try:
        environment, line, status = (
            Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline", "stat")
        )
    except OSError:
        return False
    state, above = status.rpartition(b")")[2].split()[:2]
    return (
        mark.encode() in environment.split(b"\0") and of.encode() in line and state not in b"ZX"
        and parent in (None, int(above))
    )  # fmt: skip


def _records(out: Path) -> list[dict]:
    """All lines of the manifest, each of which must be complete."""
    path = out / MANIFEST
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _done(out: Path) -> set[str]:
    return {each["case"] for each in _records(out) if each["status"] == "done"}


@contextlib.contextmanager
def cluster_of(environment: dict[str, str]) -> Iterator[str]:
    """A Dask cluster of two processes on this machine, started by another process; gives the address of its scheduler."""
    command = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process.stdout.readline().strip()
        process.stdin.close()


def run(data: Path, models: Path, count: int = COUNT, seed: int = SEED) -> Counter:
    """Kill this many processes, with two cohorts at a time, because most of the time is spent waiting for PyTorch to load.

    Returns:
        How many were killed when.

    Raises:
        Wrong: Something was lost, done twice, half written or left over.
    """
    kills = {victim: count * share // sum(SHARES.values()) for victim, share in SHARES.items()}
    kills["command"] += count - sum(kills.values())
    shared = shared_memory()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as threads:
        one, other = (Killing(data, models, Path(folder, str(n)), seed + n) for n in range(2))
        tasks = [
            threads.submit(one.kill_all, kills, "command"),
            threads.submit(other.kill_all, kills, "worker", "both", "dask"),
        ]
        for task in tasks:
            task.result()
    # Only now, because a cluster keeps that of a killed process until its own end.
    check(not (more := shared_memory() - shared), f"shared memory left over: {more}")
    return one.ends + other.ends


def main() -> int:
    arguments = argparse.ArgumentParser(description="Kill processes of a cohort at random moments.")
    arguments.add_argument("count", type=int, nargs="?", default=COUNT)
    arguments.add_argument("seed", type=int, nargs="?", default=SEED)
    given = arguments.parse_args()
    from bright import bright_bundle

    data = Path(os.environ.get("UNETPP_DATA") or REPOSITORY.parent / "shared" / "data")
    with tempfile.TemporaryDirectory() as models:
        bright_bundle(Path(models) / "liver-ct-v99.0.0", pixel_mm=4.0)
        started = time.monotonic()
        ends = run(data, Path(models), given.count, given.seed)
    for when, times in sorted(ends.items()):
        print(f"{times:4} {when}")
    print(f"{ends.total()} kills in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
