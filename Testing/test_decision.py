"""The decision between nodules and other findings: its features on made-up tubes and balls, its fit, and its place in the card."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from card.amend import amend_bundle
from measure.chests import Finding, findings, froc, nodules_of
from measure.decision import SHOWN, Example, fit
from Testing.support.bright import bright_nodule_bundle
from UNetPlusPlusSegmentLib.api import load_engine
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.core.volume import Volume, bounding_box
from UNetPlusPlusSegmentLib.files import FileError
from UNetPlusPlusSegmentLib.network.bundle import BundleError, read_bundle
from UNetPlusPlusSegmentLib.network.card import Decision
from UNetPlusPlusSegmentLib.nodule.candidates import Nodule
from UNetPlusPlusSegmentLib.nodule.decision import FEATURES, features
from UNetPlusPlusSegmentLib.nodule.windows import Window, Windows

LUNG, TISSUE, CONTRAST = -850, 30, 300
KK, JJ, II = np.indices((30, 60, 60))
BALL = (KK - 15) ** 2 + (JJ - 30) ** 2 + (II - 30) ** 2 <= 5**2
TUBE = (JJ - 30) ** 2 + (II - 30) ** 2 <= 3**2  # through all slices
PIECE = TUBE & (abs(KK - 15) < 4)


def of(mask: np.ndarray, hu: np.ndarray, spacing_mm=(1.0, 1.0, 1.0), chance: np.ndarray | None = None) -> dict:
    """The features of a mask in a volume whose map says 0.9 in it, or something else."""
    chance = np.where(mask, 0.9, 0.0) if chance is None else chance
    window = Window(slice(0, 60), slice(0, 60), (60, 60), dict(enumerate(chance)), dict(enumerate(0 * chance)))
    slice_mm, row_mm, column_mm = spacing_mm
    volume = Volume(hu.astype(np.float32), np.diag([-column_mm, -row_mm, slice_mm, 1]))
    box = bounding_box(mask)
    return features(Nodule(box, mask[box], window), Windows(None, volume, 4))


def lung(**hu: np.ndarray) -> np.ndarray:
    """Lung, with masks by what fills them."""
    volume = np.full(KK.shape, LUNG, np.int16)
    for what, mask in hu.items():
        volume[mask] = {"tissue": TISSUE, "contrast": CONTRAST}[what]
    return volume


@pytest.mark.parametrize("filled", ["tissue", "contrast"])
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_piece_of_a_vessel_continues_whichever_way_it_runs(filled, axes):
    size = (30, 30, 30)
    tube, piece = (mask[:, 15:45, 15:45].transpose(axes) for mask in (TUBE, PIECE))
    box = tuple(slice(15, 45) if n == 30 else slice(None) for n in size)[1:]
    hu, mask = np.full(KK.shape, LUNG), np.zeros(KK.shape, bool)
    hu[(slice(None), *box)][tube], mask[(slice(None), *box)] = {"tissue": TISSUE, "contrast": CONTRAST}[filled], piece
    alone = np.where(mask, hu, LUNG)
    assert of(mask, hu)["continued"] > of(mask, alone)["continued"] + 0.2
    assert of(mask, alone)["continued"] == 0


@pytest.mark.parametrize("slice_mm", [0.6, 2.5, 6.0])
def test_it_continues_through_thin_and_thick_slices(slice_mm):
    spacing_mm = (slice_mm, 0.7, 0.7)
    piece = TUBE & (abs(KK - 15) * slice_mm < 4)
    assert of(piece, lung(tissue=TUBE), spacing_mm)["continued"] > 0.3
    assert of(piece, lung(tissue=piece), spacing_mm)["continued"] == 0


def test_a_nodule_at_the_wall_does_not_continue_into_it():
    wall = JJ > 32
    there = of(BALL & ~wall, lung(tissue=BALL | wall))
    assert there["continued"] == 0
    assert of(BALL, lung(tissue=BALL | TUBE))["continued"] > 0


def test_ground_glass_is_faint_and_a_ball_fills_its_ellipsoid():
    glass, ball = of(BALL, np.where(BALL, -600, LUNG)), of(BALL, lung(tissue=BALL))
    assert glass["density"] == pytest.approx(-6) and ball["density"] == pytest.approx(0.3)
    assert ball["fill"] == pytest.approx(1, abs=0.05)
    assert ball["size"] == pytest.approx(np.log(10), abs=0.03)


def test_the_distance_of_the_slices_changes_no_shape():
    hu = lung(tissue=BALL)
    near, far = (of(BALL, hu, (mm, 1.0, 1.0)) for mm in (1.0, 2.0))
    for name in ("size", "fill"):
        assert near[name] == pytest.approx(far[name])


def test_what_the_network_says_on_the_better_slice_beside_the_largest_section_counts():
    chance = np.where(BALL, 0.9, 0.0)
    chance[14], chance[16] = np.where(BALL[14], 0.4, 0.0), np.where(BALL[15], 0.7, 0.0)
    assert of(BALL, lung(tissue=BALL), chance=chance)["next"] == pytest.approx(0.7)
    alone = BALL & (KK == 15)
    window = {15: np.where(alone[15], 0.9, 0.0)}
    box = bounding_box(alone)
    nodule = Nodule(box, alone[box], Window(slice(0, 60), slice(0, 60), (60, 60), window, window))
    volume = Volume(lung(tissue=alone), np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert features(nodule, Windows(None, volume, 4))["next"] == pytest.approx(0.9)


def test_at_a_corner_of_the_volume_a_finding_has_features_as_far_as_it_is_there():
    for corner in ((KK < 4) & (JJ < 4) & (II < 4), (KK > 25) & (JJ > 55) & (II > 55), np.ones(KK.shape, bool)):
        assert all(np.isfinite(value) for value in of(corner, lung(tissue=corner)).values())


def examples(patients: int = 20) -> list[Example]:
    """Findings of which the first feature tells nodules from the rest, more or less, and the second does not."""
    draw = np.random.default_rng(0)
    found = []
    for patient in range(patients):
        for is_nodule in (True, False, False):
            told, other = draw.normal(2.0 * is_nodule), draw.normal()
            found.append(Example(f"p{patient}", {"told": told, "other": other}, is_nodule))
    return found


def test_the_fit_gives_weight_only_to_features_that_distinguish_nodules():
    decision, figures = fit(examples())
    assert decision.weights["told"] > 5 * abs(decision.weights["other"])
    assert 0.85 < figures["area under the curve"] < 1
    assert figures["nodules"] == 20 and figures["others"] == 40 and figures["patients"] == 20
    shares = [(point["nodules"], point["others"]) for point in figures["roc"]]
    assert shares == sorted(shares, reverse=True)


def test_most_nodules_of_people_left_out_of_the_fit_are_shown():
    found = examples(600)
    decision, _ = fit(found[:900])
    told = np.array([each.features["told"] for each in found[900:] if each.is_nodule])
    chances = 1 / (1 + np.exp(-decision.intercept - decision.weights["told"] * told))
    assert (chances >= decision.least).mean() == pytest.approx(SHOWN, abs=0.07)


def test_a_decision_is_kept_in_the_card_and_its_figures_beside_it(tmp_path):
    bundle = bright_nodule_bundle(tmp_path / "nodule-v1.0.0")
    decision = Decision(-1.5, {"size": 0.25}, 0.4)
    amend_bundle(replace(bundle, decision=decision), {"decision": {"nodules": 7}})
    changed = read_bundle(bundle.folder)
    assert changed.decision == decision
    assert json.loads((bundle.folder / "evaluation.json").read_text())["decision"] == {"nodules": 7}
    changed.load_network()


def test_a_card_that_cannot_be_written_leaves_the_evaluation_as_it_was(tmp_path, monkeypatch):
    bundle = bright_nodule_bundle(tmp_path / "nodule-v1.0.0")
    amend_bundle(bundle, {"decision": {"nodules": 7}})
    before = {path.name: path.read_bytes() for path in bundle.folder.iterdir()}

    def full(path, text, encoding):
        path.write_bytes(text[: len(text) // 2].encode())
        if Path(path).read_bytes().startswith(b'{\n  "schema'):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FileError, match=r"model\.json could not be written: No space left on device"):
        amend_bundle(replace(bundle, decision=Decision(-1.5, {"size": 0.25}, 0.4)), {"decision": {"nodules": 8}})
    assert {path.name: path.read_bytes() for path in bundle.folder.iterdir()} == before


def test_a_model_that_decides_by_what_is_not_known_here_is_refused(tmp_path):
    decision = {"intercept": 0.0, "weights": {"smell": 1.0}, "least": 0.5}
    with pytest.raises(BundleError, match="'smell'"):
        load_engine(bright_nodule_bundle(tmp_path / "nodule-v1.0.0", decision=decision), "cpu")
    assert set(of(BALL, lung(tissue=BALL))) == set(FEATURES)


def scan(*marks: tuple[slice, int]) -> np.ndarray:
    readers = np.zeros((1, 1, 40), np.int8)
    for where, count in marks:
        readers[0, 0, where] = count
    return readers


def finding(probability: float, nodule: int | None, mm: float = 6.0) -> Finding:
    return Finding("", probability, mm, (0, 0, 0), nodule)


def test_a_nodule_needs_three_readers_and_includes_all_marks_connected_to_it():
    readers = scan((slice(2, 8), 1), (slice(4, 6), 3), (slice(12, 15), 2), (slice(20, 22), 4))
    assert nodules_of(readers)[0, 0].tolist() == [0] * 2 + [1] * 6 + [0] * 12 + [2] * 2 + [0] * 18


def test_a_finding_is_right_or_wrong_or_counts_neither_way():
    readers = scan((slice(2, 8), 3), (slice(12, 15), 2), (slice(20, 22), -1))
    labels = np.zeros(readers.shape, np.uint8)
    for value, at in enumerate((5, 13, 20, 30), start=1):
        labels[0, 0, at] = value
    measured = {"probability": 0.5, "mean_diameter_mm": 5.0, "centroid_ras": (0, 0, 0)}
    segments = tuple(Segment(value, "", "", (0, 0, 0), measured) for value in range(1, 5))
    result = Result(labels, segments, (), 0.5, "", "", 1, 1, 0.0)
    assert [each.nodule for each in findings(result, readers)] == [1, None, None, 0]


def test_sensitivity_grows_with_the_false_findings_allowed():
    scans = [
        [finding(0.9, 1), finding(0.8, 0), finding(0.7, 2), finding(0.6, None), finding(0.5, 0), finding(0.4, 3)],
        [finding(0.95, 0, mm=3.0), finding(0.75, 1), finding(0.3, 0), finding(0.2, 2)],
    ]
    assert froc(scans, 5) == {"0.25": 0.2, "0.5": 0.6, "1": 0.8, "2": 1.0, "4": 1.0, "8": 1.0}
