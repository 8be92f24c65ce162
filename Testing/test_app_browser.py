"""The app as a visitor sees it: a real headless Chromium, a real server, a small network whose answer is known."""

from __future__ import annotations

import csv
import json
import re
import signal

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.bright import bright_bundle, bright_nodule_bundle
from Testing.support.nodule_scans import MATRIX, ball, lung_with
from Testing.support.visitor import AXIAL, CORONAL, PATIENCE_S, SAGITTAL, THREED, Visitor, wait_until
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.core.table import rounded
from UNetPlusPlusSegmentLib.jobs.manifest import MANIFEST
from UNetPlusPlusSegmentLib.jobs.review import REVIEW

SHAPE = (120, 128, 128)  # K, J, I
SPACING_MM = 2.0
SURE, UNSURE = 140, 66  # HU: p = 1, and p = 0.77
LIVER_COLOR = (221, 130, 101)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    bright_bundle(folder / "bright-v1.0.0")
    bright_nodule_bundle(folder / "nodule-v1.0.0")
    return folder


def a_body(path, shape=SHAPE):
    """A cylinder of soft tissue with a bright organ at the right of the patient, in front, of which the rim is less bright."""
    k, j, i = np.ogrid[: shape[0], : shape[1], : shape[2]]
    y, x = j / shape[1] - 0.5, i / shape[2] - 0.5
    hu = np.where(y**2 + x**2 < 0.2, 0, -1000) + 0 * k
    inside = (abs(k / shape[0] - 0.5) < 0.3) & (abs(y + 0.15) < 0.15) & (abs(x + 0.15) < 0.15)
    core = (abs(k / shape[0] - 0.5) < 0.25) & (abs(y + 0.15) < 0.12) & (abs(x + 0.15) < 0.12)
    hu[inside], hu[core] = UNSURE, SURE
    path.parent.mkdir(exist_ok=True, parents=True)
    files.write_volume(path, hu.astype(np.int16), np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1]))
    return path


def voxels(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.fixture
def opened(an_app, a_page, models):
    """Call it with arguments of the app: a visitor on the page, and the process of the app."""

    def opened(*arguments, browser=None, **options):
        process, address = an_app(*arguments, models=models, **options)
        return Visitor(a_page(browser), address), process

    return opened


def test_a_visitor_segments_cancels_cuts_corrects_undoes_and_downloads(opened, tmp_path):
    page, _ = opened(a_body(tmp_path / "body.nrrd"), "-o", tmp_path / "out")
    assert "Not a medical device" in page.text("no-device")
    for view in (AXIAL, CORONAL, SAGITTAL):
        wait_until(lambda view=view: page.pixels(view).std() > 20, f"the CT in view {view}")
    assert not page.colored(AXIAL).any()

    page.set("speed", "accurate")
    page.click("apply")
    page.click("cancel")
    wait_until(lambda: "Cancelled" in page.text("message"), "the word that it was cancelled")
    assert page.rows() == []

    page.click("apply")
    wait_until(lambda: re.search(r"Slices \d+ of 120", page.text("progress")), "progress")
    wait_until(lambda: page.rows(), f"a result, not {page.text('message')!r}")
    name, ml, *_ = page.rows()[0]
    organ = voxels(tmp_path / "body.nrrd") >= UNSURE
    assert name == "Liver"
    assert float(ml) == pytest.approx(organ.sum() * SPACING_MM**3 / 1000, rel=0.01)
    wait_until(lambda: page.colored(AXIAL).sum() > 500, "the segmentation in the axial view")
    where = np.argwhere(page.colored(AXIAL)).T
    height, width = page.pixels(AXIAL).shape[:2]
    assert where[0].mean() < 0.48 * height  # in front: above the middle
    assert where[1].mean() < 0.48 * width  # at the patient's right: left of the middle
    wait_until(lambda: page.colored(THREED).sum() > 500, "the surface in 3D")

    page.look_at(0)
    wait_until(
        lambda: abs(np.argwhere(page.colored(AXIAL)).mean(axis=0) - (height / 2, width / 2)).max() < 15,
        "the row to centre the views",
    )
    where = np.argwhere(page.colored(AXIAL)).T

    corrected = tmp_path / "out" / "body.corrected.seg.nrrd"
    wait_until(lambda: "Saved" in page.text("saved") and corrected.exists(), "the result on the disk")
    np.testing.assert_array_equal(voxels(corrected) == 1, organ)

    page.segment()  # again, in place of the first result
    assert len(page.rows()) == 1
    for _ in range(40):  # 0.5 → 0.9
        page.page.locator("#threshold [role=slider]").press("ArrowRight")
    wait_until(lambda: float(page.rows()[0][1]) < 0.9 * float(ml), "the rim to go")
    core = voxels(tmp_path / "body.nrrd") == SURE
    wait_until(lambda: np.array_equal(voxels(corrected) == 1, core), "the smaller one on the disk")

    page.tool("brush")
    page.drag(AXIAL, (0.25, 0.3), (0.35, 0.3))
    wait_until(lambda: (voxels(corrected) == 1).sum() > core.sum() + 20, "the stroke on the disk")
    assert (voxels(corrected)[core] == 1).all()
    painted_ml = (voxels(corrected) == 1).sum() * SPACING_MM**3 / 1000
    wait_until(lambda: page.rows()[0][1] == str(rounded("volume_ml", painted_ml)), "the table to follow")
    page.tool("undo")
    wait_until(lambda: np.array_equal(voxels(corrected) == 1, core), "the stroke to be undone on the disk")
    page.tool("eraser")
    organ_is_at = where[::-1].mean(axis=1) / (width, height) - 0.5
    page.drag(AXIAL, organ_is_at, np.add(organ_is_at, (0.05, 0)))
    wait_until(lambda: (voxels(corrected) == 1).sum() < core.sum() - 20, "the stroke of the eraser on the disk")
    page.tool("undo")
    page.tool("brush")
    page.drag(AXIAL, (0.25, 0.3), (0.35, 0.3))
    wait_until(lambda: (voxels(corrected) == 1).sum() > core.sum() + 20, "an island on the disk")
    page.tool("scatter-plot")
    page.page.locator("#corrections button", has_text="Apply").click()
    wait_until(lambda: np.array_equal(voxels(corrected) == 1, core), "the island to go")
    page.tool("square-rounded-outline")
    page.page.get_by_label("Kernel size (mm)").fill("9")
    page.page.get_by_label("Kernel size (mm)").blur()
    page.page.locator("#corrections button", has_text="Apply").click()
    wait_until(lambda: 0 < (voxels(corrected) == 1).sum() < core.sum(), "the corners to be rounded")

    by_hand = voxels(corrected)
    page.click("apply")
    wait_until(lambda: "remove the segments" in page.text("message"), "the word that what was corrected is kept")
    downloaded = page.download("seg.nrrd", tmp_path / "downloaded.seg.nrrd")
    for path in (downloaded, corrected):
        np.testing.assert_array_equal(voxels(path), by_hand)
    page.download("nifti", tmp_path / "downloaded.nii.gz")
    page.set("target", "Nodule")  # the page is still connected
    wait_until(lambda: page.has("picking"), "the switch for nodules")


def test_ctrl_c_ends_the_app_though_a_page_is_open(opened):
    _, process = opened("--host", "127.0.0.1")
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)


