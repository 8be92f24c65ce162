"""Whole trainings, tiny but real: killed and resumed, on two ranks, exported and measured.

They run in this process, because a child takes five seconds to load Lightning; only killed and distributed ones run in a child.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import export
import train
from card.from_checkpoint import bundle_from_checkpoint
from data.provenance import Provenance
from fit.settings import Settings, load_settings
from fit.slice_data import SliceData
from fit.task import SegmentationTask
from fit.weights import load_weights
from measure import nodule_crops
from measure.heads import answer_of
from measure.per_patient import evaluate
from Testing.support.bright import bright_network, bright_nodule_bundle
from Testing.support.pairs import slicer_case
from Testing.support.slicefolders import liver_folder, nodule_folder, read_table, write_table
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.network.bundle import read_bundle, write_bundle
from UNetPlusPlusSegmentLib.network.card import Source

TRAINING = Path(__file__).parents[1] / "training"
STEPS, EPOCH = 9, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    patients = {"A": "train", "B": "train", "C": "val", "D": "val"}
    return liver_folder(tmp_path_factory.mktemp("slices") / "data", patients, slices=6)


@pytest.fixture
def config(data, tmp_path):
    return write_config(tmp_path, data)


def write_config(folder: Path, data: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(
        f"name: tiny\ntarget: liver\ndata: {data}\nruns: {folder / 'runs'}\nfilters: [2, 3, 4, 5, 6]\npixel_mm: 2.0\n"
        f"patch: [32, 32]\nbatch_size: 2\nsteps: {STEPS}\nsteps_per_epoch: {EPOCH}\nvalidation_stride: 1\nthreads: 1\n"
    )
    return path


def run(config, *arguments) -> None:
    assert train.main(["--config", str(config), *arguments]) == 0


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The last weights, not the averaged ones."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["current_model_state"]


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The run folder of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("trained")
    run(write_config(folder, data))
    return folder / "runs" / "tiny"


STOPPED = """
import os, signal, sys
import lightning
def stop(task, *_):
    if task.global_step == 4:
        os.kill(os.getpid(), int(sys.argv[1]))
