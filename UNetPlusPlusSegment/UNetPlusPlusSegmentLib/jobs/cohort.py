"""Cohorts: segments many files, and records the cases in a manifest, so that a run can be continued. No torch."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

from .. import __version__, files
from ..core.merging import merged
from ..core.request import Point, Request
from ..core.result import Result
from ..core.volume import Volume
from ..files.images import printable
from ..network.bundle import empty_segments, read_bundle
from ..network.parts import Part, parts_of, with_points
from .cases import check_names, find_cases
from .manifest import CohortError, alone_in, write_table
from .picture import write_picture
from .report import write_page
from .results import Results, Todo
from .review import ReviewError
from .worker_client import Worker

_log = logging.getLogger(__name__)

Outcomes = Generator[tuple[str, dict], None, None]
# Runs cases in any order, and yields the name and outcome of each as it ends.
Runner = Callable[[Sequence[Todo]], Outcomes]


def run_cohort(
    run: Runner,
    inputs: str | Path | Iterable[str | Path],
    folder: str | Path,
    request: Request,
    progress: Callable[[int, int, str], None] = lambda done, total, case: None,
    series: Mapping[str, str] | None = None,
    ended: Callable[[Mapping[str, Any]], None] = lambda record: None,
    forms: Sequence[str] = (),
    points: Mapping[str, Sequence[Point]] | None = None,
) -> list[dict]:
    """Segment every case that has no result yet.

    Afterwards, the folder contains:

    - `<case>.seg.nrrd` for each case that is done;
    - `manifest.jsonl`, with a line added as each case ends; the last line of a case is the valid one;
    - `measurements.csv`, rewritten from the manifest after each case, including cases of earlier calls;
    - `report.html`, a page to look through all cases, with its pictures in `pictures`.

    Args:
        run: A runner, such as `one_after_the_other(worker)` or `dask_cluster.on_cluster(address)`.
        inputs: Volume files and DICOM folders, or one folder that contains them.
        folder: Folder for the results; created if missing.
        request: The request for every case, without points; all models that it needs are run (`network.parts`). Cases done with other
            settings are run again.
        progress: Called with the number of cases ended, the number of all cases, and the name of the next case.
        series: The DICOM series to segment, by the name of the case; for other cases, the largest CT series.
        ended: Called with the manifest line of each case as it ends.
        forms: Further formats of each result, besides `.seg.nrrd`, from `files.FORMS`. A case that is run again is also written in all
            formats of earlier calls.
        points: Points in nodules, by the name of the case; in other cases the whole lungs are searched.

    Returns:
        The last manifest line of each case, in order, then that of each skipped file, with the status `skipped`.

    Raises:
        BundleError, RequestError: There is no model for a target, or it cannot do what is asked.
        FileError: A format needs a package that is not installed (DICOM SEG in Slicer, for instance), or a file cannot be written.
        CohortError: There are no inputs, or two would share a result, or the name of one is too long; a series or points are given for an
            unknown case; the folder is not writable, or another cohort is running in it; a result would replace a scan, a result for
            another target or input, a file that does not belong to the cohort, or one that was edited; or a correction is that of
            another scan or series.
    """
    folder, parts = Path(folder), parts_of(request, has_points=bool(points))
    unknown_forms = sorted({*forms} - {*files.FORMS})
    if unknown_forms:
        raise CohortError(f"{unknown_forms[0]!r} is not a format of results: choose from {', '.join(files.FORMS)}.")
    files.check_forms(f".{form}" for form in forms)
    cases, skipped = find_cases(inputs, besides=folder)
    check_names(cases)
    series, points = series or {}, points or {}
    for what, table in (("A series is", series), ("Points are", points)):
        unknown = sorted(set(table) - set(cases))
        if unknown:
            raise CohortError(
                f"{what} given for {unknown[0]}, which is not a case: correct the table. The cases are {', '.join(sorted(cases))}."
            )
    threshold = _threshold_of(parts)
    about = {
        "target": ", ".join(request.targets).lower(), "model": ", ".join(bundle.name for bundle, _ in parts),
        "speed": request.speed, "threshold": threshold if request.threshold is None else request.threshold,
        "show_from": request.show_from, "force": request.force,
        "weights": ", ".join(bundle.sha256[:12] for bundle, _ in parts),  # a model may have learned more under its old name
    }  # fmt: skip
    every = []
    for case, path in cases.items():
        at = points.get(case, ())
        scan = files.fingerprint_of(path, besides=folder)
        settings = {"case": case, "input": str(path), "scan": scan, "series": series.get(case), **about}
        every.append(
            Todo(
                case,
                path,
                (folder / case).absolute(),
                tuple((bundle.folder.absolute(), part) for bundle, part in with_points(parts, at)),
                series.get(case),
                tuple(forms),
                settings | ({"points": [list(point) for point in at]} if case in points else {}),
            )
        )
    with alone_in(folder):
        results = Results(folder)
        results.check_nothing_is_replaced(every)
        results.check_corrections(every)
        todo = {}
        for each in map(results.in_all_its_forms, every):
            if results.is_done(each, threshold):
                results.unmark(each)
            else:
                todo[each.case] = each
        results.check_nothing_was_edited(todo.values())
        files.check_forms(path for each in todo.values() for path in each.outputs)
        with contextlib.closing(run([*todo.values()])) as outcomes:
            results.leave_out(cases, skipped)
            for record in _skipped_records(skipped):
                if record != results.known.get(record["case"]):
                    results.add(record)
            try:
                for number, waiting in enumerate(todo, start=len(cases) - len(todo)):
                    progress(number, len(cases), waiting)
                    case, outcome = next(outcomes)
                    results.end(todo[case], outcome)
                    with contextlib.suppress(files.FileError):  # Excel locks it; it is written again with the next case
                        write_table(folder)
                    ended(results.known[case])
                progress(len(cases), len(cases), "")
            except BaseException:  # a run that is stopped leaves a report of the cases done so far
                with contextlib.suppress(ValueError):
                    write_page(folder)
                raise
        _finish(folder)
    return [results.known[name] for name in [*cases, *(path.name for path in skipped)]]


def _skipped_records(skipped: Mapping[Path, str]) -> list[dict[str, Any]]:
    """Manifest lines for skipped files; they are also logged before the run."""
    for path, reason in skipped.items():
        _log.warning("Skipped %s: %s", printable(path), reason)
    return [
        {"case": path.name, "input": str(path.absolute()), "status": "skipped", "reason": reason}
        for path, reason in skipped.items()
    ]


def _finish(folder: Path) -> None:
    try:
        write_page(folder)
    except (CohortError, ReviewError) as error:  # not fatal: the results are there
        _log.warning("The report was not written. %s", error)
    write_table(folder)  # needed if there was nothing to do; last, as Excel may still lock it


def _threshold_of(parts: Sequence[Part]) -> float | None:
    """The threshold of the models; None if they differ."""
    thresholds = {bundle.threshold for bundle, _ in parts}
    return thresholds.pop() if len(thresholds) == 1 else None


def one_after_the_other(worker: Worker) -> Runner:
    """Run the cases on this computer with one worker; while a case is computed, the next one is read."""

    def run(todo: Sequence[Todo]) -> Outcomes:
        reader = ThreadPoolExecutor(1, "reader")
        try:
            reading = deque(reader.submit(read_case, each) for each in todo[:1])
            for each, following in zip_longest(todo, todo[1:]):
                if following:
                    reading.append(reader.submit(read_case, following))
                yield each.case, outcome_of(each, worker, reading.popleft().result)
        finally:  # does not wait for a case that is being read
            reader.shutdown(wait=False, cancel_futures=True)

    return run


def read_case(todo: Todo) -> tuple[Volume, list[str]]:
    """Read the volume of a case, and the notes about it."""
    return files.read_volume(todo.input, todo.series, todo.parts[0][1].force)


def outcome_of(
    todo: Todo,
    worker: Worker,
    read: Callable[[], tuple[Volume, list[str]]] | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> dict:
    """Run one case; errors become its outcome.

    Args:
        todo: The case.
        worker: The worker that runs it.
        read: Returns its volume if it is already being read.
        is_wanted: Asked before anything is computed, and before anything is written.
    """
    started = time.monotonic()
    kept = [path.name for path in todo.outputs if path.exists()]  # from an earlier call with other settings
    try:
        _check(is_wanted)
        try:
            volume, notes = read() if read else read_case(todo)
        except MemoryError:  # the case before has ended since, so there may be enough memory now
            volume, notes = read_case(todo)
        source = _source_of_seg(todo)
        for path in todo.outputs:
            files.check_grid(path, volume.ijk_to_ras)
        found = [worker.result_of(worker.submit(volume, folder, request)) for folder, request in todo.parts]
        result = merged(found, volume)
        bundles = [read_bundle(folder) for folder, _ in todo.parts]
        nothing = empty_segments(bundles[0].labels_of(*todo.parts[0][1].targets))
        _check(is_wanted)
        kept = []  # from here on, a file may show the new mask
        todo.mark()
        files.write_forms(
            todo.outputs, result.labelmap, volume.ijk_to_ras, result.segments, source, result.model, nothing
        )
        picture = _picture(todo, volume, result, all(bundle.finds_nodules for bundle in bundles))
    except Exception as error:
        if not isinstance(error, ValueError):
            _log.exception("%s failed unexpectedly", todo.input)
        outcome = failed(error)
        if kept:
            outcome["reason"] += f" The result of an earlier run is kept: {kept[0]}."
        return {**outcome, "version": __version__, "seconds": round(time.monotonic() - started, 3)}
    return {
        "status": "done",
        "measurements": {segment.name: dict(segment.measurements) for segment in result.segments},
        "notes": [*notes, *map(str, result.notes)],
        "picture": picture,
        "device": result.device,
        "version": __version__,
        "seconds": round(time.monotonic() - started, 3),
    }


def _check(is_wanted: Callable[[], bool]) -> None:
    if not is_wanted():
        raise CohortError("The cohort was cancelled.")


def _source_of_seg(todo: Todo) -> list[Path]:
    """The files of the slices that a DICOM SEG refers to; empty if none is written."""
    if not any(files.form_of(path) == "dcm" for path in todo.outputs):
        return []
    source = files.slices_of(todo.input, todo.series)
    files.check_forms(todo.outputs, source)
    return source


def _picture(todo: Todo, volume: Volume, result: Result, nodules: bool) -> list[str] | None:
    """Draw a case for the report; None if that fails, which must not lose the result."""
    try:
        return write_picture(todo.picture, volume, result.labelmap, result.segments, nodules)
    except Exception as error:
        _log.warning("The picture of %s was not written: %s", todo.case, error)
        return None


def failed(error: BaseException) -> dict:
    """The outcome of a case that failed."""
    return {"status": "failed", "reason": " ".join(str(error).split()) or type(error).__name__}
