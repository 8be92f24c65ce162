"""What panel and effect say alike: questions before a run, its progress, its errors, and the titles of choices."""

import logging

import qt
import slicer
from slicer.i18n import tr as _

from UNetPlusPlusSegmentLib.scene import pytorch_install

LICENCE_URL = "https://github.com/unetplusplussegment/SlicerUNetPlusPlusSegment/blob/main/MODELS_LICENSE.md"
LICENCE_ACCEPTED = "UNetPlusPlusSegment/ModelsLicenceAccepted"
POLL_MS = 100  # so often the worker is asked for news


def targetTitle(target: str) -> str:
    """What a target is called in a list."""
    return {"liver": _("Liver"), "nodule": _("Lung nodules")}[target]


def speedTitle(speed: str) -> str:
    """What a speed is called in a list."""
    return {"balanced": _("Balanced"), "accurate": _("Accurate"), "fast": _("Fast")}[speed]


def askPermission() -> bool:
    """Ask what there is to ask before anything runs: the licence of the models, and for PyTorch.

    Raises:
        PyTorchError: It is not there and could not be installed.
    """
    return _licenceAccepted() and (pytorch_install.is_installed() or pytorch_install.install())


def _licenceAccepted() -> bool:
    if slicer.util.settingsValue(LICENCE_ACCEPTED, False, converter=slicer.util.toBool):
        return True
    accepted = slicer.util.confirmOkCancelDisplay(
        _(
            "The trained models are for non-commercial research and teaching only. They are not a medical device: do"
            " not use their results for diagnosis, treatment, or any decision about a patient."
            "<br><br>Press OK to accept <a href='{url}'>their licence</a>; you are asked only once."
        ).format(url=LICENCE_URL),
        _("Licence of the models"),
    )
    if accepted:
        qt.QSettings().setValue(LICENCE_ACCEPTED, True)
    return accepted


def showProgress(run, bar, label) -> None:
    """Show in a QProgressBar and a QLabel how far a run has come, and where it runs."""
    progress = run.progress
    bar.maximum = progress.total if progress else 0  # 0: it only shows that something is going on
    bar.value = progress.done if progress else 0
    bar.format = ""
    if progress:
        slices = _("{done} of {total} slices").format(done=progress.done, total=progress.total)
        bar.format = slices if progress.seconds_left is None else f"{slices}, {_inWords(progress.seconds_left)}"
    if run.device is None:
        label.text = _("Starting PyTorch...")
        return
    words = _("Running on {device}.").format(device=run.device.device)
    if run.device.free_memory_bytes is not None:
        free = f"{run.device.free_memory_bytes / 1e9:.1f}"
        words += " " + _("{free} GB of its memory are free.").format(free=free)
    label.text = words


def _inWords(seconds: float) -> str:
    """How long it will still take."""
    if seconds < 60:
        return _("{seconds} s left").format(seconds=max(1, round(seconds)))
    return _("{minutes} min left").format(minutes=round(seconds / 60))


def whyNot(error: Exception) -> str:
    """Why a run gave no result, in one sentence."""
    return _("Cancelled.") if _kind(error) == "cancelled" else str(error)


def showError(error: Exception) -> None:
    """Say it in a box, with the worker's last words if it broke down; what the user wanted so needs none."""
    kind = _kind(error)
    if kind == "cancelled":
        return
    details = "" if kind == "refused" else getattr(error, "details", "")
    if details:
        logging.error(details)
    slicer.util.errorDisplay(str(error), **({"detailedText": details} if details else {}))


def _kind(error: Exception) -> str:
    """Of a `JobError`; any other has none."""
    return getattr(error, "kind", "")
