"""For Python users: `load_engine`, the engine that a bundle needs."""

from __future__ import annotations

from .engine.organ import SliceEngine
from .network.bundle import Bundle
from .nodule.engine import NoduleEngine


def load_engine(bundle: Bundle, device: str = "auto") -> SliceEngine:
    """The engine for a bundle's target, its weights loaded and checked.

    Raises:
        BundleError, DeviceError: The model or the device cannot be used.
    """
    return NoduleEngine(bundle, device) if bundle.target == "nodule" else SliceEngine(bundle, device)
