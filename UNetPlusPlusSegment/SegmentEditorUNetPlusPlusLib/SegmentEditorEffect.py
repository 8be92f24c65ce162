"""The Segment Editor effect "UNet++": its options and its clicks. The network is the logic's affair, the masks the editor's."""

from pathlib import Path

import ctk
import qt
import slicer
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from UNetPlusPlusSegmentLib.network.bundle import find_bundles
from UNetPlusPlusSegmentUILib.messages import (
    POLL_MS,
    askPermission,
    showError,
    showProgress,
    speedTitle,
    targetTitle,
    whyNot,
)

MODULE = "UNetPlusPlusSegment"


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect, VTKObservationMixin):
    """Finds the target in the source volume and puts it into the selected segment.

    `_update` alone decides what can be pressed and what is said. Options are parameters of the vtkMRMLSegmentEditorNode.
    """

    def __init__(self, scriptedEffect):
        scriptedEffect.name = "UNet++"  # not translated: modules find effects by name
        scriptedEffect.title = _("UNet++")
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        VTKObservationMixin.__init__(self)
        self._edit = self._logic = None
        self._outcome = ""
        self._models = {}

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        cloned = effects.qSlicerSegmentEditorScriptedEffect(None)
        cloned.setPythonSource(__file__.replace("\\", "/"))
        return cloned

    def icon(self):
        return qt.QIcon(str(Path(__file__).parents[1] / "Resources" / "Icons" / f"{MODULE}.png"))

    def helpText(self):
        return "<html>" + _(
            """Find the liver or lung nodules with a UNet++ network.
For research only.<p>
<ul>
<li><b>Apply</b> replaces the selected segment by what is found in the source volume; inside a box only, if one is chosen.</li>
<li><b>Preview</b> shows the result first, so that the threshold can be adjusted.</li>
<li><b>Refine here</b> looks again inside the box, at every slice and with the whole network.</li>
<li>For nodules, with no box chosen: <b>click on a nodule</b> in a slice view to add it.</li>
</ul><p>
Editable area, intensity range and overwriting are respected. Choosing another effect cancels what is under way."""
        )

    # The options

    def setupOptionsFrame(self):
        self._targetBox, self._speedBox = qt.QComboBox(), qt.QComboBox()
        for name in ("balanced", "accurate", "fast"):
            self._speedBox.addItem(speedTitle(name), name)
        self._targetLabel = self.scriptedEffect.addLabeledOptionsWidget(_("Target:"), self._targetBox)
        self.scriptedEffect.addLabeledOptionsWidget(_("Speed:"), self._speedBox)

        self._thresholdSlider = ctk.ctkSliderWidget()
        self._thresholdSlider.minimum, self._thresholdSlider.maximum = 0.01, 0.99
        self._thresholdSlider.singleStep = 0.01
        self._thresholdSlider.decimals = 2
        self._thresholdSlider.setToolTip(
            _("Probability from which on a voxel belongs to the target. Press Preview to see what a change does.")
        )
        self.scriptedEffect.addLabeledOptionsWidget(_("Threshold:"), self._thresholdSlider)

        self._roiSelector = slicer.qMRMLNodeComboBox()
        self._roiSelector.nodeTypes = ["vtkMRMLMarkupsROINode"]
        self._roiSelector.noneEnabled = True
        self._roiSelector.noneDisplay = _("Whole volume")
        self._roiSelector.setMRMLScene(slicer.mrmlScene)
        self._roiSelector.setToolTip(
            _("The box to look at. Inside it the segment is replaced, outside it stays as it is.")
        )
        self._placeWidget = slicer.qSlicerMarkupsPlaceWidget()
        self._placeWidget.setMRMLScene(slicer.mrmlScene)
        self._placeWidget.deleteAllControlPointsOptionVisible = False
        row = qt.QHBoxLayout()
        row.addWidget(self._roiSelector, 1)
        row.addWidget(self._placeWidget)
        self.scriptedEffect.addLabeledOptionsWidget(_("Box:"), row)

        self._newSegmentBox = qt.QCheckBox(_("New segment for each nodule"))
        self._newSegmentBox.setToolTip(_("Otherwise nodules go into the selected segment."))
        self.scriptedEffect.addOptionsWidget(self._newSegmentBox)

        self._previewButton = qt.QPushButton(_("Preview"))
        self._refineButton = qt.QPushButton(_("Refine here"))
        self._applyButton = qt.QPushButton(_("Apply"))
        self._cancelButton = qt.QPushButton(_("Cancel"))
        for button, name in (
            (self._previewButton, "Preview"),
            (self._refineButton, "Refine"),
            (self._applyButton, "Apply"),
            (self._cancelButton, "Cancel"),
        ):
            button.objectName = f"{self.__class__.__name__}{name}"
        self._previewButton.setToolTip(_("Show what is found without changing the segment yet."))
        self._refineButton.setToolTip(_("Look again inside the box, at every slice and with the whole network."))
        for pair in ((self._previewButton, self._refineButton), (self._cancelButton, self._applyButton)):
            row = qt.QHBoxLayout()
            for button in pair:
                row.addWidget(button)
            self.scriptedEffect.addOptionsWidget(row)

        self._progressBar = qt.QProgressBar()
        self.scriptedEffect.addOptionsWidget(self._progressBar)
        self._message = qt.QLabel()
        self._message.setWordWrap(True)
        self.scriptedEffect.addOptionsWidget(self._message)

        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._connections = (
            (self._targetBox, "currentIndexChanged(int)", self.onTarget),
            (self._speedBox, "currentIndexChanged(int)", self.updateMRMLFromGUI),
            (self._thresholdSlider, "valueChanged(double)", self.updateMRMLFromGUI),
            (self._roiSelector, "nodeActivated(vtkMRMLNode*)", self.onRoi),
            (self._roiSelector, "nodeAddedByUser(vtkMRMLNode*)", self.onNewRoi),
            (self._newSegmentBox, "stateChanged(int)", self.updateMRMLFromGUI),
            (self._previewButton, "clicked()", self.onPreview),
            (self._refineButton, "clicked()", self.onRefine),
            (self._applyButton, "clicked()", self.onApply),
            (self._cancelButton, "clicked()", self.onCancel),
            (self._timer, "timeout()", self.onTimer),
        )
        for sender, signal, slot in self._connections:
            sender.connect(signal, slot)
        # The selector takes another row where one is removed and when all come anew, without the user: it follows the parameters.
        scene = slicer.mrmlScene
        for event in (scene.NodeRemovedEvent, scene.EndImportEvent, scene.EndCloseEvent):
            self.addObserver(scene, event, self.onRowsChanged, priority=-20.0)
        self._refreshModels()
        self._update()

    def cleanup(self):
        """Let go of everything that would keep this effect alive (Slicer#7392)."""
        self.onCancel()
        self.removeObservers()
        for sender, signal, slot in self._connections:
            sender.disconnect(signal, slot)
        self._connections = ()

    def setMRMLDefaults(self):
        models = find_bundles()[0]
        liver = next((model for model in models if model.target == "liver"), models[0] if models else None)
        self.scriptedEffect.setParameterDefault("Target", liver.target if liver else "liver")
        thresholds = {"liver": 0.5, "nodule": 0.5} | {model.target: model.threshold for model in reversed(models)}
        for target, threshold in thresholds.items():
            self.scriptedEffect.setParameterDefault(_thresholdOf(target), threshold)
        self.scriptedEffect.setParameterDefault("Speed", "balanced")
        self.scriptedEffect.setParameterDefault("NewSegment", 0)

    def updateGUIFromMRML(self):
        host = self.scriptedEffect
        widgets = (self._targetBox, self._speedBox, self._thresholdSlider, self._roiSelector, self._newSegmentBox)
        blocked = [widget.blockSignals(True) for widget in widgets]
        self._targetBox.setCurrentIndex(self._targetBox.findData(host.parameter("Target")))
        self._speedBox.setCurrentIndex(self._speedBox.findData(host.parameter("Speed")))
        self._thresholdSlider.value = host.doubleParameter(_thresholdOf(host.parameter("Target")))
        self._roiSelector.setCurrentNode(host.nodeReference("ROI"))
        self._newSegmentBox.checked = host.integerParameter("NewSegment") != 0
        for widget, was in zip(widgets, blocked, strict=True):
            widget.blockSignals(was)
        self._placeWidget.setCurrentNode(host.nodeReference("ROI"))
        self._follow()
        self._update()

    def updateMRMLFromGUI(self):
        host = self.scriptedEffect
        if host.parameterSetNode() is None:
            return
        host.setParameter("Speed", self._speedBox.currentData)
        host.setParameter(_thresholdOf(host.parameter("Target")), self._thresholdSlider.value)
        host.setParameter("NewSegment", int(self._newSegmentBox.checked))

    def onTarget(self, index):
        """Take another target, and with it its threshold."""
        if self.scriptedEffect.parameterSetNode() is not None and index >= 0:
            self.scriptedEffect.setParameter("Target", self._targetBox.itemData(index))

    def onRoi(self, node):
        """Take the box that the user chose, or the whole volume."""
        if self.scriptedEffect.parameterSetNode() is not None and self.scriptedEffect.nodeReference("ROI") is not node:
            self.scriptedEffect.setNodeReference("ROI", node)

    def onRowsChanged(self, caller, event):
        """Show the box that is chosen, not the one whose row is there now."""
        if self.scriptedEffect.parameterSetNode() is not None:
            self.updateGUIFromMRML()

    def onNewRoi(self, node):
        """Let the user draw the new box."""
        self.onRoi(node)
        self._placeWidget.setCurrentNode(node)
        self._placeWidget.placeModeEnabled = True

    def interactionNodeModified(self, interactionNode):
        """Stay active while a box is drawn."""

    def createCursor(self, widget):
        return qt.QCursor(
            qt.Qt.CrossCursor
        )  # asked for once, when the effect becomes active: of no use to tell targets apart

    # What the editor tells

    def activate(self):
        self._outcome = ""
        self._refreshModels()
        self.updateGUIFromMRML()

    def deactivate(self):
        self.onCancel()

    def sourceVolumeNodeChanged(self):
        self.onCancel()

    def processInteractionEvents(self, callerInteractor, eventId, viewWidget):
        """A click on a nodule. True: nobody else shall act on it."""
        modified = callerInteractor.GetShiftKey() or callerInteractor.GetControlKey() or callerInteractor.GetAltKey()
        if (
            eventId != vtk.vtkCommand.LeftButtonPressEvent
            or modified
            or viewWidget.className() != "qMRMLSliceWidget"
            or not self._takesClicks()
        ):
            return False
        if self._edit and self._edit.run.running:
            return True  # one click after the other
        self.segmentAt(self.xyToRas(callerInteractor.GetEventPosition(), viewWidget))
        return True

    def _takesClicks(self):
        """Only for nodules; while a box is chosen, clicks are for moving it, and in place mode for drawing."""
        node = self.scriptedEffect.parameterSetNode()
        interaction = slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        return (
            node is not None
            and self.scriptedEffect.parameter("Target") == "nodule"
            and self.scriptedEffect.nodeReference("ROI") is None
            and (interaction is None or interaction.GetCurrentInteractionMode() == interaction.ViewTransform)
        )

    # What the user does

    def onApply(self):
        """Put the preview into the segment, or run and put the result there."""
        if self._edit and self._edit.isShown:
            self._finish()
        else:
            self._start()

    def onPreview(self):
        """Run and show the result."""
        self._start(preview=True)

    def onRefine(self):
        """Run again inside the box, as thoroughly as possible."""
        self._start(speed="accurate")

    def onCancel(self):
        """Give up what is under way, or the preview."""
        edit, self._edit = self._edit, None
        if edit:
            self._outcome = _("Cancelled.") if edit.run.running else ""
            edit.end()
        self._update()

    def segmentAt(self, ras):
        """Add the nodule at a point (RAS in the world, mm)."""
        self._start(points=[list(ras)])

    def _start(self, preview=False, **options):
        self.onCancel()
        self._outcome = ""
        host = self.scriptedEffect
        roiNode = None if "points" in options else host.nodeReference("ROI")
        threshold = host.doubleParameter(_thresholdOf(host.parameter("Target")))
        options = {"speed": host.parameter("Speed"), "threshold": threshold, **options}
        try:
            if host.confirmCurrentSegmentVisible() != host.NotConfirmed and askPermission():
                from .edit import Edit  # brings SimpleITK, which would slow down Slicer's start

                self._logic = slicer.util.getModuleLogic(MODULE)
                self._edit = Edit(self._logic, host, host.parameter("Target"), roiNode, preview, **options)
                self._timer.start()
        except ValueError as error:
            self._fail(error)
        self._update()

    # What the run tells

    def onTimer(self):
        """Pass on what the worker says, and act on the result; after a cancel until it has stopped, which `poll` sees to."""
        if self._logic.busy:
            self._logic.poll()
        edit = self._edit
        if edit is None:
            if not self._logic.busy:
                self._timer.stop()
        elif edit.run.running:
            showProgress(edit.run, self._progressBar, self._message)
        elif not edit.run.jobs:  # whoever else polled: the panel and scripts share the logic
            self._timer.stop()
            self._settle(edit)
            self._update()

    def _settle(self, edit):
        if edit.run.error:
            self._edit = None
            edit.end()
            self._fail(edit.run.error)
        elif edit.preview:
            edit.show()
            self._outcome = " ".join([*_inWords(edit), _("Apply puts this into the segment.")])
        else:
            self._finish()

    def _finish(self):
        """Write the result into the segment."""
        edit, self._edit = self._edit, None
        qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            changed = edit.write(self.scriptedEffect, self.scriptedEffect.integerParameter("NewSegment") != 0)
            left = [] if changed else [_("Nothing was found where it may be edited: the segment stays as it was.")]
            self._outcome = " ".join([*_inWords(edit), *left]) or _("Done.")
        except ValueError as error:
            self._fail(error)
        finally:
            qt.QApplication.restoreOverrideCursor()
            edit.end()
        self._update()

    def _follow(self):
        """Keep the preview true to the options."""
        edit = self._edit
        if not (edit and edit.isShown):
            return
        host = self.scriptedEffect
        chosen = host.parameter("Target"), host.parameter("Speed"), host.nodeReference("ROI")
        if chosen != (edit.target, edit.speed, edit.roiNode):
            self.onCancel()
            return
        try:
            edit.run.set_threshold(host.doubleParameter(_thresholdOf(edit.target)))
        except ValueError as error:
            self.onCancel()
            self._fail(error)
            return
        if edit.run.jobs:
            self._timer.start()

    def _fail(self, error):
        self._outcome = whyNot(error)
        self._update()
        showError(error)

    # What is shown

    def _refreshModels(self):
        """Offer the targets that there are models for, each with the newest."""
        self._models = {}
        for model in find_bundles()[0]:
            self._models.setdefault(model.target, model)
        blocked = self._targetBox.blockSignals(True)
        self._targetBox.clear()
        for target in ("liver", "nodule"):
            if target in self._models:
                self._targetBox.addItem(targetTitle(target), target)
        self._targetBox.blockSignals(blocked)

    def _update(self):
        host, edit = self.scriptedEffect, self._edit
        node = host.parameterSetNode()
        running = edit is not None and edit.run.running
        target, roiNode = (host.parameter("Target"), host.nodeReference("ROI")) if node else ("", None)
        obstacle = ""
        if node is None or node.GetSourceVolumeNode() is None:
            obstacle = _("Choose a source volume: load a CT first.")
        elif target not in self._models:
            obstacle = _("There is no model for this target.")
        ready = not running and not obstacle
        self._targetBox.setVisible(self._targetBox.count > 1)
        self._targetLabel.setVisible(self._targetBox.count > 1)
        self._newSegmentBox.setVisible(target == "nodule")
        for widget in (self._targetBox, self._speedBox, self._thresholdSlider, self._roiSelector, self._newSegmentBox):
            widget.setEnabled(not running)
        self._placeWidget.setEnabled(not running and roiNode is not None)
        self._previewButton.setEnabled(ready)
        self._refineButton.setEnabled(ready and roiNode is not None)
        self._applyButton.setEnabled(ready)
        self._cancelButton.setEnabled(edit is not None)
        self._progressBar.setVisible(running)
        if running:
            showProgress(edit.run, self._progressBar, self._message)
            return
        advice = _("Click on a nodule in a slice view, or press Apply to look for all.") if self._takesClicks() else ""
        self._message.text = self._outcome or obstacle or advice


def _thresholdOf(target):
    """The parameter with the threshold of a target: each has its own."""
    return f"{target.capitalize()}Threshold"


def _inWords(edit):
    """What was found, before any mask, and what there is to note about it."""
    found = [each for each in edit.run.result.segments if each.measurements["volume_ml"]]
    words = [_("{count} nodules.").format(count=len(found))] if len(found) > 3 else map(_size, found)
    return [*(words if edit.roiNode is None else ()), *edit.run.result.notes]


def _size(segment):
    diameter = segment.measurements.get("mean_diameter_rounded_mm")
    if diameter is None:
        return _("{name}: {volume} ml.").format(name=segment.name, volume=round(segment.measurements["volume_ml"]))
    return _("{name}: {diameter} mm.").format(name=segment.name, diameter=diameter)
