"""The Segment Editor with the effect of this project active on a volume, and its use by tests."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mrml_scene import add_volume, slicer
from slicer_qt.application import load_module, scene, slicer_app, wait_until
from slicer_qt.effects import an_editor

from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.scene import mrml

__all__ = ["an_editor", "opened", "scene", "slicer_app"]

MODULE = Path(mrml.__file__).parents[2] / "UNetPlusPlusSegment.py"


@pytest.fixture
def opened(an_editor, logic, scene, monkeypatch):
    """Call it with a CT: an editor with the effect active there; three segments, the first selected, the last hidden.

    The effect finds the fixture `logic`, with a controller, where it looks for the module's panel.
    """

    controllers = []

    def opened(array, ijk_to_ras, transform=None):
        load_module(MODULE)
        panel = SimpleNamespace(
            controller=importlib.import_module("UNetPlusPlusSegmentUILib.controller").RunController(logic)
        )
        controllers.append(panel.controller)
        monkeypatch.setattr(slicer.util, "getModuleWidget", lambda name: panel)
        slicer.app.settings().setValue("UNetPlusPlusSegment/ModelsLicenceAccepted", True)
        volume = add_volume(array, ijk_to_ras, transform=transform)
        segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        for name in ("selected", "visible", "hidden"):
            segmentation.GetSegmentation().AddEmptySegment(name, name)
        segmentation.GetDisplayNode().SetSegmentVisibility("hidden", False)
        editor = an_editor()
        editor.setSegmentationNode(segmentation)
        editor.setSourceVolumeNode(volume)
        editor.setCurrentSegmentID("selected")
        editor.setActiveEffectByName("UNet++")
        host = editor.effectByName("UNet++")
        node = editor.mrmlSegmentEditorNode()
        return SimpleNamespace(
            editor=editor, host=host, effect=host.self(), node=node, volume=volume, segmentation=segmentation
        )

    yield opened
    for each in controllers:
        each.close()
    for name in [each for each in sys.modules if each.startswith("SegmentEditorUNetPlusPlusLib")]:
        del sys.modules[name]
    sys.modules.pop(MODULE.stem, None)


def paint(at, segment_id: str, mask: np.ndarray) -> None:
    """Draw a segment, in a layer of its own."""
    drawn = [Segment(1, segment_id, "", (255, 0, 0), {})]
    mrml.show_segmentation(mask.astype(np.uint8), drawn, at.volume, at.segmentation, {1: segment_id})


def painted(at, segment_id: str) -> np.ndarray:
    return mrml.labelmap_of(at.segmentation, segment_id, at.volume)


def segment_ids(at) -> list[str]:
    return list(at.segmentation.GetSegmentation().GetSegmentIDs())


def press(at, button: str) -> None:
    getattr(at.effect._options, f"{button}Button").click()


def choose_box(at, roi) -> None:
    """Choose a ROI, or the whole volume, as the user does."""
    at.effect._options.roiSelector._native.pick(roi)


def wait(at) -> None:
    """Until the effect is at rest: nothing under way, or a preview shown."""
    wait_until(lambda: at.effect._edit is None or (at.effect._edit.isShown and not at.effect._edit.run.jobs), 600)
