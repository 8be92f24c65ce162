"""The terminal: its streams, progress bars, notes, the library's log and Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

from ..core.progress import Pace, in_words

BACK = "\r"  # to the start of the line; consoles of Windows know no order to empty it unless they are asked to
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed


def prepare_streams() -> None:
    """Make stdout and stderr usable where they are closed, have no reader, or cannot show every letter.

    If they are a terminal, the names of files, segments and models give it no orders: control characters are shown as `\\x1b`.
    """
    for name in ("stdout", "stderr"):
        # A closed stream: if its descriptor stayed free, the next file opened would receive what C++ prints.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__:
        # A copy of the descriptor: files are read in other threads, which keep the messages of C++ off the descriptor itself.
        unheard = io.BufferedWriter(_Unheard(os.dup(sys.stderr.fileno())))
        kind = _Terminal if sys.stderr.isatty() else io.TextIOWrapper
        sys.stderr = kind(unheard, sys.stderr.encoding, line_buffering=True)
    os.environ["PYTHON_COLORS"] = "0"  # Python's own orders, in tracebacks and --help, would be shown, too
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.isatty():
        sys.stdout = _Terminal(sys.stdout.buffer, sys.stdout.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal can show mm³


class _Terminal(io.TextIOWrapper):
    """A stream to a terminal, of whose orders only `BACK` at the start of a text is passed on."""

    def write(self, text: str, /) -> int:
        start = BACK if text.startswith(BACK) else ""
        return super().write(start + CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text.removeprefix(start)))


class _Unheard(io.RawIOBase):
    """A stderr that ignores errors, so that a run goes on if the reader of its progress has gone, as `head` does."""

    def __init__(self, descriptor: int) -> None:
        # Not FileIO: for a console of Windows, `open` gives a stream that shows every letter, whatever its code page.
        self._stream = open(descriptor, "wb", buffering=0)  # noqa: SIM115

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, data: Any, /) -> int | None:
        with contextlib.suppress(OSError):
            return self._stream.write(data)
        return len(data)


def reader_has_gone() -> bool:
    """Whether the reader of stdout has gone, as `head` does; all files have been written by then."""
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # as Python flushes stdout once more at its end
    return True


@contextlib.contextmanager
def interrupted_afterwards() -> Iterator[None]:
    """Keep Ctrl-C until the end of the block: in the middle of its import, torch would crash the process."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    pressed = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed.is_set():
        raise KeyboardInterrupt


def say(notes: Iterable[str]) -> None:
    """Print notes, one on each line of stderr."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def log_as_notes(quiet: bool, debug: bool) -> Iterator[None]:
    """Print what the library logs as notes: errors only if `quiet`, and with their traceback if `debug`."""
    library, notes = logging.getLogger(__package__.partition(".")[0]), _Notes(debug)
    notes.setLevel(logging.ERROR if quiet else logging.WARNING)
    library.addHandler(notes)
    try:
        yield
    finally:
        library.removeHandler(notes)


class _Notes(logging.Handler):
    def __init__(self, debug: bool) -> None:
        super().__init__()
        self._debug = debug

    def emit(self, record: logging.LogRecord) -> None:
        say([record.getMessage()])
        if self._debug and record.exc_info:
            traceback.print_exception(*record.exc_info)


class ProgressBar:
    """A progress bar for each phase, with the time left; shown only on a terminal."""

    def __init__(self, quiet: bool) -> None:
        self.visible = sys.stderr.isatty() and not quiet
        self._width = 0  # of what is shown

    def __enter__(self) -> ProgressBar:
        self.pace = Pace()
        return self

    def show(self, done: int, total: int, phase: str) -> None:
        if self.visible:
            left = self.pace.seconds_left(done, total, phase)
            text = in_words(done, total, phase) + (f", {left:.0f} s left" if left is not None else "")
            filled = "█" * (30 * done // total if total else 0)
            self._print(f"{filled:░<30} {text} ")

    def __exit__(self, *_: object) -> None:
        if self.visible:
            self._print("")
            print(BACK, end="", file=sys.stderr, flush=True)

    def _print(self, text: str) -> None:
        """Replace what is shown."""
        print(f"{BACK}{text:<{self._width}}", end="", file=sys.stderr, flush=True)
        self._width = len(text)
