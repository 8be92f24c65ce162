"""Takes the README's pictures of panel, effect and app, and of the sample data: `make pictures`.

They show real runs on the stand-in for Slicer's Qt, with the chest CT of the slicerio package, in Qt's Fusion style.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicerio

from Testing.support.mrml_scene import slicer
from Testing.support.panel import add_chest_ct, click_apply, wait_for_end
from Testing.support.segment_editor import press, wait
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import dialogs
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.network.bundle import find_bundles

ROOT = Path(__file__).resolve().parents[1]
SCREENSHOTS = ROOT / "Resources" / "Screenshots"
THUMBNAIL = ROOT / "UNetPlusPlusSegment" / "Resources" / "Icons" / "SmallChestCT.png"
WIDTH = 420
SPOT = 0.198, -0.046  # of the axial view's width and height, from its middle: in the left lung of the sample chest


def take(frame, name: str) -> None:
    frame.setFixedWidth(WIDTH)
    frame.adjustSize()
    slicer.app.processEvents()
    frame.setFixedHeight(frame.layout().totalMinimumHeightForWidth(WIDTH))
    slicer.app.processEvents()
    frame.grab().save(str(SCREENSHOTS / f"{name}.png"))
    frame.setMinimumHeight(0)
    frame.setMaximumHeight(16777215)


def test_pictures_of_the_panel(frame):
    panel, ui = frame.self(), frame.self().ui
    frame.show()
    take(frame, "panel-empty")
    add_chest_ct("SmallChestCT")
    ui.deviceComboBox.setCurrentText("CPU")
    click_apply(ui)
    wait_until(lambda: "left" in ui.progressBar.format and 3 * ui.progressBar.value > ui.progressBar.maximum)
    take(frame, "panel-running")
    wait_for_end(panel)
    take(frame, "panel-done")
    mr = np.random.default_rng(0).integers(0, 800, (10, 64, 64)).astype(np.int16)
    ui.inputSelector.setCurrentNode(slicer.util.addVolumeFromArray(mr, np.eye(4), "MR brain"))
    dialogs.answers.append("OK")
    click_apply(ui)
    wait_for_end(panel)
    take(frame, "panel-error")


@pytest.fixture(scope="module")
def models():
    """Those that ship."""


def test_pictures_of_the_effect(opened):
    volume, _ = files.read_volume(slicerio.get_testdata_file("CTChest4.nrrd"))
    at = opened(volume.array, volume.ijk_to_ras)
    at.editor.show()
    if find_bundles("nodule")[0]:
        at.effect._options.targetBox.setCurrentIndex(at.effect._options.targetBox.findData("Nodule"))
        take(at.editor, "effect-nodules")
        at.effect._options.targetBox.setCurrentIndex(at.effect._options.targetBox.findData("Liver"))
    press(at, "preview")
    wait(at)
    take(at.editor, "effect-preview")


def test_picture_of_the_sample_data():
    image = sitk.ReadImage(slicerio.get_testdata_file("CTChest4.nrrd"))
    image = sitk.DICOMOrient(image, "LPS")
    side, height = 260, 280
    spacing = image.GetSpacing()[0] * image.GetSize()[0] / side
    size = (side, 1, round(image.GetSpacing()[2] * image.GetSize()[2] / spacing))
    origin = image.TransformContinuousIndexToPhysicalPoint((-0.5, image.GetSize()[1] / 2, -0.5))
    coronal = sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear, origin, [spacing] * 3, image.GetDirection(), -1000
    )
    hu = sitk.GetArrayFromImage(coronal)[::-1, 0]
    grey = np.clip((hu + 250) / 650 * 255, 0, 255).astype(np.uint8)
    framed = np.zeros((height, side), np.uint8)
    top = (height - len(grey)) // 2
    framed[max(top, 0) : max(top, 0) + len(grey)] = grey[: height - max(top, 0)]
    sitk.WriteImage(sitk.GetImageFromArray(framed), str(THUMBNAIL))


def test_pictures_of_the_app(an_app, a_page, tmp_path):
    """The page on Slicer's own views: the liver in three slices and 3D, nodules in a chest."""
    from Testing.support.visitor import AXIAL, Visitor, wait_until

    _, address = an_app(
        slicerio.get_testdata_file("CTChest4.nrrd"),
        "-o",
        tmp_path,
        models=ROOT / "UNetPlusPlusSegment" / "Resources" / "Models",
    )
    page = Visitor(a_page(), address)
    wait_until(lambda: page.pixels(AXIAL).std() > 20, "the CT")
    page.segment()
    page.look_at(0)
    wait_until(lambda: page.colored(AXIAL).sum() > 1000, "the liver")
    page.picture(SCREENSHOTS / "app-liver.png")
    page = Visitor(a_page(), address)  # another session
    wait_until(lambda: page.pixels(AXIAL).std() > 20, "the CT")
    page.set("window_name", "Lung")
    page.set("target", "Nodule")
    wait_until(lambda: page.has("picking"), "the switch")
    page.set("picking", True)
    time.sleep(3)
    page.press(AXIAL, SPOT)
    wait_until(lambda: len(page.rows()) == 2, f"the spot, not {page.text('message')!r}")
    page.look_at(1)
    page.picture(SCREENSHOTS / "app-nodules.png")
