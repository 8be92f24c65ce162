"""Cohorts from the logic of the module: bad cases, a second call, other settings."""

from __future__ import annotations

import csv
import errno
import inspect
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from Testing.support.bright import bright_nodule_bundle
from Testing.support.nodule_scans import A, B, lung_with, ras
from Testing.support.worker_logic import a_scan
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.cli.parser import parser
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.jobs import cohort as cohorts
from UNetPlusPlusSegmentLib.jobs.cases import find_cases
from UNetPlusPlusSegmentLib.jobs.cohort import CohortError, Todo, one_after_the_other
from UNetPlusPlusSegmentLib.jobs.manifest import is_running
from UNetPlusPlusSegmentLib.scene.logic import Segmenter


def test_a_cohort_continues_after_a_failed_case_and_a_second_call_runs_the_rest(logic, cohort, tmp_path):
    out, seen = tmp_path / "out", []
    records = logic.processFolder(cohort, out, device="cpu", progress=lambda *state: seen.append(state))
    assert [(each["case"], each["status"]) for each in records] == [
        ("broken", "failed"), ("one", "done"), ("two", "done")
    ]  # fmt: skip
    assert records[0]["reason"]
    assert records[1]["measurements"]["Liver"]["volume_ml"] > 0
    assert seen == [(0, 3, "broken"), (1, 3, "one"), (2, 3, "two"), (3, 3, "")]
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.jsonl", "measurements.csv", "one.seg.nrrd", "pictures", "report.html", "two.seg.nrrd"
    ]  # fmt: skip
    files.write_volume(cohort / "broken.nrrd", a_scan(), np.diag([-2.0, -2.0, 3.0, 1.0]))
    (out / "two.seg.nrrd").unlink()
    with (out / "manifest.jsonl").open("a") as stream:
        stream.write('{"case": "one", "sta')  # the computer went down here
    untouched = (out / "one.seg.nrrd").stat().st_mtime_ns
    records = logic.processFolder(cohort, out, device="cpu")
    assert [each["status"] for each in records] == ["done"] * 3
    assert (out / "one.seg.nrrd").stat().st_mtime_ns == untouched
    lines = (out / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines[:3] + lines[4:]] == ["broken", "one", "two", "broken", "two"]
    assert len((out / "measurements.csv").read_text().splitlines()) == 4


def test_results_and_what_is_hidden_are_no_cases(logic, cohort, tmp_path):
    (cohort / ".git").mkdir()
    for _ in range(2):  # the second time, what the first one wrote lies there
        records = logic.processFolder(cohort, cohort / "out", device="cpu")
        assert [each["case"] for each in records] == ["broken", "one", "two"]
    logic.processFolder([cohort / "one.nrrd"], cohort / "results" / "livers", device="cpu")
    assert sorted(find_cases(cohort, besides=cohort / "results" / ".." / "results" / "livers")[0]) == [
        "broken",
        "one",
        "two",
    ]
    (cohort / "results").rename(tmp_path / "results")
    logic.processFolder([cohort / "one.nrrd"], cohort, device="cpu")
    assert sorted(find_cases(cohort, besides=cohort / "out")[0]) == ["broken", "one", "two"]


def test_a_case_that_fails_with_other_settings_keeps_its_earlier_result_with_a_note(logic, cohort, tmp_path):
    out = tmp_path / "out"
    logic.processFolder([cohort / "one.nrrd"], out, device="cpu")
    made = (out / "one.seg.nrrd").read_bytes()
    (cohort / "one.nrrd").write_text("not a volume")
    (record,) = logic.processFolder([cohort / "one.nrrd"], out, device="cpu", speed="fast")
    assert record["status"] == "failed"
    assert record["reason"].endswith("The result of an earlier run is kept: one.seg.nrrd.")
    assert (out / "one.seg.nrrd").read_bytes() == made


def test_other_settings_do_a_case_again(logic, cohort, tmp_path):
    one = [cohort / "one.nrrd"]
    first, second = (logic.processFolder(one, tmp_path / "out", device="cpu", threshold=t)[0] for t in (0.5, 0.999))
    assert first["measurements"]["Liver"]["volume_ml"] > second["measurements"]["Liver"]["volume_ml"]


