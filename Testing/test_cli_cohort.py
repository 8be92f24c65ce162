"""Cohorts from the shell: what is said, what is not, and the forms of the results."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from Testing.support.sample_files import write_slice
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.cli import cohort as command
from UNetPlusPlusSegmentLib.cli.cohort import duration, in_words
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.core.table import COLUMNS

AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])


@pytest.fixture
def scans(tmp_path):
    """Two scans with blocks of different sizes, and a text file that calls itself one."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, width in (("a", 10), ("b", 20)):
        files.write_volume(folder / f"{name}.nrrd", block(width), AFFINE)
    (folder / "broken.nrrd").write_text("not a volume")
    return folder


def block(width: int) -> np.ndarray:
    scan = np.random.default_rng(0).integers(-900, 50, (12, 40, 50), np.int16)
    scan[4:8, 8:25, 15 : 15 + width] = 90
    return scan


def cohort(*arguments) -> int:
    return main(["cohort", "liver", *map(str, arguments), "--device", "cpu"])


def test_a_line_tells_of_each_case_as_it_ends(scans, with_models, tmp_path, capsys):
    assert cohort(scans, "-o", tmp_path / "out") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "3 of 3 cases to do"
    assert lines[1].startswith("a: Liver 8.16 ml (") and ", about " in lines[1] and lines[1].endswith(" left")
    assert lines[2].startswith("b: Liver 16.32 ml (")
    assert lines[3].startswith("broken: failed (") and not lines[3].endswith("left")
    assert lines[4].startswith("note: broken: ")
    assert lines[-1].endswith(f"1 of 3 cases failed; the results of the others are in {tmp_path / 'out'}.")


