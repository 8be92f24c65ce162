"""A checkpoint is measured as the model that export.py makes of it: with the same heads, and the same threshold."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import export
from card.from_checkpoint import bundle_from_checkpoint
from fit.settings import Settings
from fit.slice_data import SliceData
from fit.task import SegmentationTask
from measure.heads import answer_of, best_average
from measure.whole_scans import CLEAN
from Testing.support.bright import bright_network
from Testing.support.slicefolders import liver_folder, nodule_folder
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.files import write_segmentation, write_volume
from UNetPlusPlusSegmentLib.network.bundle import read_bundle
from UNetPlusPlusSegmentLib.network.card import Source


def checkpoint(path, target: str, data, pixel_mm: float, fold: str = "", poor=()) -> None:
    """A checkpoint of a network that finds what is bright, save for the heads of some levels, which mark everything."""
    settings = Settings("tiny", target, str(data), filters=(1,) * 5, batch_norm=False, pixel_mm=pixel_mm, fold=fold)
    task, network = SegmentationTask(settings, [0]), bright_network()
    for level in poor:
        with torch.no_grad():
            network.outputs[str(level)].bias.fill_(100)
    task.network.load_state_dict(network.state_dict())
    task.sources = (Source("Made up", "CC0", "These tests."),)
    saved = {"state_dict": task.state_dict(), "global_step": 1}
    task.on_save_checkpoint(saved)
    torch.save(saved, path)


def write_case(folder) -> None:
    """A bright cube in a CT, and a segmentation of it as liver."""
    bright, grid = np.zeros((12, 48, 48), bool), np.diag([-2.0, -2.0, 4.0, 1.0])
    bright[3:9, 10:26, 12:28] = True
    folder.mkdir()
    write_volume(folder / "Ann.nrrd", np.where(bright, 130, -90).astype(np.int16), grid)
    term = "c~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^"
    segment = Segment(1, "Liver", term, (1, 2, 3), {})
    write_segmentation(folder / "Ann.seg.nrrd", bright.astype(np.uint8), grid, [segment])


def figures_of(*arguments) -> dict:
    """What evaluate.py measures, without what differs from run to run."""
    output = arguments[0].with_suffix(".json")
    assert evaluate.main([*map(str, arguments), "-o", str(output)]) == 0
    return {key: each for key, each in json.loads(output.read_text()).items() if key not in ("model", "time")}


def test_every_speed_uses_the_deepest_level_of_a_network_however_deep(tmp_path):
    data = liver_folder(tmp_path / "data", {"A": "train", "B": "val"})
    settings = Settings("deep", "liver", str(data), filters=(1,) * 6, pixel_mm=2.0)
    task = SegmentationTask(settings, [0], SliceData(settings).own)
    saved = {"state_dict": task.state_dict(), "global_step": 1}
    task.on_save_checkpoint(saved)
    torch.save(saved, tmp_path / "last.ckpt")
    speeds = bundle_from_checkpoint(tmp_path / "last.ckpt", tmp_path / "liver-ct-v0.0.1", {}).speeds
    assert {name: speed.level for name, speed in speeds.items()} == {"accurate": 5, "balanced": 5, "fast": 5}


@pytest.mark.parametrize(
    ("poor", "answer"), [((1, 2, 3), "L4"), ((1, 4), "L2-L4")], ids=["poor shallow heads", "poor ends"]
)
def test_a_checkpoint_is_measured_on_whole_scans_with_the_heads_that_its_export_averages(tmp_path, poor, answer):
    data = liver_folder(tmp_path / "data", {"A": "train", "B": "val"})
    checkpoint(tmp_path / "last.ckpt", "liver", data, 2.0, poor=poor)
    write_case(tmp_path / "cases")
    folder = tmp_path / "liver-ct-v0.0.1"
    assert export.main([str(tmp_path / "last.ckpt"), str(folder), "--data", str(data)]) == 0
    assert answer_of(read_bundle(folder)) == answer
    of_checkpoint = figures_of(tmp_path / "last.ckpt", "--pairs", tmp_path / "cases")
    assert of_checkpoint["labels"]["Liver"]["dice"] > 0.9
    assert of_checkpoint == figures_of(folder, "--pairs", tmp_path / "cases")


def test_the_threshold_of_a_nodule_checkpoint_is_chosen_on_the_people_that_its_training_held_out(tmp_path):
    data = nodule_folder(tmp_path / "data", {"A": "train", "B": "train", "C": "val"})
    checkpoint(tmp_path / "last.ckpt", "nodule", data, 0.7, fold="1/2")
    for path in (data / "images").glob("[AB]*"):
        image = np.asarray(Image.open(path))
        rim = (np.asarray(Image.open(data / "masks" / path.name)) == 1) * (129 - 30)  # the network gives it 0.56
        Image.fromarray((image + rim).astype(np.uint8)).save(path)
    folder = tmp_path / "nodule-v0.0.1"
    assert export.main([str(tmp_path / "last.ckpt"), str(folder), "--data", str(data)]) == 0
    assert read_bundle(folder).threshold == 0.6
    of_export = json.loads((folder / "evaluation.json").read_text())["figures"]
    for option, figures in ((), of_export), (("--moved-crops",), of_export["moved_crops"]):
        measured = figures_of(tmp_path / "last.ckpt", "--data", data, *option)
        assert measured == {key: figures[key] for key in measured}


def test_where_the_people_are_missing_on_whom_heads_are_chosen_one_line_says_so(tmp_path, capsys):
    data = liver_folder(tmp_path / "data", {"A": "train", "B": "val"})
    checkpoint(tmp_path / "last.ckpt", "liver", tmp_path / "gone", 2.0)
    write_volume(tmp_path / CLEAN, np.zeros((2, 8, 8), np.int16), np.diag([-2.0, -2.0, 4.0, 1.0]))
    command = [str(tmp_path / "last.ckpt"), "--volumes", str(tmp_path)]
    assert evaluate.main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "chosen on the people on whom the training was validated" in line and "gone" in line
    assert evaluate.main([*command[:1], "--data", str(data)]) == 0, "each head by itself, which takes no choice"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pairs", "cases", "--segment", "Liver=hepar"], "No case has a segment hepar; there are Liver"),
        (["--volumes", "cases"], "lacks chest_clean_ct.nrrd"),
        (["--volumes", "cases", "--chests"], "are for nodule models"),
        (["--data", "data", "--split", "tset", "--parts"], "has no row with split 'tset'"),
        (["--data", "data", "--pictures", str(Path(__file__).parent / "made")], "is not ignored by git"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_measured_is_refused_before_heads_are_chosen(tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "last.ckpt", "liver", tmp_path / "gone", 2.0)
    liver_folder(tmp_path / "data", {"A": "train", "B": "val"})
    write_case(tmp_path / "cases")
    assert evaluate.main(["last.ckpt", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and "heads" not in line


def test_an_export_measures_nothing_if_the_split_is_not_there(tmp_path, capsys, monkeypatch):
    data = liver_folder(tmp_path / "data", {"A": "train", "B": "val"})
    checkpoint(tmp_path / "last.ckpt", "liver", data, 2.0)
    monkeypatch.setattr(export, "answered", lambda *_: pytest.fail("it is measured"))
    arguments = [str(tmp_path / "last.ckpt"), str(tmp_path / "m-v1.0.0"), "--data", str(data), "--split", "tset"]
    assert export.main(arguments) == 1
    assert "has no row with split 'tset'; its splits are train, val" in capsys.readouterr().err


def test_a_checkpoint_is_called_by_its_training(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    checkpoint(tmp_path / "mine" / "last.ckpt", "liver", tmp_path / "gone", 2.0)
    write_case(tmp_path / "cases")
    path = str(tmp_path / "mine" / "last.ckpt")
    assert evaluate.main([path, "--pairs", str(tmp_path / "cases"), "--segment", "Lever=Liver"]) == 1
    assert "mine has no label Lever; it has Liver" in capsys.readouterr().err


def test_a_model_measured_where_there_is_no_organ_uses_the_deepest_head_alone():
    assert best_average({name: {"dice": None} for name in ("L1", "L2", "L1-L2")}) == 2
