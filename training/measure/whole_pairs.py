"""Measures a model on pairs of whole CTs and segmentations, through the engine that a user runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from measure.pooled import Pooled, means_of, summary
from UNetPlusPlusSegmentLib.api import Engine, load_engine
from UNetPlusPlusSegmentLib.core.agreement import TOLERANCE_MM
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.volume import Volume, VolumeError, axial_order, check_ct
from UNetPlusPlusSegmentLib.engine.label_map import shared_out
from UNetPlusPlusSegmentLib.files import FileError, read_volume
from UNetPlusPlusSegmentLib.files.pairs import (
    Pair,
    Pairs,
    Wanted,
    find_pairs,
    names_in_words,
    read_wanted,
    unknown_parts,
)
from UNetPlusPlusSegmentLib.files.segmentations import Stored, check_orientation, masks_of
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError

CASES = ("patients", "without_organ")  # keys of a summary; here their entries are cases


def measure(
    bundle: Bundle, folder: Path, speed: str = "balanced", device: str = "auto", segments: Sequence[str] = ()
) -> dict:
    """Compare a model's results on whole CTs with their segmentations.

    Args:
        bundle: A model that needs no points.
        folder: Pairs of image and segmentation, in a layout that `find_pairs` knows.
        speed, device: As in `Request`.
        segments: Names of a label's truth where the files use other names, such as `Right kidney=kidney_right`.

    Returns:
        `labels`: for each label its `summary` over the cases, with distances in 3D and volumes in ml. With several labels also
        `mean of the labels`.

    Raises:
        BundleError, FileError: The model or a case cannot be used, or no case has a label of the model.
    """
    pairs, wanted = pairs_for(bundle, folder, segments)
    engine = load_engine(bundle, device)
    pooled: dict[str, dict[str, Pooled]] = {each.name: {} for each in wanted}
    volumes: dict[str, dict[str, dict]] = {each.name: {} for each in wanted}
    for pair in pairs.found:
        marked = [
            (each, label, parts) for each, label in zip(wanted, bundle.labels, strict=True) if (parts := each.of(pair))
        ]
        if not marked:
            continue
        volume = _image_of(pair)
        order = axial_order(volume)
        labelmap = _segmented(engine, volume, pair, speed)
        truths = _in_label_map({each.name: parts for each, _, parts in marked}, volume, bundle.priority)
        for (each, label, _), truth in zip(marked, truths, strict=True):  # what is not marked is unknown, not absent
            found = labelmap == label.value
            figures = pooled[each.name].setdefault(pair.name, Pooled())
            figures.add_volume(order.apply(found), order.apply(truth), order.spacing_mm)
            volumes[each.name][pair.name] = _volumes(found, truth, volume.voxel_volume_ml)
    labels = {name: _with_volumes(summary(of_case), volumes[name]) for name, of_case in pooled.items() if of_case}
    means = {"mean of the labels": means_of([*labels.values()])} if len(labels) > 1 else {}
    return {
        "command": f"python training/evaluate.py <bundle> --pairs <pairs> --speed {speed}",
        "cases": len(pairs.found),
        "surface_tolerance_mm": TOLERANCE_MM,
        "labels": labels,
        **means,
    }


def pairs_for(bundle: Bundle, folder: Path, segments: Sequence[str] = ()) -> tuple[Pairs, list[Wanted]]:
    """The pairs of a folder, and the segments that are the truth of each label; arguments and errors as for `measure`."""
    pairs = find_pairs(folder)
    if pairs.refused:
        raise FileError("\n".join(pairs.refused))
    return pairs, _truths(bundle, pairs, segments)


def _truths(bundle: Bundle, pairs: Pairs, segments: Sequence[str]) -> list[Wanted]:
    """The segments that are the truth of each label.

    Raises:
        BundleError: --segment names a label that the model lacks, or no case has any of the segments, or one that it names.
    """
    names = [label.name for label in bundle.labels]
    truths, unknown = {name: Wanted(name, (name,)) for name in names}, list[str]()
    for each in map(read_wanted, segments):
        if each.name not in names:
            raise BundleError(
                f"--segment {each.name}=…: {bundle.name} has no label {each.name}; it has {', '.join(names)}."
            )
        truths[each.name] = each
        unknown += unknown_parts(each, pairs)
    if unknown or not any(each.of(pair) for each in truths.values() for pair in pairs.found):
        there = names_in_words(segment for pair in pairs.found for segment in pair.segments)
        meant = " or ".join(unknown or [" + ".join(each.parts) for each in truths.values()])
        raise BundleError(
            f'No case has a segment {meant}; there are {there}. Choose one of these with --segment "{names[0]}=SEGMENT".'
        )
    return list(truths.values())


def _in_label_map(marked: dict[str, list[Stored]], volume: Volume, priority: Sequence[str]) -> Iterable[np.ndarray]:
    """The truth of each label, by its segments: bool (K, J, I), what a label map can show of it."""
    masks = (np.logical_or.reduce([*masks_of(parts, volume)]) for parts in marked.values())
    return shared_out(np.stack([*masks]), [*marked], priority) if priority else masks


def _image_of(pair: Pair) -> Volume:
    try:
        volume, notes = read_volume(pair.image, pair.series)
        check_ct(volume, hint="")
    except VolumeError as error:
        raise FileError(f"{pair.image}: {error}") from error
    check_orientation(pair.image, notes)
    return volume


def _segmented(engine: Engine, volume: Volume, pair: Pair, speed: str) -> np.ndarray:
    """The label map that a user would get."""
    try:
        return engine.predict(volume, Request(engine.bundle.target, speed=speed)).at().labelmap
    except VolumeError as error:
        raise FileError(f"{pair.image}: {error}") from error


def _volumes(found: np.ndarray, truth: np.ndarray, voxel_ml: float) -> dict[str, float | None]:
    """The volumes in ml, and the error in percent of the true volume, positive if too large."""
    ml, true_ml = (np.count_nonzero(mask) * voxel_ml for mask in (found, truth))
    error = round(100 * (ml - true_ml) / true_ml, 1) if true_ml else None
    return {"volume_ml": round(ml, 2), "true_volume_ml": round(true_ml, 2), "volume_error_percent": error}


def _with_volumes(summed: dict, volumes: dict[str, dict]) -> dict:
    both = {key: {case: {**its, **volumes[case]} for case, its in summed[key].items()} for key in CASES}
    return {**summed, **both}
