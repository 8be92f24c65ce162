"""The card of a model, `model.json`: all that inference has to know of a network. Standard library only.

How well the model does stands beside it, in `evaluation.json`, which inference never reads. A further field with a default
needs no new schema: an older version passes over it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

SCHEMA = 3  # 1 stored kernels in fp16; 1 and 2 held the figures, too, and named one source of training data
REQUIRED = (
    "target", "architecture", "labels", "input", "threshold", "average_from", "postprocessing", "speeds", "sha256",
)  # fmt: skip
NODULE = "nodule"  # the only engine that takes points
ENGINES = ("slices", NODULE)
MEASURED = ("volume_ml", "mean_hu")  # what may be usual or not
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
    """The steps that follow the threshold, in this order.

    Attributes:
        largest_component: Keep the largest part alone.
        least_part: Drop each part that weighs less than this share of the heaviest one; 0 drops none. A part weighs what the
            probability of its pixels exceeds the threshold by: it has to be large and probable.
        least_part_at_end: The same for parts on the first or last slice, which may be one beyond it; None: `least_part`.
        fill_holes: Fill what a label encloses.
    """

    largest_component: bool = False
    least_part: float = 0.0
    least_part_at_end: float | None = None
    fill_holes: bool = False

    def __post_init__(self) -> None:
        for share in (self.least_part, self.least_part_at_end or 0.0):
            if not 0 <= share <= 1:
                raise ValueError(f"a part weighs a share of the heaviest one, 0…1; got {share}.")


@dataclass(frozen=True)
class ExpectedDice:
    """The way from the signs of a result (`engine.trust`) to the Dice that it is expected to have, at one speed.

    Attributes:
        intercept, weights: Of ln(1 − Dice), by the name of a sign.
        low, high: Added to it for the ends of the range that holds the Dice of eight people in ten.
    """

    intercept: float
    weights: dict[str, float]
    low: float
    high: float


def check_usual(usual: Mapping[str, tuple[float, float]]) -> None:
    """Refuse ranges of what is not measured, and empty ones.

    Raises:
        ValueError: There is one.
    """
    for name, (low, high) in usual.items():
        if name not in MEASURED or low >= high:
            raise ValueError(f"usual: {name}={[low, high]} must be low and high end of {' or '.join(MEASURED)}.")


@dataclass(frozen=True)
class Label:
    """The meaning of a value in the mask, with Slicer's terminology string and colour (0…255).

    Attributes:
        postprocessing: In place of the card's.
        usual: By the name of a measurement (`volume_ml`, `mean_hu`), low and high end of the range beyond which a note says that it
            is unusual.
        expected_dice: By speed; none if it was not fitted.
    """

    value: int
    name: str
    terminology: str
    color: tuple[int, int, int]
    postprocessing: PostProcessing | None = None
    usual: dict[str, tuple[float, float]] = field(default_factory=dict)
    expected_dice: dict[str, ExpectedDice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_usual(self.usual)


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
        name: With version, `liver-ct-v2.0.0`; that of the folder, once there is one.
        target: The word for all of its labels: `liver`, `nodule`, or another one.
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
        if self.finds_nodules and len(self.labels) > 1:
            raise ValueError("the nodule engine takes a network of one label")

    @property
    def finds_nodules(self) -> bool:
        """True if the nodule engine runs it, which takes points and gives each nodule a segment of its own."""
        return self.engine == NODULE

    def labels_of(self, *targets: str) -> tuple[Label, ...]:
        """The labels that targets name, in the card's order; none if one of the targets names none.

        A target is the card's own, for all labels; or the name of a label; or words that occur in the names of labels, for all of
        these: `kidney` for `Right kidney` and `Left kidney`. Case does not matter, nor does `_` or `-` instead of a space.
        """
        each = [next(filter(None, self._ways(target)), ()) for target in targets]
        named = {label.name for labels in each for label in labels} if all(each) else set()
        return tuple(label for label in self.labels if label.name in named)

    @property
    def shared_words(self) -> tuple[str, ...]:
        """The words that the names of several labels have, and not all: `kidney`, as a target, for both kidneys."""
        counted = Counter(word for label in self.labels for word in {*_plain(label.name).split()})
        return tuple(word for word, count in counted.items() if 1 < count < len(self.labels))

    def distance_to(self, target: str) -> int | None:
        """How near a target comes to the card: 0 its own target, 1 the name of a label, 2 words of it; None if it names nothing here."""
        return next((way for way, labels in enumerate(self._ways(target)) if labels), None)

    def _ways(self, target: str) -> tuple[tuple[Label, ...], ...]:
        """The labels meant if the target is the card's, a label's name, or words of some."""
        asked = _plain(target)
        words = set(asked.split())
        return (
            self.labels if asked == _plain(self.target) else (),
            tuple(label for label in self.labels if asked == _plain(label.name)),
            tuple(label for label in self.labels if words and words <= set(_plain(label.name).split())),
        )

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
        return {"schema": SCHEMA, **{each.name: values[each.name] for each in fields(Card)}}


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
        engine=stored.get("engine") or (NODULE if stored["target"] == "nodule" else "slices"),  # cards without it
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


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _label(stored: Mapping[str, Any]) -> Label:
    own = stored.get("postprocessing")
    parts = {
        "color": tuple(stored["color"]),
        "postprocessing": None if own is None else PostProcessing(**own),
        "usual": {name: (float(low), float(high)) for name, (low, high) in stored.get("usual", {}).items()},
        "expected_dice": {name: ExpectedDice(**each) for name, each in stored.get("expected_dice", {}).items()},
    }
    return Label(**{**stored, **parts})
