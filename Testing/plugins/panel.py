"""The open panel, with a worker process that serves all panels of a file."""

from __future__ import annotations

import time

import pytest


@pytest.fixture(scope="module")
def lasting_worker():
    """One real worker process for all panels: loading torch takes seconds."""
    from UNetPlusPlusSegmentLib.jobs.worker_client import Worker

    class LastingWorker(Worker):
        def close(self) -> None:
            """Only what is under way ends; the process serves the next panel."""
            for job in self._under_way():
                self.cancel(job)
            while self.busy:
                self.poll()
                time.sleep(0.01)

    worker = LastingWorker()
    yield worker
    super(LastingWorker, worker).close()


@pytest.fixture
def panel(models, lasting_worker, monkeypatch, request):
    """The open panel, with a model that finds what is bright; the worker uses the processor."""
    monkeypatch.setattr("UNetPlusPlusSegmentLib.scene.logic.Worker", lambda: lasting_worker)
    panel = request.getfixturevalue("frame").self()
    panel.ui.deviceComboBox.setCurrentText("CPU")
    return panel
