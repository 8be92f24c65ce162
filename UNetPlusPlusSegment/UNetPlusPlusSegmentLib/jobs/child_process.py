"""A child process that exchanges lines with its parent without blocking it. The standard library only."""

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
from typing import IO, Any, cast

LONGEST_LINE = 1 << 20  # bytes; longer ones are split
LAST_WORDS = 40  # lines of stderr to keep
ENDING_S = 2.0  # time for a process to end once it has closed its output or was killed; a busy computer needs it
PACKAGE_PARENT = Path(__file__).resolve().parents[2]


def python_executable() -> str:
    """The Python to start: PythonSlicer inside Slicer, otherwise the one that runs this."""
    return ("slicer" in sys.modules and shutil.which("PythonSlicer")) or sys.executable


class ChildProcess:
    """A running child process. PythonSlicer is a launcher, so the process that answers may be a grandchild."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        """Start it in `folder`, where Python finds no modules to import by accident.

        Raises:
            OSError: The system cannot start it.
        """
        self._child = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, **_OWN_GROUP,
        )  # fmt: skip
        self._requests = cast(IO[bytes], self._child.stdin)  # not None, as it is a pipe
        self._killed = False
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        # The threads hold only the pipes, so that stdin closes with the last reference to this object, and the child ends by itself.
        _in_background(_read, self._child.stdout, self._lines.put)
        self._listening_to_stderr = _in_background(_read, self._child.stderr, self.note)

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._child.pid

    @property
    def has_ended(self) -> bool:
        """True once it has ended; its last lines may still be unread."""
        return self._child.poll() is not None

    def send(self, message: Mapping) -> None:
        """Write one JSON line. If the child has ended, this raises no error; `received` reports it."""
        with contextlib.suppress(OSError):
            os.write(self._requests.fileno(), json.dumps(message).encode("ascii") + b"\n")

    def received(self) -> Iterator[str | None]:
        """The lines since the last call, with undecodable bytes replaced; the last one is None once the child has closed its output."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._lines.get_nowait()

    def note(self, line: str | None) -> None:
        """Keep a line for `last_words`."""
        if line and line.strip():
            self._last_words.append(line.rstrip())

    @property
    def last_words(self) -> str:
        """The last lines on stderr; complete once the child has ended or was killed."""
        if self._killed or self.has_ended:
            self._listening_to_stderr.join(ENDING_S)
        return "\n".join(list(self._last_words))

    def kill(self) -> None:
        """Kill the child and all its descendants, without waiting for them."""
        if self._child.returncode is not None:
            return
        self._killed = True
        if sys.platform == "win32":
            command = ["taskkill", "/F", "/T", "/PID", str(self._child.pid)]
            with contextlib.suppress(OSError):
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **_OWN_GROUP)
        else:
            # The group ID is the child's process ID, which is not reused before the child is waited for.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
        _in_background(self._child.wait)

    def dismiss(self) -> None:
        """Close its stdin and wait two seconds for it to end by itself, then kill it."""
        with contextlib.suppress(OSError):
            self._requests.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(ENDING_S)
        self.close()

    def close(self) -> None:
        """Kill it and wait up to two seconds for its end, as Windows keeps its folder open until then."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(ENDING_S)

    def how_it_ended(self) -> tuple[str, str]:
        """Why it ended: `memory` or `crash`, and the predicate of a sentence about it."""
        try:
            code = self._child.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "crash", "closed its output without an error message"
        words = self.last_words
        # A launcher prints "exit abnormally" if its child crashed or was killed; after a crash, faulthandler has printed more.
        killed_below_launcher = code == 1 and "exit abnormally" in words and "Fatal Python error" not in words
        if code == -9 or killed_below_launcher:
            return "memory", "was killed by the operating system, probably because memory ran out"
        if code < 0:
            return "crash", f"crashed ({_signal_name(-code)})"
        last = f": {words.splitlines()[-1][:200]}" if words else ""
        return "crash", f"ended unexpectedly (exit code {code if code < 256 else hex(code)}{last})"


def _environment() -> dict[str, str]:
    known = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    path = os.pathsep.join([str(PACKAGE_PARENT), *known])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}


_OWN_GROUP: dict[str, Any]  # keyword arguments of Popen
if sys.platform == "win32":  # no console window, and no Ctrl-C meant for the parent
    _OWN_GROUP = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    _OWN_GROUP = {"start_new_session": True}


def _read(stream: IO[bytes], put: Callable[[str | None], None]) -> None:
    with stream:
        while line := stream.readline(LONGEST_LINE):
            put(line.decode("utf-8", errors="replace"))
    put(None)


def _in_background(function: Callable, *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
