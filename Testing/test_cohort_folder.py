"""The folder of a cohort's results: who may write there, and what is never replaced."""

from __future__ import annotations

import time

import pytest

from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.jobs import manifest
from UNetPlusPlusSegmentLib.jobs.cohort_client import CohortProcess
from UNetPlusPlusSegmentLib.jobs.manifest import MANIFEST, CohortError, alone_in, append, is_running, read_manifest


def test_a_refused_cohort_leaves_the_lock_of_the_running_one(tmp_path):
    out = tmp_path / "out"
    with alone_in(out):
        for _ in range(2):
            with pytest.raises(CohortError, match="Another cohort is running"), alone_in(out):
                pytest.fail("two cohorts ran at once")
        append(out, {"case": "a", "status": "done"})
    assert set(read_manifest(out)) == {"a"}


def test_a_folder_in_which_nothing_was_written_is_removed_again(tmp_path):
    with alone_in(tmp_path / "out"):
        pass
    with alone_in(tmp_path):
        pass
    assert not any(tmp_path.iterdir())


def test_a_cohort_does_not_lock_a_manifest_that_another_one_has_just_removed(tmp_path, monkeypatch):
    lock = manifest._lock

    def lock_once_the_other_has_ended(stream):
        monkeypatch.setattr(manifest, "_lock", lock)
        (tmp_path / MANIFEST).unlink()
        return lock(stream)

    monkeypatch.setattr(manifest, "_lock", lock_once_the_other_has_ended)
    with alone_in(tmp_path):
        assert is_running(tmp_path)


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
