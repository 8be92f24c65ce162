"""The panel as its user meets it: the real .ui, the real worker process and real MRML, on a stand-in for Slicer's Qt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from Testing.support.mrml_scene import (
    add_hand_made_segments,
    add_volume,
    all_about,
    nothing_changes,
    segments_of,
    slicer,
    take_messages,
)
from Testing.support.panel import (
    LICENCE_ACCEPTED,
    MODULE_FILE,
    add_chest_ct,
    click_apply,
    qt,
    segmentation_of,
    table_of,
    wait_for_end,
)
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import dialogs
from Testing.support.worker_logic import GRID, a_scan
from UNetPlusPlusSegmentLib.scene import mrml, pytorch_install

SAVED_BY_0_1 = """<MRML version="slicer-core 4.0.0 0">
<ScriptedModule id="vtkMRMLScriptedModuleNodeUNetPlusPlusSegment" name="UNetPlusPlusSegment" hideFromEditors="true"
  singletonTag="UNetPlusPlusSegment" attributes="ModuleName:UNetPlusPlusSegment"
  references="inputVolume:vtkMRMLScalarVolumeNode2;outputSegmentation:vtkMRMLSegmentationNode1;points:vtkMRMLMarkupsFiducialNode1;roi:vtkMRMLMarkupsROINode1;"
  parameter0= "allFrames True" parameter1= "device CPU" parameter2= "force True" parameter3= "inputVolume "
  parameter4= "model bright-v1.0.0" parameter5= "outputSegmentation " parameter6= "points "
  parameter7= "probabilityMap True" parameter8= "roi " parameter9= "speed FAST" parameter10= "target LIVER"
  parameter11= "threshold 0.37" parameter12= "uncertaintyMap True"></ScriptedModule>
