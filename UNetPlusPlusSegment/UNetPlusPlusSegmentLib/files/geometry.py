"""Geometry: from what a file says about the position of its voxels to a volume. Every reader ends here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.volume import Volume
from .images import FileError, ijk_to_ras

ORIENTATION_GUESSED = "{} does not say how the patient lies: left and right, front and back are a guess."
# In NRRD and MetaImage; any other is taken for mm.
UNITS_MM = {"um": 0.001, "µm": 0.001, "mm": 1.0, "cm": 10.0, "m": 1000.0}
GUESSED_MM = 1.0  # along an axis whose spacing is not given


@dataclass(frozen=True, eq=False)
class Place:
    """The position of a grid of voxels in the patient, in mm towards Left, Posterior, Superior.

    Attributes:
        spacing_mm: Along I, J and K; NaN or 0 where the file does not give it.
        directions: 3 × 3; its columns are the unit vectors along I, J and K. None if the file does not give them.
        origin: Centre of voxel (0, 0, 0); None if the file does not give it.
    """

    spacing_mm: tuple[float, ...]
    directions: np.ndarray | None
    origin: np.ndarray | None


def place_volume(path: Path, array: np.ndarray, place: Place, force: bool) -> tuple[Volume, list[str]]:
    """Make a volume from the voxels of a file and their position.

    Args:
        path: The file, for messages.
        array: (K, J, I).
        place: As the file gives it.
        force: Assume 1 mm for a missing spacing.

    Returns:
        The volume and notes for the user.

    Raises:
        FileError: A spacing is impossible, or missing without `force`.
        VolumeError: The array is not a volume, or the directions are invalid.
    """
    spacing_mm, notes = _known_spacing(path, array.shape[::-1], place.spacing_mm, force)
    if place.directions is None:
        notes.append(ORIENTATION_GUESSED.format(path.name))
    elif place.origin is None:
        notes.append(
            f"{path.name} does not say where the volume lies in the patient: its origin is taken to be 0, 0, 0."
        )
    return Volume(array, ijk_to_ras_of(replace(place, spacing_mm=tuple(spacing_mm)))), notes


def ijk_to_ras_of(place: Place) -> np.ndarray:
    """The 4 × 4 matrix of a place; unknown directions become the identity, an unknown origin 0."""
    directions = np.eye(3) if place.directions is None else place.directions
    origin = np.zeros(3) if place.origin is None else place.origin
    return ijk_to_ras(directions * place.spacing_mm, origin)


def place_of(image: sitk.Image | sitk.ImageFileReader) -> Place:
    """The place of an image from `read_image`, as ITK gives it."""
    directions = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:3, :3]
    return Place(image.GetSpacing()[:3], directions, np.array(image.GetOrigin()[:3]))


def nearest_rotation(
    size: tuple[int, ...], steps: np.ndarray, origin: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Replace axes that are not at right angles by the nearest ones that are, keeping the middle of the grid in place.

    Args:
        size: Number of voxels along I, J and K.
        steps: 3 × 3; its columns are the steps from voxel to voxel, and span three dimensions.
        origin: Centre of voxel (0, 0, 0).

    Returns:
        The new unit directions, the new origin, and the largest displacement of a voxel, in voxels.

    Source: orthogonal Procrustes problem (Schönemann 1966): the rotation nearest to a matrix is U·Vᵀ of its SVD.
    """
    spacing = np.linalg.norm(steps, axis=0)
    left, _, right = np.linalg.svd(steps / spacing)
    directions = left @ right
    middle = (np.array(size) - 1) / 2
    moved = origin + (steps - directions * spacing) @ middle
    corners = np.array([*product(*((0, n - 1) for n in size))]).T
    away = np.linalg.solve(steps, directions @ np.diag(spacing) @ corners + (moved - origin)[:, None]) - corners
    return directions, moved, float(np.abs(away).max())


def _known_spacing(
    path: Path, size: tuple[int, ...], spacing_mm: tuple[float, ...], force: bool
) -> tuple[np.ndarray, list[str]]:
    """The spacing, with 1 mm where it is missing and a note about it; for a single slice, the thickness may be missing."""
    spacing = np.array(spacing_mm, float)
    said = " × ".join("?" if np.isnan(s) else f"{s:g}" for s in spacing)
    if (spacing < 0).any() or np.isinf(spacing).any():
        raise FileError(
            f"{path} says that its voxels measure {said} mm: correct the spacing in the file, or export it again from"
            " its source."
        )
    missing = ~(spacing > 0)
    if not missing.any():
        return spacing, []
    spacing[missing] = GUESSED_MM
    if (np.array(size)[missing] == 1).all():
        return spacing, [f"{path.name} does not say how thick its slice is: {GUESSED_MM:g} mm is a guess."]
    if not force:
        raise FileError(
            f"{path} does not say how large its voxels are ({said} mm), so every volume would be a guess: add the spacing"
            f" to the file, or export it again from its source. --force (force=True in Python) assumes"
            f" {GUESSED_MM:g} mm for what is missing."
        )
    return spacing, [
        f"{path.name} does not say how large its voxels are ({said} mm): as the run was forced, {GUESSED_MM:g} mm was assumed for what"
        " is missing, so every volume and length is a guess."
    ]
