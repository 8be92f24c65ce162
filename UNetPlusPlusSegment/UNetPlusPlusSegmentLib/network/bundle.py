"""Bundles: model folders with `model.json` (the card), `weights.pt` and `evaluation.json`, which inference never reads.

Reading a card takes only the standard library, so that Slicer's own process can list models; torch is imported to load weights.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.request import Request, RequestError
from ..core.segment import Segment, plain_name
from .card import REQUIRED, SCHEMA, BundleError, Card, Label, card_from_json

if TYPE_CHECKING:
    from torch import Tensor

    from .unetpp import NodeGrid

_log = logging.getLogger(__name__)

CARD, WEIGHTS, EVALUATION = "model.json", "weights.pt", "evaluation.json"
_VERSION = re.compile(r"-v(\d+)\.(\d+)\.(\d+)$")


@dataclass(frozen=True, kw_only=True)
class Bundle(Card):
    """A model folder whose card has been read and checked; its weights are checked when they are loaded."""

    folder: Path

    def check_request(self, request: Request, has_points: bool = False) -> None:
        """Refuse a request that the model cannot carry out.

        Args:
            request: The request.
            has_points: It will be given points later.

        Raises:
            RequestError: The model lacks one of the targets; there are points, but it does not find nodules; or `show_from` is set,
                but it gives findings no probability.
        """
        for target in request.targets:
            if not self.labels_of(target):
                raise RequestError(
                    f"The model {self.name} is for {self.about}, not for {target}: choose another model."
                )
        if (has_points or request.points) and not self.finds_nodules:
            raise RequestError(
                f"Points can only be used for nodules, but {self.name} is for {self.about}: remove the points, or choose another target."
            )
        if request.show_from is not None and self.decision is None:
            raise RequestError(
                f"{self.name} gives its findings no probability, so all of them are shown: leave --show-from out (show_from in Python), or"
                " choose another target."
            )

    @property
    def about(self) -> str:
        """Its target; if it has several labels, with their names: `abdomen (Spleen, Left kidney)`."""
        names = ", ".join(label.name for label in self.labels)
        return f"{self.target} ({names})" if len(self.labels) > 1 else self.target

    @property
    def without_version(self) -> tuple[str, str]:
        """Name without version, and target: bundles in which both are equal are versions of one model."""
        return _VERSION.sub("", self.name), self.target

    @property
    def version(self) -> tuple[int, ...]:
        """(major, minor, patch); zeros if the folder's name has no version."""
        match = _VERSION.search(self.name)
        return tuple(map(int, match.groups())) if match else (0, 0, 0)

    def load_state(self) -> dict[str, Tensor]:
        """Read the weights, with batch norm, as a float32 state dict, after checking them against the card's SHA-256.

        Raises:
            BundleError: weights.pt is missing, truncated or altered, or contains more than weights.
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
        try:
            return unpack(torch.load(path, map_location="cpu", weights_only=True))
        except pickle.UnpicklingError as error:  # torch's own words advise to run what is in the file
            raise BundleError(
                f"The model {self.name} cannot be used: {WEIGHTS} contains more than weights, which might run a program, or is damaged."
                " Choose another model."
            ) from error

    def load_network(self) -> NodeGrid:
        """Build the network for inference, on the CPU in float32, with checked weights and folded batch norm."""
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
        BundleError: The folder, its card or its weights are missing; or the card is not JSON, is incomplete or has a newer schema.
    """
    folder = Path(folder).absolute()  # `.` has no name
    path = folder / CARD
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not valid JSON"
        raise BundleError(
            f"{folder} is not a usable model folder: {CARD} cannot be read ({reason}). Copy the folder again."
        ) from error
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if not isinstance(schema, int):
        raise BundleError(
            f"{path} has no schema number, so it is not the card of a UNetPlusPlusSegment model: choose another folder."
        )
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
    if not (folder / WEIGHTS).exists():
        raise BundleError(f"The model {folder.name} cannot be used: it has no {WEIGHTS}. Copy the folder again.")
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
    """All usable bundles (for one target, if given), and a sentence about each folder that cannot be used.

    They come in the order of `search_folders`, the newest of each folder first; for a target, in the order of `providing`. If two
    bundles have the same name, only the first is used.
    """
    found: dict[str, Bundle] = {}
    refused = []
    for parent in search_folders():
        try:
            folders = [parent] if (parent / CARD).exists() else sorted(parent.iterdir()) if parent.is_dir() else []
        except OSError as error:
            refused.append(f"The models folder {parent} cannot be read ({error.strerror}): correct its permissions.")
            continue
        here = []
        for folder in folders:
            if folder.name in found or folder.name.startswith("."):
                continue
            try:
                if any((folder / name).exists() for name in (CARD, WEIGHTS)):
                    here.append(read_bundle(folder))
            except BundleError as error:
                refused.append(str(error))
            except OSError as error:
                refused.append(f"{folder} cannot be read ({error.strerror}): correct its permissions.")
        found |= {each.name: each for each in sorted(here, key=lambda b: [-n for n in b.version])}
    return [*found.values()] if target is None else providing(target, found.values()), refused


