"""Cohorts: many files, each result written completely or not at all, with a manifest of the cases done. No torch."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from .. import files
from ..core.request import Request
from ..core.segment import as_columns
from ..core.volume import Volume
from ..files.dicom_folder import PACKED, SLICE_ENDINGS
from ..files.images import in_text
from ..files.reading import volume_ending
from ..network.bundle import Bundle
from .worker_client import Worker

MANIFEST, TABLE, ENDING = "manifest.jsonl", "measurements.csv", ".seg.nrrd"
_log = logging.getLogger(__name__)


class CohortError(ValueError):
    """A cohort that cannot be run; the message says why and what to do."""


class Todo(NamedTuple):
    """A case without a result."""

    case: str
    input: Path
    output: Path
    bundle: Path
    request: Request
    series: str | None = None


# Runs cases in any order, and yields the name and the outcome of each as it ends.
Runner = Callable[[Sequence[Todo]], Iterator[tuple[str, dict]]]


def run_cohort(
    run: Runner,
    inputs: str | Path | Iterable[str | Path],
    folder: str | Path,
    bundle: Bundle,
    request: Request,
    progress: Callable[[int, int, str], None] = lambda done, total, case: None,
    series: Mapping[str, str] | None = None,
) -> list[dict]:
    """Segment every case that has no result yet.

    Afterwards, the folder contains `<case>.seg.nrrd` for each case that is done, now or earlier with other settings;
    `manifest.jsonl`, to which a line is added as each case ends, so that the last line of a case is the valid one; and
    `measurements.csv`, rewritten from the manifest, with the cases of earlier calls.

    Args:
        run: `one_after_the_other`, or `dask_cluster.on_cluster`.
        inputs: Volume files and DICOM folders, or one folder that contains them.
        folder: For the results; created if missing.
        bundle: The model for the request.
        request: For every case. A case done by another model, or at another speed or threshold, is run again.
        progress: Called with the number of cases ended, the number of all cases, and the name of the next case.
        series: The DICOM series to segment, by the name of the case; for other cases, the largest CT series.

    Returns:
        The last line of the manifest for each case, in order, and for each file that was skipped, with the status `skipped`.

    Raises:
        CohortError: There are no inputs, or two with one name; a series is given for an unknown case; the folder is not
            writable, or contains a result of another target or another file under the name of a case.
    """
    folder = Path(folder)
    cases, skipped = find_cases(inputs, besides=folder)
    series = series or {}
    unknown = sorted(set(series) - set(cases))
    if unknown:
        raise CohortError(
            f"A series is given for {unknown[0]}, which is not a case: correct the table. The cases are {', '.join(sorted(cases))}."
        )
    known = _read_manifest(folder / MANIFEST)
    about = {
        "target": request.target.lower(), "model": bundle.name, "speed": request.speed, "threshold": request.threshold,
        "force": request.force,
    }  # fmt: skip
    asked = {
        case: {"case": case, "input": str(path), "series": series.get(case), **about} for case, path in cases.items()
    }
    todo = []
    for case, path in cases.items():
        output = (folder / f"{case}{ENDING}").absolute()
        if not _is_done(output, asked[case], known.get(case, {})):
            todo.append(Todo(case, path, output, bundle.folder.absolute(), request, series.get(case)))
    outcomes = run(todo)  # first, so that no folder is created if there is no cluster
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).open("ab").close()
    except OSError as error:
        raise CohortError(f"{folder} is not writable ({error.strerror}): choose another folder.") from error
    for name, record in _skipped_records(skipped).items():
        if record != known.get(name):
            known[name] = record
            _append(folder / MANIFEST, record)
    try:
        for ended, waiting in enumerate(todo, start=len(cases) - len(todo)):
            progress(ended, len(cases), waiting.case)
            case, outcome = next(outcomes)
            known[case] = asked[case] | outcome
            _append(folder / MANIFEST, known[case])
        progress(len(cases), len(cases), "")
    finally:  # a run that is stopped leaves a table of the cases done
        rows = [row for case in sorted(known) for row in _rows(known[case])]
        if rows:
            files.write_report(folder / TABLE, rows)
    return [known[name] for name in [*cases, *(path.name for path in skipped)]]


def _skipped_records(skipped: Mapping[Path, str]) -> dict[str, dict]:
    """Lines of the manifest for files that are no cases, by their names; the log tells of them before the run."""
    for path, reason in skipped.items():
        _log.warning("Skipped %s: %s", in_text(path), reason)
    return {
        path.name: {"case": path.name, "input": str(path.absolute()), "status": "skipped", "reason": reason}
        for path, reason in skipped.items()
    }


def _is_done(output: Path, asked: Mapping, last: Mapping) -> bool:
    """Check if a case has its result, by its last line in the manifest.

    Raises:
        CohortError: The result is one of another target or another file.
    """
    for key, relation in (("target", "of"), ("input", "for")):
        if output.is_file() and last.get(key, asked[key]) != asked[key]:
            raise CohortError(
                f"{output} is a result {relation} {last[key]}, which would be replaced: choose another folder for the results."
            )
    return last.get("status") == "done" and output.is_file() and asked.items() <= {"series": None, **last}.items()


def find_cases(
    inputs: str | Path | Iterable[str | Path], besides: Path | None = None
) -> tuple[dict[str, Path], dict[Path, str]]:
    """Name each input after its file or folder; if one folder is given, all volume files and folders in it are inputs.

    Hidden files and results are passed over: segmentations, folders of results, and folders that contain the folder `besides`.

    Returns:
        The inputs by the names of their cases; and files that may be scans but are no inputs, with the reason: label maps of
        other inputs, and DICOM files and packed ones beside them.

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
    skipped |= dict.fromkeys(sorted(labels), "It is a label map of another file.")
    cases: dict[str, Path] = {}
    for path in (path for path in paths if path not in labels):
        case = _case_name(path)
        if case in cases:
            raise CohortError(f"{cases[case]} and {path} would both be called {case}: rename one of them.")
        cases[case] = path.absolute()
    if not cases:
        raise CohortError(
            "There is nothing to do: no volume files or folders were found. For DICOM series, give the folder that contains their"
            " folders."
        )
    return cases, skipped


