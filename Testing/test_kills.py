"""A cohort whose processes are killed at random moments loses nothing, does nothing twice and leaves nothing behind."""

from __future__ import annotations

import sys

import pytest

from Testing.support import kills
from Testing.support.bright import bright_bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked for in /proc"),
]


def test_a_hundred_kills_lose_nothing_and_leave_nothing(shared_data, tmp_path):
    bright_bundle(tmp_path / "liver-ct-v99.0.0", pixel_mm=4.0)
    ends = kills.run(shared_data("volumes").parent, tmp_path)
    assert ends.total() == kills.COUNT
    assert {end.partition(",")[0] for end in ends} == set(kills.SHARES)
