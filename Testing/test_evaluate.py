"""The measuring of a model, with a network that finds what is bright: every figure can be worked out by hand."""

import csv
import json
import re
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from PIL import Image
from torch.nn.modules.module import register_module_forward_hook

import decide
import evaluate as evaluation
import fit_trust
from data.slices import Slice
from measure import heads, nodule_crops, per_patient, whole_scans
from measure.per_patient import as_table, evaluate
from measure.pooled import Pooled, summary
from Testing.support.bright import bright_bundle, bright_nodule_bundle
from Testing.support.organs import organ, organs_bundle, organs_scan
from Testing.support.slicefolders import nodule_folder
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.agreement import TOLERANCE_MM
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine

COLUMNS = ["file", "volume", "patient", "slice", "split", "source_pixel_mm", "size_from"]
SIZE = 48
PIXEL_MM = 1.5


def square(row: int, column: int, side: int = 16) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[row : row + side, column : column + side] = True
    return mask


NOTHING = np.zeros((SIZE, SIZE), bool)


@pytest.fixture
def bundle(tmp_path):
    return bright_bundle(tmp_path / "bright-ct-v0.0.1", PIXEL_MM)


@pytest.fixture
def folder_of(tmp_path):
    """A function that makes a slice folder of (patient, volume, slice, bright, truth) in this order."""

    def make(slices, **columns):
        folder = tmp_path / "data"
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True)
        with (folder / "slices.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            for patient, volume, number, bright, truth in slices:
                name = f"{volume}_{number}.png"
                Image.fromarray(np.where(bright, 200, 60).astype(np.uint8)).save(folder / "images" / name)
                Image.fromarray(truth.astype(np.uint8)).save(folder / "masks" / name)
                table.writerow(
                    {
                        "file": name, "volume": volume, "patient": patient, "slice": number, "split": "val",
                        "source_pixel_mm": PIXEL_MM / 2, "size_from": "header", **columns,
                    }
                )  # fmt: skip
        return folder

    return make


def test_a_square_found_three_pixels_off_has_a_distance_of_three_pixels_in_mm(bundle, folder_of):
    folder = folder_of([("A", "a", 0, square(10, 13), square(10, 10))])
    figures = evaluate(bundle, folder)["heads"]["L4"]["patients"]["A"]
    assert figures["dice"] == pytest.approx(13 / 16, abs=1e-4)
    assert figures["iou"] == pytest.approx(13 / 19, abs=1e-4)
    assert figures["hausdorff95_mm"] == 3 * PIXEL_MM


def test_on_one_slice_the_outline_measures_are_those_of_monai():
    draw = np.random.default_rng(3)
    found, truth = square(8, 9, 20) & (draw.random((SIZE, SIZE)) > 0.1), square(10, 10, 24)
    pooled = Pooled()
    pooled.add(found, truth, PIXEL_MM, outlines=True)
    one, other = (torch.from_numpy(mask)[None, None].float() for mask in (found, truth))
    hausdorff = compute_hausdorff_distance(one, other, include_background=True, percentile=95, spacing=PIXEL_MM)
    surface = compute_surface_dice(one, other, [TOLERANCE_MM], include_background=True, spacing=PIXEL_MM)
    assert pooled.figures()["hausdorff95_mm"] == pytest.approx(float(hausdorff), abs=0.006)
    assert pooled.figures()["surface_dice"] == pytest.approx(float(surface), abs=1e-4)


def test_outlines_are_pooled_by_length_and_a_missed_slice_counts_as_infinite_distance():
    pooled = Pooled()
    pooled.add(square(0, 0, 30), square(0, 0, 30), 1.0, outlines=True)  # 116 pixels of outline, twice
    pooled.add(NOTHING, square(5, 5, 4), 1.0, outlines=True)  # 12 of the truth's 128: more than 5 %
    assert pooled.figures()["surface_dice"] == pytest.approx(232 / 244, abs=1e-4)
    assert pooled.figures()["hausdorff95_mm"] is None
    for _ in range(2):
        pooled.add(square(0, 0, 30), square(0, 0, 30), 1.0, outlines=True)  # now 12 of 360
    assert pooled.figures()["hausdorff95_mm"] == 0


@pytest.mark.parametrize(
    ("near", "missed", "hausdorff"), [(19, 1, 0), (20, 1, 0), (18, 2, None), (30, 4, None), (30, 1, 0)]
)
def test_up_to_a_twentieth_of_an_outline_may_lie_on_missed_slices(near, missed, hausdorff):
    outline = [np.zeros(near), np.full(missed, np.inf)]
    pooled = Pooled(overlap=1, found=1, true=1, to_truth=[np.zeros(near)], to_found=outline)
    assert pooled.figures()["hausdorff95_mm"] == hausdorff


def test_an_organ_that_was_not_found_at_all_has_figures():
    pooled = Pooled()
    pooled.add(NOTHING, square(5, 5), 1.0, outlines=True)
    assert pooled.figures() == {
        "dice": 0, "iou": 0, "hausdorff95_mm": None, "surface_dice": 0, "worst_false_mm2": 0,
    }  # fmt: skip


@pytest.mark.parametrize("size_from", ["published", ""])
def test_without_a_pixel_size_from_the_header_no_distance_is_claimed(bundle, folder_of, size_from):
    folder = folder_of([("A", "a", 0, square(10, 13), square(10, 10))], size_from=size_from)
    figures = evaluate(bundle, folder)["heads"]["L4"]["patients"]["A"]
    assert set(figures) == {"dice", "iou", "worst_false_mm2"}


def test_the_largest_false_area_is_that_of_the_worst_slice_without_the_organ(bundle, folder_of):
    folder = folder_of(
        [
            ("A", "a", 0, square(4, 4, 4), NOTHING),
            ("A", "a", 1, square(4, 4, 6), NOTHING),
            ("B", "b", 0, square(9, 9), square(9, 9)),
        ]
    )
    heads = evaluate(bundle, folder)["heads"]["L1-L4"]
    assert heads["without_organ"] == {"A": {"worst_false_mm2": 36 * PIXEL_MM**2}}
    assert heads["patients"]["B"]["worst_false_mm2"] == 0


def test_a_split_in_which_no_one_has_the_organ_has_no_dice(bundle, folder_of):
    figures = evaluate(bundle, folder_of([("A", "a", 0, square(4, 4, 4), NOTHING)]))
    assert figures["heads"]["L4"]["dice"] is None
    assert "no patient with the organ" in as_table(figures)


def test_post_processing_removes_separate_parts_and_fills_holes_without_changing_the_raw_figures(bundle, folder_of):
    organ = square(10, 10)
    hollow = organ & ~square(16, 16, 3)
    folder = folder_of(
        [
            ("A", "a", 0, organ, organ),
            ("A", "a", 1, hollow, organ),
            ("A", "a", 2, organ, organ),
            ("A", "a", 3, square(2, 40, 5), NOTHING),
        ]
    )
    figures = evaluate(bundle, folder)
    raw, made = (figures[kind]["L4"]["patients"]["A"] for kind in ("heads", "postprocessed"))
    assert raw["worst_false_mm2"] == pytest.approx(25 * PIXEL_MM**2, abs=0.1) and raw["dice"] < 1
    assert made["worst_false_mm2"] == 0 and made["dice"] == 1


def test_slices_are_stacked_as_they_lie_in_the_scan_not_as_the_table_lists_them(bundle, folder_of):
    first, middle, last = square(2, 2), square(14, 14), square(26, 26)  # only neighbours touch
    folder = folder_of([("A", "a", n, at, at) for n, at in ((4, first), (12, last), (8, middle))])
    assert evaluate(bundle, folder)["postprocessed"]["L4"]["patients"]["A"]["dice"] == 1


def test_each_of_two_scans_of_a_patient_keeps_its_own_component(bundle, folder_of):
    folder = folder_of([("A", "a", 0, square(2, 2), square(2, 2)), ("A", "b", 0, square(26, 26), square(26, 26))])
    assert evaluate(bundle, folder)["postprocessed"]["L4"]["patients"]["A"]["dice"] == 1


def test_a_model_without_post_processing_has_only_raw_figures(tmp_path, folder_of):
    bare = bright_bundle(tmp_path / "bare-ct-v0.0.1", PIXEL_MM, postprocessing={})
    assert "postprocessed" not in evaluate(bare, folder_of([("A", "a", 0, square(2, 2), square(2, 2))]))


def test_the_time_of_each_level_is_a_ratio_to_the_deepest(bundle, folder_of, monkeypatch):
    convolutions = []  # done so far: a clock that no other program can slow down
    clock = SimpleNamespace(perf_counter=lambda: len(convolutions))
    monkeypatch.setattr(heads, "time", clock)

    def count(module, *_):
        if isinstance(module, torch.nn.Conv2d):
            convolutions.append(module)

    counting = register_module_forward_hook(count)
    time = evaluate(bundle, folder_of([("A", "a", 0, square(2, 2), square(2, 2))]))["time"]
    counting.remove()
    assert time["ratio_to"] == "L4" and time["L4"] == 1
    assert 0 < time["L1"] < time["L2"] < time["L3"] < 1 < time["L1-L4"]


def test_the_interval_contains_the_mean_and_grows_with_the_spread():
    def patients(*overlaps):
        return {str(n): Pooled(overlap=overlap, found=100, true=100) for n, overlap in enumerate(overlaps)}

    alike, apart = summary(patients(90, 90, 90, 90)), summary(patients(80, 85, 95, 100))
    assert alike["dice_95"] == [0.9, 0.9]
    low, high = apart["dice_95"]
    assert 0.8 < low < apart["dice"] == 0.9 < high < 1
    assert apart["dice_95_holds"] == 0.81
    alone = summary(patients(90))
    assert (alone["dice"], alone["dice_95"], alone["dice_95_holds"]) == (0.9, None, None)


@pytest.mark.parametrize(
    ("people", "interval", "worth"),
    [
        ("A", "", None),
        ("AB", " (1.000–1.000)", "2 patients are few: .* contains the true mean 50 % of the time, not 95 %"),
    ],
    ids=["one", "two"],
)
def test_one_patient_gets_no_interval_and_of_a_few_it_is_said_what_it_is_worth(
    bundle, folder_of, people, interval, worth
):
    text = as_table(evaluate(bundle, folder_of([(name, name, 0, square(2, 2), square(2, 2)) for name in people])))
    assert f"Dice 1.0000{interval}  IoU" in text
    assert re.search(worth, text) if worth else "patients are few" not in text


def colours_of(picture) -> set[str]:
    """The outlines that can be seen: pixels that are far more green, or red, than anything grey."""
    red, green, _ = np.moveaxis(np.asarray(Image.open(picture).convert("RGB")).astype(int), -1, 0)
    return {name for name, seen in (("truth", green - red > 100), ("found", red - green > 100)) if seen.any()}


def test_the_worst_slices_are_drawn_for_each_patient_that_has_any(bundle, folder_of, tmp_path, monkeypatch):
    monkeypatch.setattr(per_patient, "WORST", 2)
    off = [("A", "a", n, square(10, 10 + n), square(10, 10)) for n in range(4)]
    folder = folder_of([*off, ("B", "b", 0, square(9, 9), square(9, 9)), ("C", "c", 0, NOTHING, square(9, 9))])
    code = evaluation.main(
        [
            str(bundle.folder),
            "--data",
            str(folder),
            "--pictures",
            str(tmp_path / "worst"),
            "-o",
            str(tmp_path / "f.json"),
        ]
    )
    assert code == 0
    assert {p.name for p in (tmp_path / "worst").iterdir()} == {"A.png", "C.png"}  # nothing is wrong with B
    assert colours_of(tmp_path / "worst" / "A.png") == {"truth", "found"}
    assert colours_of(tmp_path / "worst" / "C.png") == {"truth"}
    assert json.loads((tmp_path / "f.json").read_text())["heads"]["L4"]["patients"]["C"]["hausdorff95_mm"] is None


def test_the_worst_slice_comes_first_with_its_dice(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(per_patient, "save_atlas", lambda path, panels, title: drawn.extend(panels))
    rows = [
        (Slice({"file": name}, "A", np.zeros((SIZE, SIZE), np.uint8), truth[None], 1.0), found[None])
        for name, truth, found in (
            ("right", square(5, 5), square(5, 5)),
            ("near", square(5, 5), square(5, 6)),
            ("false", NOTHING, square(5, 5, 20)),
            ("far", square(5, 5), square(5, 13)),
        )
    ]
    per_patient._draw_worst(tmp_path / "x.png", "t", rows)
    titles = [panel.title for panel in drawn]
    assert titles == [
        "false: no organ, 400 pixels wrong",
        "far: Dice 0.500, 256 pixels wrong",
        "near: Dice 0.938, 32 pixels wrong",
    ]


def test_pictures_are_refused_in_a_folder_that_a_commit_could_include(bundle, folder_of, tmp_path, capsys):
    data = folder_of([("A", "a", 0, square(2, 2), square(2, 4))])
    tree = tmp_path / "tree"
    tree.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    (tree / ".gitignore").write_text("/private/\n")

    def measure(folder):
        return evaluation.main([str(bundle.folder), "--data", str(data), "--pictures", str(folder)])

    assert measure(tree / "pictures" / "deep") == 1
    refusal = capsys.readouterr().err
    assert "is not ignored" in refusal and len(refusal.splitlines()) == 1
    assert not (tree / "pictures").exists()
    assert measure(tree / "private" / "deep") == 0
    assert (tree / "private" / "deep" / "A.png").is_file()


def test_moved_crops_are_measured_by_the_same_command(tmp_path, capsys):
    data = nodule_folder(tmp_path / "data", {"B": "val"})
    bundle = bright_nodule_bundle(tmp_path / "nodule-v0.0.1")
    arguments = [str(bundle.folder), "--data", str(data), "--moved-crops", "--draws", "1"]
    assert evaluation.main([*arguments, "-o", str(tmp_path / "f.json")]) == 0
    assert "1 nodules, 3 slices, 1 patients" in capsys.readouterr().out
    assert json.loads((tmp_path / "f.json").read_text()) == nodule_crops.evaluate(bundle, data, draws=1)


@pytest.mark.parametrize(
    "option", [["--data", "d", "--moved-crops"], ["--data", "d", "--kinds", "r"], ["--volumes", "v", "--time"]]
)
def test_options_for_nodule_models_are_refused_for_other_models(bundle, capsys, option):
    assert evaluation.main([str(bundle.folder), *option]) == 1
    assert "bright-ct-v0.0.1 is a model of liver" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--data d --chests", "--chests needs --volumes"),
        ("--data d --time", "--time needs --volumes"),
        ("--volumes v --moved-crops", "--moved-crops needs --data"),
        ("--volumes v --pictures p", "--pictures needs --data"),
        ("--data d --segment Liver=liver", "--segment needs --pairs"),
        ("--data d --speed quick", "choose from accurate, balanced, fast"),
        ("--data d --device gpu", "choose from auto, cpu, cuda, mps"),
        ("--data d --every 0", "--every: it must be a whole number above zero; got 0"),
        ("--data d --moved-crops --draws x", "--draws: it must be a whole number above zero; got x"),
    ],
)
def test_an_option_that_would_be_ignored_or_cannot_be_meant_is_refused(bundle, capsys, options, words):
    with pytest.raises(SystemExit) as stopped:
        evaluation.main([str(bundle.folder), *options.split()])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err.replace("'", "")


