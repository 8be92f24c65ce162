"""The review of a cohort: verdicts and comments on its cases, in `review.csv`. The standard library only.

The report, the panel and the browser app write the same columns. Lines are only added; the latest line of a case is the valid one.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from ..core.table import delimiter_of, from_cell, to_cell

REVIEW = "review.csv"
COLUMNS = ("case", "verdict", "comment", "reviewer", "time")
VERDICTS = ("accepted", "flagged", "")  # "": only a comment, or a verdict withdrawn
_ALLOWED = "accepted, flagged or empty"

Line = tuple[str, ...]  # a cell for each of COLUMNS


class ReviewError(ValueError):
    """A review that cannot be read or saved; the message says why and what to do."""


class Mark(NamedTuple):
    """What a review says of a case."""

    verdict: str = ""
    comment: str = ""


def read_review(folder: Path) -> dict[str, dict[str, str]]:
    """The latest line of each case, by the names of `COLUMNS`; empty without a review.

    Raises:
        ReviewError: It cannot be read, or is not a review.
    """
    # A stable sort: of several lines with one time, the last is valid.
    lines = sorted(read_lines(folder / REVIEW), key=_moment)
    return {line[0]: dict(zip(COLUMNS, line, strict=True)) for line in lines}


def mark_of(review: Mapping[str, Mapping[str, str]], case: str) -> Mark:
    """The mark of a case in a review as `read_review` returns it; empty if it has none."""
    line = review.get(case, {})
    return Mark(line.get("verdict", ""), line.get("comment", ""))


def read_lines(path: Path) -> list[Line]:
    """All lines of a review, in order; empty if there is no file. A line left incomplete by a crash is skipped.

    Raises:
        ReviewError: It cannot be read, or is not a review.
    """
    return [line for line in _lines(path) if line[-1]]


def _lines(path: Path) -> list[Line]:
    """All lines, as in `read_lines`, and those without a time."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ReviewError(
            f"{path} cannot be read ({error.strerror}): correct its permissions, or remove it."
        ) from error
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
    try:
        if text.strip() and not {"case", "verdict", "time"} <= set(table.fieldnames or ()):
            raise ReviewError(f"{path} is not a review: its first line must name the columns {', '.join(COLUMNS)}.")
        # The name of a case may begin or end with a space.
        cells = [(row["case"] or "", *((row.get(name) or "").strip() for name in COLUMNS[1:])) for row in table]
    except csv.Error as error:
        raise ReviewError(f"{path} is damaged ({error}): correct it, or remove it.") from error
    return [tuple(map(from_cell, line)) for line in cells if line[0]]


def add_to_review(folder: Path, case: str, verdict: str, comment: str = "", reviewer: str = "") -> None:
    """Append a line; earlier lines of the case are kept.

    Args:
        folder: The folder of the cohort's results.
        case, comment, reviewer: Any text.
        verdict: One of `VERDICTS`.

    Raises:
        ReviewError: The verdict is unknown, or the file cannot be written.
    """
    if verdict not in VERDICTS:
        raise ReviewError(f"A verdict must be {_ALLOWED}; got {verdict!r}.")
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    _append(folder / REVIEW, [(case, verdict, comment, reviewer, now)])


def change_mark(folder: Path, case: str, seen: Mark, given: Mark, reviewer: str = "") -> Mark:
    """Append a line with what a reviewer has changed, if anything; the rest stays as others may have marked it meanwhile.

    Args:
        folder, case, reviewer: As for `add_to_review`.
        seen: What the reviewer was shown.
        given: What the reviewer has left there.

    Returns:
        The mark that the reviewer should see now.

    Raises:
        ReviewError: The review cannot be read or written.
    """
    if given == seen:
        return seen
    there = mark_of(read_review(folder), case)
    now = Mark(*(new if new != old else other for new, old, other in zip(given, seen, there, strict=True)))
    add_to_review(folder, case, *now, reviewer)
    return now


def merge_review(folder: Path, path: Path, cases: Iterable[str]) -> None:
    """Append those lines of another review that the cohort's own does not have yet.

    Args:
        folder: The folder of the cohort's results.
        path: The other review.
        cases: The names of the cohort's cases.

    Raises:
        ReviewError: The file does not exist, cannot be read, is not a review, has an unknown verdict, or is about other cases only; or the
            cohort's own cannot be written.
    """
    if not path.is_file():
        raise ReviewError(f"There is no file {path}: give a review that was saved from a report.")
    every = dict.fromkeys(_lines(path))
    lines = [line for line in every if line[-1]]
    for case, verdict, comment, *_ in every.keys() - lines:
        if verdict in VERDICTS and (verdict or comment):  # neither torn nor empty
            raise ReviewError(
                f"{path} does not say when {case} was reviewed: give a review that was saved from a report, or fill in the column time."
            )
    for case, verdict, *_ in lines:
        if verdict not in VERDICTS:
            raise ReviewError(f"{path} has the verdict {verdict!r} on {case}: it must be {_ALLOWED}.")
    if lines and not {line[0] for line in lines} & {*cases}:
        raise ReviewError(f"{path} is about none of the cases in {folder}: give the review of this cohort.")
    there = {*read_lines(folder / REVIEW)}
    _append(folder / REVIEW, [line for line in lines if line not in there])


def _append(path: Path, lines: Iterable[Line]) -> None:
    """Append lines in one write and flush them to disk; if the last line is incomplete, start a new one."""
    rows = [*lines]
    if not rows:
        return
    try:
        with path.open("a+b") as stream:
            stream.seek(0)
            header = stream.readline().decode("utf-8-sig", errors="replace")
            size = stream.seek(0, os.SEEK_END)
            torn = size > 0 and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n"
            text = io.StringIO(newline="")
            csv.writer(text, delimiter=delimiter_of(header), lineterminator="\n").writerows(
                [map(to_cell, row) for row in (rows if size else [COLUMNS, *rows])]
            )
            stream.write(b"\n" * torn + text.getvalue().encode("utf-8", errors="backslashreplace"))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise ReviewError(
            f"{path} cannot be written ({error.strerror}): close it in other programs, correct its permissions, or free some space."
        ) from error


def _moment(line: Line) -> float:
    """The time of a line in seconds since 1970; 0 if it is invalid."""
    try:
        moment = datetime.fromisoformat(line[-1].replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