def test_results_of_another_target_or_another_file_are_not_replaced(logic, models, cohort, tmp_path):
    bright_nodule_bundle(models / "spots-v1.0.0")
    out, other = tmp_path / "out", tmp_path / "elsewhere" / "one.nrrd"
    logic.processFolder([cohort / "one.nrrd"], out, device="cpu")
    made = (out / "one.seg.nrrd").read_bytes()
    other.parent.mkdir()
    files.write_volume(other, a_scan(), np.diag([-2.0, -2.0, 3.0, 1.0]))
    with pytest.raises(CohortError, match=r"one.seg.nrrd is a result for liver, .* another folder"):
        logic.processFolder([cohort / "one.nrrd"], out, target="nodule", device="cpu")
    with pytest.raises(CohortError, match=r"is a result for .*/in/one.nrrd"):
        logic.processFolder([other], out, device="cpu")
    assert (out / "one.seg.nrrd").read_bytes() == made


def test_scans_and_foreign_files_are_never_replaced(logic, cohort):
    def refused(words, **options):
        before = {path.name: path.read_bytes() for path in cohort.iterdir() if path.is_file()}
        with pytest.raises(CohortError, match=words + r", .* another folder"):
            logic.processFolder(cohort, cohort, device="cpu", **options)
        assert {path.name: path.read_bytes() for path in cohort.iterdir() if path.is_file()} == before

    refused(r"two.nii.gz is one of the scans", formats=["nii.gz"])
    for name in ("one.seg.nrrd", "measurements.csv"):
        (cohort / name).write_text("by hand")
        refused(f"{name} is not a result of this cohort")
        (cohort / name).unlink()
    logic.processFolder([cohort / "two.nii.gz"], cohort, device="cpu")
    (cohort / "one.seg.nrrd").write_text("by hand")
    refused("one.seg.nrrd is not a result of this cohort")


def test_the_table_holds_the_cases_of_earlier_calls_and_those_done_before_a_stop(logic, cohort, tmp_path):
    def stop(done, total, case):
        if done > 1:
            raise InterruptedError

    logic.processFolder([cohort / "two.nii.gz"], tmp_path, device="cpu")
    with pytest.raises(InterruptedError):
        logic.processFolder(cohort, tmp_path, device="cpu", progress=stop)
    with (tmp_path / "measurements.csv").open(newline="") as stream:
        assert [row["case"] for row in csv.DictReader(stream)] == ["broken", "two"]


def test_a_name_that_is_no_text_stops_nothing(logic, cohort, tmp_path):
    odd = cohort / os.fsdecode(b"M\xfcller.nrrd")  # Latin-1, as old archives have it
    (cohort / "one.nrrd").rename(odd)
    for _ in range(2):
        records = logic.processFolder(cohort, tmp_path / "out", device="cpu")
        states = {each["case"]: each["status"] for each in records}
        assert states == {"broken": "failed", "two": "done", odd.name.removesuffix(".nrrd"): "failed"}
    assert "M\\udcfcller.nrrd has a name that is not valid text" in next(
        each["reason"] for each in records if "M" in each["case"]
    )
    assert len((tmp_path / "out" / "measurements.csv").read_text().splitlines()) == 4


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_first_case(logic, cohort, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CohortError, match="is not writable"):
        logic.processFolder(cohort, tmp_path / "file", device="cpu")


