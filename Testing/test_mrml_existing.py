"""Results added to segmentations that hold something already: nothing else moves, and what fails leaves nothing."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.mrml_scene import (
    GRIDS,
    LIVER,
    LIVER_TERMINOLOGY,
    NODULE,
    PLACES,
    SHAPE,
    STRETCH,
    TURN,
    a_ct,
    a_labelmap,
    add_bspline_transform,
    add_grid_transform,
    add_hand_made_segments,
    add_linear_transform,
    add_volume,
    all_about,
    new_segment_ids,
    nothing_changes,
    segment_in_world,
    segments_of,
    slicer,
    take_messages,
    voxels_in_world,
    vtk,
)
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.core.volume import VolumeError
from UNetPlusPlusSegmentLib.scene import mrml, placement, showing


@pytest.mark.parametrize("place", PLACES)
def test_segments_made_by_hand_keep_every_voxel_and_the_new_ones_overlap_them(scene, place):
    transform = PLACES[place]()
    volumeNode = add_volume(a_ct(), GRIDS["oblique"], transform=transform)
    segmentationNode = add_hand_made_segments(transform)
    before = all_about(segmentationNode)
    old = segments_of(segmentationNode)
    assert showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode, segmentationNode) is segmentationNode
    after = all_about(segmentationNode)
    assert {key: after[key] for key in before} == before
    assert list(segments_of(segmentationNode))[:2] == list(old)
    assert segmentationNode.GetSegmentation().GetNumberOfLayers() == 2
    for segmentID, segment in zip(new_segment_ids(segmentationNode, old), (LIVER, NODULE), strict=True):
        new = mrml.labelmap_of(segmentationNode, segmentID, volumeNode)
        np.testing.assert_array_equal(new, a_labelmap() == segment.value)
    first = mrml.labelmap_of(segmentationNode, next(iter(old)), volumeNode)
    assert (first & (a_labelmap() == 1)).any(), "the test needs segments that overlap"
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    assert segmentationNode.GetNodeReference(role) is volumeNode  # it had none


def test_surfaces_that_were_there_stay_and_the_new_segments_get_theirs(scene):
    volumeNode = add_volume(a_ct(), GRIDS["oblique"])
    segmentationNode = add_hand_made_segments()
    assert segmentationNode.CreateClosedSurfaceRepresentation()
    old = segments_of(segmentationNode)
    surface = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
    surfaces = [segment.GetRepresentation(surface) for segment in old.values()]
    times = [each.GetMTime() for each in surfaces]
    showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode, segmentationNode)
    assert [segment.GetRepresentation(surface) for segment in old.values()] == surfaces
    assert [each.GetMTime() for each in surfaces] == times, "made again, at the price of seconds each"
    for segmentID, segment in zip(new_segment_ids(segmentationNode, old), (LIVER, NODULE), strict=True):
        bounds = segments_of(segmentationNode)[segmentID].GetRepresentation(surface).GetBounds()
        inside = voxels_in_world(volumeNode, GRIDS["oblique"], a_labelmap() == segment.value)
        np.testing.assert_allclose(bounds[::2], inside.min(axis=0), atol=2.5)
        np.testing.assert_allclose(bounds[1::2], inside.max(axis=0), atol=2.5)


def test_an_empty_segmentation_under_another_transform_goes_under_that_of_the_volume(scene):
    volumeNode = add_volume(a_ct(), GRIDS["oblique"], transform=add_linear_transform(TURN))
    segmentationNode = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "made earlier")
    segmentationNode.SetAndObserveTransformNodeID(add_linear_transform(STRETCH).GetID())
    segmentationNode.SetSourceRepresentationToClosedSurface()
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(add_volume(a_ct(), name="of another patient"))
    showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode, segmentationNode)
    assert segmentationNode.GetTransformNodeID() == volumeNode.GetTransformNodeID()
    assert segmentationNode.GetSegmentation().GetSourceRepresentationName() == mrml.BINARY_LABELMAP  # that is saved
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    assert segmentationNode.GetNodeReference(role) is volumeNode
    liver = next(iter(segments_of(segmentationNode)))
    np.testing.assert_array_equal(mrml.labelmap_of(segmentationNode, liver, volumeNode), a_labelmap() == 1)


@pytest.mark.parametrize(
    "of_the_volume", ["no transform", "linear transform", "affine transform", "two linear transforms"]
)
@pytest.mark.parametrize("of_the_segments", ["no transform", "linear transform", "affine transform"])
def test_segments_under_another_linear_transform_stay_in_place_and_the_new_ones_lie_on_the_volume(
    scene, of_the_volume, of_the_segments
):
    volumeNode = add_volume(a_ct(), GRIDS["oblique"], transform=PLACES[of_the_volume]())
    segmentationNode = add_hand_made_segments(PLACES[of_the_segments](), GRIDS["sheared"])
    before, old = all_about(segmentationNode), segments_of(segmentationNode)
    showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode, segmentationNode)
    after = all_about(segmentationNode)
    assert {key: after[key] for key in before} == before
    for segmentID, segment in zip(new_segment_ids(segmentationNode, old), (LIVER, NODULE), strict=True):
        expected = a_labelmap() == segment.value
        np.testing.assert_array_equal(mrml.labelmap_of(segmentationNode, segmentID, volumeNode), expected)
        np.testing.assert_allclose(
            segment_in_world(segmentationNode, segmentID),
            voxels_in_world(volumeNode, GRIDS["oblique"], expected),
            atol=1e-6,
        )


def test_under_one_warp_a_further_linear_transform_is_no_obstacle(scene):
    warp = add_grid_transform()
    volumeNode = add_volume(a_ct(), GRIDS["oblique"], transform=add_linear_transform(TURN, parent=warp))
    segmentationNode = add_hand_made_segments(warp)
    old = segments_of(segmentationNode)
    showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode, segmentationNode)
    for segmentID, value in zip(new_segment_ids(segmentationNode, old), (1, 2), strict=True):
        read_back = mrml.labelmap_of(segmentationNode, segmentID, volumeNode)
        np.testing.assert_array_equal(read_back, a_labelmap() == value)


def test_a_reference_geometry_in_use_by_other_segments_is_kept(scene):
    first, second = add_volume(a_ct(), GRIDS["identity"], "PET"), add_volume(a_ct(), GRIDS["oblique"], "CT")
    segmentationNode = showing.show_segmentation(a_labelmap(), [LIVER, NODULE], first)
    parameters = segmentationNode.GetSegmentation().SerializeAllConversionParameters()
    showing.show_segmentation(a_labelmap(), [LIVER, NODULE], second, segmentationNode)
    assert segmentationNode.GetSegmentation().SerializeAllConversionParameters() == parameters
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    assert segmentationNode.GetNodeReference(role) is first


def test_a_segmentation_with_a_grid_but_without_a_reference_image_gets_the_volume_of_the_result(scene):
    volumeNode = add_volume(a_ct(), GRIDS["oblique"])
    segmentationNode = showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode)
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    segmentationNode.SetNodeReferenceID(role, None)  # as it comes from a file
    showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode, segmentationNode)
    assert segmentationNode.GetNodeReference(role) is volumeNode


@pytest.mark.parametrize("with_surfaces", [False, True])
def test_a_replaced_segment_keeps_id_place_and_display_and_its_layer_keeps_the_others(scene, with_surfaces):
    volumeNode = add_volume(a_ct(), GRIDS["oblique"], transform=add_linear_transform(TURN))
    segmentationNode = add_hand_made_segments(add_linear_transform(STRETCH))
    segmentationNode.CreateDefaultDisplayNodes()
    if with_surfaces:
        assert segmentationNode.CreateClosedSurfaceRepresentation()
    before, (first, second) = all_about(segmentationNode), segments_of(segmentationNode)
    segmentationNode.GetDisplayNode().SetSegmentOpacity3D(first, 0.25)
    segmentationNode.GetDisplayNode().SetSegmentVisibility(first, False)
    liver = Segment(7, LIVER.name, LIVER.terminology, LIVER.color, {})  # any label value will do
    for found in (a_labelmap() == 1, a_labelmap() == 2, np.zeros(SHAPE, bool), a_labelmap() > 0):  # as by a threshold
        showing.show_segmentation(found * np.uint8(7), [liver], volumeNode, segmentationNode, {7: first})
        assert list(segments_of(segmentationNode)) == [first, second]
        assert all_about(segmentationNode)[second] == before[second]
        np.testing.assert_array_equal(mrml.labelmap_of(segmentationNode, first, volumeNode), found)
        segment = segments_of(segmentationNode)[first]
        assert (segment.GetName(), segment.GetTerminology()) == ("liver", LIVER_TERMINOLOGY)
        assert [round(channel * 255) for channel in segment.GetColor()] == [221, 130, 101]
        surface = segment.GetRepresentation(slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName())
        assert (surface is not None) == with_surfaces
        if with_surfaces:
            assert (surface.GetNumberOfPoints() > 0) == found.any()
    assert segmentationNode.GetDisplayNode().GetSegmentOpacity3D(first) == 0.25
    assert not segmentationNode.GetDisplayNode().GetSegmentVisibility(first)


def test_the_surface_of_a_replaced_segment_follows_later_edits_too(scene):
    volumeNode = add_volume(a_ct())
    segmentationNode = showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode)
    liver = next(iter(segments_of(segmentationNode)))
    segmentationNode.CreateClosedSurfaceRepresentation()
    showing.show_segmentation(a_labelmap() == 2, [LIVER], volumeNode, segmentationNode, {1: liver})
    segment, name = segments_of(segmentationNode)[liver], "Closed surface"
    assert segment.GetRepresentation(name) is not None
    segment.GetRepresentation(mrml.BINARY_LABELMAP).Modified()  # as an edit does: Slicer drops surfaces that are stale
    assert segment.GetRepresentation(name) is None


@pytest.mark.parametrize(
    ("labelmap", "segments", "error", "message"),
    [
        (np.zeros((7, 5, 9), np.uint8), [LIVER], VolumeError, r"\(7, 5, 9\) voxels.*CT, which has \(5, 7, 9\)"),
        (np.zeros(SHAPE, np.float32), [LIVER], mrml.SegmentationError, "type float32"),
        (a_labelmap(), [LIVER], mrml.SegmentationError, r"other values \[2\].*segments with the values \[1\]"),
        (a_labelmap() * np.int8(-1), [LIVER, NODULE], mrml.SegmentationError, r"other values \[-2, -1\]"),
        (a_labelmap(), [LIVER, LIVER, NODULE], mrml.SegmentationError, r"values \[1, 1, 2\].*a different value"),
        (a_labelmap(), [LIVER, NODULE, Segment(0, "", "", (0, 0, 0), {})], mrml.SegmentationError, "1 or more"),
        (a_labelmap(), [LIVER, Segment(2, "x", None, (0, 0, 0), {})], TypeError, "SetTerminology"),
    ],
)
@pytest.mark.parametrize("into", ["a new segmentation", "an empty one", "one with segments"])
def test_what_does_not_fit_leaves_the_scene_as_it_was(scene, labelmap, segments, error, message, into):
    volumeNode = add_volume(a_ct(), transform=add_linear_transform(TURN))
    segmentationNode = None
    if into == "one with segments":
        segmentationNode = add_hand_made_segments()
    elif into == "an empty one":
        segmentationNode = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    with nothing_changes(scene, segmentationNode), pytest.raises(error, match=message):
        showing.show_segmentation(labelmap, segments, volumeNode, segmentationNode)


def test_a_segmentation_under_another_warp_is_refused_with_the_way_out(scene):
    segmentationNode = add_hand_made_segments(add_bspline_transform())
    volumeNode = add_volume(a_ct(), GRIDS["oblique"])
    message = "^CT and by hand are under different non-linear transforms. Select a new segmentation, or put both under"
    with nothing_changes(scene, segmentationNode), pytest.raises(mrml.SegmentationError, match=message):
        showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode, segmentationNode)
    assert mrml.labelmap_of(segmentationNode, next(iter(segments_of(segmentationNode))), volumeNode).any()


def test_a_segmentation_of_surfaces_is_refused_with_the_way_out(scene):
    segmentationNode = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "planned")
    segmentationNode.SetSourceRepresentationToClosedSurface()
    sphere = vtk.vtkSphereSource()
    sphere.Update()
    ball = segmentationNode.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "ball")
    volumeNode = add_volume(a_ct())
    with pytest.raises(
        mrml.SegmentationError, match=r"^planned stores its segments as Closed surface.*new segmentation"
    ):
        showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode, segmentationNode)
    assert list(segments_of(segmentationNode)) == [ball]
    with pytest.raises(mrml.SegmentationError, match=r"no voxels for a segment.*for: none.*Binary labelmap"):
        mrml.labelmap_of(segmentationNode, ball, volumeNode)


def test_if_slicer_does_not_take_the_new_segments_none_is_added(scene):
    segmentationNode = add_hand_made_segments()
    for segment in segments_of(segmentationNode).values():
        segment.AddRepresentation("Planar contour", vtk.vtkPolyData())  # of an RT structure set: not made from masks
    before = all_about(segmentationNode)
    with pytest.raises(mrml.SegmentationError, match=r"^by hand accepts no new segment.*remove that representation"):
        showing.show_segmentation(a_labelmap(), [LIVER, NODULE], add_volume(a_ct()), segmentationNode)
    assert all_about(segmentationNode) == before
    assert "Unable to perform conversion" in take_messages()


def test_of_several_segments_some_take_the_place_of_others_and_all_stand_in_their_order(scene):
    volumeNode = add_volume(a_ct())
    segmentationNode = showing.show_segmentation(a_labelmap(), [LIVER, NODULE], volumeNode)
    liver, nodule = segments_of(segmentationNode)
    by_hand = segmentationNode.GetSegmentation().AddEmptySegment("", "by hand")
    segmentationNode.GetDisplayNode().SetSegmentVisibility(nodule, False)
    found = np.zeros(SHAPE, np.uint8)
    found[1, 1, 1], found[2, 2, 2:5] = 1, 2
    spots = [Segment(value, f"spot {value}", "", (9, 9, 9), {}) for value in (2, 1)]
    showing.show_segmentation(found, spots, volumeNode, segmentationNode, {1: nodule}, [liver])
    (first, new, last) = segments_of(segmentationNode)
    assert (first, last) == (by_hand, nodule)
    assert not segmentationNode.GetDisplayNode().GetSegmentVisibility(nodule)
    for segmentID, value in ((nodule, 1), (new, 2)):
        np.testing.assert_array_equal(mrml.labelmap_of(segmentationNode, segmentID, volumeNode), found == value)
        voxels = placement.voxels_of(segments_of(segmentationNode)[segmentID].GetRepresentation(mrml.BINARY_LABELMAP))
        assert np.count_nonzero(voxels) == np.count_nonzero(found == value)  # no layer holds another's voxels


def test_what_cannot_be_replaced_is_refused(scene):
    segmentationNode, volumeNode = add_hand_made_segments(), add_volume(a_ct())
    found = np.minimum(a_labelmap(), 1)
    with (
        nothing_changes(scene, segmentationNode),
        pytest.raises(mrml.SegmentationError, match=r"ID 'Segment_9' \(only for"),
    ):
        showing.show_segmentation(found, [LIVER], volumeNode, segmentationNode, {1: "Segment_9"})
    with nothing_changes(scene), pytest.raises(mrml.SegmentationError, match="pass their segmentation"):
        showing.show_segmentation(found, [LIVER], volumeNode, inPlaceOf={1: "Segment_1"})


def test_a_segment_that_is_not_there_cannot_be_read(scene):
    segmentationNode = add_hand_made_segments()
    with pytest.raises(mrml.SegmentationError, match=r"^by hand has no voxels for a segment with the ID 'liver'"):
        mrml.labelmap_of(segmentationNode, "liver", add_volume(a_ct()))
