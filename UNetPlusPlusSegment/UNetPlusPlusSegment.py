"""UNet++ Segment: the scripted module. Its panel on Qt and its logic; all else is in UNetPlusPlusSegmentLib."""

import enum
import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import qt
import slicer
import vtk
from slicer import (
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
)
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from UNetPlusPlusSegmentLib.network.bundle import find_bundles, user_folder
from UNetPlusPlusSegmentLib.scene import pytorch_install
from UNetPlusPlusSegmentLib.scene.logic import Segmenter
from UNetPlusPlusSegmentUILib.messages import (
    LICENCE_URL,
    POLL_MS,
    askPermission,
    showError,
    showProgress,
    speedTitle,
    targetTitle,
    whyNot,
)
from UNetPlusPlusSegmentUILib.results import ResultsTable

PACKAGES = ("UNetPlusPlusSegmentLib", "UNetPlusPlusSegmentUILib")
SAMPLE = {
    "category": "UNetPlusPlusSegment",
    "sampleName": "SmallChestCT",
    "uris": "https://raw.githubusercontent.com/lassoan/slicerio/d32d3c6123b375fd616b6f10c8e880aee5fe9595/slicerio/data/CTChest4.nrrd",
    "fileNames": "CTChest4.nrrd",
    "nodeNames": "SmallChestCT",
    "checksums": "SHA256:439ee098e50ee8e3254bd80ed8bcf7f8d006da4cab35be7a65b61ccb30dd6a3d",
}


class UNetPlusPlusSegment(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent) -> None:
        """Describe the module; nothing heavy happens here."""
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("UNet++ Segment")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Markups", "Sequences", "Terminologies"]
        self.parent.contributors = ["UNetPlusPlusSegment contributors"]
        self.parent.helpText = _("""
Finds and outlines the liver, or lung nodules, in CT with a UNet++ network, and measures them. Choose a CT, press Apply.
For research only: not a medical device. See the <a href="{url}">page of the extension</a>.
""").format(url="https://github.com/unetplusplussegment/SlicerUNetPlusPlusSegment")
        self.parent.acknowledgementText = _("""
The network is that of Zhou Z, Siddiquee MMR, Tajbakhsh N, Liang J: UNet++: A Nested U-Net Architecture for Medical Image
Segmentation, DLMIA 2018. The trained models name their data sets; their licence is <a href="{url}">for research only</a>.
""").format(url=LICENCE_URL)
        slicer.app.connect("startupCompleted()", registerInOtherModules)
        slicer.app.connect("startupCompleted()", self.registerSampleData)
        slicer.app.connect("startupCompleted()", self.registerTerminology)

    def registerSampleData(self) -> None:
        """Offer a small chest CT in the Sample Data module; the larger CTChest and CTLiver are there already."""
        from SampleData import SampleDataLogic

        if hasattr(SampleDataLogic, "registerCustomSampleDataCategory"):  # from Slicer 5.12 on
            SampleDataLogic.registerCustomSampleDataCategory(SAMPLE["category"], self.parent.title)
        SampleDataLogic.registerCustomSampleDataSource(
            thumbnailFileName=self.resourcePath("Icons/SmallChestCT.png"), **SAMPLE
        )

    def registerTerminology(self) -> None:
        """Offer the terms of the results, with their colours, where the user chooses terms."""
        path = self.resourcePath("Terminologies/UNetPlusPlusSegment.term.json")
        slicer.modules.terminologies.logic().LoadTerminologyFromFile(path)


def registerInOtherModules() -> None:
    """Add to the Segment Editor and to Segment Statistics, once all modules are there, if this Slicer was built with them."""
    if importlib.util.find_spec("SegmentEditorEffects"):
        from qSlicerSegmentationsEditorEffectsPythonQt import qSlicerSegmentEditorScriptedEffect

        import SegmentEditorUNetPlusPlusLib

        effect = qSlicerSegmentEditorScriptedEffect(None)
        folder = Path(SegmentEditorUNetPlusPlusLib.__file__).parent
        effect.setPythonSource((folder / "SegmentEditorEffect.py").as_posix())
        effect.self().register()
    if importlib.util.find_spec("SegmentStatistics"):
        from SegmentStatistics import SegmentStatisticsLogic

        from SegmentStatisticsUNetPlusPlusLib.UNetPlusPlusSegmentStatisticsPlugin import (
            UNetPlusPlusSegmentStatisticsPlugin,
        )

        SegmentStatisticsLogic.registerPlugin(UNetPlusPlusSegmentStatisticsPlugin())


