"""The folder of a cohort's results: who may write there, and what is never replaced."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.sample_files import write_slice
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core import lock
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.jobs import cohort as cohorts
from UNetPlusPlusSegmentLib.jobs import cohort_client
from UNetPlusPlusSegmentLib.jobs.cohort import one_after_the_other, run_cohort
from UNetPlusPlusSegmentLib.jobs.cohort_client import CohortProcess
from UNetPlusPlusSegmentLib.jobs.corrections import add_correction, corrected_path
from UNetPlusPlusSegmentLib.jobs.manifest import (
    MANIFEST,
    TABLE,
    CohortError,
    alone_in,
    append,
    is_running,
    read_manifest,
    write_table,
)
from UNetPlusPlusSegmentLib.jobs.report import REPORT
from UNetPlusPlusSegmentLib.jobs.results import Results

HAND_MADE = b"drawn by hand"


class Finder:
    """Stands in for a worker: finds a block in every scan, at once, and a larger one below a threshold of 0.5."""

    def submit(self, volume, folder, request):
        return volume, request.threshold or 0.5

    def result_of(self, submitted):
        volume, threshold = submitted
        labelmap = np.zeros(volume.array.shape, np.uint8)
        labelmap[2 : 4 if threshold >= 0.5 else 5, 2:6, 2:6] = 1
        liver = Segment(1, "Liver", "", (221, 130, 101), {"volume_ml": 1.0})
        return Result(labelmap, (liver,), (), 0.5, "bright-v1.0.0", "cpu", 6, 6, 0.1)


@pytest.fixture
def run(bundle):
    """A function that runs a cohort, and returns the status of each case by its name."""

    def run(inputs, out, forms=(), **asked) -> dict[str, str]:
        request = Request(**{"model": bundle, "device": "cpu", **asked})
        records = run_cohort(one_after_the_other(Finder()), inputs, out, request, forms=forms)
        return {each["case"]: each["status"] for each in records}

    return run


@pytest.fixture
def scans(tmp_path):
    """A folder with the scan `a.nii.gz`."""
    (tmp_path / "in").mkdir()
    add_scan(tmp_path / "in" / "a.nii.gz")
    return tmp_path / "in"


def add_scan(path: Path, aside_mm: float = 0.0) -> None:
    """Write noise, each slice `aside_mm` to the side of the one before it."""
    array, affine = np.random.default_rng(0).integers(-1000, 300, (6, 8, 8), np.int16), np.diag([-2.0, -2.0, 3.0, 1.0])
    affine[1, 2] = aside_mm
    files.write_volume(path, array, affine)


def kill_at_the_next_result(monkeypatch) -> None:
    """Have the next run end as one that is killed when the result of its first case is written, but not recorded."""

    def kill(*_):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(cohorts, "write_picture", kill)


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


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("a.*")}


def test_all_files_of_a_case_show_the_mask_that_was_made_last_whichever_were_asked_for(run, scans, tmp_path):
    forms = ["nii.gz", "stl", "obj"]
    run(scans, tmp_path / "fresh", forms, threshold=0.4)
    run(scans, tmp_path / "out", forms)
    assert run(scans, tmp_path / "out", threshold=0.4) == {"a": "done"}
    assert files_in(tmp_path / "out") == files_in(tmp_path / "fresh")
    assert run(scans, tmp_path / "out", forms, threshold=0.4) == {"a": "done"}
    assert len((tmp_path / "out" / MANIFEST).read_text().splitlines()) == 2, "nothing was left to do"


def test_a_model_that_has_learned_more_under_its_old_name_does_a_case_again(run, bundle, scans, tmp_path):
    retrained = tmp_path / bundle.name
    shutil.copytree(bundle, retrained)
    run(scans, tmp_path / "out", model=retrained)
    card = json.loads((retrained / "model.json").read_text())
    (retrained / "model.json").write_text(json.dumps(card | {"sha256": "0" * 64}))
    for _ in range(2):
        run(scans, tmp_path / "out", model=retrained)
    assert len((tmp_path / "out" / MANIFEST).read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "other", [{"speed": "fast"}, {"threshold": 0.4}, {"force": True}], ids=lambda other: next(iter(other))
)
def test_a_case_is_done_again_with_another_setting_but_not_with_the_same(run, scans, tmp_path, other):
    for asked in ({}, {}, other, other):
        run(scans, tmp_path / "out", **asked)
    ((name, value),) = other.items()
    first, second = [json.loads(line) for line in (tmp_path / "out" / MANIFEST).read_text().splitlines()]
    assert first[name] != second[name] == value


def test_the_same_scans_and_targets_are_known_however_they_are_spelled(run, scans, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(scans)
    out = tmp_path / "out"
    run(scans, out, target="Liver")
    run(tmp_path / "link", out, target="liver_")
    monkeypatch.chdir(out)
    run([Path("..") / "in" / "a.nii.gz"], out)
    assert len((out / MANIFEST).read_text().splitlines()) == 1


def write_series(folder: Path, level: int) -> None:
    """Write a DICOM series, whose values are about `level`."""
    for k in range(6):
        pixels = np.full((8, 8), level + k, np.int16).tobytes()
        write_slice(folder / f"{k}.dcm", (0, 0, 2.5 * k), InstanceNumber=k, Rows=8, Columns=8, PixelData=pixels)


def write_detached(folder: Path, level: int) -> None:
    folder.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(np.full((6, 8, 8), level, np.int16))
    sitk.WriteImage(image, str(folder / "a.mhd"))


def write_file(folder: Path, level: int) -> None:
    folder.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.full((6, 8, 8), level, np.int16)), str(folder / "a.nrrd"), False)


@pytest.mark.parametrize(
    ("write", "name"),
    [(write_series, ""), (write_detached, "a.mhd"), (write_file, "a.nrrd")],
    ids=["series", "mhd", "nrrd"],
)
def test_a_scan_that_another_one_has_replaced_is_done_again_and_a_copy_is_not(run, tmp_path, write, name):
    scan, out = tmp_path / "in", tmp_path / "in" / "out"
    write(scan, level=1)
    lines = []
    for act in (None, lambda: os.utime(scan / name), lambda: write(scan, level=2), None):
        if act:
            act()
        assert {*run([scan / name], out).values()} == {"done"}
        lines.append(len((out / MANIFEST).read_text().splitlines()))
    assert lines == [1, 1, 2, 2]


def test_a_correction_of_a_scan_that_was_replaced_is_kept_and_the_run_refused(run, scans, tmp_path):
    out = tmp_path / "out"
    run(scans, out)
    corrected, line = corrected_path(out, "a"), read_manifest(out)["a"]
    shutil.copyfile(out / "a.seg.nrrd", corrected)
    volume, _ = files.read_volume(scans / "a.nii.gz")
    add_correction(out, line, volume, np.zeros(volume.array.shape, np.uint8), [])
    assert run(scans, out) == {"a": "done"}
    before = files_in(out)
    files.write_volume(scans / "a.nii.gz", volume.array + 1, volume.ijk_to_ras)
    with pytest.raises(CohortError, match=r"a\.corrected\.seg\.nrrd corrects an earlier scan, .*: move it"):
        run(scans, out)
    assert files_in(out) == before
    corrected.rename(tmp_path / "moved")
    assert run(scans, out) == {"a": "done"}
    assert [*rows_of(out)] == ["a"] and read_manifest(out)["a"]["scan"] != line["scan"]


def test_a_case_that_is_named_by_a_dot_has_the_name_of_its_folder(run, tmp_path, monkeypatch):
    for k in range(3):
        write_slice(tmp_path / "scans" / "P01" / "deeper" / f"{k}.dcm", (0, 0, 2.5 * k), InstanceNumber=k)
    add_scan(tmp_path / "scans" / "P02.nrrd")
    for at, dots in (("P01", "."), ("P01/deeper", "..")):
        monkeypatch.chdir(tmp_path / "scans" / at)
        out = tmp_path / f"out{len(dots)}"
        assert run([dots, tmp_path / "scans" / "P02.nrrd"], out) == {"P01": "done", "P02": "done"}
        assert {path.name for path in out.glob("*.seg.nrrd")} == {"P01.seg.nrrd", "P02.seg.nrrd"}


def test_a_case_is_not_done_if_a_killed_run_with_other_settings_has_replaced_its_files(
    run, scans, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    run(scans, out, ["nii.gz"])
    before = files_in(out)
    kill_at_the_next_result(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(scans, out, threshold=0.4)
    assert files_in(out) != before
    assert run(scans, out) == {"a": "done"}
    assert files_in(out) == before and not [*out.glob(".*")]


def test_a_picture_that_shows_an_older_mask_is_not_in_the_report(run, scans, tmp_path, monkeypatch):
    run(scans, tmp_path / "out")
    assert "data:image/jpeg" in (tmp_path / "out" / REPORT).read_text()
    monkeypatch.setattr(cohorts, "write_picture", lambda *_: 1 / 0)
    assert run(scans, tmp_path / "out", threshold=0.4) == {"a": "done"}
    assert "data:image/jpeg" not in (tmp_path / "out" / REPORT).read_text()


def test_a_case_that_fails_while_it_is_written_does_not_call_what_it_has_replaced_kept(
    run, scans, tmp_path, monkeypatch
):
    run(scans, tmp_path / "out")
    monkeypatch.setattr(files, "write_forms", lambda *_: 1 / 0)
    assert run(scans, tmp_path / "out", threshold=0.4) == {"a": "failed"}
    assert "is kept" not in read_manifest(tmp_path / "out")["a"]["reason"]


def test_a_tilted_scan_that_is_asked_for_as_nifti_fails_before_the_network_runs(run, scans, tmp_path, monkeypatch):
    add_scan(scans / "tilted.nrrd", aside_mm=1.0)
    monkeypatch.setattr(Finder, "submit", lambda *_: pytest.fail("ran"))
    assert run([scans / "tilted.nrrd"], tmp_path / "out", ["nii.gz"]) == {"tilted": "failed"}
    reason = read_manifest(tmp_path / "out")["tilted"]["reason"]
    assert "tilted.nii.gz cannot be written" in reason and "gantry tilt" in reason


def test_a_folder_of_an_earlier_version_goes_on_with_its_segmentations(run, scans, tmp_path):
    out = tmp_path / "out"
    run(scans, out)
    lines = [json.loads(line) for line in (out / MANIFEST).read_text().splitlines()]
    for line in lines:
        line.pop("files"), line.pop("scan")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / MANIFEST).write_text(text)
    assert run(scans, out) == {"a": "done"} and (out / MANIFEST).read_text() == text
    assert run(scans, out, threshold=0.4) == {"a": "done"}


def rows_of(out: Path) -> dict[str, str]:
    """The status of each case in the table."""
    with (out / TABLE).open(newline="", encoding="utf-8") as stream:
        return {row["case"]: row["status"] for row in csv.DictReader(stream)}


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
