#!/usr/bin/env python
"""Measures nodules as a user gets them, on whole CTs: from points, of a whole chest, and how long it takes.

python training/evaluate_clicks.py BUNDLE --volumes ../shared/data/volumes
python training/evaluate_clicks.py BUNDLE --volumes ../shared/data/volumes --time
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from pooled import dice
from UNetPlusPlusSegmentLib.api import load_engine
from UNetPlusPlusSegmentLib.core.request import Point, Request
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.files import FileError, read_volume
from UNetPlusPlusSegmentLib.jobs.worker_client import Worker
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError, read_bundle

POINTS, SEED, WARM = 50, 0, 20
NODULE, LESION, CLEAN = "LIDC-IDRI-0001_ct.nii.gz", "chest_lesion_ct.nrrd", "chest_clean_ct.nrrd"
LEAST_MM = 4.0


def main(arguments: list[str] | None = None) -> int:
    """Measure and print JSON; 0 done, 1 refused with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--volumes", type=Path, required=True, help="folder of the CTs and their truth")
    parser.add_argument("--speed", default="balanced")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--time", action="store_true", help="only how long it takes, through a worker process")
    given = parser.parse_args(arguments)
    try:
        bundle = read_bundle(given.bundle)
        measure = measure_time if given.time else measure_masks
        figures = measure(bundle, given.volumes, given.speed, given.device)
    except (BundleError, FileError) as error:
        print(f"evaluate_clicks.py: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"model": bundle.name, "speed": given.speed, **figures}, indent=2))
    return 0


def measure_masks(bundle: Bundle, folder: Path, speed: str = "balanced", device: str = "auto") -> dict:
    """Points in a nodule and in a mass; whole chests with a nodule and without."""
    engine = load_engine(bundle, device)
    ct, truth = _read(folder, NODULE, "LIDC-IDRI-0001_nodule.nii.gz")
    truth = (truth > 0) & (truth < 100)  # three readers or more; 102 is a stray voxel
    lesion, mass = _read(folder, LESION, "chest_lesion_label.nrrd")
    clean, _ = read_volume(folder / CLEAN)
    figures = {"command": f"python training/evaluate_clicks.py <bundle> --volumes <volumes> --speed {speed}"}
    for name, volume, mask in ((NODULE, ct, truth), (LESION, lesion, mass > 0)):
        asked = (Request("nodule", speed=speed, points=(p,)) for p in inner_points(mask, volume))
        results = [engine.predict(volume, each).at() for each in asked]
        dices = np.array([dice(result.labelmap > 0, mask) for result in results])
        figures[f"{name}, {POINTS} points"] = {
            "dice_least": round(float(dices.min()), 4),
            "dice_median": round(float(np.median(dices)), 4),
            "dice_largest": round(float(dices.max()), 4),
            "below_0.8": int((dices < 0.8).sum()),
            "called": sorted({segment.name for result in results for segment in result.segments}),
        }
    for name, volume, mask in ((NODULE, ct, truth), (CLEAN, clean, None)):
        figures[f"{name}, whole chest"] = _chest(engine.predict(volume, Request("nodule", speed=speed)).at(), mask)
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


def measure_time(bundle: Bundle, folder: Path, speed: str, device: str) -> dict:
    """Seconds of a click, as the module gets it: submit, wait, label map at hand; and of a whole chest."""
    ct, truth = _read(folder, NODULE, "LIDC-IDRI-0001_nodule.nii.gz")
    clean, _ = read_volume(folder / CLEAN)
    chest = Request("nodule", speed=speed, device=device)
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


if __name__ == "__main__":
    sys.exit(main())
