"""Volumes: an array with its place in the patient, and whether it is a CT. NumPy only; knows no Slicer and no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

AIR_HU = -1024
PADDING_HU = -1500  # at or below it lies nothing: scanners fill the corners of a slice with -2000, -3024, …
OUTSIDE_HU = -500  # below it lie air and lung, not the body's surface
FAT_HU = -50  # fat and air lie below
LEAST_FAT_OR_AIR = 0.001  # share of the voxels; crops of 3 to 8 cm round a liver have 0.005 and more, MR has none
SPACING_RANGE_MM = (0.01, 100.0)


class VolumeError(ValueError):
    """A volume that cannot be segmented; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels and their place in the patient.

    Attributes:
        array: Shape (K, J, I), slices first, of any integer or floating type; kept, not copied.
        ijk_to_ras: 4 × 4 float64, read-only, in mm towards Right, Anterior, Superior. Its columns run the other way: I,
            J, K, then the centre of voxel (0, 0, 0). Oblique, flipped and sheared grids are all right.

    Raises:
        VolumeError: Not three-dimensional, empty, not of real numbers, or placed by a matrix that is not finite or not
            invertible.
    """

    array: np.ndarray
    ijk_to_ras: np.ndarray

    def __post_init__(self) -> None:
        matrix = np.array(self.ijk_to_ras, dtype=np.float64)
        matrix.setflags(write=False)
        object.__setattr__(self, "ijk_to_ras", matrix)
        _check_array(self.array)
        _check_matrix(matrix)

    @property
    def spacing_mm(self) -> np.ndarray:
        """Distance of neighbouring voxels along I, J and K, in mm."""
        return np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3]))) / 1000


def crop(volume: Volume, box: tuple[slice, ...]) -> Volume:
    """The part of a volume in a box of voxels (K, J, I), where it is in the patient; its voxels are not copied."""
    ijk_to_ras = volume.ijk_to_ras.copy()
    ijk_to_ras[:3, 3] += ijk_to_ras[:3, :3] @ [along.start for along in reversed(box)]
    return Volume(volume.array[box], ijk_to_ras)


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest slices that hold every True voxel; None if there is none."""
    ranges: tuple[slice, ...] = ()
    for axis in range(mask.ndim):  # what earlier axes have ruled out is not looked at again
        hit = np.flatnonzero(mask[ranges].any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not len(hit):
            return None
        ranges += (slice(int(hit[0]), int(hit[-1]) + 1),)
    return ranges


@dataclass(frozen=True)
class AxialOrder:
    """How an array (K, J, I) is turned so that its axes run to the patient's Superior, Posterior and Left.

    That is the order of the training slices: first slice lowest, row 0 anterior, column 0 at the patient's right.

    Attributes:
        axes: Which axis of the array (0 is K, 1 is J, 2 is I) becomes slice, row and column.
        flips: Whether the slices, rows and columns run the other way in the array.
        spacing_mm: Distance of slices, rows and columns.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Turn an array (K, J, I) to (slice, row, column); a view."""
        return array.transpose(self.axes)[self._steps]

    def undo(self, array: np.ndarray) -> np.ndarray:
        """Turn an array (slice, row, column) back to (K, J, I); a view."""
        return array[self._steps].transpose(np.argsort(self.axes))

    @property
    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)


def axial_order(volume: Volume) -> AxialOrder:
    """Find the axial slices of a volume: those along the array axis nearest to the patient's Superior.

    The two axes left become rows and columns as is nearest to Posterior and Left, so that each array axis is used once,
    on oblique grids too. At 45°, where two axes are equally near, the one that comes first in (K, J, I) wins.
    """
    directions = (volume.ijk_to_ras[:3, :3] / volume.spacing_mm)[:, ::-1]  # columns K, J, I
    right, anterior, superior = directions.round(9)  # rounded: 45° is a tie, whatever the last bit says
    towards = np.array([superior, -anterior, -right])
    nearness = np.abs(towards)
    slices = int(nearness[0].argmax())
    rows, columns = max(
        permutations([axis for axis in range(3) if axis != slices]),
        key=lambda pair: nearness[1, pair[0]] + nearness[2, pair[1]],
    )
    axes = (slices, rows, columns)
    flips = tuple(bool(towards[which, axis] < 0) for which, axis in enumerate(axes))
    return AxialOrder(axes, flips, tuple(volume.spacing_mm[::-1][list(axes)].tolist()))


