"""A session of the app on Slicer's scene, without a browser: what the table says after somebody has corrected a segmentation."""

from __future__ import annotations

import asyncio
import csv
import gc
import json
import shutil
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from Testing.support.bright import bright_bundle, bright_nodule_bundle
from Testing.support.nodule_scans import A, B, lung_with, ras
from Testing.support.organs import organs_bundle, organs_scan
from Testing.support.sample_files import write_slice
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.segment import Segment, plain_name
from UNetPlusPlusSegmentLib.jobs.manifest import MANIFEST, TABLE

pytest.importorskip(
    "trame_slicer.core", exc_type=ImportError, reason="trame-slicer is not installed: pip install '.[app]'"
)

from vtk.util.numpy_support import numpy_to_vtk

from Testing.support.mrml_scene import slicer
from UNetPlusPlusSegmentLib.app.cases import find, uploaded
from UNetPlusPlusSegmentLib.app.runs import POLL_S
from UNetPlusPlusSegmentLib.app.session import Session
from UNetPlusPlusSegmentLib.nodule.segments import TERMINOLOGY
from UNetPlusPlusSegmentLib.scene import mrml, showing

MATRIX = np.diag([-2.0, -2.0, 3.0, 1.0])  # a voxel of 0.012 ml
BLOCK = np.s_[2:6, 5:15, 5:15]  # 4.8 ml


@pytest.fixture
def cohort(tmp_path):
    """Two cases, a and b, with a liver of 4.8 ml, as a run has left them."""
    scans, results = tmp_path / "scans", tmp_path / "results"
    scans.mkdir()
    results.mkdir()
    labels = np.zeros((10, 30, 40), np.uint8)
    labels[BLOCK] = 1
    for name in "ab":
        files.write_volume(scans / f"{name}.nrrd", np.where(labels, 60, -100).astype(np.int16), MATRIX)
        segments = [Segment(1, "Liver", "", (255, 0, 0), {})]
        files.write_segmentation(results / f"{name}.seg.nrrd", labels, MATRIX, segments)
        found = {"Liver": {"volume_ml": 4.8, "mean_hu": 60.0}}
        line = {"case": name, "input": str(scans / f"{name}.nrrd"), "status": "done", "measurements": found}
        with (results / MANIFEST).open("a") as stream:
            stream.write(json.dumps(line) + "\n")
    return results, scans


@pytest.fixture
def open_session(session_parts):
    """Call it with paths of the app: a session with its first case opened, and a function that awaits."""
    sessions, do = [], asyncio.get_event_loop_policy().get_event_loop().run_until_complete

    def opened(*paths, output=None):
        session = Session(*session_parts(), find(paths, output))
        sessions.append(session)
        do(session.open(next(iter(session.cases))))
        return session, do

    yield opened
    for session in sessions:
        do(session.close())


def paint(session, do, where=np.s_[2:6, 15:20, 5:15]) -> None:
    """Add 2.4 ml to the first segment, and wait until what follows is done."""
    segmentation, volume = session.segmentation, session.views.volume
    segment_id = segmentation.GetSegmentation().GetNthSegmentID(0)
    mask = mrml.labelmap_of(segmentation, segment_id, volume).astype(np.uint8)
    mask[where] = 1
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*mask.shape[::-1])
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(MATRIX))
    image.GetPointData().SetScalars(numpy_to_vtk(mask.ravel(), deep=True))
    editor = slicer.vtkSlicerSegmentationsModuleLogic
    editor.SetBinaryLabelmapToSegment(image, segmentation, segment_id, editor.MODE_REPLACE)

    async def follow():
        session._corrected()  # as the segment editor calls it
        await session._autosave.finish()

    do(follow())


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


def choose(session, target: str) -> None:
    """Choose a target on the page, which then sends the values that have changed."""
    session.state.target, session.state.device = target, "cpu"
    session.choice.target_changed()
    move(session, session.state.threshold)


def move(session, threshold: float) -> None:
    """Move the slider on the page."""
    session.state.threshold = threshold
    session.runs.set_threshold(threshold)


