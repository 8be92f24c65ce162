"""The cases of a cohort: which files and folders are scans, and what their results are called. No torch."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from .. import files
from ..files.dicom_folder import PACKED, SLICE_ENDINGS
from ..files.reading import case_name, volume_ending
from .corrections import CORRECTED, corrected_path
from .manifest import MANIFEST, CohortError
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
        maps of other inputs, and loose DICOM files and archives.

    Raises:
        CohortError: There are no inputs, or two would have the same name.
    """
    skipped: dict[Path, str] = {}
    if isinstance(inputs, (str, Path)):
        parent = Path(inputs)
        if not parent.is_dir():
            raise CohortError(f"{parent} is not a folder: give a folder, or a list of files.")
        inputs = [path for path in sorted(parent.iterdir()) if _may_be_case(path, besides)]
        skipped = _loose_files(parent)
    paths = [Path(path) for path in inputs]
    labels = files.label_maps(paths)
    skipped |= dict.fromkeys(sorted(labels), "It is a label map for another file.")
    cases: dict[str, Path] = {}
    for path in (path for path in paths if path not in labels):
        case = case_name(path)
        if not path.exists():
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


def _loose_files(parent: Path) -> dict[Path, str]:
    """Files in a folder of inputs that look like scans but are skipped, each with the reason."""
    reasons = dict.fromkeys(
        SLICE_ENDINGS, "It is a loose DICOM file: put the files of each DICOM series into a folder of their own."
    )
    reasons |= dict.fromkeys(PACKED, "It is an archive: unpack it.")
    return {
        path: reasons[path.suffix.lower()]
        for path in sorted(parent.iterdir())
        if path.suffix.lower() in reasons and not volume_ending(path) and path.is_file()
    }


def _may_be_case(path: Path, besides: Path | None) -> bool:
    """Whether a file or folder in the folder of inputs is an input, by the rules of `find_cases`."""
    return (
        (path.is_dir() or volume_ending(path) != "")
        and not path.name.startswith(".")
        and not path.name.endswith(ENDING)
        and not (besides and besides.resolve().is_relative_to(path.resolve()))
        and not (path / MANIFEST).is_file()
        and not (path.name == PICTURES and path.with_name(MANIFEST).is_file())
    )
