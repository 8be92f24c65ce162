"""What a cohort's table and report still list when files have gone, moved or failed."""

from __future__ import annotations

import numpy as np

from Testing.support.quick_cohorts import add_scan, rows_of
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.jobs.report import REPORT


def test_what_failed_or_was_skipped_is_no_longer_listed_once_it_is_gone(run, scans, tmp_path, caplog):
    out = tmp_path / "out"
    for name in ("broken.nrrd", "elsewhere.nrrd"):
        (scans / name).write_text("not a volume")
    (scans / "loose.dcm").touch()
    run(scans, out)
    (scans / "elsewhere.nrrd").rename(tmp_path / "elsewhere.nrrd")
    run([tmp_path / "elsewhere.nrrd"], out)
    for name in ("broken.nrrd", "loose.dcm"):
        (scans / name).unlink()
    caplog.clear()
    assert run(scans, out) == {"a": "done"}
    said = sorted(line.partition(",")[0] for line in caplog.messages)
    assert said == ["broken is no longer listed", "loose.dcm is no longer listed"]
    assert rows_of(out) == {"a": "done", "elsewhere": "failed"}, "what lies in another folder may still be run"
    assert "broken" not in (out / REPORT).read_text()
    (scans / "broken.nrrd").write_text("not a volume")
    assert run(scans, out) == {"a": "done", "broken": "failed"}, "it is listed again when it is there again"


def test_a_file_that_is_skipped_no_longer_is_listed_as_a_case_alone(run, scans, tmp_path):
    mask = np.zeros((6, 8, 8), np.uint8)
    mask[2:4] = 1
    files.write_volume(scans / "a-label.nrrd", mask, np.diag([-2.0, -2.0, 3.0, 1.0]))
    run(scans, tmp_path / "out")
    assert rows_of(tmp_path / "out") == {"a": "done", "a-label.nrrd": "skipped"}
    add_scan(scans / "a-label.nrrd")
    run(scans, tmp_path / "out")
    assert rows_of(tmp_path / "out") == {"a": "done", "a-label": "done"}


def test_results_beside_their_scans_are_not_listed_as_skipped(run, tmp_path):
    add_scan(tmp_path / "a.nrrd")
    for _ in range(2):
        assert run(tmp_path, tmp_path, ["nii.gz"]) == {"a": "done"}


def test_a_result_stays_listed_when_its_scan_is_gone(run, scans, tmp_path):
    out = tmp_path / "out"
    for name in ("done", "failing"):
        add_scan(scans / f"{name}.nrrd")
    run(scans, out)
    (scans / "failing.nrrd").write_text("not a volume")
    assert run(scans, out, threshold=0.4)["failing"] == "failed"
    for name in ("done", "failing"):
        (scans / f"{name}.nrrd").unlink()
    run(scans, out, threshold=0.4)
    assert rows_of(out) == {"a": "done", "done": "done", "failing": "failed"}
    assert (out / "done.seg.nrrd").is_file() and (out / "failing.seg.nrrd").is_file()
