"""The arguments of `unetpp-segment`: its subcommands, their options and the values allowed."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

from .. import __version__
from ..core.request import DEVICES, SPEEDS
from ..files.forms import FORMS

RAS_HELP = "Coordinates are RAS, as Slicer shows them."
NODULE_HELP = f"Without --point and --box, the lungs are searched. {RAS_HELP}"
TARGET_HELP = "target or segment of a model, such as liver, nodule or spleen; a word takes all segments that have it (see: models)"
COHORT_HELP = (
    "The output folder gets a .seg.nrrd file for each case, measurements.csv, report.html to look through them, and manifest.jsonl"
    " with the state of each case."
)
REPORT_HELP = "Open report.html in a browser; save the review.csv that it offers into the same folder."
APP_HELP = "Without --host, only this computer can open the page. Changes to a cohort's results are saved beside them."
LICENCE_LINE = "The models are for research only, not for clinical use; see MODELS_LICENSE.md."


def parser() -> argparse.ArgumentParser:
    """The parser. It sets `command` to the subcommand; for a segmentation also `target`, `also`, `point` and `box`."""
    program = _Parser(
        prog="unetpp-segment", description="Segment CT volumes slice by slice with UNet++. " + LICENCE_LINE
    )
    program.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = program.add_subparsers(required=True, dest="command", metavar="COMMAND")

    segment = commands.add_parser("segment", help="segment what any of the models has", epilog=RAS_HELP)
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
        "cohort", help="segment many scans; another call runs only missing and failed cases", epilog=COHORT_HELP
    )
    cohort.set_defaults(point=[], points=None, box=None)
    cohort.add_argument("target", metavar="TARGET", help=TARGET_HELP)
    _add_also(cohort)
    cohort.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="volume files and DICOM folders, or one folder that contains them"
    )
    cohort.add_argument("-o", "--output", metavar="DIR", required=True, help="folder for the results")
    where = cohort.add_mutually_exclusive_group()
    where.add_argument("--dask", metavar="ADDRESS", help="run on the Dask cluster of this scheduler, tcp://host:8786")
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
        help="table with the columns case, r, a and s: points in the nodules of a case; of other cases the lungs are searched",
    )
    _add_run_options(cohort)

    report = commands.add_parser(
        "report", help="make the report of a cohort again, with what its review.csv says", epilog=REPORT_HELP
    )
    report.add_argument("folder", metavar="FOLDER", help="folder with the results of a cohort")
    report.add_argument(
        "--review", metavar="FILE.csv", action="append", default=[],
        help="another review, to be added to that of the folder; repeat it for more",
    )  # fmt: skip

    series = commands.add_parser("series", help="list the DICOM series in a folder, to choose one with --series")
    series.add_argument("folder", metavar="FOLDER", help="a folder that contains DICOM files, also in subfolders")
    series.add_argument("--json", action="store_true", help="print the list as JSON")

    compare = commands.add_parser("compare", help="compare two segmentations of a scan, segment by segment")
    compare.add_argument(
        "first", metavar="A", help="segmentation: .seg.nrrd, a label map (.nrrd .nii .nii.gz .mha), or a DICOM SEG"
    )
    compare.add_argument("second", metavar="B", help="another one with the same voxels, such as one drawn by hand")
    compare.add_argument("--json", action="store_true", help="print the figures as JSON")

    models = commands.add_parser("models", help="list the installed models")
    models.add_argument("--json", action="store_true", help="print the model cards as a JSON list")

    demo = commands.add_parser("demo", help="segment the liver in the sample chest CT of the package slicerio")
    demo.add_argument(
        "-o", "--output", metavar="DIR", default="demo_output", help="folder for the results (default: %(default)s)"
    )

    app = commands.add_parser("app", help="segment, look and correct in a browser", epilog=APP_HELP)
    app.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="scans, folders of scans, and the results of cohorts; nothing else is read",
    )
    app.add_argument("--port", type=int, default=8080, help="0 for a free one (default: %(default)s)")
    app.add_argument("--host", help="listen on this address, for visitors who know the token that is printed")
    app.add_argument("-o", "--output", metavar="DIR", help="folder where changes are saved at once")
    app.add_argument(
        "--upload-mb", type=int, default=2000, metavar="MB", help="size of an upload at most (default: %(default)s)"
    )

    for command in (segment, liver, nodule, cohort, report, series, compare, models, demo, app):
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return program


def _add_options(command: argparse.ArgumentParser, **target: str) -> None:
    """Add the arguments of all targets."""
    command.set_defaults(point=[], points=None, also=[], **target)
    command.add_argument(
        "input", metavar="INPUT", help="CT volume: .nrrd .nhdr .nii .nii.gz .mha .mhd, a DICOM file or a folder of them"
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="segmentation: .seg.nrrd, .nii.gz, .dcm for a DICOM SEG of a DICOM series, or surfaces in .stl or .obj",
    )
    command.add_argument(
        "--series", metavar="UID_OR_NUMBER", help="DICOM series to segment, if the folder contains several: see series"
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
        help="a point in a nodule, RAS in mm; repeat it for more nodules; not together with --box",
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
        help="a further target for the same segmentation; repeat it for more. Where two models claim a voxel, nodules come"
        " first, then targets in the order in which they are named",
    )  # fmt: skip


def _add_run_options(command: argparse.ArgumentParser) -> None:
    """Add the arguments of single scans and cohorts."""
    command.add_argument(
        "--format", type=_forms, action="extend", default=[], metavar="FORM,...",
        help=f"also write the segmentation as {', '.join(FORMS)}; several are separated by commas",
    )  # fmt: skip
    command.add_argument("--quiet", action="store_true", help="print errors only")
    command.add_argument(
        "--device", default="auto", choices=DEVICES, help="device that runs the network (default: %(default)s)"
    )
    command.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads that run the network (default: one for each core)"
    )
    command.add_argument(
        "--speed",
        default="balanced",
        choices=SPEEDS,
        help="accurate analyses every slice; balanced and fast locate the target first (default: %(default)s)",
    )
    command.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="lowest probability inside a segment, between 0 and 1 (default: that of the model)",
    )
    command.add_argument(
        "--show-from",
        type=float,
        metavar="P",
        help="lowest probability of a nodule that is shown, between 0 and 1, where none is pointed at (default: that of the model)",
    )
    command.add_argument(
        "--model",
        metavar="NAME_OR_FOLDER",
        help="model to use (default: the newest one, in the first folder that has one for the target)",
    )
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument(
        "--force",
        action="store_true",
        help="accept a volume that does not look like CT, or whose voxel size is missing",
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line, like every other error."""
        self.exit(2, f"unetpp-segment: {message} (--help shows the usage)\n")


def _forms(text: str) -> list[str]:
    """An argument type: forms of a segmentation, separated by commas."""
    forms = [form.strip().removeprefix(".") for form in text.split(",")]
    for form in forms:
        if form not in FORMS:
            raise argparse.ArgumentTypeError(f"{form!r} is none of {', '.join(FORMS)}")
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
    """`--point -56,-86,-116` as `--point=-56,-86,-116`: argparse reads a value with a minus as an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--point", "--box") and re.match(r"-[\d.]", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