def test_a_cohort_without_cases_or_with_two_of_one_name_is_refused(logic, cohort, tmp_path):
    with pytest.raises(CohortError, match="No volume files or folders were found"):
        logic.processFolder([], tmp_path / "out")
    (cohort / "one.nii.gz").touch()
    with pytest.raises(CohortError, match="both be called one"):
        logic.processFolder([cohort / "one.nrrd", cohort / "one.nii.gz"], tmp_path / "out")
    with pytest.raises(CohortError, match="is not a folder"):
        logic.processFolder(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_case_that_found_no_memory_beside_another_is_read_again(monkeypatch):
    attempts = []

    def read_volume(path, *_):
        attempts.append(path)
        if len(attempts) == 1:
            raise MemoryError
        raise ValueError("That will do.")

    monkeypatch.setattr(files, "read_volume", read_volume)
    todo = Todo("a", Path("a.nrrd"), Path("nowhere") / "a", ((Path("bundle"), Request()),))
    (outcome,) = (outcome for _, outcome in one_after_the_other(None)([todo]))
    assert (outcome["reason"], attempts) == ("That will do.", [todo.input] * 2)


def test_the_next_case_is_read_while_one_is_computed(monkeypatch):
    paths = [Path(f"{n}.nrrd") for n in range(3)]
    read = {path: threading.Event() for path in paths}

    def read_volume(path, *_):
        read[path].set()
        return SimpleNamespace(path=path, ijk_to_ras=np.eye(4)), []

    monkeypatch.setattr(files, "read_volume", read_volume)

    class Worker:
        def submit(self, volume, *_):
            return volume.path

        def result_of(self, path):
            number = paths.index(path)
            assert all(read[path].wait(10) for path in paths[: number + 2])
            assert not any(read[path].is_set() for path in paths[number + 2 :])
            raise ValueError("That will do.")

    todo = [Todo(path.stem, path, Path("nowhere") / path, ((Path("bundle"), Request()),)) for path in paths]
    outcomes = dict(one_after_the_other(Worker())(todo))
    assert [outcome["reason"] for outcome in outcomes.values()] == ["That will do."] * 3
    assert list(one_after_the_other(Worker())([])) == []


def test_a_cohort_that_is_stopped_reads_no_further_case_and_waits_for_none(monkeypatch):
    begun, ended, may_end = [], [], threading.Event()

    def read(path, *_):
        begun.append(path)
        may_end.wait(600)
        ended.append(path)
        return path, []

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "read_volume", read)
    monkeypatch.setattr(cohorts, "outcome_of", interrupted)
    todo = [Todo(f"{n}", Path(f"{n}.nrrd"), Path("nowhere"), ((Path("bundle"), Request()),)) for n in range(3)]
    with pytest.raises(KeyboardInterrupt):
        next(one_after_the_other(None)(todo))
    assert not ended  # nobody waited for it
    may_end.set()
    time.sleep(0.1)
    assert len(begun) <= 1


