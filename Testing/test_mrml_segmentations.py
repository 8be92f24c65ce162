"""Results as segmentations of a real MRML scene (slicer-core): voxels, names, terminology, and what a file keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from Testing.support.mrml_scene import (
    GRIDS,
    LIVER,
    LIVER_TERMINOLOGY,
    NODULE,
    NODULE_TERMINOLOGY,
    PLACES,
    SHAPE,
    TURN,
    a_ct,
    a_labelmap,
    add_grid_transform,
    add_linear_transform,
    add_volume,
    angles,
    at,
    segment_in_world,
    segments_of,
    several_in_one_scene,
    shifts,
    slicer,
    turned_by,
    voxels_in_world,
    vtk,
)
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.scene import mrml, showing


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_mask_lies_on_the_voxels_of_its_volume_on_any_grid_under_any_transform(scene, grid, place):
    volumeNode = add_volume(a_ct(), GRIDS[grid], transform=PLACES[place]())
    segmentationNode = showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode)
    assert segmentationNode.GetTransformNodeID() == volumeNode.GetTransformNodeID()
    for segmentID, segment in zip(segments_of(segmentationNode), (LIVER, NODULE), strict=True):
        expected = a_labelmap() == segment.value
        read_back = mrml.labelmap_of(segmentationNode, segmentID, volumeNode)
        assert read_back.dtype == bool
        np.testing.assert_array_equal(read_back, expected)
        by_slicer = slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, segmentID, volumeNode)
        np.testing.assert_array_equal(by_slicer, expected)
        np.testing.assert_allclose(
            segment_in_world(segmentationNode, segmentID),
            voxels_in_world(volumeNode, GRIDS[grid], expected),
            atol=1e-6,
        )


@several_in_one_scene
@given(
    degrees=angles,
    shift=shifts,
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
    flips=st.tuples(*[st.sampled_from([1, -1])] * 3),
    shear=st.floats(-0.5, 0.5),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    seed=st.integers(0, 999),
)
def test_any_mask_on_any_grid_is_read_back_voxel_for_voxel(scene, degrees, shift, spacing, flips, shear, shape, seed):
    sheared = np.eye(4)
    sheared[0, 2] = shear
    ijk_to_ras = turned_by(degrees, shift) @ sheared @ np.diag([*np.multiply(spacing, flips), 1])
    labelmap = (np.random.default_rng(seed).random(shape) < 0.3).astype(np.uint8)
    volumeNode = add_volume(np.zeros(shape, np.int16), ijk_to_ras, transform=add_linear_transform(TURN))
    segmentationNode = showing.show_segmentation(labelmap, [LIVER], volumeNode)
    (segmentID,) = segments_of(segmentationNode)
    np.testing.assert_array_equal(mrml.labelmap_of(segmentationNode, segmentID, volumeNode), labelmap == 1)


def test_many_labels_share_one_layer_and_keep_their_order(scene):
    labelmap = np.zeros(SHAPE, np.uint16)
    labelmap.flat[:300:3] = np.arange(100) * 3 + 1  # up to 298: more than eight bits
    segments = [Segment(value, f"nodule {value}", NODULE_TERMINOLOGY, (1, 2, 3), {}) for value in range(298, 0, -3)]
    segmentationNode = showing.show_segmentation(labelmap, segments, volumeNode := add_volume(a_ct()))
    assert segmentationNode.GetSegmentation().GetNumberOfLayers() == 1
    assert [s.GetName() for s in segments_of(segmentationNode).values()] == [s.name for s in segments]
    for segmentID, segment in zip(segments_of(segmentationNode), segments, strict=True):
        assert np.argwhere(mrml.labelmap_of(segmentationNode, segmentID, volumeNode).ravel()) == segment.value - 1


def test_a_segment_on_another_grid_is_read_by_nearest_voxel(scene):
    fine = add_volume(np.zeros((4, 6, 8), np.int16), np.diag([1.0, 1.0, 1.0, 1.0]))
    coarse = add_volume(np.zeros((2, 3, 4), np.int16), at(np.diag([2.0, 2.0, 2.0, 1.0]), (0.25, 0.25, 0.25)))
    labelmap = (np.arange(4 * 6 * 8).reshape(4, 6, 8) % 3 == 0).astype(np.uint8)
    segmentationNode = showing.show_segmentation(labelmap, [LIVER], fine)
    (segmentID,) = segments_of(segmentationNode)
    on_coarse = mrml.labelmap_of(segmentationNode, segmentID, coarse)
    np.testing.assert_array_equal(on_coarse, labelmap[::2, ::2, ::2] == 1)


def test_all_segments_are_read_where_a_transform_of_their_own_has_moved_them(scene):
    volumeNode = add_volume(a_ct(), GRIDS["identity"])
    segmentationNode = showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode)
    np.testing.assert_array_equal(mrml.merged_labelmap_of(segmentationNode, volumeNode), a_labelmap())
    segmentationNode.SetAndObserveTransformNodeID(add_linear_transform(at(np.eye(4), (1.0, 0.0, 0.0))).GetID())
    moved = np.zeros_like(a_labelmap())
    moved[:, :, 1:] = a_labelmap()[:, :, :-1]
    np.testing.assert_array_equal(mrml.merged_labelmap_of(segmentationNode, volumeNode), moved)


@pytest.mark.parametrize("slices", [SHAPE[0], 1])
def test_nothing_found_is_an_empty_segment_with_its_name_that_can_be_drawn_and_saved(scene, tmp_path, slices):
    volumeNode = add_volume(a_ct()[:slices])
    segmentationNode = showing.show_segmentation(np.zeros((slices, *SHAPE[1:]), np.uint8), [LIVER, NODULE], volumeNode)
    assert [segment.GetName() for segment in segments_of(segmentationNode).values()] == ["liver", "nodule 1"]
    for segmentID in segments_of(segmentationNode):
        assert not mrml.labelmap_of(segmentationNode, segmentID, volumeNode).any()
    again = saved_and_loaded(segmentationNode, tmp_path / "empty.seg.nrrd")
    assert [segment.GetTerminology() for segment in segments_of(again).values()] == [
        LIVER_TERMINOLOGY,
        NODULE_TERMINOLOGY,
    ]
    assert not any(mrml.labelmap_of(again, segmentID, volumeNode).any() for segmentID in segments_of(again))
    assert segmentationNode.CreateClosedSurfaceRepresentation()


def test_an_empty_result_beside_empty_segments_without_reference_image_can_be_saved(scene, tmp_path):
    segmentationNode = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentationNode.GetSegmentation().AddEmptySegment()  # Slicer 5.13 crashes on saving zeros without a reference
    volumeNode = add_volume(a_ct())
    showing.show_segmentation(np.zeros(SHAPE, np.uint8), [LIVER], volumeNode, segmentationNode)
    again = saved_and_loaded(segmentationNode, tmp_path / "empty.seg.nrrd")
    assert [segment.GetName() for segment in segments_of(again).values()] == ["Segment_1", "liver"]


def test_one_label_of_two_that_was_not_found_is_an_empty_segment(scene):
    volumeNode = add_volume(a_ct())
    segmentationNode = showing.show_segmentation((a_labelmap() == 1).astype(np.uint8), [NODULE, LIVER], volumeNode)
    nodule, liver = segments_of(segmentationNode)
    assert not mrml.labelmap_of(segmentationNode, nodule, volumeNode).any()
    np.testing.assert_array_equal(mrml.labelmap_of(segmentationNode, liver, volumeNode), a_labelmap() == 1)
    assert segmentationNode.CreateClosedSurfaceRepresentation()


def test_a_result_without_any_segment_is_an_empty_segmentation(scene):
    segmentationNode = showing.show_segmentation(np.zeros(SHAPE, np.uint8), [], add_volume(a_ct()))
    assert segments_of(segmentationNode) == {}


def test_a_new_segmentation_has_name_colour_terminology_display_and_reference(scene):
    volumeNode = add_volume(a_ct(), name="CT abdomen")
    segmentationNode = showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode)
    assert segmentationNode.GetName() == "CT abdomen segmentation"
    liver, nodule = segments_of(segmentationNode).values()
    assert (liver.GetName(), nodule.GetName()) == ("liver", "nodule 1")
    assert [round(channel * 255, 9) for channel in liver.GetColor()] == [221, 130, 101]
    assert (liver.GetTerminology(), nodule.GetTerminology()) == (LIVER_TERMINOLOGY, NODULE_TERMINOLOGY)
    assert segmentationNode.GetDisplayNode().GetSegmentVisibility(next(iter(segments_of(segmentationNode))))
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    assert segmentationNode.GetNodeReference(role) is volumeNode
    parameter = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    geometry = segmentationNode.GetSegmentation().GetConversionParameter(parameter)
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    assert geometry == slicer.vtkSegmentationConverter.SerializeImageGeometry(matrix, volumeNode.GetImageData())


def test_slicer_understands_the_terminology(scene):
    liver, nodule = segments_of(showing.show_segmentation(a_labelmap(), [LIVER, NODULE], add_volume(a_ct()))).values()
    logic = slicer.vtkSlicerTerminologiesModuleLogic
    for segment, meanings in ((liver, ("Anatomical Structure", "Liver")), (nodule, (None, "Nodule", "Lung", "Right"))):
        entry = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(segment.GetTerminology(), entry)
        assert entry.GetTypeObject().GetCodeMeaning() == meanings[1]
        if len(meanings) > 2:
            assert entry.GetRegionObject().GetCodeMeaning() == meanings[2]
            assert entry.GetRegionModifierObject().GetCodeMeaning() == meanings[3]
        assert logic.SerializeTerminologyEntry(entry) == segment.GetTerminology()


def test_results_are_filed_in_the_study_of_their_volume(scene):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
    study = hierarchy.CreateStudyItem(patient, "study")
    volumeNode = add_volume(a_ct())
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volumeNode), study)
    segmentationNode = showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode)
    mapNode = showing.show_scalar_volume(np.zeros(SHAPE, np.float32), volumeNode, "probability")
    for node in (segmentationNode, mapNode):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    elsewhere = hierarchy.CreateFolderItem(patient, "my results")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(segmentationNode), elsewhere)
    showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode, segmentationNode)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentationNode)) == elsewhere


def test_a_name_that_is_taken_gets_a_number(scene):
    volumeNode = add_volume(a_ct())
    segmentationNode = showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode)
    for _ in range(2):
        showing.show_segmentation((a_labelmap() == 1).astype(np.uint8), [LIVER], volumeNode, segmentationNode)
    names = [segment.GetName() for segment in segments_of(segmentationNode).values()]
    assert names == ["liver", "nodule 1", "liver_1", "liver_2"]
    for _ in range(2):  # as two more clicks find
        showing.show_segmentation(
            (a_labelmap() == 2).astype(np.uint8), [replace(NODULE, value=1)], volumeNode, segmentationNode
        )
    assert [segment.GetName() for segment in segments_of(segmentationNode).values()][4:] == ["nodule 2", "nodule 3"]
    twins = [Segment(value, "nodule", NODULE_TERMINOLOGY, (1, 2, 3), {}) for value in (1, 2)]
    segmentationNode = showing.show_segmentation(a_labelmap(), twins, volumeNode)
    assert [segment.GetName() for segment in segments_of(segmentationNode).values()] == ["nodule", "nodule_1"]


def test_results_and_maps_for_volumes_of_one_name_get_names_that_selectors_can_tell_apart(scene):
    volumes = [add_volume(a_ct(), name="CT") for _ in range(2)]
    shown = [showing.show_segmentation(a_labelmap(), [LIVER, NODULE], each) for each in volumes]
    maps = [showing.show_scalar_volume(a_ct(), each, "CT liver probability") for each in volumes]
    assert [node.GetName() for node in shown] == ["CT segmentation", "CT segmentation_1"]
    assert [node.GetName() for node in maps] == ["CT liver probability", "CT liver probability_1"]


def saved_and_loaded(segmentationNode, path):
    """Write a .seg.nrrd with Slicer's storage node and read it into a second node under the same transform."""
    for node, done in ((segmentationNode, "WriteData"), (None, "ReadData")):
        storageNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
        storageNode.SetFileName(str(path))
        node = node or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "loaded")
        assert getattr(storageNode, done)(node)
    node.SetAndObserveTransformNodeID(segmentationNode.GetTransformNodeID())
    return node


