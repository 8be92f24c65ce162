"""Bundles: a folder with `model.json` (the card) and `weights.pt` that says all that inference needs to know.

Reading cards needs the standard library only, so that Slicer's own process can list models; torch is imported when weights are loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from .unetpp import NodeGrid

SCHEMA = 2  # 1 stored kernels in fp16
CARD, WEIGHTS = "model.json", "weights.pt"
_VERSION = re.compile(r"-v(\d+)\.(\d+)\.(\d+)$")
_REQUIRED = (
    "target",
    "architecture",
    "labels",
    "input",
    "threshold",
    "average_from",
    "postprocessing",
    "speeds",
    "sha256",
)


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
class Speed:
    """What one speed of a model computes.

    Attributes:
        level: Deepest head X[0][level]; the heads from `Bundle.average_from` (at most it) up to it are averaged.
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
class Bundle:
    """A model folder whose card has been read and checked; its weights are checked when they are loaded."""

    folder: Path
    card: Mapping

    @property
    def name(self) -> str:
        """Name with version, `liver-ct-v1.0.0`: that of the folder."""
        return self.folder.name

    @property
    def version(self) -> tuple[int, ...]:
        """(major, minor, patch); zeros for a folder named otherwise."""
        match = _VERSION.search(self.name)
        return tuple(map(int, match.groups())) if match else (0, 0, 0)

    @property
    def target(self) -> str:
        """`liver` or `nodule`."""
        return self.card["target"]

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """One label for each output channel of the network."""
        return tuple(Label(x["value"], x["name"], x["terminology"], tuple(x["color"])) for x in self.card["labels"])

    @property
    def pixel_mm(self) -> float:
        """Side of the network's pixels in mm."""
        return float(self.card["input"]["pixel_mm"])

    @property
    def window_hu(self) -> tuple[float, float]:
        """HU that become the network's 0 and 1."""
        low, high = self.card["input"]["window_hu"]
        return float(low), float(high)

    @property
    def threshold(self) -> float:
        """Probability from which on a pixel belongs to the label."""
        return float(self.card["threshold"])

    @property
    def depth(self) -> int:
        """The deepest level of the network, X[0][depth]."""
        return len(self.card["architecture"]["arguments"]["filters"]) - 1

    @property
    def average_from(self) -> int:
        """The shallowest head that is averaged: shallower ones made the mask worse where the model was measured."""
        return int(self.card["average_from"])

    def speed(self, name: str) -> Speed:
        """What `accurate`, `balanced` or `fast` means for this model."""
        if name not in self.card["speeds"]:
            raise BundleError(f"The model {self.name} has no speed {name!r}; it has {', '.join(self.card['speeds'])}.")
        return Speed(**self.card["speeds"][name])

    def load_state(self) -> dict[str, Tensor]:
        """The state dict as stored, float32, batch norm included, after a check against the card's SHA-256.

        Raises:
            BundleError: weights.pt is missing, truncated or altered.
        """
        import torch

        from .quantization import unpack

        path = self.folder / WEIGHTS
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise BundleError(
                f"The model {self.name} cannot be used: {path} cannot be read ({error.strerror})."
                " Copy the folder again, or choose another model."
            ) from error
        if digest != self.card["sha256"]:
            raise BundleError(
                f"The model {self.name} cannot be used: {WEIGHTS} does not match the checksum in its {CARD}, so it was changed or only"
                " partly copied. Copy the folder again, or choose another model."
            )
        return unpack(torch.load(path, map_location="cpu", weights_only=True))

    def load_network(self) -> NodeGrid:
        """The network for inference, on the CPU in float32: weights loaded and checked, batch norm folded."""
        from .unetpp import build_network, fold_batch_norm

        try:
            network = build_network(self.card["architecture"]["name"], **self.card["architecture"]["arguments"])
            network.load_state_dict(self.load_state())
        except BundleError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise BundleError(
                f"The model {self.name} cannot be used: its card and weights do not describe one network ({reason})."
                " Copy the folder again, or choose another model."
            ) from error
        return fold_batch_norm(network)