async def end_of(session):
    """Wait until the last run and what follows is done; returns the run."""
    await session.runs.following
    await session._autosave.finish()
    return session.runs.current


async def segmented(session, points=None):
    session.apply(points)
    return await end_of(session)


def volumes_ml(results) -> dict[str, str]:
    """The column of the cohort's table, by case."""
    with (results / TABLE).open() as stream:
        return {row["case"]: row["volume_ml"] for row in csv.DictReader(stream)}


def test_the_table_follows_a_correction(cohort, open_session):
    session, do = open_session(*cohort)
    assert session.state.rows == [["Liver", "4.8", "60"]]
    paint(session, do)
    assert session.state.rows == [["Liver", "7.2", "7"]]


def test_a_case_tells_what_the_cohort_said_of_it_until_it_is_corrected(cohort, open_session):
    results, scans = cohort
    about = {"case": "a", "input": str(scans / "a.nrrd"), "status": "done", "notes": ["The liver reaches the end."]}
    found = {"volume_ml": 4.8, "mean_hu": 60.0, "expected_dice": 0.914, "doubtful_share": 0.2}
    lost = {"case": "b", "input": str(scans / "b.nrrd"), "status": "failed", "reason": "Memory ran out."}
    (results / MANIFEST).write_text(f"{json.dumps({**about, 'measurements': {'Liver': found}})}\n{json.dumps(lost)}\n")
    session, do = open_session(*cohort)
    assert session.state.header == ["Segment", "ml", "HU", "Expected Dice"]
    assert session.state.rows == [["Liver", "4.8", "60", "0.91"]]
    assert session.state.message == "The liver reaches the end."
    paint(session, do)
    assert session.state.rows == [["Liver", "7.2", "7"]]
    do(session.open("b"))
    assert session.state.message == "Memory ran out."


def test_a_small_nodule_has_more_than_0_ml_in_the_table(tmp_path, cohort, open_session):
    labels = np.zeros((10, 30, 40), np.uint8)
    labels[4, 6:8, 6:8] = 1
    segments = [Segment(1, "Nodule 1", TERMINOLOGY, (255, 0, 0), {})]
    files.write_segmentation(tmp_path / "a.corrected.seg.nrrd", labels, MATRIX, segments)
    session, _ = open_session(cohort[1] / "a.nrrd", output=tmp_path)
    assert session.state.rows[0][:2] == ["Nodule 1", "0.048"]


def test_what_a_run_measured_stays_until_it_is_corrected(cohort, open_session, monkeypatch, tmp_path):
    bundle = bright_bundle(tmp_path / "models" / "bright-v1.0.0")
    card = json.loads((bundle.folder / "model.json").read_text())
    expected = {"intercept": -3.0, "weights": {"doubtful": 0.2}, "low": -0.5, "high": 0.6}
    card["labels"][0]["expected_dice"] = {"balanced": expected}
    (bundle.folder / "model.json").write_text(json.dumps(card))
    monkeypatch.setenv("UNETPP_MODELS", str(tmp_path / "models"))
    session, do = open_session(cohort[1] / "a.nrrd")
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


def test_the_table_follows_where_nothing_is_saved(cohort, open_session):
    _, scans = cohort
    session, do = open_session(scans / "a.nrrd")
    session.segmentation.GetSegmentation().AddEmptySegment("", "Mine")
    paint(session, do)
    assert session.state.rows == [["Mine", "2.4", "-100"]]


def test_a_click_on_a_title_sorts_the_table_and_a_row_stays_that_of_its_segment(cohort, open_session):
    _, scans = cohort
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


def test_a_nodule_that_is_corrected_keeps_its_diameter_in_the_table(tmp_path, cohort, open_session):
    labels = np.zeros((10, 30, 40), np.uint8)
    labels[2:6, 5:15, 5:15] = 1
    files.write_segmentation(
        tmp_path / "a.corrected.seg.nrrd", labels, MATRIX, [Segment(1, "Nodule 1", TERMINOLOGY, (255, 0, 0), {})]
    )
    session, do = open_session(cohort[1] / "a.nrrd", output=tmp_path)
    ((name, ml, _hu, before_mm, kind),) = session.state.rows
    assert (name, ml, kind) == ("Nodule 1", "4.8", "solid")
    paint(session, do)
    assert float(session.state.rows[0][3]) > float(before_mm)


