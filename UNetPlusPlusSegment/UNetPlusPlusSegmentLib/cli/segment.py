"""The commands that segment a scan: check the arguments, read, run, write and report."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, files
from ..core.request import Request, check_places
from ..core.table import COLUMNS, rounded, rows_of
from ..core.trust import why_no_dice
from ..core.volume import Volume, clean_hu, index_of, places_between
from ..files.reading import case_name
from ..network.bundle import empty_segments
from ..network.parts import parts_of
from .parser import LICENCE_LINE
from .terminal import ProgressBar, interrupted_afterwards, say

if TYPE_CHECKING:
    from ..core.result import Result
    from ..engine.maps import Maps

MAP_DECIMALS = 3  # of probabilities in files; with all digits they hardly compress


def segment(given: argparse.Namespace) -> None:
    """Check the arguments, then read, run, write and report."""
    started = time.perf_counter()
    request = request_of(given)
    outputs = _outputs(given)
    parts = parts_of(request)
    source = _source_of_seg(given, outputs)
    volume, notes = files.read_volume(given.input, given.series, given.force)
    for path in outputs:
        files.check_grid(path, volume.ijk_to_ras)
    places = places_between(volume, given.box[:3], given.box[3:]) if given.box else {}
    for point in request.points:
        index_of(volume, point)
    say([] if given.json or given.quiet else notes)  # before the run, as the user may have meant another input

    with interrupted_afterwards():
        from ..api import load_engine  # imports torch, which takes seconds, so only after all checks
    from ..core.merging import merged

    runs = []
    for bundle, asked in parts:
        with ProgressBar(given.quiet) as bar:
            runs.append(load_engine(bundle, asked.device).predict(volume, replace(asked, **places), bar.show))
    result = merged([maps.at() for maps in runs], volume)
    later = list(map(str, result.notes))
    _write(given, volume, runs, result, [*notes, *later], source)
    if given.json:
        _print_json(given, result, [*notes, *later], time.perf_counter() - started)
        return
    if given.quiet:
        return
    say(later)
    for segment in result.segments:
        print(_in_words(segment.name, segment.measurements))
    if reason := why_no_dice(result):
        print(reason)
    slices = "1 slice" if result.scan_slices == 1 else f"{result.scan_slices} slices"
    print(f"{slices} by {result.model} on {result.device} in {result.seconds:.1f} s, written to {given.output}")
    print(LICENCE_LINE, file=sys.stderr)


def request_of(given: argparse.Namespace) -> Request:
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
    read = [Path(path) for path in (given.input, given.points) if path]
    taken = [path.resolve() for path in (*read, *(path for path, _ in outputs))]
    if len(set(taken)) < len(taken):
        raise files.FileError("The same file was given twice: inputs and outputs must be different files.")
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
        case_name(Path(given.input)), ((s.name, s.measurements) for s in result.segments), notes=notes,
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
    print(json.dumps(summary))


def _in_words(name: str, measurements: Mapping[str, Any]) -> str:
    if not measurements["volume_ml"]:
        return f"{name}: not found (0 ml)"
    if "kind" in measurements:
        solid_mm = measurements["solid_long_axis_mm"]
        return (
            "{0}: {mean_diameter_rounded_mm} mm ({long_axis_mm:.1f} × {short_axis_mm:.1f} mm), {kind}{1}, {volume_mm3:.0f} mm³,"
            " at R {2:.0f}, A {3:.0f}, S {4:.0f}"
        ).format(
            name,
            "" if solid_mm is None else f" (solid part {solid_mm:.1f} mm)",
            *measurements["centroid_ras"],
            **measurements,
        ) + _probability(measurements)
    words = [f"{name}: {rounded('volume_ml', measurements['volume_ml']):,} ml, mean {measurements['mean_hu']:.0f} HU"]
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
