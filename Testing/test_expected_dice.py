"""Volumes rebuilt from dense runs of slices, and the measurements and fits on them."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import evaluate as evaluation
import fit_trust
from data.slices import DataError
from data.targets import load_target
from measure import parts
from measure.dense_runs import degraded, dense_runs
from measure.expected_dice import Judged, agreement, check, fit, judged
from Testing.support.bright import bright_bundle
from UNetPlusPlusSegmentLib.core.trust import LEAST_SLICES
from UNetPlusPlusSegmentLib.engine.trust import expected_dice
from UNetPlusPlusSegmentLib.network.bundle import read_bundle
from UNetPlusPlusSegmentLib.network.card import ExpectedDice

SIZE, PIXEL_MM, SLICE_MM = 48, 1.5, 1.0
COLUMNS = ["file", "volume", "patient", "slice", "split", "source_pixel_mm", "source_slice_mm", "tumour_px"]
LIVER = load_target("liver")


@pytest.fixture
def folder(tmp_path):
    """A slice folder of two people of `train` and one of `val`, with every second slice of 1 mm and fewer beyond the organ; a few columns
    are not found.
    """
    folder = tmp_path / "data"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    with (folder / "slices.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for person, split, missed in (("A", "train", 2), ("B", "train", 4), ("C", "val", 3)):
            for number in [*range(0, 24, 6), *range(24, 64, 2), *range(66, 90, 6)]:
                mask = np.zeros((SIZE, SIZE), bool)
                mask[10:34, 8:32] = 24 <= number < 64
                image = np.where(mask, 200, 60).astype(np.uint8)
                image[10 : 10 + missed, 8:32] = 60
                image[:4] = 0
                name = f"{person}_{number}.png"
                Image.fromarray(image).save(folder / "images" / name)
                Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / name)
                table.writerow({
                    "file": name, "volume": person, "patient": person, "slice": number, "split": split,
                    "source_pixel_mm": PIXEL_MM / 2, "source_slice_mm": SLICE_MM, "tumour_px": "0",
                })  # fmt: skip
    return folder


def test_a_volume_rebuilt_from_a_dense_run_has_even_spacing_and_knows_its_stored_slices(folder):
    scan, _ = dense_runs(folder, LIVER, "train")
    assert scan.volume.spacing_mm == pytest.approx([PIXEL_MM, PIXEL_MM, 2 * SLICE_MM])
    assert len(scan.stored) == 43 and np.count_nonzero(scan.stored) == 4 + 20 + 4
    assert scan.truth[0][scan.stored].sum() == 20 * 24 * 24
    assert scan.volume.ijk_to_ras[2, 2] > 0, "slices run to the head"


def test_unevenly_spaced_slices_are_not_a_dense_run(folder):
    header, *lines = (folder / "slices.csv").read_text().splitlines()
    kept = [line for line in lines if int(line.split(",")[3]) % 7 in (0, 1)]
    (folder / "slices.csv").write_text("\n".join([header, *kept]))
    with pytest.raises(DataError, match="no scan with evenly spaced slices"):
        next(dense_runs(folder, LIVER, "train"))


def test_a_slice_that_was_kept_between_others_for_a_small_outline_changes_no_dense_run(folder):
    before = next(dense_runs(folder, LIVER, "train"))
    table = folder / "slices.csv"
    lines = table.read_text().splitlines()
    (line,) = (each for each in lines if each.startswith("A_30.png"))
    for number in (3, 31):  # the first slice of all, and one between
        for part in ("images", "masks"):
            shutil.copy(folder / part / "A_30.png", folder / part / f"A_{number}.png")
        lines.insert(1, line.replace("A_30.png", f"A_{number}.png").replace(",30,", f",{number},"))
    table.write_text("\n".join(lines) + "\n")
    after = next(dense_runs(folder, LIVER, "train"))
    assert after.person == "A" and np.array_equal(after.stored, before.stored)
    assert np.array_equal(after.volume.array, before.volume.array) and np.array_equal(after.truth, before.truth)


def test_degraded_scans_change_only_measured_voxels_and_keep_the_truth_in_place(folder):
    scan, _ = dense_runs(folder, LIVER, "train")
    first, stop = scan.height
    changed = {each.change: each for each in degraded(scan)}
    assert changed[""] is scan and len(changed) == 10
    thick = changed["10 mm slices"]
    assert thick.volume.spacing_mm[2] == 10 and len(thick.stored) == 43 // 5
    assert thick.volume.ijk_to_ras[2, 3] == pytest.approx(2 * 2 * SLICE_MM), "the middle of five slices"
    dim = changed["organ -100 HU"].volume.array - scan.volume.array
    assert (dim[scan.truth[0]] == -100).all() and not dim[~scan.truth[0]].any()
    lower, upper, height = changed["lower 0.15"], changed["upper 0.15"], round(0.15 * (stop - first))
    assert len(lower.stored) == first + height and len(upper.stored) == height + 43 - stop
    assert upper.volume.ijk_to_ras[2, 3] == pytest.approx((stop - height) * 2 * SLICE_MM)


def test_the_fit_leaves_out_stacks_of_which_the_engine_expects_no_dice(folder, tmp_path):
    lengths = {each.change: len(each.stored) for each in degraded(next(dense_runs(folder, LIVER, "val")))}
    bundle = bright_bundle(tmp_path / "bright-v1.0.0", PIXEL_MM)
    changes = {row.change for row in judged(bundle, folder, LIVER, "val")}
    short = {change for change, slices in lengths.items() if slices < LEAST_SLICES}
    assert short == {"10 mm slices"} and not short & changes
    assert {"", "lower 0.15"} <= changes


def test_the_shares_of_the_post_processing_are_measured_on_scans_cut_short(folder, tmp_path, capsys):
    bundle = bright_bundle(tmp_path / "bright-v1.0.0", PIXEL_MM)
    for number in range(24, 36, 2):  # a false part, 2 % of what is right
        path = folder / "images" / f"A_{number}.png"
        image = np.array(Image.open(path))
        image[20:24, 38:46] = 200
        Image.fromarray(image).save(path)
    arguments = [str(bundle.folder), "--data", str(folder), "--split", "train", "--target", "liver", "--parts"]
    assert evaluation.main([*arguments, "-o", str(tmp_path / "f.json")]) == 0
    assert "least_part  0.3" in capsys.readouterr().out
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["scans"] == 2
    lower, whole = (figures["labels"]["Liver"][kind] for kind in ("lower", "whole"))
    assert len(lower) == len(whole) == len(parts.STEPS)
    assert [row["worse"] for row in whole] == [0] * len(whole)
    by_shares = {(row["least_part"], row["least_part_at_end"]): row for row in lower}
    assert by_shares[1.0, 0.03]["worse"] > 0 == by_shares[1.0, 0.1]["worse"]


def rows(people=12, scans=6, noise=0.1, seed=0) -> list[Judged]:
    """Results whose ln(1 − Dice) is 0.5 + 0.8·unlikely + 0.3·ragged, and noise."""
    draw = np.random.default_rng(seed)
    made = []
    for person in range(people):
        for scan in range(scans):
            signs = {"unlikely": draw.uniform(-4, -1), "ragged": draw.uniform(-4, -2)}
            error = 0.5 + 0.8 * signs["unlikely"] + 0.3 * signs["ragged"] + draw.normal(0, noise)
            made.append(Judged("m", str(scan), str(person), "", "fast", "Liver", 1 - np.exp(error), signs))
    return made


def test_the_fit_finds_what_made_the_dice_and_predicts_people_it_has_not_seen():
    fitted, figures = fit(rows())
    assert fitted.weights["unlikely"] == pytest.approx(0.8, abs=0.05)
    assert fitted.weights["ragged"] == pytest.approx(0.3, abs=0.1)
    assert figures["people"] == 12 and figures["scans"] == 72
    assert figures["mean_error"] < 0.02 and figures["told_apart"] > 0.99 and figures["spearman"] > 0.95
    assert figures["in_range"] == pytest.approx(0.8, abs=0.04)
    assert check(rows(seed=1), fitted)["in_range"] == pytest.approx(0.8, abs=0.12)


def test_each_person_is_predicted_by_a_fit_to_the_others_alone():
    made = [replace(row, dice=row.dice - 0.3 * (row.person == "2")) for row in rows(people=4)]
    of_the_others = {
        person: fit([row for row in made if row.person != person])[0] for person in {row.person for row in made}
    }
    errors = [abs(expected_dice(row.signs, of_the_others[row.person])[0] - row.dice) for row in made]
    _, figures = fit(made)
    assert figures["mean_error"] == pytest.approx(np.mean(errors), abs=2e-4)


def test_a_larger_sign_never_raises_the_expected_dice():
    misleading = [replace(row, signs={**row.signs, "odd": row.dice}) for row in rows()]
    fitted, _ = fit(misleading)
    assert min(fitted.weights.values()) >= 0 and fitted.weights["odd"] < 0.1 < fitted.weights["unlikely"]


def test_a_person_with_many_scans_weighs_no_more_than_one_with_few():
    once = rows(noise=0)
    many = [replace(row, dice=row.dice / 2) for row in once if row.person == "0"]
    few, _ = fit([*once, *many])
    often, _ = fit([*once, *many * 20])
    assert often.intercept == pytest.approx(few.intercept, abs=0.15)


def test_unchanged_scans_weigh_as_much_as_any_number_of_degraded_ones():
    once = rows(noise=0)
    worse = [replace(row, change="noise", dice=row.dice - 0.2) for row in once]
    as_they_are = {n: fit([*once, *worse * n])[1]["mean_error_as_they_are"] for n in (1, 10)}
    assert as_they_are[10] == pytest.approx(as_they_are[1], abs=0.005)


def test_the_agreement_of_made_up_expectations_is_as_computed_by_hand():
    made = [replace(rows()[0], person=str(n), dice=dice) for n, dice in enumerate((0.5, 0.8, 0.94, 0.96))]
    figures = agreement(made, np.array([0.6, 0.95, 0.9, 0.96]), np.full(4, 0.7), np.full(4, 0.95))
    assert figures["told_apart"] == 3 / 4 and figures["in_range"] == 2 / 4
    assert figures["mean_error"] == pytest.approx((0.1 + 0.15 + 0.04 + 0) / 4)
    assert (figures["bad"], figures["good"]) == (2, 2)


def test_coefficients_are_fitted_on_people_left_out_and_go_into_the_bundle_with_their_figures(
    folder, tmp_path, monkeypatch, capsys
):
    network = bright_bundle(tmp_path / "fold-v0.0.1", PIXEL_MM)  # in place of a checkpoint, which says what it left out
    monkeypatch.setattr(
        fit_trust,
        "bundle_from_checkpoint",
        lambda checkpoint, folder, figures, target: read_bundle(shutil.copytree(network.folder, folder)),
    )
    people = {"seen": ("A", "B")}  # before others were added, and folds dealt anew
    monkeypatch.setattr(
        fit_trust,
        "read_checkpoint",
        lambda path: SimpleNamespace(
            settings=SimpleNamespace(
                name=path.stem, fold={"one": "1/2", "two": "2/2", "seen": "2/2"}.get(path.stem, "")
            ),
            provenance=SimpleNamespace(people=people.get(path.stem, ())),
            target=LIVER,
        ),
    )
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "all", "seen"):
        (tmp_path / f"{name}.ckpt").write_text(name)
    bundle = bright_bundle(tmp_path / "liver-ct-v9.0.0", PIXEL_MM)
    given = [str(bundle.folder), "--data", str(folder), "--rows", str(tmp_path / "rows.csv"), "--folds"]
    assert fit_trust.main([*given, "one.ckpt", "two.ckpt"]) == 0
    printed = json.loads(capsys.readouterr().out)
    again = read_bundle(bundle.folder)
    assert set(again.labels[0].expected_dice) == {"accurate", "balanced", "fast"}
    assert all(isinstance(each, ExpectedDice) for each in again.labels[0].expected_dice.values())
    assert again.sha256 == bundle.sha256
    written = json.loads((bundle.folder / "evaluation.json").read_text())["expected_dice"]
    assert written == printed
    assert {speed: each["people"] for speed, each in written["left_out_people"]["Liver"].items()} == {
        "accurate": 2, "balanced": 2, "fast": 2,
    }  # fmt: skip
    known = (tmp_path / "rows.csv").read_text()
    assert fit_trust.main([*given, "one.ckpt", "two.ckpt"]) == 0
    assert (tmp_path / "rows.csv").read_text() == known, "it goes on after what is there"
    assert fit_trust.main([*given, "one.ckpt", "two.ckpt", "seen.ckpt"]) == 1, "what is on record is checked too"
    (tmp_path / "two.ckpt").write_text("trained again")
    assert fit_trust.main([*given, "one.ckpt", "two.ckpt"]) == 0
    again = (tmp_path / "rows.csv").read_text()
    assert again.startswith(known) and len(again.splitlines()) == 1 + 1.5 * (len(known.splitlines()) - 1)
    Image.fromarray(np.zeros((SIZE, SIZE), np.uint8)).save(folder / "masks" / "A_62.png")
    capsys.readouterr()
    assert fit_trust.main([*given, "one.ckpt", "two.ckpt"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out_people"] != printed["left_out_people"]
    (tmp_path / "rows.csv").unlink()
    assert fit_trust.main([*given, "one.ckpt", "all.ckpt"]) == 1
    assert "all.ckpt was trained on all people" in capsys.readouterr().err
    assert fit_trust.main([*given, "one.ckpt", "seen.ckpt"]) == 1
    assert "The training seen has learned from 1 of the people in train:2/2" in capsys.readouterr().err
    assert not (tmp_path / "rows.csv").exists(), "it is refused before a network has run"
    assert fit_trust.main([*given[:4], str(tmp_path), "--folds", "one.ckpt"]) == 1
    assert f"{tmp_path} cannot be written" in capsys.readouterr().err
