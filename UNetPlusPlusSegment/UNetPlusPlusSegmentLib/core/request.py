"""Requests: the target and settings of a run, checked as far as possible without a volume. The standard library only."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import chain

SPEEDS = ("accurate", "balanced", "fast")
DEVICES = ("auto", "cpu", "cuda", "mps")

Point = tuple[float, float, float]
Rows = tuple[tuple[float, float, float, float], ...]


class RequestError(ValueError):
    """A request that is invalid whatever the volume; the message says why and what to do."""


@dataclass(frozen=True)
class Request:
    """A target and the settings of a run; the same object from the command line, the scene or a cohort down to the engine.

    Attributes:
        target: What to segment: the target of a model or one of its labels, such as `liver` or `left kidney` (`Card.labels_of`).
        also: Further targets; `network.parts` splits them among the models that they need.
        model: Name or folder of the model; None for the one that `network.bundle.choose_bundle` chooses.
        speed: `accurate` predicts every slice; `balanced` and `fast` locate the target first, with the settings of the model.
        threshold: Lowest probability, between 0 and 1, at which a voxel belongs to the target; None for the model's own.
        show_from: Lowest probability, between 0 and 1, at which a finding of a search without points is shown; None for the model's
            own. Only for models that give findings a probability.
        force: Accept a volume that does not look like CT.
        device: `auto`, `cpu`, `cuda` or `mps`.
        threads: Number of CPU threads that run the network, at most one for each core; None for torch's own setting, by default one
            for each core.
        box: Half-open ranges of voxels along K, J and I; nothing outside is segmented. None for the whole volume. Pairs of
            first and past-the-last index are converted to slices.
        turned: Where a box is turned against the voxels: three rows of four numbers. Of the voxels in `box`, only those are segmented for
            which each row times (k, j, i, 1) lies in −1…1. None for all of them.
        points: (R, A, S) in mm, each in a nodule or within 10 mm of one; only these nodules are segmented. Only models that find
            nodules accept points.

    Raises:
        RequestError: A value is invalid, or points and a box are given together.
    """

    target: str = "liver"
    _: KW_ONLY
    also: Collection[str] = ()
    model: str | None = None
    speed: str = "balanced"
    threshold: float | None = None
    show_from: float | None = None
    force: bool = False
    device: str = "auto"
    threads: int | None = None
    box: tuple[slice, slice, slice] | None = None
    turned: Rows | None = None
    points: tuple[Point, ...] = ()

    def __post_init__(self) -> None:
        if self.speed not in SPEEDS:
            raise RequestError(f"Unknown speed {self.speed!r}: choose one of {', '.join(SPEEDS)}.")
        check_device(self.device)
        if self.threads is not None:
            object.__setattr__(self, "threads", _as_count(self.threads))
        object.__setattr__(self, "force", bool(self.force))
        if self.threshold is not None:
            check_threshold(self.threshold)
            object.__setattr__(self, "threshold", float(self.threshold))
        if self.show_from is not None:
            check_show_from(self.show_from)
            object.__setattr__(self, "show_from", float(self.show_from))
        check_places(has_points=len(self.points) > 0, has_box=self.box is not None)
        if isinstance(self.also, str):
            raise RequestError(f"also={self.also!r} must be a list of targets, such as [{self.also!r}].")
        object.__setattr__(self, "also", tuple(self.also))
        if self.model is not None:
            object.__setattr__(self, "model", str(self.model))
        if self.box is not None:
            object.__setattr__(self, "box", as_box(self.box))
        if self.turned is not None:
            object.__setattr__(self, "turned", _as_rows(self.turned, self.box))
        object.__setattr__(self, "points", tuple(map(as_point, self.points)))

    @property
    def targets(self) -> tuple[str, ...]:
        """All targets: `target`, then `also`."""
        return (self.target, *self.also)

    def to_json(self) -> dict:
        """All attributes, in types for `json.dumps`."""
        box = None if self.box is None else [[along.start, along.stop] for along in self.box]
        return {**vars(self), "box": box}

    @classmethod
    def from_json(cls, message: Mapping) -> Request:
        """Restore a request from `to_json`."""
        return cls(**message)


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that is not a probability between 0 and 1.

    Raises:
        RequestError: It is not.
    """
    if not _is_share(threshold) or threshold in (0, 1):
        raise RequestError(f"The threshold must be a probability between 0 and 1, such as 0.5; got {threshold!r}.")


def check_show_from(probability: float) -> None:
    """Refuse a `show_from` that is not a probability.

    Raises:
        RequestError: It is not between 0 and 1.
    """
    if not _is_share(probability):
        raise RequestError(
            f"The lowest probability of a finding to show must be between 0 and 1, such as 0.5; got {probability!r}."
        )


def _is_share(number: float) -> bool:
    try:
        return 0 <= number <= 1
    except TypeError:  # it is text
        return False


def check_device(device: str) -> None:
    """Refuse an unknown device name.

    Raises:
        RequestError: It is not one of `DEVICES`.
    """
    if device not in DEVICES:
        raise RequestError(f"Unknown device {device!r}: choose one of {', '.join(DEVICES)}.")


def check_places(has_points: bool, has_box: bool) -> None:
    """Refuse points together with a box.

    Raises:
        RequestError: The request has both.
    """
    if has_points and has_box:
        raise RequestError(
            "Points and a box cannot be combined: give points to segment the nodules there, or a box to search in it."
        )


def as_box(box: Sequence) -> tuple[slice, slice, slice]:
    """Convert three half-open ranges of voxels to slices.

    Args:
        box: Slices, or pairs of first and past-the-last index, along K, J and I.

    Raises:
        RequestError: It is not such a box, or contains no voxel.
    """
    try:
        pairs = [(along.start, along.stop) if isinstance(along, slice) else along for along in box]
        k, j, i = (slice(operator.index(first), operator.index(stop)) for first, stop in pairs)
    except (TypeError, ValueError):
        k = j = i = slice(0, 0)
    if not all(0 <= along.start < along.stop for along in (k, j, i)):
        raise RequestError(
            f"{box} is not a valid box of voxels: give first and past-the-last index along K, J and I, such as"
            " ((0, 40), (100, 300), (50, 350))."
        )
    return k, j, i


def _as_rows(turned: Sequence[Sequence[float]], box: Sequence[slice] | None) -> Rows:
    try:
        rows = [tuple(map(float, row)) for row in turned]
    except (TypeError, ValueError):
        rows = []
    if box is None or [*map(len, rows)] != [4, 4, 4] or not all(map(math.isfinite, chain(*rows))):
        raise RequestError(
            f"{turned} does not say how a box is turned: give three rows of four numbers, and the box around it."
        )
    return tuple((k, j, i, offset) for k, j, i, offset in rows)


def as_point(point: Sequence[float]) -> Point:
    """Convert three numbers, R, A and S in mm, to a point.

    Raises:
        RequestError: They are not three finite numbers.
    """
    try:
        r, a, s = map(float, point)
    except (TypeError, ValueError):
        r = a = s = math.nan
    if not all(map(math.isfinite, (r, a, s))):
        raise RequestError(f"{point} is not a point: give three numbers, R, A and S in mm, for each point.")
    return r, a, s


def _as_count(threads: int) -> int:
    try:
        count = operator.index(threads)
    except TypeError:
        count = 0
    if count < 1:
        raise RequestError(f"The number of threads must be a whole number, 1 or more; got {threads!r}.")
    return count