@pytest.mark.parametrize("text", [None, "patient,nodule\nA,0\n", "patient,nodule,texture\nA,0,solid\n"])
def test_what_is_no_table_of_ratings_is_refused_with_one_line(tmp_path, capsys, text):
    bundle = bright_nodule_bundle(tmp_path / "nodule-v0.0.1")
    if text:
        (tmp_path / "r.csv").write_text(text)
    arguments = [str(bundle.folder), "--data", str(tmp_path), "--kinds", str(tmp_path / "r.csv")]
    assert evaluation.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "r.csv is no table of ratings" in line


@pytest.mark.parametrize("script", [evaluation, decide], ids=lambda script: script.__name__)
def test_a_missing_chest_is_named_before_anything_is_measured(tmp_path, capsys, script):
    bundle = bright_nodule_bundle(tmp_path / "nodule-v0.0.1")
    arguments = {evaluation: ["--chests"], decide: ["--data", "nowhere", "--split", "train:1/6"]}[script]
    assert script.main([str(bundle.folder), "--volumes", str(tmp_path), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path} lacks LIDC-IDRI-0001_lungs_ct.nii.gz" in line


@pytest.mark.parametrize("script", [fit_trust, decide], ids=lambda script: script.__name__)
def test_a_model_that_cannot_be_rewritten_is_refused_before_anything_is_measured(tmp_path, capsys, script):
    bundle = bright_nodule_bundle(tmp_path / "nodule-v0.0.1")
    (bundle.folder / "evaluation.json").unlink(missing_ok=True)
    (bundle.folder / "evaluation.json").mkdir()
    more = {fit_trust: ["--folds", "no.ckpt"], decide: ["--split", "train:1/6", "--volumes", "none"]}[script]
    assert script.main([str(bundle.folder), "--data", "nowhere", *more]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "evaluation.json cannot be written: a folder has that name" in line


def test_a_liver_model_is_also_measured_on_a_whole_ct_without_liver(bundle, tmp_path, capsys):
    scan = np.random.default_rng(0).integers(-1000, 40, (4, 64, 64), np.int16)
    files.write_volume(tmp_path / whole_scans.CLEAN, scan, np.diag([-4.0, -4.0, 5.0, 1.0]))
    assert evaluation.main([str(bundle.folder), "--volumes", str(tmp_path)]) == 0
    (found,) = [each for name, each in json.loads(capsys.readouterr().out).items() if "no liver" in name]
    assert found["ml"] == 0
    assert any("No liver was found" in note for note in found["notes"])


def test_an_organ_is_measured_against_every_mask_beside_a_whole_ct(bundle, tmp_path, capsys):
    hu = np.full((20, 64, 64), -1000, np.int16)
    hu[:, 4:60, 4:60] = np.random.default_rng(0).integers(-200, 40, (20, 56, 56))
    hu[4:16, 20:40, 20:40] = 90
    truth = np.zeros(hu.shape, np.uint8)
    truth[4:16, 20:40, 22:40] = 1  # two columns less, of 1.5 mm
    place = np.diag([-PIXEL_MM, -PIXEL_MM, 5.0, 1.0])
    files.write_volume(tmp_path / "abdomen_ct.nrrd", hu, place)
    files.write_volume(tmp_path / "abdomen_liver.nii.gz", truth, place)
    files.write_volume(tmp_path / whole_scans.CLEAN, hu.clip(max=40), place)
    assert evaluation.main([str(bundle.folder), "--volumes", str(tmp_path), "--speed", "accurate"]) == 0
    found = json.loads(capsys.readouterr().out)["abdomen, Liver"]
    assert found["dice"] == pytest.approx(2 * 18 / (18 + 20), abs=1e-4)
    assert found["volume_error_ml"] == pytest.approx(12 * 20 * 2 * PIXEL_MM**2 * 5 / 1000, abs=0.1)
    assert found["volume_error_percent"] == pytest.approx(100 * 2 / 18, abs=0.01)
    assert found["hausdorff95_mm"] == 2 * PIXEL_MM
    assert 0.5 < found["surface_dice"] < 0.95
    assert found["notes"] == []


def test_a_ct_is_segmented_once_for_all_masks_that_lie_beside_it(tmp_path, capsys, monkeypatch):
    runs, predict = [], SliceEngine.predict
    monkeypatch.setattr(SliceEngine, "predict", lambda *given: runs.append(given) or predict(*given))
    bundle, scan = organs_bundle(tmp_path / "abdomen-ct-v0.0.1"), organs_scan()
    for name in ("Ann", "Ben"):
        files.write_volume(tmp_path / f"{name}_ct.nrrd", scan.array, scan.ijk_to_ras)
        for label in ("Spleen", "Left kidney"):
            path = tmp_path / f"{name}_{label.lower().replace(' ', '_')}.nii.gz"
            files.write_volume(path, organ(label).astype(np.uint8), scan.ijk_to_ras)
    assert evaluation.main([str(bundle.folder), "--volumes", str(tmp_path), "--speed", "accurate"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: each["dice"] for name, each in found.items() if ", " in name} == {
        "Ann, Spleen": 1, "Ann, Left kidney": 1, "Ben, Spleen": 1, "Ben, Left kidney": 1,
    }  # fmt: skip
    assert len(runs) == 2


def test_whole_cts_without_a_mask_for_the_model_are_refused_with_the_names_that_would_be_found(tmp_path, capsys):
    bundle, scan = organs_bundle(tmp_path / "abdomen-ct-v0.0.1"), organs_scan()
    files.write_volume(tmp_path / "Ann.nrrd", scan.array, scan.ijk_to_ras)
    files.write_volume(tmp_path / "Ann_spleen.nii.gz", organ("Spleen").astype(np.uint8), scan.ijk_to_ras)
    assert evaluation.main([str(bundle.folder), "--volumes", str(tmp_path)]) == 1
    assert "add NAME_spleen.nii.gz, say, beside NAME_ct.nii.gz or NAME_ct.nrrd" in capsys.readouterr().err


def test_a_missing_folder_of_volumes_is_refused_with_one_line(bundle, capsys):
    assert evaluation.main([str(bundle.folder), "--volumes", "nowhere"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere" in line
