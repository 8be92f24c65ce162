"""The Segment Editor effect "UNet++": its options, runs and clicks. The logic runs the network; the editor applies its masks."""

from pathlib import Path

import qt
import slicer
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from UNetPlusPlusSegmentLib.network.bundle import find_bundles
from UNetPlusPlusSegmentUILib.messages import reason, showError, showProgress
from UNetPlusPlusSegmentUILib.questions import mayRun

from .edit import Edit
from .options import Options, setDefaults

MODULE = "UNetPlusPlusSegment"


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect, VTKObservationMixin):
    """Finds the target in the source volume and writes it into the selected segment.

    Only `_update` enables widgets and shows messages. Options are parameters of the vtkMRMLSegmentEditorNode.
    """

    def __init__(self, scriptedEffect):
        scriptedEffect.name = "UNet++"  # not translated: modules find effects by name
        scriptedEffect.title = _("UNet++")
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        VTKObservationMixin.__init__(self)
        self._edit = self._options = None
        self._outcome = ""

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        cloned = effects.qSlicerSegmentEditorScriptedEffect(None)
        cloned.setPythonSource(__file__.replace("\\", "/"))
        return cloned

    def icon(self):
        return qt.QIcon(str(Path(__file__).parents[1] / "Resources" / "Icons" / f"{MODULE}.png"))

    def helpText(self):
        return "<html>" + _(
            """Segment the liver, lung nodules, or any other structure with an installed model, with a UNet++ network.
For research use only.<p>
<ul>
<li><b>Apply</b> replaces the selected segment with the result for the source volume, or only inside the box if one is
selected.</li>
<li><b>Preview</b> shows the result before the segment is changed, so that you can adjust the threshold.</li>
<li><b>Refine here</b> analyses the box again, with the full network on every slice.</li>
<li>For lung nodules, when no box is selected: <b>click a nodule</b> in a slice view to add it.</li>
</ul><p>
The editable area, intensity range and overwrite mode of the Segment Editor apply. Switching to another effect cancels a run."""
        )

    # The options

    def setupOptionsFrame(self):
        self._options = options = Options(self.scriptedEffect)
        options.connect(options.previewButton, "clicked()", self.onPreview)
        options.connect(options.refineButton, "clicked()", self.onRefine)
        options.connect(options.applyButton, "clicked()", self.onApply)
        options.connect(options.cancelButton, "clicked()", self.onCancel)
        # When nodes are removed or loaded, the selector changes its row by itself; this restores the one in the parameters.
        scene = slicer.mrmlScene
        for event in (scene.NodeRemovedEvent, scene.EndImportEvent, scene.EndCloseEvent):
            self.addObserver(scene, event, self.onRowsChanged, priority=-20.0)
        options.refreshModels()
        self._update()

    def cleanup(self):
        """Release everything that would keep this effect alive (Slicer#7392)."""
        if self._options:
            self.onCancel()
            self.removeObservers()
            self._options.disconnect()

    def setMRMLDefaults(self):
        setDefaults(self.scriptedEffect, find_bundles()[0])

    def updateGUIFromMRML(self):
        self._options.show()
        self._follow()
        self._update()

    def updateMRMLFromGUI(self):
        self._options.store()

    def onRowsChanged(self, caller, event):
        """Show the chosen box again, after the selector has changed its row by itself; of a scene that is closed, once, at the end."""
        if self._options.there and not caller.IsClosing():
            self.updateGUIFromMRML()

    def interactionNodeModified(self, interactionNode):
        """Stay active while a box is drawn."""

    def createCursor(self, widget):
        # Requested only once, when the effect becomes active, so it cannot depend on the target
        return qt.QCursor(qt.Qt.CrossCursor)

    # The editor's calls

    def activate(self):
        self._outcome = ""
        self._options.refreshModels()
        self.updateGUIFromMRML()

    def deactivate(self):
        self.onCancel()

    def sourceVolumeNodeChanged(self):
        self.onCancel()

    def processInteractionEvents(self, callerInteractor, eventId, viewWidget):
        """Handle a click on a nodule; returns True if no one else should handle it."""
        modified = callerInteractor.GetShiftKey() or callerInteractor.GetControlKey() or callerInteractor.GetAltKey()
        if (
            eventId != vtk.vtkCommand.LeftButtonPressEvent
            or modified
            or viewWidget.className() != "qMRMLSliceWidget"
            or not self._takesClicks()
        ):
            return False
        if self._edit and self._edit.run.running:
            return True  # one nodule at a time
        self.segmentAt(self.xyToRas(callerInteractor.GetEventPosition(), viewWidget))
        return True

    def _takesClicks(self):
        """True if clicks add nodules: not while a box is selected, which they move, or in place mode, where they draw."""
        interaction = slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        return (
            self._options.model is not None
            and self._options.model.finds_nodules
            and self._options.roiNode is None
            and (interaction is None or interaction.GetCurrentInteractionMode() == interaction.ViewTransform)
        )

    # The user's actions

    def onApply(self):
        """Write the preview into the selected segment, or start a run and write its result."""
        edit, host = self._edit, self.scriptedEffect
        if not (edit and edit.isShown):
            self._start()
            return
        if host.confirmCurrentSegmentVisible() == host.NotConfirmed:
            return
        edit.aimAtSelected(host)  # another segment may have been selected since the preview was started
        if edit.run.jobs:  # the result at another threshold, which is written as soon as it is there
            edit.preview, self._outcome = False, _("Applying…")
            self._update()
        else:
            self._finish()

    def onPreview(self):
        """Run and show the result."""
        self._start(preview=True)

    def onRefine(self):
        """Run again inside the box, at the accurate speed."""
        self._start(speed="accurate", refines=True)

    def onCancel(self):
        """Cancel the run, or discard the preview."""
        if self._edit:
            self._outcome = _("Cancelled.") if self._edit.run.running else ""
            self._end()
        self._update()

    def segmentAt(self, ras):
        """Add the nodule at a point (RAS in the world, mm)."""
        self._start(points=[list(ras)])

    def _start(self, preview=False, **options):
        self.onCancel()
        self._outcome = ""
        host, chosen = self.scriptedEffect, self._options
        roiNode = None if "points" in options else chosen.roiNode
        options = {"speed": chosen.speed, "threshold": chosen.threshold, **options}
        try:
            if host.confirmCurrentSegmentVisible() != host.NotConfirmed and mayRun():
                panel = slicer.util.getModuleWidget(MODULE)
                options |= panel.optionsOfEffect
                self._edit = Edit(panel.controller, self, host, chosen.target, roiNode, preview, **options)
        except ValueError as error:
            self._fail(error)
        self._update()

    def _end(self):
        edit, self._edit = self._edit, None
        edit.end()

    # The controller's calls

    def onRunProgress(self, run):
        showProgress(run, self._options.progressBar, self._options.message)

    def onRunEnded(self, run):
        if not self._edit.preview:
            self._finish()
            return
        self._edit.show()
        advice = [_("Click Apply to write this to the segment.")] if _found(run) else []
        self._outcome = " ".join([*_inWords(self._edit), *advice])
        self._update()

    def onRunFailed(self, run, error):
        self._end()
        self._fail(error)

    def onThresholdChanged(self, run):
        self.onRunEnded(run)

    def onThresholdRefused(self, run, error):
        self.onRunFailed(run, error)

    def _finish(self):
        """Write the result into the segment."""
        edit, self._edit = self._edit, None
        qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
        failure = None
        try:
            changed = edit.write(self.scriptedEffect, self._options.newSegments)
            words = _inWords(edit)
            if not changed and _found(edit.run):
                words.append(_("None of it is in the editable area, so the segment was not changed."))
            elif not changed:
                words.append(_("The segment was not changed."))
            elif round(100 * edit.writtenShare) < 100:
                words.append(
                    _("Only {share} % of it is in the editable area; the rest was not written.").format(
                        share=round(100 * edit.writtenShare)
                    )
                )
            self._outcome = " ".join(words) or _("Done.")
        except ValueError as error:
            failure = error
        finally:
            qt.QApplication.restoreOverrideCursor()
            edit.end()
            self._update()
        if failure:
            self._fail(failure)

    def _follow(self):
        """Update the preview to the options, or discard it if they need another run."""
        edit, chosen = self._edit, self._options
        if not (edit and edit.isShown):
            return
        if (chosen.target, chosen.speed, chosen.roiNode) != (edit.target, edit.speed, edit.roiNode):
            self.onCancel()
        else:
            edit.setThreshold(chosen.threshold)

    def _fail(self, error):
        self._outcome = reason(error)
        self._update()
        showError(error)

    # What is shown

    def _update(self):
        edit, options = self._edit, self._options
        running = edit is not None and edit.run.running
        obstacle = self._obstacle()
        options.enable(running=running, ready=not running and not obstacle, canCancel=edit is not None)
        if running:
            showProgress(edit.run, options.progressBar, options.message)
            return
        advice = _("Click a nodule in a slice view, or click Apply to find all nodules.") if self._takesClicks() else ""
        options.message.text = " ".join(filter(None, (self._outcome, obstacle))) or advice

    def _obstacle(self):
        """Why no run can be started now; empty if it can."""
        node = self.scriptedEffect.parameterSetNode()
        if node is None or node.GetSourceVolumeNode() is None:
            return _("Load a CT and select it as the source volume.")
        model = self._options.model
        if model is None:
            return " ".join(
                [
                    _("There is no model for this target. Add one under Advanced in the UNet++ Segment module."),
                    *self._options.refused,
                ]
            )
        try:
            model.speed(self._options.speed)
        except ValueError as error:
            return str(error)
        return ""


def _found(run):
    """The segments of a result that are not empty, before masking."""
    return [each for each in run.result.segments if each.measurements["volume_ml"]]


def _inWords(edit):
    """Sentences about the findings, before masking, and the notes of the run."""
    found = _found(edit.run)
    isMany = edit.run.bundle.finds_nodules and len(found) > 3
    words = (
        [_("{count} nodules found.").format(count=len(found))]
        if isMany
        else [_size(each, edit.names) for each in found]
    )
    notes = [str(each) for each in edit.run.result.notes if not (edit.refines and each.kind == "cut-by-box")]
    return [*(words if edit.roiNode is None else ()), *notes]


def _size(segment, names):
    name, diameter = names.get(segment.value, segment.name), segment.measurements.get("mean_diameter_rounded_mm")
    if diameter is None:
        return _("{name}: {volume} ml.").format(name=name, volume=round(segment.measurements["volume_ml"]))
    return _("{name}: {diameter} mm.").format(name=name, diameter=diameter)
