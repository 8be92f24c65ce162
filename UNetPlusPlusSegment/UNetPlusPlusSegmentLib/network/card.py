"""The card of a model, `model.json`: all that inference has to know of a network. Standard library only.

How well the model does stands beside it, in `evaluation.json`, which inference never reads. A further field with a default
needs no new schema: an older version passes over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

SCHEMA = 3  # 1 stored kernels in fp16; 1 and 2 held the figures, too, and named one source of training data
REQUIRED = (
    "target", "architecture", "labels", "input", "threshold", "average_from", "postprocessing", "speeds", "sha256",
)  # fmt: skip
ENGINES = ("slices", "nodule")
AXIAL = "axial slices; rows run to posterior, columns to the patient's left"


class BundleError(ValueError):
    """A model folder that cannot be used; the message says which, why, and what to do."""


@dataclass(frozen=True)
class NetworkInput:
    """The image that the network sees: the side of its square pixels, and the HU that are mapped to 0 and 1."""

    pixel_mm: float
    window_hu: tuple[float, float]
    orientation: str = AXIAL


@dataclass(frozen=True)
class Architecture:
    """The arguments of `build_network`."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class PostProcessing:
    """The steps that follow the threshold, in this order."""

    largest_component: bool = False
    fill_holes: bool = False


@dataclass(frozen=True)
class Label:
    """The meaning of a value in the mask, with Slicer's terminology string and colour (0…255).

    Its own post-processing takes the place of the card's.
    """

    value: int
    name: str
    terminology: str
    color: tuple[int, int, int]
    postprocessing: PostProcessing | None = None


@dataclass(frozen=True)
class Speed:
    """The work that a model does at one speed.

    Attributes:
        level: Deepest head X[0][level]; the heads from `Card.average_from` (at most it) up to it are averaged.
        find_first: A coarse pass finds the organ, so that the network runs only there.
        step_mm: Largest distance between the slices that are predicted first; 0 for every slice.
        change: Between two of them whose masks differ by more than this (1 − Dice), the slice in the middle is predicted too, and
            so on; the rest are interpolated.
        margin_mm: Margin around the organ that the network sees, once the coarse pass has found it.
    """

    level: int
    find_first: bool
    step_mm: float = 0.0
    change: float = 0.0
    margin_mm: float = 80.0


@dataclass(frozen=True)
class Decision:
    """A logistic regression that says how likely a finding is one, from what it looks like.

    Attributes:
        intercept, weights: Of the log-odds; the weights by the names of `nodule.decision.features`.
        least: Probability of a finding that is shown, at least.
    """

    intercept: float
    weights: dict[str, float]
    least: float


@dataclass(frozen=True)
class Source:
    """Data that a model was trained on, with its licence and how it wants to be cited."""

    name: str
    licence: str = ""
    citation: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """All that `model.json` says.

    Attributes:
        name: With version, `liver-ct-v1.0.0`; that of the folder, once there is one.
        target: As a request names it: `liver`, `nodule`, or another one.
        engine: The engine that runs it: `slices` each slice by itself, `nodule` what is pointed at, or found in a chest.
        labels: One for each output channel of the network; in a label map they exclude each other.
        priority: The names of all labels: of two that claim a pixel the first one gets it. Without it, the more probable one.
        threshold: Least probability of a pixel that belongs to the label.
        average_from: The shallowest head that is averaged: with shallower ones the mask was worse when the model was evaluated.
        speeds: By name: `accurate`, `balanced`, `fast`.
        decision: Of a nodule model, which of its findings are shown; without one all are.
        licence: Of the weights.
        sha256: Of weights.pt, in hexadecimal.
    """

    name: str = ""
    target: str
    engine: str = "slices"
    labels: tuple[Label, ...]
    priority: tuple[str, ...] = ()
    input: NetworkInput
    architecture: Architecture
    threshold: float
    average_from: int
    postprocessing: PostProcessing
    speeds: dict[str, Speed]
    decision: Decision | None = None
    training_data: tuple[Source, ...] = ()
    licence: str = ""
    intended_use: str = ""
    limits: tuple[str, ...] = ()
    sha256: str = ""

    def __post_init__(self) -> None:
        self._check_labels()
        if self.engine not in ENGINES:
            raise ValueError(f"it is for an engine {self.engine!r}, which this version has not")
        if self.architecture.arguments.get("out_channels", 1) != len(self.labels):
            raise ValueError("its network has another number of outputs than it has labels")
        if self.depth < 1:
            raise ValueError("its network has fewer than two levels")

    def _check_labels(self) -> None:
        if not self.labels:
            raise ValueError("it has no label")
        values, names = ({getattr(label, part) for label in self.labels} for part in ("value", "name"))
        if len(values) < len(self.labels) or len(names) < len(self.labels) or not values <= {*range(1, 256)}:
            raise ValueError("each of its labels needs a name and a value, 1 to 255, of its own")
        if self.priority and sorted(self.priority) != sorted(names):
            raise ValueError("its priority does not name each label once")
        if self.engine == "nodule" and len(self.labels) > 1:
            raise ValueError("the nodule engine takes a network of one label")

    @property
    def pixel_mm(self) -> float:
        """Side of the network's pixels in mm."""
        return self.input.pixel_mm

    @property
    def window_hu(self) -> tuple[float, float]:
        """HU that are mapped to 0 and 1 for the network."""
        return self.input.window_hu

    @property
    def depth(self) -> int:
        """The deepest level of the network, X[0][depth]."""
        return len(self.architecture.arguments["filters"]) - 1

    def speed(self, name: str) -> Speed:
        """The settings of `accurate`, `balanced` or `fast` for this model."""
        if name not in self.speeds:
            raise BundleError(f"The model {self.name} has no speed {name!r}; it has {', '.join(self.speeds)}.")
        return self.speeds[name]

    def as_json(self) -> dict[str, Any]:
        """The card as `model.json` holds it and `card_from_json` reads it."""
        values = asdict(self)
        return {"schema": SCHEMA, **{field.name: values[field.name] for field in fields(Card)}}


def card_from_json(stored: Mapping[str, Any]) -> Card:
    """A card of any schema up to today's.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: A part is missing, or not as it has to be.
    """
    given, sources = stored["input"], stored.get("training_data", ())
    low, high = given["window_hu"]
    return Card(
        name=stored.get("name", ""),
        target=stored["target"],
        engine=stored.get("engine") or ("nodule" if stored["target"] == "nodule" else "slices"),  # cards without it
        labels=tuple(map(_label, stored["labels"])),
        priority=tuple(stored.get("priority", ())),
        input=NetworkInput(float(given["pixel_mm"]), (float(low), float(high)), given.get("orientation", AXIAL)),
        architecture=Architecture(**stored["architecture"]),
        threshold=float(stored["threshold"]),
        average_from=int(stored["average_from"]),
        postprocessing=PostProcessing(**stored["postprocessing"]),
        speeds={name: Speed(**speed) for name, speed in stored["speeds"].items()},
        decision=Decision(**stored["decision"]) if stored.get("decision") else None,
        training_data=tuple(Source(**source) for source in ([sources] if isinstance(sources, Mapping) else sources)),
        licence=stored.get("licence", ""),
        intended_use=stored.get("intended_use", ""),
        limits=tuple(stored.get("limits", ())),
        sha256=stored.get("sha256", ""),
    )


def _label(stored: Mapping[str, Any]) -> Label:
    own = stored.get("postprocessing")
    steps = None if own is None else PostProcessing(**own)
    return Label(**{**stored, "color": tuple(stored["color"]), "postprocessing": steps})
