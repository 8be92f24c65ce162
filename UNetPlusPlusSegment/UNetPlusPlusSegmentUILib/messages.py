"""Texts that panel and effect share: names of choices, the progress of a run, and errors."""

import logging

import slicer
from slicer.i18n import tr as _

from UNetPlusPlusSegmentLib.core.progress import BETWEEN, CANDIDATES, LUNGS, OVERVIEW, SEARCH, SLICES
from UNetPlusPlusSegmentLib.core.trust import why_no_dice

LICENCE_URL = "https://github.com/unetplusplussegment/SlicerUNetPlusPlusSegment/blob/main/MODELS_LICENSE.md"


def severalLabelsTitle(bundle, target: str) -> str:
    """Name in a list for a target that stands for several labels of a model: `Kidney (all 2)`."""
    count = len(bundle.labels_of(target))
    return _("{target} (all {count})").format(target=target.capitalize(), count=count)


def speedTitle(speed: str) -> str:
    """Name of a speed in a list."""
    return {"balanced": _("Balanced"), "accurate": _("Accurate"), "fast": _("Fast")}[speed]


def deviceTitle(device: str) -> str:
    """Name of a device in a list."""
    return {"auto": _("Automatic"), "cuda": _("GPU (CUDA)"), "mps": _("GPU (Apple)"), "cpu": _("CPU")}[device]


def showProgress(run, bar, label) -> None:
    """Show the progress of a run, and its device, in a QProgressBar and a QLabel."""
    progress = run.progress
    bar.maximum = progress.total if progress else 0  # 0 shows a busy bar
    bar.value = progress.done if progress else 0
    bar.format = _howFar(progress) if progress else ""
    # A busy bar shows no text, so the label shows it.
    label.text = " ".join([*([f"{bar.format}."] if progress and not progress.total else []), _deviceInUse(run)])


def _howFar(progress) -> str:
    """Text about a `Progress`: `Candidates 3 of 9, 4 s left`."""
    phases = {
        LUNGS: _("Lungs"), SEARCH: _("Search"), CANDIDATES: _("Candidates"),
        OVERVIEW: _("Overview"), SLICES: _("Slices"), BETWEEN: _("Slices between"),
    }  # fmt: skip
    text = phases[progress.phase]
    if progress.total:
        text = _("{phase} {done} of {total}").format(phase=text, done=progress.done, total=progress.total)
    if progress.seconds_left is not None:
        text = f"{text}, {timeLeft(progress.seconds_left)}"
    if progress.frame:
        number, count = progress.frame
        text = _("Frame {number} of {count}: {text}").format(number=number, count=count, text=text)
    return text


def _deviceInUse(run) -> str:
    """Text about the `DeviceState` of a run, which is None while it waits for another run, or PyTorch is being loaded."""
    state = run.device
    if state is None:
        return _("Waiting for another run...") if run.queued else _("Starting PyTorch...")
    if state.free_memory_bytes is None:
        return _("Running on {device}.").format(device=state.device)
    free = f"{state.free_memory_bytes / 1e9:.1f}"
    return _("Running on {device}, {free} GB of memory free.").format(device=state.device, free=free)


def timeLeft(seconds: float) -> str:
    """Text about the time left."""
    if seconds < 60:
        return _("{seconds} s left").format(seconds=max(1, round(seconds)))
    return _("{minutes} min left").format(minutes=round(seconds / 60))


def summary(result) -> str:
    """One line about a result: its time, device and notes."""
    done = _("Done in {seconds} s by {model} on {device} ({slices} slices).").format(
        seconds=round(result.seconds, 1), model=result.model, device=result.device, slices=result.scan_slices
    )
    return " ".join(filter(None, [done, why_no_dice(result), *map(str, result.notes)]))


def reason(error: Exception) -> str:
    """The text of an error for the message line."""
    return _("Cancelled.") if _kind(error) == "cancelled" else str(error)


def showError(error: Exception) -> None:
    """Show an error in a message box, with the worker's last output if it crashed; nothing if the run was cancelled."""
    kind = _kind(error)
    if kind == "cancelled":
        return
    details = "" if kind == "refused" else getattr(error, "details", "")
    if details:
        logging.error(details)
    slicer.util.errorDisplay(str(error), **({"detailedText": details} if details else {}))


def _kind(error: Exception) -> str:
    """The kind of a `JobError`; empty for any other error."""
    return getattr(error, "kind", "")