def test_files_that_may_be_scans_but_are_not_cases_are_listed_with_the_reason(tmp_path):
    for name in ("a.nrrd", "b.dcm", "c.dcm", "d.zip", "e.nii.gz", ".hidden", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    cases, skipped = find_cases(tmp_path)
    assert list(cases) == ["a", "e"]
    assert [path.name for path in skipped] == ["b.dcm", "c.dcm", "d.zip"]
    assert "loose DICOM file" in skipped[tmp_path / "b.dcm"] and "unpack it" in skipped[tmp_path / "d.zip"]


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of Unix")
def test_links_that_lead_nowhere_and_pipes_are_skipped_and_what_cannot_be_read_stops_no_other(ordinary_user, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nrrd").touch()
    (tmp_path / "in" / "lost.nrrd").symlink_to("nowhere.nrrd")
    (tmp_path / "in" / "round.nrrd").symlink_to("round.nrrd")
    (tmp_path / "private").mkdir()
    (tmp_path / "in" / "foreign.nrrd").symlink_to(tmp_path / "private" / "x.nrrd")
    (tmp_path / "in" / "closed").mkdir()
    os.mkfifo(tmp_path / "in" / "pipe.nrrd")
    for closed in (tmp_path / "private", tmp_path / "in" / "closed"):
        closed.chmod(0)
    cases, skipped = find_cases(tmp_path / "in")
    assert list(cases) == ["a", "closed"]
    assert {path.name: reason for path, reason in skipped.items()} == {
        **dict.fromkeys(("lost.nrrd", "round.nrrd", "foreign.nrrd"), "It is a link to a file that cannot be found."),
        "pipe.nrrd": "It is neither a file nor a folder.",
    }
    with pytest.raises(CohortError, match=r"closed cannot be read .* correct its permissions"):
        find_cases(tmp_path / "in" / "closed")


def test_files_that_are_no_case_are_in_manifest_and_table_once(logic, cohort, tmp_path):
    mask = (a_scan() > 50).astype(np.uint8)
    files.write_volume(cohort / "one-label.nrrd", mask, np.diag([-2.0, -2.0, 3.0, 1.0]))
    (cohort / "loose.dcm").write_bytes(b"x")
    for _ in range(2):
        records = logic.processFolder(cohort, tmp_path / "out", device="cpu")
    assert [(each["case"], each["status"]) for each in records[3:]] == [
        ("loose.dcm", "skipped"), ("one-label.nrrd", "skipped")
    ]  # fmt: skip
    assert records[4]["reason"] == "It is a label map for another file."
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [line["case"] for line in lines if line["status"] == "skipped"] == ["loose.dcm", "one-label.nrrd"]
    with (tmp_path / "out" / "measurements.csv").open(newline="") as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    assert rows["one-label.nrrd"]["status"] == "skipped" and "label map" in rows["one-label.nrrd"]["reason"]


def test_two_cohorts_at_once_in_one_folder_are_refused_and_the_first_one_goes_on(logic, cohort, tmp_path):
    def another(done, total, case):
        if case == "two":
            assert is_running(tmp_path)
            with pytest.raises(CohortError, match="Another cohort is running in"):
                logic.processFolder([cohort / "one.nrrd"], tmp_path, device="cpu")

    records = logic.processFolder(
        [cohort / "one.nrrd", cohort / "two.nii.gz"], tmp_path, device="cpu", progress=another
    )
    assert [each["status"] for each in records] == ["done", "done"]
    assert not is_running(tmp_path)


def test_the_table_is_whole_after_each_case(logic, cohort, tmp_path):
    seen = []

    def look(done, total, case):
        table = tmp_path / "measurements.csv"
        seen.append([row["case"] for row in csv.DictReader(table.open())] if table.exists() else [])

    logic.processFolder(cohort, tmp_path, device="cpu", progress=look)
    assert seen == [[], ["broken"], ["broken", "one"], ["broken", "one", "two"]]


def test_a_threshold_that_is_that_of_the_model_is_no_other_setting(logic, models, cohort, tmp_path):
    logic.processFolder([cohort / "one.nrrd"], tmp_path, device="cpu")
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"threshold": 0.5', '"threshold": null'))  # as 0.1 wrote it
    logic.processFolder([cohort / "one.nrrd"], tmp_path, device="cpu", threshold=0.5)
    assert len(manifest.read_text().splitlines()) == 1


def test_a_full_disk_ends_a_running_cohort_with_one_message(logic, cohort, tmp_path, monkeypatch):
    cases = [cohort / "one.nrrd", cohort / "two.nii.gz"]
    opened = Path.open

    def full(path, *arguments, **named):
        if path.name == "manifest.jsonl" and (tmp_path / "two.seg.nrrd").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(CohortError, match=r"manifest.jsonl cannot be written \(No space left on device\)"):
            logic.processFolder(cases, tmp_path, device="cpu")
    records = logic.processFolder(cases, tmp_path, device="cpu")
    assert [each["status"] for each in records] == ["done", "done"]


def test_the_logic_writes_forms_and_says_at_the_start_what_slicer_lacks(logic, cohort, tmp_path, monkeypatch):
    pytest.importorskip("vtk")
    ended = []
    (record,) = logic.processFolder(
        [cohort / "one.nrrd"], tmp_path / "out", device="cpu", formats=["stl"], ended=ended.append
    )
    assert ended == [record]
    assert (tmp_path / "out" / "one.stl").stat().st_size > 1000
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ValueError, match="pip install highdicom"):
        logic.processFolder(cohort, tmp_path / "other", device="cpu", formats=["dcm"])
    with pytest.raises(CohortError, match="'ply' is not a format of results"):
        logic.processFolder(cohort, tmp_path / "other", device="cpu", formats=["ply"])
    assert not (tmp_path / "other").exists()


def test_the_logic_takes_what_the_shell_takes():
    commands = next(each for each in parser()._actions if isinstance(each.choices, dict)).choices
    of_the_shell = {action.dest for action in commands["cohort"]._actions} - {"help", "quiet", "json", "debug"}
    other_names = {
        "output": "outputFolder", "dask": "cluster", "format": "formats", "points_of_cases": "points", "show_from": "showFrom",
    }  # fmt: skip
    taken = {*inspect.signature(Segmenter.processFolder).parameters} - {"self", "progress", "ended"}
    assert {other_names.get(name, name) for name in of_the_shell} == taken


def test_the_logic_segments_nodules_at_points_with_so_many_threads(logic, models, tmp_path):
    bright_nodule_bundle(models / "pointed-v1.0.0")
    volume = lung_with(A, B)
    for name in ("one.nrrd", "two.nrrd"):
        files.write_volume(tmp_path / name, volume.array, volume.ijk_to_ras)
    inputs, (a, b) = [tmp_path / "one.nrrd", tmp_path / "two.nrrd"], (ras((10, 50, 40)), ras((20, 100, 110)))
    records = logic.processFolder(
        inputs, tmp_path / "out", "nodule", device="cpu", threads=1, points={"one": [a, b], "two": [b]}
    )
    assert [[*each["measurements"]] for each in records] == [["Nodule 1", "Nodule 2"], ["Nodule 1"]]
    with pytest.raises(ValueError, match="threads"):
        logic.processFolder(inputs, tmp_path / "out", "nodule", threads=0)


def test_the_logic_shows_nodules_of_a_cohort_from_the_probability_that_it_is_given(logic, models, tmp_path):
    bright_nodule_bundle(
        models / "deciding-v1.0.0", decision={"intercept": -5.0, "weights": {"size": 2.6}, "least": 0.0}
    )
    volume = lung_with(A, B)
    files.write_volume(tmp_path / "one.nrrd", volume.array, volume.ijk_to_ras)

    def chances(**options) -> list[float]:
        (record,) = logic.processFolder(
            [tmp_path / "one.nrrd"], tmp_path / "out", "nodule", model="deciding-v1.0.0", device="cpu", **options
        )
        return [found["probability"] for found in record["measurements"].values()]

    larger, smaller = chances()
    assert chances(showFrom=(larger + smaller) / 2) == [larger]


def test_a_table_gives_each_case_its_points_and_other_points_run_the_case_again(tmp_path, capsys, monkeypatch):
    models = tmp_path / "models"
    bright_nodule_bundle(models / "lung-nodule-ct-v99.0.0")
    monkeypatch.setenv("UNETPP_MODELS", str(models))
    volume = lung_with(A, B)
    for name in ("one.nrrd", "two.nrrd"):
        files.write_volume(tmp_path / name, volume.array, volume.ijk_to_ras)
    table, out = tmp_path / "points.csv", tmp_path / "out"
    arguments = ["cohort", "nodule", str(tmp_path / "one.nrrd"), str(tmp_path / "two.nrrd"), "-o", str(out), "--json"]

    def found(*rows: str) -> list[list[str]]:
        table.write_text("\n".join(["case,r,a,s", *rows]) + "\n")
        assert main([*arguments, "--points", str(table)]) == 0
        return [[*record["measurements"]] for record in json.loads(capsys.readouterr().out)]

    a, b = (",".join(f"{x:.1f}" for x in ras(index)) for index in ((10, 50, 40), (20, 100, 110)))
    assert found(f"one,{a}", f"one,{b}", f"two,{b}") == [["Nodule 1", "Nodule 2"], ["Nodule 1"]]
    first = (out / "two.seg.nrrd").stat().st_mtime_ns
    assert found(f"one,{a}", f"two,{b}") == [["Nodule 1"], ["Nodule 1"]]
    assert (out / "two.seg.nrrd").stat().st_mtime_ns == first
    table.write_text("case,r,a,s\nthree,1,2,3\n")
    assert main([*arguments, "--points", str(table)]) == 1
    assert "Points are given for three" in capsys.readouterr().err
