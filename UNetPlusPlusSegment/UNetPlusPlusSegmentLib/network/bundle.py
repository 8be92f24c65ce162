"""Bundles: model folders with `model.json` (the card), `weights.pt`, and `evaluation.json`, which inference never reads.

Reading a card takes only the standard library, so that Slicer's own process can list models; torch is imported to load weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .card import REQUIRED, SCHEMA, BundleError, Card, Decision, card_from_json

if TYPE_CHECKING:
    from torch import Tensor

    from .unetpp import NodeGrid

CARD, WEIGHTS, EVALUATION = "model.json", "weights.pt", "evaluation.json"
_VERSION = re.compile(r"-v(\d+)\.(\d+)\.(\d+)$")


@dataclass(frozen=True, kw_only=True)
class Bundle(Card):
    """A model folder whose card has been read and checked; its weights are checked when they are loaded."""

    folder: Path

    @property
    def version(self) -> tuple[int, ...]:
        """(major, minor, patch); zeros if the folder's name has no version."""
        match = _VERSION.search(self.name)
        return tuple(map(int, match.groups())) if match else (0, 0, 0)

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
        if digest != self.sha256:
            raise BundleError(
                f"The model {self.name} cannot be used: {WEIGHTS} does not match the checksum in its {CARD}, so it was changed or only"
                " partly copied. Copy the folder again, or choose another model."
            )
        return unpack(torch.load(path, map_location="cpu", weights_only=True))

    def load_network(self) -> NodeGrid:
        """The network for inference, on the CPU in float32: weights loaded and checked, batch norm folded."""
        from .unetpp import build_network, fold_batch_norm

        try:
            network = build_network(self.architecture.name, **self.architecture.arguments)
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
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not complete JSON"
        raise BundleError(
            f"{folder} is not a usable model folder: {CARD} cannot be read ({reason}). Copy the folder again."
        ) from error
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if not isinstance(schema, int):
        raise BundleError(f"{path} has no schema number, so it is not the card of a UNetPlusPlusSegment model.")
    if schema > SCHEMA:
        raise BundleError(
            f"The model {folder.name} needs a newer UNetPlusPlusSegment: its card has schema {schema}, this version reads up to {SCHEMA}."
            " Update the extension, or choose another model."
        )
    missing = [key for key in REQUIRED if key not in stored]
    if missing:
        raise BundleError(
            f"The model {folder.name} cannot be used: its {CARD} has no {', '.join(missing)}. Copy the folder again."
        )
    try:
        card = card_from_json({**stored, "name": folder.name})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"The model {folder.name} cannot be used: its {CARD} is not a valid card ({type(error).__name__}: {error})."
            " Copy the folder again, or update the extension."
        ) from error
    return Bundle(folder=folder, **vars(card))


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


def write_bundle(
    folder: str | Path, card: Card, state: Mapping[str, Tensor], evaluation: Mapping[str, Any] | None = None
) -> Bundle:
    """Write a new model folder: the weights as trained, packed (see `quantization`), the card with their checksum, and the evaluation.

    Args:
        folder: Must not exist yet; its name is the model's, with version.
        card: Its name and checksum are filled in.
        state: The network's state dict.
        evaluation: How the model was trained and how well it does, if it was measured.

    Raises:
        BundleError: The folder exists already.
    """
    import torch

    from .quantization import pack

    folder = Path(folder)
    if folder.exists():
        raise BundleError(
            f"{folder} already exists, and a model is never overwritten. Give the new model another version."
        )
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True)
    torch.save(pack(state), partial / WEIGHTS)
    digest = hashlib.sha256((partial / WEIGHTS).read_bytes()).hexdigest()
    _write_json(partial / CARD, replace(card, name=folder.name, sha256=digest).as_json())
    if evaluation:
        _write_json(partial / EVALUATION, evaluation)
    partial.rename(folder)
    return read_bundle(folder)


def add_decision(bundle: Bundle, decision: Decision, figures: Mapping[str, Any]) -> Bundle:
    """Write the decision of a nodule model into its card, and how good it is into its evaluation; its weights stay as they are."""
    card = Card(**{field.name: getattr(bundle, field.name) for field in fields(Card)})
    _write_json(bundle.folder / CARD, replace(card, decision=decision).as_json())
    path = bundle.folder / EVALUATION
    evaluation = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    _write_json(path, {**evaluation, "decision": figures})
    return read_bundle(bundle.folder)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