@pytest.mark.parametrize("grid", GRIDS)
def test_a_saved_segmentation_is_read_by_slicer_and_by_slicerio(scene, tmp_path, grid):
    slicerio = pytest.importorskip("slicerio")
    volumeNode = add_volume(a_ct(), GRIDS[grid], transform=add_linear_transform(TURN))
    segmentationNode = showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode)
    loaded = saved_and_loaded(segmentationNode, tmp_path / "result.seg.nrrd")
    for (segmentID, segment), expected in zip(segments_of(loaded).items(), (LIVER, NODULE), strict=True):
        assert (segment.GetName(), segment.GetTerminology()) == (expected.name, expected.terminology)
        assert tuple(round(channel * 255) for channel in segment.GetColor()) == expected.color
        read_back = mrml.labelmap_of(loaded, segmentID, volumeNode)
        np.testing.assert_array_equal(read_back, a_labelmap() == expected.value)
    by_slicerio = slicerio.read_segmentation(str(tmp_path / "result.seg.nrrd"))
    np.testing.assert_array_equal(by_slicerio["voxels"].T, a_labelmap())  # slicerio gives I, J, K
    np.testing.assert_allclose(by_slicerio["ijkToLPS"], np.diag([-1, -1, 1, 1]) @ GRIDS[grid], atol=1e-9)
    liver, nodule = by_slicerio["segments"]
    assert (liver["name"], liver["labelValue"], nodule["name"], nodule["labelValue"]) == ("liver", 1, "nodule 1", 2)
    assert [round(channel * 255) for channel in liver["color"]] == [221, 130, 101]
    assert liver["terminology"]["category"] == ["SCT", "123037004", "Anatomical Structure"]
    assert liver["terminology"]["type"] == ["SCT", "10200004", "Liver"]
    assert nodule["terminology"]["anatomicRegion"] == ["SCT", "39607008", "Lung"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", ["bundle", "folder"])
def test_a_saved_scene_shows_the_same_masks_in_the_same_place(scene, tmp_path, place, form):
    volumeNode = add_volume(a_ct(), GRIDS["oblique"], "CT", PLACES[place]())
    segmentationNode = showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode)
    if form == "bundle":
        assert scene.WriteToMRB(str(tmp_path / "scene.mrb"))
        scene.Clear(False)
        assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    else:
        (tmp_path / "saved").mkdir()
        assert scene.SaveSceneToSlicerDataBundleDirectory(str(tmp_path / "saved"), None)
        scene.Clear(False)
        scene.SetURL(str(next((tmp_path / "saved").glob("*.mrml"))))
        assert scene.Connect()
    volumeNode = scene.GetFirstNodeByName("CT")
    segmentationNode = scene.GetFirstNodeByName("CT segmentation")
    segments = segments_of(segmentationNode)
    for segmentID, expected in zip(segments, (LIVER, NODULE), strict=True):
        assert segments[segmentID].GetName() == expected.name
        mask = a_labelmap() == expected.value
        np.testing.assert_array_equal(mrml.labelmap_of(segmentationNode, segmentID, volumeNode), mask)
        in_world = voxels_in_world(volumeNode, GRIDS["oblique"], mask)
        np.testing.assert_allclose(segment_in_world(segmentationNode, segmentID), in_world, atol=1e-4)
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    assert segmentationNode.GetNodeReference(role) is volumeNode


