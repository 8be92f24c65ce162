"""The review of a cohort: who thinks what of each case, one line at a time, in `review.csv`. The standard library only."""

from __future__ import annotations

import csv
import io
import os
from datetime import datetime, timezone
from pathlib import Path

REVIEW = "review.csv"
COLUMNS = ("case", "verdict", "comment", "reviewer", "time")
VERDICTS = ("accepted", "flagged", "")  # "": a comment alone


class ReviewError(ValueError):
    """A verdict that cannot be kept; the message says why and what to do."""


def read_review(folder: Path) -> dict[str, dict[str, str]]:
    """The latest line of each case, by the names of `COLUMNS`; empty without a review."""
    try:
        text = (folder / REVIEW).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    lines = csv.DictReader(io.StringIO(text, newline=""))
    # A line that was torn when the computer went down lacks its time.
    return {line["case"]: line for line in lines if line.get("case") and line.get("time")}


def add_to_review(folder: Path, case: str, verdict: str, comment: str = "", reviewer: str = "") -> dict[str, str]:
    """Append a line, in one write, and flush it to disk; earlier lines of the case stay.

    Args:
        folder: The folder of the cohort's results.
        case, comment, reviewer: Any text.
        verdict: One of `VERDICTS`.

    Returns:
        The line.

    Raises:
        ReviewError: Another verdict, or the file cannot be written.
    """
    if verdict not in VERDICTS:
        raise ReviewError(f"A verdict is one of {', '.join(filter(None, VERDICTS))}, not {verdict!r}.")
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    line = dict(zip(COLUMNS, (case, verdict, comment, reviewer, now), strict=True))
    try:
        with (folder / REVIEW).open("a+b") as stream:
            empty = stream.tell() == 0
            torn = not empty and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n"
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            if empty:
                writer.writeheader()
            writer.writerow(line)
            stream.write(b"\n" * torn + text.getvalue().encode("utf-8", errors="backslashreplace"))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise ReviewError(
            f"{folder / REVIEW} cannot be written ({error.strerror}): free some space, or get leave to write there."
        ) from error
    return line
