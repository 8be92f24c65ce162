"""PyTorch in Slicer: whether it is there, and how it gets there. Never imports it: the worker process alone does that."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import re
import sys
from importlib import metadata

NEEDED = (2, 7)  # the first that resamples with antialiasing on Apple's graphics processors
_IN_WORDS = ".".join(map(str, NEEDED))
_installing = False


class PyTorchError(ValueError):
    """PyTorch is needed and not there; the message says how to get it."""


def is_installed() -> bool:
    """Tell whether PyTorch is there, and new enough.

    It is not imported for this: loading it takes seconds, and on Windows it could not be replaced then.
    """
    if _installing or importlib.util.find_spec("torch") is None:
        return False
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:  # the rest of an installation that was broken off
        return False
    return tuple(map(int, re.findall(r"\d+", version)[:2])) >= NEEDED


def require() -> None:
    """Refuse to go on without PyTorch.

    Raises:
        PyTorchError: It is not installed.
    """
    if not is_installed():
        raise PyTorchError(
            f"PyTorch {_IN_WORDS} or newer is not installed, and the network runs on it. In Slicer, install the PyTorch extension"
            " and press Apply in the UNet++ Segment module, or Install in the PyTorch Utils module; elsewhere, install torch with"
            " pip."
        )


def install() -> bool:
    """Have Slicer's PyTorch extension install PyTorch, which asks first and picks the build for this computer's GPU.

    Returns:
        Whether it is installed now; if not, the user declined.

    Raises:
        PyTorchError: The PyTorch extension is missing, or could not do it, or is still at it; or there is no such PyTorch for
            this build of Slicer.
    """
    global _installing
    if _installing:  # pip's output is shown as it comes, so Slicer's windows take clicks meanwhile
        raise PyTorchError("PyTorch is being installed: wait until that is done, and press Apply again.")
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        raise PyTorchError(
            f"There is no PyTorch {_IN_WORDS} for programs built for Intel processors on macOS, as this Slicer is: take the build of"
            " Slicer for Apple silicon (arm64), or another computer."
        )
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ModuleNotFoundError as error:
        raise PyTorchError(
            f"PyTorch {_IN_WORDS} is not installed, and neither is the PyTorch extension, which installs it: get that extension in the"
            " Extensions Manager, restart Slicer, and try again."
        ) from error
    _installing = True
    try:
        PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=f">={_IN_WORDS}")
    except Exception as error:  # of pip, the network, the disk, torch itself
        raise PyTorchError(
            f"PyTorch could not be installed ({error}). Check the network connection, the proxy and the free disk space, and"
            " try again; pip's own words are in Slicer's Python console."
        ) from error
    finally:
        _installing = False
    importlib.invalidate_caches()
    return is_installed()