def _loose_files(parent: Path) -> dict[Path, str]:
    """Files in a folder of inputs that may be scans but are no case, and why."""
    reasons = dict.fromkeys(
        SLICE_ENDINGS, "It is in no folder of its own: put the files of each DICOM series into one."
    )
    reasons |= dict.fromkeys(PACKED, "It is packed: unpack it.")
    return {
        path: reasons[path.suffix.lower()]
        for path in sorted(parent.iterdir())
        if path.suffix.lower() in reasons and not volume_ending(path) and path.is_file()
    }


def _may_be_case(path: Path, besides: Path | None) -> bool:
    """Check if a file or folder in the folder of inputs is an input, by the rules of `find_cases`."""
    return (
        (path.is_dir() or volume_ending(path) != "")
        and not path.name.startswith(".")
        and not path.name.endswith(ENDING)
        and not (besides and besides.resolve().is_relative_to(path.resolve()))
        and not (path / MANIFEST).is_file()
    )


def _case_name(path: Path) -> str:
    """The name of a file without its extension, or of a folder."""
    return path.name[: len(path.name) - len(volume_ending(path))]


def one_after_the_other(worker: Worker) -> Runner:
    """Run the cases on this machine, with one worker; the next case is read while one is computed."""

    def run(todo: Sequence[Todo]) -> Iterator[tuple[str, dict]]:
        reader = ThreadPoolExecutor(1, "reader")
        try:
            reading = deque(reader.submit(read_case, each) for each in todo[:1])
            for each, following in zip_longest(todo, todo[1:]):
                if following:
                    reading.append(reader.submit(read_case, following))
                yield each.case, outcome_of(each, worker, reading.popleft().result)
        finally:  # nobody waits for a case that is read in vain
            reader.shutdown(wait=False, cancel_futures=True)

    return run


def read_case(todo: Todo) -> tuple[Volume, list[str]]:
    """Read the volume of a case, and the notes about it."""
    return files.read_volume(todo.input, todo.series, todo.request.force)


def outcome_of(todo: Todo, worker: Worker, read: Callable[[], tuple[Volume, list[str]]] | None = None) -> dict:
    """Run one case; an error becomes its outcome. `read` returns its volume if it is being read already."""
    started = time.monotonic()
    try:
        try:
            volume, notes = read() if read else read_case(todo)
        except MemoryError:  # there may be room now that the case before is done
            volume, notes = read_case(todo)
        result = worker.result_of(worker.submit(volume, todo.bundle, todo.request))
        files.write_segmentation(todo.output, result.labelmap, volume.ijk_to_ras, result.segments)
    except Exception as error:
        if not isinstance(error, ValueError):
            _log.exception("%s failed unexpectedly", todo.input)
        outcome = failed(error)
        if todo.output.exists():  # of an earlier call with other settings
            outcome["reason"] += f" The result of an earlier run is kept: {todo.output.name}."
        return {**outcome, "seconds": round(time.monotonic() - started, 3)}
    return {
        "status": "done",
        "measurements": {segment.name: dict(segment.measurements) for segment in result.segments},
        "notes": [*notes, *map(str, result.notes)],
        "device": result.device,
        "seconds": round(time.monotonic() - started, 3),
    }


def failed(error: BaseException) -> dict:
    """The outcome of a case that failed."""
    return {"status": "failed", "reason": " ".join(str(error).split()) or type(error).__name__}


def _read_manifest(path: Path) -> dict[str, dict]:
    """The last complete line of each case; empty without a manifest."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise CohortError(f"{path} cannot be read ({error.strerror}): choose another folder.") from error
    known = {}
    for line in text.splitlines():
        try:
            record = json.loads(line)
            known[record["case"]] = record | {"status": record["status"]}
        except (ValueError, TypeError, KeyError):
            continue  # the computer went down while it was written
    return known


def _append(path: Path, record: Mapping[str, object]) -> None:
    """Append a line in one write, and flush it to disk; after an incomplete line, on a new one."""
    with path.open("a+b") as stream:
        torn = stream.tell() > 0 and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n"
        stream.write(b"\n" * torn + json.dumps(record).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _rows(record: Mapping) -> list[dict]:
    """Rows of the table for a case: one for each segment, or one with the reason why there is none."""
    measurements = record.get("measurements") or {"": {}}
    return [
        {
            "case": record["case"],
            "segment": segment,
            "volume_ml": None,
            "mean_hu": None,
            **as_columns(measured),
            "status": record["status"],
            "reason": record.get("reason"),
            "notes": " ".join(record.get("notes") or ()) or None,
        }
        for segment, measured in measurements.items()
    ]