def index_of(volume: Volume, point: Sequence[float]) -> np.ndarray:
    """K, J, I of a point; they need not be whole. On the outer half of a voxel at the border it is the voxel's middle.

    Args:
        volume: Any.
        point: R, A, S in mm.

    Raises:
        VolumeError: It is no point, or lies outside the volume.
    """
    if len(point) != 3 or not np.isfinite(point).all():
        raise VolumeError(f"{list(point)} is no point: give three numbers, R, A and S in mm.")
    index = np.linalg.solve(volume.ijk_to_ras, [*point, 1])[2::-1]
    if (index < -0.5).any() or (index > np.array(volume.array.shape) - 0.5).any():
        raise VolumeError(f"The point {in_words(point)} lies outside this volume, {_reach_in_words(volume)}.")
    return np.clip(index, 0, np.array(volume.array.shape) - 1)


def box_between(volume: Volume, corner: Sequence[float], opposite: Sequence[float]) -> tuple[slice, ...]:
    """The voxels (K, J, I) of a box along R, A and S; on an oblique grid the smallest box of voxels that holds them.

    Args:
        volume: Any.
        corner, opposite: R, A, S in mm.

    Raises:
        VolumeError: There is no voxel in it.
    """
    corners = np.array([*product(*zip(corner, opposite, strict=True))])
    indices = np.linalg.solve(volume.ijk_to_ras, np.column_stack([corners, np.ones(8)]).T)[2::-1]
    first = np.maximum(np.ceil(indices.min(axis=1) - 1e-6), 0).astype(int)  # voxels whose centres lie inside
    stop = np.minimum(np.floor(indices.max(axis=1) + 1e-6) + 1, volume.array.shape).astype(int)
    if (first >= stop).any():
        raise VolumeError(
            f"The box from {in_words(corner)} to {in_words(opposite)} holds no voxel of this volume,"
            f" {_reach_in_words(volume)}."
        )
    return tuple(map(slice, first.tolist(), stop.tolist()))


def axial_volume(volume: Volume) -> Volume:
    """The same voxels in axial order: a view, and where it is in the patient."""
    order = axial_order(volume)
    matrix = np.eye(4)
    matrix[:3, 3] = volume.ijk_to_ras[:3, 3]
    for column, (axis, flip) in enumerate(zip(reversed(order.axes), reversed(order.flips), strict=True)):
        step = volume.ijk_to_ras[:3, 2 - axis]
        matrix[:3, column] = -step if flip else step
        matrix[:3, 3] += step * (volume.array.shape[axis] - 1) * flip
    return Volume(order.apply(volume.array), matrix)


def check_ct(volume: Volume, force: bool = False) -> list[str]:
    """Refuse what cannot be a CT in Hounsfield units, before time is spent on it.

    Args:
        volume: As it was read, padding and all.
        force: Take it even if its values are not those of a CT.

    Returns:
        Notes for the user: what was forced, and that there is one slice only.

    Raises:
        VolumeError: A voxel size that cannot be, no finite value at all, or (unless forced) values that are not HU.
    """
    low, high = SPACING_RANGE_MM
    if not all(low <= spacing <= high for spacing in volume.spacing_mm):
        raise VolumeError(
            f"The voxels measure {_by(volume.spacing_mm)} mm, which no CT has ({low:g} to {high:g} mm):"
            " correct the spacing of the volume, or export it again from where it came."
        )
    notes = []
    reason = _why_not_ct(volume.array)
    if reason and not force:
        raise VolumeError(
            f"This does not look like CT in Hounsfield units: {reason}."
            " Choose a CT volume; if it is one all the same, force it: --force in a shell, force=True in Python, the box"
            " under Advanced in the panel."
        )
    if reason:
        notes.append(f"Run by force, though it does not look like CT: {reason}.")
    order = axial_order(volume)
    if volume.array.shape[order.axes[0]] == 1:
        notes.append(f"There is one slice only, taken to be {order.spacing_mm[0]:g} mm thick.")
    return notes


