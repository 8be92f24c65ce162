"""Labels that share structures, such as Liver = liver + tumour beside Tumour: measured against what a label map can show of each."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

import evaluate
from data.targets import load_target
from measure.expected_dice import judged
from measure.per_patient import evaluate as per_patient
from Testing.support.organs import AT, LABELS, PRIORITY, SHAPE, WINDOW_HU, organ, organs_bundle, organs_scan
from Testing.support.slicefolders import write_table
from Testing.support.spleen import SPLEEN
from UNetPlusPlusSegmentLib.files import write_segmentation, write_volume
from UNetPlusPlusSegmentLib.network.card import Speed

NAMES = [name for name, *_ in LABELS]
# A label is what is brighter than its HU, so the first one is all three organs, and the second one is two of them.
MADE_OF = {"Spleen": NAMES, "Right kidney": NAMES[1:], "Left kidney": NAMES[2:]}
TARGET = {
    **SPLEEN,
    "name": "abdomen",
    "labels": [
        {"name": name, "terminology": terminology, "color": [*color], "made_of": MADE_OF[name]}
        for name, terminology, color, _ in LABELS
    ],
    "priority": [*PRIORITY],
    "postprocessing": {},
    "slices": {
        "window_hu": [*WINDOW_HU],
        "structures": {name: [value] for value, name in enumerate(NAMES, start=1)},
        "pixel_mm": {"column": "pixel_mm"},
        "unknown": [
            {"structure": "Left kidney", "marked_as": "Right kidney", "column": "left_marked", "values": ["no"]}
        ],
        "sources": [{"name": "Made up", "licence": "CC0", "citation": "These tests."}],
    },
}


@pytest.fixture
def bundle(tmp_path):
    speeds = {name: vars(Speed(2, find_first=False)) for name in ("accurate", "balanced", "fast")}
    return organs_bundle(tmp_path / "abdomen-ct-v1.0.0", postprocessing={}, speeds=speeds)


@pytest.fixture
def folder(tmp_path):
    """Slices of two people, a finding of whom is right in every pixel; of Ben the left kidney was marked as right."""
    folder, scan = tmp_path / "data", organs_scan()
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    low, high = WINDOW_HU
    grey = ((scan.array.clip(low, high) - low) * (255 / (high - low))).round().astype(np.uint8)
    stored = np.zeros(SHAPE, np.uint8)
    for value, name in enumerate(NAMES, start=1):
        stored[AT[name]] = value
    rows = []
    for person, marked in (("Ann", "yes"), ("Ben", "no")):
        for k in range(SHAPE[0]):
            name = f"{person}_{k}.png"
            Image.fromarray(grey[k]).save(folder / "images" / name)
            mask = stored[k] if marked == "yes" else np.minimum(stored[k], 2)
            Image.fromarray(mask).save(folder / "masks" / name)
            rows.append({
                "file": name, "volume": person, "patient": person, "slice": k, "split": "val", "pixel_mm": 2.0,
                "source_slice_mm": 3.0, "left_marked": marked,
            })  # fmt: skip
    write_table(folder, rows)
    (folder / "target.yaml").write_text(yaml.safe_dump(TARGET))
    return folder


def test_a_label_that_gives_pixels_to_others_is_measured_against_what_is_left(bundle, folder):
    figures = per_patient(bundle, folder, target=load_target(TARGET))
    for each in figures["labels"].values():
        assert each["heads"]["L2"]["patients"]["Ann"]["dice"] == 1, "a head by itself marks all of it"
        assert each["postprocessed"]["L2"]["patients"]["Ann"]["dice"] == 1


def test_what_is_left_of_a_label_is_unknown_where_nobody_told_it_from_the_label_that_wins(bundle, folder):
    labels = per_patient(bundle, folder, target=load_target(TARGET))["labels"]
    measured = {
        kind: {name: [*each[kind]["L2"]["patients"]] for name, each in labels.items()}
        for kind in ("heads", "postprocessed")
    }
    both, one = ["Ann", "Ben"], ["Ann"]
    assert measured["heads"] == {"Spleen": both, "Right kidney": both, "Left kidney": one}
    assert measured["postprocessed"] == {"Spleen": both, "Right kidney": one, "Left kidney": one}


def test_the_expected_dice_is_fitted_to_what_a_label_map_can_show(bundle, folder):
    found = [row for row in judged(bundle, folder, load_target(TARGET), "val") if not row.change]
    assert {(row.person, row.label) for row in found} == {("Ann", name) for name in NAMES} | {("Ben", "Spleen")}
    assert [row.dice for row in found] == [1] * len(found)


def test_the_shares_of_post_processing_are_measured_on_what_a_label_map_can_show(bundle, folder, capsys):
    assert evaluate.main([str(bundle.folder), "--data", str(folder), "--parts", "-o", str(folder / "f.json")]) == 0
    labels = json.loads((folder / "f.json").read_text())["labels"]
    whole = {name: by_kind["whole"][0] for name, by_kind in labels.items()}
    assert {name: row["scans"] for name, row in whole.items()} == {"Spleen": 2, "Right kidney": 1, "Left kidney": 1}
    assert {row["dice"] for row in whole.values()} == {1}


def test_the_labels_of_a_target_in_another_order_than_the_model_s_are_told_apart_in_a_rebuilt_volume(bundle, folder):
    target = load_target({**TARGET, "labels": TARGET["labels"][::-1]})
    row = next(judged(bundle, folder, target, "val"))
    assert (row.label, row.dice) == ("Spleen", 1)


def test_a_target_in_which_labels_share_what_the_model_knows_nothing_of_is_refused(tmp_path, folder, capsys):
    alone = organs_bundle(tmp_path / "abdomen-ct-v1.0.1", priority=[])
    assert evaluate.main([str(alone.folder), "--data", str(folder)]) == 1
    assert "does not fit abdomen-ct-v1.0.1, which has no priority: the labels Spleen and" in capsys.readouterr().err


def test_whole_scans_and_pairs_are_measured_against_what_a_label_map_can_show(bundle, tmp_path, capsys):
    scan = organs_scan()
    for place in ("pairs", "volumes"):
        (tmp_path / place).mkdir()
    write_volume(tmp_path / "pairs" / "Ann.nrrd", scan.array, scan.ijk_to_ras)
    stored = sum(value * organ(name).astype(np.uint8) for value, name in enumerate(NAMES, start=1))
    write_segmentation(tmp_path / "pairs" / "Ann.seg.nrrd", stored, scan.ijk_to_ras, bundle.labels)
    masks = {("Ann", name): parts for name, parts in MADE_OF.items()}
    masks |= {("Ben", "Spleen"): NAMES, ("Ben", "Right kidney"): NAMES}  # which leaves no spleen
    for (person, name), parts in masks.items():
        write_volume(tmp_path / "volumes" / f"{person}_ct.nrrd", scan.array, scan.ijk_to_ras)
        path = tmp_path / "volumes" / f"{person}_{name.lower().replace(' ', '_')}.nii.gz"
        write_volume(path, organ(*parts).astype(np.uint8), scan.ijk_to_ras)
    segments = [f"--segment={name}={'+'.join(parts)}" for name, parts in MADE_OF.items()]
    command = [str(bundle.folder), "--speed", "accurate"]
    assert evaluate.main([*command, "--pairs", str(tmp_path / "pairs"), *segments]) == 0
    labels = json.loads(capsys.readouterr().out)["labels"]
    assert {name: each["dice"] for name, each in labels.items()} == dict.fromkeys(NAMES, 1)
    errors = [each["patients"]["Ann"]["volume_error_percent"] for each in labels.values()]
    assert errors == [0, 0, 0]
    assert evaluate.main([*command, "--volumes", str(tmp_path / "volumes")]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert {name: each["dice"] == 1 for name, each in figures.items() if ", " in name} == {
        **{f"Ann, {name}": True for name in NAMES}, "Ben, Right kidney": False,
    }  # fmt: skip
