"""The start of `unetpp-segment`: nothing that takes time is imported before Ctrl-C is handled."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

CANCELLED = 130  # as of any program that a shell's Ctrl-C has ended
WORD = "unetpp-segment: cancelled."


def shell() -> int:
    """Run as the program `unetpp-segment`, in its own process, which may keep freed memory for speed."""
    # False for a background job of a shell, which ignores Ctrl-C.
    stoppable = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if stoppable:
        signal.signal(signal.SIGINT, _leave)
    from ..jobs.allocator import keep_freed_memory
    from ..jobs.openmp import let_threads_sleep
    from . import commands  # noqa: F401 - loads NumPy and SimpleITK, which takes a second or more
    from .terminal import prepare_streams

    prepare_streams()
    keep_freed_memory()
    let_threads_sleep()
    if stoppable:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = main()
    if (
        code == CANCELLED
    ):  # Python would wait for what was cut off in its middle: a scan being read, a connection to Dask
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    return code


def _leave(*_: object) -> NoReturn:
    """End at once: there is nothing to tidy up yet, and not every module survives an exception in the middle of its import."""
    with contextlib.suppress(OSError):
        os.write(2, f"{WORD}\n".encode())
    os._exit(CANCELLED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `unetpp-segment`.

    Args:
        arguments: Arguments as in a shell; None for those of `sys.argv`.

    Returns:
        The exit code: 0 success, 1 failure (with the reason on stderr), 2 usage error, 130 cancelled with Ctrl-C.
    """
    try:
        from .commands import run

        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print(WORD, file=sys.stderr)
        return CANCELLED


if __name__ == "__main__":
    sys.exit(shell())
