"""The card of a model, `model.json`: all that inference needs to know about a network. Standard library only.

How well the model does is in `evaluation.json`, which inference never reads. A new field with a default needs no new schema,
because older versions ignore fields that they do not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..core.segment import plain_name

SCHEMA = 3  # 1 stored kernels in fp16; 1 and 2 also held the evaluation, and named only one source of training data
REQUIRED = (
    "target", "architecture", "labels", "input", "threshold", "average_from", "postprocessing", "speeds", "sha256",
)  # fmt: skip
NODULE = "nodule"  # the only engine that takes points
ENGINES = ("slices", NODULE)
MEASURED = ("volume_ml", "mean_hu")  # measurements that may have a usual range
AXIAL = "axial slices; rows run to posterior, columns to the patient's left"


class BundleError(ValueError):
    """A model folder that cannot be used; the message says which, why, and what to do."""


@dataclass(frozen=True)
class NetworkInput:
    """The network's input: the side of its square pixels, and the HU that are mapped to 0 and 1."""

    pixel_mm: float
    window_hu: tuple[float, float]
    orientation: str = AXIAL

    def __post_init__(self) -> None:
        _check_number("pixel_mm", self.pixel_mm, 0.01, 100)
        low, high = self.window_hu
        _check_number("window_hu", high - low, 1e-3, 1e6)


@dataclass(frozen=True)
class Architecture:
    """The arguments of `build_network`."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class PostProcessing:
    """The steps after the threshold, in this order.

    Attributes:
        largest_component: Keep only the largest part.
        least_part: Drop each part whose weight is less than this share of the heaviest part's; 0 drops none. The weight of a part
            is the sum, over its pixels, of probability minus threshold: a heavy part is large and probable.
        least_part_at_end: The same for parts on the first or last slice, which may continue outside the scan; None: `least_part`.
        fill_holes: Fill holes that a label encloses.
    """

    largest_component: bool = False
    least_part: float = 0.0
    least_part_at_end: float | None = None
    fill_holes: bool = False

    def __post_init__(self) -> None:
        for share in (self.least_part, self.least_part_at_end or 0.0):
            if not 0 <= share <= 1:
                raise ValueError(f"least_part and least_part_at_end must be between 0 and 1; got {share}.")


@dataclass(frozen=True)
class ExpectedDice:
    """A linear model that estimates the Dice of a result from its signs (`engine.signs`), for one speed.

    Attributes:
        intercept, weights: For ln(1 − Dice); weights by the name of a sign.
        low, high: Offsets of ln(1 − Dice) between which eight people in ten lie.
    """

    intercept: float
    weights: dict[str, float]
    low: float
    high: float


def _check_number(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is not a number in this range, both ends included.

    Raises:
        ValueError: It is text, not finite, or outside the range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name}={value!r} must be a number from {low:g} to {high:g}")


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str) or not text.strip(" _-"):
        raise ValueError(f"{name}={text!r} must be text")


def check_usual(usual: Mapping[str, tuple[float, float]]) -> None:
    """Refuse usual ranges that are empty or of an unknown measurement.

    Raises:
        ValueError: There is such a range.
    """
    for name, (low, high) in usual.items():
        if name not in MEASURED or low >= high:
            raise ValueError(f"usual: {name}={[low, high]} must be the low and high end of {' or '.join(MEASURED)}.")


@dataclass(frozen=True)
class Label:
    """The meaning of a value in the mask, with Slicer's terminology string and colour (0…255).

    Attributes:
        postprocessing: Used instead of the card's, if not None.
        usual: Usual range (low, high) by the name of a measurement (`volume_ml`, `mean_hu`); a value outside it gets a note.
        expected_dice: By speed; empty if it was not fitted.
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
        _check_text("name", self.name)
        if len(self.color) != 3:
            raise ValueError(f"color={self.color!r} must be red, green and blue")
        for part in self.color:
            _check_number("color", part, 0, 255)


@dataclass(frozen=True)
class Speed:
    """What a model computes at one speed.

    Attributes:
        level: Deepest head used, X[0][level]; the heads from `Card.average_from` (at most `level`) to it are averaged.
        find_first: A coarse pass finds the organ first, so that the network runs only there.
        step_mm: Largest distance between the slices that are predicted first; 0 for every slice.
        change: If the masks of two neighbouring predicted slices differ by more than this (1 − Dice), the slice half way between
            them is predicted too, and so on; the others are interpolated.
        margin_mm: Margin around the organ found by the coarse pass that the network also sees.
    """

    level: int
    find_first: bool
    step_mm: float = 0.0
    change: float = 0.0
    margin_mm: float = 80.0

    def __post_init__(self) -> None:
        _check_number("level", self.level, 1, 99)
        _check_number("step_mm", self.step_mm, 0, 1e3)
        _check_number("change", self.change, 0, 1)
        _check_number("margin_mm", self.margin_mm, 0, 1e4)


@dataclass(frozen=True)
class Decision:
    """A logistic regression that estimates from a finding's appearance how likely it is a nodule.

    Attributes:
        intercept, weights: For the log-odds; weights by the names of `nodule.decision.features`.
        least: Lowest probability at which a finding is shown.
    """

    intercept: float
    weights: dict[str, float]
    least: float


