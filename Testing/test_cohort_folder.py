"""The folder of a cohort's results: who may write there, and what is never replaced."""

from __future__ import annotations

import time

import numpy as np
import pytest

from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.jobs import manifest
from UNetPlusPlusSegmentLib.jobs.cohort import one_after_the_other, run_cohort
from UNetPlusPlusSegmentLib.jobs.cohort_client import CohortProcess
from UNetPlusPlusSegmentLib.jobs.manifest import MANIFEST, CohortError, alone_in, append, is_running, read_manifest


class Finder:
    """Stands in for a worker: finds a block in every scan, at once."""

    def submit(self, volume, folder, request):
        return volume

    def result_of(self, volume):
        labelmap = np.zeros(volume.array.shape, np.uint8)
        labelmap[2:4] = 1
        liver = Segment(1, "Liver", "", (221, 130, 101), {"volume_ml": 1.0})
        return Result(labelmap, (liver,), (), 0.5, "bright-v1.0.0", "cpu", 6, 6, 0.1)


@pytest.fixture
def run(bundle):
    """A function that runs a cohort, and returns the status of each case by its name."""

    def run(inputs, out, forms=(), **asked) -> dict[str, str]:
        request = Request(model=bundle, device="cpu", **asked)
        records = run_cohort(one_after_the_other(Finder()), inputs, out, request, forms=forms)
        return {each["case"]: each["status"] for each in records}

    return run


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


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("A.nrrd", "a.nii.gz"), "share one result on Windows and macOS"),
        (("M\u00fcller.nrrd", "Mu\u0308ller.nii.gz"), "share one result on Windows and macOS"),
        (("a.nii.gz", "A.corrected.nrrd"), r"A\.corrected\.nrrd has the name of a correction of .*a\.nii\.gz"),
        (("x" * 249 + ".nrrd",), r"xxx\.nrrd has too long a name for its results: shorten it to 236 bytes"),
    ],
    ids=["case", "accent", "correction", "length"],
)
def test_scans_that_would_not_get_a_file_of_their_own_are_refused_before_the_first_case(run, tmp_path, names, words):
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).touch()
    with pytest.raises(CohortError, match=words):
        run(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
