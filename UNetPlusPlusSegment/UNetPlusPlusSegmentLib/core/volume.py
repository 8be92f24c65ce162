"""Volumes: voxels with their position in the patient, and checks that they are CT. NumPy only; knows no Slicer and no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np

from .note import Note, in_words
from .request import Rows

AIR_HU = -1024
PADDING_HU = -1500  # at or below this nothing was measured: scanners fill the corners of a slice with -2000, -3024, …
OUTSIDE_HU = -500  # lower values are air or lung, higher ones the body
FAT_HU = -50  # fat and air are below
LEAST_FAT_OR_AIR = 0.001  # as a share of the voxels; crops of 3 to 8 cm around a liver have at least 0.005, MR has none
ANYWAY = (
    " If this is one, run it anyway: with --force on the command line, force=True in Python, or the check box under Advanced in the"
    " panel."
)
SPACING_RANGE_MM = (0.01, 100.0)


class VolumeError(ValueError):
    """A volume that cannot be segmented; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels and their position in the patient.

    Attributes:
        array: Shape (K, J, I), slices first, of any integer or floating type; not copied.
        ijk_to_ras: 4 × 4 float64, read-only, in mm towards Right, Anterior, Superior. Its columns are in the opposite order to the
            array axes: I, J, K, then the centre of voxel (0, 0, 0). The grid may be oblique, flipped or sheared.

    Raises:
        VolumeError: The array is not three-dimensional, is empty or does not hold real numbers; or the matrix is not
            finite or not invertible.
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
        """Distance between neighbouring voxels along I, J and K, in mm."""
        return np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3]))) / 1000


def crop(volume: Volume, box: tuple[slice, ...]) -> Volume:
    """Crop a volume to a box of voxels (K, J, I). Its position in the patient is kept, and no voxel is copied."""
    ijk_to_ras = volume.ijk_to_ras.copy()
    ijk_to_ras[:3, 3] += ijk_to_ras[:3, :3] @ [along.start for along in reversed(box)]
    return Volume(volume.array[box], ijk_to_ras)


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box that contains every True voxel; None if there is none."""
    ranges: tuple[slice, ...] = ()
    for axis in range(mask.ndim):  # each axis is searched only inside the ranges found before
        hit = np.flatnonzero(mask[ranges].any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not len(hit):
            return None
        ranges += (slice(int(hit[0]), int(hit[-1]) + 1),)
    return ranges


def wider(box: Sequence[slice], margins: Iterable[int]) -> tuple[slice, ...]:
    """A box with a margin of voxels along each axis; it ends where the array begins, and may go on beyond its end."""
    return tuple(slice(max(0, along.start - m), along.stop + m) for along, m in zip(box, margins, strict=True))


@dataclass(frozen=True)
class AxialOrder:
    """How to turn an array (K, J, I) so that its axes run towards the patient's Superior, Posterior and Left.

    The training slices have this order: the first slice is the lowest, row 0 is anterior, column 0 is at the patient's right.

    Attributes:
        axes: The array axes (0 is K, 1 is J, 2 is I) that become slice, row and column.
        flips: For slices, rows and columns: True if the array axis runs the opposite way.
        spacing_mm: Distance between slices, rows and columns.
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
    """Find the axial order of a volume: its slices run along the array axis closest to Superior.

    The other two axes become rows and columns, whichever way round is closer to Posterior and Left, so that each array
    axis is used once, even on oblique grids. At 45°, where two axes are equally close, the first in (K, J, I) is taken.
    """
    directions = (volume.ijk_to_ras[:3, :3] / volume.spacing_mm)[:, ::-1]  # columns K, J, I
    right, anterior, superior = directions.round(9)  # rounded, so that 45° is a tie despite rounding errors
    towards = np.array([superior, -anterior, -right])
    nearness = np.abs(towards)
    slices = int(nearness[0].argmax())
    rows, columns = max(
        permutations([axis for axis in range(3) if axis != slices]),
        key=lambda pair: nearness[1, pair[0]] + nearness[2, pair[1]],
    )
    axes = (slices, rows, columns)
    flips = tuple((towards[[0, 1, 2], axes] < 0).tolist())
    return AxialOrder(axes, flips, tuple(volume.spacing_mm[::-1][list(axes)].tolist()))