@dataclass(frozen=True)
class Source:
    """Data that a model has learned from, with its licence and the citation that it asks for."""

    name: str
    licence: str = ""
    citation: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """All that `model.json` says.

    Attributes:
        name: With version, such as `liver-ct-v2.0.0`; the name of the folder, once there is one.
        target: The name for all of its labels together, such as `liver` or `nodule`.
        engine: Which engine runs it: `slices` segments slice by slice, `nodule` finds nodules at points or in a whole chest.
        labels: One for each output channel of the network; in a label map, each voxel has at most one.
        priority: Names of all labels. If several labels claim a pixel, the first in this order gets it; if empty, the most probable.
        threshold: Lowest probability of a pixel that belongs to a label.
        average_from: The shallowest head that is averaged, chosen when the model was evaluated.
        speeds: By name: `accurate`, `balanced`, `fast`.
        decision: For a nodule model, which of its findings are shown; None shows all.
        training_data: All that the weights have learned from, in earlier trainings too.
        licence: Licence of the weights; of several, separated by `; `, all hold.
        sha256: Checksum of weights.pt, in hexadecimal.
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
        _check_text("target", self.target)
        self._check_labels()
        _check_number("threshold", self.threshold, 0.01, 0.99)  # as far as the sliders go
        if self.engine not in ENGINES:
            raise ValueError(f"it needs the engine {self.engine!r}, which this version does not have")
        outputs = self.architecture.arguments.get("out_channels", 1)
        if outputs != len(self.labels):
            raise ValueError(f"its network has {outputs} outputs for {len(self.labels)} labels")
        if self.depth < 1:
            raise ValueError("its network has fewer than two levels")
        _check_number("average_from", self.average_from, 1, self.depth)

    def _check_labels(self) -> None:
        if not self.labels:
            raise ValueError("it has no label")
        values, names = ({getattr(label, part) for label in self.labels} for part in ("value", "name"))
        if len(values) < len(self.labels) or len(names) < len(self.labels) or not values <= {*range(1, 256)}:
            raise ValueError("each of its labels needs a name and a value from 1 to 255 that no other label has")
        if self.priority and sorted(self.priority) != sorted(names):
            raise ValueError("its priority must name every label once")
        if self.finds_nodules and len(self.labels) > 1:
            raise ValueError("the nodule engine needs a network with one label")

    @property
    def finds_nodules(self) -> bool:
        """True if the nodule engine runs it, which accepts points and gives each nodule its own segment."""
        return self.engine == NODULE

    def labels_of(self, *targets: str) -> tuple[Label, ...]:
        """The labels that the targets name, in the card's order; empty if one of the targets names no label.

        A target is the card's own target, which names all labels; or the name of a label; or words that occur in names, which name
        all labels with these words: `kidney` for `Right kidney` and `Left kidney`. Case is ignored, and `_` and `-` count as spaces.
        """
        each = [next(filter(None, self._ways(target)), ()) for target in targets]
        named = {label.name for labels in each for label in labels} if all(each) else set()
        return tuple(label for label in self.labels if label.name in named)

    @property
    def shared_words(self) -> tuple[str, ...]:
        """Words in the names of several labels, but not of all, which can be a target: `kidney` for both kidneys."""
        counted = Counter(word for label in self.labels for word in {*plain_name(label.name).split()})
        return tuple(word for word, count in counted.items() if 1 < count < len(self.labels))

    @property
    def groups(self) -> tuple[str, ...]:
        """The targets that stand for several labels: its own, and words such as `kidney`; none if it has only one label."""
        return (self.target, *self.shared_words) if len(self.labels) > 1 else ()

    def distance_to(self, target: str) -> int | None:
        """How well a target matches: 0 the card's own target, 1 the name of a label, 2 words of names; None if it names no label."""
        return next((way for way, labels in enumerate(self._ways(target)) if labels), None)

    def _ways(self, target: str) -> tuple[tuple[Label, ...], ...]:
        """The labels named if the target is taken as the card's target, as the name of a label, and as words of names."""
        asked = plain_name(target)
        words = set(asked.split())
        return (
            self.labels if asked == plain_name(self.target) else (),
            tuple(label for label in self.labels if asked == plain_name(label.name)),
            tuple(label for label in self.labels if words and words <= set(plain_name(label.name).split())),
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
        """The content of `model.json`, as `card_from_json` reads it."""
        values = asdict(self)
        return {"schema": SCHEMA, **{each.name: values[each.name] for each in fields(Card)}}


def card_from_json(stored: Mapping[str, Any]) -> Card:
    """Read a card of any schema up to `SCHEMA`.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: A field is missing or invalid.
    """
    given, sources = stored["input"], stored.get("training_data", ())
    low, high = given["window_hu"]
    return Card(
        name=stored.get("name", ""),
        target=stored["target"],
        engine=stored.get("engine")
        or (NODULE if stored["target"] == "nodule" else "slices"),  # older cards have no engine
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
    parts = {
        "color": tuple(stored["color"]),
        "postprocessing": None if own is None else PostProcessing(**own),
        "usual": {name: (float(low), float(high)) for name, (low, high) in stored.get("usual", {}).items()},
        "expected_dice": {name: ExpectedDice(**each) for name, each in stored.get("expected_dice", {}).items()},
    }
    return Label(**{**stored, **parts})
