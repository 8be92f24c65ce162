"""The folder of a cohort's results: its lock, its manifest and the table made from it. The standard library only."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..core.lock import alone_with, is_locked
from ..core.table import COLUMNS, rows_of

MANIFEST, TABLE = "manifest.jsonl", "measurements.csv"
GONE = "gone"  # the status of a case that is no longer listed


class CohortError(ValueError):
    """A cohort that cannot be run, or whose results cannot be used; the message says why and what to do."""


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder against other cohorts. It is created if missing, and removed again if nothing is written.

    Raises:
        CohortError: The folder is not writable, or another cohort is running in it.
    """
    made = not folder.exists()
    with contextlib.ExitStack() as lock:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            alone = lock.enter_context(alone_with(folder / MANIFEST))
        except OSError as error:
            raise CohortError(f"{folder} is not writable ({error.strerror}): choose another folder.") from error
        if not alone:
            raise CohortError(
                f"Another cohort is running in {folder}: wait until it is done, or choose another folder for the results."
            )
        try:
            yield
        finally:
            lock.close()
            if made:
                with contextlib.suppress(OSError):  # it is not empty
                    folder.rmdir()


def is_running(folder: Path) -> bool:
    """True if any process of this computer is running a cohort in the folder."""
    return is_locked(folder / MANIFEST)


def read_manifest(folder: Path) -> dict[str, dict]:
    """The last complete line of each case that is still listed; a correction is listed as long as its file is there.

    Raises:
        CohortError: It cannot be read.
    """
    return {case: record for case, record in read_all(folder).items() if _is_listed(folder, record)}


def read_all(folder: Path) -> dict[str, dict]:
    """The last complete line of each case, also if it is gone, that has the name of a file; empty if there is no manifest.

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
            if Path(record["case"]).name == record["case"]:  # a path could lead out of the folder
                known[record["case"]] = record | {"status": record["status"]}
        except (ValueError, TypeError, KeyError, RecursionError):
            continue  # a line left incomplete by a crash
    return known


def _is_listed(folder: Path, record: Mapping) -> bool:
    if "corrects" in record:
        return (folder / f"{record['case']}.seg.nrrd").is_file()
    return record["status"] != GONE


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
