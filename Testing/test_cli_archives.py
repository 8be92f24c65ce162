"""The command line on what archives send: which series, guessed sizes, notes in time, and streams that are closed."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from Testing.support.bright import bright_bundle
from Testing.support.real_series import SERIES, darken, write_series
from Testing.support.sample_files import raw_nrrd, write_slice, written
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.jobs import cohort
from UNetPlusPlusSegmentLib.jobs.cohort import CohortError


@pytest.fixture
def two_phases(shared_data, tmp_path):
    """Two series in a folder, the second 60 HU darker."""

    def venous(data, index):
        data.SeriesInstanceUID, data.SeriesDescription = "1.2.3", "venous"
        darken(data)

    source = shared_data("volumes/abdomen_dicom")
    write_series(source, tmp_path / "ct", count=6)
    write_series(source, tmp_path / "ct", venous, "Z{:04}", 6)
    return tmp_path / "ct"


def mean_hu(capsys) -> float:
    return json.loads(capsys.readouterr().out)["segments"][0]["mean_hu"]


def test_series_are_listed_and_chosen_by_number_or_uid(two_phases, with_models, tmp_path, capsys):
    assert main(["series", str(two_phases)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("2: CT, 192 × 192 × 6 voxels of 0.9766 × 0.9766 × 2 mm, venous")
    assert lines[0].endswith(SERIES)
    assert main(["series", str(two_phases), "--json"]) == 0
    assert [each["number"] for each in json.loads(capsys.readouterr().out)] == [1, 2]
    found = {}
    for series in ("1", "2", "1.2.3", SERIES):
        asked = ["liver", str(two_phases), "-o", str(tmp_path / "x.seg.nrrd"), "--series", series, "--json"]
        assert main([*asked, "--device", "cpu"]) == 0
        found[series] = mean_hu(capsys)
    assert found["1"] == found[SERIES] != found["2"] == found["1.2.3"]


def test_what_was_taken_of_a_folder_is_said_before_the_run(two_phases, with_models, tmp_path, capsys, monkeypatch):
    from UNetPlusPlusSegmentLib import api

    seen = []
    monkeypatch.setattr(api, "load_engine", lambda *_: seen.append(capsys.readouterr().err) or 1 / 0)
    main(["liver", str(two_phases), "-o", str(tmp_path / "x.seg.nrrd")])
    assert "several stacks of slices; the largest was read" in seen[0]


def test_a_missing_voxel_size_is_guessed_by_force_alone(with_models, tmp_path, capsys):
    values = np.tile(np.array([-900, 100, 100, -900], np.int16), (4, 32, 8))
    path = raw_nrrd(tmp_path / "ct.nrrd", values=values)
    asked = ["liver", str(path), "-o", str(tmp_path / "x.seg.nrrd"), "--device", "cpu"]
    assert main(asked) == 1
    assert "--force" in capsys.readouterr().err
    assert main([*asked, "--force", "--json"]) == 0
    assert any("is a guess" in note for note in json.loads(capsys.readouterr().out)["notes"])


def test_a_cohort_uses_the_series_that_a_table_names_and_prints_its_notes(two_phases, with_models, tmp_path, capsys):
    table = tmp_path / "series.csv"
    table.write_text("case,series,remark\nct,2,venous\n")
    scans = tmp_path / "scans"
    scans.mkdir()
    two_phases.rename(scans / "ct")
    asked = ["cohort", "liver", str(scans), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*asked, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert main([*asked, "--series", str(table)]) == 0
    told = capsys.readouterr().err
    assert "several stacks" not in told
    with (tmp_path / "out" / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert first["series"] is None and "several stacks" in first["notes"][0]
    assert float(row["mean_hu"]) != pytest.approx(first["measurements"]["Liver"]["mean_hu"], abs=1)
    assert main(asked) == 0  # the largest again, whose notes are told
    assert "note: ct: The folder contains several stacks" in capsys.readouterr().err
    with (tmp_path / "out" / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        assert "several stacks" in next(csv.DictReader(stream))["notes"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patient,series\na,1\n", "no column case"),
        ("case,series\na,1\na,2\n", "two series for the case a"),
        (b"\xff\xfe\x00", "cannot be read as a table"),
        ("", "no column case"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tmp_path, text, words):
    path = tmp_path / "series.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(files.FileError, match=words):
        files.read_series_table(path)


@pytest.mark.parametrize("delimiter", [b",", b";", b"\t"])
def test_a_table_of_a_spreadsheet_program_is_read(tmp_path, delimiter):
    rows = b"\xef\xbb\xbfcase,series\r\na, 2 \r\nb,\r\n".replace(b",", delimiter)
    (tmp_path / "series.csv").write_bytes(rows)
    assert files.read_series_table(tmp_path / "series.csv") == {"a": "2"}


def test_a_series_of_a_case_that_is_not_there_is_refused(tmp_path, with_models):
    write_slice(tmp_path / "in" / "a" / "1.dcm")
    with pytest.raises(CohortError, match=r"given for b, which is not a case: .* The cases are a"):
        cohort.run_cohort(iter, tmp_path / "in", tmp_path / "out", _request(tmp_path), series={"b": "1"})


def _request(folder):
    from UNetPlusPlusSegmentLib.core.request import Request

    return Request("liver", model=bright_bundle(folder / "m").folder)


def test_a_cohort_that_is_stopped_in_its_first_case_leaves_no_empty_table(tmp_path):
    def stopped(todo):
        raise KeyboardInterrupt
        yield

    write_slice(tmp_path / "in" / "a" / "1.dcm")
    with pytest.raises(KeyboardInterrupt):
        cohort.run_cohort(stopped, tmp_path / "in", tmp_path / "out", _request(tmp_path))
    assert not (tmp_path / "out" / "measurements.csv").exists()


def in_a_shell(line: str, models: Path) -> subprocess.CompletedProcess:
    program = f"{sys.executable} -m UNetPlusPlusSegmentLib.cli.main"
    environment = {**os.environ, "UNETPP_MODELS": str(models), "PYTHONPATH": str(Path(files.__file__).parents[2])}
    return subprocess.run(
        ["bash", "-c", "set -o pipefail; " + line.replace("PROGRAM", program)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("streams", ["2>&-", ">&-", ">&- 2>&-"])
def test_a_closed_stream_costs_no_result(two_phases, shell_models, tmp_path, streams):
    output = tmp_path / "x.seg.nrrd"
    done = in_a_shell(f"PROGRAM liver {two_phases} --series 1 -o {output} --device cpu {streams}", shell_models)
    assert done.returncode == 0, done.stderr
    assert output.stat().st_size > 0


def test_a_reader_that_has_seen_enough_is_no_error(shell_models):
    done = in_a_shell("PROGRAM models --json | true", shell_models)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("readers", ["2>&1 | head -n 1", "2> >(head -n 1)"])
def test_a_cohort_goes_on_when_nobody_reads_its_progress_any_more(readers, shell_models, tmp_path):
    (tmp_path / "in").mkdir()
    for case in "abcd":
        written(tmp_path / "in" / f"{case}.nrrd", np.full((8, 40, 40), 40, np.int16) - 1000 * (np.arange(40) < 20))
    out = tmp_path / "out"
    done = in_a_shell(f"PROGRAM cohort liver {tmp_path / 'in'} -o {out} --device cpu {readers}", shell_models)
    assert (done.returncode, done.stderr) == (0, "")
    assert len([*out.glob("*.seg.nrrd")]) == 4
    assert len((out / "measurements.csv").read_text().splitlines()) == 5
