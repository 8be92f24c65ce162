"""The records of the paper's table: pixel counts, the IoUs of the authors' code, and reading back what was written."""

from dataclasses import replace

import numpy as np
import pytest

from paper import origin
from paper.cells import Cell
from paper.counts import THRESHOLDS, Counts
from paper.records import Measured, Results, ResultsError
from Testing.support.paper_records import counted, record, settings_of


def counts_of(probabilities: list[np.ndarray], truths: list[np.ndarray]) -> Counts:
    counts = Counts([str(n) for n in range(len(truths))], labels=1)
    for number, (probability, truth) in enumerate(zip(probabilities, truths, strict=True)):
        found = {answer: probability[None] >= threshold for answer, threshold in THRESHOLDS.items()}
        counts.add(str(number), truth[None], [True], found)
    return counts


def test_the_thresholds_are_those_of_the_authors():
    assert list(THRESHOLDS.values()) == pytest.approx(np.arange(0.5, 1.0, 0.05).tolist())


def test_mean_iou_is_that_of_the_authors_code_written_out():
    rng = np.random.default_rng(0)
    truths = [rng.random((6, 9)) > 0.7 for _ in range(3)]
    probabilities = [(0.6 * truth + 0.4 * rng.random(truth.shape)) for truth in truths]
    both = []
    y, p = np.array(truths).ravel(), np.array(probabilities).ravel()  # one confusion matrix of all images' pixels
    for t in np.arange(0.5, 1.0, 0.05):
        matrix = np.zeros((2, 2))
        np.add.at(matrix, (y.astype(int), (p > t).astype(int)), 1)
        right = np.diag(matrix)
        both.append((right / (matrix.sum(0) + matrix.sum(1) - right)).mean())
    counts = counts_of(probabilities, truths)
    assert counts.mean_iou() == pytest.approx(np.mean(both))
    assert counts.compute_iou() == pytest.approx((y & (p > 0.5)).sum() / (y | (p > 0.5)).sum())


def test_the_authors_mean_iou_grows_with_the_share_of_background():
    truth, found = np.zeros((100, 100), bool), np.zeros((100, 100))
    truth[:10, :10], found[:10, :8] = True, 1
    counts = counts_of([found], [truth])
    assert counts.ious() == {"0": pytest.approx(0.8)}
    assert counts.mean_iou() == pytest.approx((0.8 + 9900 / 9920) / 2)


def test_the_iou_of_batches_pools_the_pixels_of_each_and_weighs_it_by_its_cases():
    counts = Counts(["a", "b", "c"], 1)
    for case, both, only_found in ("a", 30, 10), ("b", 0, 20), ("c", 10, 0):
        truth, found = np.zeros((1, 1, 60), bool), np.zeros((1, 1, 60), bool)
        truth[..., :both], found[..., : both + only_found] = True, True
        counts.add(case, truth, [True], {"all": found})
    assert counts.batch_iou(2) == pytest.approx((2 * 30 / 60 + 10 / 10) / 3)
    assert counts.batch_iou(1) == pytest.approx((30 / 40 + 0 + 1) / 3)
    assert counts.batch_iou(16) == pytest.approx(counts.compute_iou()) == pytest.approx(40 / 70)


def test_a_case_pools_its_images_and_skips_labels_that_are_absent_or_unknown():
    counts = Counts(["A", "B"], labels=2)
    ones, none = np.ones((2, 4), bool), np.zeros((2, 4), bool)
    half = np.array([[True] * 4, [False] * 4])
    counts.add("A", np.stack([ones, none]), [True, True], {"all": np.stack([half, half])})
    counts.add("A", np.stack([none, ones]), [True, False], {"all": np.stack([half, half])})
    counts.add("B", np.stack([none, none]), [True, True], {"all": np.stack([half, half])})
    assert counts.ious() == {"A": pytest.approx(4 / 12)}
    assert counts.of["pixels"].tolist() == [[16, 8], [8, 8]]


