"""UNet++ Segment: the scripted module, its parameters, its logic for scripts, and its self-test.

The library is UNetPlusPlusSegmentLib. The panel is in UNetPlusPlusSegmentUILib; its class is imported here, where Slicer looks for it.
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
        """Describe the module; nothing slow happens here."""
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("UNet++ Segment")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Markups", "Sequences", "Terminologies"]
        self.parent.contributors = ["UNetPlusPlusSegment contributors"]
        self.parent.helpText = _("""
Segments and measures the liver, lung nodules, or any other structure with an installed model in CT, with a UNet++ network. Select
a CT volume and click Apply.
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
        """Add a small chest CT to the Sample Data module, which already has the larger CTChest and CTLiver."""
        from SampleData import SampleDataLogic

        if hasattr(SampleDataLogic, "registerCustomSampleDataCategory"):  # Slicer 5.12 and newer
            SampleDataLogic.registerCustomSampleDataCategory(SAMPLE["category"], self.parent.title)
        SampleDataLogic.registerCustomSampleDataSource(
            thumbnailFileName=self.resourcePath("Icons/SmallChestCT.png"), **SAMPLE
        )

    def registerTerminology(self) -> None:
        """Add the terms of the results, with their colours, to the terminologies that the user can choose from."""
        path = self.resourcePath("Terminologies/UNetPlusPlusSegment.term.json")
        slicer.modules.terminologies.logic().LoadTerminologyFromFile(path)


def registerInOtherModules() -> None:
    """Register the effect and the statistics plugin once all modules are loaded, if this Slicer has the modules for them."""
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
    """The speed; faster means less accurate. Scenes store the names of these members, as those of DeviceChoice."""

    BALANCED = "balanced"
    ACCURATE = "accurate"
    FAST = "fast"

    def label(self) -> str:
        """Name in the panel."""
        return speedTitle(self.value)


class DeviceChoice(enum.Enum):
    """The device that the network runs on."""

    AUTO = "auto"
    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"

    def label(self) -> str:
        """Name in the panel."""
        return deviceTitle(self.value)


@parameterNodeWrapper
class UNetPlusPlusSegmentParameterNode:
    """The user's choices, saved with the scene.

    `target` is a target for the logic; `model` is the name of the model that `threshold` and `showFrom` belong to. These two have no
    SlicerParameterName in the .ui file, because their lists change with the models, which no wrapped type supports.
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
    """The logic for scripts: `process` segments a volume of the scene, `processFolder` segments files; see `Segmenter`."""

    def getParameterNode(self) -> UNetPlusPlusSegmentParameterNode:
        """The choices in the panel."""
        return UNetPlusPlusSegmentParameterNode(super().getParameterNode())


class UNetPlusPlusSegmentTest(ScriptedLoadableModuleTest):
    """Tests that run inside Slicer without data: on a synthetic CT, with the installed models and PyTorch."""

    def setUp(self) -> None:
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()
        self.logic = UNetPlusPlusSegmentLogic()

    def tearDown(self) -> None:
        """Leave no process behind."""
        self.logic.close()

    def test_WhatIsNoCTIsRefused(self) -> None:
        """An image without air, such as MR, is refused and leaves the scene unchanged; without PyTorch or a model, so is any image."""
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
            self.delayDisplay("Skipped, as PyTorch or the liver model is not installed")
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
