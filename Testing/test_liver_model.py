"""The liver model that ships, on real CT: what a user gets from the command line."""

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from Testing.support.bright import segmented
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.files import read_volume
from UNetPlusPlusSegmentLib.network.bundle import choose_bundle
from UNetPlusPlusSegmentLib.network.device import Device


@pytest.fixture(autouse=True)
def only_shipped_models(monkeypatch, tmp_path):
    monkeypatch.delenv("UNETPP_MODELS", raising=False)
    monkeypatch.setattr("UNetPlusPlusSegmentLib.network.bundle.user_folder", lambda: tmp_path / "none")


def dice_where_they_lie(found: sitk.Image, truth: sitk.Image) -> float:
    """Dice after the found mask was put on the truth's grid by patient coordinates: a wrong place costs."""
    moved = sitk.Resample(found, truth, sitk.Transform(), sitk.sitkNearestNeighbor)
    a, b = (sitk.GetArrayFromImage(image) > 0 for image in (moved, truth))
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.mark.parametrize(
    ("scan", "mask", "least"),
    [
        ("volumes/abdomen_dicom", "volumes/abdomen_dicom_liver.nii.gz", 0.90),
        ("volumes/abdomen_3mm_ct.nii.gz", "volumes/abdomen_3mm_liver.nii.gz", 0.85),
    ],
    ids=["DICOM", "flipped 3 mm"],
)
def test_the_liver_lies_where_another_tool_sees_it(shared_data, tmp_path, capsys, scan, mask, least):
    output = tmp_path / "x.seg.nrrd"
    assert main(["liver", str(shared_data(scan)), "-o", str(output), "--json"]) == 0
    (segment,) = json.loads(capsys.readouterr().out)["segments"]
    found = sitk.ReadImage(str(output))
    assert dice_where_they_lie(found, sitk.ReadImage(str(shared_data(mask)))) >= least
    voxels = np.count_nonzero(sitk.GetArrayFromImage(found))
    assert segment["volume_ml"] == pytest.approx(voxels * np.prod(found.GetSpacing()) / 1000)


def test_a_real_scan_says_where_it_cuts_the_liver_off_and_where_to_look(shared_data, tmp_path, capsys):
    scan, report = shared_data("volumes/abdomen_dicom"), tmp_path / "r.csv"
    command = ["liver", str(scan), "-o", str(tmp_path / "x.seg.nrrd"), "--report", str(report), "--json"]
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)
    (segment,) = printed["segments"]
    assert segment["cut_by_scan"] == ["inferior", "superior"], "20 slices in the middle of the liver"
    assert any("lower bound" in note for note in printed["notes"])
    assert 0 < segment["doubtful_share"] < 0.5 and segment["dropped_ml"] >= 0
    slices = [each["k"] for each in segment["doubtful_slices"]]
    assert 1 <= len(slices) <= 3 and set(slices) <= {*range(20)}
    volume, _ = read_volume(scan)
    for each, point in zip(segment["doubtful_slices"], segment["doubtful_slices_ras"], strict=True):
        assert np.linalg.solve(volume.ijk_to_ras, [*point, 1])[2] == pytest.approx(each["k"])
        assert point[2] == each["s_mm"]
    with report.open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["cut_by_scan"] == "inferior, superior"
    assert row["doubtful_slices"].startswith(f"{slices[0]} (S ")
    assert float(row["doubtful_share"]) == pytest.approx(segment["doubtful_share"], abs=0.005)


def evaluation_of(bundle) -> dict:
    return json.loads((bundle.folder / "evaluation.json").read_text(encoding="utf-8"))


def test_the_model_comes_with_measured_figures_of_the_validation_patients():
    figures = evaluation_of(choose_bundle("liver"))["figures"]
    assert figures["command"].startswith("python training/evaluate.py")
    assert {"L1", "L2", "L3", "L4"} <= set(figures["heads"])
    assert all(0 < p["dice"] < 1 for p in figures["heads"]["L4"]["patients"].values())


@pytest.mark.slow(reason="measures the model on hundreds of slices")
def test_the_figures_of_the_validation_patients_are_those_beside_the_card(shared_data):
    from measure.per_patient import evaluate

    bundle = choose_bundle("liver")
    measured, written = (
        evaluate(bundle, shared_data("liver"), "val")["heads"],
        evaluation_of(bundle)["figures"]["heads"],
    )
    assert measured.keys() == written.keys()
    for name, head in written.items():
        for patient, figures in head["patients"].items():
            now = measured[name]["patients"][patient]
            for (
                key,
                figure,
            ) in figures.items():  # another processor rounds otherwise: by the last digit, or by one pixel
                last = bundle.pixel_mm**2 if key.endswith("mm2") else 0 if key.endswith("mm") else 1e-4
                assert now[key] == pytest.approx(figure, abs=1.01 * last), (name, patient, key)


@pytest.mark.slow(reason="looks at each slice of three scans at full depth")
@pytest.mark.parametrize("scan", ["volumes/abdomen_dicom", "volumes/abdomen_3mm_ct.nii.gz", "CTChest4.nrrd"])
def test_the_faster_speeds_say_what_a_look_at_everything_says(shared_data, scan):
    import slicerio

    path = slicerio.get_testdata_file(scan) if scan == "CTChest4.nrrd" else shared_data(scan)
    volume, _ = read_volume(path)
    engine = SliceEngine(choose_bundle("liver"), "cpu")
    engine.device = Device("cpu", torch.float32, "cpu (float32)")
    reference = segmented(engine, volume, speed="accurate").labelmap > 0
    assert reference.any()
    for speed, least in (("balanced", 0.995), ("fast", 0.98)):
        found = segmented(engine, volume, speed=speed).labelmap > 0
        overlap = 2 * np.count_nonzero(found & reference) / (np.count_nonzero(found) + np.count_nonzero(reference))
        assert overlap >= least, speed