def test_a_nodule_drawn_by_hand_has_a_diameter_where_only_nodules_were_looked_for(cohort, open_session):
    results, scans = cohort
    line = {"case": "a", "input": str(scans / "a.nrrd"), "status": "done", "target": "nodule", "measurements": {}}
    (results / MANIFEST).write_text(json.dumps(line) + "\n")
    (results / "a.seg.nrrd").unlink()
    session, do = open_session(*cohort)
    session.segmentation.GetSegmentation().AddEmptySegment("", "Mine")
    paint(session, do)
    assert session.state.header == ["Segment", "ml", "HU", "mm", "Kind"]
    _, _, _, mm, kind = session.state.rows[0]
    do(session.open("b"))
    with (results / TABLE).open() as stream:
        (row,) = (each for each in csv.DictReader(stream) if each["case"] == "a.corrected")
    assert (row["mean_diameter_mm"], row["kind"]) == (mm, kind)


def test_corrections_of_an_upload_are_saved_under_their_own_name_in_the_output_folder(tmp_path, cohort, open_session):
    results, scans = cohort
    out = tmp_path / "out"
    session, do = open_session(results, scans, output=out)
    for number in (1, 2):  # another visitor sends a scan of the same name
        folder = tmp_path / f"of-session-{number}"
        folder.mkdir()
        (folder / "ct.nrrd").write_bytes((scans / "a.nrrd").read_bytes())
        do(session.add(uploaded([folder / "ct.nrrd"], folder, out)))
        assert session.state.rows == []
        session.segmentation.GetSegmentation().AddEmptySegment("", "Mine")
        paint(session, do)
        assert session.state.saved == f"Saved: ct-of-session-{number}.corrected.seg.nrrd"
    assert len([*out.iterdir()]) == 2
    do(session.open("b"))
    do(session.open("ct.nrrd (uploaded)"))
    assert session.state.rows == [["Mine", "2.4", "-100"]]


@pytest.mark.parametrize("names", [["ct.nrrd"], ["1.dcm", "2.dcm"]])
def test_an_upload_that_cannot_be_read_is_refused_by_its_name_without_the_path_it_lies_at(
    tmp_path, cohort, open_session, names
):
    results, scans = cohort
    session, do = open_session(results, scans)
    folder = tmp_path / "of-session-1"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"no scan")
    do(session.add(uploaded([folder / name for name in names], folder)))
    assert f"{names[0]} (uploaded)" in session.state.message and str(tmp_path) not in session.state.message


def test_a_correction_saved_before_the_app_was_killed_gets_its_row_when_the_case_is_opened_again(cohort, open_session):
    results, _ = cohort
    session, do = open_session(*cohort)
    paint(session, do)
    assert (results / "a.corrected.seg.nrrd").is_file()
    assert "corrected" not in (results / MANIFEST).read_text()  # here the app is killed
    session._autosave.last = None
    session, do = open_session(*cohort)
    assert session.state.rows == [["Liver", "7.2", "7"]]
    for _ in range(2):  # once is enough
        do(session.open("b"))
        do(session.open("a"))
    assert volumes_ml(results) == {"a": "4.8", "a.corrected": "7.2", "b": "4.8"}
    assert (results / MANIFEST).read_text().count("corrects") == 1


def test_what_another_visitor_saved_since_stays_when_a_session_ends(cohort, open_session):
    results, _ = cohort
    first, do = open_session(*cohort)
    paint(first, do)
    second, _ = open_session(*cohort)
    paint(second, do, np.s_[2:6, 20:25, 5:15])
    do(second.open("b"))
    of_second = (results / "a.corrected.seg.nrrd").read_bytes()
    do(first.open("b"))
    assert (results / "a.corrected.seg.nrrd").read_bytes() == of_second
    assert volumes_ml(results)["a.corrected"] == "9.6"


