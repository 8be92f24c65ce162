"""The command line, `unetpp-segment`: checks its arguments, reads, segments and writes. Errors are one line on stderr."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, files
from ..core.progress import Pace, in_words
from ..core.request import Request, RequestError, check_places
from ..core.table import COLUMNS, rows_of
from ..core.trust import without_expected_dice
from ..core.volume import Volume, box_between, clean_hu, index_of
from ..files.reading import case_name
from ..network.bundle import empty_segments, find_bundles, search_folders
from ..network.parts import parts_of
from .parser import LICENCE_LINE, parser, with_minus

if TYPE_CHECKING:
    from ..core.result import Result
    from ..engine.maps import Maps


MAP_DECIMALS = 3  # of probabilities in files; with all digits they hardly compress


def shell() -> int:
    """Run as the program `unetpp-segment`, in its own process, which may keep freed memory for speed."""
    from ..jobs.allocator import keep_freed_memory
    from ..jobs.openmp import let_threads_sleep

    for name in ("stdout", "stderr"):
        # A closed stream: if its descriptor stayed free, the next file opened would receive what C++ prints.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__:
        unheard = io.BufferedWriter(_Unheard(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(unheard, sys.stderr.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal can show mm³
    keep_freed_memory()
    let_threads_sleep()
    return main()


class _Unheard(io.FileIO):
    """A stderr that ignores errors, so that a run goes on if the reader of its progress has gone, as `head` does."""

    def write(self, data: Any, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `unetpp-segment`.

    Args:
        arguments: Arguments as in a shell; None for those of `sys.argv`.

    Returns:
        The exit code: 0 success, 1 failure (with the reason on stderr), 2 usage error.
    """
    try:
        given = parser().parse_args(with_minus(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as leave:  # raised by argparse: 2 after a usage error, 0 after --help
        return int(leave.code or 0)
    try:
        COMMANDS[given.command](given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("unetpp-segment: cancelled.", file=sys.stderr)
        return 1
    except RequestError as error:
        print(f"unetpp-segment: {error} (--help shows the usage)", file=sys.stderr)
        return 2
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            return 0
        if given.debug:
            traceback.print_exc()
        print(f"unetpp-segment: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _reader_has_gone() -> bool:
    """Whether the reader of stdout has gone, as `head` does; all files have been written by then."""
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # as Python flushes stdout once more at its end
    return True


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "there is not enough memory for this volume: crop it, or close other programs."
    known = isinstance(error, ValueError) and type(error).__module__.startswith(__package__.partition(".")[0])
    return text if known else f"unexpected {type(error).__name__}: {text} (--debug shows the traceback)"


def _segment(given: argparse.Namespace) -> None:
    """Check the arguments, then read, run, write and report."""
    started = time.perf_counter()
    request = _request(given)
    outputs = _outputs(given)
    parts = parts_of(request)
    source = _source_of_seg(given, outputs)
    volume, notes = files.read_volume(given.input, given.series, given.force)
    for path in outputs:
        files.check_grid(path, volume.ijk_to_ras)
    box = box_between(volume, given.box[:3], given.box[3:]) if given.box else None
    for point in request.points:
        index_of(volume, point)
    _say([] if given.json or given.quiet else notes)  # before the run, as the user may have meant another input

    with _interrupted_afterwards():
        from ..api import load_engine  # imports torch, which takes seconds, so only after all checks
    from ..core.merging import merged

    runs = []
    for bundle, asked in parts:
        with _ProgressBar(given.quiet) as bar:
            runs.append(load_engine(bundle, asked.device).predict(volume, replace(asked, box=box), bar.show))
    result = merged([maps.at() for maps in runs], volume)
    later = list(map(str, result.notes))
    _write(given, volume, runs, result, [*notes, *later], source)
    if given.json:
        _print_json(given, result, [*notes, *later], time.perf_counter() - started)
        return
    if given.quiet:
        return
    _say(later)
    for segment in result.segments:
        print(_in_words(segment.name, segment.measurements))
    unknown = without_expected_dice((segment.name, segment.measurements) for segment in result.segments)
    if unknown:
        print(f"no expected Dice for {', '.join(unknown)}: the model cannot estimate it")
    print(
        f"{result.scan_slices} slices by {result.model} on {result.device} in {result.seconds:.1f} s, written to {given.output}"
    )
    print(LICENCE_LINE, file=sys.stderr)


@contextlib.contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Keep Ctrl-C until the end of the block: in the middle of its import, torch would crash the process."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    pressed = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed.is_set():
        raise KeyboardInterrupt


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr, flush=True)


def _request(given: argparse.Namespace) -> Request:
    """The request, without its box, which needs the volume."""
    check_places(has_points=bool(given.point or given.points), has_box=given.box is not None)
    points = [*given.point, *(files.read_points(given.points) if given.points else ())]
    return Request(
        given.target, also=given.also, model=given.model, speed=given.speed, threshold=given.threshold,
        show_from=given.show_from, force=given.force, device=given.device, threads=given.threads, points=tuple(points),
    )  # fmt: skip


def _outputs(given: argparse.Namespace) -> list[Path]:
    """All files to write, after the checks that do not need the volume."""
    maps = (".nrrd", ".nii.gz")
    endings = tuple(f".{form}" for form in files.FORMS)
    wanted = [
        *((path, endings) for path in _segmentations(given)),
        (given.probability, maps),
        (given.uncertainty, maps),
        (given.report, (".csv",)),
        (given.overlay, (".png",)),
    ]
    outputs = [(Path(path), endings) for path, endings in wanted if path]
    for path, endings in outputs:
        files.check_output(path, endings)
    taken = [path.resolve() for path in (Path(given.input), *(path for path, _ in outputs))]
    if len(set(taken)) < len(taken):
        raise files.FileError("The same file was given twice: the input and all outputs must be different files.")
    return [path for path, _ in outputs]


def _segmentations(given: argparse.Namespace) -> list[Path]:
    """The files of the segmentation, one for each format."""
    return files.beside(Path(given.output), given.format)


def _source_of_seg(given: argparse.Namespace, outputs: Sequence[Path]) -> list[Path]:
    """The files of the slices that a DICOM SEG refers to; empty if none is written."""
    files.check_forms(outputs)
    if not any(files.form_of(path) == "dcm" for path in _segmentations(given)):
        return []
    source = files.slices_of(Path(given.input), given.series)
    for path in {path.resolve() for path in source} & {path.resolve() for path in outputs}:
        raise files.FileError(f"{path} is a slice of the input and would be replaced: choose another output.")
    files.check_forms(outputs, source)
    return source


def _write(
    given: argparse.Namespace,
    volume: Volume,
    runs: Sequence[Maps],
    result: Result,
    notes: Sequence[str],
    source: Sequence[Path],
) -> None:
    affine = volume.ijk_to_ras
    # The segmentation first, as it took the most time.
    files.write_forms(
        _segmentations(given),
        result.labelmap,
        affine,
        result.segments,
        source,
        result.model,
        empty_segments(runs[0].labels),
    )
    if given.probability:
        files.write_volume(given.probability, _largest(maps.probability() for maps in runs), affine)
    if given.uncertainty:
        files.write_volume(given.uncertainty, _largest(maps.uncertainty() for maps in runs), affine)
    if given.report:
        files.write_report(given.report, _rows(given, result, notes), COLUMNS)
    if given.overlay:
        of_nodules = all(maps.bundle.finds_nodules for maps in runs)
        write = files.write_close_ups if of_nodules else files.write_overlay
        write(given.overlay, Volume(clean_hu(volume.array)[0], affine), result.labelmap, result.segments)


def _largest(maps: Iterable[np.ndarray]) -> np.ndarray:
    """The voxelwise maximum of several maps, rounded so that it compresses well."""
    return reduce(np.maximum, maps).round(MAP_DECIMALS)


def _rows(given: argparse.Namespace, result: Result, notes: Sequence[str]) -> list[dict[str, Any]]:
    return rows_of(
        case_name(Path(given.input).absolute()), ((s.name, s.measurements) for s in result.segments), notes=notes,
        model=result.model, speed=given.speed, threshold=result.threshold, input=str(given.input),
    )  # fmt: skip


def _print_json(given: argparse.Namespace, result: Result, notes: Sequence[str], seconds_total: float) -> None:
    summary = {
        "segments": [{"name": s.name, **s.measurements} for s in result.segments],
        "model": result.model,
        "speed": given.speed,
        "threshold": result.threshold,
        "version": __version__,
        "device": result.device,
        "slices": result.slices,
        "notes": notes,
        "seconds": round(result.seconds, 3),
        "seconds_total": round(seconds_total, 3),
    }
    print(json.dumps(summary, ensure_ascii=False))


def _in_words(name: str, measurements: Mapping[str, Any]) -> str:
    if not measurements["volume_ml"]:
        return f"{name}: not found (0 ml)"
    if "kind" in measurements:
        return (
            "{0}: {mean_diameter_rounded_mm} mm ({long_axis_mm:.1f} × {short_axis_mm:.1f} mm), {kind}, {volume_mm3:.0f} mm³,"
            " at R {1:.0f}, A {2:.0f}, S {3:.0f}"
        ).format(name, *measurements["centroid_ras"], **measurements) + _probability(measurements)
    words = [f"{name}: {measurements['volume_ml']:.0f} ml, mean {measurements['mean_hu']:.0f} HU"]
    if "expected_dice" in measurements:
        words.append(
            "expected Dice {expected_dice:.2f} ({expected_dice_low:.2f} to {expected_dice_high:.2f})".format(
                **measurements
            )
        )
    if measurements.get("doubtful_slices"):
        positions = ", ".join(f"{each['s_mm']:.0f}" for each in measurements["doubtful_slices"])
        words.append(f"most doubtful at S {positions} mm")
    return ", ".join(words)


def _probability(measurements: Mapping[str, Any]) -> str:
    probability = measurements.get("probability")
    return "" if probability is None else f", probability {probability:.2f}"


def _cohort(given: argparse.Namespace) -> None:
    from .cohort import cohort

    records = cohort(given, _request(given))
    if given.json:
        print(json.dumps(records, ensure_ascii=False))
    bad = [record for record in records if record["status"] == "failed"]
    skipped = [record for record in records if record["status"] == "skipped"]
    if not given.quiet:
        _say(f"{record['case']}: {note}" for record in records for note in record.get("notes") or ())
    _say(f"{record['case']}: {record['reason']}" for record in bad)
    cases = len(records) - len(skipped)
    also = f" {len(skipped)} files were skipped; {given.output}/measurements.csv says why." if skipped else ""
    if bad:
        raise files.FileError(
            f"{len(bad)} of {cases} cases failed; the results of the others are in {given.output}.{also}"
        )
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
        print(json.dumps(found, ensure_ascii=False))
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
        print(json.dumps([{"folder": str(b.folder), **b.as_json()} for b in found], ensure_ascii=False))
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
    _segment(parser().parse_args(
        ["liver", str(scan), "-o", str(segmentation), "--overlay", str(picture), "--report", str(table)]
    ))  # fmt: skip
    print(f"Picture: {picture}\nTable: {table}")
    print(f"To view the result in 3D Slicer, drag these two files into its window: {scan} and {segmentation}")


def _app(given: argparse.Namespace) -> None:
    from ..app.start import run

    run(given.paths, given.host, given.port, given.output, given.upload_mb, lambda line: print(line, flush=True))


COMMANDS = {
    "segment": _segment,
    "liver": _segment,
    "nodule": _segment,
    "cohort": _cohort,
    "report": _report,
    "series": _series,
    "compare": _compare,
    "models": _models,
    "demo": _demo,
    "app": _app,
}


class _ProgressBar:
    """A progress bar for each phase, with the time left; shown only on a terminal."""

    def __init__(self, quiet: bool) -> None:
        self.visible = sys.stderr.isatty() and not quiet

    def __enter__(self) -> _ProgressBar:
        self.pace = Pace()
        return self

    def show(self, done: int, total: int, phase: str) -> None:
        if self.visible:
            left = self.pace.seconds_left(done, total, phase)
            text = in_words(done, total, phase) + (f", {left:.0f} s left" if left is not None else "")
            filled = "█" * (30 * done // total if total else 0)
            print(f"\r\033[K{filled:░<30} {text} ", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self.visible:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(shell())