lightning.LightningModule.on_train_batch_end = stop
sys.path.insert(0, sys.argv[2])
import train
sys.exit(train.main(sys.argv[3:]))
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_a_training_stopped_in_mid_epoch_and_resumed_ends_with_the_weights_of_an_unbroken_one(
    config, tmp_path, trained, stop, capsys
):
    folder = tmp_path / "runs" / "tiny"
    command = [sys.executable, "-c", STOPPED, str(int(stop)), str(TRAINING), "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert (folder / "last.ckpt").exists(), done.stderr
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == EPOCH < 4 < STEPS
    assert train.main(["--config", str(config)]) == 1
    assert "--resume" in capsys.readouterr().err
    run(config, "--resume")
    assert_same(weights(folder / "last.ckpt"), weights(trained / "last.ckpt"))
    assert logged_validations(folder) == logged_validations(trained) == {*range(EPOCH - 1, STEPS, EPOCH)}


def logged_validations(folder: Path) -> set[int]:
    """The steps, from 0, at which a validation was logged."""
    rows = [row for path in folder.rglob("metrics.csv") for row in csv.DictReader(path.open(newline=""))]
    return {int(row["step"]) for row in rows if row.get("val_dice")}


@pytest.mark.slow(reason="two processes that load torch and Lightning, and find each other")
def test_two_ranks_train_on_disjoint_halves_and_end_with_the_same_weights(config, tmp_path, data):
    watcher = tmp_path / "sitecustomize.py"
    # Each rank writes what it drew and where it ended; the training itself is not changed.
    watcher.write_text(
        "import atexit, os, sys\n"
        "def write():\n"
        "    task, slices = sys.modules.get('fit.task'), sys.modules.get('data.sampler')\n"
        "    if task is None or 'RANK' not in os.environ: return\n"
        "    import gc, torch\n"
        "    from data.sampler import BalancedSampler\n"
        "    samplers = [o for o in gc.get_objects() if isinstance(o, BalancedSampler)]\n"
        "    tasks = [o for o in gc.get_objects() if isinstance(o, task.SegmentationTask)]\n"
        "    if samplers and tasks:\n"
        "        out = {'drawn': list(samplers[0]), 'weights': tasks[0].network.state_dict()}\n"
        f"        torch.save(out, {str(tmp_path)!r} + '/rank' + os.environ['RANK'] + '.pt')\n"
        "atexit.register(write)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, str(TRAINING / "train.py"), "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    assert first["drawn"] and not set(first["drawn"]) & set(second["drawn"])
    assert_same(first["weights"], second["weights"])


def test_fewer_images_to_validate_on_than_processes_are_refused(config, capsys, monkeypatch):
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": 2, "GROUP_WORLD_SIZE": 1, "WORLD_SIZE": 2}
    for name, value in {**torchrun, "RANK": 0, "LOCAL_RANK": 0, "GROUP_RANK": 0}.items():
        monkeypatch.setenv(name, str(value))
    assert train.main(["--config", str(config), "validation_stride=99"]) == 1
    refused = "Too few images to validate on (1) for 2 processes: give a smaller validation_stride."
    assert refused in capsys.readouterr().err


def test_a_training_leaves_best_and_last_checkpoint_settings_and_logs(trained):
    assert {"best.ckpt", "last.ckpt", "settings.yaml"} <= {p.name for p in trained.iterdir()}
    (metrics,) = trained.rglob("metrics.csv")
    with metrics.open(newline="") as file:
        columns = set(csv.DictReader(file).fieldnames)
    assert {"val_dice", "val_iou"} <= columns
    assert list(trained.rglob("events.out.tfevents*"))


def test_an_exported_bundle_is_measured_as_its_checkpoint(trained, data, tmp_path):
    bundle = bundle_from_checkpoint(trained / "best.ckpt", tmp_path / "liver-ct-v0.0.1", figures={})
    figures = evaluate(bundle, data)
    assert set(figures["heads"]) == {"L1", "L2", "L3", "L4", "L1-L4", "L2-L4", "L3-L4"}
    assert set(figures["heads"]["L4"]["patients"]) == {"C", "D"}
    assert figures["slices"] == 12


def evaluation_of(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


def test_export_writes_the_measured_figures_beside_the_card(trained, data, tmp_path, capsys):
    folder = tmp_path / "liver-ct-v0.0.1"
    assert export.main([str(trained / "best.ckpt"), str(folder), "--data", str(data)]) == 0
    written, measured = evaluation_of(folder)["figures"], evaluate(read_bundle(folder), data)
    assert {k: v for k, v in written.items() if k != "time"} == {k: v for k, v in measured.items() if k != "time"}
    assert written["time"]["L4"] == 1


def test_the_evaluation_of_a_nodule_model_has_figures_for_moved_crops(tmp_path):
    data = nodule_folder(tmp_path / "data", {"A": "train", "B": "val"})
    settings = Settings("tiny", "nodule", str(data), filters=(2, 3, 4, 5, 6), pixel_mm=0.7)
    task = SegmentationTask(settings, [0])
    save(task, tmp_path / "last.ckpt")
    folder = tmp_path / "lung-nodule-ct-v0.0.1"
    assert export.main([str(tmp_path / "last.ckpt"), str(folder), "--data", str(data)]) == 0
    bundle = read_bundle(folder)
    figures = evaluation_of(folder)["figures"]
    assert figures["moved_crops"] == nodule_crops.evaluate(bundle, data)
    assert figures["moved_crops"]["answer"] == answer_of(bundle)
    assert (bundle.average_from, bundle.threshold) == nodule_crops.best_answer(bundle, data)
    assert [source.name for source in bundle.training_data] == ["LIDC-IDRI (7 patients)"]


def test_a_nodule_model_uses_the_heads_and_threshold_with_the_best_dice_at_a_point(tmp_path):
    data = nodule_folder(tmp_path / "data", {"B": "val"})
    for path in (data / "images").iterdir():
        image = np.asarray(Image.open(path))
        rim = (np.asarray(Image.open(data / "masks" / path.name)) == 1) * (129 - 30)  # the network gives it 0.56
        Image.fromarray((image + rim).astype(np.uint8)).save(path)
    bundle = bright_nodule_bundle(tmp_path / "nodule-v1.0.0")
    assert nodule_crops.best_answer(bundle, data) == (4, 0.6)
    network = bright_network()
    with torch.no_grad():
        network.outputs["4"].bias.fill_(-100)  # sees nothing; its mean with L3 is half of L3's probability
    bundle = write_bundle(tmp_path / "nodule-v1.0.1", bundle, network.state_dict())
    assert nodule_crops.best_answer(bundle, data) == (3, 0.4)


def save(task: SegmentationTask, path: Path) -> None:
    """A checkpoint as train.py leaves it, without a training."""
    saved = {"state_dict": task.state_dict(), "global_step": 1}
    task.own = Provenance((Source("LIDC-IDRI (7 patients)", "CC BY 3.0", "Armato SG III et al."),))
    task.on_save_checkpoint(saved)
    torch.save(saved, path)


def test_an_export_at_a_level_is_the_pruned_network_and_a_level_without_a_head_is_refused(data, tmp_path, capsys):
    settings = Settings("tiny", "liver", str(data), filters=(2, 3, 4, 5), pixel_mm=2)
    task = SegmentationTask(settings, [0])
    save(task, tmp_path / "last.ckpt")
    arguments = [str(tmp_path / "last.ckpt"), str(tmp_path / "liver-ct-v0.0.1"), "--data", str(data), "--level"]
    assert export.main([*arguments, "2"]) == 0
    bundle = read_bundle(tmp_path / "liver-ct-v0.0.1")
    assert bundle.depth == 2
    assert set(evaluation_of(bundle.folder)["figures"]["heads"]) == {"L1", "L2", "L1-L2"}
    state = bundle.load_state()
    expected = task.network.pruned(2, all_heads=True).state_dict()
    assert state.keys() == expected.keys()
    torch.testing.assert_close(state["nodes.0_2.0.bias"], expected["nodes.0_2.0.bias"], atol=1e-3, rtol=1e-3)  # in fp16
    arguments[1] = str(tmp_path / "liver-ct-v0.0.2")
    assert export.main([*arguments, "4"]) == 1
    assert "Cannot prune to level 4" in capsys.readouterr().err


@pytest.mark.parametrize("architecture", ["unet", "wide_unet", "unet_plus", "unetpp"])
def test_a_network_without_deep_supervision_is_measured_and_exported_too(data, tmp_path, architecture):
    settings = Settings("tiny", "liver", str(data), architecture=architecture, filters=(2, 3, 4, 5), pixel_mm=2)
    save(SegmentationTask(settings, [0]), tmp_path / "last.ckpt")
    folder = tmp_path / "liver-ct-v0.0.1"
    assert export.main([str(tmp_path / "last.ckpt"), str(folder), "--data", str(data)]) == 0
    bundle = read_bundle(folder)
    depth = 4 if architecture == "wide_unet" else 3
    assert list(evaluation_of(folder)["figures"]["heads"]) == [answer_of(bundle)] == [f"L{depth}"]
    assert bundle.speed("fast").level == bundle.depth == depth


def test_export_refuses_a_folder_of_volumes_that_is_not_there_before_it_measures(trained, data, tmp_path, capsys):
    arguments = [
        str(trained / "best.ckpt"),
        str(tmp_path / "liver-ct-v0.0.1"),
        "--data",
        str(data),
        "--volumes",
        "nowhere",
    ]
    assert export.main(arguments) == 1
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "liver-ct-v0.0.1").exists()


def test_export_refuses_whole_cts_that_do_not_fit_the_model_before_it_measures(
    trained, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(export, "answered", lambda *_: pytest.fail("it measures"))
    hepar = Segment(1, "Hepar", "", (1, 2, 3), {})
    slicer_case(tmp_path / "cases", "Ann", segments=(hepar, hepar))
    made = [str(trained / "best.ckpt"), str(tmp_path / "liver-ct-v0.0.1"), "--data", str(data)]
    assert export.main([*made, "--pairs", str(tmp_path / "cases")]) == 1
    assert (
        'No case has a segment Liver; there are Hepar. Choose one of these with --segment "Liver='
        in capsys.readouterr().err
    )
    assert export.main([*made, "--pairs", str(tmp_path / "cases"), "--segment", "Liver=Milz"]) == 1
    assert "No case has a segment Milz" in capsys.readouterr().err
    assert export.main([*made, "--volumes", str(tmp_path / "cases")]) == 1
    assert "cases lacks chest_clean_ct.nrrd" in capsys.readouterr().err
    assert not (tmp_path / "liver-ct-v0.0.1").exists()


def test_export_measures_pairs_whose_segments_have_other_names(trained, data, tmp_path):
    hepar = [Segment(value, name, "", (1, 2, 3), {}) for value, name in ((1, "Hepar"), (2, "Ren"))]
    slicer_case(tmp_path / "cases", "Ann", segments=hepar)
    folder = tmp_path / "liver-ct-v0.0.1"
    made = [str(trained / "best.ckpt"), str(folder), "--data", str(data), "--pairs", str(tmp_path / "cases")]
    assert export.main([*made, "--segment", "Liver=Hepar"]) == 0
    assert "Ann" in evaluation_of(folder)["figures"]["pairs"]["labels"]["Liver"]["patients"]


@pytest.mark.parametrize(
    ("name", "words"), [("liver-ct", "-v1.0.0"), ("liver-ct-v1.0.0", "exists already")], ids=["no version", "taken"]
)
def test_export_refuses_a_folder_it_cannot_write_before_it_measures(tmp_path, capsys, name, words):
    (tmp_path / "liver-ct-v1.0.0").mkdir()
    assert export.main([str(tmp_path / "no.ckpt"), str(tmp_path / name), "--data", "nowhere"]) == 1
    assert words in capsys.readouterr().err


def test_a_training_can_start_from_a_bundle_and_from_a_checkpoint(trained, config, tmp_path):
    bundle_from_checkpoint(trained / "last.ckpt", tmp_path / "liver-ct-v0.0.1", figures={})
    for number, source in enumerate([tmp_path / "liver-ct-v0.0.1", trained / "last.ckpt"]):
        changes = (f"name=again{number}", "steps=1", "steps_per_epoch=1", "learning_rate=1e-9")
        run(config, f"init_from={source}", *changes)
        saved = weights(tmp_path / "runs" / f"again{number}" / "last.ckpt")
        averaged = torch.load(trained / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
        name = "nodes.0_0.0.weight"
        expected = read_bundle(source).load_state()[name] if number == 0 else averaged[f"network.{name}"]
        torch.testing.assert_close(saved[f"network.{name}"], expected, atol=1e-6, rtol=1e-5)


def test_weights_with_other_filters_are_refused_as_a_start_for_that_reason(trained, config, capsys):
    for filters in ("[4, 6, 8, 10, 12]", "[2, 3, 4]"):
        arguments = [f"init_from={trained / 'last.ckpt'}", "name=other", f"filters={filters}"]
        assert train.main(["--config", str(config), *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "has other filters or another architecture than this training" in line
    assert not (config.parent / "runs" / "other").exists()


def test_a_network_with_other_labels_starts_from_all_weights_but_the_heads(trained, config, tmp_path):
    network = SegmentationTask(Settings("eight", "abdomen", str(tmp_path), filters=(2, 3, 4, 5, 6)), [0]).network
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    load_weights(network, str(trained / "last.ckpt"))
    expected = torch.load(trained / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, fresh[name] if name.startswith("outputs.") else expected[f"network.{name}"])


def test_a_training_holds_out_the_people_of_its_fold(config, tmp_path):
    run(config, "name=fold", "fold=1/2", "steps=3")
    slices = SliceData(load_settings(tmp_path / "runs" / "fold" / "settings.yaml"))
    people = [{item.row["patient"] for item in part} for part in (slices.training, slices.validation)]
    assert sorted(map(sorted, people)) == [["A"], ["B"]]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("patien=3", "did you mean 'patience'"),
        ("data=nowhere", "nowhere"),
        ("init_from=nowhere", "init_from: nowhere is not a checkpoint"),
        ("runs=/dev/null/runs", "cannot be written to"),
        ("fold=3/9", "too few people in 'train'"),
        ("seed=-1", "seed=-1 must not be below zero"),
        ("filters=[16]", "two or more levels"),
        ("filters=[0, 1, 2]", "above zero"),
        ("filters=[16.5, 32]", "whole numbers"),
        ("filters=[a, b]", "whole numbers"),
        ("also={3: x}", "must be of type dict[str, str]"),
    ],
)
def test_a_wrong_setting_is_refused_with_one_line_before_the_first_step(config, override, words, capsys):
    assert_refused(config, override, words, capsys)


def test_settings_that_are_no_text_are_refused_with_one_line(tmp_path, capsys):
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\r\n\xff\xfe")
    assert train.main(["--config", str(tmp_path / "image.yaml")]) == 1
    assert "image.yaml cannot be read" in capsys.readouterr().err


def test_a_key_without_a_value_is_the_empty_text():
    assert load_settings(TRAINING / "configs" / "liver.yaml").init_from
    assert load_settings(TRAINING / "configs" / "liver.yaml", ["init_from=", "also={}"]).init_from == ""


def assert_refused(config, override, words, capsys):
    """One line that names the cause, and no run folder: nothing was trained."""
    assert train.main(["--config", str(config), override]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (config.parent / "runs" / "tiny" / "csv").exists()


def test_a_file_that_is_not_a_checkpoint_is_refused_as_initial_weights(config, tmp_path, capsys):
    (tmp_path / "empty.ckpt").touch()
    (tmp_path / "text.ckpt").write_text("weights")
    for name in ("empty.ckpt", "text.ckpt"):
        assert_refused(config, f"init_from={tmp_path / name}", "is not a checkpoint of train.py", capsys)


def _drop_image(folder):
    (folder / "images" / "A_0.png").unlink()


def _drop_mask(folder):
    (folder / "masks" / "C_0.png").unlink()  # of the validation, which would be read hours later


def _cut_mask(folder):
    Image.fromarray(np.zeros((40, 39), np.uint8)).save(folder / "masks" / "B_0.png")


def _mark_a_third_label(folder):
    Image.fromarray(np.full((40, 40), 3, np.uint8)).save(folder / "masks" / "B_0.png")


def _store_16_bit(folder):
    Image.fromarray(np.full((40, 40), 4000, np.uint16)).save(folder / "images" / "B_0.png")


def _mark_with_255(folder):
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(folder / "masks" / "B_0.png")


def _split_a_patient(folder):
    rows = read_table(folder)
    rows[0]["split"] = "val"
    write_table(folder, rows)


def _leave_no_validation(folder):
    write_table(folder, [row for row in read_table(folder) if row["split"] == "train"])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_drop_image, "A_0.png"),
        (_drop_mask, "C_0.png"),
        (_cut_mask, "B_0.png has 40 × 39 pixels"),
        (_mark_with_255, "B_0.png holds the value 255"),
        (_mark_a_third_label, "with the values 0, 1, 2"),
        (_store_16_bit, "B_0.png has 1 channel(s) of uint16"),
        (_split_a_patient, "patient A is in two splits"),
        (_leave_no_validation, "no row with split 'val'"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_broken_folder_is_refused_with_the_name_of_the_file_before_the_first_step(
    config, tmp_path, spoil, words, capsys
):
    folder = liver_folder(tmp_path / "broken", {"A": "train", "B": "train", "C": "val"}, slices=2)
    spoil(folder)
    assert_refused(config, f"data={folder}", words, capsys)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nodule", "the pixel size of"),
        ("nuclei", "does not belong to this target"),
        ("polyp", "does not belong to this target"),
    ],
)
def test_a_config_of_another_target_is_refused_before_the_first_step(config, target, words, capsys):
    assert_refused(config, f"target={target}", words, capsys)


def test_a_full_disk_is_refused_before_the_first_step(config, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    assert train.main(["--config", str(config)]) == 1
    assert "free some space" in capsys.readouterr().err
