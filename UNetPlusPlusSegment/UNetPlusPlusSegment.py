"""UNet++ Segment: the scripted module, its parameters, its logic for scripts, and its self-test.

The library is UNetPlusPlusSegmentLib, the panel UNetPlusPlusSegmentUILib: Slicer finds its class here, by its name.
"""

import enum
import importlib.util
from pathlib import Path
from typing import Annotated

import slicer
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
)

from UNetPlusPlusSegmentLib.network.bundle import find_bundles
from UNetPlusPlusSegmentLib.scene import pytorch_install
from UNetPlusPlusSegmentLib.scene.logic import Segmenter
from UNetPlusPlusSegmentUILib.messages import LICENCE_URL, deviceTitle, speedTitle
from UNetPlusPlusSegmentUILib.widget import UNetPlusPlusSegmentWidget  # noqa: F401 (Slicer looks for it here)

SAMPLE = {
    "category": "UNetPlusPlusSegment",
    "sampleName": "SmallChestCT",
    "uris": "https://raw.githubusercontent.com/lassoan/slicerio/d32d3c6123b375fd616b6f10c8e880aee5fe9595/slicerio/data/CTChest4.nrrd",
    "fileNames": "CTChest4.nrrd",
    "nodeNames": "SmallChestCT",
    "checksums": "SHA256:439ee098e50ee8e3254bd80ed8bcf7f8d006da4cab35be7a65b61ccb30dd6a3d",
}


class UNetPlusPlusSegment(ScriptedLoadableModule):
    """The module as Slicer lists it, before it is opened."""

    def __init__(self, parent) -> None:
        """Describe the module; nothing heavy happens here."""
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("UNet++ Segment")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Markups", "Sequences", "Terminologies"]
        self.parent.contributors = ["UNetPlusPlusSegment contributors"]
        self.parent.helpText = _("""
Segments the liver, lung nodules, or whatever there is a model for in CT with a UNet++ network, and measures it. Select a CT volume
and click Apply.
For research use only; this is not a medical device. See the <a href="{url}">home page of the extension</a>.
""").format(url="https://github.com/unetplusplussegment/SlicerUNetPlusPlusSegment")
        self.parent.acknowledgementText = _("""
Network architecture: Zhou Z, Siddiquee MMR, Tajbakhsh N, Liang J. UNet++: A Nested U-Net Architecture for Medical Image
Segmentation. DLMIA 2018. Each trained model names its training data; the <a href="{url}">licence of the models</a> permits
non-commercial research only.
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


class SpeedChoice(enum.Enum):
    """The speed, at the cost of accuracy. Scenes keep the names of these members, as of those below."""

    BALANCED = "balanced"
    ACCURATE = "accurate"
    FAST = "fast"

    def label(self) -> str:
        """For the user."""
        return speedTitle(self.value)


class DeviceChoice(enum.Enum):
    """The device that the network runs on."""

    AUTO = "auto"
    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"

    def label(self) -> str:
        """For the user."""
        return deviceTitle(self.value)


@parameterNodeWrapper
class UNetPlusPlusSegmentParameterNode:
    """The user's choices, saved with the scene.

    `target` is as the logic takes it, and `model` the name of the model that `threshold` and `showFrom` go with. They have no
    SlicerParameterName in the .ui file: the lists change with the models, which no wrapped type allows.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    target: str
    points: vtkMRMLMarkupsFiducialNode
    roi: vtkMRMLMarkupsROINode
    allFrames: bool
    model: str
    outputSegmentation: vtkMRMLSegmentationNode
    probabilityMap: bool
    uncertaintyMap: bool
    speed: SpeedChoice
    device: DeviceChoice
    threshold: Annotated[float, WithinRange(0.01, 0.99)] = 0.5
    showFrom: Annotated[float, WithinRange(0, 1)] = 0.5
    force: bool


class UNetPlusPlusSegmentLogic(ScriptedLoadableModuleLogic, Segmenter):
    """For scripts: `process` for a volume of the scene, `processFolder` for files; see `Segmenter`."""

    def getParameterNode(self) -> UNetPlusPlusSegmentParameterNode:
        """The choices in the panel."""
        return UNetPlusPlusSegmentParameterNode(super().getParameterNode())


class UNetPlusPlusSegmentTest(ScriptedLoadableModuleTest):
    """The tests that run inside Slicer without data: on a made-up CT, with the models and the PyTorch that are there."""

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
