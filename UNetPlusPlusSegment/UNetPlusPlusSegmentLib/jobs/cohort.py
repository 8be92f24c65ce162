"""Cohorts: many files, each result whole or not at all, with a manifest that tells what is left to do. No torch."""

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
from ..files.reading import IMAGE_IO
from ..network.bundle import Bundle
from .worker_client import Worker

MANIFEST, TABLE, ENDING = "manifest.jsonl", "measurements.csv", ".seg.nrrd"
_log = logging.getLogger(__name__)


class CohortError(ValueError):
    """A cohort that cannot even be started."""


class Todo(NamedTuple):
    """A case that has no result yet."""

    case: str
    input: Path
    output: Path
    bundle: Path
    request: Request


# Does cases in any order, and tells of each as it ends: its name and its outcome.
Runner = Callable[[Sequence[Todo]], Iterator[tuple[str, dict]]]


def run_cohort(
    run: Runner,
    inputs: str | Path | Iterable[str | Path],
    folder: str | Path,
    bundle: Bundle,
    request: Request,
    progress: Callable[[int, int, str], None] = lambda done, total, case: None,
) -> list[dict]:
    """Segment every case that has no result yet.

    In the folder lie, after: `<case>.seg.nrrd` for each case that is done, or was with other settings; `manifest.jsonl`, to
    which each case adds a line as it ends, so that the last line of a case counts; and `measurements.csv`, made anew from it,
    with the cases of earlier calls.

    Args:
        run: `one_after_the_other`, or `dask_cluster.on_cluster`.
        inputs: Volume files and DICOM folders, or one folder that holds such.
        folder: For the results; made if need be.
        bundle: The model that was chosen for the request.
        request: For every case. One that was done by another model, or with another speed or threshold, is done again.
        progress: Called with cases ended, cases in all, and the name of the next one in line.

    Returns:
        The last line of each case, in order.

    Raises:
        CohortError: No inputs, or two of one name; the folder cannot be written to, or holds a result of another target or
            another file under the name of a case.
    """
    folder = Path(folder)
    cases = find_cases(inputs, besides=folder)
    known = _read_manifest(folder / MANIFEST)
    about = {
        "target": bundle.target, "model": bundle.name, "speed": request.speed, "threshold": request.threshold,
        "force": request.force,
    }  # fmt: skip
    asked = {case: {"case": case, "input": str(path), **about} for case, path in cases.items()}
    todo = []
    for case, path in cases.items():
        output = (folder / f"{case}{ENDING}").absolute()
        if not _is_done(output, asked[case], known.get(case, {})):
            todo.append(Todo(case, path, output, bundle.folder.absolute(), request))
    outcomes = run(todo)  # first: where there is no cluster, no folder is made
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).open("ab").close()
    except OSError as error:
        raise CohortError(f"{folder} cannot be written to ({error.strerror}): give another folder.") from error
    try:
        for ended, waiting in enumerate(todo, start=len(cases) - len(todo)):
            progress(ended, len(cases), waiting.case)
            case, outcome = next(outcomes)
            known[case] = asked[case] | outcome
            _append(folder / MANIFEST, known[case])
        progress(len(cases), len(cases), "")
    finally:  # whoever stops it finds the table of what is done
        files.write_report(folder / TABLE, [row for case in sorted(known) for row in _rows(known[case])])
    return [known[case] for case in cases]


def _is_done(output: Path, asked: Mapping, last: Mapping) -> bool:
    """Tell whether a case has its result, by the last line of the manifest about it.

    Raises:
        CohortError: It has one of another target or another file.
    """
    for key, relation in (("target", "of"), ("input", "made of")):
        if output.is_file() and last.get(key, asked[key]) != asked[key]:
            raise CohortError(
                f"{output} is a result {relation} {last[key]}, and would be replaced: give another folder for the results."
            )
    return last.get("status") == "done" and output.is_file() and asked.items() <= last.items()


