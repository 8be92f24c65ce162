"""Whole trainings, tiny but real: in child processes, killed and resumed, on two ranks, exported and measured."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from slicefolders import liver_folder

from cards import bundle_from_checkpoint
from evaluate import evaluate
from UNetPlusPlusSegmentLib.bundles import read_bundle

TRAINING = Path(__file__).parents[1] / "training"
STEPS, EPOCH = 9, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    patients = {"A": "train", "B": "train", "C": "val", "D": "val"}
    return liver_folder(tmp_path_factory.mktemp("slices") / "data", patients, slices=6)


@pytest.fixture
def config(data, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"name: tiny\ntarget: liver\ndata: {data}\nruns: {tmp_path / 'runs'}\nfilters: [2, 3, 4, 5, 6]\npixel_mm: 2.0\n"
        f"patch: [32, 32]\nbatch_size: 2\nsteps: {STEPS}\nsteps_per_epoch: {EPOCH}\nvalidation_stride: 1\nthreads: 1\n"
    )
    return path


def command(config, *arguments, launcher=(sys.executable,)) -> list[str]:
    return [*launcher, str(TRAINING / "train.py"), "--config", str(config), *arguments]


def run(config, *arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command(config, *arguments, **options), capture_output=True, text=True, check=False)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The last weights, not the averaged ones."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["current_model_state"]


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def test_a_training_killed_in_mid_epoch_and_resumed_ends_with_the_weights_of_an_unbroken_one(config, tmp_path):
    unbroken = run(config, "name=unbroken")
    assert unbroken.returncode == 0, unbroken.stderr
    folder = tmp_path / "runs" / "broken"
    child = subprocess.Popen(command(config, "name=broken"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for((folder / "last.ckpt").exists)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] < STEPS
    refused = run(config, "name=broken")
    assert refused.returncode == 1 and "--resume" in refused.stderr
    resumed = run(config, "name=broken", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same(weights(folder / "last.ckpt"), weights(tmp_path / "runs" / "unbroken" / "last.ckpt"))


def test_two_ranks_train_on_disjoint_halves_and_end_with_the_same_weights(config, tmp_path, data):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    watcher = tmp_path / "sitecustomize.py"
    # Each rank writes what it drew and where it ended; the training itself is not changed.
    watcher.write_text(
        "import atexit, os, sys\n"
        "def write():\n"
        "    task, slices = sys.modules.get('task'), sys.modules.get('slices')\n"
        "    if task is None or 'RANK' not in os.environ: return\n"
        "    import gc, torch\n"
        "    from slices import BalancedSampler\n"
        "    samplers = [o for o in gc.get_objects() if isinstance(o, BalancedSampler)]\n"
        "    tasks = [o for o in gc.get_objects() if isinstance(o, task.SegmentationTask)]\n"
        "    if samplers and tasks:\n"
        "        out = {'drawn': list(samplers[0]), 'weights': tasks[0].network.state_dict()}\n"
        f"        torch.save(out, {str(tmp_path)!r} + '/rank' + os.environ['RANK'] + '.pt')\n"
        "atexit.register(write)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        command(config, launcher=launcher), capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    assert first["drawn"] and not set(first["drawn"]) & set(second["drawn"])
    assert_same(first["weights"], second["weights"])


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run folder of a short training."""
    folder = tmp_path_factory.mktemp("trained")
    config = folder / "tiny.yaml"
    config.write_text(
        f"name: tiny\ntarget: liver\ndata: {data}\nruns: {folder}\nfilters: [2, 3, 4, 5, 6]\npixel_mm: 2.0\npatch: [32, 32]\n"
        "batch_size: 2\nsteps: 4\nsteps_per_epoch: 2\nvalidation_stride: 1\nthreads: 1\n"
    )
    done = run(config)
    assert done.returncode == 0, done.stderr
    return folder / "tiny"


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


def test_a_training_can_start_from_a_bundle_and_from_a_checkpoint(trained, config, tmp_path):
    bundle_from_checkpoint(trained / "last.ckpt", tmp_path / "liver-ct-v0.0.1", figures={})
    for number, source in enumerate([tmp_path / "liver-ct-v0.0.1", trained / "last.ckpt"]):
        done = run(
            config, f"init_from={source}", f"name=again{number}", "steps=1", "steps_per_epoch=1", "learning_rate=1e-9"
        )
        assert done.returncode == 0, done.stderr
        saved = weights(tmp_path / "runs" / f"again{number}" / "last.ckpt")
        start = read_bundle(tmp_path / "liver-ct-v0.0.1").load_state() if number == 0 else None
        expected = start or {k.removeprefix("network."): v for k, v in weights(trained / "last.ckpt").items()}
        name = "nodes.0_0.0.weight"
        torch.testing.assert_close(saved[f"network.{name}"], expected[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("patien=3", "did you mean 'patience'"),
        ("data=nowhere", "nowhere"),
        ("init_from=nowhere", "init_from='nowhere'"),
        ("runs=/dev/null/runs", "cannot be written to"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_one_line_before_the_first_step(config, override, words):
    import contextlib
    import io

    import train

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert train.main(["--config", str(config), override]) == 1
    assert words in errors.getvalue()
    assert len(errors.getvalue().splitlines()) == 1


def test_a_full_disk_is_refused_before_the_first_step(config, monkeypatch, capsys):
    import shutil

    import train

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    assert train.main(["--config", str(config)]) == 1
    assert "make room" in capsys.readouterr().err
