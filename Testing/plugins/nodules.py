"""A nodule engine whose result is known.

Imports are inside the fixtures: tests that do not use them load neither torch nor SimpleITK.
"""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    from Testing.support.bright import bright_nodule_bundle
    from UNetPlusPlusSegmentLib.api import load_engine

    return load_engine(bright_nodule_bundle(tmp_path_factory.mktemp("models") / "nodule-v1.0.0"), "cpu")
