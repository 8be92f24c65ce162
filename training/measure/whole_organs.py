"""Organs on whole CTs beside their truth, as a user gets them: Dice, distances between surfaces in 3D, error of the volume."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from UNetPlusPlusSegmentLib.api import load_engine
from UNetPlusPlusSegmentLib.core.agreement import dice, hausdorff95_mm, surface_dice, surface_distances
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.volume import Volume, axial_volume
from UNetPlusPlusSegmentLib.engine.label_map import shared_out
from UNetPlusPlusSegmentLib.files import FileError, read_volume
from UNetPlusPlusSegmentLib.network.bundle import Bundle
from UNetPlusPlusSegmentLib.network.card import Label

# abdomen_liver.nii.gz is the liver in the folder abdomen, or in abdomen_ct.…
MASK, CTS = ".nii.gz", ("", "_ct.nii.gz", "_ct.nrrd")


def organs(bundle: Bundle, folder: Path, speed: str, device: str) -> dict[str, dict]:
    """The figures of each label in each CT of a folder that has a mask of it: `NAME_<label>.nii.gz`, in small letters.

    Returns:
        By `NAME, <label>`: `dice`; `hausdorff95_mm` and `surface_dice`, at 2 mm, in 3D; `volume_error_ml`, found less true, and
        `volume_error_percent`; `expected_dice` where the model says so; and the notes to the user.

    Raises:
        FileError: A file cannot be read, or a mask does not lie on the voxels of its CT.
    """
    engine, figures = load_engine(bundle, device), {}
    for ct, masks in masks_by_ct(bundle, folder).items():
        volume = axial_volume(read_volume(ct, force=True)[0])
        truths = np.stack([_read_mask(path, volume, ct) for path in masks.values()])
        shown = shared_out(truths, [bundle.labels[number].name for number, _ in masks], bundle.priority)
        result = engine.predict(volume, Request(bundle.target, speed=speed)).at()
        for (number, name), truth in zip(masks, shown, strict=True):
            if not truth.any():  # nothing is marked, or other labels take all of it
                continue
            label, known = bundle.labels[number], result.segments[number].measurements
            figures[f"{name}, {label.name}"] = {
                **compare(result.labelmap == label.value, truth, volume),
                **{key: round(known[key], 4) for key in ("expected_dice",) if key in known},
                "notes": [*map(str, result.notes)],
            }
    return figures


def ending_of(label: Label) -> str:
    """What the masks of a label are called after the name of their CT."""
    return f"_{label.name.lower().replace(' ', '_')}{MASK}"


def masks_by_ct(bundle: Bundle, folder: Path) -> dict[Path, dict[tuple[int, str], Path]]:
    """The masks of each CT, by the place of their label in the card and the name of the CT."""
    found: dict[Path, dict[tuple[int, str], Path]] = defaultdict(dict)
    for number, label in enumerate(bundle.labels):
        ending = ending_of(label)
        for path in sorted(folder.glob(f"*{ending}")):
            name = path.name.removesuffix(ending)
            ct = next((path.with_name(name + end) for end in CTS if path.with_name(name + end).exists()), None)
            if ct:
                found[ct][number, name] = path
    return found


def _read_mask(path: Path, volume: Volume, ct: Path) -> np.ndarray:
    truth = axial_volume(read_volume(path, force=True)[0])
    if volume.array.shape != truth.array.shape or np.abs(volume.ijk_to_ras - truth.ijk_to_ras).max() > 0.01:
        raise FileError(f"{path} does not lie on the voxels of {ct}.")
    return truth.array > 0


def compare(found: np.ndarray, truth: np.ndarray, volume: Volume) -> dict[str, float | None]:
    """The figures of a mask (K, J, I) against the truth, which is not empty; the distance None if nothing was found."""
    ml = volume.voxel_volume_ml
    error_ml = (np.count_nonzero(found) - np.count_nonzero(truth)) * ml
    distances = surface_distances(found, truth, np.diag(volume.spacing_mm[::-1]))
    farthest = hausdorff95_mm(distances)
    return {
        "dice": round(dice(found, truth), 4),
        "hausdorff95_mm": farthest and round(farthest, 2),
        "surface_dice": round(surface_dice(distances), 4),
        "volume_error_ml": round(error_ml, 1),
        "volume_error_percent": round(100 * error_ml / (np.count_nonzero(truth) * ml), 2),
    }
