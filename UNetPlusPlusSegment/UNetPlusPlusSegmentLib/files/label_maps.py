"""Telling label maps from scans, when both are volume files in the same folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from ..core.volume import VolumeError
from .geometry import ijk_to_ras_of, place_of
from .images import FileError, read_information
from .metaimage import read_metaimage_header
from .nifti import nifti_grid
from .nrrd import IO as NRRD_IO
from .reading import read_volume, volume_ending

MOST_LABELS = 255  # highest value in a label map; a CT without negative values goes above it
SAME_PLACE = 0.5  # of a voxel


class _Grid(NamedTuple):
    path: Path
    ijk_to_ras: np.ndarray
    is_8_bit: bool


def label_maps(paths: Iterable[str | Path]) -> set[Path]:
    """Find the volume files that are label maps of another file.

    A label map has the same grid as another file, and only whole numbers from 0 to 255; CT has values below 0 or above 255.

    Args:
        paths: Files and folders. Voxels are read only of files that share their grid with another one.

    Returns:
        The label maps among them; files that cannot be read do not count as such.
    """
    by_size: dict[tuple[int, ...], list[_Grid]] = defaultdict(list)
    for path in map(Path, paths):
        found = _grid(path)
        if found:
            by_size[found[0]].append(found[1])
    return {path for grids in by_size.values() for group in _at_one_place(grids) for path in _labels_of(group)}


def _grid(path: Path) -> tuple[tuple[int, ...], _Grid] | None:
    """Size and grid of a volume file, from its header; None if it is none, or cannot be read."""
    ending = volume_ending(path)
    try:
        if not (ending and path.is_file()):
            return None
        if ending in (".nrrd", ".nhdr", ".mha", ".mhd"):
            is_meta = ending.startswith(".m")
            reader = read_metaimage_header(path) if is_meta else read_information(path, NRRD_IO)
            bits_8 = reader.GetPixelID() in (sitk.sitkUInt8, sitk.sitkInt8)
            return reader.GetSize()[:3], _Grid(path, ijk_to_ras_of(place_of(reader)), bits_8)
        size, ijk_to_ras, bits_8 = nifti_grid(path)
        return size, _Grid(path, ijk_to_ras, bits_8)
    except (FileError, OSError):
        return None


def _at_one_place(grids: Sequence[_Grid]) -> list[list[_Grid]]:
    groups: list[list[_Grid]] = []
    for grid in grids:
        step = np.linalg.norm(grid.ijk_to_ras[:3, :3], axis=0).min()
        near = (g for g in groups if np.abs(g[0].ijk_to_ras - grid.ijk_to_ras).max() <= SAME_PLACE * step)
        group = next(near, None)
        if group is None:
            groups.append([grid])
        else:
            group.append(grid)
    return groups


def _labels_of(group: Sequence[_Grid]) -> set[Path]:
    """The label maps among files with one grid. If all but the largest file are label maps, that one is taken for the image unread."""
    labels: set[Path] = set()
    for index, grid in enumerate(sorted(group, key=lambda g: g.path.stat().st_size)):
        is_last = index == len(group) - 1
        if not (is_last and len(labels) == index) and (grid.is_8_bit or _holds_labels(grid.path)):
            labels.add(grid.path)
    return labels if len(group) > 1 else set()


def _holds_labels(path: Path) -> bool:
    try:
        array = read_volume(path)[0].array
    except (FileError, VolumeError):
        return False
    if array.min() < 0 or array.max() > MOST_LABELS:
        return False
    return array.dtype.kind in "iu" or bool((array == np.rint(array)).all())
