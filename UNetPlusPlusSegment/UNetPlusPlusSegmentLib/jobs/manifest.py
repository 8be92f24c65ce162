"""The folder of a cohort's results: its lock, its manifest and the table made from it. The standard library only."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from ..core.table import COLUMNS, rows_of

MANIFEST, TABLE = "manifest.jsonl", "measurements.csv"
BEYOND = 2**40  # Windows locks bytes, even against reading, so a byte beyond the end of any manifest is locked


class CohortError(ValueError):
    """A cohort that cannot be run, or whose results cannot be used; the message says why and what to do."""


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder against other cohorts. It is created if missing, and removed again if nothing is written.

    The lock is released when the process ends, even if it is killed.

    Raises:
        CohortError: The folder is not writable, or another cohort is running in it.
    """
    made, path = not folder.exists(), folder / MANIFEST
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = _open_alone(path)
    except OSError as error:
        raise CohortError(f"{folder} is not writable ({error.strerror}): choose another folder.") from error
    if not stream:
        raise CohortError(
            f"Another cohort is running in {folder}: wait until it is done, or choose another folder for the results."
        )
    with stream:
        try:
            yield
        finally:
            if sys.platform == "win32":  # no open file is removed there, be it open here or in another cohort
                stream.close()
            with contextlib.suppress(OSError):
                if not path.stat().st_size:
                    path.unlink()
                    if made:
                        folder.rmdir()


def _open_alone(path: Path) -> IO[bytes] | None:
    """Open and lock a manifest; None if another cohort has locked it."""
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
        stream.close()  # the cohort before has removed this file since it was opened


def is_running(folder: Path) -> bool:
    """True if any process of this computer is running a cohort in the folder."""
    try:
        with (folder / MANIFEST).open("rb") as stream:
            return not _lock(stream)
    except OSError:
        return False


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


def read_manifest(folder: Path) -> dict[str, dict]:
    """The last complete line of each case; empty if there is no manifest.

    Raises:
        CohortError: It cannot be read.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise CohortError(f"{path} cannot be read ({error.strerror}): choose another folder.") from error
    known = {}
    for line in text.splitlines():
        try:
            record = json.loads(line)
            known[record["case"]] = record | {"status": record["status"]}
        except (ValueError, TypeError, KeyError):
            continue  # a line left incomplete by a crash
    return known


def append(folder: Path, record: Mapping[str, object]) -> None:
    """Append a line to the manifest in one write and flush it to disk; if the last line is incomplete, start a new one.

    Raises:
        CohortError: It cannot be written.
    """
    path = folder / MANIFEST
    try:
        with path.open("a+b") as stream:
            torn = stream.tell() > 0 and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n"
            stream.write(b"\n" * torn + json.dumps(record).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise CohortError(
            f"{path} cannot be written ({error.strerror}). Free some space or correct the permissions, and run the cohort again:"
            " finished cases are kept."
        ) from error


def write_table(folder: Path) -> None:
    """Write the table from the manifest; none if there is no case yet.

    Raises:
        FileError: It cannot be written.
    """
    from ..files.writing import write_report  # brings SimpleITK

    known = read_manifest(folder)
    rows = [row for case in sorted(known) for row in table_rows(known[case])]
    if rows:
        write_report(folder / TABLE, rows, COLUMNS)


def table_rows(record: Mapping) -> list[dict]:
    """The rows of the table for a manifest line."""
    run = {key: record.get(key) for key in ("status", "reason", "notes", "model", "speed", "threshold", "input")}
    return rows_of(record["case"], (record.get("measurements") or {}).items(), version=record.get("version"), **run)
