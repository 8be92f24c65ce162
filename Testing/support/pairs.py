"""Made-up pairs of image and segmentation, on any grid, in the layouts of common programs, and what pairs.py makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np

import pairs
from Testing.support.prepare_scripts import picture, rows_of
from Testing.support.spleen import TERM
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.files import write_segmentation, write_volume

SPLEEN = Segment(1, "Spleen", TERM, (157, 108, 162), {})
KIDNEY = Segment(2, "Right kidney", TERM, (185, 102, 83), {})
SAID = ["--source", "Ours", "--licence", "CC BY 4.0", "--citation", "We, 2025."]
BOTH = ["--segment", "Spleen", "--segment", "Right kidney"]
LPS = np.diag([-1.5, -1.5, 3.0, 1.0])  # in RAS, the order of DICOM
SHAPE = (6, 20, 24)


def a_ct(seed: int = 0) -> np.ndarray:
    """Fat with noise, and something brighter in the middle."""
    hu = np.random.default_rng(seed).integers(-110, -80, SHAPE)
    hu[1:-1, 6:14, 7:18] = 60 + seed
    return hu.astype(np.int16)


def a_labelmap() -> np.ndarray:
    """Two labels without any symmetry."""
    labelmap = np.zeros(SHAPE, np.uint8)
    labelmap[1:-1, 6:14, 7:12] = 1
    labelmap[2:-1, 7:10, 14:18] = 2
    return labelmap


def ras_of_every_voxel(shape: tuple[int, ...], ijk_to_ras: np.ndarray) -> np.ndarray:
    """Centres of all voxels, (K, J, I, 3)."""
    k, j, i = np.indices(shape)
    return np.stack([i, j, k, np.ones(shape)], axis=-1) @ ijk_to_ras[:3].T


def write_nifti(path: Path, array: np.ndarray, ijk_to_ras: np.ndarray, stored_as: str | None = None) -> None:
    """Write an array (K, J, I); its axes may be stored in another order, with the voxels at the same places."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), ijk_to_ras)
    if stored_as:
        now, then = nibabel.io_orientation(ijk_to_ras), nibabel.orientations.axcodes2ornt(stored_as)
        image = image.as_reoriented(nibabel.orientations.ornt_transform(now, then))
    nibabel.save(image, path)


def slicer_case(folder: Path, name: str, hu=None, labelmap=None, segments=(SPLEEN, KIDNEY)) -> None:
    """As Slicer saves them: case.nrrd and case.seg.nrrd."""
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(folder / f"{name}.nrrd", a_ct() if hu is None else hu, LPS)
    write_segmentation(folder / f"{name}.seg.nrrd", a_labelmap() if labelmap is None else labelmap, LPS, segments)


def numbered_cases(folder: Path, names: list[str], nnunet: bool) -> None:
    """As nnU-Net or the Decathlon has them."""
    for seed, name in enumerate(names):
        write_nifti(folder / "imagesTr" / f"{name}{'_0000' * nnunet}.nii.gz", a_ct(seed), LPS)
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", a_labelmap(), LPS, stored_as="RAS")
    named = {"background": 0, "spleen": 1, "right_kidney": 2}
    labels = named if nnunet else {str(value): name for name, value in named.items()}
    about = {"name": "Task", "licence": "CC-BY-SA 4.0", "reference": "They, 2018.", "labels": labels}
    (folder / "dataset.json").write_text(json.dumps(about))


def folder_of_masks(folder: Path) -> None:
    """As TotalSegmentator has it: an image, and a file for each organ, including absent ones."""
    write_nifti(folder / "ct.nii.gz", a_ct(), LPS)
    organs = {"spleen": 1, "kidney_right": 2, "gallbladder": 9}
    for organ, value in organs.items():
        write_nifti(folder / "segmentations" / f"{organ}.nii.gz", (a_labelmap() == value).astype(np.uint8), LPS)


def cut(mask: np.ndarray, ijk_to_ras: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bounding box of a mask: the part of the array inside it, and its place."""
    marked = np.argwhere(mask)
    low, high = marked.min(axis=0), marked.max(axis=0) + 1
    moved = ijk_to_ras.copy()
    moved[:3, 3] += ijk_to_ras[:3, :3] @ low[::-1]
    return mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], moved


def prepared(source, output, *arguments):
    """The output of pairs.py, which must succeed."""
    assert pairs.main([str(source), "-o", str(output), *map(str, arguments)]) == 0
    return output


def stored_of(folder, case):
    """HU and labels (slices, rows, columns) of a case as they were written in 16 bits."""
    rows = [row for row in rows_of(folder) if row["volume"] == case]
    hu, labels = (np.stack([picture(folder / part / row["file"]) for row in rows]) for part in ("images", "masks"))
    return hu.astype(int) - 1024, labels