def tilt_degrees(volume: Volume) -> float:
    """The angle between the slices of a volume and axial ones; that of a sheared grid, too, is about their plane."""
    _, row, column = (volume.ijk_to_ras[:3, 2 - axis] for axis in axial_order(volume).axes)
    normal = np.cross(row, column)
    return float(np.degrees(np.arctan2(np.hypot(*normal[:2]), abs(normal[2]))))


def index_of(volume: Volume, point: Sequence[float]) -> np.ndarray:
    """Continuous index (K, J, I) of a point, clipped to the centres of the border voxels.

    Args:
        volume: Any.
        point: R, A, S in mm.

    Raises:
        VolumeError: It lies outside the volume.
    """
    index = np.linalg.solve(volume.ijk_to_ras, [*point, 1])[2::-1]
    if (index < -0.5).any() or (index > np.array(volume.array.shape) - 0.5).any():
        r, a, s = (f"{x:g}" for x in point)
        raise VolumeError(f"The point ({r}, {a}, {s}) lies outside this volume, {_reach_in_words(volume)}.")
    return np.clip(index, 0, np.array(volume.array.shape) - 1)


def places_between(volume: Volume, corner: Sequence[float], opposite: Sequence[float]) -> dict[str, Any]:
    """What a request says of a box along R, A and S: `box`, the voxels (K, J, I) around it, and `turned`, as on an oblique grid.

    Args:
        volume: Any.
        corner, opposite: R, A, S in mm.

    Raises:
        VolumeError: The box contains no voxel.
    """
    corners = np.array([*product(*zip(corner, opposite, strict=True))])
    indices = np.linalg.solve(volume.ijk_to_ras, np.column_stack([corners, np.ones(8)]).T)[2::-1]
    first = np.maximum(np.ceil(indices.min(axis=1) - 1e-6), 0).astype(int)  # only voxels whose centres lie inside
    stop = np.minimum(np.floor(indices.max(axis=1) + 1e-6) + 1, volume.array.shape).astype(int)
    box = tuple(map(slice, first.tolist(), stop.tolist()))
    from_centre, (low, high) = np.eye(4), np.sort([corner, opposite], axis=0)
    from_centre[:3, 3] = -(low + high) / 2
    has_voxels = (first < stop).all()
    turned = turned_in(box, from_centre @ volume.ijk_to_ras, (high - low) / 2) if has_voxels else None
    if not has_voxels or not inside_box(box, turned).any():
        raise VolumeError(
            f"The box from {in_words(corner)} to {in_words(opposite)} contains no voxel of this volume,"
            f" {_reach_in_words(volume)}."
        )
    return {"box": box, "turned": turned}


def turned_in(box: Sequence[slice], ijk_to_user: np.ndarray, half: np.ndarray) -> Rows | None:
    """How a box of the user is turned against the voxels, as in `Request.turned`; None if it contains all of the box of voxels.

    Args:
        box: The box of voxels (K, J, I) around it.
        ijk_to_user: 4 × 4, from voxels to coordinates along the edges of the user's box, from its centre, in mm.
        half: Half of its size along these, in mm.
    """
    half = half + 1e-4  # a voxel on a face is inside despite rounding errors
    rows = ijk_to_user[:3, [2, 1, 0, 3]] / half[:, np.newaxis]
    corners = np.array([*product(*((along.start, along.stop - 1) for along in box), [1])])
    if (np.abs(corners @ rows.T) <= 1).all():
        return None
    return tuple((k, j, i, offset) for k, j, i, offset in rows.tolist())


def inside_box(box: Sequence[slice], turned: Rows | None) -> np.ndarray:
    """bool, of the shape of `box`, True for the voxels that a request with `box` and `turned` is about."""
    inside = np.ones([along.stop - along.start for along in box], bool)
    j, i = np.ogrid[tuple(box[1:])]
    for k, plane in enumerate(inside, start=box[0].start):  # slice by slice, as whole arrays of float64 would be large
        for through, down, across, offset in turned or ():
            plane &= np.abs(through * k + down * j + across * i + offset) <= 1
    return inside


