"""The Segment Editor effect on real CT: voxel for voxel what the library and the command line find, and the masks leave."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.bright import segmented
from Testing.support.mrml_scene import slicer
from Testing.support.segment_editor import paint, painted, press, wait
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.core.volume import crop
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.network.bundle import choose_bundle

EDITOR, SEGMENTATION = slicer.vtkMRMLSegmentEditorNode, slicer.vtkMRMLSegmentationNode


@pytest.fixture(scope="module")
def models():
    """Those that ship."""


def test_apply_undo_redo_and_masks_on_a_chest_with_liver(opened):
    slicerio = pytest.importorskip("slicerio")
    whole, _ = files.read_volume(slicerio.get_testdata_file("CTChest4.nrrd"))
    volume = crop(whole, np.s_[3:8, 0:128, 0:128])  # the slices with most of the liver
    at = opened(volume.array, volume.ijk_to_ras)
    found = segmented(SliceEngine(choose_bundle("liver")), volume, speed="balanced").labelmap == 1
    assert np.count_nonzero(found) > 5000
    other = np.zeros_like(found)
    other[:, : found.shape[1] // 2] = True
    assert (found & other).any()
    assert (found & ~other).any()
    paint(at, "visible", other)
    press(at, "apply")
    wait(at)
    assert (painted(at, "selected") == found).all()
    assert (painted(at, "visible") == other & ~found).all()
    at.editor.undo()
    assert not painted(at, "selected").any()
    assert (painted(at, "visible") == other).all()
    at.editor.redo()
    assert (painted(at, "selected") == found).all()
    at.editor.undo()
    at.node.SetMaskMode(SEGMENTATION.EditAllowedInsideSingleSegment)
    at.node.SetMaskSegmentID("visible")
    at.node.SetOverwriteMode(EDITOR.OverwriteNone)
    press(at, "apply")
    wait(at)
    assert (painted(at, "selected") == found & other).all()
    assert (painted(at, "visible") == other).all()


def test_a_click_on_a_nodule_gives_what_the_command_line_does(opened, shared_data, tmp_path):
    scan = shared_data("volumes/LIDC-IDRI-0001_ct.nii.gz")
    volume, _ = files.read_volume(scan)
    truth, _ = files.read_volume(shared_data("volumes/LIDC-IDRI-0001_nodule.nii.gz"))
    k, j, i = np.argwhere((truth.array > 0) & (truth.array < 100)).mean(axis=0)
    point = (truth.ijk_to_ras @ [i, j, k, 1])[:3].round(1).tolist()
    output = tmp_path / "nodule.nii.gz"
    assert main(["nodule", str(scan), "--point", ",".join(map(str, point)), "-o", str(output)]) == 0
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(output))) > 0
    at = opened(volume.array, volume.ijk_to_ras)
    at.effect._options.targetBox.setCurrentIndex(at.effect._options.targetBox.findData("Nodule"))
    at.effect.segmentAt(point)
    wait(at)
    assert np.count_nonzero(found) > 500
    assert (painted(at, "selected") == found).all()
