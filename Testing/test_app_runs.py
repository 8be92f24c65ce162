"""Runs in a session of the app: the target that is chosen, the result, and the sliders that it follows."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import weakref

import pytest

from Testing.support.bright import bright_bundle, bright_nodule_bundle
from Testing.support.nodule_scans import A, B, lung_with, ras
from Testing.support.organs import organs_bundle, organs_scan
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.segment import plain_name

pytest.importorskip(
    "trame_slicer.core", exc_type=ImportError, reason="trame-slicer is not installed: pip install '.[app]'"
)

from Testing.support.app_sessions import choose, end_of, move, segmented


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty folder, the first one that is searched for models."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("UNETPP_MODELS", str(folder))
    return folder


@pytest.fixture
def abdomen(models, tmp_path, open_session):
    """A session with a scan and a model of three organs, the spleen chosen; and a function that awaits."""
    organs_bundle(models / "abdomen-v1.0.0")
    scan = organs_scan()
    files.write_volume(tmp_path / "ct.nrrd", scan.array, scan.ijk_to_ras)
    session, do = open_session(tmp_path / "ct.nrrd")
    choose(session, "Spleen")
    return session, do


def test_a_target_is_offered_once_however_models_spell_it_and_the_liver_is_chosen(models, two_livers, open_session):
    organs_bundle(models / "abdomen-v1.0.0")
    bright_bundle(models / "bright-v1.0.0")
    written = json.loads((models / "bright-v1.0.0" / "model.json").read_text())
    written["labels"][0]["name"] = "left-kidney"
    other = shutil.copytree(models / "bright-v1.0.0", models / "zz-v1.0.0")
    (other / "model.json").write_text(json.dumps({**written, "target": "one"}))
    session, _ = open_session(two_livers[1] / "a.nrrd")
    offered = [plain_name(each) for each in session.state.targets]
    assert offered == sorted(set(offered)) and {"kidney", "left kidney", "liver"} < set(offered)
    assert session.state.target == "Liver"


def test_another_target_of_the_same_model_leaves_the_result_as_it_is(abdomen):
    session, do = abdomen
    run = do(segmented(session))
    move(session, 0.7)
    do(end_of(session))
    choose(session, "Left kidney")
    do(end_of(session))
    assert (run.target, run.result.threshold, session.state.threshold) == ("Spleen", 0.7, 0.5)


def test_a_result_that_nobody_has_corrected_is_replaced_by_the_next_one(abdomen):
    session, do = abdomen
    first = do(segmented(session))
    move(session, 0.7)
    do(end_of(session))
    again = do(segmented(session))
    assert again is not first and again.error is None
    assert again.segmentIDs == first.segmentIDs
    assert len(session.state.rows) == 1


def test_a_result_leaves_the_sliders_of_a_target_that_was_chosen_meanwhile(abdomen):
    session, do = abdomen

    async def choose_meanwhile():
        session.apply()
        choose(session, "Left kidney")
        move(session, 0.3)
        return await end_of(session)

    run = do(choose_meanwhile())
    assert (run.target, run.result.threshold, session.state.threshold) == ("Spleen", 0.5, 0.3)


def test_a_result_follows_the_slider_that_was_moved_while_it_was_made(abdomen):
    session, do = abdomen

    async def move_meanwhile():
        session.apply()
        move(session, 0.7)
        return await end_of(session)

    run = do(move_meanwhile())
    assert run.result.threshold == session.state.threshold == 0.7


def test_a_run_is_in_progress_although_the_one_before_still_changes_its_threshold(abdomen):
    session, do = abdomen

    async def apply_at_once():
        await segmented(session)
        move(session, 0.7)
        session.apply()
        while session.runs.current.running:
            assert session.state.running
            await asyncio.sleep(0)
        return await end_of(session)

    run = do(apply_at_once())
    assert (run.error, run.result.threshold, session.state.running) == (None, 0.7, False)


def test_a_click_on_a_nodule_leaves_no_maps_of_earlier_ones(models, tmp_path, open_session):
    bright_nodule_bundle(models / "nodule-v1.0.0")
    chest = lung_with(A, B)
    files.write_volume(tmp_path / "ct.nrrd", chest.array, chest.ijk_to_ras)
    session, do = open_session(tmp_path / "ct.nrrd")
    choose(session, "nodule")
    session.state.overlay = True
    first = weakref.ref(do(segmented(session, [ras((10, 50, 40))])))
    do(segmented(session, [ras((20, 100, 110))]))
    gc.collect()
    assert first() is None
    assert session.views.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2
    assert [row[0] for row in session.state.rows] == ["Nodule 1", "Nodule 2"]
    assert all(float(row[3]) > 5 for row in session.state.rows), "the measurements of both are kept"