def test_a_correction_that_another_visitor_saves_while_a_case_is_opened_stays(cohort, open_session, monkeypatch):
    results, _ = cohort
    _, do = open_session(*cohort)
    read = Session.open.__globals__["_read"]

    def meanwhile(case):
        opened = read(case)
        shutil.copy(results / "b.seg.nrrd", results / "a.corrected.seg.nrrd")
        return opened

    monkeypatch.setitem(Session.open.__globals__, "_read", meanwhile)
    second, _ = open_session(*cohort)
    assert second.state.stale
    assert not (results / TABLE).exists()  # what it shows is not what is saved
    paint(second, do)
    assert "another session has changed a.corrected.seg.nrrd" in second.state.saved
    assert (results / "a.corrected.seg.nrrd").read_bytes() == (results / "b.seg.nrrd").read_bytes()


def test_a_case_that_another_visitor_changed_is_opened_again(cohort, open_session):
    (first, do), (second, _) = open_session(*cohort), open_session(*cohort)
    paint(first, do)
    paint(second, do, np.s_[2:6, 20:25, 5:15])
    assert second.state.saved.startswith("Not saved") and second.state.stale and not first.state.stale
    do(second.open_again())
    assert (second.case.name, second.state.stale, second.state.saved) == ("a", False, "")
    assert second.state.rows == first.state.rows
    paint(second, do, np.s_[2:6, 20:25, 5:15])
    assert second.state.saved == "Saved: a.corrected.seg.nrrd"


def test_a_scan_of_64_bit_integers_is_opened(tmp_path, open_session):
    files.write_volume(tmp_path / "ct.nrrd", np.full((10, 30, 40), -100, np.int64), MATRIX)
    session, _ = open_session(tmp_path / "ct.nrrd")
    assert np.unique(mrml.volume_from_node(session.views.volume).array).tolist() == [-100]


def test_a_case_that_is_only_looked_at_is_not_saved_again(cohort, open_session):
    results, _ = cohort
    session, do = open_session(*cohort)
    paint(session, do)
    session._autosave.last = None  # here the app is killed
    saved = (results / "a.corrected.seg.nrrd").stat()
    session, do = open_session(*cohort)
    do(session.open("b"))
    assert (results / "a.corrected.seg.nrrd").stat().st_mtime_ns == saved.st_mtime_ns
    assert volumes_ml(results)["a.corrected"] == "7.2"


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-20], lambda whole: b"no segmentation"], ids=["cut", "foreign"]
)
def test_a_case_with_a_damaged_correction_is_refused_and_the_file_stays_as_it_is(cohort, open_session, damage):
    results, scans = cohort
    path = results / "a.corrected.seg.nrrd"
    path.write_bytes(damaged := damage((results / "a.seg.nrrd").read_bytes()))
    session, do = open_session(results, scans)
    for case in (None, "b"):
        assert session.state.wrong and "a.corrected.seg.nrrd cannot be read" in session.state.message
        assert session.state.case_name == case
        do(session.open("b"))
        assert session.state.rows == [["Liver", "4.8", "60"]]
        do(session.open("a"))
    assert path.read_bytes() == damaged


def test_changes_never_replace_a_correction_that_could_not_be_shown(cohort, open_session, monkeypatch):
    results, scans = cohort
    path = results / "a.corrected.seg.nrrd"
    shutil.copy(results / "a.seg.nrrd", path)
    session, do = open_session(scans / "b.nrrd")
    monkeypatch.setattr(session.views, "load_segmentation", lambda _: None)
    session.cases |= find(cohort)
    do(session.open("a"))
    assert session.state.wrong and "a.corrected.seg.nrrd could not be shown" in session.state.message
    session.segmentation.GetSegmentation().AddEmptySegment("", "Mine")
    paint(session, do)
    do(session.open("b"))
    assert path.read_bytes() == (results / "a.seg.nrrd").read_bytes()
    assert not (results / TABLE).exists()


