"""Points of nodules: markups of Slicer (.mrk.json, .fcsv), and tables. The standard library only."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .images import FileError

Point = tuple[float, float, float]

RAS, LPS = (1, 1, 1), (-1, -1, 1)  # signs that make RAS of a system's coordinates
SYSTEMS = {"RAS": RAS, "LPS": LPS, "0": RAS, "1": LPS}  # as names, and as figures in older files
COLUMNS = {("r", "a", "s"): RAS, ("l", "p", "s"): LPS, ("centroid_r_mm", "centroid_a_mm", "centroid_s_mm"): RAS}


def read_points(path: str | Path) -> list[Point]:
    """Read points from a file.

    Args:
        path: Markups of Slicer, `.mrk.json` or `.fcsv`, or a CSV with the columns r, a and s, or l, p and s, in mm; the table of
            an earlier run will do.

    Returns:
        (R, A, S) in mm of each, in order.

    Raises:
        FileError: It cannot be read, or there is no point in it.
    """
    return [point for _, point in _read(path)]


def read_points_table(path: str | Path) -> dict[str, tuple[Point, ...]]:
    """Read the points of several cases from a CSV as for `read_points`, with a column `case`.

    Raises:
        FileError: As of `read_points`; or there is no such column.
    """
    points: dict[str, tuple[Point, ...]] = {}
    for case, point in _read(path):
        if not case:
            raise FileError(
                f"{path} does not say which case a point is in: give a CSV with a column case beside r, a and s."
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
            found = _table(text.splitlines())
        if not all(math.isfinite(x) for _, point in found for x in point):
            raise ValueError("a coordinate is no number")
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise FileError(
            f"{path} cannot be read as points ({error}): give markups of Slicer (.mrk.json, .fcsv), or a CSV with the columns r, a"
            " and s, in mm."
        ) from error
    if not found:
        raise FileError(f"{path} holds no point.")
    return found


def _markups(stored: Mapping[str, Any]) -> list[Point]:
    """The placed points of Slicer's JSON."""
    return [
        _ras(each["position"], SYSTEMS[str(markup.get("coordinateSystem", "LPS"))])
        for markup in stored["markups"]
        for each in markup["controlPoints"]
        if each.get("positionStatus", "defined") == "defined"
    ]


def _fcsv(lines: Iterable[str]) -> list[Point]:
    """The points of Slicer's older list: comments that say the system, then lines of an ID and three coordinates."""
    signs, points = RAS, []
    for line in lines:
        if line.startswith("#"):
            key, equals, value = line.lstrip("# ").partition("=")
            signs = SYSTEMS[value.strip()] if equals and key.strip() == "CoordinateSystem" else signs
        elif line.strip():
            points.append(_ras(line.split(",")[1:4], signs))
    return points


def _table(lines: Iterable[str]) -> list[tuple[str, Point]]:
    """The points of a table, with their cases; lines without coordinates are passed over, as those of a case without a nodule."""
    rows = csv.DictReader(lines)
    names = {name.strip().lower(): name for name in rows.fieldnames or () if name}
    columns = next((each for each in COLUMNS if names.keys() >= {*each}), None)
    if columns is None:
        raise ValueError("its first line names no columns r, a and s")
    found = []
    for row in rows:
        cells = [(row[names[column]] or "").strip() for column in columns]
        if any(cells):
            case = row[names["case"]] or "" if "case" in names else ""
            found.append((case.strip(), _ras(cells, COLUMNS[columns])))
    return found


def _ras(cells: Iterable[Any], signs: tuple[int, int, int]) -> Point:
    r, a, s = (float(cell) * sign for cell, sign in zip(cells, signs, strict=True))
    return r, a, s