def read_with_sitk(ct, liver):
    """Voxels (K, J, I) of a CT file or DICOM folder, a mask on its grid, and its IJK to RAS, all by SimpleITK."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(ct)) if ct.is_dir() else str(ct))
    stored = sitk.ReadImage(str(liver))
    mask = sitk.Resample(stored, image, sitk.Transform(), sitk.sitkNearestNeighbor)  # J may be flipped
    ijk_to_lps = np.eye(4)
    ijk_to_lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    ijk_to_lps[:3, 3] = image.GetOrigin()
    labelmap = (sitk.GetArrayFromImage(mask) > 0).astype(np.uint8)
    return sitk.GetArrayFromImage(image), labelmap, np.diag([-1, -1, 1, 1]) @ ijk_to_lps


@pytest.mark.parametrize(
    ("ct", "liver"),
    [
        ("volumes/abdomen_dicom", "volumes/abdomen_dicom_liver.nii.gz"),
        ("volumes/abdomen_3mm_ct.nii.gz", "volumes/abdomen_3mm_liver.nii.gz"),
    ],
)
def test_a_real_liver_on_a_real_ct_under_its_acquisition_transform(scene, tmp_path, shared_data, ct, liver):
    slicerio = pytest.importorskip("slicerio")
    array, labelmap, ijk_to_ras = read_with_sitk(shared_data(ct), shared_data(liver))
    assert labelmap.sum() > 10_000, "the test needs a liver"
    volumeNode = add_volume(array, ijk_to_ras, transform=add_grid_transform(parent=add_linear_transform(TURN)))
    np.testing.assert_array_equal(mrml.volume_from_node(volumeNode).array, array)
    segmentationNode = showing.show_segmentation(labelmap, [LIVER], volumeNode)
    (segmentID,) = segments_of(segmentationNode)
    np.testing.assert_array_equal(mrml.labelmap_of(segmentationNode, segmentID, volumeNode), labelmap == 1)
    loaded = saved_and_loaded(segmentationNode, tmp_path / "liver.seg.nrrd")
    (segmentID,) = segments_of(loaded)
    np.testing.assert_array_equal(mrml.labelmap_of(loaded, segmentID, volumeNode), labelmap == 1)
    by_slicerio = slicerio.read_segmentation(str(tmp_path / "liver.seg.nrrd"))
    np.testing.assert_array_equal(by_slicerio["voxels"].T, labelmap)
    np.testing.assert_allclose(by_slicerio["ijkToLPS"], np.diag([-1, -1, 1, 1]) @ ijk_to_ras, atol=1e-6)
