"""The table of a session of the app: what was measured, and what it says after somebody has corrected a segmentation."""

from __future__ import annotations

import asyncio
import csv
import json

import numpy as np
import pytest

from Testing.support.bright import bright_bundle
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.jobs.manifest import MANIFEST, TABLE

pytest.importorskip(
    "trame_slicer.core", exc_type=ImportError, reason="trame-slicer is not installed: pip install '.[app]'"
)

from Testing.support.app_sessions import MATRIX, paint
from UNetPlusPlusSegmentLib.app.runs import POLL_S
from UNetPlusPlusSegmentLib.nodule.segments import TERMINOLOGY
from UNetPlusPlusSegmentLib.scene import mrml


def test_the_table_follows_a_correction(two_livers, open_session):
    session, do = open_session(*two_livers)
    assert session.state.rows == [["Liver", "4.8", "60"]]
    paint(session, do)
    assert session.state.rows == [["Liver", "7.2", "7"]]


def test_a_case_tells_what_the_cohort_said_of_it_until_it_is_corrected(two_livers, open_session):
    results, scans = two_livers
    about = {"case": "a", "input": str(scans / "a.nrrd"), "status": "done", "notes": ["The liver reaches the end."]}
    found = {"volume_ml": 4.8, "mean_hu": 60.0, "expected_dice": 0.914, "doubtful_share": 0.2}
    lost = {"case": "b", "input": str(scans / "b.nrrd"), "status": "failed", "reason": "Memory ran out."}
    (results / MANIFEST).write_text(f"{json.dumps({**about, 'measurements': {'Liver': found}})}\n{json.dumps(lost)}\n")
    session, do = open_session(*two_livers)
    assert session.state.header == ["Segment", "ml", "HU", "Expected Dice"]
    assert session.state.rows == [["Liver", "4.8", "60", "0.91"]]
    assert session.state.message == "The liver reaches the end."
    paint(session, do)
    assert session.state.rows == [["Liver", "7.2", "7"]]
    do(session.open("b"))
    assert session.state.message == "Memory ran out."


def test_a_small_nodule_has_more_than_0_ml_in_the_table(tmp_path, two_livers, open_session):
    labels = np.zeros((10, 30, 40), np.uint8)
    labels[4, 6:8, 6:8] = 1
    segments = [Segment(1, "Nodule 1", TERMINOLOGY, (255, 0, 0), {})]
    files.write_segmentation(tmp_path / "a.corrected.seg.nrrd", labels, MATRIX, segments)
    session, _ = open_session(two_livers[1] / "a.nrrd", output=tmp_path)
    assert session.state.rows[0][:2] == ["Nodule 1", "0.048"]


def test_what_a_run_measured_stays_until_it_is_corrected(two_livers, open_session, monkeypatch, tmp_path):
    bundle = bright_bundle(tmp_path / "models" / "bright-v1.0.0")
    card = json.loads((bundle.folder / "model.json").read_text())
    expected = {"intercept": -3.0, "weights": {"doubtful": 0.2}, "low": -0.5, "high": 0.6}
    card["labels"][0]["expected_dice"] = {"balanced": expected}
    (bundle.folder / "model.json").write_text(json.dumps(card))
    monkeypatch.setenv("UNETPP_MODELS", str(tmp_path / "models"))
    session, do = open_session(two_livers[1] / "a.nrrd")
    session.apply()

    async def result():
        while not session.state.rows:
            await asyncio.sleep(0)
        assert session.state.took and session.state.running, "the mask is there before its map"
        for threshold in (0.45, 0.3, 0.4):  # as a slider sends them
            session.state.threshold = threshold
            session.runs.set_threshold(threshold)
            for _ in range(3):
                await asyncio.sleep(POLL_S / 3)
                assert session.state.threshold == threshold, "the slider does not jump back"
        await session.runs.following
        await session._autosave.finish()

    do(result())
    assert session.state.threshold == 0.4
    assert session.state.header[-1] == "Expected Dice"
    paint(session, do)
    assert session.state.header == ["Segment", "ml", "HU"]


def test_the_table_follows_where_nothing_is_saved(two_livers, open_session):
    _, scans = two_livers
    session, do = open_session(scans / "a.nrrd")
    session.segmentation.GetSegmentation().AddEmptySegment("", "Mine")
    paint(session, do)
    assert session.state.rows == [["Mine", "2.4", "-100"]]


def test_a_click_on_a_title_sorts_the_table_and_a_row_stays_that_of_its_segment(two_livers, open_session):
    _, scans = two_livers
    session, do = open_session(scans / "a.nrrd")
    segmentation = session.segmentation.GetSegmentation()
    first, second = (segmentation.AddEmptySegment("", name) for name in ("Small", "None"))
    paint(session, do)
    for title, order in (("ml", [first, second]), ("Segment", [first, second]), ("Segment", [second, first])):
        session.sort_by(title)
        names = [segmentation.GetSegment(each).GetName() for each in order]
        assert ([row[0] for row in session.state.rows], session._rows) == (names, order)
    looked_at = []
    session.views.centre = looked_at.append
    session.look_at(1)
    np.testing.assert_allclose(looked_at, [mrml.centre_of(session.segmentation, first)])


def test_a_nodule_that_is_corrected_keeps_its_diameter_in_the_table(tmp_path, two_livers, open_session):
    labels = np.zeros((10, 30, 40), np.uint8)
    labels[2:6, 5:15, 5:15] = 1
    files.write_segmentation(
        tmp_path / "a.corrected.seg.nrrd", labels, MATRIX, [Segment(1, "Nodule 1", TERMINOLOGY, (255, 0, 0), {})]
    )
    session, do = open_session(two_livers[1] / "a.nrrd", output=tmp_path)
    ((name, ml, _hu, before_mm, kind),) = session.state.rows
    assert (name, ml, kind) == ("Nodule 1", "4.8", "solid")
    paint(session, do)
    assert float(session.state.rows[0][3]) > float(before_mm)


def test_a_nodule_drawn_by_hand_has_a_diameter_where_only_nodules_were_looked_for(two_livers, open_session):
    results, scans = two_livers
    line = {"case": "a", "input": str(scans / "a.nrrd"), "status": "done", "target": "nodule", "measurements": {}}
    (results / MANIFEST).write_text(json.dumps(line) + "\n")
    (results / "a.seg.nrrd").unlink()
    session, do = open_session(*two_livers)
    session.segmentation.GetSegmentation().AddEmptySegment("", "Mine")
    paint(session, do)
    assert session.state.header == ["Segment", "ml", "HU", "mm", "Kind"]
    _, _, _, mm, kind = session.state.rows[0]
    do(session.open("b"))
    with (results / TABLE).open() as stream:
        (row,) = (each for each in csv.DictReader(stream) if each["case"] == "a.corrected")
    assert (row["mean_diameter_mm"], row["kind"]) == (mm, kind)
