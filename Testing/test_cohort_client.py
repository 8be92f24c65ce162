"""The process of a cohort, as its client sees it."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.jobs import cohort_client
from UNetPlusPlusSegmentLib.jobs.cohort_client import CohortProcess
from UNetPlusPlusSegmentLib.jobs.manifest import read_manifest


def test_a_relative_folder_lies_where_the_caller_is_not_where_the_process_is(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.nrrd").write_text("not a volume")
    process = CohortProcess("in", "out", Request(model=bundle, device="cpu"))
    while process.running:
        process.poll()
        time.sleep(0.05)
    assert process.error is None
    assert set(read_manifest(tmp_path / "out")) == {"broken"}


def test_the_time_left_goes_by_the_cases_since_the_start_and_those_still_to_do(monkeypatch):
    process, seconds = CohortProcess.__new__(CohortProcess), iter((0.0, 60.0))
    process.running, process.done, process.total, process._begun_at, process._begun_with = True, 0, 0, 0.0, 0
    monkeypatch.setattr(cohort_client, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    left = []
    for done in (8, 9):  # eight were done before
        line = json.dumps({"say": "progress", "done": done, "total": 11, "case": "i"})
        process._process = SimpleNamespace(received=lambda line=line: iter([line]))
        process.poll()
        left.append(process.seconds_left)
    assert left == [None, 120.0]
