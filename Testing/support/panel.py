"""The module's panel on the stand-in for Slicer's Qt, with a real CT, for tests and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import UNetPlusPlusSegmentLib
from Testing.support.mrml_scene import add_volume, slicer
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import start
from Testing.support.worker_logic import GRID, LONG, a_scan

qt = start()
MODULE_FILE = Path(UNetPlusPlusSegmentLib.__file__).parents[1] / "UNetPlusPlusSegment.py"
PACKAGES = ("UNetPlusPlusSegmentLib", "UNetPlusPlusSegmentUILib")
LICENCE_ACCEPTED = "UNetPlusPlusSegment/ModelsLicenceAccepted"


def add_chest_ct(name: str = "CTChest"):
    """The chest CT of the slicerio package, as a volume of the scene."""
    slicerio = pytest.importorskip("slicerio")
    image = sitk.ReadImage(slicerio.get_testdata_file("CTChest4.nrrd"))
    return add_image(image, name)


def add_image(image: sitk.Image, name: str):
    """A volume of the scene with the voxels and the place of an image (LPS)."""
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    ijk_to_lps = np.eye(4)
    ijk_to_lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    ijk_to_lps[:3, 3] = image.GetOrigin()
    return slicer.util.addVolumeFromArray(sitk.GetArrayFromImage(image), lps_to_ras @ ijk_to_lps, name)


def click_apply(ui) -> None:
    """Click like a user: nothing happens if the button is disabled."""
    assert ui.applyButton.enabled, ui.messageLabel.text
    ui.applyButton.click()


def wait_for_end(panel) -> None:
    """Wait until the button says Apply again."""
    wait_until(lambda: panel.ui.applyButton.text == "Apply")


def table_of(ui) -> list[list[str]]:
    """The rows of the results table as shown to the user."""
    table = ui.resultsTable
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def start_long_run(panel) -> None:
    """A run of which some slices are done."""
    add_volume(a_scan(LONG), GRID, "Abdomen")
    panel.ui.speedComboBox.setCurrentText("Accurate")
    click_apply(panel.ui)
    wait_until(lambda: panel.ui.progressBar.value > 0)


def segmentation_of(scene):
    return scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
