"""Panel and effect side by side: one logic, one worker process and one controller for both."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from Testing.support.bright import bright_bundle
from Testing.support.mrml_scene import add_volume, slicer
from Testing.support.panel import click_apply, table_of, wait_for_end
from Testing.support.segment_editor import painted
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import dialogs
from Testing.support.worker_logic import GRID, LONG, a_scan, expected


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with one model, the only one that is found, also after Reload."""
    folder = tmp_path_factory.mktemp("models")
    bright_bundle(folder / "bright-v1.0.0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNETPP_MODELS", str(folder))
        patch.setattr("UNetPlusPlusSegmentLib.network.bundle.search_folders", lambda: [folder])
        yield folder


@pytest.fixture
def both(models, an_editor, request, scene):
    """Call it with a CT: the panel and an editor with the effect on it."""
    panel = request.getfixturevalue("frame").self()
    panel.ui.deviceComboBox.setCurrentText("CPU")

    def both(array):
        at = request.getfixturevalue("an_editor")()
        volume = add_volume(array, GRID, "Abdomen")
        segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segmentation.GetSegmentation().AddEmptySegment("selected", "selected")
        at.setSegmentationNode(segmentation)
        at.setSourceVolumeNode(volume)
        at.setCurrentSegmentID("selected")
        at.setActiveEffectByName("UNet++")
        return panel, at.effectByName("UNet++").self(), at

    yield both
    for name in [each for each in sys.modules if each.startswith("SegmentEditorUNetPlusPlusLib")]:
        del sys.modules[name]


def test_each_gets_its_own_result(both, models, scene):
    panel, effect, editor = both(a_scan())
    click_apply(panel.ui)
    effect.onApply()
    assert effect._edit.run in panel.controller._watches
    wait_until(lambda: effect._edit is None)
    wait_for_end(panel)
    found = expected(models, a_scan()) == 1
    node = editor.mrmlSegmentEditorNode()
    at = type("At", (), {"segmentation": node.GetSegmentationNode(), "volume": node.GetSourceVolumeNode()})
    np.testing.assert_array_equal(painted(at, "selected"), found)
    assert [row[0] for row in table_of(panel.ui)] == ["Liver"]
    assert panel.ui.outputSelector.currentNode() is not at.segmentation


def test_the_effect_accepts_what_does_not_look_like_ct_if_the_panel_does(both, scene):
    panel, effect, _editor = both(np.maximum(a_scan(), 0))
    dialogs.answers.append("OK")
    effect.onApply()
    wait_until(lambda: effect._edit is None)
    assert "run it anyway" in effect._options.message.text
    panel.ui.forceCheckBox.checked = True
    effect.onApply()
    wait_until(lambda: effect._edit is None)
    assert "The run was forced" in effect._options.message.text


def test_reload_ends_the_run_of_the_effect_which_goes_on_with_the_new_panel(both, scene):
    panel, effect, _editor = both(a_scan(LONG))
    effect.onApply()
    wait_until(lambda: effect._edit.run.progress is not None)
    modules = {name: sys.modules[name] for name in (type(panel).__module__, "UNetPlusPlusSegmentLib.scene.logic")}
    panel.onReload()
    assert effect._edit is None
    assert effect._options.message.text == "Cancelled."
    assert effect._options.applyButton.enabled
    for name, before in modules.items():  # Slicer itself reloads the module's file alone
        assert sys.modules[name] is not before
    reloaded = slicer.modules.UNetPlusPlusSegmentWidget
    assert type(reloaded) is sys.modules["UNetPlusPlusSegment"].UNetPlusPlusSegmentWidget is not type(panel)
    effect.onApply()
    assert effect._edit.run in reloaded.controller._watches
    effect.onCancel()
    wait_until(lambda: not reloaded.logic.busy)


def test_a_run_behind_another_one_says_that_it_waits(both, scene):
    panel, effect, _editor = both(a_scan(LONG))
    panel.ui.speedComboBox.setCurrentText("Accurate")
    click_apply(panel.ui)
    assert panel.ui.messageLabel.text == "Starting PyTorch..."
    wait_until(lambda: panel.ui.progressBar.value > 0)
    effect.onApply()
    assert effect._options.message.text == "Waiting for another run..."
    panel.ui.applyButton.click()
    wait_until(lambda: effect._options.message.text.startswith("Running on cpu"))
    effect.onCancel()
    wait_until(lambda: not panel.logic.busy)
