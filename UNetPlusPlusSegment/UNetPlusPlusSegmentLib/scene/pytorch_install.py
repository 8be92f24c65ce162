"""PyTorch in Slicer: checks that it is installed, and installs it. It is imported only in the worker process."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import re
import sys
from importlib import metadata

NEEDED = (2, 7)  # the first version that can resample with antialiasing on Apple's GPUs
_VERSION = ".".join(map(str, NEEDED))
_installing = False


class PyTorchError(ValueError):
    """PyTorch is required but not installed; the message says how to install it."""


def is_installed() -> bool:
    """Whether PyTorch is installed and recent enough, without importing it.

    Importing it takes seconds, and on Windows it could not be replaced afterwards.
    """
    if _installing or importlib.util.find_spec("torch") is None:
        return False
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:  # a folder left by an interrupted installation
        return False
    return tuple(map(int, re.findall(r"\d+", version)[:2])) >= NEEDED


def require() -> None:
    """Require PyTorch.

    Raises:
        PyTorchError: It is not installed, or too old.
    """
    if not is_installed():
        raise PyTorchError(
            f"The network needs PyTorch {_VERSION} or newer, which is not installed. In Slicer, install the PyTorch extension, then click"
            " Apply in the UNet++ Segment module, or Install in the PyTorch Utils module. Elsewhere, run: pip install torch"
        )


def install() -> bool:
    """Let Slicer's PyTorch extension install PyTorch; it asks the user first, and selects the build for this computer's GPU.

    Returns:
        True if it is installed now; False if the user declined.

    Raises:
        PyTorchError: The PyTorch extension is missing, failed, or is still installing; or there is no PyTorch for this build
            of Slicer.
    """
    global _installing
    if _installing:  # Slicer handles clicks while it shows the output of pip
        raise PyTorchError("PyTorch is being installed: wait until this is done, and click Apply again.")
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        raise PyTorchError(
            f"There is no PyTorch {_VERSION} for Intel builds on macOS, such as this Slicer: use the build of Slicer for Apple silicon"
            " (arm64), or another computer."
        )
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ModuleNotFoundError as error:
        raise PyTorchError(
            f"PyTorch {_VERSION} is not installed, and neither is the PyTorch extension that installs it: install that extension in"
            " the Extensions Manager, restart Slicer, and try again."
        ) from error
    _installing = True
    try:
        PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=f">={_VERSION}")
    except Exception as error:  # from pip, the network, the disk or torch itself
        raise PyTorchError(
            f"PyTorch could not be installed ({error}). Check the network connection, the proxy and the free disk space, and"
            " try again. The output of pip is in Slicer's Python console."
        ) from error
    finally:
        _installing = False
    importlib.invalidate_caches()
    return is_installed()
