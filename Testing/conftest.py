"""Shared by all tests: access to real data, and a fixture without root's rights."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Set before torch is imported, and for child processes: on such small networks a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A script that starts the tests in the background has Ctrl-C ignored, and child processes would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow computer is not a failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

pytest_plugins = [
    "Testing.plugins.app",
    "Testing.plugins.browser",
    "Testing.plugins.cohorts",
    "Testing.plugins.command_line",
    "Testing.plugins.nodules",
    "Testing.plugins.panel",
    "Testing.plugins.scene",
    "Testing.plugins.workers",
]
pytest.register_assert_rewrite("Testing.support")

REPOSITORY = Path(__file__).parents[1]
NOBODY = 65534

# Child processes also use the library of this checkout, whatever is installed.
known = os.environ.get("PYTHONPATH")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY / "UNetPlusPlusSegment"), known)))


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """A function from a path inside the shared data to the full path; the test is skipped if that does not exist."""
    root = Path(os.environ.get("UNETPP_DATA") or REPOSITORY.parent / "shared" / "data")

    def find(relative_path: str) -> Path:
        path = root / relative_path
        if not path.exists():
            pytest.skip(f"no shared data: {path} is not there (UNETPP_DATA says where to look)")
        return path

    return find


@pytest.fixture
def ordinary_user(tmp_path: Path) -> Iterator[None]:
    """Drop root's rights during a test, because root may read and write everything."""
    import UNetPlusPlusSegmentLib.jobs.report  # noqa: F401 - now, as Python itself may lie in root's home

    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        yield
        return
    temporary = Path(tempfile.gettempdir())
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.is_relative_to(temporary) and folder != temporary:
            folder.chmod(0o755)
    os.chown(tmp_path, NOBODY, -1)
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)