def test_precision_recall_and_pixels_found_reveal_a_network_that_finds_too_much():
    truth, found = np.zeros((10, 10), bool), np.zeros((10, 10))
    truth[:5], found[:8] = True, 1
    together = counts_of([found], [truth]).pooled()
    assert together == pytest.approx((50 / 80, 50 / 80, 1.0, 80 / 50))


def test_what_was_recorded_reads_back(tmp_path):
    results, cell = Results(tmp_path), Cell("polyp", "unet", 1)
    example, log = np.eye(8, dtype=bool), [(12, 1.5, "val_iou", 0.25)]
    counts = counted({"x.jpg": 0.5, "y.jpg": 0.25})
    settings = settings_of(cell, steps=24, steps_per_epoch=12)
    results.record(cell, Measured(settings, 3.25, counts, log, {"x.jpg": example}, "abc", "A processor, quick"))
    row = results.done()[cell]
    assert (row["minutes"], row["cases"], row["iou"]) == ("3.2", "2", "0.3750")
    assert (row["commit"], row["processor"]) == ("abc", "A processor, quick")
    assert float(row["mean_iou"]) == pytest.approx(counts.mean_iou(), abs=1e-4)
    assert results.counts(cell).ious() == {"x.jpg": 0.5, "y.jpg": 0.25}
    assert results.counts(cell).mean_iou() == counts.mean_iou()
    assert results.log(cell) == log
    np.testing.assert_array_equal(results.example(cell, "x.jpg"), example)


def test_a_cell_recorded_again_takes_the_place_of_the_first(tmp_path):
    results, one, other = Results(tmp_path), Cell("polyp", "unet", 1), Cell("polyp", "unet", 2)
    for iou in (0.25, 0.5):
        record(results, one, a=iou)
        record(results, other, a=0.75)
    assert [row["iou"] for row in results.done().values()] == ["0.5000", "0.7500"]


def test_half_and_full_trainings_are_recorded_separately(tmp_path):
    results, cell = Results(tmp_path), Cell("polyp", "unet", 1)
    record(results.half, cell, steps=5, a=0.25)
    record(results, cell, steps=10, a=0.5)
    of_half, of_whole = (settings_of(cell, steps=steps, steps_per_epoch=steps) for steps in (5, 10))
    results.check_settings(cell, of_whole), results.half.check_settings(cell, of_half)
    with pytest.raises(ResultsError, match="another steps, steps_per_epoch: "):
        results.half.check_settings(cell, of_whole)


def test_a_cell_that_was_trained_with_another_setting_is_refused_by_that_name(tmp_path):
    results, cell = Results(tmp_path), Cell("nodule", "unet", 1)
    record(results, cell, a=0.5)
    trained = settings_of(cell, steps=10, steps_per_epoch=10)
    results.check_settings(cell, replace(trained, data="moved", runs="elsewhere", threads=3, name="renamed"))
    with pytest.raises(ResultsError, match="nodule-unet-bce_dice-1, trained with another patch:"):
        results.check_settings(cell, replace(trained, patch=(64, 64)))


def test_a_cell_without_a_record_of_its_settings_is_refused(tmp_path):
    results, cell = Results(tmp_path), Cell("nodule", "unet", 1)
    record(results, cell, a=0.5)
    (tmp_path / "cells" / cell.name / "settings.yaml").unlink()
    with pytest.raises(ResultsError, match=r"settings\.yaml is missing: restore it from git"):
        results.check_settings(cell, settings_of(cell, steps=10, steps_per_epoch=10))


def test_a_training_keeps_the_commit_and_the_processor_that_it_began_with(tmp_path, monkeypatch):
    assert origin.origin(tmp_path) == ("", "")
    monkeypatch.setattr(origin, "commit", lambda: "first")
    origin.note_origin(tmp_path / "run")
    monkeypatch.setattr(origin, "commit", lambda: "second")
    origin.note_origin(tmp_path / "run")
    assert origin.origin(tmp_path / "run") == ("first", origin.processor()) and origin.processor()


def test_no_origin_is_invented_for_an_older_training(tmp_path):
    (tmp_path / "last.ckpt").touch()
    origin.note_origin(tmp_path)
    assert origin.origin(tmp_path) == ("", "")