<Volume id="vtkMRMLScalarVolumeNode1" name="Chest"></Volume>
<Volume id="vtkMRMLScalarVolumeNode2" name="Abdomen"></Volume>
<MarkupsFiducial id="vtkMRMLMarkupsFiducialNode1" name="P"></MarkupsFiducial>
<MarkupsROI id="vtkMRMLMarkupsROINode1" name="R"></MarkupsROI>
<Segmentation id="vtkMRMLSegmentationNode1" name="Abdomen segmentation"></Segmentation>
</MRML>"""


# The story


def test_a_user_segments_a_ct_cancels_tries_again_and_comes_back_to_the_saved_scene(frame, scene, tmp_path):
    panel, ui = frame.self(), frame.self().ui
    assert (ui.applyButton.text, ui.applyButton.enabled) == ("Apply", False)
    assert "Load a CT" in ui.messageLabel.text
    ct = add_chest_ct()
    assert ui.inputSelector.currentNode() is ct
    ui.deviceComboBox.setCurrentText("CPU")
    ui.speedComboBox.setCurrentText("Accurate")

    click_apply(ui)
    assert (ui.applyButton.text, ui.inputsBox.enabled) == ("Cancel", False)
    wait_until(lambda: ui.progressBar.value > 0)
    assert ui.progressBar.format.startswith("Slices ")
    assert ui.messageLabel.text.startswith("Running on cpu")
    assert "GB of memory free" in ui.messageLabel.text
    with nothing_changes(scene):
        ui.applyButton.click()
        wait_for_end(panel)
    assert ui.messageLabel.text == "Cancelled."

    ui.speedComboBox.setCurrentText("Fast")
    click_apply(ui)
    wait_for_end(panel)
    assert ui.messageLabel.text.startswith("Done in ")
    segmentation = ui.outputSelector.currentNode()
    assert segmentation.GetName() == "CTChest segmentation"
    ((name, volume_ml, mean_hu, *_),) = table_of(ui)
    assert name == "Liver"
    assert 300 < float(volume_ml) < 3000
    assert 0 < float(mean_hu) < 120
    ui.resultsTable.cellClicked(0, 0)

    ui.thresholdSlider.value = 0.8
    wait_until(lambda: table_of(ui)[0][1] != volume_ml)
    assert float(table_of(ui)[0][1]) < float(volume_ml)
    ((key, segment),) = segments_of(segmentation).items()
    mask, terminology = mrml.labelmap_of(segmentation, key, ct), segment.GetTerminology()

    for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
        if node.GetClassName() in ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode"):
            node.AddDefaultStorageNode()
            node.GetStorageNode().SetFileName(
                str(tmp_path / f"{node.GetID()}.{'seg.' * node.IsA('vtkMRMLSegmentationNode')}nrrd")
            )
            assert node.GetStorageNode().WriteData(node)
    saved = tmp_path / "scene.mrml"
    assert scene.Commit(str(saved))
    scene.Clear(False)
    assert (ui.resultsTable.rowCount, ui.applyButton.enabled) == (0, False)

    scene.SetURL(str(saved))
    assert scene.Import()
    take_messages()  # the wheel lacks what Slicer's colour nodes are read with
    assert ui.inputSelector.currentNode().GetName() == "CTChest"
    assert ui.outputSelector.currentNode().GetName() == "CTChest segmentation"
    assert ui.thresholdSlider.value == 0.8
    assert ui.deviceComboBox.currentText == "CPU"
    ((key, segment),) = segments_of(ui.outputSelector.currentNode()).items()
    assert (segment.GetName(), segment.GetTerminology()) == ("Liver", terminology)
    loaded = mrml.labelmap_of(ui.outputSelector.currentNode(), key, ui.inputSelector.currentNode())
    np.testing.assert_array_equal(loaded, mask)

    dialogs.answers.append("Replace")
    click_apply(ui)
    wait_for_end(panel)
    assert [row[0] for row in table_of(ui)] == ["Liver"]
    assert list(segments_of(ui.outputSelector.currentNode())) == [key]


def test_a_scene_that_0_1_saved_brings_its_settings(panel, scene, tmp_path):
    saved = tmp_path / "saved.mrml"
    saved.write_text(SAVED_BY_0_1)
    scene.SetURL(str(saved))
    assert scene.Import()
    take_messages()
    ui, parameters = panel.ui, panel._parameterNode
    chosen = {
        "inputVolume": "Abdomen", "outputSegmentation": "Abdomen segmentation", "points": "P", "roi": "R"
    }  # fmt: skip
    assert {name: getattr(parameters, name).GetName() for name in chosen} == chosen
    assert (parameters.target.casefold(), parameters.model) == ("liver", "bright-v1.0.0")
    assert ui.targetComboBox.currentText == "Liver"
    for box in (ui.allFramesCheckBox, ui.forceCheckBox, ui.probabilityCheckBox, ui.uncertaintyCheckBox):
        assert box.checked
    assert (ui.speedComboBox.currentText, ui.deviceComboBox.currentText) == ("Fast", "CPU")
    assert ui.thresholdSlider.value == 0.37


# What is asked


def test_a_segment_that_is_there_already_is_replaced_kept_or_left_as_the_user_says(panel, scene):
    ui = panel.ui
    add_volume(a_scan(), GRID, "Abdomen")
    add_hand_made_segments()
    ui.outputSelector.setCurrentNode(segmentation_of(scene))
    by_hand = all_about(segmentation_of(scene))
    for answer, names in (("", ["Liver"]), ("Add new", ["Liver", "Liver_1"]), ("Replace", ["Liver", "Liver_1"])):
        if answer:
            dialogs.answers.append(answer)
        click_apply(ui)
        wait_for_end(panel)
        now = all_about(segmentation_of(scene))
        assert {key: now[key] for key in by_hand} == by_hand
        assert [segment.GetName() for segment in segments_of(segmentation_of(scene)).values()][2:] == names
    dialogs.answers.append("Cancel")
    with nothing_changes(scene, segmentation_of(scene)):
        click_apply(ui)
        assert ui.applyButton.text == "Apply"
    assert "already contains Liver" in dialogs.seen[-1]


def test_the_licence_is_accepted_once_and_nothing_runs_before(panel, scene):
    add_volume(a_scan(), GRID)
    qt.QSettings().setValue(LICENCE_ACCEPTED, False)
    dialogs.answers.append("Cancel")
    with nothing_changes(scene):
        click_apply(panel.ui)
        assert panel.ui.applyButton.text == "Apply"
    dialogs.answers.append("OK")
    click_apply(panel.ui)
    wait_for_end(panel)
    assert "non-commercial research" in dialogs.seen[-1]
    seen = len(dialogs.seen)
    dialogs.answers.append("Replace")
    click_apply(panel.ui)
    wait_for_end(panel)
    assert len(dialogs.seen) == seen + 1


def test_a_chosen_node_that_is_removed_leaves_none_and_no_other_in_its_place(panel, scene):
    chosen = {
        "points": "vtkMRMLMarkupsFiducialNode",
        "roi": "vtkMRMLMarkupsROINode",
        "outputSegmentation": "vtkMRMLSegmentationNode",
    }
    for name, kind in chosen.items():
        node, _other = (scene.AddNewNodeByClass(kind) for _ in range(2))
        setattr(panel._parameterNode, name, node)
        scene.RemoveNode(node)
        assert getattr(panel._parameterNode, name) is None
    for selector in (panel.ui.pointsSelector, panel.ui.roiSelector, panel.ui.outputSelector):
        assert selector.currentNode() is None


def test_a_hidden_volume_is_not_chosen_for_the_user(panel, scene):
    hidden = add_volume(a_scan(), GRID, "hidden")
    panel._parameterNode.inputVolume = None
    hidden.SetHideFromEditors(True)
    panel.enter()
    assert panel._parameterNode.inputVolume is None


def test_a_panel_that_is_entered_again_stays_bound_as_it_is(panel):
    bound = panel._parameterNode
    panel.enter()
    assert panel._parameterNode is bound


def test_without_pytorch_the_panel_opens_explains_and_says_where_to_get_it(panel, scene, monkeypatch):
    monkeypatch.setattr(pytorch_install, "is_installed", lambda: False)
    panel.enter()
    add_volume(a_scan(), GRID)
    assert "PyTorch is not installed" in panel.ui.messageLabel.text
    dialogs.answers.append("OK")
    with nothing_changes(scene):
        click_apply(panel.ui)
    assert "Extensions Manager" in dialogs.seen[-1]
    assert panel.ui.applyButton.text == "Apply"


# The module


def test_reload_ends_the_worker_and_opens_a_new_panel(models, frame, scene):
    panel = frame.self()
    add_volume(a_scan(), GRID)
    click_apply(panel.ui)
    wait_for_end(panel)
    process = panel.logic._worker._process
    panel.onReload()
    reloaded = slicer.modules.UNetPlusPlusSegmentWidget
    assert reloaded is not panel
    wait_until(lambda: process.has_ended)
    assert reloaded.ui.inputSelector.currentNode() is not None
    assert slicer.util.getModuleLogic("UNetPlusPlusSegment") is reloaded.logic


def test_sample_data_and_terms_are_registered_at_start_up(frame):
    (sample,) = slicer.modules.sampleDataSources["UNetPlusPlusSegment"]
    assert sample["checksums"].startswith("SHA256:")
    assert Path(sample["thumbnailFileName"]).is_file()
    terms = slicer.modules.terminologies.logic()
    context = "Segmentation category and type - UNet++ Segment"
    assert terms.IsTerminologyContextLoaded(context)
    for label, code in (("liver", "10200004"), ("lung nodule", "27925004")):
        entry = slicer.vtkSlicerTerminologyEntry()
        assert terms.FindTypeInTerminologyBy3dSlicerLabel(context, label, entry)
        assert entry.GetTypeObject().GetCodeValue() == code


def test_the_terms_are_those_of_the_models():
    path = MODULE_FILE.parent / "Resources/Terminologies/UNetPlusPlusSegment.term.json"
    categories = json.loads(path.read_text(encoding="utf-8"))["SegmentationCodes"]["Category"]
    codes = {f"SCT^{each['CodeValue']}^{each['CodeMeaning']}" for c in categories for each in c["Type"]}
    from UNetPlusPlusSegmentLib.network.bundle import find_bundles
    from UNetPlusPlusSegmentLib.nodule.segments import TERMINOLOGY

    used = [label.terminology for bundle in find_bundles()[0] for label in bundle.labels] + [TERMINOLOGY]
    assert {terminology.split("~")[2] for terminology in used} <= codes


def test_the_self_test_of_the_module_passes(panel, scene):
    slicer.modules.UNetPlusPlusSegmentInstance.runTest()
