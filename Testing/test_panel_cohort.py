"""The panel's cohort: the real .ui and real MRML on a stand-in for Slicer's Qt, and a real process that runs the cases."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from Testing.support.mrml_scene import nothing_changes, segments_of, slicer, take_messages
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import dialogs
from Testing.support.worker_logic import GRID, LONG, a_cohort, a_scan
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.jobs.manifest import MANIFEST, is_running
from UNetPlusPlusSegmentLib.jobs.review import REVIEW, Mark, add_to_review, mark_of, read_lines, read_review
from UNetPlusPlusSegmentLib.scene import mrml


@pytest.fixture
def ui(models, frame, cohort, tmp_path):
    """The open panel with both folders chosen; the worker uses the processor."""
    ui = frame.self().ui
    ui.deviceComboBox.setCurrentText("CPU")
    dialogs.answers.extend([str(cohort), str(tmp_path / "out")])
    ui.cohortInputButton.click()
    ui.cohortFolderButton.click()
    return ui


@pytest.fixture(scope="module")
def ran(models, tmp_path_factory) -> Path:
    """A folder with scans, `in`, and what a cohort found in them, `out`: to start a process takes seconds."""
    folder = tmp_path_factory.mktemp("ran")
    scans = a_cohort(folder / "in")
    assert main(["cohort", "liver", str(scans), "-o", str(folder / "out"), "--device", "cpu", "--quiet"]) == 1
    return folder


@pytest.fixture
def shipped_models(monkeypatch):
    """Only these are found; `models` keeps its own until the last test of this file."""
    folder = Path(files.__file__).parents[2] / "Resources" / "Models"
    monkeypatch.setattr("UNetPlusPlusSegmentLib.network.bundle.search_folders", lambda: [folder])


def run(ui) -> None:
    ui.cohortRunButton.click()
    wait_until(lambda: ui.cohortRunButton.text == "Run cohort")


@pytest.fixture
def results(ui, ran, tmp_path) -> None:
    """The panel shows the results of a cohort, as if it had been run on the scans of this test."""
    shutil.copytree(ran / "out", tmp_path / "out")
    manifest = tmp_path / "out" / MANIFEST
    manifest.write_text(manifest.read_text().replace(str(ran), str(tmp_path)))
    ui.cohortFolderEdit.editingFinished()


def table_of(ui) -> list[list[str]]:
    table = ui.cohortTable
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def click(ui, case: str) -> None:
    """Click the row of a case."""
    ui.cohortTable.cellClicked([row[0] for row in table_of(ui)].index(case), 0)


def names_in(scene) -> list[str]:
    nodes = [
        *slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"),
        *slicer.util.getNodesByClass("vtkMRMLSegmentationNode"),
    ]
    return [node.GetName() for node in nodes]


def grow(scene) -> None:
    """Add a block to the segment that is shown, as somebody does with the Segment Editor."""
    segmentation = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    volume = scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    (segment_id,) = segments_of(segmentation)
    mask = mrml.labelmap_of(segmentation, segment_id, volume)
    mask[:2, :5, :5] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentation, segment_id, volume)
    take_messages()  # the wheel lacks the colours of the label map that this makes


def test_a_user_runs_a_cohort_looks_through_it_and_corrects_a_case(ui, scene, tmp_path):
    out = tmp_path / "out"
    ui.cohortRunButton.click()
    assert (ui.cohortRunButton.text, ui.cohortInputEdit.enabled) == ("Cancel", False)
    wait_until(lambda: ui.cohortProgressBar.maximum == 3)
    wait_until(lambda: ui.cohortRunButton.text == "Run cohort")
    assert ui.cohortLabel.text == "2 done, 1 failed."
    rows = table_of(ui)
    assert [row[:2] for row in rows] == [["broken", "failed"], ["one", "done"], ["two", "done"]]
    assert rows[0][2] == "" and rows[1][2].endswith(" % doubtful")
    assert {"one.seg.nrrd", "two.seg.nrrd", "report.html", "measurements.csv"} <= {each.name for each in out.iterdir()}
    assert names_in(scene) == []

    click(ui, "one")
    assert names_in(scene) == ["one", "one segmentation"]
    assert ui.cohortTable.currentRow() == 1
    ui.cohortAcceptButton.click()
    ui.cohortCommentEdit.text = "Good, but small"
    ui.cohortCommentEdit.editingFinished()
    ui.cohortNextButton.click()
    assert names_in(scene) == ["two", "two segmentation"], "the case before was dropped"
    assert ui.cohortCommentEdit.text == ""
    ui.cohortFlagButton.click()
    assert [row[3] for row in table_of(ui)] == ["", "accepted", "flagged"]
    ui.cohortFlagButton.click()
    assert [row[3] for row in table_of(ui)] == ["", "accepted", ""], "again takes it back"
    review = read_review(out)
    assert (review["one"]["verdict"], review["one"]["comment"]) == ("accepted", "Good, but small")

    ui.cohortPreviousButton.click()
    assert names_in(scene) == ["one", "one segmentation"]
    assert ui.cohortCommentEdit.text == "Good, but small"
    before = (out / "one.seg.nrrd").read_bytes()
    grow(scene)
    dialogs.answers.append("Cancel")
    ui.cohortNextButton.click()
    assert "has unsaved changes" in dialogs.seen[-1]
    assert names_in(scene) == ["one", "one segmentation"]
    ui.cohortSaveButton.click()
    assert ui.cohortLabel.text.startswith("Saved as one.corrected: Liver ")
    assert (out / "one.seg.nrrd").read_bytes() == before
    with (out / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        volumes = {row["case"]: float(row["volume_ml"] or 0) for row in csv.DictReader(stream)}
    assert volumes["one.corrected"] == pytest.approx(volumes["one"] + 2 * 25 * 12 / 1000, abs=0.02)
    ui.cohortNextButton.click()  # nothing is asked now
    click(ui, "one")
    labels, _ = files.read_volume(out / "one.corrected.seg.nrrd")
    (segment_id,) = segments_of(scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"))
    shown = mrml.labelmap_of(
        scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"),
        segment_id,
        scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode"),
    )
    np.testing.assert_array_equal(shown, labels.array > 0)

    ui.cohortReportButton.click()
    assert dialogs.opened[-1].endswith("report.html")
    assert "Liver (corrected)" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("typed", ["~/{}", "{}"], ids=["at home", "relative"])
def test_folders_may_be_typed_as_in_a_shell(ui, tmp_path, monkeypatch, typed):
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ui.cohortInputEdit.text, ui.cohortFolderEdit.text = typed.format("in"), typed.format("out")
    run(ui)
    assert ui.cohortLabel.text == "2 done, 1 failed."
    assert (tmp_path / "out" / "one.seg.nrrd").is_file()


def test_the_panel_finds_what_the_logic_finds(ui, logic, cohort, tmp_path):
    run(ui)
    logic.processFolder(cohort, tmp_path / "logic", device="cpu")
    tables = [(tmp_path / name / "measurements.csv").read_text() for name in ("out", "logic")]
    assert tables[0] == tables[1]


@pytest.mark.slow(reason="four scans, three times over; the test above does the same with small ones")
def test_the_scans_at_hand_get_the_same_numbers_from_shell_panel_and_dask(shipped_models, frame, shared_data, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("abdomen_dicom", "chest_lesion_ct.nrrd", "abdomen_3mm_ct.nii.gz", "not_ct_mr.nii.gz"):
        (scans / name).symlink_to(shared_data(f"volumes/{name}"))
    shell = ["cohort", "liver", str(scans), "--device", "cpu", "-o"]
    assert main([*shell, str(tmp_path / "shell")]) == 1  # one of the scans is no CT
    assert main([*shell, str(tmp_path / "dask"), "--workers", "2"]) == 1
    ui = frame.self().ui
    ui.deviceComboBox.setCurrentText("CPU")
    ui.cohortInputEdit.text, ui.cohortFolderEdit.text = str(scans), str(tmp_path / "panel")
    run(ui)
    tables = [(tmp_path / name / "measurements.csv").read_text() for name in ("shell", "dask", "panel")]
    assert tables[0] == tables[1] == tables[2]
    with (tmp_path / "shell" / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        volumes_ml = {row["case"]: row["volume_ml"] for row in csv.DictReader(stream)}
    assert volumes_ml.pop("not_ct_mr") == ""
    assert all(500 < float(each) < 2000 for each in volumes_ml.values())


def test_a_cohort_is_cancelled_at_once_and_goes_on_where_it_stopped(ui, cohort, tmp_path):
    files.write_volume(cohort / "two.nii.gz", a_scan(LONG), GRID)
    ui.speedComboBox.setCurrentText("Accurate")
    ui.cohortRunButton.click()
    wait_until(lambda: len(table_of(ui)) == 2)
    ui.cohortRunButton.click()
    assert (ui.cohortRunButton.text, ui.cohortLabel.text) == ("Run cohort", "Cancelled.")
    wait_until(lambda: not is_running(tmp_path / "out"))
    files.write_volume(cohort / "two.nii.gz", a_scan(), GRID)  # the rest in a moment
    run(ui)
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines] == ["broken", "one", "broken", "two"]


def test_what_is_missing_is_said_in_a_sentence(frame, models, cohort, tmp_path):
    ui = frame.self().ui
    ui.cohortRunButton.click()
    assert ui.cohortLabel.text == "Choose a folder with scans and a folder for the results."
    empty = tmp_path / "empty"
    empty.mkdir()
    ui.cohortInputEdit.text, ui.cohortFolderEdit.text = str(empty), str(tmp_path / "out")
    dialogs.answers.append("OK")
    run(ui)
    assert "No volume files or folders were found" in ui.cohortLabel.text
    assert dialogs.seen[-1] == ui.cohortLabel.text
    assert not (tmp_path / "out").exists()


def test_a_removed_case_and_a_damaged_review_are_reported_and_nothing_is_loaded(results, ui, scene, cohort, tmp_path):
    with nothing_changes(scene):
        (tmp_path / "out" / "one.seg.nrrd").unlink()
        click(ui, "one")
        assert "one.seg.nrrd no longer exists" in ui.cohortLabel.text
        (cohort / "two.nii.gz").unlink()
        click(ui, "two")
        assert "There is no file or folder" in ui.cohortLabel.text
        click(ui, "broken")
        assert "broken.nrrd" in ui.cohortLabel.text
    assert not ui.cohortAcceptButton.enabled
    (tmp_path / "out" / "review.csv").write_text("name,age\n")
    ui.cohortFolderEdit.editingFinished()
    assert "is not a review" in ui.cohortLabel.text


def test_a_case_whose_scan_was_replaced_is_not_shown_until_it_is_run_again(ui, scene, cohort):
    run(ui)
    files.write_volume(cohort / "one.nrrd", a_scan() + 1, GRID)
    with nothing_changes(scene):
        click(ui, "one")
    assert "one.nrrd is no longer the scan that was segmented: run the cohort again" in ui.cohortLabel.text
    run(ui)
    click(ui, "one")
    assert names_in(scene) == ["one", "one segmentation"]


def test_the_table_tells_of_the_doubt_in_a_case(ui, tmp_path):
    found = {
        "a": {"L": {"volume_ml": 2.0, "expected_dice": 0.91, "doubtful_share": 0.3}},
        "b": {"L": {"volume_ml": 0.0}},
        "c": {},
        "d": {"L": {"volume_ml": 2.0, "doubtful_share": 0.07}},
        "e": {
            "Nodule 1": {"volume_ml": 2.0, "probability": 0.97},
            "Nodule 2": {"volume_ml": 0.1, "probability": 0.416},
        },
    }
    (tmp_path / "out").mkdir()
    lines = [{"case": case, "status": "done", "measurements": measured} for case, measured in found.items()]
    (tmp_path / "out" / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ui.cohortFolderEdit.editingFinished()
    assert [(row[0], row[2]) for row in table_of(ui)] == [
        ("b", "not found"), ("e", "probability 0.42"), ("a", "expected Dice 0.91"), ("d", "7 % doubtful"), ("c", "")
    ]  # fmt: skip


def test_a_scene_that_is_closed_takes_the_case_with_it(results, ui, scene):
    click(ui, "one")
    scene.Clear(False)
    assert not ui.cohortSaveButton.enabled
    click(ui, "two")
    assert names_in(scene) == ["two", "two segmentation"]


@pytest.mark.parametrize("leave", ["next case", "closed scene", "reloaded panel"])
def test_a_comment_is_kept_if_the_case_is_left_with_the_cursor_in_the_field(results, ui, frame, scene, tmp_path, leave):
    click(ui, "one")
    ui.cohortCommentEdit.text = "Missed in segment VII"
    if leave == "next case":
        ui.cohortNextButton.click()
        assert ui.cohortCommentEdit.text == "" and names_in(scene) == ["two", "two segmentation"]
    elif leave == "closed scene":
        scene.Clear(False)
    else:
        frame.self().onReload()
    review = read_review(tmp_path / "out")
    assert {case: said["comment"] for case, said in review.items()} == {"one": "Missed in segment VII"}


@pytest.fixture
def unsaved(results, ui, scene, tmp_path) -> Path:
    """A case is open, and its comment cannot be saved in this review."""
    click(ui, "one")
    review = tmp_path / "out" / REVIEW
    review.mkdir()  # like a file that another program has open, it cannot be written
    ui.cohortCommentEdit.text = "Missed in segment VII"
    return review


def test_a_case_with_a_comment_that_cannot_be_saved_stays_open_until_it_can(ui, scene, unsaved):
    dialogs.answers.extend(["OK", "Cancel"])
    ui.cohortCommentEdit.editingFinished()
    ui.cohortNextButton.click()
    assert "review.csv cannot be" in dialogs.seen[-1]
    assert dialogs.seen[-1].endswith("Leave one without saving the comment?")
    assert names_in(scene) == ["one", "one segmentation"]
    assert ui.cohortCommentEdit.text == "Missed in segment VII"
    assert table_of(ui)[ui.cohortTable.currentRow()][0] == "one"
    unsaved.rmdir()
    ui.cohortNextButton.click()
    assert names_in(scene) == ["two", "two segmentation"]
    assert mark_of(read_review(unsaved.parent), "one") == Mark("", "Missed in segment VII")


def test_a_comment_that_cannot_be_saved_goes_if_the_user_agrees(ui, scene, unsaved):
    dialogs.answers.append("OK")
    ui.cohortNextButton.click()
    assert names_in(scene) == ["two", "two segmentation"]
    assert ui.cohortCommentEdit.text == ""
    unsaved.rmdir()
    ui.cohortPreviousButton.click()
    assert (names_in(scene), ui.cohortCommentEdit.text) == (["one", "one segmentation"], "")
    assert read_review(unsaved.parent) == {}


def test_a_comment_that_cannot_be_saved_when_the_scene_is_closed_is_shown_a_last_time(ui, scene, unsaved):
    dialogs.answers.append("OK")
    scene.Clear(False)
    assert dialogs.seen[-1].endswith("The comment on one is not saved: Missed in segment VII")
    unsaved.rmdir()
    click(ui, "two")
    assert ui.cohortCommentEdit.text == ""


@pytest.mark.parametrize(
    ("button", "now"),
    [
        ("Next", Mark("flagged", "left lobe missed")),
        ("Accept", Mark("accepted", "left lobe missed")),
        ("Flag", Mark("flagged", "left lobe missed")),
    ],
)
def test_what_a_colleague_has_said_since_a_case_was_opened_stays_unless_it_is_changed(
    results, ui, scene, tmp_path, button, now
):
    out = tmp_path / "out"
    add_to_review(out, "one", "", "small", "colleague")  # it is shown, though the list was read before
    click(ui, "one")
    assert ui.cohortCommentEdit.text == "small"
    add_to_review(out, "one", "flagged", "left lobe missed", "colleague")
    getattr(ui, f"cohort{button}Button").click()
    assert mark_of(read_review(out), "one") == now
    assert len(read_lines(out / REVIEW)) == 2 + (button != "Next")
    if button != "Next":
        assert ui.cohortCommentEdit.text == now.comment
        getattr(ui, f"cohort{button}Button").click()
        assert mark_of(read_review(out), "one") == Mark("", now.comment), "again takes it back"


def another_case_is_done(out: Path) -> None:
    """As another process does it, add a case, which is listed first."""
    with (out / "manifest.jsonl").open("a") as stream:
        stream.write(json.dumps({"case": "aaa", "status": "failed", "reason": "Why."}) + "\n")


@pytest.mark.parametrize("way", ["row", "row, with the cursor in the field", "next", "row, while a dialog is open"])
def test_the_case_that_was_clicked_is_opened_though_others_were_added_to_the_list(
    results, ui, scene, tmp_path, monkeypatch, way
):
    click(ui, "one")
    row_of_two = [row[0] for row in table_of(ui)].index("two")
    if way.endswith("open"):
        grow(scene)

        def leave(_):
            another_case_is_done(tmp_path / "out")
            ui.cohortFolderEdit.editingFinished()
            return True

        monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", leave)
    else:
        another_case_is_done(tmp_path / "out")
        ui.cohortCommentEdit.text = "Too small"
    if way.endswith("field"):
        ui.cohortCommentEdit.editingFinished()  # the mouse button has gone down, and takes the cursor out of the field
    if way == "next":
        ui.cohortNextButton.click()
    else:
        ui.cohortTable.cellClicked(row_of_two, 0)
    assert names_in(scene) == ["two", "two segmentation"]
    assert table_of(ui)[ui.cohortTable.currentRow()][0] == "two"


def test_a_panel_that_is_closed_ends_its_cohort(ui, frame, cohort, tmp_path):
    files.write_volume(cohort / "two.nii.gz", a_scan(LONG), GRID)
    ui.cohortRunButton.click()
    wait_until(lambda: ui.cohortProgressBar.maximum == 3)
    frame.self().onReload()
    wait_until(lambda: not is_running(tmp_path / "out"))


def test_a_verdict_belongs_to_the_case_on_the_screen_whichever_folder_is_listed(results, ui, scene, tmp_path):
    click(ui, "one")
    shown = names_in(scene)
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "out", other)
    ui.cohortFolderEdit.text = str(other)
    ui.cohortFolderEdit.editingFinished()
    ui.cohortAcceptButton.click()
    assert (set(read_review(tmp_path / "out")), set(read_review(other))) == ({"one"}, set())
    assert "accepted" not in {row[3] for row in table_of(ui)}
    (other / "one.seg.nrrd").unlink()
    click(ui, "one")  # of the other folder, where its segmentation is missing
    assert "one.seg.nrrd no longer exists" in ui.cohortLabel.text
    assert names_in(scene) != shown


@pytest.mark.parametrize("kind", ["vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode"])
def test_a_case_of_which_a_node_was_removed_is_loaded_again_by_a_click(results, ui, scene, kind):
    click(ui, "one")
    scene.RemoveNode(scene.GetFirstNodeByClass(kind))
    dialogs.answers.append("OK")
    ui.cohortSaveButton.click()
    assert "load the case again" in ui.cohortLabel.text
    click(ui, "one")
    assert names_in(scene) == ["one", "one segmentation"]
    ui.cohortSaveButton.click()
    assert ui.cohortLabel.text.startswith("Saved as one.corrected")


def test_what_was_said_of_one_folder_is_not_said_of_the_next(ui, tmp_path):
    run(ui)
    assert ui.cohortLabel.text == "2 done, 1 failed."
    ui.cohortFolderEdit.text = str(tmp_path / "other")
    ui.cohortFolderEdit.editingFinished()
    assert ui.cohortLabel.text == ""


def test_a_name_or_note_that_looks_like_html_is_shown_as_it_is(ui):
    import qt

    assert ui.cohortLabel.textFormat == ui.messageLabel.textFormat == qt.Qt.PlainText