def test_a_case_stays_open_with_all_changes_while_its_segments_overlap(cohort, open_session):
    session, do = open_session(*cohort)
    node, volume = session.segmentation, session.views.volume
    below = np.zeros((10, 30, 40), np.uint8)
    below[2:4, 5:15, 5:15] = 1
    showing.show_segmentation(below, [Segment(1, "Tumour", "", (0, 0, 255), {})], volume, node)
    session.state.case_name = "b"
    do(session.open("b"))
    assert session.state.saved == session.state.message and "Liver and Tumour overlap" in session.state.message
    assert session.state.wrong and session.case.name == session.state.case_name == "a"
    node.GetSegmentation().RemoveSegment(node.GetSegmentation().GetNthSegmentID(0))
    do(session.open("b"))
    assert session.case.name == "b"
    assert volumes_ml(cohort[0])["a.corrected"] == "2.4"


def test_a_case_stays_open_while_the_first_of_two_others_is_given_up(cohort, open_session, monkeypatch):
    results, scans = cohort
    shutil.copy(scans / "b.nrrd", scans / "c.nrrd")
    session, do = open_session(*cohort)
    may_read, read = threading.Event(), Session.open.__globals__["_read"]
    monkeypatch.setitem(
        Session.open.__globals__, "_read", lambda case: (case.name != "c" or may_read.wait()) and read(case)
    )

    async def choose_two():
        first, second = (asyncio.create_task(session.open(name)) for name in "bc")
        await first
        return second

    second = do(choose_two())
    paint(session, do)
    assert (results / "a.corrected.seg.nrrd").is_file()
    may_read.set()
    do(second)
    assert session.case.name == session.state.case_name == "c"
    assert volumes_ml(results)["a.corrected"] == "7.2"


def test_a_case_that_was_run_by_force_is_opened(cohort, open_session):
    results, scans = cohort
    voxels = files.read_volume(scans / "a.nrrd")[0].array
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 40 30 10\nencoding: raw\nendian: little\n\n"
    (scans / "a.nrrd").write_bytes(header.encode() + voxels.astype("<i2").tobytes())
    line = {"case": "a", "input": str(scans / "a.nrrd"), "status": "done", "force": True}
    (results / MANIFEST).write_text(json.dumps(line) + "\n")
    session, _ = open_session(*cohort)
    assert session.case.name == "a"


def test_a_case_is_opened_in_the_series_that_was_segmented(cohort, open_session):
    results, scans = cohort
    for name, slices, hu in (("1.2.3", 6, 40), ("1.2.4", 4, 90)):
        for k in range(slices):
            path = scans / "ct" / f"{name}-{k}.dcm"
            write_slice(path, (0, 0, 2.5 * k), value=hu, SeriesInstanceUID=name, InstanceNumber=k)
    line = {"case": "ct", "input": str(scans / "ct"), "series": "1.2.4", "status": "failed", "reason": "Why."}
    (results / MANIFEST).write_text(json.dumps(line) + "\n")
    session, do = open_session(*cohort)
    do(session.open("ct"))
    assert np.unique(mrml.volume_from_node(session.views.volume).array).tolist() == [90]


def test_a_target_is_offered_once_however_models_spell_it_and_the_liver_is_chosen(models, cohort, open_session):
    organs_bundle(models / "abdomen-v1.0.0")
    bright_bundle(models / "bright-v1.0.0")
    written = json.loads((models / "bright-v1.0.0" / "model.json").read_text())
    written["labels"][0]["name"] = "left-kidney"
    other = shutil.copytree(models / "bright-v1.0.0", models / "zz-v1.0.0")
    (other / "model.json").write_text(json.dumps({**written, "target": "one"}))
    session, _ = open_session(cohort[1] / "a.nrrd")
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


def test_no_upload_stays_when_the_app_was_killed_which_closes_the_input_of_its_sessions(tmp_path):
    folder = tmp_path / "session"
    folder.mkdir()
    given = {"key": "k", "folder": str(folder), "paths": [], "output": None, "upload_bytes": 1, "empty_s": 60}
    command = [sys.executable, "-m", "UNetPlusPlusSegmentLib.app.session_main"]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        session.stdin.write(json.dumps(given).encode() + b"\n")
        session.stdin.flush()
        assert any(b'"port"' in line for line in iter(session.stdout.readline, b""))
        (folder / "upload").mkdir()
        (folder / "upload" / "scan.nrrd").touch()
    assert not folder.exists()
