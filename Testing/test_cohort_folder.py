"""The folder of a cohort's results: who may write there, and what is never replaced."""

from __future__ import annotations

import pytest

from Testing.support.quick_cohorts import add_scan, kill_at_the_next_result, rows_of
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core import lock
from UNetPlusPlusSegmentLib.jobs import cohort as cohorts
from UNetPlusPlusSegmentLib.jobs.manifest import (
    MANIFEST,
    CohortError,
    alone_in,
    append,
    is_running,
    read_manifest,
    write_table,
)
from UNetPlusPlusSegmentLib.jobs.results import Results

HAND_MADE = b"drawn by hand"


def killed(*_):
    raise KeyboardInterrupt


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
    real = lock._lock

    def lock_once_the_other_has_ended(stream):
        monkeypatch.setattr(lock, "_lock", real)
        (tmp_path / MANIFEST).unlink()
        return real(stream)

    monkeypatch.setattr(lock, "_lock", lock_once_the_other_has_ended)
    with alone_in(tmp_path):
        assert is_running(tmp_path)


def test_a_table_that_is_open_in_another_program_ends_no_run(run, scans, tmp_path, monkeypatch):
    def locked(folder):
        if (tmp_path / "excel").exists():
            raise files.FileError("measurements.csv could not be written: Permission denied.")
        write_table(folder)

    monkeypatch.setattr(cohorts, "write_table", locked)
    add_scan(scans / "b.nrrd")
    (tmp_path / "excel").touch()
    with pytest.raises(files.FileError, match="Permission denied"):
        run(scans, tmp_path / "out")
    assert [*read_manifest(tmp_path / "out")] == ["a", "b"]
    assert (tmp_path / "out" / "report.html").is_file()
    (tmp_path / "excel").unlink()
    run(scans, tmp_path / "out")
    assert rows_of(tmp_path / "out") == {"a": "done", "b": "done"}


@pytest.mark.parametrize("through", ["dots", "a link"])
def test_a_scan_is_not_replaced_whatever_its_folder_is_called(run, scans, tmp_path, monkeypatch, through):
    monkeypatch.chdir(scans)
    inputs, out = ("../in", ".") if through == "dots" else (scans, tmp_path / "link")
    if through == "a link":
        out.symlink_to(scans)
    before = (scans / "a.nii.gz").read_bytes()
    assert run(inputs, out) == {"a": "done"}
    for asked in ({}, {"threshold": 0.4}):
        with pytest.raises(CohortError, match=r"a\.nii\.gz is one of the scans, .* another folder"):
            run(inputs, out, ["nii.gz"], **asked)
    assert (scans / "a.nii.gz").read_bytes() == before


def test_a_file_in_a_form_that_no_run_has_written_is_not_replaced(run, scans, tmp_path):
    out = tmp_path / "out"
    run(scans, out)
    (out / "a.nii.gz").write_bytes(HAND_MADE)
    for asked in ({}, {"threshold": 0.4}):
        with pytest.raises(CohortError, match=r"a\.nii\.gz is not a result of this cohort, .* move it, or choose"):
            run(scans, out, ["nii.gz"], **asked)
    assert (out / "a.nii.gz").read_bytes() == HAND_MADE
    (out / "a.nii.gz").unlink()
    for asked in ({}, {"threshold": 0.4}):
        assert run(scans, out, ["nii.gz"], **asked) == {"a": "done"}
    assert run(scans, out) == {"a": "done"}
    assert run(scans, out, ["nii.gz"], threshold=0.4) == {"a": "done"}, "the NIfTI is still known"