def axial_volume(volume: Volume) -> Volume:
    """The same volume in axial order: a view of its voxels, with the matching matrix."""
    order = axial_order(volume)
    matrix = np.eye(4)
    matrix[:3, 3] = volume.ijk_to_ras[:3, 3]
    for column, (axis, flip) in enumerate(zip(reversed(order.axes), reversed(order.flips), strict=True)):
        step = volume.ijk_to_ras[:3, 2 - axis]
        matrix[:3, column] = -step if flip else step
        matrix[:3, 3] += step * (volume.array.shape[axis] - 1) * flip
    return Volume(order.apply(volume.array), matrix)


def check_ct(volume: Volume, force: bool = False, hint: str = ANYWAY) -> list[Note]:
    """Refuse a volume that cannot be CT in Hounsfield units, before time is spent on it.

    Args:
        volume: As read, padding included.
        force: Accept values that do not look like CT.
        hint: What to do with a CT that does not look like one, at the end of the message.

    Returns:
        Notes for the user, if the run was forced or the volume has only one slice.

    Raises:
        VolumeError: The voxel size is impossible, no value is finite, or (unless forced) the values are not HU.
    """
    low, high = SPACING_RANGE_MM
    if not all(low <= spacing <= high for spacing in volume.spacing_mm):
        raise VolumeError(
            f"The voxel size is {_by(volume.spacing_mm)} mm, which is impossible for CT ({low:g} to {high:g} mm)."
            " Correct the spacing of the volume, or export it again from its source."
        )
    notes = []
    reason = _why_not_ct(volume.array)
    if reason and not force:
        raise VolumeError(f"This does not look like CT in Hounsfield units: {reason}. Choose a CT volume.{hint}")
    if reason:
        notes.append(Note("forced", f"The run was forced, although this does not look like CT: {reason}."))
    order = axial_order(volume)
    if volume.array.shape[order.axes[0]] == 1:
        text = f"There is only one slice; it is assumed to be {order.spacing_mm[0]:g} mm thick."
        notes.append(Note("one-slice", text))
    return notes


def clean_hu(array: np.ndarray) -> tuple[np.ndarray, list[Note]]:
    """Replace voxels without a measurement (NaN, infinity, padding) by air.

    Args:
        array: CT in HU, three-dimensional, in axial order where the note matters; not changed.

    Returns:
        The values as int16 (integers, clipped to its range) or float32, which is the array itself if nothing had to change; and a
        note for the user if voxels inside the body, not only around the field of view, had no measurement.
    """
    is_float, limits = array.dtype.kind == "f", np.iinfo(np.int16)
    kind = np.dtype(np.float32 if is_float else np.int16)
    clips = not is_float and not np.can_cast(array.dtype, kind)
    same = array.dtype == kind
    cleaned = array if same else np.empty(array.shape, kind)
    inside, blank = 0, np.zeros(len(array), bool)
    for k in range(len(array)):  # slice by slice, as intermediate arrays of the whole volume would double the memory
        here = array[k : k + 1]
        with np.errstate(over="ignore", invalid="ignore"):
            here = (here.clip(limits.min, limits.max) if clips else here).astype(kind, copy=False)
            nothing = ~np.isfinite(here) | (here <= PADDING_HU) if is_float else here <= PADDING_HU
        found, blank[k] = nothing.any(), nothing.all()
        if found and cleaned is array:
            cleaned = array.copy()
        if found or not same:
            cleaned[k : k + 1] = np.where(nothing, np.asarray(AIR_HU, kind), here)
        inside += _enclosed(nothing[0], here[0])
    inside += _between(blank) * array[0].size
    if not inside:
        return cleaned, []
    share = f"{100 * inside / array.size:.2g} %"
    text = (
        f"{inside} voxels ({share}) inside the body have no measured value (padding, NaN or infinity) and were treated as"
        " air."
    )
    return cleaned, [Note("padding", text)]