def providing(target: str, bundles: Iterable[Bundle]) -> list[Bundle]:
    """The bundles that have a target, best match first (`Card.distance_to`).

    A target that the newest version of a model no longer has is not offered by its older versions.

    Args:
        target: As in `Card.labels_of`.
        bundles: In the order of `find_bundles`, which is kept among equally good matches.
    """
    bundles = list(bundles)
    newest = {each.without_version: each for each in sorted(bundles, key=lambda each: each.version)}
    matches = [
        (distance, bundle)
        for bundle in bundles
        if (distance := bundle.distance_to(target)) is not None and newest[bundle.without_version].labels_of(target)
    ]
    return [bundle for _, bundle in sorted(matches, key=lambda match: match[0])]


def targets_of(bundles: Sequence[Bundle]) -> list[str]:
    """Everything that bundles can segment, from A to Z: single labels, and names of several; each once, however it is spelled.

    Args:
        bundles: In the order of `find_bundles`; the first one that has a target spells it.
    """
    names: dict[str, str] = {}
    for bundle in reversed(bundles):
        for target in (*(label.name for label in bundle.labels), *bundle.groups):
            model = next(iter(providing(target, bundles)), None)  # the one that would be used
            if model and (target not in bundle.groups or len(model.labels_of(target)) > 1):
                names[plain_name(target)] = target
    return [names[each] for each in sorted(names)]


def choose_bundle(target: str, model: str | None = None) -> Bundle:
    """The bundle for a target, or the one that `model` names (the path of a folder, or a bundle's name).

    If none is named, it is the first of `providing`: one made for the target before one with several, then one in the first of
    `search_folders`, then the newest version.

    A model that is named may be an older version with a target that the newest one no longer has. If none is named, a warning is logged
    for each other version of the chosen model that cannot be used: it may be a newer one.

    Raises:
        BundleError: No model has the target; or the named model does not exist or is for another target.
    """
    # A folder may have the name of a model without being one, such as that with its results.
    if model is not None and (Path(model).name != model or (Path(model) / CARD).is_file()):
        bundle = read_bundle(model)
        if not bundle.labels_of(target):
            raise BundleError(f"The model {bundle.name} is for {bundle.about}, not for {target}: choose another model.")
        return bundle
    found, refused = find_bundles()
    having = [each for each in found if each.labels_of(target)]
    named = next((each for each in having if each.name == model), None)
    if named:
        return named
    bundles = providing(target, found)
    if having and not bundles:
        older = having[0].name
        raise BundleError(
            f"{older} has {target}, but the newest version of this model no longer has it: to use it, name {older} as the model."
        )
    if not bundles:
        there = "; ".join(sorted({each.about for each in found})) or "nothing"
        places = ", ".join(map(str, search_folders()))
        text = f"No usable model for {target} was found. There are models for {there}. Folders searched: {places}."
        raise BundleError(" ".join([text, *refused]))
    if model is not None:
        known = ", ".join(each.name for each in bundles)
        raise BundleError(" ".join([f"There is no model {model!r} for {target}; choose one of {known}.", *refused]))
    chosen = bundles[0]
    for reason in refused:
        if f"{chosen.without_version[0]}-v" in reason:
            _log.warning(reason)
    return chosen


def empty_segments(labels: Iterable[Label]) -> tuple[Segment, ...]:
    """Empty segments for the labels of a model that found nothing: a DICOM segmentation needs at least one segment."""
    empty = {"volume_ml": 0.0}
    return tuple(Segment(each.value, each.name, each.terminology, each.color, empty) for each in labels)


def write_bundle(
    folder: str | Path, card: Card, state: Mapping[str, Tensor], evaluation: Mapping[str, Any] | None = None
) -> Bundle:
    """Write a new model folder: the packed weights (see `quantization`), the card with their checksum, and the evaluation.

    Args:
        folder: Must not exist yet. Its name becomes the model's name, and ends in the version.
        card: Its name and checksum are filled in.
        state: The network's state dict.
        evaluation: How the model was trained and, if it was measured, how well it does.

    Raises:
        BundleError: The folder exists already, or cannot be written; nothing is left behind then.
    """
    import torch

    from .quantization import pack

    folder = Path(folder)
    if folder.exists():
        raise BundleError(
            f"{folder} already exists, and models are never overwritten: give the new model another version."
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was stopped
    packed = io.BytesIO()  # of a full disk, torch itself would speak in riddles
    torch.save(pack(state), packed)
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    try:
        partial.mkdir(parents=True)
        (partial / WEIGHTS).write_bytes(packed.getvalue())
        named = replace(card, name=folder.name, sha256=digest)
        (partial / CARD).write_text(json_text(named.as_json()), encoding="utf-8")
        if evaluation:
            (partial / EVALUATION).write_text(json_text(evaluation), encoding="utf-8")
        partial.rename(folder)
    except OSError as error:
        raise BundleError(
            f"{folder} cannot be written ({error.strerror or error}): free space on that disk, or choose another place."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return read_bundle(folder)


def json_text(values: Mapping[str, Any]) -> str:
    """Card or evaluation as it stands in its file."""
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
