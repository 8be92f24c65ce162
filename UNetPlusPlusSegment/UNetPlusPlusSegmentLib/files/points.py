"""Points of nodules: markups of Slicer (.mrk.json, .fcsv), and tables."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..core.request import Point
from ..core.table import delimiter_of, from_cell
from .images import FileError

RAS, LPS = (1, 1, 1), (-1, -1, 1)  # signs that turn coordinates into RAS
SYSTEMS = {"RAS": RAS, "LPS": LPS, "0": RAS, "1": LPS}  # by name, or by number in older files
STATUS, PLACED = 14, "2"  # the column of an .fcsv that says whether a point has been placed; older files lack it
COLUMNS = {("r", "a", "s"): RAS, ("l", "p", "s"): LPS, ("centroid_r_mm", "centroid_a_mm", "centroid_s_mm"): RAS}


def read_points(path: str | Path) -> list[Point]:
    """Read points from a file; those that Slicer has in a list but that nobody has placed yet are left out.

    Args:
        path: Slicer markups, `.mrk.json` or `.fcsv`; or a CSV with the columns r, a and s, or l, p and s, in mm, such as the
            table of an earlier run.

    Returns:
        (R, A, S) in mm of each point, in order.

    Raises:
        FileError: It cannot be read, or contains no point.
    """
    return [point for _, point in _read(path)]


def read_points_table(path: str | Path) -> dict[str, tuple[Point, ...]]:
    """Read the points of several cases from a CSV as in `read_points`, with a column `case`.

    Raises:
        FileError: As for `read_points`; or there is no such column.
    """
    points: dict[str, tuple[Point, ...]] = {}
    for case, point in _read(path):
        if not case:
            raise FileError(
                f"{path} does not say which case a point belongs to: give a CSV with a column case as well as r, a and s."
            )
        points[case] = (*points.get(case, ()), point)
    return points


def _read(path: str | Path) -> list[tuple[str, Point]]:
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.name.lower().endswith(".json"):
            found = [("", point) for point in _markups(json.loads(text))]
        elif path.suffix.lower() == ".fcsv":
            found = [("", point) for point in _fcsv(text.splitlines())]
        else:
            found = _table(text)
        if not all(math.isfinite(x) for _, point in found for x in point):
            raise ValueError("a coordinate is not a number")
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}): check the path and its permissions.") from error
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise FileError(
            f"{path} cannot be read as points ({error}): give Slicer markups (.mrk.json, .fcsv), or a CSV with the columns r, a"
            " and s, in mm."
        ) from error
    if not found:
        raise FileError(f"{path} contains no points: give a file with at least one.")
    return found


def _markups(stored: Mapping[str, Any]) -> list[Point]:
    """The points of Slicer's JSON that have been placed."""
    return [
        _ras(each["position"], SYSTEMS[str(markup.get("coordinateSystem", "LPS"))])
        for markup in stored["markups"]
        for each in markup["controlPoints"]
        if each.get("positionStatus", "defined") == "defined"
    ]


def _fcsv(lines: Iterable[str]) -> list[Point]:
    """The placed points of Slicer's older format: comments that name the coordinate system, then lines with an ID and coordinates."""
    signs, points = RAS, []
    for line in lines:
        if line.startswith("#"):
            key, equals, value = line.lstrip("# ").partition("=")
            signs = SYSTEMS[value.strip()] if equals and key.strip() == "CoordinateSystem" else signs
        elif line.strip():
            cells = next(csv.reader([line]))
            if cells[STATUS : STATUS + 1] in ([], [PLACED]):
                points.append(_ras(cells[1:4], signs))
    return points


def _table(text: str) -> list[tuple[str, Point]]:
    """The points of a table, with their cases; rows without coordinates (a case without nodules) and of unplaced points are skipped."""
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter_of(text))
    names = {name.strip().lower(): name for name in rows.fieldnames or () if name}
    columns = next((each for each in COLUMNS if names.keys() >= {*each}), None)
    if columns is None:
        raise ValueError("its first line does not name the columns r, a and s")
    found = []
    for row in rows:
        cells = [(row[names[column]] or "").strip() for column in columns]
        placed = "defined" not in names or row[names["defined"]] != "0"  # in Slicer's own tables
        if any(cells) and placed:
            case = row[names["case"]] or "" if "case" in names else ""
            found.append((from_cell(case.strip()), _ras(cells, COLUMNS[columns])))
    return found


def _ras(cells: Iterable[Any], signs: tuple[int, int, int]) -> Point:
    r, a, s = (float(cell) * sign for cell, sign in zip(cells, signs, strict=True))
    return r, a, s
