"""A training is resumed with the settings that it began with: none that changes what it learns may be another."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml

import train
from data.targets import load_target
from fit.settings import NEUTRAL, Settings, differences_of
from fit.task import SegmentationTask
from Testing.support.slicefolders import liver_folder
from Testing.support.spleen import SPLEEN
from Testing.support.tiny_training import command, trained

LIVER_YAML = Path(train.__file__).parent / "targets" / "liver.yaml"
PEOPLE = {"A": "train", "B": "train", "C": "val"}


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A folder with slices and with a training of them."""
    place = tmp_path_factory.mktemp("begun")
    liver_folder(place / "data", PEOPLE, slices=2)
    shutil.copy(LIVER_YAML, place / "liver.yaml")
    trained(place, place / "data", f"target={place / 'liver.yaml'}")
    return place


@pytest.fixture
def place(begun, tmp_path) -> Path:
    """A copy of the training's folder, which reads the same slices."""
    shutil.copytree(begun / "runs", tmp_path / "runs")
    return tmp_path


def resumed(place: Path, begun: Path, *changes: str) -> int:
    return train.main(command(place, begun / "data", f"target={begun / 'liver.yaml'}", "--resume", *changes))


def refused(place: Path, begun: Path, capsys, *changes: str) -> str:
    """The one sentence with which it is refused, its checkpoint and settings untouched."""
    folder = place / "runs" / "tiny"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert resumed(place, begun, *changes) == 1
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    (line,) = capsys.readouterr().err.splitlines()
    assert "last.ckpt belongs to a training with another " in line and "give another name=… with init_from=" in line
    return line


@pytest.mark.parametrize(
    "change",
    [
        "filters=[2, 3, 4]", "architecture=unetpp", "fold=1/2", "pixel_mm=3.0", "patch=[64, 64]", "steps=2", "learning_rate=1e-4",
        "seed=2", "validation_stride=2", "patience=3", "loss=hybrid", "init_from=elsewhere", "teacher=elsewhere",
    ],
)  # fmt: skip
def test_a_training_is_not_resumed_with_another_setting(place, begun, change, capsys):
    name = change.partition("=")[0]
    assert f"with another {name}: " in refused(place, begun, capsys, change)


def test_a_training_is_not_resumed_on_another_folder_nor_with_a_further_one(place, begun, tmp_path, capsys):
    more = liver_folder(tmp_path / "more", {"D": "train", "E": "val"}, slices=2)
    assert "another data: " in refused(place, begun, capsys, f"data={more}")
    assert "another also: " in refused(place, begun, capsys, f"also={{liver: {more}}}")


def test_all_settings_that_differ_are_named(place, begun, capsys):
    assert "another fold, learning_rate: " in refused(place, begun, capsys, "learning_rate=1e-4", "fold=1/2")


def test_settings_that_were_edited_in_the_run_folder_are_noticed(place, begun, capsys):
    path = place / "runs" / "tiny" / "settings.yaml"
    settings = yaml.safe_load(path.read_text()) | {"runs": str(place / "runs")}
    path.write_text(yaml.safe_dump(settings | {"noise": 0.0}))
    assert train.main(["--config", str(path), "--resume"]) == 1
    assert "another noise: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"),
    [("window_hu: [-40, 160]", "window_hu: [-50, 160]"), ("name: Liver", "name: Livers"), ("usual: 1.5", "usual: 1.6")],
    ids=["window", "label", "pixel size of the slices"],
)
def test_a_target_that_teaches_something_else_now_is_noticed(place, begun, tmp_path, capsys, old, new):
    text = LIVER_YAML.read_text()
    assert old in text
    (tmp_path / "changed.yaml").write_text(text.replace(old, new))
    assert "another target: " in refused(place, begun, capsys, f"target={tmp_path / 'changed.yaml'}")


def test_what_does_not_change_what_is_learned_may_be_another(place, begun, tmp_path):
    (place / "runs").rename(place / "moved")
    (place / "moved" / "tiny").rename(place / "moved" / "renamed")
    (place / "link").symlink_to(begun / "data")
    text = LIVER_YAML.read_text().replace("LiTS (Liver", "LITS (Liver").replace("color: [221,", "color: [220,")
    (tmp_path / "described.yaml").write_text(text + "  - Another limit.\n")
    changes = [f"runs={place / 'moved'}", "name=renamed", "threads=2", f"data={place / 'link'}"]
    assert resumed(place, begun, *changes, f"target={tmp_path / 'described.yaml'}") == 0


@pytest.fixture
def stopped(begun, place, monkeypatch) -> list[str]:
    """The settings of a training of ten epochs that was stopped in the second one."""
    settings = ["name=stopped", "steps=10", "steps_per_epoch=1", "patience=2", "learning_rate=1e-9", "ema_decay=0.0"]

    def stop(task, *_):
        if task.global_step == 1:
            raise RuntimeError("stopped")

    with monkeypatch.context() as stopping, pytest.raises(RuntimeError, match="stopped"):
        stopping.setattr(SegmentationTask, "on_train_batch_start", stop)
        train.main(command(place, begun / "data", f"target={begun / 'liver.yaml'}", *settings))
    return settings


def test_a_training_that_ends_when_it_learns_no_more_is_resumed(place, begun, stopped):
    assert resumed(place, begun, *stopped) == 0
    ended = torch.load(place / "runs" / "stopped" / "last.ckpt", weights_only=True)["global_step"]
    assert 1 < ended < 10


def test_the_best_checkpoint_stays_though_the_folder_was_moved_before_the_training_is_resumed(place, begun, stopped):
    folder = place / "runs" / "stopped"
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    (best,) = (
        state
        for name, state in saved["callbacks"].items()
        if name.startswith("ModelCheckpoint") and state["best_model_path"].endswith("best.ckpt")
    )
    unbeaten = torch.tensor(2.0)
    best.update(best_model_score=unbeaten, kth_value=unbeaten, best_k_models={best["best_model_path"]: unbeaten})
    torch.save(saved, folder / "last.ckpt")
    before = (folder / "best.ckpt").read_bytes()
    (place / "runs").rename(place / "moved")
    assert resumed(place, begun, *stopped, f"runs={place / 'moved'}") == 0
    assert (place / "moved" / "stopped" / "best.ckpt").read_bytes() == before
    assert [path.name for path in (place / "moved" / "stopped").glob("best*")] == ["best.ckpt"]


def test_a_training_does_not_differ_from_itself_and_every_setting_but_the_neutral_ones_counts():
    settings = Settings("one", "liver", "data", also={"abdomen": "organs"})
    assert not differences_of(settings, replace(settings, also={"abdomen": "./organs"}, data="./data"))
    other = {
        "target": SPLEEN, "also": {"abdomen": "data"}, "architecture": "unet", "loss": "hybrid", "fold": "1/3", "filters": (2, 3),
        "scale": (1.0, 1.0), "gamma": (1.0, 1.0), "patch": (8, 8), "steps": 100, "steps_per_epoch": 50, "faint_hu": -400.0,
    }  # fmt: skip
    for name in (field.name for field in fields(Settings)):
        before = getattr(settings, name)
        kind = {str: "other", bool: not before, int: 2, float: 0.42}
        after = replace(settings, **{name: other.get(name, kind.get(type(before)))})
        assert differences_of(settings, after) == [] if name in NEUTRAL else [name], name
    assert load_target("liver") == settings.goal
