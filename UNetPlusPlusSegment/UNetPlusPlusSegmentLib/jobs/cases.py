"""The cases of a cohort: which files and folders are scans, and what their results are called. No torch."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from .. import files
from ..files.dicom_folder import PACKED, SLICE_ENDINGS
from ..files.reading import case_name, volume_ending
from .corrections import CORRECTED, corrected_path
from .manifest import MANIFEST, CohortError, read_manifest
from .picture import PICTURES

ENDING = ".seg.nrrd"  # of the result that is always written
LONGEST_NAME = 255  # bytes of a file name that file systems allow


def find_cases(
    inputs: str | Path | Iterable[str | Path], besides: Path | None = None
) -> tuple[dict[str, Path], dict[Path, str]]:
    """Name each input after its file or folder; if one folder is given, all volume files and folders in it are inputs.

    Hidden files and results are ignored: segmentations, folders of results, and folders that contain the folder `besides`.

    Returns:
        The inputs, by the names of their cases; and the files that look like scans but are skipped, each with the reason: label
        maps of other inputs, loose DICOM files, archives, and links that lead nowhere.

    Raises:
        CohortError: There are no inputs, their folder cannot be read, or two would have the same name.
    """
    skipped: dict[Path, str] = {}
    if isinstance(inputs, (str, Path)):
        there = _contents(Path(inputs))
        inputs = [path for path, mode in there.items() if _may_be_case(path, mode, besides)]
        skipped = {path: reason for path, mode in there.items() if (reason := _why_skipped(path, mode))}
    paths = [Path(path) for path in inputs]
    labels = files.label_maps(paths)
    skipped |= dict.fromkeys(sorted(labels), "It is a label map for another file.")
    cases: dict[str, Path] = {}
    for path in (path for path in paths if path not in labels):
        case = case_name(path)
        if not _mode(path):
            raise CohortError(f"There is no file or folder {path}: check the path.")
        if cases.get(case) == path.absolute():
            raise CohortError(f"{path} was given twice: leave one out.")
        if case in cases:
            raise CohortError(f"{cases[case]} and {path} would both be called {case}: rename one of them.")
        cases[case] = path.absolute()
    if not cases:
        raise CohortError(
            "No volume files or folders were found: check the inputs. For DICOM series, give the folder that contains a folder for each"
            " series."
        )
    return cases, skipped


def check_names(cases: Mapping[str, Path]) -> None:
    """Refuse scans whose results would not each have a file of their own.

    Raises:
        CohortError: Two names are one on Windows or macOS, or one is that of another's correction; or a name is too long.
    """
    known: dict[str, Path] = {}  # by the name that these systems compare
    for case, path in cases.items():
        name = unicodedata.normalize("NFC", case).casefold()
        if name in known:
            raise CohortError(
                f"{known[name]} and {path} would share one result on Windows and macOS: rename one of them."
            )
        known[name] = path
        too_long = len(os.fsencode(corrected_path(path.parent, case).name)) - LONGEST_NAME
        if too_long > 0:
            most = len(os.fsencode(case)) - too_long
            raise CohortError(
                f"{path} has too long a name for its results: shorten it to {most} bytes, without its ending."
            )
    for name, path in known.items():
        scan = known.get(name.removesuffix(CORRECTED), path)
        if scan != path:
            raise CohortError(f"{path} has the name of a correction of {scan}: rename one of them.")


def _contents(parent: Path) -> dict[Path, int]:
    """What is in a folder of inputs, without the results of a cohort, sorted by name, each with its mode.

    Raises:
        CohortError: It is not a folder, or cannot be read.
    """
    if not stat.S_ISDIR(_mode(parent)):
        raise CohortError(f"{parent} is not a folder: give a folder, or a list of files.")
    try:
        there = sorted(parent.iterdir())
    except OSError as error:
        raise CohortError(f"{parent} cannot be read ({error.strerror}): correct its permissions.") from error
    results = {name for record in read_manifest(parent).values() for name in record.get("files", ())}
    return {path: _mode(path) for path in there if not path.name.startswith(".") and path.name not in results}


def _mode(path: Path) -> int:
    """The mode of a file or folder; 0 if it cannot be found, such as one that a link leads to."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _may_be_case(path: Path, mode: int, besides: Path | None) -> bool:
    """Whether a file or folder in the folder of inputs is an input, by the rules of `find_cases`."""
    return (
        (stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and volume_ending(path) != ""))
        and not path.name.endswith(ENDING)
        and not (besides and besides.resolve().is_relative_to(path.resolve()))
        and not _mode(path / MANIFEST)
        and not (path.name == PICTURES and path.with_name(MANIFEST).is_file())
    )


def _why_skipped(path: Path, mode: int) -> str | None:
    """Why a file in the folder of inputs that looks like a scan is none; None for all others."""
    if volume_ending(path):
        if not mode:
            return "It is a link to a file that cannot be found."
        return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "It is neither a file nor a folder."
    ending = path.suffix.lower()
    if stat.S_ISREG(mode) and ending in SLICE_ENDINGS:
        return "It is a loose DICOM file: put the files of each DICOM series into a folder of their own."
    if stat.S_ISREG(mode) and ending in PACKED:
        return "It is an archive: unpack it."
    return None
