"""The panel's tables, and its models."""

from __future__ import annotations

import csv
import shutil

import pytest

from Testing.support.mrml_scene import (
    add_volume,
    slicer,
)
from Testing.support.panel import (
    click_apply,
    table_of,
    wait_for_end,
)
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import dialogs
from Testing.support.worker_logic import GRID, a_scan
from UNetPlusPlusSegmentLib.core.table import COLUMNS


def test_the_table_is_copied_and_saved_with_the_columns_of_the_command_line(panel, scene, tmp_path):
    volumeNode = add_volume(a_scan(), GRID, "Abdomen")
    volumeNode.AddDefaultStorageNode()
    volumeNode.GetStorageNode().SetFileName("/scans/abdomen.nrrd")
    click_apply(panel.ui)
    wait_for_end(panel)
    panel.ui.thresholdSlider.value = 0.7
    wait_until(lambda: panel._run.result.threshold == 0.7 and not panel._run.jobs)
    panel.ui.copyButton.click()
    lines = slicer.app.clipboard().text().splitlines()
    header, row = (line.split("\t") for line in lines)
    assert header[:3] == ["Segment", "Volume (ml)", "Mean HU"]
    assert row == table_of(panel.ui)[0]
    dialogs.answers.append(str(tmp_path / "table"))
    panel.ui.saveButton.click()
    with (tmp_path / "table.csv").open(encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert list(row) == list(COLUMNS)
    assert (row["case"], row["segment"], row["speed"]) == ("Abdomen", "Liver", "balanced")
    assert (row["threshold"], row["input"]) == ("0.7", "/scans/abdomen.nrrd")
    volume_ml = panel._run.measurements["Liver"]["volume_ml"]
    assert float(row["volume_ml"]) == pytest.approx(volume_ml, rel=1e-3)
    dialogs.answers.extend([str(tmp_path / "nowhere" / "table.csv"), "OK"])
    panel.ui.saveButton.click()
    assert "could not be written" in dialogs.seen[-1]


def test_nodules_get_columns_of_their_own(panel):
    class Run:
        running, result, error, volumeNode = False, None, None, None
        rows = (
            ("Nodule 1", {"volume_ml": 0.8421, "mean_hu": -12.4, "long_axis_mm": 14.26, "short_axis_mm": 9.1,
                          "mean_diameter_mm": 11.7, "kind": "part-solid", "solid_long_axis_mm": 4.36}),
            ("Nodule 2", {"volume_ml": 0.1, "mean_hu": 40.0, "long_axis_mm": 6.0, "short_axis_mm": 5.0,
                          "mean_diameter_mm": 5.5, "kind": "solid", "solid_long_axis_mm": None}),
        )  # fmt: skip

    panel._results.show(Run())
    table = panel.ui.resultsTable
    header = [table.horizontalHeaderItem(column).text() for column in range(table.columnCount)]
    assert header == ["Segment", "Volume (ml)", "Mean HU", "Axes (mm)", "Diameter (mm)", "Kind", "Solid part (mm)"]
    assert table_of(panel.ui) == [
        ["Nodule 1", "0.84", "-12", "14.3 × 9.1", "11.7", "part-solid", "4.4"],
        ["Nodule 2", "0.10", "40", "6.0 × 5.0", "5.5", "solid", ""],
    ]


def test_a_model_that_cannot_be_used_is_named_with_the_reason(panel, models):
    broken = models / "broken-v1.0.0"
    broken.mkdir()
    (broken / "model.json").write_text("{}")
    try:
        add_volume(a_scan(), GRID)
        panel.enter()
        assert "broken-v1.0.0" in panel.ui.messageLabel.text
        assert panel.ui.applyButton.enabled
    finally:
        shutil.rmtree(broken)


def test_the_models_folder_is_made_and_opened(panel, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "Ärzte und Modelle"))
    panel.ui.modelsFolderButton.click()
    (address,) = dialogs.opened
    assert address.startswith("file://")
    assert (tmp_path / "Ärzte und Modelle" / "UNetPlusPlusSegment" / "Models").is_dir()
