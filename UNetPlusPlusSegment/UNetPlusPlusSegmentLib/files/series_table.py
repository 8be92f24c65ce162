"""The table that says which DICOM series to read for each case of a cohort."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ..core.table import delimiter_of, from_cell
from .images import FileError

COLUMNS = ("case", "series")


def read_series_table(path: str | Path) -> dict[str, str]:
    """Read a CSV with the columns `case` and `series`, separated by commas, semicolons or tabs; other columns are ignored.

    Args:
        path: UTF-8. A series is a Series Instance UID, or a number from `list_series`.

    Returns:
        The series by the name of the case; cases with an empty cell are left out.

    Raises:
        FileError: It cannot be read, lacks a column, or names a case twice.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise FileError(f"{path} has no column {missing[0]}: its first line must name the columns case and series.")
        series: dict[str, str] = {}
        for row in rows:
            case, wanted = (from_cell(str(row[name] or "").strip()) for name in COLUMNS)
            if series.get(case, wanted) != wanted:
                raise FileError(f"{path} names two series for the case {case}: keep one of them.")
            if wanted:
                series[case] = wanted
        return series
    except (OSError, UnicodeError, csv.Error) as error:
        raise FileError(
            f"{path} cannot be read as a table ({error}): give a CSV with the columns case and series."
        ) from error