def read_bundle(folder: str | Path) -> Bundle:
    """Read and check the card of a model folder.

    Raises:
        BundleError: No such folder or card, a card that is no JSON, lacks a part, or is of a newer schema.
    """
    folder = Path(folder)
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not whole JSON"
        raise BundleError(
            f"{folder} is not a usable model folder: {CARD} cannot be read ({reason}). Copy the folder again."
        ) from error
    schema = card.get("schema") if isinstance(card, dict) else None
    if not isinstance(schema, int):
        raise BundleError(f"{path} names no schema: it is not the card of a UNetPlusPlusSegment model.")
    if schema > SCHEMA:
        raise BundleError(
            f"The model {folder.name} needs a newer UNetPlusPlusSegment: its card has schema {schema}, this version reads up to {SCHEMA}."
            " Update the extension, or choose another model."
        )
    missing = [key for key in _REQUIRED if key not in card]
    if missing:
        raise BundleError(
            f"The model {folder.name} cannot be used: its {CARD} lacks {', '.join(missing)}. Copy the folder again."
        )
    bundle = Bundle(folder, card)
    try:
        _ = bundle.labels[0], bundle.pixel_mm, bundle.window_hu, bundle.threshold, bundle.depth, bundle.average_from
        _ = [bundle.speed(name) for name in card["speeds"]]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BundleError(
            f"The model {folder.name} cannot be used: its {CARD} is not as a card has to be ({type(error).__name__}: {error})."
            " Copy the folder again, or update the extension."
        ) from error
    return bundle


def user_folder() -> Path:
    """The user's own models, which survive updates of the extension; need not exist."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "UNetPlusPlusSegment" / "Models"


def search_folders() -> list[Path]:
    """Where bundles are looked for, first to last: UNETPP_MODELS, the user's folder, the wheel, the module's Resources.

    UNETPP_MODELS may also name a bundle itself.
    """
    package = Path(__file__).resolve().parents[1]
    named = [Path(p) for p in os.environ.get("UNETPP_MODELS", "").split(os.pathsep) if p]
    return [*named, user_folder(), package / "Models", package.parent / "Resources" / "Models"]


def find_bundles(target: str | None = None) -> tuple[list[Bundle], list[str]]:
    """All usable bundles (for one target, if given), the newest first, and a sentence for each folder that is not usable.

    Of two folders of one name the first in `search_folders` counts.
    """
    found: dict[str, Bundle] = {}
    refused = []
    for parent in search_folders():
        try:
            folders = [parent] if (parent / CARD).exists() else sorted(parent.iterdir()) if parent.is_dir() else []
        except OSError as error:
            refused.append(f"The models folder {parent} cannot be read ({error.strerror}).")
            continue
        for folder in folders:
            if folder.name in found or not (folder / CARD).exists():
                continue
            try:
                found[folder.name] = read_bundle(folder)
            except BundleError as error:
                refused.append(str(error))
    chosen = [b for b in found.values() if target in (None, b.target)]
    return sorted(chosen, key=lambda b: (b.target, [-n for n in b.version], b.name)), refused


def choose_bundle(target: str, model: str | None = None) -> Bundle:
    """The bundle for a target: the newest, or the one that `model` names (a folder's path, or a name from `find_bundles`).

    Raises:
        BundleError: None is usable, no such model, or it is for another target.
    """
    if model is not None and (os.sep in model or Path(model).is_dir()):
        bundle = read_bundle(model)
    else:
        bundles, refused = find_bundles(target)
        if not bundles:
            places = ", ".join(map(str, search_folders()))
            raise BundleError(" ".join([f"There is no usable model for {target} in {places}.", *refused]))
        wanted = [b for b in bundles if model is None or b.name == model]
        if not wanted:
            known = ", ".join(b.name for b in bundles)
            raise BundleError(" ".join([f"There is no model {model!r} for {target}; there are: {known}.", *refused]))
        bundle = wanted[0]
    if bundle.target != target:
        raise BundleError(f"The model {bundle.name} is for {bundle.target}, not for {target}: choose another one.")
    return bundle


def write_bundle(folder: str | Path, card: Mapping, state: Mapping[str, Tensor]) -> Bundle:
    """Write a new model folder: the weights as trained, packed (see `quantization`), and the card with their checksum.

    Args:
        folder: Must not exist yet; its name is the model's, with version.
        card: All of the card but `schema` and `sha256`.
        state: The network's state dict.

    Raises:
        BundleError: The folder exists already, or the card lacks a part.
    """
    import torch

    from .quantization import pack

    folder = Path(folder)
    if folder.exists():
        raise BundleError(f"{folder} exists already: a model is never overwritten. Give it a new version.")
    missing = [key for key in _REQUIRED if key not in card and key != "sha256"]
    if missing:
        raise BundleError(f"The card of {folder.name} lacks {', '.join(missing)}.")
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True)
    torch.save(pack(state), partial / WEIGHTS)
    full = {"schema": SCHEMA, "name": folder.name, **card}
    full["sha256"] = hashlib.sha256((partial / WEIGHTS).read_bytes()).hexdigest()
    (partial / CARD).write_text(json.dumps(full, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.rename(folder)
    return read_bundle(folder)
