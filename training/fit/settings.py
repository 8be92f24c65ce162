"""The settings of a training: read from a YAML file, overridden by `key=value` on the command line, and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from data.kinds import Kind
from data.plain import PlainError, check_keys
from data.targets import AIR_HU, Target, TargetError, load_kind, load_target
from fit.losses import LOSSES
from UNetPlusPlusSegmentLib.network.unetpp import ARCHITECTURES, WIDE_FILTERS

NEUTRAL = ("name", "runs", "threads")  # settings that do not change what a training learns
WEIGHTS = ("init_from", "teacher")


class SettingsError(ValueError):
    """A setting that cannot be used. The message names the setting and what is allowed."""


@dataclass(frozen=True)
class Settings:
    """Everything that determines a training; saved beside its checkpoints as `settings.yaml`."""

    name: str  # name of the run, and of its folder below `runs`
    target: str | dict[str, Any]  # a name in training/targets, the path of such a YAML file, or its contents
    data: str  # slice folder: images/, masks/, slices.csv
    # More slice folders of other kinds: from the name or YAML file of a target to a folder.
    also: dict[str, str] = field(default_factory=dict)
    even_folders: bool = False  # slices with the organ come from `data` and from each folder of `also` equally often
    teacher: str = ""  # checkpoint with the same labels, which marks in the training images what is unknown there
    runs: str = "runs"  # folder of the run folders
    # 1/3: hold out the first third of the people of `train`, validate on it, and train on the others. Empty: validate on `val`.
    fold: str = ""
    architecture: str = "unetpp_ds"  # UNet++ with deep supervision; any key of ARCHITECTURES
    filters: tuple[int, ...] = (32, 64, 128, 256, 512)  # of each level, from the top; wide_unet has its own
    batch_norm: bool = True
    init_from: str = ""  # bundle folder or checkpoint with the initial weights
    pixel_mm: float = 0.0  # side of the network's pixels; 0: that of the target or, if it has none, of the images
    patch: tuple[int, int] = (128, 160)  # rows and columns of a training patch
    batch_size: int = 4
    steps: int = 2000
    steps_per_epoch: int = 100  # each epoch ends with a validation and a checkpoint
    learning_rate: float = 1e-3  # AdamW's highest, reached after `warmup_steps`; it then falls to 0 along a cosine
    warmup_steps: int = 50
    weight_decay: float = 1e-2
    ema_decay: float = 0.99  # moving average of the weights, which is validated and shipped; 0: no average
    loss: str = "bce_dice"
    with_organ: float = 0.75  # share of the drawn slices that show the organ
    faint_hu: float = AIR_HU  # CT: slices whose organ has a mean below this make half of those drawn with the organ
    scale: tuple[float, float] = (0.7, 1.4)
    rotation_degrees: float = 15.0
    shift: float = 0.15  # largest shift from the middle of the slice, as a share of the patch's side
    roam: float = 0.0  # share of patches centred on a random pixel instead: half on the organ, half on anything but air
    flips: bool = False  # mirror images and quarter turns: wrong for an abdomen, where left and right differ
    gain: float = 0.2  # CT: contrast about the middle of the window, ± this share
    offset: float = 0.1  # CT: brightness, ± this share of the window
    gamma: tuple[float, float] = (0.7, 1.5)
    noise: float = 0.1  # largest standard deviation, as a share of the window
    sharpen: float = 0.0  # share of patches that are sharpened, as by another reconstruction kernel
    no_table: float = 0.0  # share of CT patches without the table behind the body
    recolour: float = 0.0  # share of CT patches with a brighter or darker organ
    bowel: float = 0.0  # share of CT patches with one to three loops of bowel drawn beside the organ
    paste: float = 0.0  # share of CT patches with a section of another organ pasted beside it (`beside` of the target)
    patience: int = 0  # stop after this many validations without a better Dice; 0: never
    validation_stride: int = 4  # validate on every N-th slice while training; evaluate.py takes all
    seed: int = 1
    threads: int = 0  # of torch; 0: all cores

    def __post_init__(self) -> None:
        self._check_names()
        self._check_target()
        self._check_ranges()
        self._check_pairs()
        object.__setattr__(self, "pixel_mm", self.pixel_mm or self.goal.pixel_mm)
        if self.steps % self.steps_per_epoch:
            raise SettingsError(
                f"steps={self.steps} must be a multiple of steps_per_epoch={self.steps_per_epoch}: steps after the last whole epoch"
                " would be neither validated nor saved."
            )

    def _check_names(self) -> None:
        for key, allowed in (("architecture", ARCHITECTURES), ("loss", LOSSES)):
            if getattr(self, key) not in allowed:
                raise SettingsError(f"{key}={getattr(self, key)!r} is unknown; it can be {', '.join(allowed)}.")

    def _check_target(self) -> None:
        try:
            name, channels = self.goal.name, self.goal.slices.channels
        except TargetError as error:
            raise SettingsError(str(error)) from error
        for key in self.also:
            try:
                fits = load_kind(key).channels == channels
            except TargetError as error:
                raise SettingsError(f"also: {key!r} is not a target: {error}") from error
            if not fits:
                raise SettingsError(
                    f"also: {key!r} and the target {name} have different images, CT and colour: remove {key!r} from `also`."
                )
        sided = [label.name for label in self.goal.labels if label.has_side]
        if self.flips and sided:
            raise SettingsError(
                f"flips=true: a mirror image would turn {sided[0]} into the one of the other side. Set flips=false."
            )

    @cached_property
    def goal(self) -> Target:
        """The target that `target` describes."""
        return load_target(self.target)

    @property
    def folders(self) -> list[tuple[str, Kind]]:
        """The slice folders and their kinds: `data`, then those of `also`."""
        return [(self.data, self.goal.slices), *((folder, load_kind(key)) for key, folder in self.also.items())]

    def _check_ranges(self) -> None:
        for key in ("batch_size", "steps", "steps_per_epoch", "validation_stride", "learning_rate"):
            if getattr(self, key) <= 0:
                raise SettingsError(f"{key}={getattr(self, key)} must be above zero.")
        for key in (
            "pixel_mm",
            "warmup_steps",
            "weight_decay",
            "patience",
            "threads",
            "shift",
            "gain",
            "offset",
            "seed",
        ):
            if getattr(self, key) < 0:
                raise SettingsError(f"{key}={getattr(self, key)} must not be below zero.")
        for key in ("with_organ", "roam", "no_table", "noise", "sharpen", "recolour", "bowel", "paste"):
            if not 0 <= getattr(self, key) <= 1:
                raise SettingsError(f"{key}={getattr(self, key)} is a share: it must lie between 0 and 1.")
        if not 0 <= self.ema_decay < 1:
            raise SettingsError(f"ema_decay={self.ema_decay} must be at least 0 and below 1, for example 0.99.")

    def _check_pairs(self) -> None:
        for key in ("scale", "gamma"):
            low, high = _pair(self, key)
            if not 0 < low <= high:
                raise SettingsError(
                    f"{key}={list(getattr(self, key))} must be two numbers above zero, the smaller one first."
                )
        if not _are_counts(_pair(self, "patch")):
            raise SettingsError(f"patch={list(self.patch)} must be two whole numbers above zero, rows and columns.")
        if len(self.filters) < 2 or not _are_counts(self.filters):
            raise SettingsError(
                f"filters={list(self.filters)} must be whole numbers above zero, one for each of two or more levels."
            )
        if self.even_folders and self.faint_hu > AIR_HU:
            raise SettingsError(
                "even_folders and faint_hu both say which slices are drawn equally often, which cannot hold together if a folder has no"
                " faint slices: give one of them."
            )

    @property
    def network_arguments(self) -> dict[str, Any]:
        """The arguments of `build_network` after the architecture; wide U-Net always has the paper's filters."""
        filters = WIDE_FILTERS if self.architecture == "wide_unet" else self.filters
        outside = {"in_channels": self.goal.slices.channels, "out_channels": len(self.goal.labels)}
        return {**outside, "filters": list(filters), "batch_norm": self.batch_norm}

    @property
    def splits(self) -> tuple[str, str]:
        """The splits to train on and to validate on."""
        return (f"train:-{self.fold}", f"train:{self.fold}") if self.fold else ("train", "val")

    @property
    def depth(self) -> int:
        """The deepest level of the network, X[0][depth]."""
        return len(self.network_arguments["filters"]) - 1

    @property
    def folder(self) -> Path:
        """The run folder, with checkpoints and logs."""
        return Path(self.runs) / self.name

    def save(self, path: Path) -> None:
        """Write the settings as YAML that `load_settings` reads back."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def differences_of(one: Settings, other: Settings, neutral: Collection[str] = NEUTRAL) -> list[str]:
    """The names of the settings that make two trainings differ; how a target describes its model and its sources does not count."""
    first, second = _compared(one), _compared(other)
    return [name for name in first if name not in neutral and first[name] != second[name]]


def _compared(settings: Settings) -> dict[str, Any]:
    """The settings by name: of a target what is learned from it, and of a path where it leads."""
    goal = settings.goal
    (data, *also) = [(Path(folder).resolve(), vars(kind) | {"sources": ()}) for folder, kind in settings.folders]
    labels = [(label.name, label.made_of) for label in goal.labels]
    weights = {key: value and Path(value).resolve() for key, value in vars(settings).items() if key in WEIGHTS}
    plain = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {**plain, **weights, "target": (labels, goal.window_hu, goal.beside, data[1]), "data": data[0], "also": also}


def load_settings(config: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Read a YAML file of settings and apply `key=value` overrides, whose values are YAML too; `key=` is the empty text.

    Raises:
        SettingsError: The file cannot be read, a key is not a setting (the message suggests the nearest one), or a value is wrong.
    """
    values = _read_yaml(config)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise SettingsError(f"{override!r} is not of the form key=value.")
        try:
            values[key] = yaml.safe_load(value) if value else ""  # YAML reads nothing as null
        except yaml.YAMLError as error:
            raise SettingsError(f"{override!r} cannot be read: {str(error).splitlines()[0]}") from error
    fields = {f.name: f for f in dataclasses.fields(Settings)}
    try:
        check_keys(values, fields, f"The settings {config}", what="setting")
    except PlainError as error:
        raise SettingsError(str(error)) from error
    return Settings(**{key: _as(fields[key], value) for key, value in values.items()})


def _read_yaml(config: str | Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(config).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"The settings {config} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"The settings {config} must be lines of `key: value`.")
    return values


def _pair(settings: Settings, key: str) -> tuple[float, float]:
    values = getattr(settings, key)
    if len(values) != 2 or not all(isinstance(value, (int, float)) for value in values):
        raise SettingsError(f"{key}={list(values)} must be two numbers.")
    return values


def _are_counts(values: Sequence[Any]) -> bool:
    return all(type(value) is int and value > 0 for value in values)


def _as(field: dataclasses.Field, value: Any) -> Any:
    """`value` in the field's type: lists become tuples, ints become floats."""
    kind = field.type.partition("[")[0]
    if kind == "tuple" and isinstance(value, list):
        return tuple(value)
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == "float" and isinstance(value, str):  # YAML reads 1e-3 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if type(value).__name__ not in kind.split(" | "):
        raise SettingsError(f"{field.name}={value!r} must be of type {field.type}.")
    if kind == "dict" and not all(isinstance(each, str) for pair in value.items() for each in pair):
        raise SettingsError(f"{field.name}={value!r} must be of type {field.type}.")
    return value
