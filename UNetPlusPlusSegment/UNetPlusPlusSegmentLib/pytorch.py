"""PyTorch in Slicer: whether it is there, and how it gets there. Never imports it: the worker process alone does that."""

from __future__ import annotations

import importlib
import importlib.util

NEEDED_VERSION = ">=2.4"


class PyTorchError(ValueError):
    """PyTorch is needed and not there; the message says how to get it."""


def is_installed() -> bool:
    """Look for PyTorch without importing it: loading it takes seconds, and on Windows it could not be replaced then."""
    return importlib.util.find_spec("torch") is not None


def require() -> None:
    """Refuse to go on without PyTorch.

    Raises:
        PyTorchError: It is not installed.
    """
    if not is_installed():
        raise PyTorchError(
            "PyTorch is not installed, and the network runs on it. In Slicer, install the PyTorch extension and press Apply"
            " in the UNet++ Segment module, or Install in the PyTorch Utils module; elsewhere, install torch with pip."
        )


def install() -> bool:
    """Have Slicer's PyTorch extension install PyTorch, which asks first and picks the build for this computer's GPU.

    Returns:
        Whether it is installed now; if not, the user declined.

    Raises:
        PyTorchError: The PyTorch extension is missing.
    """
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ModuleNotFoundError as error:
        raise PyTorchError(
            "PyTorch is not installed, and neither is the PyTorch extension, which installs it: get that extension in the"
            " Extensions Manager, restart Slicer, and try again."
        ) from error
    PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=NEEDED_VERSION)
    importlib.invalidate_caches()
    return is_installed()
