"""Measures a model on whole CTs, as a user runs it: organs, a scan without liver, nodules in chests; and times."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from measure.whole_organs import CTS, ending_of, masks_by_ct, organs
from UNetPlusPlusSegmentLib.api import load_engine
from UNetPlusPlusSegmentLib.core.agreement import dice
from UNetPlusPlusSegmentLib.core.request import Point, Request
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.files import FileError, read_volume
from UNetPlusPlusSegmentLib.jobs.worker_client import Worker
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError

POINTS, SEED = 50, 0  # points in a nodule, and the seed of their draw
WARM = 20  # clicks after the first one that are timed
NODULE, LESION, CLEAN = "LIDC-IDRI-0001_ct.nii.gz", "chest_lesion_ct.nrrd", "chest_clean_ct.nrrd"
NODULE_MASK, LESION_MASK = "LIDC-IDRI-0001_nodule.nii.gz", "chest_lesion_label.nrrd"
LEAST_MM = 4.0  # smaller findings in a whole chest are not listed


def measure(bundle: Bundle, folder: Path, speed: str = "balanced", device: str = "auto") -> dict:
    """Measure a model on the CTs of a folder.

    Raises:
        BundleError, FileError: The model or a CT cannot be used, or the folder has no mask for the model.
    """
    check_folder(bundle, folder)
    command = f"python training/evaluate.py <bundle> --volumes <volumes> --speed {speed}"
    if bundle.engine == "nodule":
        return {"command": command, **nodules(bundle, folder, speed, device)}
    figures = organs(bundle, folder, speed, device)
    if bundle.target == "liver":
        figures |= no_liver(bundle, folder, speed, device)
    if not figures:  # the masks that are there mark nothing
        raise _no_mask(bundle, folder)
    return {"command": command, **figures}


def check_folder(bundle: Bundle, folder: Path) -> None:
    """Check that a folder has what a model is measured on, before time is spent.

    Raises:
        BundleError, FileError: It has not.
    """
    of_nodules = (NODULE, NODULE_MASK, LESION, LESION_MASK, CLEAN)
    needed = of_nodules if bundle.engine == "nodule" else (CLEAN,) if bundle.target == "liver" else ()
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        raise FileError(f"{folder} lacks {', '.join(missing)}: give the folder of the whole CTs.")
    if not needed and not masks_by_ct(bundle, folder):
        raise _no_mask(bundle, folder)


def _no_mask(bundle: Bundle, folder: Path) -> BundleError:
    return BundleError(
        f"{folder} has no mask for {bundle.name} beside a CT: add NAME{ending_of(bundle.labels[0])}, say, beside"
        f" {' or '.join(f'NAME{end}' for end in CTS if end)}, or beside a DICOM folder NAME."
    )


def no_liver(bundle: Bundle, folder: Path, speed: str, device: str) -> dict:
    """The volume in ml that is found in a chest CT without liver, and the notes to the user."""
    clean, _ = read_volume(folder / CLEAN)
    result = load_engine(bundle, device).predict(clean, Request(bundle.target, speed=speed)).at()
    ml = round(sum(segment.measurements["volume_ml"] for segment in result.segments), 2)
    return {f"{CLEAN}, no liver": {"ml": ml, "notes": [*map(str, result.notes)]}}


def nodules(bundle: Bundle, folder: Path, speed: str, device: str) -> dict:
    """Figures for random points in a nodule and in a mass, and for searches of a chest with a nodule and of one without."""
    engine = load_engine(bundle, device)
    ct, truth = _read(folder, NODULE, NODULE_MASK)
    truth = (truth > 0) & (truth < 100)  # three readers or more; 102 is a stray voxel
    lesion, mass = _read(folder, LESION, LESION_MASK)
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
    """Seconds until the module has the result of a click on a nodule, and of a search of a whole chest, through a worker process."""
    ct, truth = _read(folder, NODULE, NODULE_MASK)
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
    """Random points (R, A, S in mm) at voxels at least one pixel inside the mask on their slice; the same mask gives the same points."""
    inner = np.stack(
        [sitk.GetArrayFromImage(sitk.BinaryErode(sitk.GetImageFromArray(m.astype(np.uint8)))) for m in mask]
    )
    voxels = np.argwhere(inner)
    chosen = voxels[np.random.default_rng(SEED).integers(len(voxels), size=POINTS)]
    return [tuple((volume.ijk_to_ras @ [*voxel[::-1], 1])[:3].tolist()) for voxel in chosen]


def _read(folder: Path, image: str, label: str) -> tuple[Volume, np.ndarray]:
    volume, _ = read_volume(folder / image)
    return volume, read_volume(folder / label)[0].array
