"""Segmentations from other programs: the named segments of a file, and their masks on the voxels of an image."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..core.volume import Volume
from .dicom_headers import SEGMENTATION_CLASSES, class_of
from .dicom_seg_reading import read_dicom_seg, segments_of_dicom_seg
from .geometry import ORIENTATION_GUESSED
from .images import FileError, printable
from .nrrd import read_nrrd_layers, text_of_nrrd
from .reading import read_volume, volume_ending

SAME_VOXEL = 0.1  # in voxels: rounding in a header moves a corner by less, a different grid by more
TERMINOLOGY = "TerminologyEntry:"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Stored:
    """A segment in a file.

    Attributes:
        values: Its values in the file's label map, or its number in a DICOM SEG; empty for every value but 0.
        layer: Index of its label map, if a `.seg.nrrd` has several.
        terminology: Slicer's seven-part string; empty if the file has none.
        color: Red, green and blue, 0…255.
    """

    path: Path
    name: str
    values: tuple[int, ...] = ()
    layer: int = 0
    terminology: str = ""
    color: tuple[int, int, int] | None = None


def segments_in(path: str | Path) -> list[Stored]:
    """Find the segments of a `.seg.nrrd` of Slicer, a DICOM SEG, or a label map.

    The segments of a label map without names are named by their values.

    Raises:
        FileError: It cannot be read, or is not a segmentation.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"There is no file {printable(path)}: check the path.")
    if volume_ending(path) in (".nrrd", ".nhdr"):
        keys, layers = text_of_nrrd(path)
        if "Segment0_ID" in keys or "Segment0_Name" in keys:
            return _of_slicer(path, keys, layers)
    elif not volume_ending(path) and class_of(path) in SEGMENTATION_CLASSES:
        return [
            Stored(path, name, (number,), 0, term, color) for number, name, term, color in segments_of_dicom_seg(path)
        ]
    array = read_volume(path)[0].array
    _check_values(path, array)
    values = np.unique(array)
    return [Stored(path, str(int(value)), (int(value),)) for value in values if value]


def is_segmentation(path: Path) -> bool:
    """True for a DICOM SEG, and for a volume file with a name like case.seg.nrrd, case-label.nrrd or segmentation.nii.gz."""
    if volume_ending(path):
        return bool(
            re.search(
                r"(^|[._ -])(seg|segmentation|mask|labels?|labelmap)$", path.name[: -len(volume_ending(path))].lower()
            )
        )
    return class_of(path) in SEGMENTATION_CLASSES


def masks_of(segments: Iterable[Stored], image: Volume) -> Iterator[np.ndarray]:
    """Read segments as masks on the voxels of an image.

    The axes of a file may be in another order than the image's, flipped or cropped, but its voxels must be the same: nothing is
    resampled.

    Yields:
        For each segment, bool (K, J, I). A file is read once for consecutive segments.

    Raises:
        FileError: A file cannot be read, holds other values than whole numbers from 0 on (a map of probabilities, say), does not say how
            the patient lies, has other voxels than the image, or marks voxels outside it.
        VolumeError: Its position is invalid.
    """
    path: Path | None = None
    parts: Sequence[Sequence[Volume]] = ()  # only of the last file, to save memory
    for segment in segments:
        if segment.path != path:
            path, parts = segment.path, _parts(segment.path)
        mask = np.zeros(image.array.shape, bool)
        for part in parts[segment.layer]:
            marked = np.isin(part.array, segment.values) if segment.values else part.array != 0
            box, voxels = laid_on(image, marked, part.ijk_to_ras, printable(segment.path))
            mask[box] |= voxels
        yield mask


def grid_around(paths: Iterable[str | Path]) -> Volume:
    """The grid of the first segmentation, extended until it contains all of them; its values are 0.

    Raises:
        FileError, VolumeError: As for `masks_of`, which then refuses a segmentation that is not on this grid.
    """
    volumes = [volume for path in paths for layer in _parts(Path(path)) for volume in layer]
    matrix = volumes[0].ijk_to_ras.copy()
    corners = [
        (np.linalg.solve(matrix, volume.ijk_to_ras) @ (*corner, 1))[:3]
        for volume in volumes
        for corner in product(*((0, size - 1) for size in volume.array.shape[::-1]))
    ]
    low, high = (np.rint(end(corners, axis=0)).astype(int) for end in (np.min, np.max))
    matrix[:3, 3] += matrix[:3, :3] @ low
    return Volume(np.broadcast_to(np.uint8(0), tuple((high - low + 1)[::-1])), matrix)


