"""A child process that talks in lines, never blocks its parent and dies as a tree. The standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

LONGEST_LINE = 1 << 20  # bytes; what is longer comes in pieces
LAST_WORDS = 40  # lines of stderr that are kept
PACKAGE_PARENT = Path(__file__).resolve().parents[2]


def python_executable() -> str:
    """The Python to start: PythonSlicer inside Slicer, else the one that runs this."""
    return ("slicer" in sys.modules and shutil.which("PythonSlicer")) or sys.executable


class ChildProcess:
    """A running child; PythonSlicer is a launcher, so the one that talks may be a grandchild."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        """Start it in `folder`, from where Python imports nothing by accident.

        Raises:
            OSError: The system cannot start it.
        """
        self._child = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, **_OWN_GROUP,
        )  # fmt: skip
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        # The threads know the pipes only: with the last reference to this object stdin closes, and the child ends by itself.
        _in_background(_read, self._child.stdout, self._lines.put)
        _in_background(_read, self._child.stderr, self.note)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    @property
    def has_ended(self) -> bool:
        """True once it is gone; its last lines may still be on their way."""
        return self._child.poll() is not None

    def send(self, message: Mapping) -> None:
        """Write one JSON line; of a child that has ended, `received` will tell."""
        with contextlib.suppress(OSError):
            os.write(self._child.stdin.fileno(), json.dumps(message).encode("ascii") + b"\n")

    def received(self) -> Iterator[str | None]:
        """The lines since the last call, undecodable bytes replaced; None: there will be no more, the child has ended."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._lines.get_nowait()

    def note(self, line: str | None) -> None:
        """Keep a line among the last words."""
        if line and line.strip():
            self._last_words.append(line.rstrip())

    @property
    def last_words(self) -> str:
        """The last lines on stderr."""
        return "\n".join(list(self._last_words))

    def kill(self) -> None:
        """End the child and all that it started, at once; does not wait for them."""
        if self._child.returncode is not None:
            return
        if sys.platform == "win32":
            command = ["taskkill", "/F", "/T", "/PID", str(self._child.pid)]
            with contextlib.suppress(OSError):
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **_OWN_GROUP)
        else:
            # The group bears the child's number, which is no other's before the child is waited for.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
        _in_background(self._child.wait)

    def close(self) -> None:
        """Kill it and wait until it is gone, two seconds at most: before, Windows does not let go of its folder."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(2.0)

    def how_it_ended(self) -> tuple[str, str]:
        """After it has ended: `memory` or `crash`, and half a sentence on what happened."""
        try:
            code = self._child.wait(0.1)
        except subprocess.TimeoutExpired:
            self.kill()
            return "crash", "closed its output without a word"
        words = self.last_words
        # A launcher says of every child that was killed or crashed that it "exit abnormally"; of a crash, faulthandler
        # tells more.
        killed_below_launcher = code == 1 and "exit abnormally" in words and "Fatal Python error" not in words
        if code == -9 or killed_below_launcher:
            return "memory", "was ended by the operating system, probably because memory ran out"
        if code < 0:
            return "crash", f"crashed ({_signal_name(-code)})"
        last = f": {words.splitlines()[-1][:200]}" if words else ""
        return "crash", f"ended unexpectedly (exit code {code if code < 256 else hex(code)}{last})"


def _environment() -> dict[str, str]:
    known = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    path = os.pathsep.join([str(PACKAGE_PARENT), *known])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}


if sys.platform == "win32":  # no console window, and no Ctrl-C that is meant for the parent
    _OWN_GROUP = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    _OWN_GROUP = {"start_new_session": True}


def _read(stream: BinaryIO, put: Callable[[str | None], None]) -> None:
    with stream:
        while line := stream.readline(LONGEST_LINE):
            put(line.decode("utf-8", errors="replace"))
    put(None)


def _in_background(function: Callable, *arguments: object) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
