"""Targets: what a network learns to find, as the YAML files of training/targets describe it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data.kinds import Kind, check_window
from data.plain import PlainError, checked
from UNetPlusPlusSegmentLib.network.card import ENGINES, PostProcessing, Speed, check_usual

AIR_HU = -1000.0
FOLDER = Path(__file__).resolve().parents[1] / "targets"
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SIDES = re.compile(r"SCT\^(24028007\^Right|7771000\^Left)\b|\b(left|right)\b", re.IGNORECASE)
# As deep as the network is where it is less. Distances and changes are those measured on the liver.
SPEEDS = {
    "slices": {
        "accurate": Speed(4, find_first=False),
        "balanced": Speed(4, find_first=True, step_mm=4.0, change=0.04),
        "fast": Speed(4, find_first=True, step_mm=8.0, change=0.08, margin_mm=40.0),
    },
    "nodule": {
        "accurate": Speed(4, find_first=False),
        "balanced": Speed(4, find_first=True),
        "fast": Speed(3, find_first=True),
    },
}


class TargetError(ValueError):
    """A description of a target that cannot be used: which file, why, and what is allowed."""


@dataclass(frozen=True)
class TargetLabel:
    """One output of the network.

    Attributes:
        name, terminology, color: For the user, as in a card.
        made_of: The structures whose pixels belong to it.
        postprocessing: Its own; that of the target if None.
        usual: Low and high end of the `volume_ml` and `mean_hu` that most people have, for a note about others.
    """

    name: str
    terminology: str
    color: tuple[int, int, int]
    made_of: tuple[str, ...]
    postprocessing: PostProcessing | None = None
    usual: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_usual(self.usual)
        if not self.made_of:
            raise ValueError(f"the label {self.name} is made of nothing.")
        if self.terminology.count("~") != 6 or self.terminology.count("^") < 4:
            raise ValueError(
                f"terminology={self.terminology!r} must be Slicer's seven parts: context~category~type~modifier~context~region~modifier."
            )
        if not all(0 <= part <= 255 for part in self.color):
            raise ValueError(f"color={list(self.color)} must be red, green and blue, each 0…255.")

    @property
    def has_side(self) -> bool:
        """True if a mirror image of it is another label."""
        return bool(SIDES.search(self.terminology) or SIDES.search(self.name))


@dataclass(frozen=True)
class Target:
    """A target: the labels that a network learns, and all that a card says of them.

    Attributes:
        name: As a request names it.
        labels: One for each output of the network. They exclude each other in a label map, and may share structures.
        slices: The kind of the slice folders that it is learned from, and how they are read.
        licence: Of the weights.
        intended_use, limits: As a card says them.
        engine: The part of the library that runs it: a key of `SPEEDS`.
        window_hu: HU at 0 and 1 of the network's input; that of `slices` if None.
        pixel_mm: Side of the network's pixels, unless a training says another; 0: the images' own.
        postprocessing: Of each label that has none of its own.
        priority: The names of all labels: of two that claim a pixel the first one gets it. Without it, the more probable one.
        beside: Structures that are easily mistaken for a label, where a folder marks them.
        speeds: The work done at each speed; the engine's usual ones if empty.
    """

    name: str
    labels: tuple[TargetLabel, ...]
    slices: Kind
    licence: str
    intended_use: str
    limits: tuple[str, ...]
    engine: str = "slices"
    window_hu: tuple[float, float] | None = None
    pixel_mm: float = 0.0
    postprocessing: PostProcessing = field(default_factory=PostProcessing)
    priority: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    speeds: dict[str, Speed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_words()
        self._check_labels()
        if self.engine not in ENGINES:
            raise ValueError(f"engine={self.engine!r} is unknown; it can be {', '.join(ENGINES)}.")
        if self.engine == "nodule" and len(self.labels) > 1:
            raise ValueError("the nodule engine takes a network of one label.")
        if self.window_hu is None:
            object.__setattr__(self, "window_hu", self.slices.window_hu)
        check_window(self.window_hu)
        if self.window_hu and not self.slices.window_hu:
            raise ValueError("colour images have no window_hu.")
        if self.pixel_mm < 0:
            raise ValueError(f"pixel_mm={self.pixel_mm} must not be below zero.")
        if not self.speeds:
            object.__setattr__(self, "speeds", SPEEDS[self.engine])

    def only(self, names: Sequence[str]) -> Target:
        """The target with some of its labels, in the order of their names.

        Raises:
            TargetError: It has no such label.
        """
        there = {label.name: label for label in self.labels}
        unknown = [name for name in names if name not in there]
        if unknown:
            raise TargetError(f"The target {self.name} has no label {unknown[0]!r}: it has {', '.join(there)}.")
        priority = tuple(name for name in self.priority if name in names)
        return replace(self, labels=tuple(there[name] for name in names), priority=priority)

    def _check_words(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name):
            raise ValueError(f"name={self.name!r} must be one word of small letters and digits.")
        for key in ("licence", "intended_use"):
            if not getattr(self, key).strip():
                raise ValueError(f"it must say its {key}.")

    def _check_labels(self) -> None:
        names = [label.name for label in self.labels]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"labels: each needs a name of its own; got {names}.")
        if self.priority and sorted(self.priority) != sorted(names):
            raise ValueError(
                f"priority={list(self.priority)} must be all labels, {', '.join(names)}, the first to win first."
            )
        for label in self.labels:
            strange = [name for name in label.made_of if name not in self.slices.names]
            if strange:
                raise ValueError(
                    f"the label {label.name} is made of {strange[0]!r}, which is no structure of `slices`;"
                    f" there are {', '.join(sorted(self.slices.names))}."
                )
        self._check_shared_structures()

    def _check_shared_structures(self) -> None:
        for one, other in combinations(self.labels, 2):
            shared = set(one.made_of) & set(other.made_of)
            if shared and not self.priority:
                raise ValueError(
                    f"the labels {one.name} and {other.name} share {', '.join(sorted(shared))}: say in `priority` which one wins."
                )

    def masks(self, stored: np.ndarray, kind: Kind) -> np.ndarray:
        """bool (labels, height, width) of a stored mask (height, width) of a folder of some kind."""
        return np.stack([kind.table(label.made_of)[stored] for label in self.labels])

    def beside_in(self, stored: np.ndarray, kind: Kind) -> np.ndarray | None:
        """bool (height, width): what is easily mistaken for a label; None if the kind marks nothing of it."""
        table = kind.table(self.beside)
        return table[stored] if table.any() else None

    def known(self, row: Mapping[str, str], kind: Kind) -> np.ndarray:
        """bool (labels,): which of the labels a slice shows in full, or shows to be absent.

        Raises:
            KeyError: The row lacks a column that says so.
        """
        return np.array([kind.is_known(label.made_of, row) for label in self.labels])

    def to_hu(self, image: np.ndarray) -> np.ndarray:
        """8-bit CT pixels in the target's window as float32 HU; 0 is what lay below the window, so it becomes air."""
        if self.window_hu is None:
            raise ValueError("Colour images have no HU.")
        low, high = self.window_hu
        hu = low + image.astype(np.float32) * np.float32((high - low) / 255)
        hu[image == 0] = AIR_HU
        return hu


