"""The module's panel on the stand-in for Slicer's Qt, with a real CT, for tests and pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from mrml_scene import slicer
from slicer_qt.application import load_module, wait_until
from slicer_qt.pythonqt import start

import UNetPlusPlusSegmentLib

qt = start()
MODULE_FILE = Path(UNetPlusPlusSegmentLib.__file__).parents[1] / "UNetPlusPlusSegment.py"
PACKAGES = ("UNetPlusPlusSegmentLib", "UNetPlusPlusSegmentUILib")
LICENCE_ACCEPTED = "UNetPlusPlusSegment/ModelsLicenceAccepted"


@pytest.fixture
def frame(slicer_app):
    """The module as it lies in Slicer's window, opened, with the licence of the models accepted already."""
    qt.QSettings().setValue(LICENCE_ACCEPTED, True)
    module = load_module(MODULE_FILE)
    packages = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES}
    widget = module.widgetRepresentation()
    widget.enter()
    yield widget
    slicer_app.moduleManager().moduleAboutToBeUnloaded(MODULE_FILE.stem)
    widget.exit()
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:  # Reload reads them anew
        del sys.modules[name]
    sys.modules.update(packages)


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
    """Click as a user does: nothing happens if the button is disabled."""
    assert ui.applyButton.enabled, ui.messageLabel.text
    ui.applyButton.click()


def wait_for_end(panel) -> None:
    """Until the button says Apply again."""
    wait_until(lambda: panel.ui.applyButton.text == "Apply", 600)  # on a busy computer


def table_of(ui) -> list[list[str]]:
    """Rows of the results table as the user reads them."""
    table = ui.resultsTable
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]
