"""Figures of a model on whole CTs, as a user gets them: any target against its truth, nodules from points and in chests, and times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from measure.pooled import TOLERANCE_MM, Pooled, dice, means_of, summary
from UNetPlusPlusSegmentLib.api import Engine, load_engine
from UNetPlusPlusSegmentLib.core.request import Point, Request
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.volume import Volume, VolumeError, axial_order
from UNetPlusPlusSegmentLib.files import FileError, read_volume
from UNetPlusPlusSegmentLib.files.pairs import Pair, Pairs, Wanted, find_pairs, names_in_words, read_wanted
from UNetPlusPlusSegmentLib.files.segmentations import check_orientation, masks_of
from UNetPlusPlusSegmentLib.jobs.worker_client import Worker
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError

POINTS, SEED, WARM = 50, 0, 20
NODULE, LESION, CLEAN = "LIDC-IDRI-0001_ct.nii.gz", "chest_lesion_ct.nrrd", "chest_clean_ct.nrrd"
LEAST_MM = 4.0
CASES = ("patients", "without_organ")  # of a summary; here each is a case


def measure(bundle: Bundle, folder: Path, speed: str = "balanced", device: str = "auto") -> dict:
    """Figures of a model on the CTs of a folder.

    Raises:
        BundleError, FileError: The model or a CT cannot be used, or of its target nothing is known in them.
    """
    if bundle.engine != "nodule" and bundle.target != "liver":
        raise BundleError(
            f"--volumes knows the truth of livers and nodules only; {bundle.name} is for {bundle.target}."
        )
    of_target = nodules if bundle.engine == "nodule" else liver
    command = f"python training/evaluate.py <bundle> --volumes <volumes> --speed {speed}"
    return {"command": command, **of_target(bundle, folder, speed, device)}


def measure_pairs(
    bundle: Bundle, folder: Path, speed: str = "balanced", device: str = "auto", segments: Sequence[str] = ()
) -> dict:
    """Figures of a model on whole CTs with their truth, through the engine that a user runs.

    Args:
        bundle: One whose engine needs nothing pointed at.
        folder: Pairs of image and segmentation, as `find_pairs` takes them.
        speed, device: As in `Request`.
        segments: The truth of a label where a file calls it otherwise: `Right kidney=kidney_right`.

    Returns:
        `labels`: for each its `summary` over the cases, surfaces in space, with volumes in ml; of several also the means.

    Raises:
        BundleError, FileError: The model or a case cannot be used; or no case has a label of the model.
    """
    pairs = find_pairs(folder)
    if pairs.refused:
        raise FileError("\n".join(pairs.refused))
    wanted = _truths(bundle, pairs, segments)
    engine = load_engine(bundle, device)
    pooled: dict[str, dict[str, Pooled]] = {each.name: {} for each in wanted}
    volumes: dict[str, dict[str, dict]] = {each.name: {} for each in wanted}
    for pair in pairs.found:
        volume = _image_of(pair)
        order = axial_order(volume)
        labelmap = _segmented(engine, volume, pair, speed)
        for each, label in zip(wanted, bundle.labels, strict=True):
            parts = each.of(pair)
            if not parts:
                continue  # nobody marked it here, which does not say that it is absent
            found, truth = labelmap == label.value, np.logical_or.reduce([*masks_of(parts, volume)])
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


def _truths(bundle: Bundle, pairs: Pairs, segments: Sequence[str]) -> list[Wanted]:
    """The segments that are the truth of each label.

    Raises:
        BundleError: One is named for a label that the model lacks; or no case has any.
    """
    names = [label.name for label in bundle.labels]
    truths = {name: Wanted(name, (name,)) for name in names}
    for each in map(read_wanted, segments):
        if each.name not in names:
            raise BundleError(f"--segment: {bundle.name} has no label {each.name}; it has {', '.join(names)}.")
        truths[each.name] = each
    if not any(each.of(pair) for each in truths.values() for pair in pairs.found):
        there = names_in_words(segment for pair in pairs.found for segment in pair.segments)
        meant = " or ".join(" + ".join(each.parts) for each in truths.values())
        raise BundleError(
            f'No case has a segment {meant}; there are {there}. --segment "{names[0]}=OTHER" says which is meant.'
        )
    return list(truths.values())


def _image_of(pair: Pair) -> Volume:
    try:
        volume, notes = read_volume(pair.image, pair.series)
    except VolumeError as error:
        raise FileError(f"{pair.image}: {error}") from error
    check_orientation(pair.image, notes)
    return volume


def _segmented(engine: Engine, volume: Volume, pair: Pair, speed: str) -> np.ndarray:
    """The label map that a user gets."""
    try:
        return engine.predict(volume, Request(engine.bundle.target, speed=speed)).at().labelmap
    except VolumeError as error:
        raise FileError(f"{pair.image}: {error}") from error


def _volumes(found: np.ndarray, truth: np.ndarray, voxel_ml: float) -> dict[str, float | None]:
    """Volumes in ml, and by how much of the true one that which was found is too large."""
    ml, true_ml = (np.count_nonzero(mask) * voxel_ml for mask in (found, truth))
    error = round(100 * (ml - true_ml) / true_ml, 1) if true_ml else None
    return {"volume_ml": round(ml, 2), "true_volume_ml": round(true_ml, 2), "volume_error_percent": error}


def _with_volumes(summed: dict, volumes: dict[str, dict]) -> dict:
    both = {key: {case: {**its, **volumes[case]} for case, its in summed[key].items()} for key in CASES}
    return {**summed, **both}


def liver(bundle: Bundle, folder: Path, speed: str, device: str) -> dict:
    """The volume, in ml, of what is found in a chest that shows no liver; and the notes to the user."""
    clean, _ = read_volume(folder / CLEAN)
    result = load_engine(bundle, device).predict(clean, Request(bundle.target, speed=speed)).at()
    ml = round(sum(segment.measurements["volume_ml"] for segment in result.segments), 2)
    return {f"{CLEAN}, no liver": {"ml": ml, "notes": [*map(str, result.notes)]}}


def nodules(bundle: Bundle, folder: Path, speed: str, device: str) -> dict:
    """Points in a nodule and in a mass; whole chests with a nodule and without."""
    engine = load_engine(bundle, device)
    ct, truth = _read(folder, NODULE, "LIDC-IDRI-0001_nodule.nii.gz")
    truth = (truth > 0) & (truth < 100)  # three readers or more; 102 is a stray voxel
    lesion, mass = _read(folder, LESION, "chest_lesion_label.nrrd")
    clean, _ = read_volume(folder / CLEAN)
    figures = {}
    for name, volume, mask in ((NODULE, ct, truth), (LESION, lesion, mass > 0)):
        asked = (Request(bundle.target, speed=speed, points=(p,)) for p in inner_points(mask, volume))
        results = [engine.predict(volume, each).at() for each in asked]
        dices = np.array([dice(result.labelmap > 0, mask) for result in results])
        figures[f"{name}, {POINTS} points"] = {
            "dice_least": round(float(dices.min()), 4),
            "dice_median": round(float(np.median(dices)), 4),
            "dice_largest": round(float(dices.max()), 4),
            "below_0.8": int((dices < 0.8).sum()),
            "called": sorted({segment.name for result in results for segment in result.segments}),
        }
    whole = Request(bundle.target, speed=speed)
    figures[f"{NODULE}, whole chest"] = _chest(engine.predict(ct, whole).at(), truth)
    figures[f"{CLEAN}, whole chest"] = _chest(engine.predict(clean, whole).at(), None)
    return figures


def _chest(result: Result, truth: np.ndarray | None) -> dict:
    large = [s for s in result.segments if s.measurements["mean_diameter_mm"] >= LEAST_MM]
    listed = [
        f"{s.name}: {s.measurements['mean_diameter_mm']:.1f} mm at {np.round(s.measurements['centroid_ras']).tolist()}"
        for s in large
    ]
    figures = {f"segments of {LEAST_MM:g} mm and more": len(large), "they": listed, "notes": [*map(str, result.notes)]}
    if truth is not None:
        figures["dice of the nodule"] = round(
            max((dice(result.labelmap == s.value, truth) for s in result.segments), default=0.0), 4
        )
    return figures


def times(bundle: Bundle, folder: Path, speed: str, device: str) -> dict:
    """Seconds of a click on a nodule, as the module gets it: submit, wait, label map at hand; and of a whole chest."""
    ct, truth = _read(folder, NODULE, "LIDC-IDRI-0001_nodule.nii.gz")
    clean, _ = read_volume(folder / CLEAN)
    chest = Request(bundle.target, speed=speed, device=device)
    points = inner_points((truth > 0) & (truth < 100), ct)[: WARM + 1]
    with Worker() as worker:
        seconds = []
        for point in points:
            start = time.perf_counter()
            worker.wait(worker.submit(ct, bundle.folder, replace(chest, points=(point,))))
            seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        result = worker.result_of(worker.submit(clean, bundle.folder, chest))
        chest_s = time.perf_counter() - start
    return {
        "device": result.device,
        "first click, with the start of the worker, s": round(seconds[0], 2),
        f"warm click, median of {WARM}, s": round(statistics.median(seconds[1:]), 3),
        "warm click, least and most, s": [round(min(seconds[1:]), 3), round(max(seconds[1:]), 3)],
        f"whole chest of {len(clean.array)} slices, s": round(chest_s, 2),
    }


def inner_points(mask: np.ndarray, volume: Volume) -> list[Point]:
    """Random RAS points at voxels at least one pixel inside the mask on their slice; the same for the same mask."""
    inner = np.stack(
        [sitk.GetArrayFromImage(sitk.BinaryErode(sitk.GetImageFromArray(m.astype(np.uint8)))) for m in mask]
    )
    voxels = np.argwhere(inner)
    chosen = voxels[np.random.default_rng(SEED).integers(len(voxels), size=POINTS)]
    return [tuple((volume.ijk_to_ras @ [*voxel[::-1], 1])[:3].tolist()) for voxel in chosen]


def _read(folder: Path, image: str, label: str) -> tuple[Volume, np.ndarray]:
    volume, _ = read_volume(folder / image)
    return volume, read_volume(folder / label)[0].array
