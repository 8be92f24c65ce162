"""The arguments of `unetpp-segment`: its subcommands, their options and the values allowed."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .. import __version__
from ..core.request import DEVICES, SPEEDS
from ..files.forms import FORMS
from ..files.reading import READERS

RAS_HELP = "Coordinates are RAS, as Slicer shows them."
NODULE_HELP = f"Without --point and --box, the whole lungs are searched. {RAS_HELP}"
TARGET_HELP = "what to segment, such as liver, nodule or spleen; kidney stands for both kidneys (`unetpp-segment models` lists all)"
COHORT_HELP = (
    "Writes to the output folder: a .seg.nrrd file for each case, measurements.csv, report.html to look through the cases, and"
    " manifest.jsonl with the state of each case."
)
REPORT_HELP = (
    "Open report.html in a browser to review the cases; save the review.csv that it offers in the same folder."
)
APP_HELP = (
    "Without --host, only this computer can open the page. Corrections of a cohort's results are saved next to them."
)
LICENCE_LINE = "The models are for research only, not for clinical use; see MODELS_LICENSE.md."


def parser() -> argparse.ArgumentParser:
    """The parser. It sets `command` to the subcommand; for a segmentation also `target`, `also`, `point` and `box`."""
    program = _Parser(
        prog="unetpp-segment", description="Segment CT volumes slice by slice with UNet++. " + LICENCE_LINE
    )
    program.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = program.add_subparsers(required=True, dest="command", metavar="COMMAND")
    commands.type = str  # what follows the command is checked by its own parser, which names the argument

    segment = commands.add_parser("segment", help="segment any target of the installed models", epilog=RAS_HELP)
    segment.add_argument("target", metavar="TARGET", help=TARGET_HELP)
    _add_options(segment)
    _add_point(segment)
    _add_also(segment)
    liver = commands.add_parser("liver", help="segment the liver", epilog=RAS_HELP)
    _add_options(liver, target="liver")
    nodule = commands.add_parser(
        "nodule", help="segment lung nodules: at points, in a box, or in the whole chest", epilog=NODULE_HELP
    )
    _add_options(nodule, target="nodule")
    _add_point(nodule)

    cohort = commands.add_parser(
        "cohort", help="segment many scans; run again, it does only missing and failed cases", epilog=COHORT_HELP
    )
    cohort.set_defaults(point=[], points=None, box=None)
    cohort.add_argument("target", metavar="TARGET", help=TARGET_HELP)
    _add_also(cohort)
    cohort.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="volume files and DICOM folders, or one folder that contains them"
    )
    cohort.add_argument("-o", "--output", metavar="DIR", required=True, help="folder for the results")
    where = cohort.add_mutually_exclusive_group()
    where.add_argument(
        "--dask", metavar="ADDRESS", help="run on the Dask cluster of this scheduler, such as tcp://host:8786"
    )
    where.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="run N cases at once on this computer, with Dask: one for each graphics card (default: %(default)s)",
    )  # fmt: skip
    cohort.add_argument(
        "--series",
        metavar="FILE.csv",
        help="table with the columns case and series: the DICOM series to segment for a case",
    )
    cohort.add_argument(
        "--points",
        dest="points_of_cases",
        metavar="FILE.csv",
        help="table with the columns case, r, a and s: points in the nodules of a case; in other cases, the whole lungs are searched",
    )
    _add_run_options(cohort)

    report = commands.add_parser(
        "report", help="make the report of a cohort again, including its review.csv", epilog=REPORT_HELP
    )
    report.add_argument("folder", metavar="FOLDER", help="folder with the results of a cohort")
    report.add_argument(
        "--review", metavar="FILE.csv", action="append", default=[],
        help="another review, whose lines are added to the one in the folder; can be repeated",
    )  # fmt: skip

    series = commands.add_parser("series", help="list the DICOM series in a folder, from which --series chooses one")
    series.add_argument("folder", metavar="FOLDER", help="folder with DICOM files, also in subfolders")
    series.add_argument("--json", action="store_true", help="print the list as JSON")

    compare = commands.add_parser("compare", help="compare two segmentations of a scan, segment by segment")
    compare.add_argument(
        "first", metavar="A", help="segmentation: .seg.nrrd, a label map (.nrrd .nii .nii.gz .mha .mhd), or a DICOM SEG"
    )
    compare.add_argument(
        "second", metavar="B", help="another segmentation on the same voxels, such as one drawn by hand"
    )
    compare.add_argument("--json", action="store_true", help="print the measurements as JSON")

    models = commands.add_parser("models", help="list the installed models")
    models.add_argument("--json", action="store_true", help="print the model cards as a JSON list")

    demo = commands.add_parser("demo", help="segment the liver in the sample chest CT of the package slicerio")
    demo.add_argument(
        "-o", "--output", metavar="DIR", default="demo_output", help="folder for the results (default: %(default)s)"
    )

    app = commands.add_parser("app", help="segment, view and correct in a browser", epilog=APP_HELP)
    app.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="scans, folders of scans, and results of cohorts; the app can read nothing else",
    )
    app.add_argument(
        "--port",
        type=_from(0, 65535),
        default=8080,
        help="port of the page; 0 for any free port (default: %(default)s)",
    )
    app.add_argument(
        "--host", help="listen on this address, so that others can open the page with the token that is printed"
    )
    app.add_argument("-o", "--output", metavar="DIR", help="folder in which every change is saved immediately")
    app.add_argument(
        "--upload-mb", type=_from(1), default=2000, metavar="MB",
        help="largest upload in megabytes (default: %(default)s)",
    )  # fmt: skip

    for command in (segment, liver, nodule, cohort, report, series, compare, models, demo, app):
        command.add_argument("--debug", action="store_true", help="show the traceback if there is an error")
    return program


def _add_options(command: argparse.ArgumentParser, **target: str) -> None:
    """Add the arguments that all targets share."""
    command.set_defaults(point=[], points=None, also=[], **target)
    command.add_argument(
        "input", metavar="INPUT", help=f"CT volume: {' '.join(READERS)}, a DICOM file or a DICOM folder"
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="segmentation: .seg.nrrd, .nii.gz, .dcm for a DICOM SEG of a DICOM series, .sr.dcm for this and a DICOM SR, or surfaces in"
        " .stl or .obj",
    )
    command.add_argument(
        "--series",
        metavar="UID_OR_NUMBER",
        help="DICOM series to segment, if the folder contains several (`unetpp-segment series` lists them)",
    )
    command.add_argument("--probability", metavar="FILE", help="also write the probability map (.nrrd or .nii.gz)")
    command.add_argument("--uncertainty", metavar="FILE", help="also write the uncertainty map (.nrrd or .nii.gz)")
    command.add_argument("--report", metavar="FILE.csv", help="also write the measurements as a table")
    command.add_argument("--overlay", metavar="FILE.png", help="also write a picture with the outlines")
    command.add_argument(
        "--box", type=_numbers(6), metavar="R1,A1,S1,R2,A2,S2",
        help="segment only inside the box between two opposite corners, RAS in mm",
    )  # fmt: skip
    _add_run_options(command)


def _add_point(command: argparse.ArgumentParser) -> None:
    """Add the arguments that only nodules take."""
    command.add_argument(
        "--point", type=_numbers(3), action="append", default=[], metavar="R,A,S",
        help="a point in a nodule, RAS in mm; can be repeated; cannot be combined with --box",
    )  # fmt: skip
    command.add_argument(
        "--points",
        metavar="FILE",
        help="points in nodules: Slicer's .mrk.json or .fcsv, or a CSV with the columns r, a and s",
    )


def _add_also(command: argparse.ArgumentParser) -> None:
    """Add the argument for several targets."""
    command.add_argument(
        "--also", action="append", default=[], metavar="TARGET",
        help="a further target for the same segmentation; can be repeated. If two models claim a voxel, nodules come first, then"
        " targets in the order given",
    )  # fmt: skip


def _add_run_options(command: argparse.ArgumentParser) -> None:
    """Add the arguments that single scans and cohorts share."""
    command.add_argument(
        "--format", type=_forms, action="extend", default=[], metavar="FORM,...",
        help=f"also write the segmentation as {', '.join(FORMS)}; several are separated by commas",
    )  # fmt: skip
    command.add_argument("--quiet", action="store_true", help="print only errors, and what --json asks for")
    command.add_argument(
        "--device", default="auto", choices=DEVICES, help="device that runs the network (default: %(default)s)"
    )
    command.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="CPU threads that run the network, at most one for each core (default: one for each core)",
    )
    command.add_argument(
        "--speed",
        default="balanced",
        choices=SPEEDS,
        help="accurate analyses every slice; balanced finds the target first, and skips slices where it barely changes; fast skips more"
        " (default: %(default)s)",
    )
    command.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="lowest probability of a voxel in a segment, between 0 and 1 (default: that of the model)",
    )
    command.add_argument(
        "--show-from",
        type=float,
        metavar="P",
        help="lowest probability of a nodule to report, between 0 and 1, in a search without points (default: that of the model)",
    )
    command.add_argument(
        "--model",
        metavar="NAME_OR_FOLDER",
        help="model to use (default: the closest match to the target; of several, that in the first models folder, then the newest)",
    )
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument(
        "--force",
        action="store_true",
        help="accept a volume that does not look like CT, or whose voxel size is missing",
    )


class _Parser(argparse.ArgumentParser):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.register("type", int, _whole_number)
        self.register("type", float, _number)
        self.register("type", None, _text)

    def error(self, message: str) -> NoReturn:
        """Print one line, like all other errors."""
        self.exit(2, f"unetpp-segment: {message} (--help shows the usage)\n")


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty, as from a variable of the shell that is not set")
    return text


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _from(low: int, high: int | None = None) -> Callable[[str], int]:
    """An argument type: a whole number of at least `low` and at most `high`."""

    def number(text: str) -> int:
        value = _whole_number(text)
        if value < low or (high is not None and value > high):
            limits = f", {low} or more" if high is None else f" from {low} to {high}"
            raise argparse.ArgumentTypeError(f"it must be a whole number{limits}; got {value}")
        return value

    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _forms(text: str) -> list[str]:
    """An argument type: forms of a segmentation, separated by commas."""
    forms = [form.strip().removeprefix(".") for form in text.split(",")]
    for form in forms:
        if form not in FORMS:
            raise argparse.ArgumentTypeError(f"{form!r} is not one of {', '.join(FORMS)}")
    return forms


def _numbers(count: int) -> Callable[[str], tuple[float, ...]]:
    """An argument type: `count` numbers separated by commas."""

    def numbers(text: str) -> tuple[float, ...]:
        try:
            values = tuple(map(float, text.split(",")))
        except ValueError:
            values = ()
        if len(values) != count or not all(map(math.isfinite, values)):
            raise argparse.ArgumentTypeError(f"{text!r} must be {count} numbers separated by commas")
        return values

    return numbers


def with_minus(arguments: Sequence[str]) -> list[str]:
    """Turn `--point -56,-86,-116` into `--point=-56,-86,-116`, as argparse would take a value with a minus for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--point", "--box") and re.match(r"-[\d.]", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
