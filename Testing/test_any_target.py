"""Targets come from the bundles: a network with three labels in the shell, in Python, in cohorts and beside other models."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.bright import bright_bundle, bright_nodule_bundle
from Testing.support.organs import GRID, LABELS, SHAPE, models_of_three_targets, organ, organs_bundle, organs_scan
from UNetPlusPlusSegmentLib import api, files
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.core.merging import merged
from UNetPlusPlusSegmentLib.core.note import Note
from UNetPlusPlusSegmentLib.core.request import Request, RequestError
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.files.segmentations import segments_in
from UNetPlusPlusSegmentLib.network.bundle import BundleError, choose_bundle, find_bundles
from UNetPlusPlusSegmentLib.network.parts import parts_of

VOXEL_ML = 2 * 2 * 3 / 1000


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models_of_three_targets(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("UNetPlusPlusSegmentLib.network.bundle.search_folders", lambda: [folder])
        yield folder


@pytest.fixture
def scan(models, tmp_path):
    volume = organs_scan()
    files.write_volume(tmp_path / "scan.nrrd", volume.array, volume.ijk_to_ras)
    return tmp_path / "scan.nrrd"


def run(capsys, *arguments) -> dict:
    assert main([*map(str, arguments), "--json", "--device", "cpu"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def fitted_liver(models):
    """The models with one more of the liver, the newest, which expects a Dice."""
    fitted = {"intercept": -3.0, "weights": {"doubtful": 0.2}, "low": -0.5, "high": 0.6}
    label = json.loads((models / "liver-ct-v99.0.0" / "model.json").read_text())["labels"][0]
    bundle = bright_bundle(models / "liver-ct-v99.1.0", labels=[{**label, "expected_dice": {"balanced": fitted}}])
    yield
    shutil.rmtree(bundle.folder)


def refused(capsys, *arguments) -> str:
    assert main([*map(str, arguments)]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("spleen", ["Spleen"]),
        ("Left_Kidney", ["Left kidney"]),
        ("kidney", ["Right kidney", "Left kidney"]),
        ("abdomen", ["Spleen", "Right kidney", "Left kidney"]),
    ],
)
def test_what_is_asked_for_comes_out_and_nothing_else(scan, tmp_path, capsys, target, names):
    out, report, probability = tmp_path / "out.seg.nrrd", tmp_path / "r.csv", tmp_path / "p.nrrd"
    command = ("segment", target, scan, "-o", out, "--report", report, "--probability", probability)
    summary = run(capsys, *command, "--overlay", tmp_path / "o.png")
    assert [each["name"] for each in summary["segments"]] == names
    assert [each["volume_ml"] for each in summary["segments"]] == [
        pytest.approx(organ(name).sum() * VOXEL_ML) for name in names
    ]
    assert summary["model"] == "abdomen-ct-v1.0.0"
    image = sitk.ReadImage(str(out))
    labels = sitk.GetArrayFromImage(image)
    assert sum(key.endswith("_Name") for key in image.GetMetaDataKeys()) == len(names)
    known = {name: (terminology, color) for name, terminology, color, _ in LABELS}
    for number, name in enumerate(names):
        about = {key: image.GetMetaData(f"Segment{number}_{key}") for key in ("Name", "Tags", "Color", "LabelValue")}
        terminology, color = known[name]
        assert about["Name"] == name
        assert about["Tags"] == f"TerminologyEntry:{terminology}|"
        assert np.array(about["Color"].split(), float) * 255 == pytest.approx(color, abs=0.01)
        np.testing.assert_array_equal(labels == int(about["LabelValue"]), organ(name))
    np.testing.assert_array_equal(labels > 0, organ(*names))
    with report.open(encoding="utf-8") as stream:
        assert [row["segment"] for row in csv.DictReader(stream)] == names
    likely = sitk.GetArrayFromImage(sitk.ReadImage(str(probability))) >= 0.5
    assert likely[organ(*names)].all()
    if "Spleen" not in names:
        assert not likely[organ("Spleen")].any()


def test_an_unknown_target_is_refused_with_the_targets_there_are_and_the_folders_searched(
    scan, models, tmp_path, capsys
):
    for command in (("segment", "heart", scan), ("cohort", "heart", scan)):
        line = refused(capsys, *command, "-o", tmp_path / "out.seg.nrrd")
        assert "No usable model for heart was found" in line
        assert "abdomen (Spleen, Right kidney, Left kidney)" in line and "liver" in line
        assert str(models) in line and "lung-ct-v1.0.0 needs a newer" in line
    assert not (tmp_path / "out.seg.nrrd").exists()


def test_a_model_that_expects_no_dice_says_so_once(scan, tmp_path, capsys):
    assert main(["segment", "kidney", str(scan), "-o", str(tmp_path / "out.seg.nrrd"), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["Right kidney", "Left kidney"]
    assert lines[2] == "The model cannot estimate the expected Dice."
    assert lines[3].startswith("24 slices by abdomen-ct-v1.0.0 on cpu")


def test_of_several_models_those_segments_are_named_whose_model_expects_no_dice(fitted_liver, scan, tmp_path, capsys):
    command = ("segment", "spleen", scan, "--also", "liver", "-o", tmp_path / "out.seg.nrrd", "--device", "cpu")
    assert main([*map(str, command)]) == 0
    printed = capsys.readouterr().out
    assert "expected Dice 0." in printed
    assert "\nThe model cannot estimate the expected Dice of Spleen.\n" in printed


def test_where_a_scan_has_too_few_slices_for_an_expected_dice_the_model_is_not_blamed(fitted_liver, tmp_path, capsys):
    files.write_volume(tmp_path / "short.nrrd", organs_scan().array[8:14], GRID)
    command = ("segment", "liver", tmp_path / "short.nrrd", "-o", tmp_path / "out.seg.nrrd", "--device", "cpu")
    assert main([*map(str, command)]) == 0
    printed = capsys.readouterr()
    assert "Liver: " in printed.out and "Dice" not in printed.out
    assert "The expected Dice cannot be estimated on fewer than 10 slices." in printed.err


def test_the_models_are_listed_with_their_labels(models, capsys):
    assert main(["models"]) == 0
    printed = capsys.readouterr()
    assert "abdomen-ct-v1.0.0  (abdomen (Spleen, Right kidney, Left kidney); 2 mm pixels)" in printed.out
    assert "lung-ct-v1.0.0" in printed.err


def test_points_are_refused_before_anything_is_read_unless_the_model_finds_nodules(models, tmp_path, capsys):
    line = refused(capsys, "segment", "spleen", "nowhere.nrrd", "--point", "1,2,3", "-o", tmp_path / "out.seg.nrrd")
    assert "Points can only be used for nodules" in line and "nowhere" not in line
    with pytest.raises(RequestError, match=r"abdomen-ct-v1\.0\.0 is for abdomen"):
        api.segment("nowhere.nrrd", "spleen", points=[(1, 2, 3)])
    engine = api.load_engine("spleen", "cpu")
    with pytest.raises(RequestError, match="Points can only"):
        engine.predict(organs_scan(), Request("spleen", points=((1, 2, 3),)))


def test_show_from_is_refused_unless_one_of_the_models_has_a_decision(scan, models, tmp_path, capsys):
    line = refused(capsys, "segment", "spleen", "nowhere.nrrd", "--show-from", "0.5", "-o", tmp_path / "out.seg.nrrd")
    assert "abdomen-ct-v1.0.0 gives its findings no probability" in line
    line = refused(capsys, "segment", "spleen", "nowhere.nrrd", "--show-from", "2", "-o", tmp_path / "out.seg.nrrd")
    assert "between 0 and 1" in line
    decision = {"intercept": 0.0, "weights": {"size": 1.0}, "least": 0.0}
    folder = bright_nodule_bundle(models / "nodule-v1.0.0", decision=decision).folder
    try:
        asked = [request.show_from for _, request in parts_of(Request("spleen", also=("nodule",), show_from=0.5))]
        assert asked == [0.5, None]
    finally:
        shutil.rmtree(folder)


def test_python_takes_any_target(models):
    result = api.segment(organs_scan(), "left kidney", device="cpu", speed="accurate")
    assert [each.name for each in result.segments] == ["Left kidney"]
    np.testing.assert_array_equal(result.labelmap == 3, organ("Left kidney"))
    with pytest.raises(BundleError, match="has no speed 'fast'; it has accurate, balanced"):
        api.segment(organs_scan(), "left kidney", device="cpu", speed="fast")


def test_python_takes_targets_of_several_models_at_once(models):
    result = api.segment(organs_scan(), "left kidney", also=["liver", "spleen"], device="cpu", speed="accurate")
    assert [each.name for each in result.segments] == ["Spleen", "Left kidney", "Liver"]
    assert result.model == "abdomen-ct-v1.0.0, liver-ct-v99.0.0"
    np.testing.assert_array_equal(result.labelmap == 2, organ("Left kidney"))
    assert not (result.labelmap == 3).any()  # its largest part is the kidney that was named first
    with pytest.raises(RequestError, match="a list of targets"):
        api.segment(organs_scan(), "left kidney", also="liver", device="cpu")


# Several targets at once


def test_targets_of_one_network_take_one_run(scan, tmp_path, capsys):
    out = tmp_path / "out.seg.nrrd"
    alone = run(capsys, "segment", "spleen", scan, "-o", out, "--speed", "accurate")
    both = run(capsys, "segment", "left kidney", scan, "-o", out, "--also", "spleen", "--speed", "accurate")
    assert [each["name"] for each in both["segments"]] == ["Spleen", "Left kidney"]
    assert both["slices"] == alone["slices"]


def test_a_single_label_is_searched_only_in_its_own_region(models):
    array = np.full((120, *SHAPE[1:]), -1000, np.int16)
    array[:, 3:-3, 3:-3] = -60
    array[10:30][:, 6:22, 8:20] = 40  # the spleen far below a kidney
    array[80:110][:, 28:40, 28:42] = 120
    volume = Volume(array, GRID)
    alone, everything = (
        api.segment(volume, target, model="abdomen-ct-v1.0.0", speed="balanced", device="cpu")
        for target in ("left kidney", "abdomen")
    )
    assert alone.slices < 40 < 80 < everything.slices
    assert alone.labelmap.any()
    np.testing.assert_array_equal(alone.labelmap, np.where(everything.labelmap == 3, 3, 0))


def test_a_voxel_that_two_models_claim_belongs_to_the_target_named_first(scan, tmp_path, capsys):
    out = tmp_path / "out.seg.nrrd"
    maps = ("--probability", tmp_path / "p.nrrd")
    summary = run(capsys, "segment", "liver", scan, "-o", out, "--also", "abdomen", *maps)
    assert [each["name"] for each in summary["segments"]] == ["Liver", "Spleen", "Right kidney", "Left kidney"]
    assert summary["model"] == "liver-ct-v99.0.0, abdomen-ct-v1.0.0"
    # Brighter than 60 HU are both kidneys; the larger one is what this liver's post-processing keeps.
    counts = [organ(name).sum() * VOXEL_ML for name in ("Left kidney", "Spleen", "Right kidney")]
    assert [each["volume_ml"] for each in summary["segments"]] == pytest.approx([*counts, 0])
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(out)))
    np.testing.assert_array_equal(image, 1 * organ("Left kidney") + 2 * organ("Spleen") + 3 * organ("Right kidney"))
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "p.nrrd")))[image > 0].min() >= 0.5
    other = run(capsys, "segment", "kidney", scan, "-o", out, "--also", "liver")
    assert [each["name"] for each in other["segments"]] == ["Right kidney", "Left kidney", "Liver"]
    known = {key: value for key, value in other["segments"][2].items() if value is not None}
    assert known == {"name": "Liver", "volume_ml": 0}


def test_a_named_model_is_that_of_all_targets_that_it_has(scan, models, tmp_path, capsys):
    other = organs_bundle(models / "mine-v0.1.0", target="mine").folder
    try:
        command = ("segment", "spleen", scan, "-o", tmp_path / "out.seg.nrrd", "--also", "kidney", "--also", "liver")
        assert run(capsys, *command, "--model", "mine-v0.1.0")["model"] == "mine-v0.1.0, liver-ct-v99.0.0"
        assert run(capsys, *command)["model"] == "abdomen-ct-v1.0.0, liver-ct-v99.0.0"
    finally:
        shutil.rmtree(other)


def test_nodules_come_before_organs_and_points_are_theirs(scan, models, tmp_path, capsys):
    folder = bright_nodule_bundle(models / "spots-v1.0.0").folder
    try:
        with_points = ("--point", "-30,-44,30", "-o", tmp_path / "out.seg.nrrd")
        summary = run(capsys, "segment", "spleen", scan, "--also", "nodule", *with_points)
        assert summary["model"] == "spots-v1.0.0, abdomen-ct-v1.0.0"
        assert summary["segments"][-1]["name"] == "Spleen"
    finally:
        shutil.rmtree(folder)


def result_of(model: str, **masks) -> Result:
    names = list(masks)
    labelmap = np.zeros((1, 2, 4), np.uint8)
    for value, name in enumerate(names, start=1):
        labelmap[0, 0, masks[name]] = value
    counted = [{"volume_ml": float((labelmap == n).sum()), "mean_hu": 0.0} for n in range(1, len(names) + 1)]
    segments = [Segment(n, name, "", (0, 0, 0), m) for n, (name, m) in enumerate(zip(names, counted, strict=True), 1)]
    return Result(labelmap, tuple(segments), (Note("same", "Same."),), 0.5, model, "cpu", 1, 2, 1.0)


def test_segments_of_the_same_name_are_kept_once_and_trimmed_segments_are_measured_again():
    volume = Volume(np.array([[[10, 20, 30, 40], [0, 0, 0, 0]]], np.int16), np.diag([10.0, 10, 5, 1]))
    first, second = result_of("a-v1", Liver=slice(0, 2)), result_of("b-v1", Spleen=slice(1, 3), Liver=slice(3, 4))
    both = merged([first, second], volume)
    np.testing.assert_array_equal(both.labelmap[0, 0], [1, 1, 2, 0])
    assert [(s.value, s.name) for s in both.segments] == [(1, "Liver"), (2, "Spleen")]
    assert both.segments[0].measurements == first.segments[0].measurements
    left = both.segments[1].measurements
    assert (left["volume_ml"], left["mean_hu"]) == (pytest.approx(0.5), 30)
    assert [str(note) for note in both.notes] == [
        "Same.", "Liver from b-v1 was left out, because another of the chosen models also segments it.",
    ]  # fmt: skip
    assert (both.model, both.device, both.scan_slices, both.slices, both.seconds) == ("a-v1, b-v1", "cpu", 1, 4, 2)
    assert merged([first], volume) is first


def test_results_at_different_thresholds_have_none_in_common():
    volume = Volume(np.zeros((1, 2, 4), np.int16), np.eye(4))
    one, other = result_of("a-v1", Liver=slice(0, 2)), result_of("b-v1", Spleen=slice(2, 3))
    assert merged([one, other], volume).threshold == 0.5
    assert merged([one, replace(other, threshold=0.4)], volume).threshold is None


def test_as_many_nodules_as_a_label_map_tells_apart_leave_room_for_a_liver():
    nodules = [Segment(n, f"Nodule {n}", "", (0, 0, 0), {"volume_ml": 0.5}) for n in range(1, 256)]
    many = Result(np.arange(256, dtype=np.uint8)[None, None], tuple(nodules), (), 0.5, "nodule-v1", "cpu", 1, 1, 1.0)
    liver = Segment(1, "Liver", "", (0, 0, 0), {"volume_ml": 0.5})
    one = Result((many.labelmap == 0).astype(np.uint8), (liver,), (), 0.5, "liver-v1", "cpu", 1, 1, 1.0)
    both = merged([many, one], Volume(np.zeros((1, 1, 256), np.int16), np.eye(4)))
    assert [segment.name for segment in both.segments] == [*(f"Nodule {n}" for n in range(1, 255)), "Liver"]
    np.testing.assert_array_equal(both.labelmap[0, 0], [255, *range(1, 255), 0])
    (note,) = both.notes
    assert str(note) == "Only the first 254 of the 255 segments from nodule-v1 fit into the segmentation."


# Which model


def test_the_newest_version_in_the_first_folder_is_used_and_a_model_of_the_target_before_one_with_a_label(
    tmp_path, monkeypatch
):
    near, far = tmp_path / "near", tmp_path / "far"
    for folder, name in ((near, "liver-ct-v1.0.0"), (near, "liver-ct-v1.2.0"), (far, "liver-ct-v3.0.0")):
        bright_bundle(folder / name)
    organs_bundle(near / "abdomen-ct-v9.0.0")
    organs_bundle(far / "abdomen-ct-v10.0.0")
    labels = [{"value": 1, "name": "Both kidneys", "terminology": "", "color": [1, 2, 3]}]
    bright_bundle(far / "kidneys-v1.0.0", target="kidney", labels=labels)
    monkeypatch.setattr("UNetPlusPlusSegmentLib.network.bundle.search_folders", lambda: [near, far])
    assert [each.name for each in find_bundles("liver")[0]] == ["liver-ct-v1.2.0", "liver-ct-v1.0.0", "liver-ct-v3.0.0"]
    assert choose_bundle("spleen").name == "abdomen-ct-v9.0.0"
    assert choose_bundle("kidney").name == "kidneys-v1.0.0"
    assert choose_bundle("left kidney", "abdomen-ct-v10.0.0").folder.parent == far


def test_a_label_that_the_newest_version_has_dropped_is_used_only_if_the_older_version_is_named(tmp_path, monkeypatch):
    near, far = tmp_path / "near", tmp_path / "far"
    organs_bundle(near / "abdomen-ct-v1.0.0")
    label = {"value": 1, "name": "Spleen", "terminology": "", "color": [1, 2, 3]}
    bright_bundle(far / "abdomen-ct-v1.2.0", target="abdomen", labels=[label])
    bright_bundle(far / "our-kidney-v1.0.0", target="kidney", labels=[{**label, "name": "Left kidney"}])
    monkeypatch.setattr("UNetPlusPlusSegmentLib.network.bundle.search_folders", lambda: [near, far])
    assert choose_bundle("spleen").name == choose_bundle("abdomen").name == "abdomen-ct-v1.0.0"  # nearest
    assert choose_bundle("left kidney").name == "our-kidney-v1.0.0"
    with pytest.raises(
        BundleError, match=r"abdomen-ct-v1.0.0 has right kidney, but the newest .* name abdomen-ct-v1.0.0"
    ):
        choose_bundle("right kidney")
    assert choose_bundle("right kidney", "abdomen-ct-v1.0.0").folder.parent == near
    assert [bundle.name for bundle, _ in parts_of(Request("right kidney", model="abdomen-ct-v1.0.0"))] == [
        "abdomen-ct-v1.0.0"
    ]


def test_models_of_different_targets_are_not_versions_of_one_another(tmp_path, monkeypatch):
    organs_bundle(tmp_path / "ours-v1.0.0")
    bright_bundle(tmp_path / "ours-v2.0.0")
    monkeypatch.setattr("UNetPlusPlusSegmentLib.network.bundle.search_folders", lambda: [tmp_path])
    assert choose_bundle("spleen").name == "ours-v1.0.0"


def test_a_folder_without_card_or_weights_is_reported_and_a_hidden_one_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setattr("UNetPlusPlusSegmentLib.network.bundle.search_folders", lambda: [tmp_path])
    for name in ("a-v1.0.0", "b-v1.0.0", ".c-v1.0.0"):
        organs_bundle(tmp_path / name)
    (tmp_path / "a-v1.0.0" / "model.json").unlink()
    (tmp_path / "b-v1.0.0" / "weights.pt").unlink()
    found, reasons = find_bundles()
    assert not found
    assert ["model.json" in reasons[0], "has no weights.pt" in reasons[1], len(reasons)] == [True, True, 2]


def test_no_word_at_all_is_no_target(models):
    with pytest.raises(BundleError, match="No usable model for"):
        choose_bundle(" ")


# Cohorts


def test_a_cohort_takes_any_target_and_keeps_results_of_another_one(scan, tmp_path, capsys):
    out = tmp_path / "out"
    (record,) = run_cohort(capsys, "kidney", scan, out)
    assert list(record["measurements"]) == ["Right kidney", "Left kidney"]
    assert (record["target"], record["model"]) == ("kidney", "abdomen-ct-v1.0.0")
    with (out / "measurements.csv").open(encoding="utf-8") as stream:
        assert [row["segment"] for row in csv.DictReader(stream)] == ["Right kidney", "Left kidney"]
    assert "is a result for kidney" in refused(capsys, "cohort", "spleen", scan, "-o", out)


def test_a_cohort_of_several_targets_has_all_of_them_in_one_segmentation_for_each_case(scan, tmp_path, capsys):
    out = tmp_path / "out"
    (record,) = run_cohort(capsys, "spleen", scan, out, "--also", "liver", "--also", "left kidney")
    assert list(record["measurements"]) == ["Spleen", "Left kidney", "Liver"]  # a run for each model
    assert (record["target"], record["model"]) == ("spleen, liver, left kidney", "abdomen-ct-v1.0.0, liver-ct-v99.0.0")
    names = ["Spleen", "Left kidney", "Liver"]
    assert [segment.name for segment in segments_in(out / "scan.seg.nrrd")] == names
    with (out / "measurements.csv").open(encoding="utf-8") as stream:
        assert [row["segment"] for row in csv.DictReader(stream)] == names
    manifest = (out / "manifest.jsonl").read_text()
    assert run_cohort(capsys, "spleen", scan, out, "--also", "liver", "--also", "left kidney") == [record]
    assert (out / "manifest.jsonl").read_text() == manifest  # nothing was done again
    assert "is a result for spleen, liver, left kidney" in refused(capsys, "cohort", "spleen", scan, "-o", out)


def test_a_cohort_s_table_of_points_needs_a_model_that_finds_nodules(scan, tmp_path, capsys):
    (tmp_path / "points.csv").write_text("case,r,a,s\nscan,1,2,3\n")
    line = refused(capsys, "cohort", "spleen", scan, "-o", tmp_path / "out", "--points", tmp_path / "points.csv")
    assert "Points can only be used for nodules" in line and not (tmp_path / "out").exists()


def run_cohort(capsys, target, scan, out, *more) -> list[dict]:
    assert main(["cohort", target, str(scan), "-o", str(out), "--json", "--device", "cpu", *more]) == 0
    return json.loads(capsys.readouterr().out)