def laid_on(
    image: Volume, mask: np.ndarray, ijk_to_ras: np.ndarray, called: str
) -> tuple[tuple[slice, ...], np.ndarray]:
    """Bring a mask to the voxels of an image. They must be the same voxels, but their axes may be permuted or flipped.

    Args:
        image: Gives the grid.
        mask: bool (K, J, I); its grid may be a part of the image's, or extend beyond it where nothing is marked.
        ijk_to_ras: Position of the mask, 4 × 4, in mm.
        called: Name of the mask in messages.

    Returns:
        A box of voxels (K, J, I) in the image, and the mask in it.

    Raises:
        FileError: The voxels are different, or one is marked outside the image.
    """
    to_image = np.linalg.solve(image.ijk_to_ras, ijk_to_ras)  # from I, J, K of the mask to those of the image
    whole = np.rint(to_image)
    for axis in np.flatnonzero(np.array(mask.shape[::-1]) == 1):  # the step along an axis with one voxel has no meaning
        others = np.delete(np.abs(whole[:3, :3]), axis, axis=1).any(axis=1)
        to_image[:3, axis] = whole[:3, axis] = np.eye(3)[int(others.argmin())]
    corners = np.array([*product(*((0, size - 1) for size in mask.shape[::-1]), [1])])
    turned = np.abs(whole[:3, :3])
    if np.abs((to_image - whole) @ corners.T).max() > SAME_VOXEL or (turned.T @ turned != np.eye(3)).any():
        raise FileError(
            f"{called} has other voxels, {_in_words(mask, ijk_to_ras)}, not {_in_words(image.array, image.ijk_to_ras)} at the same"
            " positions: export it again with the scan as its reference geometry."
        )
    ends = np.sort((whole @ corners.T)[2::-1].astype(int), axis=1)[:, [0, -1]].tolist()  # first and last K, J, I there
    axes = [2 - int(row.argmax()) for row in turned[::-1]]
    backwards = (whole[2::-1, :3].sum(axis=1) < 0).tolist()
    voxels = mask.transpose(axes)[tuple(slice(None, None, -1 if back else 1) for back in backwards)]
    sizes = image.array.shape
    inside = voxels[
        tuple(slice(max(0, -first), max(0, size - first)) for (first, _), size in zip(ends, sizes, strict=True))
    ]
    beyond = int(np.count_nonzero(voxels)) - int(np.count_nonzero(inside))
    if beyond:
        raise FileError(
            f"{called} marks voxels that lie outside its image, {beyond} of them: give the image that it was drawn on."
        )
    box = tuple(
        slice(max(0, first), max(0, first) + count) for (first, _), count in zip(ends, inside.shape, strict=True)
    )
    return box, inside


def _of_slicer(path: Path, keys: Mapping[str, str], layers: int) -> list[Stored]:
    found: list[Stored] = []
    while f"Segment{len(found)}_ID" in keys or f"Segment{len(found)}_Name" in keys:
        prefix = f"Segment{len(found)}_"
        about = {key.removeprefix(prefix): value for key, value in keys.items() if key.startswith(prefix)}
        found.append(_described(path, about, layers, own_layer=len(found) if layers > 1 else 0))
    return found


def _described(path: Path, about: Mapping[str, str], layers: int, own_layer: int) -> Stored:
    """The segment that the keys of a header describe; before Slicer 4.11 each had a layer of its own, which they did not name."""
    name = about.get("Name") or about.get("ID", "")

    def read(key: str, otherwise: object, parse: Callable[[str], Value]) -> Value:
        text = about.get(key, str(otherwise))
        try:
            return parse(text)
        except (ValueError, OverflowError) as error:
            raise FileError(
                f"{printable(path)} describes its segment {name} in a way that cannot be read ({key} {text}): save it again in the"
                " program that made it."
            ) from error

    layer = read("Layer", own_layer, int)
    if layer not in range(layers):
        raise FileError(
            f"{printable(path)} has {layers} layer{'s' * (layers > 1)}, but says that {name} lies in layer {layer}, counted from 0:"
            " save it again in the program that made it."
        )
    tags = about.get("Tags", "").split("|")
    terms = [tag.removeprefix(TERMINOLOGY) for tag in tags if tag.startswith(TERMINOLOGY)]
    parts = read("Color", "", lambda text: [round(float(part) * 255) for part in text.split()])
    return Stored(
        path,
        name,
        (read("LabelValue", 1, int),),
        layer,
        terms[0] if terms else "",
        (parts[0], parts[1], parts[2]) if len(parts) == 3 else None,
    )


def _parts(path: Path) -> Sequence[Sequence[Volume]]:
    """The label maps of a file, layer by layer; each layer may consist of several volumes."""
    if volume_ending(path) in (".nrrd", ".nhdr"):
        layers, notes = read_nrrd_layers(path)
        parts = [[layer] for layer in layers]
    elif not volume_ending(path) and class_of(path) in SEGMENTATION_CLASSES:
        return [read_dicom_seg(path)]
    else:
        volume, notes = read_volume(path)
        parts = [[volume]]
    check_orientation(path, notes)
    for (layer,) in parts:
        _check_values(path, layer.array)
    return parts


def _check_values(path: Path, array: np.ndarray) -> None:
    """Raise a FileError unless all values are whole numbers from 0 on."""
    low, high = array.min(), array.max()
    if low < 0 or (array.dtype.kind == "f" and not (np.mod(array, 1) == 0).all()):
        raise FileError(
            f"{path} is not a label map: it contains values that are not whole numbers, or below 0, from {low:g} to {high:g}. Give a"
            " segmentation."
        )


def check_orientation(path: Path, notes: Iterable[str]) -> None:
    """Refuse a file whose reader noted that it does not say how the patient lies.

    Raises:
        FileError: Left and right would be a guess.
    """
    guess = ORIENTATION_GUESSED.partition("{}")[2]
    if any(note.endswith(guess) for note in notes):
        raise FileError(f"{ORIENTATION_GUESSED.format(printable(path))} Export it again from its source.")


def _in_words(array: np.ndarray, ijk_to_ras: np.ndarray) -> str:
    sizes = " × ".join(map(str, array.shape[::-1]))
    return f"{sizes} of {' × '.join(f'{mm:.4g}' for mm in np.linalg.norm(ijk_to_ras[:3, :3], axis=0))} mm"
