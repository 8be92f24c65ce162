"""Slicer without Slicer: a scene, its application, the panel and the Segment Editor.

Imports are inside the fixtures: tests that do not use them load neither slicer nor Qt.
"""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import pytest


@pytest.fixture
def scene(monkeypatch, tmp_path):
    """An empty scene as `slicer.mrmlScene`; the test fails if VTK or MRML report an error or a warning.

    A test that provokes such a message on purpose removes it with `take_messages()`.
    """
    from Testing.support.mrml_scene import LOGICS, follow_in_subject_hierarchy, slicer, take_messages, vtk

    new_scene = slicer.vtkMRMLScene()
    cache = slicer.vtkCacheManager()  # bundles are unpacked there
    cache.SetRemoteCacheDirectory(str(tmp_path))
    reader = slicer.vtkDataIOManager()
    reader.SetCacheManager(cache)
    new_scene.SetDataIOManager(reader)
    application_logic = slicer.vtkSlicerApplicationLogic()
    colors = slicer.vtkSlicerColorLogic()
    colors.SetMRMLApplicationLogic(application_logic)
    colors.SetMRMLScene(new_scene)
    application_logic.SetModuleLogic("Colors", colors)
    application_logic.SetMRMLScene(new_scene)
    modules = SimpleNamespace()
    for name, logic_class in LOGICS.items():
        logic = logic_class()
        logic.SetMRMLApplicationLogic(application_logic)
        logic.SetMRMLScene(new_scene)
        setattr(modules, name, SimpleNamespace(logic=lambda logic=logic: logic))
    monkeypatch.setattr(slicer, "mrmlScene", new_scene, raising=False)
    monkeypatch.setattr(slicer, "modules", modules, raising=False)
    follow_in_subject_hierarchy(new_scene)

    window_before = vtk.vtkOutputWindow.GetInstance()
    vtk.vtkOutputWindow.SetInstance(vtk.vtkStringOutputWindow())  # from here on: the wheel lacks Slicer's colour files
    yield new_scene
    messages = take_messages()
    new_scene.Clear(True)
    vtk.vtkOutputWindow.SetInstance(window_before)
    assert not messages, f"VTK or MRML complained: {messages}"


@pytest.fixture
def slicer_app(scene, monkeypatch, tmp_path):
    """`slicer` as in the application, on an empty scene; the test fails if a slot raised an error or a dialog was not answered."""
    from Testing.support.slicer_qt.application import application

    yield from application(scene, monkeypatch, tmp_path)


@pytest.fixture
def an_editor(slicer_app, scene, monkeypatch):
    """Call it to get a qMRMLSegmentEditorWidget with all effects that are registered at that time."""
    from Testing.support.slicer_qt.effects import segment_editors

    yield from segment_editors(slicer_app, scene, monkeypatch)


@pytest.fixture
def frame(slicer_app):
    """The module in Slicer's window, opened, with the licence of the models already accepted."""
    from Testing.support.panel import LICENCE_ACCEPTED, MODULE_FILE, PACKAGES, qt
    from Testing.support.slicer_qt.application import load_module

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


@pytest.fixture
def opened(an_editor, logic, scene, monkeypatch):
    """Call it with a CT to get an editor in which the effect is active; it has three segments, the first selected, the last hidden.

    In place of the module's panel, the effect finds the fixture `logic` with a controller, and the panel's first choices.
    """
    from Testing.support.mrml_scene import add_volume, slicer
    from Testing.support.segment_editor import MODULE
    from Testing.support.slicer_qt.application import load_module

    controllers = []

    def opened(array, ijk_to_ras, transform=None):
        load_module(MODULE)
        panel = SimpleNamespace(
            controller=importlib.import_module("UNetPlusPlusSegmentUILib.controller").RunController(logic),
            optionsOfEffect={"device": "auto", "force": False},
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
