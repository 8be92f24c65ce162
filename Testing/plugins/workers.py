"""A real worker process, results to compare with, and a folder of scans for a cohort.

Imports are inside the fixtures: tests that do not use them load neither torch nor slicer.
"""

from __future__ import annotations

import tempfile

import pytest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    from Testing.support.bright import bright_bundle

    return bright_bundle(tmp_path_factory.mktemp("models") / "bright-v1.0.0").folder


@pytest.fixture(scope="module")
def expected(bundle):
    """The engine's own result for this scan."""
    from Testing.support.worker_jobs import scan
    from UNetPlusPlusSegmentLib.core.request import Request
    from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
    from UNetPlusPlusSegmentLib.network.bundle import read_bundle

    return SliceEngine(read_bundle(bundle), "cpu").predict(scan(), Request(speed="accurate"))


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """Where the clients of this module make their folders."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("temporary")
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
def worker(temporary, tmp_path_factory):
    """One real worker for most tests; it starts with noise on stdout, which must not disturb it."""
    from Testing.support.worker_jobs import CHATTER
    from UNetPlusPlusSegmentLib.jobs.worker_client import Worker

    chatter = tmp_path_factory.mktemp("chatter")
    (chatter / "sitecustomize.py").write_text(CHATTER)
    with Worker() as worker:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(chatter))
            job = worker.ask_device()
        worker.wait(job)
        yield worker
    assert not list(temporary.iterdir())


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a model, the only one that is found."""
    from Testing.support.bright import bright_bundle

    folder = tmp_path_factory.mktemp("models")
    bright_bundle(folder / "bright-v1.0.0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("UNetPlusPlusSegmentLib.network.bundle.search_folders", lambda: [folder])
        yield folder


@pytest.fixture
def cohort(tmp_path):
    """A folder with two scans, and a text file that calls itself one."""
    from Testing.support.worker_logic import a_cohort

    return a_cohort(tmp_path / "in")


@pytest.fixture(scope="module")
def logic(models):
    """One logic with one worker process for all tests."""
    from UNetPlusPlusSegmentLib.scene.logic import Segmenter

    logic = Segmenter()
    yield logic
    logic.close()
