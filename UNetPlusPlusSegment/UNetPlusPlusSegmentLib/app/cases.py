"""The cases of the app, from scans, folders of scans and results of cohorts; and where their changes are saved. No slicer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files.reading import case_name, volume_ending
from ..jobs.cases import ENDING, find_cases
from ..jobs.corrections import corrected_path
from ..jobs.manifest import MANIFEST, CohortError, read_manifest
from ..jobs.report import cases_of
from .access import Folders, RefusedError


@dataclass(frozen=True)
class Case:
    """A scan that the app offers.

    Attributes:
        name: The name that the page shows.
        scan: The file or DICOM folder.
        folders: The folders that may be read for it.
        series: The DICOM series to read from a folder; None for the largest CT series.
        found: The segmentation made by a cohort; None if there is none.
        corrected: The file in which changes are saved; None not to save them.
        cohort: The folder with the results of its cohort; None if it belongs to none.
        record: Its manifest line.
    """

    name: str
    scan: Path
    folders: Folders
    series: str | None = None
    found: Path | None = None
    corrected: Path | None = None
    cohort: Path | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def segmentation(self) -> Path | None:
        """The segmentation to show: the corrected one or the cohort's; None if there is none."""
        return next((path for path in (self.corrected, self.found) if path and path.is_file()), None)


def find(paths: Sequence[str | Path], output: str | Path | None = None) -> dict[str, Case]:
    """The cases in files, folders of scans, DICOM folders and results of cohorts, by name.

    Args:
        paths: Files and folders. A folder with a manifest contains the results of a cohort; its scans must also be in one of the paths.
        output: Folder in which changes of cases without a cohort are saved, created if missing; None not to save them.

    Raises:
        RefusedError: A path does not exist or is an empty folder, two cases have the same name, or `output` cannot be created.
    """
    for path in map(Path, paths):
        if not path.exists():
            raise RefusedError(f"There is no file or folder {path}: check the path.")
    try:
        if output is not None:
            Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RefusedError(
            f"The folder {output} cannot be created ({error.strerror}): choose another folder with -o."
        ) from error
    folders = Folders([*paths, *([output] if output else [])])
    cases: dict[str, Case] = {}
    # Cohorts first, as they name their scans.
    for path in sorted(map(Path, paths), key=lambda path: not (path / MANIFEST).is_file()):
        for case in _cases_in(path, folders, Path(output) if output else None):
            # A scan may be listed already as a case of its cohort.
            if case.name in cases and cases[case.name].scan.resolve() != case.scan.resolve():
                raise RefusedError(
                    f"Two cases are called {case.name}: rename one, or start the app with only one of them."
                )
            cases.setdefault(case.name, case)
    return {name: cases[name] for name in sorted(cases, key=lambda name: (cases[name].cohort is None, name))}


def uploaded(files: Sequence[Path], folder: Path, output: str | Path | None = None) -> Case:
    """A case from the files that a visitor uploaded: one volume, or a DICOM series.

    Args:
        files: The uploaded files, which are alone in `folder`.
        folder: A folder with a unique name, which becomes part of the name of the saved file.
        output: Folder in which changes are saved; None not to save them.
    """
    volumes = [path for path in files if volume_ending(path)]
    scan = volumes[0] if volumes else files[0] if len(files) == 1 else folder
    if output is None:
        return Case(f"{files[0].name} (uploaded)", scan, Folders([folder]))
    corrected = corrected_path(Path(output), f"{case_name(files[0])}-{folder.name}")
    return Case(f"{files[0].name} (uploaded)", scan, Folders([folder, output]), corrected=corrected)


def _cases_in(path: Path, folders: Folders, output: Path | None) -> Iterable[Case]:
    if (path / MANIFEST).is_file():
        for record in cases_of(read_manifest(path)):
            name, scan = record["case"], Path(record.get("input", ""))
            first, corrected = path / f"{name}{ENDING}", corrected_path(path, name)
            yield Case(name, scan, folders, record.get("series"), first, corrected, cohort=path, record=record)
        return
    try:
        scans = {case_name(path): path}
        if path.is_dir():
            scans, _ = find_cases(path, besides=output)
    except CohortError:  # no cases in it, so these are the slices of one scan
        if not any(each.is_file() and not each.name.endswith(ENDING) for each in path.rglob("*")):
            if output and path.resolve() == output.resolve():
                return  # given by a shell that replaced scans/* with all that is there
            raise RefusedError(f"There is no scan in {path}: give a scan, or a folder of scans.") from None
        scans = {path.resolve().name: path}
    for name, scan in scans.items():
        yield Case(name, scan, folders, corrected=corrected_path(output, name) if output else None)
