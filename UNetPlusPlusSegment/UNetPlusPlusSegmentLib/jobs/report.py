"""The report of a cohort: one HTML page to look through its cases and review them, without a server. Needs Jinja2; no torch."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import __version__
from ..core.table import as_columns, rounded
from ..files.writing import whole_file
from .manifest import MANIFEST, TABLE, CohortError, is_running, read_manifest, write_table
from .picture import PICTURES
from .review import COLUMNS, REVIEW, merge_review, read_lines

REPORT = "report.html"
MOST_INSIDE = 200  # with more cases, the pictures are not embedded in the page
BINS, LEAST_FOR_HISTOGRAM, MOST_OUTLIERS = 16, 3, 20
SHOWN = {  # title and unit, by the column of a table
    "volume_ml": ("Volume", "ml"), "expected_dice": ("Expected Dice", ""), "doubtful_share": ("Doubtful share", ""),
    "doubtful_slices": ("Doubtful slices", ""), "cut_by_scan": ("Cut by the scan", ""), "dropped_ml": ("Dropped", "ml"),
    "probability": ("Probability", ""), "kind": ("Kind", ""), "solid_long_axis_mm": ("Solid part", "mm"),
    "long_axis_mm": ("Long axis", "mm"), "short_axis_mm": ("Short axis", "mm"), "mean_diameter_mm": ("Mean diameter", "mm"),
    "mean_hu": ("Mean", "HU"), "sd_hu": ("SD", "HU"),
    "p5_hu": ("5 %", "HU"), "median_hu": ("Median", "HU"), "p95_hu": ("95 %", "HU"), "surface_cm2": ("Surface", "cm²"),
    "extent_r_mm": ("Extent R", "mm"), "extent_a_mm": ("Extent A", "mm"), "extent_s_mm": ("Extent S", "mm"),
}  # fmt: skip


def make_report(folder: str | Path, reviews: Iterable[str | Path] = ()) -> Path:
    """Write the report and the table of a cohort again, with the review of its cases.

    Args:
        folder: Folder with the results of a cohort.
        reviews: Other files like `review.csv`, whose lines are added to the one in the folder.

    Returns:
        The path of the page.

    Raises:
        CohortError: The folder has no results of a cohort.
        ReviewError: A review cannot be read or written.
        FileError: The page cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir() or not (folder / MANIFEST).is_file():
        raise CohortError(
            f"{folder} does not contain the results of a cohort (there is no {MANIFEST}): give another folder."
        )
    cases = [record["case"] for record in cases_of(read_manifest(folder))]
    for review in reviews:
        merge_review(folder, Path(review), cases)
    write_table(folder)
    return write_page(folder, is_running(folder))


