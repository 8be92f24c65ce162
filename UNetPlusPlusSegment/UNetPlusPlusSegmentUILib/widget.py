"""The panel: its life cycle in Slicer, the user's choices, and one run at a time. Uses Qt, MRML nodes and the logic."""

import sys

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from UNetPlusPlusSegmentLib.scene import pytorch_install

from .choices import Choices, firstVolume, isMadeFrom, spanVolume
from .cohort import CohortBox
from .controller import RunController
from .messages import reason, showError, showProgress, summary
from .models import ModelList
from .questions import mayRun, replaceOrAdd
from .results import ResultsTable

# Reloaded together with the module file, which Slicer reloads itself.
RELOADED = ("UNetPlusPlusSegmentLib", "UNetPlusPlusSegmentUILib")


class UNetPlusPlusSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel. Only `_update` enables widgets and shows messages; all other methods call it.

    Attributes:
        logic: The logic of the module, which effect and scripts also use.
        controller: Its `RunController`, which the effect also uses.
    """

    def __init__(self, parent=None) -> None:
        """Show nothing yet."""
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self.controller = None
        self._parameterNode = self._models = None
        self._choices = Choices(None, None)
        self._guiTag = None
        self._lastInput = None
        self._run = None
        self._outcome = ""

    def setup(self) -> None:
        """Build the panel; needs no torch, no worker process and no main window."""
        from UNetPlusPlusSegment import UNetPlusPlusSegmentLogic  # imported here, as that file imports this one

        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/UNetPlusPlusSegment.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = UNetPlusPlusSegmentLogic()
        self.controller = RunController(self.logic)
        self._models = ModelList(self.ui, self._update)
        self._results = ResultsTable(self.ui, self.parent)
        self._cohort = CohortBox(self.ui, self.parent, lambda: self._choices.cohortRequest())
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.pointsSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.onPointsAdded)
        self.ui.roiSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.onRoiAdded)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.NodeAddedEvent, self.onNodeAdded)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)
        self.addObserver(scene, scene.NodeRemovedEvent, self._update)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """End the worker and release everything that would keep this panel alive."""
        self._forgetRun()
        self._cohort.close()
        self._models.close()
        self.logic.close()
        self.controller.close()
        self._setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """Update the panel, as models, volumes or PyTorch may have been added since."""
        self.initializeParameterNode()

    def onReload(self) -> None:
        """Also reload the packages: once removed from sys.modules, they are imported again when needed."""
        for name in [each for each in sys.modules if each.partition(".")[0] in RELOADED]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    # The scene and the parameter node

    def onSceneStartClose(self, caller, event) -> None:
        """Stop a run, as its volume is about to be removed."""
        if self._run:
            self._run.cancel()
        self._forgetRun()
        self._outcome, self._lastInput = "", None
        self._cohort.onSceneClosed()
        self._setParameterNode(None)

    def onSceneStartImport(self, caller, event) -> None:
        """Disconnect from the parameter node: the selectors would choose the first nodes loaded, and overwrite the saved choices."""
        self._setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        """Connect to the new parameter node after a scene was closed or loaded."""
        if self.parent.isEntered:
            self.initializeParameterNode()
        self._update()

    def onNodeAdded(self, caller, event) -> None:
        """Select the first volume that is loaded."""
        if self._parameterNode:
            self._selectDefaultInput()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        """Clear the choice of a removed node, before the selector replaces it by the neighbouring row."""
        for name in ("points", "roi", "outputSegmentation"):
            if self._parameterNode and getattr(self._parameterNode, name) is node:
                setattr(self._parameterNode, name, None)

    def initializeParameterNode(self) -> None:
        """Bind the panel to the parameter node of the scene, only once, as each wrapper observes the node until Slicer ends."""
        if self._parameterNode is None:
            self._setParameterNode(self.logic.getParameterNode())
        self._selectDefaultInput()
        self._models.refresh()
        self._update()

    @property
    def optionsOfEffect(self) -> dict:
        """The panel's choices that also hold for runs of the effect, which does not offer them: arguments of the logic's `find`."""
        if self._parameterNode is None:  # the scene was closed while another module was open
            self.initializeParameterNode()
        return {"device": self._parameterNode.device.value, "force": self._parameterNode.force}

    def _setParameterNode(self, parameterNode) -> None:
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterModified)
        self._parameterNode, self._choices = parameterNode, Choices(parameterNode, self._models)
        self._models.bind(parameterNode)
        if self._parameterNode:
            self._guiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterModified)
            self.onParameterModified()

    def _selectDefaultInput(self) -> None:
        volume = None if self._choices.volume else firstVolume()
        if volume:
            self._parameterNode.inputVolume = volume

    def onParameterModified(self, caller=None, event=None) -> None:
        """Update the panel to the user's choices."""
        parameters = self._parameterNode
        volume = parameters.inputVolume
        if volume is not self._lastInput:
            if isMadeFrom(parameters.outputSegmentation, self._lastInput):
                parameters.outputSegmentation = None  # the output belongs to the previous input
            self._lastInput, self._outcome = volume, ""
            name = volume.GetName() if volume else _("New")
            self.ui.outputSelector.baseName = _("{volume} segmentation").format(volume=name)
        self._models.follow()
        self.ui.pointsPlaceWidget.setCurrentNode(parameters.points)
        self._followThreshold()
        self._update()

    def onPointsAdded(self, points) -> None:
        """Show the points where they are placed."""
        points.CreateDefaultDisplayNodes()

    def onRoiAdded(self, roi) -> None:
        """Start with a box around the whole volume."""
        if self._choices.volume:
            spanVolume(roi, self._choices.volume)
        roi.CreateDefaultDisplayNodes()

    # Running

    def onApply(self) -> None:
        """Start a run, or cancel the current one."""
        if self._run and self._run.running:
            self._run.cancel()
        else:
            try:
                if mayRun():
                    self._start()
            except ValueError as error:
                self._fail(error)
        self._update()

    def _start(self) -> None:
        output = None if self._choices.allFrames else self._choices.output
        existing = replaceOrAdd(output, self._models.chosen, self._parameterNode.target, self.parent)
        if not existing:
            return
        self._forgetRun()
        self._outcome = ""
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)  # sending a large volume to the worker takes a second
        try:
            run = self.logic.start(**self._choices.request(existing))
        finally:
            slicer.app.restoreOverrideCursor()
        self._run = self.controller.watch(run, self)

    def _forgetRun(self) -> None:
        self.controller.forget(self._run)
        self._run = None

    def onRunProgress(self, run) -> None:
        """Show the progress."""
        self._update()

    def onRunEnded(self, run) -> None:
        """Show the result, and apply the threshold that was chosen meanwhile."""
        self._outcome = summary(run.result)
        if self._choices.volume is run.volumeNode:  # a scene that was loaded meanwhile has brought other choices
            self._parameterNode.outputSegmentation = run.segmentationNode
            self._followThreshold()
        self._update()

    def onRunFailed(self, run, error) -> None:
        """Show why there is no result, or no map."""
        self._fail(error)

    def onThresholdChanged(self, run) -> None:
        """Show the new result."""
        self._outcome = summary(run.result)
        self._update()

    def onThresholdRefused(self, run, error) -> None:
        """Show why in the message line; a message box would appear at each step of the slider."""
        self._outcome = reason(error)
        self._update()

    def _fail(self, error: Exception) -> None:
        self._outcome = reason(error)
        self._update()
        showError(error)

    def _followThreshold(self) -> None:
        """Apply the sliders to the last result, unless another input, output, model or target has been chosen since."""
        run, parameters = self._run, self._parameterNode
        if run is None or run.running or run.result is None:
            return
        shown = parameters.inputVolume, parameters.outputSegmentation, parameters.model, parameters.target
        if shown == (run.volumeNode, run.segmentationNode, run.bundle.name, run.target):
            self.controller.setThreshold(run, parameters.threshold, self._choices.showFrom)

    # What is shown

    def _update(self, caller=None, event=None) -> None:
        ui, run = self.ui, self._run
        running = run is not None and run.running
        obstacle = "" if running else self._obstacle()
        ui.applyButton.text = _("Cancel") if running else _("Apply")
        ui.applyButton.enabled = not obstacle
        ui.applyButton.toolTip = obstacle
        choices, frames = self._choices, self._choices.allFrames
        for box in (ui.inputsBox, ui.settingsBox, ui.advancedBox):
            box.enabled = not running
        ui.outputsBox.enabled = not running and not frames  # a sequence of results is always new
        ui.roiSelector.enabled = choices.points is None
        for shown, widgets in (
            (choices.isFrame, (ui.allFramesCheckBox,)),
            (choices.findsNodules and not frames, (ui.pointsLabel, ui.pointsSelector, ui.pointsPlaceWidget)),
            (choices.hasShowFrom, (ui.showFromLabel, ui.showFromSlider)),
            (running, (ui.progressBar,)),
        ):
            for widget in widgets:
                widget.setVisible(shown)
        if running:
            showProgress(run, ui.progressBar, ui.messageLabel)
        else:
            ui.messageLabel.text = " ".join(filter(None, (self._outcome, obstacle))) or self._advice()
        self._results.show(run)
        ui.show3DButton.setSegmentationNode(self._choices.output)

    def _obstacle(self) -> str:
        """Why no run can be started now; empty if it can."""
        if not self._choices.volume:
            return _("Load a CT and select it as the input volume.")
        if not self._models.chosen:
            missing = _("There is no model for this target. Copy a model folder into the models folder (see Advanced).")
            return " ".join([missing, *self._models.refused])
        try:
            self._models.chosen.speed(self._parameterNode.speed.value)
        except ValueError as error:
            return str(error)
        return ""

    def _advice(self) -> str:
        if not pytorch_install.is_installed():
            return _("PyTorch is not installed. Click Apply to install it with the PyTorch extension.")
        return " ".join(self._models.refused)