def test_a_click_on_a_nodule_segments_it(opened, tmp_path):
    one = ball((15, 70, 75), 7)
    scan = tmp_path / "chest.nrrd"
    files.write_volume(scan, lung_with(one).array, MATRIX)
    page, _ = opened(scan)
    page.set("target", "Nodule")
    page.set("window_name", "Lung")
    wait_until(lambda: page.has("picking"), "the switch")
    page.set("picking", True)
    wait_until(lambda: page.pixels(AXIAL).std() > 5, "the CT")
    page.press(AXIAL, (0, 0))  # it lies in the middle
    wait_until(lambda: page.rows(), f"the nodule, not {page.text('message')!r}")
    assert page.rows()[0][0] == "Nodule 1"
    assert float(page.rows()[0][1]) == pytest.approx(one.sum() * 2 * 0.7**2 / 1000, abs=0.1)
    assert "not saved" in page.text("saved")


def test_a_cohort_is_walked_through_and_reviewed(opened, tmp_path):
    scans, results = tmp_path / "scans", tmp_path / "results"
    results.mkdir()
    for name in ("a", "b"):
        scan = a_body(scans / f"{name}.nrrd", shape=(30, 64, 64))
        found = (voxels(scan) == SURE).astype(np.uint8)
        files.write_segmentation(
            results / f"{name}.seg.nrrd",
            found,
            files.read_volume(scan)[0].ijk_to_ras,
            [Segment(1, "Liver", "", LIVER_COLOR, {})],
        )
        record = {"case": name, "input": str(scan), "status": "done", "measurements": {"Liver": {"volume_ml": 9.5}}}
        with (results / MANIFEST).open("a") as stream:
            stream.write(json.dumps(record) + "\n")
    page, _ = opened(results, scans)
    wait_until(lambda: page.text("position") == "1 of 2", "the first case")
    assert page.rows()[0][:2] == ["Liver", "9.5"]
    wait_until(lambda: page.colored(AXIAL).sum() > 300, "the segmentation of the cohort")
    page.set("comment", "too small")
    page.click("flagged")
    wait_until(lambda: page.state("verdict") == "flagged", "the flag")
    page.click("flagged")
    wait_until(lambda: page.state("verdict") == "", "the flag to be taken back")
    page.click("flagged")
    page.click("next")
    wait_until(lambda: page.text("position") == "2 of 2", "the second case")
    page.click("accepted")
    page.tool("brush")
    page.drag(AXIAL, (0.25, 0.3), (0.35, 0.3))
    corrected = results / "b.corrected.seg.nrrd"
    wait_until(corrected.exists, "the correction beside the first segmentation")
    assert (voxels(corrected) == 1).sum() > (voxels(results / "b.seg.nrrd") == 1).sum()
    page.click("previous")
    said = ("flagged", "too small")
    wait_until(lambda: (page.state("verdict"), page.state("comment")) == said, "the verdict of the first case")
    table = (results / "measurements.csv").read_text()
    assert "b.corrected,Liver" in table
    with (results / REVIEW).open() as stream:
        assert [(line["case"], line["verdict"]) for line in csv.DictReader(stream)] == [
            ("a", "flagged"),
            ("a", ""),
            ("a", "flagged"),
            ("b", "accepted"),
        ]

    # Another visitor: a session of its own, which finds what was saved.
    address = page.page.url
    other = Visitor(page.page.context.new_page(), address.partition("/s/")[0])
    wait_until(lambda: other.text("position") == "1 of 2", "the second visitor's page")
    other.click("next")
    wait_until(lambda: other.state("verdict") == "accepted", "what the first visitor said")
    assert other.page.url != address
    assert page.text("position") == "1 of 2"

    # Both change one case: the later one is told, and can open it again.
    page.click("next")
    wait_until(lambda: page.text("position") == "2 of 2", "the second case again")
    before = corrected.read_bytes()
    other.tool("brush")
    other.drag(AXIAL, (0.25, 0.4), (0.35, 0.4))
    wait_until(lambda: corrected.read_bytes() != before, "the correction of the second visitor")
    of_other = corrected.read_bytes()
    page.tool("brush")
    page.drag(AXIAL, (0.25, 0.2), (0.35, 0.2))
    wait_until(lambda: page.text("saved").startswith("Not saved: another session"), "the word about the other visitor")
    page.click("again")
    wait_until(lambda: not page.state("stale") and page.text("saved") == "", "what the other visitor saved")
    assert corrected.read_bytes() == of_other


