"""Segmentations read back: the segments of a Slicer file by name, those of a plain label map by value. NumPy and SimpleITK."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from ..core.volume import Volume
from .geometry import ijk_to_ras_of, place_of
from .images import FileError, name_of, silence
from .label_maps import MOST_LABELS
from .nrrd import IO as NRRD_IO
from .reading import read_volume, volume_ending

SAME_PLACE = 0.1  # of a voxel: matrices are often written in single precision
_NAME = re.compile(r"Segment(\d+)_Name")


class Place(NamedTuple):
    """The voxels of a segment: those of one layer that have one value."""

    layer: int
    value: int


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Segments as a file holds them.

    Attributes:
        layers: Label maps on one grid; segments that overlap lie in different ones.
        segments: Each by its name; by its value in figures where the file has no names.
        has_names: False of a plain label map.
    """

    layers: Sequence[Volume]
    segments: Mapping[str, Place]
    has_names: bool

    def mask(self, place: Place) -> np.ndarray:
        """bool (K, J, I)."""
        return self.layers[place.layer].array == place.value

    def on_grid_of(self, other: Segmentation) -> Segmentation | None:
        """The same segments with the axes of another segmentation, if both have the same voxels; None if they have not.

        Its voxels may be counted along other axes, in other directions and from another first one: then they are turned, and
        no value changes.
        """
        turned = [_turned(layer, other.layers[0].ijk_to_ras) for layer in self.layers]
        layers = [layer for layer in turned if layer]
        return Segmentation(layers, self.segments, self.has_names) if len(layers) == len(self.layers) else None


def read_segmentation(path: str | Path) -> tuple[Segmentation, list[str]]:
    """Read a segmentation.

    Args:
        path: `.seg.nrrd` as Slicer and this program write it, or a label map: `.nrrd`, `.nii`, `.nii.gz`, `.mha`, `.mhd`.

    Returns:
        The segmentation, and notes for the user about its geometry.

    Raises:
        FileError: It cannot be read, or is no segmentation.

    Source: `vtkMRMLSegmentationStorageNode` (Slicer), for the keys.
    """
    path = Path(path)
    if path.exists() and not volume_ending(path):
        raise FileError(f"{path} is not read as a segmentation: save it as .seg.nrrd, .nrrd, .nii.gz or .mha.")
    segments, in_layers = _named(path) if volume_ending(path) == ".nrrd" and path.is_file() else ({}, False)
    if in_layers:
        return Segmentation(_layers(path), segments, has_names=True), []
    volume, notes = read_volume(path)
    values = _values(path, volume.array)
    if segments:
        return Segmentation([volume], segments, has_names=True), notes
    return Segmentation([volume], {str(value): Place(0, value) for value in values}, has_names=False), notes


def _named(path: Path) -> tuple[dict[str, Place], bool]:
    """The segments that the header of a NRRD file names, and whether they lie in layers: values of a further axis."""
    reader = _reader(path)
    try:
        with silence():
            reader.ReadImageInformation()
    except RuntimeError:  # `read_volume` says what is wrong
        return {}, False
    keys = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    numbers = sorted(int(match[1]) for match in map(_NAME.fullmatch, keys) if match)
    segments: dict[str, Place] = {}
    for number in numbers:
        name = keys[f"Segment{number}_Name"]
        if name in segments:
            raise FileError(f"{path} has two segments called {name}: rename one of them.")
        # Before Slicer 4.11 each segment was a layer of its own, of zeros and ones.
        layer, value = keys.get(f"Segment{number}_Layer", number), keys.get(f"Segment{number}_LabelValue", 1)
        segments[name] = Place(int(layer), int(value))
    in_layers = reader.GetNumberOfComponents() > 1
    if segments and max(place.layer for place in segments.values()) >= reader.GetNumberOfComponents():
        raise FileError(f"{path} names a segment that it does not hold: save it again.")
    return segments, in_layers and bool(segments)


def _layers(path: Path) -> list[Volume]:
    try:
        with silence():
            image = _reader(path).Execute()
    except RuntimeError as error:
        raise FileError(f"{path} cannot be read: it is damaged or incomplete. Copy or save it again.") from error
    array, matrix = sitk.GetArrayFromImage(image), ijk_to_ras_of(place_of(image))
    return [Volume(array[..., layer], matrix) for layer in range(array.shape[-1])]


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(NRRD_IO)
    reader.SetFileName(name_of(path))
    return reader


def _values(path: Path, array: np.ndarray) -> list[int]:
    """The values of a label map above 0."""
    values = np.unique(array)
    if (values < 0).any() or (values != np.rint(values)).any() or len(values) > MOST_LABELS + 1:
        raise FileError(
            f"{path} is no label map: it has values below 0, between whole numbers, or more than {MOST_LABELS} of them."
            " Give a segmentation."
        )
    return [int(value) for value in values if value]


def _turned(volume: Volume, ijk_to_ras: np.ndarray) -> Volume | None:
    """A volume with its axes along those of another grid; None if its voxels are not some of that grid, however far it went on."""
    to_other = np.linalg.solve(ijk_to_ras, volume.ijk_to_ras)
    whole = np.rint(to_other)
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in volume.array.shape[::-1]))]).T
    turn = np.abs(whole[:3, :3])
    if np.abs((to_other - whole) @ corners).max() > SAME_PLACE or (turn.sum(0) != 1).any() or (turn.sum(1) != 1).any():
        return None
    first = (whole @ corners)[:3].min(axis=1)  # where the turned array begins, in the other's IJK
    axes = turn[::-1, ::-1].argmax(axis=1)  # of the array (K, J, I)
    runs_back = whole[:3, :3].sum(axis=1)[::-1] < 0
    array = np.flip(volume.array.transpose(axes), np.flatnonzero(runs_back))
    matrix = ijk_to_ras.copy()
    matrix[:3, 3] += ijk_to_ras[:3, :3] @ first
    return Volume(array, matrix)
