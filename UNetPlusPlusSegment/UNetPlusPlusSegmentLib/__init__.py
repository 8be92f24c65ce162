"""Slice-wise CT segmentation with UNet++.

`segment`, `load_engine`, `read_volume` and `Volume` are imported when they are first used, so that Slicer starts quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import load_engine, segment
    from .core.volume import Volume
    from .files import read_volume

__version__ = "0.2.0"
__all__ = ["Volume", "__version__", "load_engine", "read_volume", "segment"]

_ROOMS = {"segment": "api", "load_engine": "api", "read_volume": "files", "Volume": "core.volume"}


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