def test_with_a_host_the_page_opens_with_the_token_only_and_takes_uploads_up_to_the_limit(opened, tmp_path):
    page, _ = opened("--host", "127.0.0.1", "--upload-mb", "1")
    address = page.page.url.partition("/s/")[0]
    assert "token" not in page.page.url
    page.send(a_body(tmp_path / "sent.nrrd", shape=(20, 64, 64)))
    wait_until(lambda: page.state("case_name") == "sent.nrrd (uploaded)", f"the upload, not {page.text('message')!r}")
    wait_until(lambda: page.pixels(AXIAL).std() > 20, "the CT that was uploaded")
    (tmp_path / "big.nrrd").write_bytes(b"x" * (3 << 20))
    page.send(tmp_path / "big.nrrd")
    wait_until(lambda: "limit of 1 MB" in page.text("message"), "the limit")
    evil = tmp_path / "evil.nhdr"
    evil.write_text("NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: /etc/passwd\n\n")
    page.send(evil)
    wait_until(lambda: "names other files" in page.text("message"), "the refusal")
    page.page.context.clear_cookies()
    page.page.goto(address)
    assert "token" in page.page.content()
    assert not page.has("apply")


@pytest.mark.slow(reason="kills three whole apps, each of which loads torch")
def test_no_correction_is_lost_and_no_process_is_left_if_worker_browser_or_server_are_killed(
    opened, a_doomed_browser, tmp_path
):
    import psutil

    browser, kill_browser = a_doomed_browser
    page, process = opened(a_body(tmp_path / "body.nrrd"), "-o", tmp_path / "out", empty_s=2, browser=browser)
    page.set("speed", "accurate")
    page.click("apply")
    wait_until(lambda: re.search(r"Slices \d+", page.text("progress")), "progress")
    (worker,) = [each for each in process.children(recursive=True) if "worker_main" in " ".join(each.cmdline())]
    worker.kill()
    wait_until(lambda: "worker process" in page.text("message"), "the word of the worker's end")
    page.segment()
    corrected = tmp_path / "out" / "body.corrected.seg.nrrd"
    wait_until(corrected.exists, "the result on the disk")
    before = (voxels(corrected) == 1).sum()
    page.tool("brush")
    page.drag(AXIAL, (0.25, 0.3), (0.35, 0.3))
    wait_until(lambda: (voxels(corrected) == 1).sum() > before, "the stroke on the disk")
    painted = voxels(corrected)

    sessions = process.children()
    kill_browser()
    _, alive = psutil.wait_procs(sessions, timeout=PATIENCE_S)
    assert not alive
    np.testing.assert_array_equal(voxels(corrected), painted)

    again, server = opened(tmp_path / "body.nrrd", "-o", tmp_path / "out")
    wait_until(lambda: again.colored(AXIAL).sum() > 300, "what was saved")
    again.tool("brush")
    again.drag(AXIAL, (0.25, -0.3), (0.35, -0.3))
    wait_until(lambda: (voxels(corrected) == 1).sum() > (painted == 1).sum(), "the second stroke")
    below = server.children(recursive=True)
    server.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(below, timeout=PATIENCE_S)
    assert not alive
    assert (voxels(corrected) == 1).sum() > (painted == 1).sum()