class Target(enum.Enum):
    """What to look for; those without a model are not offered."""

    LIVER = "liver"
    NODULE = "nodule"

    def label(self) -> str:
        """For the user."""
        return targetTitle(self.value)


class Speed(enum.Enum):
    """How thoroughly to look."""

    BALANCED = "balanced"
    ACCURATE = "accurate"
    FAST = "fast"

    def label(self) -> str:
        """For the user."""
        return speedTitle(self.value)


class Device(enum.Enum):
    """Where the network runs."""

    AUTO = "auto"
    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"

    def label(self) -> str:
        """For the user."""
        return {
            "auto": _("Automatic"),
            "cuda": _("Graphics card (CUDA)"),
            "mps": _("Graphics processor (Mac)"),
            "cpu": _("Processor"),
        }[self.value]


@parameterNodeWrapper
class UNetPlusPlusSegmentParameterNode:
    """The user's choices, saved with the scene.

    `model` is the name of the model that `threshold` goes with. It has no SlicerParameterName in the .ui file: the list
    of models changes, which no wrapped type allows.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    target: Target
    points: vtkMRMLMarkupsFiducialNode
    roi: vtkMRMLMarkupsROINode
    allFrames: bool
    model: str
    outputSegmentation: vtkMRMLSegmentationNode
    probabilityMap: bool
    uncertaintyMap: bool
    speed: Speed
    device: Device
    threshold: Annotated[float, WithinRange(0.01, 0.99)] = 0.5
    force: bool


class UNetPlusPlusSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel. `_update` alone decides what can be pressed and what is said; all other methods lead there."""

    def __init__(self, parent=None) -> None:
        """Nothing is shown yet."""
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._guiTag = None
        self._models = []
        self._refusedModels = []
        self._listed = None
        self._lastInput = None
        self._run = None
        self._seen = None
        self._outcome = ""

    def setup(self) -> None:
        """Build the panel: no torch, no worker process, no main window needed."""
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/UNetPlusPlusSegment.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = UNetPlusPlusSegmentLogic()
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.onTimer)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self.onModel)
        self.ui.pointsSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.onPointsAdded)
        self.ui.roiSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.onRoiAdded)
        self._results = ResultsTable(self.ui, self.parent)
        self.ui.modelsFolderButton.connect("clicked(bool)", self.onModelsFolder)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAddedEvent, self.onNodeAdded)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._update)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """End the worker and let go of everything that would keep this panel alive."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self.onTimer)
        self._run = None
        self.logic.close()
        self._setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """Models may have come, volumes been loaded and PyTorch installed since."""
        self.initializeParameterNode()

    def onReload(self) -> None:
        """Reload the packages, too: what is out of sys.modules is read anew, in the order in which it is needed."""
        for name in [each for each in sys.modules if each.partition(".")[0] in PACKAGES]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    # The scene and the parameter node

    def onSceneStartClose(self, caller, event) -> None:
        """Stop a run: its volume is about to go."""
        if self._run:
            self._run.cancel()
        self._run, self._outcome, self._lastInput = None, "", None
        self._setParameterNode(None)

    def onSceneStartImport(self, caller, event) -> None:
        """Let go: the selectors would take the first nodes that come for the user's choice, and write over the saved one."""
        self._setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        """Start afresh, after a scene was closed or loaded."""
        if self.parent.isEntered:
            self.initializeParameterNode()
        self._update()

    def onNodeAdded(self, caller, event) -> None:
        """Take the first volume, wherever it was loaded from."""
        if self._parameterNode and not self._parameterNode.inputVolume:
            self._selectDefaultInput()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        """Choose none, before the selectors see the row go and take its neighbour, which nobody chose."""
        for name in ("points", "roi", "outputSegmentation"):
            if self._parameterNode and getattr(self._parameterNode, name) is node:
                setattr(self._parameterNode, name, None)

    def initializeParameterNode(self) -> None:
        """Bind the panel to the parameter node of the scene, once: each wrapper observes the node for as long as Slicer runs."""
        if self._parameterNode is None:
            self._setParameterNode(self.logic.getParameterNode())
        self._selectDefaultInput()
        self._refreshModels()

    def _setParameterNode(self, parameterNode) -> None:
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterModified)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._guiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterModified)
            self.onParameterModified()

    def _selectDefaultInput(self) -> None:
        if not self._parameterNode.inputVolume:
            volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            plain = [
                node
                for node in volumes
                if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors()
            ]
            if plain:
                self._parameterNode.inputVolume = plain[0]

    def onParameterModified(self, caller=None, event=None) -> None:
        """Follow the user's choices."""
        parameters = self._parameterNode
        volume, output = parameters.inputVolume, parameters.outputSegmentation
        if volume is not self._lastInput:
            reference = output and output.GetNodeReference(output.GetReferenceImageGeometryReferenceRole())
            if self._lastInput and volume and reference is self._lastInput:  # the next result is not for this one
                parameters.outputSegmentation = None
            self._lastInput, self._outcome = volume, ""
            name = volume.GetName() if volume else _("New")
            self.ui.outputSelector.baseName = _("{volume} segmentation").format(volume=name)
        if (parameters.target, parameters.model) != self._listed:
            self._refreshModels()
        self.ui.pointsPlaceWidget.setCurrentNode(parameters.points)
        self._rethreshold()
        self._update()

    def onPointsAdded(self, points) -> None:
        """Show the points where they are placed."""
        points.CreateDefaultDisplayNodes()

    def onRoiAdded(self, roi) -> None:
        """Begin with a box round the whole volume, so that there are handles to drag."""
        volume = self._parameterNode.inputVolume if self._parameterNode else None
        if volume:
            bounds = [0.0] * 6
            volume.GetRASBounds(bounds)
            ends = list(zip(bounds[::2], bounds[1::2], strict=True))
            roi.SetCenterWorld([(low + high) / 2 for low, high in ends])
            roi.SetSizeWorld([high - low for low, high in ends])
        roi.CreateDefaultDisplayNodes()

    def _looksAtNodules(self) -> bool:
        return self._parameterNode is not None and self._parameterNode.target is Target.NODULE

    def _isFrame(self) -> bool:
        """Whether the input is one frame of a sequence."""
        volume = self._parameterNode.inputVolume if self._parameterNode else None
        browserOf = slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode
        return volume is not None and browserOf(volume) is not None

    def _points(self):
        """Those that a run would look at; where there are some, no box counts."""
        return self._parameterNode.points if self._looksAtNodules() and not self._takesAllFrames() else None

    def _takesAllFrames(self) -> bool:
        return self._isFrame() and self._parameterNode.allFrames

    # Models

    def _refreshModels(self) -> None:
        """List the models for the target, the newest first; the saved choice stays if it is still there."""
        models, self._refusedModels = find_bundles()
        target = self._parameterNode.target.value
        self._models = [model for model in models if model.target == target]
        names = [model.name for model in self._models]
        wasBlocked = self.ui.modelComboBox.blockSignals(True)
        self.ui.modelComboBox.clear()
        self.ui.modelComboBox.addItems(names)
        index = names.index(self._parameterNode.model) if self._parameterNode.model in names else 0
        self.ui.modelComboBox.setCurrentIndex(index if names else -1)
        self.ui.modelComboBox.blockSignals(wasBlocked)
        severalTargets = any(model.target != Target.LIVER.value for model in models)
        for shown, widgets in (
            (severalTargets, (self.ui.targetLabel, self.ui.targetComboBox)),
            (len(names) > 1, (self.ui.modelLabel, self.ui.modelComboBox)),
        ):
            for widget in widgets:
                widget.setVisible(shown)
        self.onModel(index)
        self._listed = self._parameterNode.target, self._parameterNode.model
        self._update()

    def onModel(self, index) -> None:
        """Take another model, and with it the threshold that goes with it."""
        if self._parameterNode and 0 <= index < len(self._models):
            model = self._models[index]
            if model.name != self._parameterNode.model:
                with slicer.util.NodeModify(self._parameterNode):
                    self._parameterNode.model = model.name
                    self._parameterNode.threshold = model.threshold

    def onModelsFolder(self) -> None:
        """Show where own models belong."""
        folder = user_folder()
        folder.mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))

    # Running

    def onApply(self) -> None:
        """Start a run, or cancel the one under way."""
        if self._run and self._run.running:
            self._run.cancel()
            self._update()
            return
        try:
            existing = self._whatOfTheOldSegment() if askPermission() else ""
            if existing:
                self._start(existing)
        except ValueError as error:
            self._fail(error)
        self._update()

    def _whatOfTheOldSegment(self) -> str:
        """`new`, `replace`, or nothing if the user cancels."""
        from UNetPlusPlusSegmentLib.scene.runs import segments_of_target  # brings SimpleITK

        output = None if self._takesAllFrames() else self._parameterNode.outputSegmentation
        existing = segments_of_target(output, self._models[self.ui.modelComboBox.currentIndex])
        if not existing:
            return "new"
        box = qt.QMessageBox(self.parent)
        box.setIcon(qt.QMessageBox.Question)
        box.setWindowTitle(_("There is such a segment already"))
        name = ", ".join(output.GetSegmentation().GetSegment(each).GetName() for each in existing)
        box.setText(
            _(
                "{segmentation} holds a segment {segment}. Replace it, or add a new one beside it? No other segment is"
                " touched."
            ).format(segmentation=output.GetName(), segment=name)
        )
        box.setStandardButtons(qt.QMessageBox.Yes | qt.QMessageBox.No | qt.QMessageBox.Cancel)
        box.button(qt.QMessageBox.Yes).setText(_("Replace"))
        box.button(qt.QMessageBox.No).setText(_("Add new"))
        return {int(qt.QMessageBox.Yes): "replace", int(qt.QMessageBox.No): "new"}.get(int(box.exec_()), "")

    def _start(self, existing: str) -> None:
        parameters, allFrames, points = self._parameterNode, self._takesAllFrames(), self._points()
        maps = {"probability": parameters.probabilityMap, "uncertainty": parameters.uncertaintyMap}
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)  # the volume is handed over: a second, if it is a large one
        try:
            self._run, self._outcome = None, ""
            self._seen = (True, None, None)
            self._run = self.logic.start(
                parameters.inputVolume,
                None if allFrames else parameters.outputSegmentation,
                parameters.target.value,
                speed=parameters.speed.value,
                device=parameters.device.value,
                threshold=parameters.threshold,
                force=parameters.force,
                model=parameters.model,
                existing=existing,
                maps=[name for name, wanted in maps.items() if wanted and not allFrames],
                roi=None if points else parameters.roi,
                points=points,
                allFrames=allFrames,
            )
        finally:
            slicer.app.restoreOverrideCursor()
        self._timer.start()

    def onTimer(self) -> None:
        """Pass on what the worker says, and act on it, whoever polled: the effect and scripts share the logic."""
        self.logic.poll()
        run = self._run
        if run and not run.running and self._seen != (run.running, run.result, run.error):
            ranBefore, self._seen = self._seen[0], (run.running, run.result, run.error)
            self._ended(firstTime=ranBefore)
        if not self.logic.busy:
            self._timer.stop()
        self._update()

    def _ended(self, firstTime: bool) -> None:
        """Tell how a run, or a change of the threshold, ended."""
        run = self._run
        if run.result:
            done = _("Done in {seconds} s on {device}: {slices} slices.").format(
                seconds=round(run.result.seconds, 1), device=run.result.device, slices=run.result.slices
            )
            self._outcome = " ".join([done, *run.result.notes])
            if firstTime and self._parameterNode:
                self._parameterNode.outputSegmentation = run.segmentationNode
        if run.error:
            self._fail(run.error, showBox=firstTime)
        self._rethreshold()

    def _fail(self, error: Exception, showBox: bool = True) -> None:
        """Say why something could not be done."""
        self._outcome = whyNot(error)
        if showBox:
            self._update()
            showError(error)

    def _rethreshold(self) -> None:
        """Cut the last result at the threshold of the slider, as long as the panel still shows what it was made from."""
        run, parameters = self._run, self._parameterNode
        if (
            run is None
            or parameters is None
            or run.running
            or run.result is None
            or parameters.inputVolume is not run.volumeNode
            or parameters.outputSegmentation is not run.segmentationNode
            or parameters.model != run.bundle.name
        ):
            return
        try:
            run.set_threshold(parameters.threshold)
        except ValueError as error:
            self._outcome = str(error)
        if self.logic.busy:
            self._timer.start()

    # What is shown

    def _update(self, caller=None, event=None) -> None:
        run = self._run
        running = run is not None and run.running
        obstacle = self._obstacle()
        self.ui.applyButton.text = _("Cancel") if running else _("Apply")
        self.ui.applyButton.enabled = running or not obstacle
        self.ui.applyButton.toolTip = obstacle if obstacle and not running else ""
        for box in (self.ui.inputsBox, self.ui.settingsBox, self.ui.advancedBox):
            box.enabled = not running
        frames, ui = self._takesAllFrames(), self.ui
        for shown, widgets in (
            (self._isFrame(), (ui.allFramesCheckBox,)),
            (self._looksAtNodules() and not frames, (ui.pointsLabel, ui.pointsSelector, ui.pointsPlaceWidget)),
            (running, (ui.progressBar,)),
        ):
            for widget in widgets:
                widget.setVisible(shown)
        ui.roiSelector.enabled = self._points() is None
        self.ui.outputsBox.enabled = not (running or frames)  # a sequence is always a new one
        if running:
            showProgress(run, self.ui.progressBar, self.ui.messageLabel)
        else:
            self.ui.messageLabel.text = " ".join(filter(None, (self._outcome, obstacle))) or self._advice()
        self._results.show(run)
        output = self._parameterNode.outputSegmentation if self._parameterNode else None
        self.ui.show3DButton.setSegmentationNode(output)

    def _obstacle(self) -> str:
        """Why there can be no run now; empty if there can."""
        if not self._parameterNode or not self._parameterNode.inputVolume:
            return _("Choose an input volume: load a CT first.")
        if not self._models:
            missing = _("There is no model for this target: put a model folder into the models folder (see Advanced).")
            return " ".join([missing, *self._refusedModels])
        return ""

    def _advice(self) -> str:
        if not pytorch_install.is_installed():
            return _("PyTorch is not installed yet: Apply offers to install it with the PyTorch extension.")
        return " ".join(self._refusedModels)


