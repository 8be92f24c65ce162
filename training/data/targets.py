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
SIDES = re.compile(r"SCT\^(24028007\^Right|7771000\^Left)\b|(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)
DEEPEST = 99  # levels are lowered to the network's depth where that is smaller
# Step and change were measured on the liver.
SPEEDS = {
    "slices": {
        "accurate": Speed(DEEPEST, find_first=False),
        "balanced": Speed(DEEPEST, find_first=True, step_mm=4.0, change=0.04),
        "fast": Speed(DEEPEST, find_first=True, step_mm=8.0, change=0.08, margin_mm=40.0),
    },
    "nodule": {
        "accurate": Speed(DEEPEST, find_first=False),
        "balanced": Speed(DEEPEST, find_first=True),
        "fast": Speed(3, find_first=True),
    },
}


class TargetError(ValueError):
    """A description of a target that cannot be used. The message names the file, the reason and what is allowed."""


@dataclass(frozen=True)
class TargetLabel:
    """One output of the network.

    Attributes:
        name, terminology, color: Shown to users, as in a card.
        made_of: The structures whose pixels belong to the label.
        postprocessing: Of this label; None: that of the target.
        usual: The range, low and high, of `volume_ml` and `mean_hu` in most people; results outside it get a note.
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
            raise ValueError(f"the label {self.name} is made of nothing: name at least one structure in made_of.")
        if self.terminology.count("~") != 6 or self.terminology.count("^") < 4:
            raise ValueError(
                f"terminology={self.terminology!r} must have Slicer's seven parts: context~category~type~modifier~context~region~modifier."
            )
        if not all(0 <= part <= 255 for part in self.color):
            raise ValueError(f"color={list(self.color)} must be red, green and blue, each 0…255.")

    @property
    def has_side(self) -> bool:
        """True for the left or right one of a pair, whose mirror image is the other one."""
        return bool(SIDES.search(self.terminology) or SIDES.search(self.name))


@dataclass(frozen=True)
class Target:
    """A target: the labels that a network learns, and what the model's card says about them.

    Attributes:
        name: The name by which a request asks for it.
        labels: One for each output of the network. They may share structures, but in a label map each pixel has one label only.
        slices: How to read the slice folders from which it is learned.
        licence: Licence of the weights.
        intended_use, limits: Repeated in the card.
        engine: The part of the library that runs the model: `slices` or `nodule`.
        window_hu: HU at 0 and 1 of the network's input; None: those of `slices`.
        pixel_mm: Side of the network's pixels, unless the settings of a training give another; 0: the images' own pixels.
        postprocessing: Of the labels that have none of their own.
        priority: The names of all labels; where several claim a pixel, the first of them gets it. Empty: the most probable label
            gets it.
        beside: Structures that are easily mistaken for a label, where a folder marks them.
        speeds: What is computed at each speed; empty: the engine's default, `SPEEDS`.
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
            raise ValueError("the nodule engine needs a target with one label.")
        if self.window_hu is None:
            object.__setattr__(self, "window_hu", self.slices.window_hu)
        check_window(self.window_hu)
        if self.window_hu and not self.slices.window_hu:
            raise ValueError("window_hu is for CT: the slices are colour images, which have none.")
        if self.pixel_mm < 0:
            raise ValueError(f"pixel_mm={self.pixel_mm} must not be below zero.")
        if not self.speeds:
            object.__setattr__(self, "speeds", SPEEDS[self.engine])

    def only(self, names: Sequence[str]) -> Target:
        """The target with only the named labels, in that order.

        Raises:
            TargetError: It has no label of that name.
        """
        there = {label.name: label for label in self.labels}
        unknown = [name for name in names if name not in there]
        if unknown:
            raise TargetError(f"The target {self.name} has no label {unknown[0]!r}: it has {', '.join(there)}.")
        priority = tuple(name for name in self.priority if name in names)
        return replace(self, labels=tuple(there[name] for name in names), priority=priority)

    def _check_words(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name):
            raise ValueError(f"name={self.name!r} must be one word of lower-case letters and digits.")
        for key in ("licence", "intended_use"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key} is empty: fill it in.")

    def _check_labels(self) -> None:
        names = [label.name for label in self.labels]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"labels: there must be at least one, and no two with the same name; got {names}.")
        if self.priority and sorted(self.priority) != sorted(names):
            raise ValueError(
                f"priority={list(self.priority)} must list all labels, {', '.join(names)}, the one that wins first."
            )
        for label in self.labels:
            strange = [name for name in label.made_of if name not in self.slices.names]
            if strange:
                raise ValueError(
                    f"the label {label.name} is made of {strange[0]!r}, which is not one of the structures of `slices`,"
                    f" {', '.join(sorted(self.slices.names))}."
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
        """bool (labels, height, width): the labels in a stored mask (height, width) of a folder of this kind."""
        return np.stack([kind.table(label.made_of)[stored] for label in self.labels])

    def beside_in(self, stored: np.ndarray, kind: Kind) -> np.ndarray | None:
        """bool (height, width): the structures of `beside` in a stored mask; None if the kind marks none of them."""
        table = kind.table(self.beside)
        return table[stored] if table.any() else None

    def known(self, row: Mapping[str, str], kind: Kind) -> np.ndarray:
        """bool (labels,): the labels that a row's mask marks completely, so that unmarked pixels do not belong to them.

        Raises:
            KeyError: The row lacks a column that `unknown` refers to.
        """
        return np.array([kind.is_known(label.made_of, row) for label in self.labels])

    def to_hu(self, image: np.ndarray) -> np.ndarray:
        """8-bit CT pixels in the target's window as float32 HU. Pixels of 0 lay at or below the window's lower end and become air."""
        if self.window_hu is None:
            raise ValueError("Colour images have no HU.")
        low, high = self.window_hu
        hu = low + image.astype(np.float32) * np.float32((high - low) / 255)
        hu[image == 0] = AIR_HU
        return hu


def load_target(described: str | Mapping[str, Any]) -> Target:
    """Load a target from its name in `SHIPPED`, the path of a YAML file, or the contents of such a file.

    Raises:
        TargetError: There is no such target, or its description is wrong.
    """
    values, where = (described, "target") if isinstance(described, Mapping) else _read(described)
    try:
        return checked(Target, values, where)
    except PlainError as error:
        raise TargetError(str(error)) from error


def load_kind(described: str) -> Kind:
    """Load only the kind of slice folders, the part `slices` of a target; `described` is a name or a path as for `load_target`.

    Raises:
        TargetError: There is no such target, or this part of its description is wrong.
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
