"""The scans for the benchmarks: real ones, and long ones tiled from these."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from UNetPlusPlusSegmentLib.core.volume import Volume, clean_hu
from UNetPlusPlusSegmentLib.files import read_volume

DATA = Path(os.environ.get("UNETPP_DATA") or Path(__file__).parents[2] / "shared" / "data") / "volumes"


def load(name: str) -> Volume:
    """Load a scan by its name in `SCANS`."""
    return SCANS[name]()


def truth(name: str) -> np.ndarray | None:
    """The liver mask (K, J, I) that another tool made for a scan, on the scan's voxels; None if there is none."""
    file = {"abdomen_dicom": "abdomen_dicom_liver.nii.gz", "abdomen_3mm": "abdomen_3mm_liver.nii.gz"}.get(name)
    if file is None:
        return None
    scan, drawn = load(name), _file(DATA / file)
    to_drawn = np.linalg.inv(drawn.ijk_to_ras) @ scan.ijk_to_ras  # its rows may run the other way
    kji = np.ix_([2, 1, 0], [2, 1, 0])
    mask = (drawn.array > 0).astype(np.uint8)
    placed = ndimage.affine_transform(
        mask, to_drawn[:3, :3][kji], to_drawn[2::-1, 3], output_shape=scan.array.shape, order=0
    )
    return placed > 0


def readers() -> np.ndarray:
    """The number of radiologists (K, J, I) who marked a voxel of `chest_111` as part of a nodule."""
    return _file(DATA / "LIDC-IDRI-0001_lungs_readers.nii.gz").array


def _file(path: Path) -> Volume:
    return read_volume(path)[0]


def _demo() -> Volume:
    import slicerio

    return _file(Path(slicerio.get_testdata_file("CTChest4.nrrd")))


def _tiled(below: int, liver: int, above: int) -> Volume:
    """A scan with the given numbers of slices: `abdomen_dicom`, tiled by reflection, between slices of a chest without liver that are
    resampled to the same grid.
    """
    abdomen = _file(DATA / "abdomen_dicom")
    chest = _chest_like(abdomen)
    parts = [_mirrored(chest, below), _mirrored(abdomen.array, liver), _mirrored(chest, above)]
    return Volume(np.concatenate(parts), abdomen.ijk_to_ras)


def _chest_like(volume: Volume) -> np.ndarray:
    """`chest_clean_ct` with the pixel size, slice distance and field of view of a volume: int16 (K, J, I)."""
    chest = _file(DATA / "chest_clean_ct.nrrd")
    image = sitk.GetImageFromArray(clean_hu(chest.array)[0])
    image.SetSpacing(chest.spacing_mm.tolist())
    rows, columns = volume.array.shape[1:]
    slices = int(chest.array.shape[0] * chest.spacing_mm[2] / volume.spacing_mm[2])
    old, new = np.array(image.GetSize()), np.array([columns, rows, slices])
    origin = ((old - 1) * chest.spacing_mm - (new - 1) * volume.spacing_mm) / 2  # about the same centre
    moved = sitk.Resample(
        image, new.tolist(), sitk.Transform(), sitk.sitkLinear, origin.tolist(), volume.spacing_mm.tolist(),
        np.eye(3).ravel().tolist(), -1024,
    )  # fmt: skip
    return sitk.GetArrayFromImage(moved)


def _mirrored(slices: np.ndarray, number: int) -> np.ndarray:
    there_and_back = np.concatenate([slices, slices[::-1]])
    return there_and_back[np.arange(number) % len(there_and_back)]


SCANS: dict[str, Callable[[], Volume]] = {
    "abdomen_dicom": lambda: _file(DATA / "abdomen_dicom"),
    "abdomen_3mm": lambda: _file(DATA / "abdomen_3mm_ct.nii.gz"),
    "CTChest4": _demo,
    "tiled_200": lambda: _tiled(60, 80, 60),  # liver on 80 of 200 slices
    "liver_119": lambda: _tiled(3, 113, 3),  # liver on 95 % of 119 slices
    "chest_111": lambda: _file(DATA / "LIDC-IDRI-0001_lungs_ct.nii.gz"),
    "all_liver_80": lambda: _tiled(0, 80, 0),  # the worst case: nothing to leave out
    "tiled_600": lambda: _tiled(240, 120, 240),  # liver on 20 % of 600 slices
    "cropped_600": lambda: _tiled(0, 120, 0),  # the same scan cropped to the liver
}