class UNetPlusPlusSegmentLogic(ScriptedLoadableModuleLogic, Segmenter):
    """For scripts: `process` for a volume of the scene, `processFolder` for files; see `Segmenter`."""

    def getParameterNode(self) -> UNetPlusPlusSegmentParameterNode:
        """The choices in the panel."""
        return UNetPlusPlusSegmentParameterNode(super().getParameterNode())


class UNetPlusPlusSegmentTest(ScriptedLoadableModuleTest):
    """What can be tested inside Slicer without data: a made-up CT, the models and the PyTorch that are there."""

    def setUp(self) -> None:
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()
        self.logic = UNetPlusPlusSegmentLogic()

    def tearDown(self) -> None:
        """Leave no process behind."""
        self.logic.close()

    def test_WhatIsNoCTIsRefused(self) -> None:
        """An image without air, as MR has it, is refused and leaves the scene as it was; so is all, without PyTorch or a model."""
        volume = self._volume(lowest=0)
        with self.assertRaises(ValueError) as refused:
            self.logic.process(volume)
        if self._canRun():
            self.assertIn("does not look like CT", str(refused.exception))
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)
        self.delayDisplay(str(refused.exception))

    def test_AResultLiesOnItsVolume(self) -> None:
        """A volume under a transform gets a segment under the same one, with measurements."""
        if not self._canRun():
            self.delayDisplay("No PyTorch or no model here: not tested")
            return
        volume = self._volume(lowest=-1000)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        volume.SetAndObserveTransformNodeID(transform.GetID())
        measurements = self.logic.process(volume, device="cpu", speed="fast")
        (name,) = measurements
        segmentation = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
        self.assertEqual(segmentation.GetTransformNodeID(), transform.GetID())
        self.assertTrue(segmentation.GetSegmentation().GetSegmentIdBySegmentName(name))
        self.assertGreaterEqual(measurements[name]["volume_ml"], 0)
        self.delayDisplay(f"{name}: {measurements[name]['volume_ml']:.1f} ml")

    def _canRun(self) -> bool:
        return pytorch_install.is_installed() and bool(find_bundles("liver")[0])

    def _volume(self, lowest: int):
        """A block of 100 HU, 120 mm wide, in noise from `lowest` to 40."""
        import numpy as np

        array = np.random.default_rng(0).integers(lowest, 40, (24, 64, 64)).astype(np.int16)
        array[6:18, 16:46, 16:46] = 100
        return slicer.util.addVolumeFromArray(array, np.diag([-4.0, -4.0, 5.0, 1.0]), "Made-up CT")