def _enclosed(nothing: np.ndarray, hu: np.ndarray) -> int:
    """Count the pixels without measurement in a slice that cannot reach its border straight through air or other such pixels."""
    if not nothing.any() or nothing.all():
        return 0
    with np.errstate(invalid="ignore"):
        free = nothing | (hu < OUTSIDE_HU)
    reached = np.zeros_like(free)
    for axis in (0, 1):
        reached |= np.logical_and.accumulate(free, axis)
        reached |= np.flip(np.logical_and.accumulate(np.flip(free, axis), axis), axis)
    return int(np.count_nonzero(nothing & ~reached))


def _between(blank: np.ndarray) -> int:
    """Count the blank slices that lie between slices with measurements."""
    measured = np.flatnonzero(~blank)
    return int(np.count_nonzero(blank[measured[0] : measured[-1]])) if len(measured) else 0


def _check_array(array: np.ndarray) -> None:
    if array.ndim == 4 and array.shape[-1] in (3, 4) and array.dtype == np.uint8:
        raise VolumeError(f"This is a colour image (RGB, shape {array.shape}), not a CT: choose a greyscale volume.")
    if array.ndim != 3:
        raise VolumeError(
            f"This volume has {array.ndim} dimensions (shape {array.shape}); a CT has 3: slices, rows and columns."
            " Choose one frame of a sequence, or one channel of a multi-channel image."
        )
    if not array.size:
        raise VolumeError(f"This volume has no voxels (shape {array.shape}): choose another volume.")
    if array.dtype.kind not in "iuf":
        raise VolumeError(f"The voxels of this volume are not real numbers ({array.dtype}): choose another volume.")


def _check_matrix(matrix: np.ndarray) -> None:
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or (matrix[3] != (0, 0, 0, 1)).any():
        raise VolumeError(
            "The position of this volume is invalid: ijk_to_ras must be a 4 × 4 matrix of finite numbers with last row"
            f" 0 0 0 1, got {matrix.tolist()}. Correct it, or export the volume again from its source."
        )
    spacing_mm = np.linalg.norm(matrix[:3, :3], axis=0)
    if abs(np.linalg.det(matrix[:3, :3])) <= 1e-6 * spacing_mm.prod():
        raise VolumeError(
            f"The voxel grid of this volume is flat: its voxels measure {_by(spacing_mm)} mm, and its axes do not span three dimensions."
            " Correct its spacing and directions, or export it again from its source."
        )


def _why_not_ct(array: np.ndarray) -> str | None:
    """Why the values cannot be CT, with the range found; None if they can be."""
    lowest, highest, fat_or_air, count = np.inf, -np.inf, 0, 0
    for here in array:
        finite = here[np.isfinite(here)] if array.dtype.kind == "f" else here
        if finite.size:
            lowest, highest = min(lowest, finite.min()), max(highest, finite.max())
            fat_or_air += np.count_nonzero((finite > PADDING_HU) & (finite <= FAT_HU))
            count += finite.size
    if not count:
        raise VolumeError(
            "This volume contains no finite values, only NaN or infinity: export it again from its source."
        )
    found = f"its values range from {lowest:g} to {highest:g}"
    if array.dtype.itemsize == 1:
        return f"{found} in 8 bits ({array.dtype}), too few bits for HU"
    if lowest >= 0:
        return f"{found}, none below 0, where air (-1000 HU) and fat (-100 HU) lie"
    share = fat_or_air / count
    if share < LEAST_FAT_OR_AIR:
        return f"{found}, and only {share:.2%} of them are air or fat ({PADDING_HU} to {FAT_HU} HU)"
    return None


def _reach_in_words(volume: Volume) -> str:
    corners = np.array([*product(*((-0.5, size - 0.5) for size in volume.array.shape[::-1]), [1])])
    ends = np.sort(corners @ volume.ijk_to_ras.T, axis=0)[[0, -1], :3].T
    spans = (f"{axis} {low:.0f} to {high:.0f}" for axis, (low, high) in zip("RAS", ends, strict=True))
    return f"which spans {', '.join(spans)} mm. Coordinates are RAS; from LPS, change the sign of the first two"


def _by(spacing_mm: np.ndarray) -> str:
    return " × ".join(f"{s:g}" for s in spacing_mm)
