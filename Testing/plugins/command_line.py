"""A model for the command line whose result is known.

Imports are inside the fixtures: tests that do not use them do not load torch.
"""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def shell_models(tmp_path_factory):
    """A models folder with the bright model, the newest one for the liver."""
    from Testing.support.bright import bright_bundle

    folder = tmp_path_factory.mktemp("models")
    bright_bundle(folder / "liver-ct-v99.0.0")
    return folder


@pytest.fixture
def with_models(shell_models, monkeypatch):
    """The same folder, searched by the command line in this process."""
    monkeypatch.setenv("UNETPP_MODELS", str(shell_models))
    return shell_models
