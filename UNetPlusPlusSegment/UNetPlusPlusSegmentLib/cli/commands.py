"""The commands of `unetpp-segment`, and their errors, each a line on stderr."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from .. import files
from ..core.request import RequestError
from ..network.bundle import find_bundles, search_folders
from .parser import LICENCE_LINE, parser, with_minus
from .segment import request_of, segment
from .terminal import log_as_notes, reader_has_gone, say


def run(arguments: Sequence[str]) -> int:
    """Run a command, as for `main`; Ctrl-C leaves it as KeyboardInterrupt."""
    try:
        given = parser().parse_args(with_minus(arguments))
    except SystemExit as leave:  # raised by argparse: 2 after a usage error, 0 after --help
        return int(leave.code or 0)
    try:
        with log_as_notes(getattr(given, "quiet", False), given.debug):
            COMMANDS[given.command](given)
        sys.stdout.flush()
    except RequestError as error:
        print(f"unetpp-segment: {error} (--help shows the usage)", file=sys.stderr)
        return 2
    except Exception as error:
        if isinstance(error, BrokenPipeError) and reader_has_gone():
            return 0
        if given.debug:
            traceback.print_exc()
        print(f"unetpp-segment: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "there is not enough memory for this volume: crop it, or close other programs."
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename} cannot be used ({error.strerror}): correct its permissions, or those of its folder."
    known = isinstance(error, ValueError) and type(error).__module__.startswith(__package__.partition(".")[0])
    return text if known else f"unexpected {type(error).__name__}: {text} (--debug shows the traceback)"


def _cohort(given: argparse.Namespace) -> None:
    from ..jobs.manifest import TABLE
    from .cohort import cohort

    records = cohort(given, request_of(given))
    if given.json:
        print(json.dumps(records))
    bad = [record for record in records if record["status"] == "failed"]
    skipped = [record for record in records if record["status"] == "skipped"]
    if not given.quiet:
        say(f"{record['case']}: {note}" for record in records for note in record.get("notes") or ())
    say(f"{record['case']}: {record['reason']}" for record in bad)
    cases = len(records) - len(skipped)
    left_out = "1 file was" if len(skipped) == 1 else f"{len(skipped)} files were"
    also = f" {left_out} skipped; {Path(given.output, TABLE)} says why." if skipped else ""
    if bad:
        others = f"; the results of the others are in {given.output}" if len(bad) < cases else ""
        raise files.FileError(f"{len(bad)} of {cases} cases failed{others}.{also}")
    if given.quiet:
        return
    if not given.json:
        counted = f"{cases} case" if cases == 1 else f"{cases} cases"
        print(f"{counted} done, written to {given.output}.{also}")
    print(LICENCE_LINE, file=sys.stderr)


def _report(given: argparse.Namespace) -> None:
    from ..jobs.report import make_report

    print(f"Report: {make_report(given.folder, given.review)}")


def _series(given: argparse.Namespace) -> None:
    found = files.list_series(given.folder)
    if given.json:
        print(json.dumps(found))
        return
    for each in found:
        size = " × ".join(map(str, [*each["size"], each["slices"]]))
        spacing = " × ".join("?" if mm is None else f"{mm:g}" for mm in each["spacing_mm"])
        about = [
            each["description"],
            each["part"],
            each["date"],
            f"patient {each['patient']}",
            each["uid"] or "without UID",
        ]
        print(f"{each['number']}: {each['modality']}, {size} voxels of {spacing} mm, {', '.join(filter(None, about))}")


def _compare(given: argparse.Namespace) -> None:
    from .compare import compare  # imports SciPy, which is slow

    compare(given)


def _models(given: argparse.Namespace) -> None:
    found, refused = find_bundles()
    if given.json:
        print(json.dumps([{"folder": str(b.folder), **b.as_json()} for b in found]))
    else:
        for bundle in sorted(found, key=lambda each: each.target):
            print(f"{bundle.name}  ({bundle.about}; {bundle.pixel_mm:g} mm pixels)  {bundle.folder}")
        if not found:
            print("No models were found.")
        print("Folders searched for models:", *map(str, search_folders()), sep="\n  ")
    for reason in refused:
        print(f"note: {reason}", file=sys.stderr)


def _demo(given: argparse.Namespace) -> None:
    try:
        import slicerio
    except ImportError as error:
        raise files.FileError(
            "The demo needs the sample CT of the package slicerio, which is not installed. Run: pip install slicerio."
        ) from error
    folder = Path(given.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.FileError(
            f"The folder {folder} cannot be created ({error.strerror}): choose another folder with -o."
        ) from error
    scan = Path(slicerio.get_testdata_file("CTChest4.nrrd"))
    segmentation, picture, table = (folder / n for n in ("liver.seg.nrrd", "overlay.png", "measurements.csv"))
    print(f"Chest CT of the slicerio package: {scan}")
    segment(parser().parse_args(
        ["liver", str(scan), "-o", str(segmentation), "--overlay", str(picture), "--report", str(table)]
    ))  # fmt: skip
    print(f"Picture: {picture}\nTable: {table}")
    print(f"To view the result in 3D Slicer, drag these two files into its window: {scan} and {segmentation}")


def _app(given: argparse.Namespace) -> None:
    from ..app.start import run

    run(given.paths, given.host, given.port, given.output, given.upload_mb, lambda line: print(line, flush=True))


COMMANDS = {
    "segment": segment,
    "liver": segment,
    "nodule": segment,
    "cohort": _cohort,
    "report": _report,
    "series": _series,
    "compare": _compare,
    "models": _models,
    "demo": _demo,
    "app": _app,
}
