"""A lock on a file, against other processes that ask for it in the same way. The standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

BEYOND = 2**40  # Windows locks bytes, even against reading, so a byte beyond the end of any such file is locked


@contextlib.contextmanager
def alone_with(path: Path) -> Iterator[bool]:
    """Lock a file; yields False if another process has locked it. It is created if missing, and removed again if it stays empty.

    The lock is released when the process ends, even if it is killed.

    Raises:
        OSError: The file cannot be created.
    """
    stream = _open_alone(path)
    if not stream:
        yield False
        return
    with stream:
        try:
            yield True
        finally:
            if sys.platform == "win32":  # no open file is removed there, be it open here or in another process
                stream.close()
            with contextlib.suppress(OSError):
                if not path.stat().st_size:
                    path.unlink()


def is_locked(path: Path) -> bool:
    """True if any process of this computer has locked a file."""
    try:
        with path.open("rb") as stream:
            return not _lock(stream)
    except OSError:
        return False


def _open_alone(path: Path) -> IO[bytes] | None:
    """Open and lock a file; None if another process has locked it."""
    while True:
        stream = path.open("a+b")
        if not _lock(stream):
            stream.close()
            return None
        if sys.platform == "win32":
            return stream
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
        stream.close()  # the process before has removed this file since it was opened


def _lock(stream: IO[bytes]) -> bool:
    """Lock a file until it is closed; False if another process has locked it. True if the file system does not support locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            stream.seek(BEYOND)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True
