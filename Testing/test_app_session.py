"""A session of the app on Slicer's scene, without a browser: opening cases, and saving their corrections."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from Testing.support.sample_files import write_slice
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.jobs.manifest import MANIFEST, TABLE, append, read_manifest
from UNetPlusPlusSegmentLib.jobs.review import REVIEW, Mark, add_to_review, mark_of, read_review

pytest.importorskip(
    "trame_slicer.core", exc_type=ImportError, reason="trame-slicer is not installed: pip install '.[app]'"
)

from Testing.support.app_sessions import MATRIX, paint, volumes_ml
from UNetPlusPlusSegmentLib.app.cases import find, uploaded
from UNetPlusPlusSegmentLib.app.session import Session
from UNetPlusPlusSegmentLib.scene import mrml, showing


def test_corrections_of_an_upload_are_saved_under_their_own_name_in_the_output_folder(
    tmp_path, two_livers, open_session
):
    results, scans = two_livers
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
    tmp_path, two_livers, open_session, names
):
    results, scans = two_livers
    session, do = open_session(results, scans)
    folder = tmp_path / "of-session-1"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"no scan")
    do(session.add(uploaded([folder / name for name in names], folder)))
    assert f"{names[0]} (uploaded)" in session.state.message and str(tmp_path) not in session.state.message


def test_a_correction_saved_before_the_app_was_killed_gets_its_row_when_the_case_is_opened_again(
    two_livers, open_session
):
    results, _ = two_livers
    session, do = open_session(*two_livers)
    paint(session, do)
    assert (results / "a.corrected.seg.nrrd").is_file()
    assert "corrected" not in (results / MANIFEST).read_text()  # here the app is killed
    session._autosave.last = None
    session, do = open_session(*two_livers)
    assert session.state.rows == [["Liver", "7.2", "7"]]
    for _ in range(2):  # once is enough
        do(session.open("b"))
        do(session.open("a"))
    assert volumes_ml(results) == {"a": "4.8", "a.corrected": "7.2", "b": "4.8"}
    assert (results / MANIFEST).read_text().count("corrects") == 1


def test_what_another_visitor_saved_since_stays_when_a_session_ends(two_livers, open_session):
    results, _ = two_livers
    first, do = open_session(*two_livers)
    paint(first, do)
    second, _ = open_session(*two_livers)
    paint(second, do, np.s_[2:6, 20:25, 5:15])
    do(second.open("b"))
    of_second = (results / "a.corrected.seg.nrrd").read_bytes()
    do(first.open("b"))
    assert (results / "a.corrected.seg.nrrd").read_bytes() == of_second
    assert volumes_ml(results)["a.corrected"] == "9.6"


def test_a_correction_that_another_visitor_saves_while_a_case_is_opened_stays(two_livers, open_session, monkeypatch):
    results, _ = two_livers
    _, do = open_session(*two_livers)
    read = Session.open.__globals__["_read"]

    def meanwhile(case):
        opened = read(case)
        shutil.copy(results / "b.seg.nrrd", results / "a.corrected.seg.nrrd")
        return opened

    monkeypatch.setitem(Session.open.__globals__, "_read", meanwhile)
    second, _ = open_session(*two_livers)
    assert second.state.stale
    assert not (results / TABLE).exists()  # what it shows is not what is saved
    paint(second, do)
    assert "another session has changed a.corrected.seg.nrrd" in second.state.saved
    assert (results / "a.corrected.seg.nrrd").read_bytes() == (results / "b.seg.nrrd").read_bytes()


def test_a_case_that_another_visitor_changed_is_opened_again(two_livers, open_session):
    (first, do), (second, _) = open_session(*two_livers), open_session(*two_livers)
    paint(first, do)
    paint(second, do, np.s_[2:6, 20:25, 5:15])
    assert second.state.saved.startswith("Not saved") and second.state.stale and not first.state.stale
    do(second.open_again())
    assert (second.case.name, second.state.stale, second.state.saved) == ("a", False, "")
    assert second.state.rows == first.state.rows
    paint(second, do, np.s_[2:6, 20:25, 5:15])
    assert second.state.saved == "Saved: a.corrected.seg.nrrd"


@pytest.mark.parametrize(
    ("verdict", "typed", "now"),
    [("accepted", "", Mark("accepted", "left lobe missed")), ("", "too small", Mark("flagged", "too small"))],
    ids=["accepts", "comments"],
)
def test_what_another_visitor_says_of_a_case_stays_unless_it_is_changed(two_livers, open_session, verdict, typed, now):
    results, _ = two_livers
    session, _ = open_session(*two_livers)
    add_to_review(results, "a", "flagged", "left lobe missed", "another visitor")
    session.state.comment = typed
    session.judge(verdict)
    assert mark_of(read_review(results), "a") == now == Mark(session.state.verdict, session.state.comment)


@pytest.mark.parametrize("way_out", ["the comment is saved", "the field is emptied"])
def test_a_case_with_a_comment_that_cannot_be_saved_stays_open(two_livers, open_session, way_out):
    results, _ = two_livers
    session, do = open_session(*two_livers)
    (results / REVIEW).mkdir()  # like a file that another program has open, it cannot be written
    session.state.comment = "too small"
    session.judge("")
    assert session.state.wrong and "review.csv cannot be" in session.state.message
    do(session.open("b"))
    assert session.state.wrong and session.state.message.endswith(
        "To leave the case without the comment, empty its field."
    )
    assert (session.case.name, session.state.case_name, session.state.comment) == ("a", "a", "too small")
    if way_out == "the comment is saved":
        (results / REVIEW).rmdir()
        do(session.open("b"))
        assert mark_of(read_review(results), "a") == Mark("", "too small")
    else:
        session.state.comment = ""
        do(session.open("b"))
    assert (session.case.name, session.state.comment) == ("b", "")


def test_a_comment_is_kept_if_the_page_is_closed_with_the_cursor_in_the_field(two_livers, open_session):
    session, do = open_session(*two_livers)
    session.state.comment = "too small"
    do(session.close())
    assert mark_of(read_review(two_livers[0]), "a") == Mark("", "too small")


def test_a_scan_of_64_bit_integers_is_opened(tmp_path, open_session):
    files.write_volume(tmp_path / "ct.nrrd", np.full((10, 30, 40), -100, np.int64), MATRIX)
    session, _ = open_session(tmp_path / "ct.nrrd")
    assert np.unique(mrml.volume_from_node(session.views.volume).array).tolist() == [-100]


def test_a_case_that_is_only_looked_at_is_not_saved_again(two_livers, open_session):
    results, _ = two_livers
    session, do = open_session(*two_livers)
    paint(session, do)
    session._autosave.last = None  # here the app is killed
    saved = (results / "a.corrected.seg.nrrd").stat()
    session, do = open_session(*two_livers)
    do(session.open("b"))
    assert (results / "a.corrected.seg.nrrd").stat().st_mtime_ns == saved.st_mtime_ns
    assert volumes_ml(results)["a.corrected"] == "7.2"


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-20], lambda whole: b"no segmentation"], ids=["cut", "foreign"]
)
def test_a_case_with_a_damaged_correction_is_refused_and_the_file_stays_as_it_is(two_livers, open_session, damage):
    results, scans = two_livers
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


def test_a_case_whose_scan_was_replaced_is_not_opened_until_it_is_run_again(two_livers, open_session):
    results, scans = two_livers
    segmented = read_manifest(results)["a"] | {"scan": files.fingerprint_of(scans / "a.nrrd", besides=results)}
    append(results, segmented)
    volume, _ = files.read_volume(scans / "a.nrrd")
    files.write_volume(scans / "a.nrrd", volume.array + 1, volume.ijk_to_ras)
    session, do = open_session(results, scans)
    assert session.state.wrong and session.state.case_name is None
    assert session.state.message == "a is no longer the scan that was segmented: run the cohort again."
    append(results, segmented | {"scan": files.fingerprint_of(scans / "a.nrrd", besides=results)})
    do(session.open("a"))
    assert session.state.case_name == "a"


def test_changes_never_replace_a_correction_that_could_not_be_shown(two_livers, open_session, monkeypatch):
    results, scans = two_livers
    path = results / "a.corrected.seg.nrrd"
    shutil.copy(results / "a.seg.nrrd", path)
    session, do = open_session(scans / "b.nrrd")
    monkeypatch.setattr(session.views, "load_segmentation", lambda _: None)
    session.cases |= find(two_livers)
    do(session.open("a"))
    assert session.state.wrong and "a.corrected.seg.nrrd could not be shown" in session.state.message
    session.segmentation.GetSegmentation().AddEmptySegment("", "Mine")
    paint(session, do)
    do(session.open("b"))
    assert path.read_bytes() == (results / "a.seg.nrrd").read_bytes()
    assert not (results / TABLE).exists()


def test_a_case_stays_open_with_all_changes_while_its_segments_overlap(two_livers, open_session):
    session, do = open_session(*two_livers)
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
    assert volumes_ml(two_livers[0])["a.corrected"] == "2.4"


def test_a_case_stays_open_while_the_first_of_two_others_is_given_up(two_livers, open_session, monkeypatch):
    results, scans = two_livers
    shutil.copy(scans / "b.nrrd", scans / "c.nrrd")
    session, do = open_session(*two_livers)
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


def test_a_case_that_was_run_by_force_is_opened(two_livers, open_session):
    results, scans = two_livers
    voxels = files.read_volume(scans / "a.nrrd")[0].array
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 40 30 10\nencoding: raw\nendian: little\n\n"
    (scans / "a.nrrd").write_bytes(header.encode() + voxels.astype("<i2").tobytes())
    line = {"case": "a", "input": str(scans / "a.nrrd"), "status": "done", "force": True}
    (results / MANIFEST).write_text(json.dumps(line) + "\n")
    session, _ = open_session(*two_livers)
    assert session.case.name == "a"


def test_a_case_is_opened_in_the_series_that_was_segmented(two_livers, open_session):
    results, scans = two_livers
    for name, slices, hu in (("1.2.3", 6, 40), ("1.2.4", 4, 90)):
        for k in range(slices):
            path = scans / "ct" / f"{name}-{k}.dcm"
            write_slice(path, (0, 0, 2.5 * k), value=hu, SeriesInstanceUID=name, InstanceNumber=k)
    line = {"case": "ct", "input": str(scans / "ct"), "series": "1.2.4", "status": "failed", "reason": "Why."}
    (results / MANIFEST).write_text(json.dumps(line) + "\n")
    session, do = open_session(*two_livers)
    do(session.open("ct"))
    assert np.unique(mrml.volume_from_node(session.views.volume).array).tolist() == [90]


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