def write_page(folder: Path, running: bool = False) -> Path:
    """Write `report.html` from the manifest, the pictures and the review of a folder.

    Args:
        folder: Folder with the results of a cohort.
        running: Say on the page that the cohort is still running.

    Raises:
        CohortError: There is no case, or Jinja2 is not installed.
        ReviewError: The review cannot be read.
        FileError: It cannot be written.
    """
    try:
        import jinja2
        import markupsafe
    except ImportError as error:
        raise CohortError("The report needs Jinja2, which is not installed. Run: pip install jinja2.") from error
    known = read_manifest(folder)
    cases = cases_of(known)
    if not cases:
        raise CohortError(f"{folder} contains no case yet: wait until one is done, then make the report again.")
    corrected = {record["corrects"]: record for record in known.values() if "corrects" in record}
    inside = len(cases) <= MOST_INSIDE
    shown = [_case(folder, number, record, corrected, inside) for number, record in enumerate(cases)]
    here = Path(__file__)
    script = here.with_suffix(".js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here.parent), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html").render(
        cases=shown,
        about=_about(folder, cases, running),
        histograms=_histograms(cases),
        skipped=[record for record in known.values() if record["status"] == "skipped"],
        notes=sorted({_kind(note) for record in cases for note in record.get("notes") or ()}),
        marks=read_lines(folder / REVIEW),
        columns=COLUMNS,
        key=_identity(folder),
        table=TABLE,
        style=markupsafe.Markup(here.with_suffix(".css").read_text(encoding="utf-8")),
        script=markupsafe.Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    with whole_file(folder / REPORT) as beside:
        beside.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    return folder / REPORT


def cases_of(manifest: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The manifest lines of cases, without corrections and skipped files: failed cases first, then the most doubtful, then
    those with notes."""
    return sorted((each for each in manifest.values() if each["status"] in ("done", "failed")), key=_worst_first)


def doubt_of(record: Mapping[str, Any]) -> float:
    """How doubtful a case is, 0…1: the doubt about its most doubtful segment.

    That is 1 − expected Dice or, for a nodule, 1 − probability; if neither is known, the doubtful share. An organ that was not
    found has a doubt of 1, as most people have it.
    """
    doubts = [0.0]
    for found in (record.get("measurements") or {}).values():
        known = [found[key] for key in ("expected_dice", "probability") if found.get(key) is not None]
        sure = 1 - (found.get("doubtful_share") or 0.0) if not known else min(known)
        doubts.append(1 - sure if found.get("volume_ml") else 1.0)
    return max(doubts)


def _worst_first(record: Mapping[str, Any]) -> tuple:
    notes = record.get("notes") or ()
    return record["status"] == "done", -doubt_of(record), not notes, record["case"]


def _case(folder: Path, number: int, record: Mapping, corrected: Mapping[str, Mapping], inside: bool) -> dict[str, Any]:
    """The values of a case for the template."""
    case, notes = record["case"], record.get("notes") or []
    segments = dict(record.get("measurements") or {})
    if case in corrected:
        again = corrected[case].get("measurements") or {}
        segments |= {f"{name} (corrected)": found for name, found in again.items()}
    rows = [_cells(found) for found in segments.values()]
    columns = [name for name in SHOWN if any(row.get(name) not in (None, "") for row in rows)]
    lost = record["status"] == "done" and not (folder / f"{case}.seg.nrrd").is_file()
    return {
        "number": number,
        "case": case,
        "failed": record["status"] != "done",
        "reason": record.get("reason"),
        "notes": [*notes, *(["The segmentation is no longer in this folder."] if lost else [])],
        "note_kinds": json.dumps(sorted({_kind(note) for note in notes})),
        "head": [SHOWN[name] for name in columns],
        "segments": [(name, [row.get(c) for c in columns]) for name, row in zip(segments, rows, strict=True)],
        "picture": _picture(folder, case, inside) if record.get("picture") else None,  # else it shows an older mask
        "captions": record.get("picture") or [],
        "about": {
            "Model": record.get("model"), "Speed": record.get("speed"), "Threshold": record.get("threshold"),
            "Device": record.get("device"), "Seconds": rounded("mm", record.get("seconds")),
            "Input": record.get("input"),
        },
    }  # fmt: skip


def _cells(measurements: Mapping[str, Any]) -> dict[str, Any]:
    """Table cells by column; the expected Dice includes its range."""
    cells = {name: rounded(name, value) for name, value in as_columns(measurements).items()}
    low, high = (cells.get(f"expected_dice_{end}") for end in ("low", "high"))
    if cells.get("expected_dice") is not None and low is not None:
        cells["expected_dice"] = f"{cells['expected_dice']} ({low} to {high})"
    return cells


def _picture(folder: Path, case: str, inside: bool) -> str | None:
    """Address of the picture of a case; None if there is none."""
    path = folder / PICTURES / f"{case}.jpg"
    try:
        data = path.read_bytes() if inside else b"x" * path.is_file()
    except OSError:
        return None
    if not data:
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if inside else quote(f"{PICTURES}/{path.name}")


def _kind(note: str) -> str:
    """A note with its numbers replaced by …, so that notes of the same kind are equal."""
    return re.sub(r"\d[\d.,]*(?<=\d)", "…", note)


def _about(folder: Path, cases: Sequence[Mapping], running: bool) -> dict[str, Any]:
    failed = sum(record["status"] != "done" for record in cases)
    return {
        "title": folder.resolve().name,
        "count": len(cases),
        "failed": failed,
        "models": sorted({str(record["model"]) for record in cases if record.get("model")}),
        "made": datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
        "version": __version__,
        "running": running,
    }


def _identity(folder: Path) -> str:
    """A key for this cohort in the browser's storage; it survives moving the folder, as the manifest's first line never changes."""
    with (folder / MANIFEST).open("rb") as stream:
        return hashlib.sha256(stream.readline()).hexdigest()[:16]


def _histograms(cases: Sequence[Mapping]) -> list[dict[str, Any]]:
    """A histogram of the volume of each segment (numbered ones are added up): bins with the numbers of their cases, and outliers."""
    volumes: dict[str, dict[int, float]] = {}
    for number, record in enumerate(cases):
        for name, found in (record.get("measurements") or {}).items():
            of = volumes.setdefault(name.rstrip("0123456789 ") or name, {})
            of[number] = of.get(number, 0.0) + (found.get("volume_ml") or 0.0)
    return [_histogram(name, cases, of) for name, of in sorted(volumes.items()) if len(of) >= LEAST_FOR_HISTOGRAM]


def _histogram(name: str, cases: Sequence[Mapping], volumes: Mapping[int, float]) -> dict[str, Any]:
    low, high = min(volumes.values()), max(volumes.values())
    step = (high - low) / BINS or 1.0
    bins: list[list[int]] = [[] for _ in range(BINS)]
    for number, volume in volumes.items():
        bins[min(BINS - 1, math.floor((volume - low) / step))].append(number)
    first, _, third = statistics.quantiles(volumes.values(), n=4)
    reach = 1.5 * (third - first)
    outliers = [number for number, volume in volumes.items() if not first - reach <= volume <= third + reach]
    outliers.sort(key=lambda number: -abs(volumes[number] - (first + third) / 2))
    most = max(map(len, bins))
    return {
        "name": name,
        "low": rounded("ml", low),
        "high": rounded("ml", high),
        "bins": [
            {
                "cases": json.dumps(numbers), "count": len(numbers), "height": round(100 * len(numbers) / most),
                "from": rounded("ml", low + n * step), "to": rounded("ml", low + (n + 1) * step),
            }
            for n, numbers in enumerate(bins)
        ],
        "outliers": [
            {"number": number, "case": cases[number]["case"], "volume": rounded("ml", volumes[number])}
            for number in outliers[:MOST_OUTLIERS]
        ],
    }  # fmt: skip
