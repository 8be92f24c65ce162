"""Tables: the columns that the command line, cohorts and the panel share, and their rounding. The standard library only."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from .. import __version__
from .trust import in_words

REGION = (
    "volume_ml", "mean_hu", "median_hu", "sd_hu", "p5_hu", "p95_hu", "surface_cm2",
    "extent_r_mm", "extent_a_mm", "extent_s_mm",
)  # fmt: skip
NODULE = (
    "long_axis_mm", "short_axis_mm", "mean_diameter_mm", "mean_diameter_rounded_mm", "kind", "solid_share",
    "solid_long_axis_mm", "solid_mean_diameter_mm", "volume_mm3", "equivalent_diameter_mm",
    "centroid_r_mm", "centroid_a_mm", "centroid_s_mm", "pleura_mm", "probability",
)  # fmt: skip
TRUST = (
    "cut_by_scan", "doubtful_share", "dropped_ml", "expected_dice", "expected_dice_low", "expected_dice_high",
    "doubtful_slices",
)  # fmt: skip
RUN = ("status", "reason", "notes", "model", "speed", "threshold", "version", "input")
COLUMNS = ("case", "segment", *REGION, *NODULE, *TRUST, *RUN)
_FORMULA = re.compile("'*[=+@\t\r-]")  # how a formula begins, in Excel and others

# Significant digits of volumes and surfaces, exact to a thousandth; decimal places of the others.
DIGITS = 4
PLACES = {"mm": 1, "hu": 0, "share": 2, "dice": 2, "low": 2, "high": 2, "probability": 2}  # by the last word of a name


def delimiter_of(text: str) -> str:
    """The delimiter in the first line of a table, a comma if there is none: spreadsheets use others, depending on the country."""
    return max(",;\t", key=text.partition("\n")[0].count)


def to_cell(value: Any) -> Any:
    """A value for a CSV file: a text that a spreadsheet would run as a formula gets an apostrophe, which `from_cell` takes off."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def from_cell(text: str) -> str:
    """The text in a cell that `to_cell` may have written."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def rows_of(case: str, segments: Iterable[tuple[str, Mapping[str, Any]]], **run: Any) -> list[dict[str, Any]]:
    """Rows of a table, each with all columns: one for each segment, or a single one without measurements if there are none.

    Args:
        case: Name of the scan.
        segments: Names and measurements. Measurements that are not in `COLUMNS` get columns at the end.
        run: Values of the columns `RUN`. `notes` is a sequence; `version` is that of this program if not given.
    """
    run = {"status": "done", "version": __version__, **run}
    run["notes"] = " ".join(map(str, run.get("notes") or ())) or None
    rows = [
        {**dict.fromkeys(COLUMNS), "case": case, "segment": name, **as_columns(measured), **run}
        for name, measured in [*segments] or [("", {})]
    ]
    return [{name: rounded(name, value) for name, value in row.items()} for row in rows]


def as_columns(measurements: Mapping[str, Any]) -> dict[str, Any]:
    """Measurements as table columns: a point `…_ras` becomes `…_r_mm`, `…_a_mm` and `…_s_mm`, lists become text, lines are left out."""
    columns: dict[str, Any] = {}
    for key, value in measurements.items():
        if not key.endswith("_ras"):
            columns[key] = in_words(key, value)
        elif value and isinstance(value[0], Real):
            columns |= {f"{key.removesuffix('ras')}{axis}_mm": x for axis, x in zip("ras", value, strict=True)}
    return columns


def rounded(name: str, value: Any) -> Any:
    """Round the value of a column: mm to 0.1, HU to 1, shares and probabilities to 0.01, volumes and surfaces to four digits."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return value
    unit = name.rpartition("_")[2]
    if unit in ("ml", "mm3", "cm2"):
        places = DIGITS - 1 - math.floor(math.log10(abs(value))) if value else 0
    elif unit in PLACES:
        places = PLACES[unit]
    else:
        return value
    number = round(float(value), places) + 0.0  # turns -0.0 into 0.0
    return number if places > 0 and number % 1 else int(number)
