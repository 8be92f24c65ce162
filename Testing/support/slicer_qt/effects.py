"""The Segment Editor: the host of a scripted effect, the factory, and an editor, on the real `vtkSlicerSegmentEditorLogic`.

Modelled on qSlicerSegmentEditorAbstractEffect, qSlicerSegmentEditorScriptedEffect and qMRMLSegmentEditorWidget of Slicer 5.13.
Masks, overwriting, undo and the resampled source volume come from the real logic. What Slicer would only print as critical, and
what the logic refuses, raises an error in the test.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from .application import _namespace
from .pythonqt import StandInRefusal, dialogs, guarded, proxy_class, slot_errors, wrap
from .widgets import a_property, observe, qMRMLWidget


class qMRMLSliceWidget(qMRMLWidget):
    """A slice view, for clicks only: its real vtkMRMLSliceNode says where a pixel lies."""

    def __init__(self, node):
        super().__init__()
        self._node = node

    def mrmlSliceNode(self):
        return self._node


class qSlicerSegmentEditorAbstractEffect(QtCore.QObject):
    """The modes of the C++ base class."""

    ModificationModeSet, ModificationModeAdd, ModificationModeRemove, ModificationModeRemoveAll = range(4)
    NotConfirmed, ConfirmedWithoutDialog, ConfirmedWithDialog = range(3)


class qSlicerSegmentEditorScriptedEffect(qSlicerSegmentEditorAbstractEffect):
    """The C++ side of an effect: `self.scriptedEffect`."""

    name = QtCore.Property(str, lambda self: self.objectName(), lambda self, value: self.setObjectName(value))
    title = a_property(str, "title", "")
    perSegment = a_property(bool, "perSegment", True)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node = self._logic = self._python = None
        self._active, self._confirmed = False, ""
        self._frame = QtWidgets.QFrame()
        QtWidgets.QFormLayout(self._frame)

    # The Python side

    def self(self):
        return self._python

    def setPythonSource(self, path: str) -> None:
        file = Path(path)
        package, name = file.parent.name, file.stem + "Effect" * (not file.stem.endswith("Effect"))
        if not hasattr(sys.modules.get(package), name):
            spec = importlib.util.spec_from_file_location(package, file)
            sys.modules[package] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[package])
        kind = getattr(sys.modules[package], name)
        if not isinstance(kind, type):
            raise StandInRefusal(f"{package}.{name} is no class: Slicer cannot instantiate it")
        self._python = kind(wrap(self))
        setattr(slicer, package, self._python)

    def _call(self, method: str, *arguments):
        function = getattr(self._python, method, None)
        return function(*map(wrap, arguments)) if function else None

    def clone(self):
        return self._call("clone")

    def updateGUIFromMRML(self) -> None:
        if self._active:
            self._call("updateGUIFromMRML")

    def _activate(self) -> None:
        self._active = True
        self._frame.setVisible(True)
        self.updateGUIFromMRML()
        self._call("activate")

    def _deactivate(self) -> None:
        self._active = False
        self._frame.setVisible(False)
        self._call("deactivate")

    # Options

    def addOptionsWidget(self, widget) -> None:
        self._frame.layout().addRow(widget)

    def addLabeledOptionsWidget(self, label: str, widget):
        text = QtWidgets.QLabel(label)
        self._frame.layout().addRow(text, widget)
        return text

    # Parameters

    def parameterSetNode(self):
        return self._node

    def _key(self, name: str) -> str:
        return f"{self.objectName()}.{name}"

    def parameterDefined(self, name: str) -> bool:
        return bool(self._node and self._node.GetAttribute(self._key(name)))

    def parameter(self, name: str) -> str:
        if self._node is None:
            return ""
        value = self._node.GetAttribute(self._key(name)) or self._node.GetAttribute(name)
        if value is None:
            raise StandInRefusal(f"parameter named {name} cannot be found for effect {self.objectName()}")
        return value

    def integerParameter(self, name: str) -> int:
        return int(self.parameter(name) or 0)

    def doubleParameter(self, name: str) -> float:
        return float(self.parameter(name) or 0)

    def setParameter(self, name: str, value) -> None:
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            raise TypeError(f"setParameter takes str, int or float, not {type(value).__name__}")
        if self._node is None:
            raise StandInRefusal(f"no segment editor node is set: parameter {name} is lost")
        text = f"{value:g}" if isinstance(value, float) else str(value)
        before = self._node.GetAttribute(self._key(name))
        if text in (before, "" if before is None else before):
            return
        disabled = self._node.GetDisableModifiedEvent()
        self._node.SetDisableModifiedEvent(1)
        self._node.SetAttribute(self._key(name), text)
        self._node.SetDisableModifiedEvent(disabled)
        self._node.InvokeCustomModifiedEvent(self._node.EffectParameterModified)

    def setParameterDefault(self, name: str, value) -> None:
        if not self.parameterDefined(name):
            self.setParameter(name, value)

    def nodeReference(self, name: str):
        if self._node is None:
            return None
        return self._node.GetNodeReference(self._key(name)) or self._node.GetNodeReference(name)

    def setNodeReference(self, name: str, node) -> None:
        if node is not self._node.GetNodeReference(self._key(name)):
            self._node.SetNodeReferenceID(self._key(name), node.GetID() if node else None)
            self._node.InvokeCustomModifiedEvent(self._node.EffectParameterModified)

    # Images

    def _image(self, update: str, get: str):
        return getattr(self._logic, get)() if getattr(self._logic, update)() else None

    def defaultModifierLabelmap(self):
        return self._image("ResetModifierLabelmapToDefault", "GetModifierLabelmap")

    def maskLabelmap(self):
        return self._image("UpdateMaskLabelmap", "GetMaskLabelmap")

    def sourceVolumeImageData(self):
        return self._image("UpdateAlignedSourceVolume", "GetAlignedSourceVolume")

    def saveStateForUndo(self) -> None:
        self._logic.SaveStateForUndo()

    def modifySelectedSegmentByLabelmap(self, labelmap, mode: int) -> None:
        modes, whole = slicer.vtkSlicerSegmentEditorLogic, [0, -1, 0, -1, 0, -1]
        names = ("ModificationModeSet", "ModificationModeAdd", "ModificationModeRemove", "ModificationModeRemoveAll")
        segmentation, segment_id = self._node.GetSegmentationNode(), self._node.GetSelectedSegmentID() or ""
        self._logic.ModifySegmentByLabelmap(
            segmentation, segment_id, labelmap, getattr(modes, names[mode]), whole, self.perSegment, False
        )

    def confirmCurrentSegmentVisible(self) -> int:
        node, segment_id = self._node.GetSegmentationNode(), self._node.GetSelectedSegmentID()
        display = node.GetDisplayNode() if node and segment_id else None
        if not display or self._confirmed == segment_id:
            return self.ConfirmedWithoutDialog
        if display.GetVisibility() and display.GetSegmentVisibility(segment_id):
            return self.ConfirmedWithoutDialog
        answer = dialogs.ask("The currently selected segment is hidden. Would you like to make it visible?")
        if answer == "Cancel":
            return self.NotConfirmed
        if answer == "Yes":
            display.SetVisibility(True)
            display.SetSegmentVisibility(segment_id, True)
        else:
            self._confirmed = segment_id
        return self.ConfirmedWithDialog

    def xyToRas(self, xy, slice_widget):
        ras = slice_widget.mrmlSliceNode().GetXYToRAS().MultiplyPoint((xy.x(), xy.y(), 0, 1))
        return QtGui.QVector3D(*ras[:3])


class qSlicerSegmentEditorEffectFactory(QtCore.QObject):
    """Holds the registered effects; each editor makes copies of them."""

    _effects: list[qSlicerSegmentEditorScriptedEffect] = []

    @classmethod
    def instance(cls):
        return wrap(cls())

    def registerEffect(self, effect) -> None:
        if effect.objectName() in [each.objectName() for each in self._effects]:
            raise StandInRefusal(f"effect {effect.objectName()} is registered already")
        self._effects.append(effect)


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """The editor, without masking options and views: those are settings of its node.

    Its table of segments learns of them by the events of the segmentation node, as qMRMLSegmentsModel does: one that it does not
    know yet cannot be selected.
    """

    def __init__(self, parent=None):
        super().__init__(parent)
        self._logic, self._node, self._tags = slicer.vtkSlicerSegmentEditorLogic(), None, []
        self._logic.SetVerbose(True)
        self._logic.AddObserver("ErrorEvent", _refused)
        self._effects, self._active = [], None
        self._options = QtWidgets.QVBoxLayout(self)
        self._segmentation, self._segmentation_tags = None, []
        self._rows, self._table = QtGui.QStandardItemModel(0, 1, self), QtWidgets.QTableView(self)
        self._table.setModel(self._rows)
        self._table.setSelectionMode(QtWidgets.QTableView.SelectionMode.SingleSelection)
        self._table.setSelectionBehavior(QtWidgets.QTableView.SelectionBehavior.SelectRows)
        self._table.hide()  # pictures are of the effect
        self._table.selectionModel().selectionChanged.connect(guarded(self._row_chosen, "onSegmentSelectionChanged"))

    def setMRMLScene(self, scene) -> None:
        super().setMRMLScene(scene)
        self._logic.SetMRMLScene(scene)
        observe(self, scene, scene.EndCloseEvent, "_scene_closed")
        self._interaction = scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        observe(self, self._interaction, vtk.vtkCommand.ModifiedEvent, "_follow_interaction")
        for registered in qSlicerSegmentEditorEffectFactory._effects:
            effect = registered.clone()._native
            effect._logic = self._logic
            if self._node:
                effect._node = self._node
                effect._call("setMRMLDefaults")
            effect._call("setupOptionsFrame")
            effect._frame.setVisible(False)
            self._options.addWidget(effect._frame)
            self._effects.append(effect)

    def mrmlSegmentEditorNode(self):
        return self._node

    def setMRMLSegmentEditorNode(self, node) -> None:
        for tag in self._tags:
            self._node.RemoveObserver(tag)
        self._node, self._tags = node, []
        self._logic.SetSegmentEditorNode(node)
        for effect in self._effects:
            effect._node = node
            if node:
                effect._call("setMRMLDefaults")
        if node:
            self._tags = [
                observe(self, node, node.EffectParameterModified, "_follow_parameters"),
                observe(self, node, vtk.vtkCommand.ModifiedEvent, "_follow"),
            ]
        self._follow()

    def _scene_closed(self) -> None:
        """A node that stays, as a singleton, has lost its parameters."""
        if self._node:
            modifying = self._node.StartModify()
            for effect in self._effects:
                effect._call("setMRMLDefaults")
            self._node.EndModify(modifying)
        self._follow()

    def _follow_parameters(self) -> None:
        for effect in self._effects:
            guarded(effect.updateGUIFromMRML, "updateGUIFromMRML")()

    def _follow(self) -> None:
        if self._node is None:
            self._follow_effect()
            return
        if self.mrmlScene().IsClosing():
            return
        modifying = self._node.StartModify()
        self._follow_segmentation()
        rows = self._rows.findItems(self._node.GetSelectedSegmentID() or "")
        if rows:
            self._table.selectRow(rows[0].row())
        else:
            self._table.clearSelection()
        self._follow_effect()
        self._node.EndModify(modifying)

    def _follow_segmentation(self) -> None:
        segmentation = self._node.GetSegmentationNode()
        if segmentation is self._segmentation:
            return
        for tag in self._segmentation_tags:
            self._segmentation.RemoveObserver(tag)
        self._segmentation, self._segmentation_tags = segmentation, []
        blocked = self._table.selectionModel().blockSignals(True)
        self._rows.clear()
        self._table.selectionModel().blockSignals(blocked)
        if segmentation:
            self._rows_added()
            events = slicer.vtkSegmentation
            self._segmentation_tags = [
                observe(self, segmentation, vtk.vtkCommand.ModifiedEvent, "_follow"),
                observe(self, segmentation, events.SegmentAdded, "_rows_added"),
                observe(self, segmentation, events.SegmentRemoved, "_rows_removed"),
            ]
            if self._rows.rowCount():
                self._node.SetSelectedSegmentID(self._rows.item(0).text())

    def _rows_added(self) -> None:
        for segment_id in self._segmentation.GetSegmentation().GetSegmentIDs():
            if not self._rows.findItems(segment_id):
                self._rows.appendRow(QtGui.QStandardItem(segment_id))

    def _rows_removed(self) -> None:
        left = self._segmentation.GetSegmentation().GetSegmentIDs()
        for row in reversed(range(self._rows.rowCount())):
            if self._rows.item(row).text() not in left:
                self._rows.removeRow(row)

    def _row_chosen(self, *_) -> None:
        rows = self._table.selectionModel().selectedRows()
        chosen = rows[0].data() if rows else ""
        if chosen == (self._node.GetSelectedSegmentID() or ""):
            return
        self._node.SetSelectedSegmentID(chosen or None)
        if not chosen and self._active and self._active.perSegment:
            self.setActiveEffectByName("")
        self._follow()

    def _follow_effect(self) -> None:
        name = self._node.GetActiveEffectName() if self._node else ""
        wanted = next((effect for effect in self._effects if effect.objectName() == name), None)
        if wanted is self._active:
            return
        before, self._active = self._active, wanted
        if before:
            before._deactivate()
        if wanted:
            self._logic.SetSourceRepresentationToBinaryLabelMap()
            wanted._activate()

    def _follow_interaction(self) -> None:
        """Placing markups ends an effect, unless it has a method of its own for it."""
        if self._active and hasattr(self._active._python, "interactionNodeModified"):
            self._active._call("interactionNodeModified", self._interaction)
        elif self._active and self._interaction.GetCurrentInteractionMode() != self._interaction.ViewTransform:
            self.setActiveEffectByName("")

    def setSegmentationNode(self, node) -> None:
        if node is not self._node.GetSegmentationNode():
            self._node.SetAndObserveSegmentationNode(node)
            self.setActiveEffectByName("")

    def setSourceVolumeNode(self, node) -> None:
        if node is not self._node.GetSourceVolumeNode():
            self._node.SetAndObserveSourceVolumeNode(node)
            for effect in self._effects:
                effect._call("sourceVolumeNodeChanged")

    def setCurrentSegmentID(self, segment_id: str) -> None:
        self._node.SetSelectedSegmentID(segment_id)

    def setActiveEffectByName(self, name: str) -> None:
        self._node.SetActiveEffectName(name)

    def activeEffect(self):
        return self._active

    def effectByName(self, name: str):
        return next((effect for effect in self._effects if effect.objectName() == name), None)

    def undo(self) -> None:
        self._logic.Undo()

    def redo(self) -> None:
        self._logic.Redo()

    def _cleanup(self) -> None:
        for effect in self._effects:
            effect._call("cleanup")
        self.setMRMLSegmentEditorNode(None)
        for tag in self._segmentation_tags:
            self._segmentation.RemoveObserver(tag)


class AbstractScriptedSegmentEditorEffect:
    """The Python base class of effects."""

    def __init__(self, scriptedEffect):
        self.scriptedEffect = scriptedEffect

    def register(self):
        slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)

    def cleanup(self):
        """For those who derive from it."""

    def xyToRas(self, xy, viewWidget):
        ras = self.scriptedEffect.xyToRas(sys.modules["qt"].QPoint(xy[0], xy[1]), viewWidget)
        return [ras.x(), ras.y(), ras.z()]


@vtk.calldata_type(vtk.VTK_STRING)
def _refused(_logic, _event, text="") -> None:
    slot_errors.append(("the editor's logic", RuntimeError(text)))


def segment_editors(slicer_app, scene, monkeypatch):
    """Call it to get a qMRMLSegmentEditorWidget with all effects that are registered by then."""
    for each in (
        qSlicerSegmentEditorAbstractEffect, qSlicerSegmentEditorScriptedEffect, qSlicerSegmentEditorEffectFactory,
        qMRMLSegmentEditorWidget, qMRMLSliceWidget,
    ):  # fmt: skip
        monkeypatch.setattr(slicer, each.__name__, proxy_class(each), raising=False)
    classes = {"qSlicerSegmentEditorScriptedEffect": proxy_class(qSlicerSegmentEditorScriptedEffect)}
    effects = _namespace("qSlicerSegmentationsEditorEffectsPythonQt", **classes)
    monkeypatch.setitem(sys.modules, "qSlicerSegmentationsEditorEffectsPythonQt", effects)
    base = {"AbstractScriptedSegmentEditorEffect": AbstractScriptedSegmentEditorEffect}
    base["__spec__"] = importlib.util.spec_from_loader("SegmentEditorEffects", None)  # it can be found, by its name
    monkeypatch.setitem(sys.modules, "SegmentEditorEffects", _namespace("SegmentEditorEffects", **base))
    monkeypatch.setattr(qSlicerSegmentEditorEffectFactory, "_effects", [])
    made = []

    def an_editor():
        editor = qMRMLSegmentEditorWidget()
        editor.setMRMLScene(scene)
        editor.setMRMLSegmentEditorNode(scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
        made.append(editor)
        return wrap(editor)

    yield an_editor
    for editor in made:
        editor._cleanup()