@pytest.mark.parametrize(
    ("names", "words"),
    [(("a.nrrd", "c.nrrd"), "There is no file or folder"), (("a.nrrd", "a.nrrd"), "was given twice: leave one out")],
)
def test_inputs_that_are_missing_or_the_same_are_refused_before_anything_is_written(
    scans, with_models, tmp_path, capsys, names, words
):
    assert cohort(*(scans / name for name in names), "-o", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and not (tmp_path / "out").exists()


def test_where_every_case_failed_there_are_no_results_of_others(scans, with_models, tmp_path, capsys):
    assert cohort(scans / "broken.nrrd", "-o", tmp_path / "out") == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("1 of 1 cases failed.")


def test_a_line_reaches_the_terminal_while_another_thread_keeps_messages_off_it():
    code = (
        "import sys\nfrom UNetPlusPlusSegmentLib.cli.terminal import prepare_streams\n"
        "from UNetPlusPlusSegmentLib.files.images import silence\nprepare_streams()\n"
        "with silence():\n    print('case 1', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=True)
    assert done.stderr == "case 1\n"


def test_files_that_are_skipped_are_counted_in_plain_english(scans, with_models, tmp_path, capsys):
    (scans / "broken.nrrd").rename(scans / "one.dcm")
    assert cohort(scans, "-o", tmp_path / "out") == 0
    assert " 1 file was skipped; " in capsys.readouterr().out
    (scans / "two.dcm").touch()
    assert cohort(scans, "-o", tmp_path / "out") == 0
    assert " 2 files were skipped; " in capsys.readouterr().out


def test_quiet_prints_errors_only(scans, shell_models, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("UNETPP_MODELS", str(tmp_path / "models"))
    (tmp_path / "models" / "liver-ct-v100.0.0").mkdir(parents=True)
    (tmp_path / "models" / "liver-ct-v100.0.0" / "model.json").write_text("{}")  # a damaged newer model: a warning
    (tmp_path / "models" / "liver-ct-v99.0.0").symlink_to(shell_models / "liver-ct-v99.0.0")
    (scans / "loose.dcm").touch()
    (scans / "broken.nrrd").rename(tmp_path / "broken.nrrd")
    command = [
        sys.executable,
        "-m",
        "UNetPlusPlusSegmentLib.cli.main",
        "cohort",
        "liver",
        scans,
        "-o",
        tmp_path / "out",
    ]
    done = subprocess.run(
        [*map(str, command), "--quiet"], capture_output=True, text=True, check=True
    )  # pytest keeps logs
    assert (done.stdout, done.stderr) == ("", "")
    assert main(["liver", str(scans / "a.nrrd"), "-o", str(tmp_path / "a.nii.gz"), "--quiet", "--device", "cpu"]) == 0
    assert capsys.readouterr() == ("", "")
    (tmp_path / "broken.nrrd").rename(scans / "broken.nrrd")
    assert cohort(scans, "-o", tmp_path / "out", "--quiet") == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


CTRL_C_WHILE_IT_READS = """
import os, signal, sys, time
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.cli.main import shell
def read(*_):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(3600)
files.read_volume = read
sys.exit(shell())
"""


def test_ctrl_c_does_not_wait_for_a_scan_that_is_being_read(scans, with_models, tmp_path):
    command = [sys.executable, "-c", CTRL_C_WHILE_IT_READS, "cohort", "liver", scans, "-o", tmp_path / "out"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (130, "3 of 3 cases to do\nunetpp-segment: cancelled.\n")


def test_what_the_library_logs_is_a_note_and_a_traceback_only_if_asked_for(
    scans, with_models, tmp_path, capsys, monkeypatch
):
    (scans / "loose.dcm").touch()
    monkeypatch.setattr(files, "write_forms", lambda *_: 1 / 0)
    assert cohort(scans, "-o", tmp_path / "out") == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("note: Skipped ") and "loose.dcm: It is a loose DICOM file" in line for line in lines)
    assert f"note: {scans / 'a.nrrd'} failed unexpectedly" in lines and not any("Traceback" in line for line in lines)
    assert cohort(scans, "-o", tmp_path / "out", "--debug") == 1
    assert "in outcome_of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("measurements", "words"),
    [
        ({"Liver": {"volume_ml": 1146.27, "expected_dice": 0.9512}}, "Liver 1,146 ml, expected Dice 0.95 (48 s)"),
        ({"Liver": {"volume_ml": 0.0}}, "Liver not found (48 s)"),
        ({"A": {"volume_ml": 1.0}, "B": {"volume_ml": 2.5}}, "A 1 ml, B 2.5 ml (48 s)"),
        ({}, "0 nodules (48 s)"),
        ({"Nodule 1": {"volume_ml": 0.5, "mean_diameter_rounded_mm": 12}}, "1 nodule, the largest 12 mm (48 s)"),
    ],
)
def test_a_case_is_told_in_words(measurements, words):
    assert in_words({"status": "done", "measurements": measurements, "seconds": 48.1}) == words


def test_durations_are_told_at_a_glance():
    assert [duration(s) for s in (0.4, 89, 200, 7200)] == ["0 s", "89 s", "3 min", "2.0 h"]


def test_the_time_left_goes_by_the_cases_of_this_call_alone(monkeypatch, capsys):
    seconds = iter((0.0, 60.0))
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    lines = command._Lines(quiet=False)
    lines.progress(8, 10, "i")  # eight were done before
    lines.ended({"case": "i", "status": "failed", "seconds": 60})
    assert capsys.readouterr().err == "2 of 10 cases to do\ni: failed (60 s), about 60 s left\n"


def test_a_cohort_is_written_in_several_forms_and_done_again_for_one_more(scans, with_models, tmp_path, capsys):
    out = tmp_path / "out"
    assert cohort(scans / "a.nrrd", "-o", out, "--format", "stl,nii.gz") == 0
    assert {"a.seg.nrrd", "a.nii.gz", "a.stl"} <= {path.name for path in out.iterdir()}
    capsys.readouterr()
    assert cohort(scans / "a.nrrd", "-o", out, "--format", "stl") == 0
    assert "0 of 1 cases to do" in capsys.readouterr().err
    assert cohort(scans / "a.nrrd", "-o", out, "--format", "obj") == 0
    printed = capsys.readouterr()
    assert "1 of 1 cases to do" in printed.err and printed.out.startswith("1 case done, written to ")
    assert (out / "a.obj").is_file()


def test_a_dicom_cohort_is_written_as_seg_and_sr_and_other_cases_fail(scans, with_models, tmp_path, capsys):
    frame, hu = generate_uid(), block(20)
    for k, plane in enumerate(hu):
        about = {"Rows": 40, "Columns": 50, "PixelSpacing": [2, 2], "FrameOfReferenceUID": frame, "InstanceNumber": k}
        pixels = (plane + 1024).astype(np.int16).tobytes()
        write_slice(scans / "series" / f"{k}.dcm", (0, 0, 3.0 * k), PixelData=pixels, **about)
    assert cohort(scans / "series", scans / "a.nrrd", "-o", tmp_path / "out", "--format", "sr.dcm", "--json") == 1
    series, volume = json.loads(capsys.readouterr().out)
    assert series["status"] == "done", series
    assert volume["status"] == "failed" and "a.nrrd" in volume["reason"]
    for name, modality in (("series.dcm", "SEG"), ("series.sr.dcm", "SR")):
        assert pydicom.dcmread(tmp_path / "out" / name).Modality == modality


def test_one_scan_is_written_in_several_forms(scans, with_models, tmp_path, capsys):
    asked = ["liver", str(scans / "a.nrrd"), "-o", str(tmp_path / "x.obj"), "--format", "seg.nrrd", "--format", ".stl"]
    assert main([*asked, "--device", "cpu"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"in", "x.obj", "x.seg.nrrd", "x.stl"}
    assert main([*asked, "--format", "ply"]) == 2
    assert "'ply' is not one of seg.nrrd, nii.gz, dcm, sr.dcm, stl, obj" in capsys.readouterr().err


def test_several_workers_on_one_computer_find_what_one_finds(scans, with_models, tmp_path):
    for name, more in (("one", []), ("two", ["--workers", "2"])):
        assert cohort(scans, "-o", tmp_path / name, *more) == 1
    tables = []
    for name in ("one", "two"):
        with (tmp_path / name / "measurements.csv").open(newline="", encoding="utf-8") as stream:
            tables.append([*csv.DictReader(stream)])
    assert tables[0] == tables[1]
    assert list(tables[0][0]) == list(COLUMNS)


def test_a_number_of_workers_that_is_none_is_refused(scans, with_models, tmp_path, capsys):
    assert cohort(scans, "-o", tmp_path / "out", "--workers", "0") == 1
    assert "must be 1 or more; got 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