def load_target(described: str | Mapping[str, Any]) -> Target:
    """The target of a name of `SHIPPED`, of a YAML file, or of the mapping that one holds.

    Raises:
        TargetError: There is none, or its description is not as it has to be.
    """
    values, where = (described, "target") if isinstance(described, Mapping) else _read(described)
    try:
        return checked(Target, values, where)
    except PlainError as error:
        raise TargetError(str(error)) from error


def load_kind(described: str) -> Kind:
    """The kind of slice folders that is described under `slices` in such a file, which need not hold more.

    Raises:
        TargetError: As of `load_target`.
    """
    values, where = _read(described)
    try:
        return checked(Kind, values.get("slices"), f"{where}: slices")
    except PlainError as error:
        raise TargetError(str(error)) from error


def _read(described: str) -> tuple[Mapping[str, Any], str]:
    """The contents of a file, and its path."""
    is_file = described.endswith((".yaml", ".yml"))
    if not is_file and described not in SHIPPED:
        raise TargetError(f"target={described!r} is unknown; it can be {', '.join(SHIPPED)}, or a YAML file.")
    path = Path(described) if is_file else FOLDER / f"{described}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TargetError(f"The target {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping):
        raise TargetError(f"The target {path} must be lines of `key: value`.")
    return values, str(path)