def clean_hu(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Make air of what is no measurement: NaN, infinity and padding.

    Args:
        array: CT in HU, any shape; stays as it is.

    Returns:
        The values as int16 (from integers; cut to its range) or float32, the array itself where nothing had to change;
        and a note for the user if measurements are missing inside the body, not only round the field of view.
    """
    kind, limits = (np.float32, None) if array.dtype.kind == "f" else (np.int16, np.iinfo(np.int16))
    clips = limits is not None and not np.can_cast(array.dtype, kind)
    same = array.dtype == kind
    cleaned = array if same else np.empty(array.shape, kind)
    inside, blank = 0, []
    for k in range(len(array)):  # slice by slice: what lies between the steps would take as much memory as the volume
        here = array[k : k + 1]
        with np.errstate(over="ignore", invalid="ignore"):
            here = (here.clip(limits.min, limits.max) if clips else here).astype(kind, copy=False)
            nothing = here <= PADDING_HU if limits else ~np.isfinite(here) | (here <= PADDING_HU)
        found = bool(nothing.any())
        if found and cleaned is array:
            cleaned = array.copy()
        if found or not same:
            cleaned[k : k + 1] = np.where(nothing, np.asarray(AIR_HU, kind), here)
        blank.append(bool(nothing.all()))
        inside += _enclosed(nothing[0], here[0]) if found and not blank[-1] else 0
    measured = np.flatnonzero(~np.array(blank, bool))
    between = sum(blank[measured[0] : measured[-1]]) if len(measured) else 0
    inside += between * (array.size // len(array))
    if not inside:
        return cleaned, []
    share = f"{100 * inside / array.size:.2g} %"
    return cleaned, [
        f"{inside} voxels ({share}) inside the body hold no measurement (padding, NaN or infinity) and were taken as air."
    ]


def _enclosed(nothing: np.ndarray, hu: np.ndarray) -> int:
    """How many pixels without measurement are not reached from the border of a slice, straight through air and such pixels."""
    if nothing.ndim != 2:
        return int(np.count_nonzero(nothing))
    with np.errstate(invalid="ignore"):
        free = nothing | (hu < OUTSIDE_HU)
    reached = np.zeros_like(nothing)
    for axis in (0, 1):
        for step in (1, -1):
            towards = np.flip(free, axis) if step < 0 else free
            run = np.logical_and.accumulate(towards, axis)
            reached |= np.flip(run, axis) if step < 0 else run
    return int(np.count_nonzero(nothing & ~reached))


def _check_array(array: np.ndarray) -> None:
    if array.ndim == 4 and array.shape[-1] in (3, 4) and array.dtype == np.uint8:
        raise VolumeError(f"This is a colour image (RGB, shape {array.shape}), not a CT: choose the grey-value volume.")
    if array.ndim != 3:
        raise VolumeError(
            f"This volume has {array.ndim} dimensions (shape {array.shape}); a CT has 3, slices, rows and columns."
            " Of a sequence or a multi-channel image, choose one frame."
        )
    if not array.size:
        raise VolumeError(f"This volume has no voxels (shape {array.shape}): choose another one.")
    if array.dtype.kind not in "iuf":
        raise VolumeError(f"The voxels of this volume are no real numbers ({array.dtype}): choose another one.")


def _check_matrix(matrix: np.ndarray) -> None:
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or (matrix[3] != (0, 0, 0, 1)).any():
        raise VolumeError(
            "The place of this volume is unknown: ijk_to_ras must be a 4 × 4 matrix of finite numbers with last row"
            f" 0 0 0 1, got {matrix.tolist()}. Correct it, or export the volume again from where it came."
        )
    spacing_mm = np.linalg.norm(matrix[:3, :3], axis=0)
    if abs(np.linalg.det(matrix[:3, :3])) <= 1e-6 * spacing_mm.prod():
        raise VolumeError(
            f"The grid of this volume is flat: its voxels measure {_by(spacing_mm)} mm and its axes span no space."
            " Correct its spacing and directions, or export it again from where it came."
        )


def _why_not_ct(array: np.ndarray) -> str | None:
    """What is wrong with the values for a CT, with those found; None if nothing is."""
    lowest, highest, fat_or_air, count = np.inf, -np.inf, 0, 0
    for here in array:
        finite = here[np.isfinite(here)] if array.dtype.kind == "f" else here
        if finite.size:
            lowest, highest = min(lowest, finite.min()), max(highest, finite.max())
            fat_or_air += np.count_nonzero((finite > PADDING_HU) & (finite <= FAT_HU))
            count += finite.size
    if not count:
        raise VolumeError("This volume holds no finite number, only NaN or infinity: export it again.")
    found = f"its values run from {lowest:g} to {highest:g}"
    if array.dtype.itemsize == 1:
        return f"{found} in 8 bits ({array.dtype}), too few for HU"
    if lowest >= 0:
        return f"{found}, none below 0, where air (-1000 HU) and fat (-100 HU) lie"
    share = fat_or_air / count
    if share < LEAST_FAT_OR_AIR:
        return f"{found}, and only {share:.2%} of them are air or fat ({PADDING_HU} to {FAT_HU} HU)"
    return None


def in_words(point: Sequence[float]) -> str:
    """R, A and S in whole mm."""
    return "(" + ", ".join(f"{x:.0f}" for x in point) + ")"


def _reach_in_words(volume: Volume) -> str:
    corners = np.array([*product(*((-0.5, size - 0.5) for size in volume.array.shape[::-1]), [1])])
    ends = np.sort(corners @ volume.ijk_to_ras.T, axis=0)[[0, -1], :3].T
    spans = (f"{axis} {low:.0f} to {high:.0f}" for axis, (low, high) in zip("RAS", ends, strict=True))
    return f"which spans {', '.join(spans)} mm; coordinates are RAS: turn the signs of the first two of LPS"


def _by(spacing_mm: np.ndarray) -> str:
    return " × ".join(f"{s:g}" for s in spacing_mm)