def test_an_outline_saved_by_hand_beside_the_results_is_not_replaced(run, scans, tmp_path):
    out = tmp_path / "out"
    (scans / "broken.nrrd").write_text("not a volume")
    assert run(scans, out) == {"a": "done", "broken": "failed"}
    add_scan(scans / "b.nrrd")
    for name in ("b.seg.nrrd", "broken.seg.nrrd"):
        (out / name).write_bytes(HAND_MADE)
        with pytest.raises(CohortError, match=f"{name} is not a result of this cohort"):
            run(scans, out)
        assert (out / name).read_bytes() == HAND_MADE
        (out / name).unlink()
    assert run(scans, out) == {"a": "done", "b": "done", "broken": "failed"}


def test_a_result_that_was_edited_and_saved_in_place_is_not_replaced(run, scans, tmp_path):
    out = tmp_path / "out"
    run(scans, out, ["nii.gz"])
    written = (out / "a.seg.nrrd").read_bytes()
    (out / "a.seg.nrrd").write_bytes(HAND_MADE)
    assert run(scans, out) == {"a": "done"}, "nothing was to be replaced"
    with pytest.raises(CohortError, match=r"a\.seg\.nrrd was changed since it was written, .* move it, or choose"):
        run(scans, out, threshold=0.4)
    assert (out / "a.seg.nrrd").read_bytes() == HAND_MADE
    (out / "a.seg.nrrd").write_bytes(written)
    assert run(scans, out, threshold=0.4) == {"a": "done"}


def test_a_picture_of_the_user_is_not_replaced(run, scans, tmp_path):
    picture = tmp_path / "out" / "pictures" / "a.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(HAND_MADE)
    with pytest.raises(CohortError, match=r"a\.jpg is not a result of this cohort"):
        run(scans, tmp_path / "out")
    assert picture.read_bytes() == HAND_MADE
    picture.unlink()
    for asked in ({}, {"threshold": 0.4}):
        assert run(scans, tmp_path / "out", **asked) == {"a": "done"}


def test_a_case_that_is_gone_and_comes_back_gets_its_picture_again(run, scans, tmp_path):
    out, scan = tmp_path / "out", scans / "a.nii.gz"
    add_scan(scans / "b.nrrd")
    run(scans, out)
    whole = scan.read_bytes()
    scan.write_bytes(whole[:300])
    assert run(scans, out) == {"a": "failed", "b": "done"}
    scan.unlink()
    (out / "a.seg.nrrd").unlink()
    assert run(scans, out) == {"b": "done"}
    scan.write_bytes(whole)
    assert run(scans, out) == {"a": "done", "b": "done"}


def test_a_table_stays_that_of_its_cohort_though_all_of_its_cases_are_gone(run, scans, tmp_path, monkeypatch):
    out = tmp_path / "out"
    (scans / "a.nii.gz").write_text("not a volume")
    run(scans, out)
    (scans / "a.nii.gz").unlink()
    add_scan(scans / "b.nrrd")
    kill_at_the_next_result(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(scans, out)
    assert not read_manifest(out)
    assert run(scans, out) == {"b": "done"}


def test_a_run_that_was_killed_goes_on_with_the_file_that_it_was_writing(run, scans, tmp_path, monkeypatch):
    out = tmp_path / "out"
    add_scan(scans / "b.nrrd")
    kill_at_the_next_result(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(scans, out, ["nii.gz"])
    assert (out / "a.seg.nrrd").is_file() and not read_manifest(out)
    (out / "b.seg.nrrd").write_bytes(HAND_MADE)
    with pytest.raises(CohortError, match=r"b\.seg\.nrrd is not a result"):  # the killed run had not come to it
        run(scans, out, ["nii.gz"])
    (out / "b.seg.nrrd").unlink()
    assert run(scans, out, ["nii.gz"]) == {"a": "done", "b": "done"}
    assert not [*out.glob(".*")]


def test_a_run_that_was_killed_after_its_line_was_written_leaves_no_mark_and_no_case_to_do(
    run, scans, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Results, "unmark", killed)
        run(scans, out)
    assert [*out.glob(".*")]
    assert run(scans, out) == {"a": "done"}
    assert not [*out.glob(".*")] and len((out / MANIFEST).read_text().splitlines()) == 1


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
