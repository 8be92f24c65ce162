"""`unetpp-segment nodule` as a user meets it, on a network whose answer is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.bright import bright_nodule_bundle
from Testing.support.nodule_scans import A, B, lung_with, ras
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.core.table import COLUMNS


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    bright_nodule_bundle(folder / "lung-nodule-ct-v99.0.0")
    return folder


@pytest.fixture
def scan(models, tmp_path, monkeypatch):
    monkeypatch.setenv("UNETPP_MODELS", str(models))
    volume = lung_with(A, B)
    files.write_volume(tmp_path / "scan.nrrd", volume.array, volume.ijk_to_ras)
    return tmp_path / "scan.nrrd"


def words(index) -> str:
    return ",".join(f"{x:.1f}" for x in ras(index))


def run(capsys, *arguments) -> dict:
    assert main(["nodule", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_points_give_labels_in_the_order_of_the_table_and_every_output(scan, tmp_path, capsys):
    names = {"--probability": "p.nrrd", "--uncertainty": "u.nrrd", "--report": "r.csv", "--overlay": "o.png"}
    options = [part for option, name in names.items() for part in (option, tmp_path / name)]
    points = ["--point", words((20, 100, 110)), "--point", words((10, 50, 40))]
    assert points[1].startswith("-")  # as a word of its own
    summary = run(capsys, scan, *points, "-o", tmp_path / "n.nii.gz", *options)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "n.nii.gz")))
    np.testing.assert_array_equal(labels, A + 2 * B)
    first, second = summary["segments"]
    assert first["name"] == "Nodule 1" and second["name"] == "Nodule 2"
    assert first["long_axis_mm"] > second["long_axis_mm"] > second["short_axis_mm"]
    assert first["mean_diameter_mm"] == pytest.approx(12, abs=0.4)
    assert first["kind"] == "solid"
    np.testing.assert_allclose(first["centroid_ras"], ras((10.5, 50, 40)), atol=0.1)
    rows = list(csv.DictReader((tmp_path / "r.csv").open(encoding="utf-8")))
    assert [row["segment"] for row in rows] == ["Nodule 1", "Nodule 2"]
    assert float(rows[1]["centroid_s_mm"]) == pytest.approx(second["centroid_ras"][2], abs=0.05)
    assert "long_axis_ras" not in rows[0]
    assert all((tmp_path / name).stat().st_size for name in names.values())


def test_the_table_of_points_is_never_the_report(scan, tmp_path, capsys):
    points = tmp_path / "points.csv"
    points.write_text("r,a,s,comment\n-38,-20,-150,drawn by me\n")
    before = points.read_bytes()
    arguments = [scan, "--points", points, "-o", tmp_path / "n.seg.nrrd", "--report", points]
    assert main(["nodule", *map(str, arguments)]) != 0
    assert "must be different files" in capsys.readouterr().err
    assert points.read_bytes() == before


def test_a_box_from_any_two_opposite_corners(scan, tmp_path, capsys):
    corners = words((25, 130, 140)) + "," + words((12, 85, 90))
    run(capsys, scan, "--box", corners, "-o", tmp_path / "n.seg.nrrd")
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "n.seg.nrrd")))
    np.testing.assert_array_equal(labels, B)


def test_a_nodule_is_told_in_words(scan, tmp_path, capsys):
    assert main(["nodule", str(scan), "--point", words((10, 50, 40)), "-o", str(tmp_path / "n.nii.gz")]) == 0
    assert "Nodule 1: 12 mm (" in (printed := capsys.readouterr().out)
    assert "solid" in printed and "at R 24, A -38, S -179" in printed


@pytest.mark.parametrize("ending", [".seg.nrrd", ".nii.gz"])
def test_no_nodule_is_a_result_with_every_output(scan, tmp_path, capsys, ending):
    outputs = [tmp_path / f"n{ending}", tmp_path / "r.csv", tmp_path / "o.png"]
    summary = run(
        capsys, scan, "--point", words((10, 10, 140)), "-o", outputs[0], "--report", outputs[1], "--overlay", outputs[2]
    )
    assert summary["segments"] == []
    assert "No nodule of 3 mm or more was found at" in summary["notes"][0]
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(outputs[0]))).any()
    (row,) = csv.DictReader(outputs[1].open(encoding="utf-8"))
    assert list(row) == list(COLUMNS)
    assert (row["segment"], row["model"]) == ("", summary["model"])
    assert outputs[2].stat().st_size


def test_points_from_a_file_are_taken_with_those_of_the_command_line(scan, tmp_path, capsys):
    path = tmp_path / "points.fcsv"
    path.write_text(f"# CoordinateSystem = RAS\n1,{words((20, 100, 110))}\n")
    summary = run(
        capsys,
        scan,
        "--points",
        path,
        "--point",
        words((10, 50, 40)),
        "-o",
        tmp_path / "n.nii.gz",
        "--overlay",
        tmp_path / "o.png",
    )
    assert [segment["name"] for segment in summary["segments"]] == ["Nodule 1", "Nodule 2"]
    assert main(["nodule", str(scan), "--points", str(tmp_path / "no.csv"), "-o", str(tmp_path / "m.nii.gz")]) == 1
    assert "no.csv cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--points", "p.csv", "--box", "1,2,3,4,5,6"],
        ["--point", "1,2"],
        ["--point", "1,2,x"],
        ["--point", "1,2,nan"],
        ["--box", "1,2,3"],
        ["--point", "1,2,3", "--box", "1,2,3,4,5,6"],
    ],
)
def test_wrong_coordinates_are_wrong_usage(arguments, capsys):
    assert main(["nodule", "ct.nrrd", "-o", "n.nii.gz", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("where", [["--point", "500,0,0"], ["--box", "500,0,0,600,1,1"]])
def test_a_place_outside_is_refused_with_what_the_volume_spans(scan, tmp_path, capsys, where):
    assert main(["nodule", str(scan), *where, "-o", str(tmp_path / "n.nii.gz")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "which spans R" in line
    assert not (tmp_path / "n.nii.gz").exists()


def test_of_a_part_solid_nodule_the_words_give_the_solid_part(scan, tmp_path, capsys, monkeypatch):
    # The network of these tests finds nothing below 60 HU, so that all would be solid.
    monkeypatch.setattr("UNetPlusPlusSegmentLib.nodule.measurements.SOLID_HU", 150)
    image = sitk.ReadImage(str(scan))
    hu = sitk.GetArrayFromImage(image)
    hu[9:12, 48:53, 38:43] = 200
    bright = sitk.GetImageFromArray(hu)
    bright.CopyInformation(image)
    sitk.WriteImage(bright, str(scan))
    assert main(["nodule", str(scan), "--point", words((10, 50, 40)), "-o", str(tmp_path / "n.nii.gz")]) == 0
    assert "part-solid (solid part 4." in capsys.readouterr().out


def test_the_liver_takes_no_points(capsys):
    assert main(["liver", "ct.nrrd", "-o", "n.nii.gz", "--point", "1,2,3"]) == 2


def test_the_readme_tells_what_its_example_gives(shared_data, tmp_path, capsys):
    scan = shared_data("volumes/LIDC-IDRI-0001_ct.nii.gz")
    assert main(["nodule", str(scan), "--point", "-56,-86,-116", "-o", str(tmp_path / "n.seg.nrrd"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["segments"]
    long_mm, short_mm, ml = (f"{found[name]:.1f}" for name in ("long_axis_mm", "short_axis_mm", "volume_ml"))
    told = f"{found['mean_diameter_rounded_mm']} mm ({long_mm} × {short_mm} mm), {ml} ml, {found['kind']}"
    assert told in (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