def find_cases(inputs: str | Path | Iterable[str | Path], besides: Path | None = None) -> dict[str, Path]:
    """Name each input after its file or folder; of one folder, all volume files and all folders in it are inputs.

    But not what is hidden in it, nor results: segmentations, folders of results, and what holds the folder `besides`.

    Raises:
        CohortError: There are none, or two would have the same name.
    """
    if isinstance(inputs, (str, Path)):
        parent = Path(inputs)
        if not parent.is_dir():
            raise CohortError(f"There is no folder {parent}: give one, or a list of files.")
        inputs = [path for path in sorted(parent.iterdir()) if _may_be_case(path, besides)]
    cases: dict[str, Path] = {}
    for path in map(Path, inputs):
        case = _case_name(path)
        if case in cases:
            raise CohortError(f"{cases[case]} and {path} would both be called {case}: rename one of them.")
        cases[case] = path.absolute()
    if not cases:
        raise CohortError(
            "There is nothing to do: no volume file and no folder was given. Of DICOM series give the folder that holds their"
            " folders."
        )
    return cases


def _may_be_case(path: Path, besides: Path | None) -> bool:
    """Tell whether a file or folder in the folder of the inputs is one of them, as `find_cases` says."""
    return (
        (path.is_dir() or path.name.lower().endswith(tuple(IMAGE_IO)))
        and not path.name.startswith(".")
        and not path.name.endswith(ENDING)
        and not (besides and besides.resolve().is_relative_to(path.resolve()))
        and not (path / MANIFEST).is_file()
    )


def _case_name(path: Path) -> str:
    """The name of a file without its ending, or of a folder."""
    ending = next((e for e in sorted(IMAGE_IO, key=len, reverse=True) if path.name.lower().endswith(e)), "")
    return path.name[: len(path.name) - len(ending)]


def one_after_the_other(worker: Worker) -> Runner:
    """On this machine, by one worker; while it computes a case, the next one is read."""

    def run(todo: Sequence[Todo]) -> Iterator[tuple[str, dict]]:
        with ThreadPoolExecutor(1, "reader") as reader:
            reading = deque(reader.submit(files.read_volume, each.input) for each in todo[:1])
            for each, following in zip_longest(todo, todo[1:]):
                if following:
                    reading.append(reader.submit(files.read_volume, following.input))
                yield each.case, outcome_of(each, worker, reading.popleft().result)

    return run


def outcome_of(todo: Todo, worker: Worker, read: Callable[[], tuple[Volume, list[str]]] | None = None) -> dict:
    """Do one case; whatever is wrong with it is its outcome. `read` gives its volume if it is being read already."""
    started = time.monotonic()
    try:
        volume, notes = read() if read else files.read_volume(todo.input)
        result = worker.result_of(worker.submit(volume, todo.bundle, todo.request))
        files.write_segmentation(todo.output, result.labelmap, volume.ijk_to_ras, result.segments)
    except Exception as error:
        if not isinstance(error, ValueError):
            _log.exception("%s failed unexpectedly", todo.input)
        outcome = failed(error)
        if todo.output.exists():  # of an earlier call with other settings: not ours to take away
            outcome["reason"] += f" What an earlier call made of it stays: {todo.output.name}."
        return {**outcome, "seconds": round(time.monotonic() - started, 3)}
    return {
        "status": "done",
        "measurements": {segment.name: dict(segment.measurements) for segment in result.segments},
        "notes": [*notes, *map(str, result.notes)],
        "device": result.device,
        "seconds": round(time.monotonic() - started, 3),
    }


def failed(error: BaseException) -> dict:
    """The outcome of a case that could not be done."""
    return {"status": "failed", "reason": " ".join(str(error).split()) or type(error).__name__}


def _read_manifest(path: Path) -> dict[str, dict]:
    """The last whole line of each case; none where there is no manifest."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise CohortError(f"{path} cannot be read ({error.strerror}): give another folder.") from error
    known = {}
    for line in text.splitlines():
        try:
            record = json.loads(line)
            known[record["case"]] = record | {"status": record["status"]}
        except (ValueError, TypeError, KeyError):
            continue  # a computer that went down while it was written
    return known


def _append(path: Path, record: Mapping[str, object]) -> None:
    """Add a line in one go, and see it onto the disk; after the torn end of an earlier one it begins anew."""
    with path.open("a+b") as stream:
        torn = stream.tell() > 0 and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n"
        stream.write(b"\n" * torn + json.dumps(record).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _rows(record: Mapping) -> list[dict]:
    """Lines of the table for a case: one for each segment, or one that says why there is none."""
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
        }
        for segment, measured in measurements.items()
    ]
