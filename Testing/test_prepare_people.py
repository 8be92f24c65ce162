"""pairs.py prepares again: people keep their split, so that weights of before have seen nobody in `val`, and target.yaml its edits."""

from __future__ import annotations

import csv
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pairs
from data.slices import read_slices
from data.targets import load_target
from pairs_people import share_out
from slicefolder import PrepareError, SliceFolder
from Testing.support.pairs import SAID, prepared, slicer_case
from Testing.support.prepare_scripts import rows_of


def shared_out(path: Path, person_of: dict[str, str], folds: int | None = None, seed: int = 0) -> dict[str, str]:
    """The split of each person after a slice folder of these cases was made, or made again."""
    folder = SliceFolder(path, pairs.COLUMNS, replace=True)
    folder.rows += [{"volume": case, "patient": person} for case, person in person_of.items()]
    share_out(folder, Namespace(source="cases", split=None, folds=folds, seed=seed))
    path.mkdir(exist_ok=True)
    with (path / "slices.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, pairs.COLUMNS)
        table.writeheader()
        table.writerows(folder.rows)
    return {str(row["patient"]): str(row["split"]) for row in folder.rows}


def alone(people) -> dict[str, str]:
    """People with one case each, of the same name."""
    return {f"P{number}": f"P{number}" for number in people}


@given(
    additions=st.lists(st.sets(st.integers(0, 60), min_size=1, max_size=12), min_size=2, max_size=5), seed=st.integers()
)
def test_nobody_changes_split_when_people_are_added_and_nobody_is_missing_for_either(tmp_path_factory, additions, seed):
    path, people, before = tmp_path_factory.mktemp("people") / "out", set(), {}
    for added in additions:
        people |= added
        now = shared_out(path, alone(people), seed=seed)
        assert {person: now[person] for person in before} == before
        if len(people) > 1:
            in_val = [*now.values()].count("val")
            assert 1 <= in_val <= -(-len(people) // min(5, len(people))) < len(people)
        before = now


@given(
    people=st.sets(st.integers(0, 60), min_size=2, max_size=20), left=st.sets(st.integers(0, 60)), seed=st.integers()
)
def test_nobody_changes_split_when_people_leave(tmp_path_factory, people, left, seed):
    path = tmp_path_factory.mktemp("people") / "out"
    before = shared_out(path, alone(people), seed=seed)
    stay = people - left
    if len(stay) > 1:
        assert shared_out(path, alone(stay), seed=seed).items() <= before.items()


def test_a_person_who_gets_a_name_from_an_added_case_keeps_the_split(tmp_path):
    before = shared_out(tmp_path / "out", alone(range(2, 12)))
    for number in range(2, 12):
        named_anew = alone(range(2, 12)) | {
            f"P{number}": "A0",
            "A0": "A0",
        }  # the first of a person's cases gives the name
        path = tmp_path / f"out{number}"
        assert shared_out(path, alone(range(2, 12))) == before
        assert shared_out(path, named_anew)["A0"] == before[f"P{number}"]


def test_two_people_who_turn_out_to_be_one_are_for_training_if_one_of_them_was(tmp_path):
    before = shared_out(tmp_path / "out", {"1a": "1a", "1b": "1b", "2": "2"}, folds=3)
    assert sorted(before.values()) == ["train", "train", "val"]
    (in_val,) = (person for person, split in before.items() if split == "val")
    cases = dict.fromkeys([in_val, next(person for person in before if person != in_val)], "one")
    rest = {person: person for person in before if person not in cases}
    assert shared_out(tmp_path / "out", cases | rest | {"4": "4"})["one"] == "train"


def test_all_are_for_training_with_one_fold_whatever_they_were(tmp_path):
    assert "val" in shared_out(tmp_path / "out", alone(range(5))).values()
    assert {*shared_out(tmp_path / "out", alone(range(5)), folds=1).values()} == {"train"}


def test_where_everybody_was_for_training_a_note_says_how_to_validate(tmp_path, capsys):
    shared_out(tmp_path / "out", alone(range(5)), folds=1)
    shared_out(tmp_path / "out", alone(range(5)))
    assert (
        "nobody is left for validation: hold out a fold when you train (fold=1/3), or choose another -o"
        in capsys.readouterr().err
    )


def test_a_folder_whose_table_cannot_be_read_is_not_replaced(tmp_path):
    (tmp_path / "slices.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PrepareError, match=r"slices\.csv cannot be read.*choose another -o FOLDER"):
        shared_out(tmp_path, alone(range(3)))


def test_cases_that_are_added_leave_the_splits_of_the_others_as_they_were(tmp_path, capsys):
    names = ["Ann", "Ben", "Cid", "Dan", "Eve", "Fay", "Gil"]
    for name in names[:3]:
        slicer_case(tmp_path / "in", name)
    rows = rows_of(prepared(tmp_path / "in", tmp_path / "out", "--segment", "Spleen"))
    before = {row["patient"]: row["split"] for row in rows}
    for name in names[3:]:
        slicer_case(tmp_path / "in", name)
    rows = rows_of(prepared(tmp_path / "in", tmp_path / "out", "--segment", "Spleen", "--force", "--seed", "5"))
    now = {row["patient"]: row["split"] for row in rows}
    assert [*now] == names and before.items() <= now.items() and [*now.values()].count("val") == 1
    note = "3 of 7 people keep the split that they had. New in `train`: Dan, Eve, Fay, Gil."
    assert note in capsys.readouterr().err


@pytest.mark.parametrize("first", [5, 7, 10])
def test_one_who_is_added_is_learned_from_and_only_a_whole_fold_of_new_people_adds_one_to_the_validation(
    tmp_path, capsys, first
):
    in_val = [*shared_out(tmp_path / "out", alone(range(first))).values()].count("val")
    assert in_val == -(-first // 5)
    for people in range(first + 1, 16):
        now = shared_out(tmp_path / "out", alone(range(people)))
        grown = [*now.values()].count("val")
        assert grown == max(in_val, people // 5)
        where = "val" if grown > in_val else "train"
        assert f"New in `{where}`: P{people - 1}." in capsys.readouterr().err
        in_val = grown


def edited(folder: Path, *changes: tuple[str, str]) -> str:
    """Change target.yaml as a user would, by hand; returns the whole text."""
    text = (folder / "target.yaml").read_text()
    for old, new in (
        ("# postprocessing", "postprocessing"),
        ("window_hu: [-160.0, 240.0]", "window_hu: [-20, 80]"),
        *changes,
    ):
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "target.yaml").write_text(text)
    return text


def test_what_was_edited_in_the_target_stays_when_cases_are_added(tmp_path):
    again = [tmp_path / "in", tmp_path / "out", "--segment", "Spleen", *SAID, "--force"]
    slicer_case(tmp_path / "in", "Ann")
    prepared(*again)
    assert not (tmp_path / "out" / "target.yaml.before").exists()
    slicer_case(tmp_path / "in", "Ben")
    assert "target.yaml" not in (prepared(*again) / "notes.txt").read_text()
    text = edited(tmp_path / "out", ("pixel_mm: 1.5", "pixel_mm: 2  # coarse"))
    slicer_case(tmp_path / "in", "Cid")
    out = prepared(*again)
    assert (out / "target.yaml").read_text() == text and not (out / "target.yaml.before").exists()
    assert (
        "target.yaml keeps postprocessing, pixel_mm, window_hu from before: to have it made anew"
        in (out / "notes.txt").read_text()
    )
    assert load_target(str(out / "target.yaml")).postprocessing.fill_holes


def test_what_the_command_line_says_goes_before_what_was_edited_and_the_rest_stays(tmp_path):
    slicer_case(tmp_path / "in", "Ann")
    again = [tmp_path / "in", tmp_path / "out", "--segment", "Spleen", "--folds", "1", "--force"]
    text = edited(prepared(*again, *SAID), ("We, 2025.", "We, 2026."))
    out = prepared(*again, "--window", -100, 300, "--pixel", 2, "--name", "milt", "--source", "Ours and theirs")
    target = load_target(str(out / "target.yaml"))
    (source,) = target.slices.sources
    assert target.window_hu == target.slices.window_hu == (-100, 300)
    assert (target.name, target.pixel_mm, source.name, source.citation) == ("milt", 2, "Ours and theirs", "We, 2026.")
    assert target.postprocessing.fill_holes and (out / "target.yaml.before").read_text() == text
    note = "target.yaml follows the command line in name, pixel_mm, window_hu, slices: the earlier file is kept as"
    assert note in (out / "notes.txt").read_text()
    target = load_target(str(prepared(*again) / "target.yaml"))
    assert target.window_hu == (-100, 300) and target.slices.window_hu == (-1024, 64511)
    assert read_slices(out, target, "train")[0].image.dtype == np.uint8


@pytest.mark.parametrize(
    "change", [("name: Spleen", "name: Milt"), ("sources:", "sources: none #"), ("labels:", "labels: [")]
)
def test_a_target_that_does_not_describe_the_labels_is_made_anew_and_the_earlier_one_kept_beside(tmp_path, change):
    slicer_case(tmp_path / "in", "Ann")
    again = [tmp_path / "in", tmp_path / "out", "--segment", "Spleen", "--folds", "1", *SAID, "--force"]
    made = (prepared(*again) / "target.yaml").read_text()
    text = edited(tmp_path / "out", change)
    out = prepared(*again)
    assert (out / "target.yaml").read_text() == made and (out / "target.yaml.before").read_text() == text
    assert "the earlier file is kept as target.yaml.before" in (out / "notes.txt").read_text()
