"""No weights from which a training starts, or by which it is taught, may have seen the people on whom it is validated."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

import evaluate
import export
import train
from card.from_checkpoint import bundle_from_checkpoint
from data.slices import read_rows
from data.targets import load_target
from fit.checkpoint import read_checkpoint
from fit.settings import Settings, load_settings
from fit.slice_data import SliceData
from fit.task import SegmentationTask
from fit.training import inherited_by
from Testing.support.slicefolders import liver_folder, read_table, write_table
from Testing.support.tiny_training import command, trained
from UNetPlusPlusSegmentLib.network.card import Source

ROOT = Path(__file__).parents[1]
LIVER = load_target("liver").slices
LITS = LIVER.sources[0]
SPLEENS = Source("Spleens (2 patients)", "CC0", "We, 2024.")
PEOPLE = {"A": "train", "B": "train", "C": "train", "D": "val"}


@pytest.fixture
def data(tmp_path):
    return liver_folder(tmp_path / "data", PEOPLE, slices=2)


def settings_of(data: Path, **more: str) -> Settings:
    return Settings("tiny", "liver", str(data), filters=(2, 3, 4, 5, 6), pixel_mm=2.0, **more)


def checkpoint(path: Path, data: Path, **more: str) -> Path:
    """What train.py would leave after a training on the folder with these settings."""
    settings = settings_of(data, **more)
    task = SegmentationTask(settings, [0], SliceData(settings).own, inherited_by(settings))
    saved = {"state_dict": task.state_dict(), "global_step": 1}
    task.on_save_checkpoint(saved)
    torch.save(saved, path)
    return path


@pytest.fixture
def start(data, tmp_path) -> Path:
    """A checkpoint that has learned from everybody of `train`."""
    return checkpoint(tmp_path / "start.ckpt", data)


def model(start: Path, *sources: Source, schema: int = 3) -> Path:
    """A model folder of the checkpoint, whose card names these sources."""
    folder = start.with_name("model-v1.0.0")
    path = bundle_from_checkpoint(start, folder, {}).folder / "model.json"
    named = [vars(each) for each in sources]
    card = json.loads(path.read_text()) | {"schema": schema, "training_data": named if schema > 2 else named[0]}
    path.write_text(json.dumps(card))
    return folder


def refused(folder: Path, data: Path, capsys, *arguments: str) -> str:
    """The one sentence with which a training is refused before it begins."""
    assert train.main(command(folder, data, *arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert not (folder / "runs").exists()
    return line


def moved(data: Path, **split_of: str) -> None:
    """Divide people of a slice folder anew."""
    rows = read_table(data)
    write_table(data, [row | {"split": split_of.get(row["patient"], row["split"])} for row in rows])


def test_a_start_that_has_seen_everybody_is_refused_for_a_fold(data, start, tmp_path, capsys):
    line = refused(tmp_path, data, capsys, "fold=1/3", f"init_from={start}")
    assert f"init_from='{start}' has learned from 1 of the people whom fold=1/3 holds out" in line
    assert line.endswith('give init_from="" or weights trained with fold=1/3.')


def test_a_teacher_that_has_seen_the_people_of_another_fold_is_refused(data, tmp_path, capsys):
    other = checkpoint(tmp_path / "other.ckpt", data, fold="2/3")
    line = refused(tmp_path, data, capsys, "fold=1/3", f"teacher={other}")
    assert f"teacher='{other}' has learned from 1 of the people" in line and 'give teacher="" or' in line


def test_a_training_keeps_whom_it_and_its_start_have_learned_from(data, tmp_path):
    elsewhere = liver_folder(tmp_path / "elsewhere", {"E": "train", "F": "val"}, slices=2)
    first = checkpoint(tmp_path / "first.ckpt", elsewhere)
    second = read_checkpoint(trained(tmp_path, data, "fold=1/3", f"init_from={first}"))
    (held_out,) = {row["patient"] for row in read_rows(data, LIVER, "train:1/3")}
    assert {*second.provenance.people} == {*"ABCE"} - {held_out} and not second.provenance.unnamed


def test_a_fold_goes_on_from_the_same_fold_alone(data, tmp_path, capsys):
    first = checkpoint(tmp_path / "first.ckpt", data, fold="1/3")
    second = checkpoint(tmp_path / "second.ckpt", data, fold="1/3", init_from=str(first))
    assert "1 of the people whom fold=2/3" in refused(tmp_path, data, capsys, "fold=2/3", f"init_from={second}")


def test_a_fold_of_the_same_name_holds_out_others_once_people_were_added(data, tmp_path, capsys):
    before = checkpoint(tmp_path / "before.ckpt", data, fold="1/3")
    more = liver_folder(tmp_path / "more", PEOPLE | dict.fromkeys("EFGHI", "train"), slices=2)
    seen = {*read_checkpoint(before).people} & {row["patient"] for row in read_rows(more, LIVER, "train:1/3")}
    assert seen
    line = refused(tmp_path, more, capsys, "fold=1/3", f"init_from={before}")
    assert f"has learned from {len(seen)} of the people" in line


def test_the_people_of_a_further_folder_are_held_out_too(data, tmp_path, capsys):
    more = liver_folder(tmp_path / "more", {"X": "train", "Y": "train", "Z": "train", "W": "val"}, slices=2)
    start = checkpoint(tmp_path / "start.ckpt", more)
    also = f"also={{liver: {more}}}"
    assert "learned from 1 of the people" in refused(tmp_path, data, capsys, "fold=1/3", also, f"init_from={start}")


def test_nobody_is_in_the_training_of_one_folder_and_in_the_validation_of_another(data, tmp_path, capsys):
    more = liver_folder(tmp_path / "more", {"D": "train", "W": "val"}, slices=2)
    line = refused(tmp_path, data, capsys, f"also={{liver: {more}}}")
    assert "D would be learned from in one folder and validated on in another" in line


def test_a_checkpoint_is_neither_exported_nor_measured_without_a_word_on_people_it_has_seen(data, tmp_path, capsys):
    before = checkpoint(tmp_path / "before.ckpt", data, fold="1/3")
    more = liver_folder(tmp_path / "more", PEOPLE | dict.fromkeys("EFGHI", "train"), slices=2)
    seen = {*read_checkpoint(before).people} & {row["patient"] for row in read_rows(more, LIVER, "train:1/3")}
    said = f"has learned from {len(seen)} of the people in train:1/3"
    assert export.main([str(before), str(tmp_path / "m-v1.0.0"), "--data", str(more), "--split", "train:1/3"]) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "m-v1.0.0").exists()
    assert evaluate.main([str(before), "--data", str(more), "--split", "train:1/3"]) == 0
    assert said in capsys.readouterr().err
    assert evaluate.main([str(before), "--data", str(more)]) == 0
    assert "has learned from" not in capsys.readouterr().err


def test_a_start_that_has_seen_people_who_are_in_val_now_is_refused(data, start, tmp_path, capsys):
    inherited_by(settings_of(data, init_from=str(start)))
    moved(data, A="val", D="train")
    line = refused(tmp_path, data, capsys, f"init_from={start}")
    assert "has learned from 1 of the people whom `val` holds out" in line
    assert line.endswith('give init_from="" or weights that have not seen them.')


def test_a_training_is_not_resumed_once_people_it_has_seen_are_in_val(data, tmp_path, capsys):
    trained(tmp_path, data)
    moved(data, A="val")
    capsys.readouterr()
    assert train.main(command(tmp_path, data, "--resume")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "--resume=" in line and "`val` holds out" in line and line.endswith("give another name=….")


@pytest.mark.parametrize(
    "source",
    [
        Source("Livers (100 patients)", "CC0", LITS.citation),
        Source("Livers (100 patients)", "CC0", LITS.citation.partition(" Antonelli")[0]),
        Source(f"{LITS.name} (9 patients)", "CC0", "Cited in other words."),
        Source("Livers (100 patients)", "CC0", ""),
    ],
    ids=["the same citation", "a part of the citation", "the same name", "no citation"],
)
def test_a_model_of_what_may_be_the_same_data_is_refused_for_a_fold_and_taken_without(
    data, start, tmp_path, capsys, source
):
    folder = model(start, SPLEENS, source)
    line = refused(tmp_path, data, capsys, "fold=1/3", f"init_from={folder}")
    assert f"init_from='{folder}' has learned from {source.name}, and perhaps from people whom fold=1/3 holds" in line
    assert 'give init_from="" or' in line
    inherited_by(settings_of(data, init_from=str(folder)))


def test_a_model_of_other_data_is_taken_for_a_fold_and_so_is_what_started_from_it(data, start, tmp_path):
    folder = model(start, SPLEENS)
    first = checkpoint(tmp_path / "first.ckpt", data, fold="1/3", init_from=str(folder))
    inherited = inherited_by(settings_of(data, fold="1/3", init_from=str(first)))
    assert inherited.unnamed == (SPLEENS,) and len(inherited.people) == 2


def test_a_model_whose_older_card_names_only_one_source_is_refused_for_a_fold(data, start, tmp_path, capsys):
    folder = model(start, SPLEENS, schema=2)
    line = refused(tmp_path, data, capsys, "fold=1/3", f"init_from={folder}")
    assert "from data that its older card does not name, and perhaps from people whom fold=1/3 holds out" in line


def test_an_older_checkpoint_that_does_not_say_whom_it_has_seen_is_judged_by_its_sources(data, start, tmp_path, capsys):
    saved = torch.load(start, weights_only=True)
    del saved["people"], saved["inherited"]["people"], saved["inherited"]["unnamed"]
    torch.save(saved, start)
    line = refused(tmp_path, data, capsys, "fold=1/3", f"init_from={start}")
    assert "has learned from LiTS" in line and "perhaps from people whom fold=1/3 holds out" in line
    inherited_by(settings_of(data, init_from=str(start)))


@pytest.mark.parametrize(("name", "folder"), [("liver", "liver"), ("abdomen", "organs")])
def test_the_start_that_a_config_names_is_refused_for_a_fold(name, folder, shared_data):
    start = str(shared_data("../weights/liver-half-start"))
    given = [f"data={shared_data(folder)}", "also={}", f"init_from={start}"]
    config = ROOT / "training" / "configs" / f"{name}.yaml"
    assert Path(load_settings(config).init_from).name == Path(start).name
    inherited_by(load_settings(config, given))
    with pytest.raises(ValueError, match=r"and perhaps from people whom fold=1/3 holds out.*init_from=\"\""):
        inherited_by(load_settings(config, [*given, "fold=1/3"]))


def test_every_fold_of_the_documentation_starts_from_nothing_or_from_the_same_fold():
    pages = [*ROOT.glob("docs/*.md"), ROOT / "training" / "README.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages).replace("\\\n", " ")
    fold_of = {}
    for line in re.findall(r"^python training/train\.py --config .* fold=.*", text, re.MULTILINE):
        _, _, _, config, *words = shlex.split(line, comments=True)
        given = dict(word.split("=", 1) for word in words)
        default = (ROOT / config).read_text(encoding="utf-8")
        start = given.get("init_from", "of the config" if "init_from:" in default else "")
        assert not start or fold_of[Path(start).parent.name] == given["fold"], line
        fold_of[given.get("name", Path(config).stem)] = given["fold"]
    assert len(fold_of) > 4
