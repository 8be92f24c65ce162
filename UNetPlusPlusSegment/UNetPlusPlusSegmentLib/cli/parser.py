"""The command line of `unetpp-segment`: its subcommands, their options and the values that these take."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

from .. import __version__
from ..core.request import DEVICES, SPEEDS

LIVER_HELP = "Coordinates are RAS, as Slicer shows them."
NODULE_HELP = f"Without --point and --box the lungs are searched. {LIVER_HELP}"
COHORT_HELP = (
    "A .seg.nrrd for each case, measurements.csv and manifest.jsonl, which says what is done, lie in the folder after."
)
LICENCE_LINE = "The models are for research only, not for clinical use; see MODELS_LICENSE.md."


def parser() -> argparse.ArgumentParser:
    """All of the command line; `command` names the subcommand, `target` that of a segmentation."""
    program = _Parser(
        prog="unetpp-segment", description="Segment CT volumes slice by slice with UNet++. " + LICENCE_LINE
    )
    program.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = program.add_subparsers(required=True, dest="command", metavar="COMMAND")

    liver = commands.add_parser("liver", help="segment the liver", epilog=LIVER_HELP)
    _add_options(liver, target="liver")
    nodule = commands.add_parser(
        "nodule", help="segment lung nodules: at points, in a box, or all of a chest", epilog=NODULE_HELP
    )
    _add_options(nodule, target="nodule")
    nodule.add_argument(
        "--point", type=_numbers(3), action="append", default=[], metavar="R,A,S",
        help="a point in a nodule, RAS in mm; more than one may be given, but no box",
    )  # fmt: skip

    cohort = commands.add_parser(
        "cohort", help="segment many scans; called again, it does what is missing or failed", epilog=COHORT_HELP
    )
    cohort.set_defaults(point=[], box=None)
    cohort.add_argument("target", choices=["liver", "nodule"])
    cohort.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="volume files and DICOM folders, or one folder of such"
    )
    cohort.add_argument("-o", "--output", metavar="DIR", required=True, help="folder for the results")
    cohort.add_argument(
        "--dask", metavar="ADDRESS", help="scheduler of a Dask cluster whose workers do it, tcp://host:8786"
    )
    _add_run_options(cohort)

    models = commands.add_parser("models", help="list the models that can be used")
    models.add_argument("--json", action="store_true", help="print the cards as a JSON list")

    demo = commands.add_parser("demo", help="segment the liver in the chest CT that the slicerio package carries")
    demo.add_argument(
        "-o", "--output", metavar="DIR", default="demo_output", help="folder for the results (demo_output)"
    )

    for command in (liver, nodule, cohort, models, demo):
        command.add_argument("--debug", action="store_true", help="show where an error happened")
    return program


def _add_options(command: argparse.ArgumentParser, target: str) -> None:
    """Add what both targets take."""
    command.set_defaults(target=target, point=[])
    command.add_argument(
        "input", metavar="INPUT", help=".nrrd .nhdr .nii .nii.gz .mha .mhd, a DICOM file or a folder of them"
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="segmentation: .seg.nrrd, .nii.gz, or of a DICOM series .dcm, a DICOM SEG",
    )
    command.add_argument("--series", metavar="UID", help="DICOM series to take from a folder that holds several")
    command.add_argument("--probability", metavar="FILE", help="also write the probability map (.nrrd or .nii.gz)")
    command.add_argument("--uncertainty", metavar="FILE", help="also write the uncertainty map (.nrrd or .nii.gz)")
    command.add_argument("--report", metavar="FILE.csv", help="also write the measurements")
    command.add_argument("--overlay", metavar="FILE.png", help="also write a picture")
    command.add_argument(
        "--box", type=_numbers(6), metavar="R1,A1,S1,R2,A2,S2",
        help="segment only inside a box, given by two opposite corners, RAS in mm",
    )  # fmt: skip
    _add_run_options(command)


def _add_run_options(command: argparse.ArgumentParser) -> None:
    """Add what one scan and a cohort take."""
    command.add_argument("--device", default="auto", choices=DEVICES, help="where the network runs")
    command.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="how many a processor runs the network in, at most one a core if not given",
    )
    command.add_argument("--speed", default="balanced", choices=SPEEDS, help="how thorough it is")
    command.add_argument("--threshold", type=float, metavar="T", help="probability 0…1; the model's own if not given")
    command.add_argument("--model", metavar="NAME_OR_FOLDER", help="the newest for the target if not given")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("--force", action="store_true", help="run even if the volume does not look like CT")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as every other error."""
        self.exit(2, f"unetpp-segment: {message} (--help shows the usage)\n")


def _numbers(count: int) -> Callable[[str], tuple[float, ...]]:
    """A type for so many numbers with commas between them."""

    def numbers(text: str) -> tuple[float, ...]:
        try:
            values = tuple(map(float, text.split(",")))
        except ValueError:
            values = ()
        if len(values) != count or not all(map(math.isfinite, values)):
            raise argparse.ArgumentTypeError(f"{text!r} is not {count} numbers with commas between them")
        return values

    return numbers


def with_minus(arguments: Sequence[str]) -> list[str]:
    """`--point -56,-86,-116` as `--point=-56,-86,-116`: argparse takes what begins with a minus for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--point", "--box") and re.match(r"-[\d.]", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
