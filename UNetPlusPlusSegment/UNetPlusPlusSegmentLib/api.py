"""The Python API: segment a volume in one call, or load an engine for many volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .core.merging import merged
from .core.note import Note
from .core.request import Point, Request, as_box
from .core.result import Result
from .core.volume import Volume
from .engine.organ import SliceEngine
from .engine.predictor import ProgressCallback, ignore_progress
from .files import read_volume
from .network.bundle import Bundle, choose_bundle
from .network.parts import parts_of
from .nodule.engine import NoduleEngine

__all__ = ["Request", "Result", "Volume", "load_engine", "read_volume", "segment"]

Engine = SliceEngine | NoduleEngine


def segment(
    volume: Volume | str | Path,
    target: str = "liver",
    *,
    also: Sequence[str] = (),
    model: str | Path | None = None,
    speed: str = "balanced",
    threshold: float | None = None,
    show_from: float | None = None,
    force: bool = False,
    device: str = "auto",
    threads: int | None = None,
    box: Sequence[Sequence[int]] | None = None,
    points: Sequence[Point] = (),
    progress: ProgressCallback = ignore_progress,
) -> Result:
    """Segment a CT volume in this process.

    Args:
        volume: A volume in HU, a file, or a folder of DICOM files.
        target, model, speed, threshold, show_from, force, device, threads, box, points: As in `Request`.
        also: Further targets for the same label map, which may need other models. If two models claim a voxel, nodules come first,
            then targets in the order given.
        progress: Called with the number done, the total (slices or candidates) and the phase of the run. An exception that it
            raises stops the run.

    Returns:
        The label map on the volume's own voxels (K, J, I), its segments with measurements, and notes.

    Raises:
        ValueError: The volume cannot be segmented; the message is a sentence for the user.
    """
    request = Request(
        target, also=also, model=None if model is None else str(model), speed=speed, threshold=threshold,
        show_from=show_from, force=force,
        device=device, threads=threads, box=None if box is None else as_box(box), points=tuple(points),
    )  # fmt: skip
    parts = parts_of(request)
    notes: list[str] = []
    if not isinstance(volume, Volume):
        volume, notes = read_volume(volume, force=force)
    result = merged(
        [load_engine(bundle, device).predict(volume, asked, progress).at() for bundle, asked in parts], volume
    )
    return replace(result, notes=(*(Note("file", text) for text in notes), *result.notes))


def load_engine(model: Bundle | str = "liver", device: str = "auto") -> Engine:
    """Load the engine for a model, and verify its weights.

    Args:
        model: A bundle, or a target, whose first model is used (`choose_bundle`).
        device: As in `Request`.

    Returns:
        An engine whose `predict(volume, request)` returns maps; their `at(threshold)` returns a `Result`.

    Raises:
        BundleError, DeviceError: The model or the device cannot be used.
    """
    bundle = choose_bundle(model) if isinstance(model, str) else model
    return NoduleEngine(bundle, device) if bundle.finds_nodules else SliceEngine(bundle, device)
