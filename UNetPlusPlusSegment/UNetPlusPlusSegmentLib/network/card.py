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
AXIAL = "axial slices; rows run to posterior, columns to the patient's left"


class BundleError(ValueError):
    """A model folder that cannot be used: which, why, and what to do."""


@dataclass(frozen=True)
class Label:
    """What a value of the mask stands for: Slicer's terminology string and colour (0…255) come with it."""

    value: int
    name: str
    terminology: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class NetworkInput:
    """What the network is shown: square pixels with this side, and the HU that become 0 and 1."""

    pixel_mm: float
    window_hu: tuple[float, float]
    orientation: str = AXIAL


@dataclass(frozen=True)
class Architecture:
    """What `build_network` takes."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class PostProcessing:
    """What becomes of the thresholded mask, in this order."""

    largest_component: bool = False
    fill_holes: bool = False


@dataclass(frozen=True)
class Speed:
    """What one speed of a model computes.

    Attributes:
        level: Deepest head X[0][level]; the heads from `Card.average_from` (at most it) up to it are averaged.
        find_first: Whether a coarse pass finds the organ, so that the network runs only there.
        step_mm: Slices up to this far apart are looked at first; 0: every slice.
        change: Between two of them whose masks differ by more (as a share of both areas: 1 − Dice), the one in the middle is looked
            at too, and so on; what is left is interpolated.
        margin_mm: What the network sees of a slice round the organ that the coarse pass found.
    """

    level: int
    find_first: bool
    step_mm: float = 0.0
    change: float = 0.0
    margin_mm: float = 80.0


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
        target: `liver` or `nodule`.
        labels: One for each output channel of the network.
        threshold: Probability from which on a pixel belongs to the label.
        average_from: The shallowest head that is averaged: shallower ones made the mask worse where the model was measured.
        speeds: By name: `accurate`, `balanced`, `fast`.
        licence: Of the weights.
        sha256: Of weights.pt, in hexadecimal.
    """

    name: str = ""
    target: str
    labels: tuple[Label, ...]
    input: NetworkInput
    architecture: Architecture
    threshold: float
    average_from: int
    postprocessing: PostProcessing
    speeds: dict[str, Speed]
    training_data: tuple[Source, ...] = ()
    licence: str = ""
    intended_use: str = ""
    limits: tuple[str, ...] = ()
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.labels:
            raise ValueError("it has no label")
        if self.depth < 1:
            raise ValueError(f"its network has {self.depth + 1} filter counts")

    @property
    def pixel_mm(self) -> float:
        """Side of the network's pixels in mm."""
        return self.input.pixel_mm

    @property
    def window_hu(self) -> tuple[float, float]:
        """HU that become the network's 0 and 1."""
        return self.input.window_hu

    @property
    def depth(self) -> int:
        """The deepest level of the network, X[0][depth]."""
        return len(self.architecture.arguments["filters"]) - 1

    def speed(self, name: str) -> Speed:
        """What `accurate`, `balanced` or `fast` means for this model."""
        if name not in self.speeds:
            raise BundleError(f"The model {self.name} has no speed {name!r}; it has {', '.join(self.speeds)}.")
        return self.speeds[name]

    def threshold_or_own(self, threshold: float | None) -> float:
        """A threshold that somebody asked for, checked; the model's own if None.

        Raises:
            BundleError: It is no probability between 0 and 1.
        """
        if threshold is None:
            return self.threshold
        if not 0 < threshold < 1:
            raise BundleError(f"The threshold is a probability between 0 and 1, such as 0.5, not {threshold:g}.")
        return threshold

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
        labels=tuple(Label(**{**label, "color": tuple(label["color"])}) for label in stored["labels"]),
        input=NetworkInput(float(given["pixel_mm"]), (float(low), float(high)), given.get("orientation", AXIAL)),
        architecture=Architecture(**stored["architecture"]),
        threshold=float(stored["threshold"]),
        average_from=int(stored["average_from"]),
        postprocessing=PostProcessing(**stored["postprocessing"]),
        speeds={name: Speed(**speed) for name, speed in stored["speeds"].items()},
        training_data=tuple(Source(**source) for source in ([sources] if isinstance(sources, Mapping) else sources)),
        licence=stored.get("licence", ""),
        intended_use=stored.get("intended_use", ""),
        limits=tuple(stored.get("limits", ())),
        sha256=stored.get("sha256", ""),
    )
