"""Bundles: model folders with `model.json` (the card) and `weights.pt`, which hold everything that inference needs.

Reading a card takes only the standard library, so that Slicer's own process can list models; torch is imported to load weights.
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
    """A model folder that cannot be used; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Label:
    """The meaning of a value in the mask, with Slicer's terminology string and colour (0…255)."""

    value: int
    name: str
    terminology: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Speed:
    """The work that a model does at one speed.

    Attributes:
        level: Deepest head X[0][level]; the heads from `Bundle.average_from` (at most it) up to it are averaged.
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
class Bundle:
    """A model folder whose card has been read and checked; its weights are checked when they are loaded."""

    folder: Path
    card: Mapping

    @property
    def name(self) -> str:
        """Name of the folder, with the version: `liver-ct-v1.0.0`."""
        return self.folder.name

    @property
    def version(self) -> tuple[int, ...]:
        """(major, minor, patch); zeros if the folder's name has no version."""
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
        """HU that are mapped to 0 and 1 for the network."""
        low, high = self.card["input"]["window_hu"]
        return float(low), float(high)

    @property
    def threshold(self) -> float:
        """Least probability of a pixel that belongs to the label."""
        return float(self.card["threshold"])

    @property
    def depth(self) -> int:
        """The deepest level of the network, X[0][depth]."""
        return len(self.card["architecture"]["arguments"]["filters"]) - 1

    @property
    def average_from(self) -> int:
        """The shallowest head that is averaged: with shallower ones the mask was worse when the model was evaluated."""
        return int(self.card["average_from"])

    def speed(self, name: str) -> Speed:
        """The settings of `accurate`, `balanced` or `fast` for this model."""
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
                f"The model {self.name} cannot be used: its card and its weights do not match ({reason})."
                " Copy the folder again, or choose another model."
            ) from error
        return fold_batch_norm(network)


def read_bundle(folder: str | Path) -> Bundle:
    """Read and check the card of a model folder.

    Raises:
        BundleError: The folder or its card is missing, or the card is not JSON, is incomplete, or has a newer schema.
    """
    folder = Path(folder)
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not complete JSON"
        raise BundleError(
            f"{folder} is not a usable model folder: {CARD} cannot be read ({reason}). Copy the folder again."
        ) from error
    schema = card.get("schema") if isinstance(card, dict) else None
    if not isinstance(schema, int):
        raise BundleError(f"{path} has no schema number, so it is not the card of a UNetPlusPlusSegment model.")
    if schema > SCHEMA:
        raise BundleError(
            f"The model {folder.name} needs a newer UNetPlusPlusSegment: its card has schema {schema}, this version reads up to {SCHEMA}."
            " Update the extension, or choose another model."
        )
    missing = [key for key in _REQUIRED if key not in card]
    if missing:
        raise BundleError(
            f"The model {folder.name} cannot be used: its {CARD} has no {', '.join(missing)}. Copy the folder again."
        )
    bundle = Bundle(folder, card)
    try:
        _ = bundle.labels[0], bundle.pixel_mm, bundle.window_hu, bundle.threshold, bundle.depth, bundle.average_from
        _ = [bundle.speed(name) for name in card["speeds"]]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BundleError(
            f"The model {folder.name} cannot be used: its {CARD} is not a valid card ({type(error).__name__}: {error})."
            " Copy the folder again, or update the extension."
        ) from error
    return bundle


def user_folder() -> Path:
    """Folder of the user's own models, which survives updates of the extension; it need not exist."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "UNetPlusPlusSegment" / "Models"


def search_folders() -> list[Path]:
    """Folders that are searched for bundles, in order: UNETPP_MODELS, the user's folder, the wheel, the module's Resources.

    UNETPP_MODELS may also name a bundle itself.
    """
    package = Path(__file__).resolve().parents[1]
    named = [Path(p) for p in os.environ.get("UNETPP_MODELS", "").split(os.pathsep) if p]
    return [*named, user_folder(), package / "Models", package.parent / "Resources" / "Models"]


def find_bundles(target: str | None = None) -> tuple[list[Bundle], list[str]]:
    """All usable bundles (for one target, if given), newest first, and a sentence about each folder that cannot be used.

    Of two folders with the same name, the first in `search_folders` is used.
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
        BundleError: No model is usable, there is no such model, or it is for another target.
    """
    if model is not None and (os.sep in model or Path(model).is_dir()):
        bundle = read_bundle(model)
    else:
        bundles, refused = find_bundles(target)
        if not bundles:
            places = ", ".join(map(str, search_folders()))
            raise BundleError(" ".join([f"No usable model for {target} was found in {places}.", *refused]))
        wanted = [b for b in bundles if model is None or b.name == model]
        if not wanted:
            known = ", ".join(b.name for b in bundles)
            raise BundleError(" ".join([f"There is no model {model!r} for {target}; choose one of {known}.", *refused]))
        bundle = wanted[0]
    if bundle.target != target:
        raise BundleError(f"The model {bundle.name} is for {bundle.target}, not for {target}. Choose another model.")
    return bundle


def write_bundle(folder: str | Path, card: Mapping, state: Mapping[str, Tensor]) -> Bundle:
    """Write a new model folder: the weights as trained, packed (see `quantization`), and the card with their checksum.

    Args:
        folder: Must not exist yet; its name is the model's, with version.
        card: The whole card except `schema` and `sha256`.
        state: The network's state dict.

    Raises:
        BundleError: The folder already exists, or the card is incomplete.
    """
    import torch

    from .quantization import pack

    folder = Path(folder)
    if folder.exists():
        raise BundleError(
            f"{folder} already exists, and a model is never overwritten. Give the new model another version."
        )
    missing = [key for key in _REQUIRED if key not in card and key != "sha256"]
    if missing:
        raise BundleError(f"The card of {folder.name} has no {', '.join(missing)}.")
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True)
    torch.save(pack(state), partial / WEIGHTS)
    full = {"schema": SCHEMA, "name": folder.name, **card}
    full["sha256"] = hashlib.sha256((partial / WEIGHTS).read_bytes()).hexdigest()
    (partial / CARD).write_text(json.dumps(full, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.rename(folder)
    return read_bundle(folder)
