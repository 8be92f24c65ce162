"""Volumes out of a real MRML scene (slicer-core), how they lie in the world, and maps back into it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from Testing.support.mrml_scene import (
    GRIDS,
    PLACES,
    SHAPE,
    TURN,
    a_ct,
    add_bspline_transform,
    add_grid_transform,
    add_linear_transform,
    add_volume,
    angles,
    nothing_changes,
    rotation,
    several_in_one_scene,
    shifts,
    slicer,
    turned_by,
    vtk,
)
from UNetPlusPlusSegmentLib.core.volume import VolumeError
from UNetPlusPlusSegmentLib.scene import mrml, placement, showing


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_volume_is_read_in_its_own_ijk_and_ras_whatever_lies_above_it(scene, grid, place):
    volume = mrml.volume_from_node(add_volume(a_ct(), GRIDS[grid], transform=PLACES[place]()))
    np.testing.assert_array_equal(volume.array, a_ct())
    np.testing.assert_allclose(volume.ijk_to_ras, GRIDS[grid], atol=1e-9)
    assert volume.array.dtype == np.int16


def test_the_ct_in_the_scene_cannot_be_changed_through_the_volume(scene):
    node = add_volume(a_ct())
    volume = mrml.volume_from_node(node)
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0, 0, 0] = 7
    assert np.shares_memory(volume.array, slicer.util.arrayFromVolume(node)), "a CT of 500 MB must not be copied"


@pytest.mark.parametrize(
    ("class_name", "kind", "components"),
    [
        ("vtkMRMLVectorVolumeNode", "VectorVolume", 3),
        ("vtkMRMLDiffusionWeightedVolumeNode", "DiffusionWeightedVolume", 7),
        ("vtkMRMLLabelMapVolumeNode", "LabelMapVolume", 1),
    ],
)
def test_a_volume_that_is_no_scalar_volume_is_refused_by_name_and_kind(scene, class_name, kind, components):
    node = scene.AddNewNodeByClass(class_name, "photo")
    image = vtk.vtkImageData()
    image.SetDimensions(*SHAPE[::-1])
    image.AllocateScalars(vtk.VTK_SHORT, components)
    node.SetAndObserveImageData(image)
    with pytest.raises(VolumeError, match=rf"^photo is a {kind}, not a scalar volume: select the CT itself\.$"):
        mrml.volume_from_node(node)


def test_a_scalar_volume_with_several_values_in_each_voxel_is_refused(scene):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "photo")
    image = vtk.vtkImageData()
    image.SetDimensions(*SHAPE[::-1])
    image.AllocateScalars(vtk.VTK_SHORT, 3)
    node.SetAndObserveImageData(image)
    with pytest.raises(
        VolumeError, match=r"^photo has 3 values in each voxel, such as colours: select the CT itself\.$"
    ):
        mrml.volume_from_node(node)


def test_a_volume_without_voxels_is_refused(scene):
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "not loaded")
    with pytest.raises(VolumeError, match=r"^not loaded has no voxels: load its image again"):
        mrml.volume_from_node(empty)
    empty.SetAndObserveImageData(vtk.vtkImageData())
    with pytest.raises(VolumeError, match="has no voxels"):
        mrml.volume_from_node(empty)
    with pytest.raises(VolumeError, match=r"^No volume was given:"):
        mrml.volume_from_node(None)


@several_in_one_scene
@given(degrees=angles, shift=shifts, mirrored=st.booleans(), grid=st.sampled_from(list(GRIDS)))
def test_turning_a_volume_by_a_transform_is_the_same_as_hardening_it(scene, degrees, shift, mirrored, grid):
    matrix = turned_by(degrees, shift) @ np.diag([-1 if mirrored else 1, 1, 1, 1])
    node = add_volume(a_ct(), GRIDS[grid], transform=add_linear_transform(matrix))
    in_world = placement.world_ijk_to_ras(node)
    node.HardenTransform()
    np.testing.assert_allclose(in_world, mrml.volume_from_node(node).ijk_to_ras, atol=1e-8)


@several_in_one_scene
@given(
    degrees=angles,
    scales=st.tuples(*[st.floats(0.2, 5)] * 3),
    shear=st.floats(-1, 1),
    grid=st.sampled_from(list(GRIDS)),
)
def test_an_affine_registration_changes_no_voxel_size(scene, degrees, scales, shear, grid):
    matrix = turned_by(degrees, (1, 2, 3)) @ np.diag([*scales, 1])
    matrix[:3, 2] += shear * matrix[:3, 0]
    node = add_volume(a_ct(), GRIDS[grid], transform=add_linear_transform(matrix))
    in_world = placement.world_ijk_to_ras(node)[:3, :3]
    own = GRIDS[grid][:3, :3]
    np.testing.assert_allclose(in_world.T @ in_world, own.T @ own, atol=1e-9)  # lengths and angles of the axes
    assert np.linalg.det(in_world) == pytest.approx(np.linalg.det(own))


def test_scaling_along_the_axes_turns_nothing(scene):
    node = add_volume(a_ct(), GRIDS["oblique"], transform=add_linear_transform(np.diag([1.2, 0.8, 2.0, 1.0])))
    np.testing.assert_allclose(placement.world_ijk_to_ras(node)[:3, :3], GRIDS["oblique"][:3, :3], atol=1e-12)


@pytest.mark.parametrize("add_transform", [add_grid_transform, add_bspline_transform])
def test_a_non_linear_transform_turns_nothing_but_the_linear_ones_around_it_do(scene, add_transform):
    alone = add_volume(a_ct(), GRIDS["sheared"], transform=add_transform())
    np.testing.assert_allclose(placement.world_ijk_to_ras(alone), GRIDS["sheared"], atol=1e-12)
    between = add_transform(parent=add_linear_transform(TURN))
    node = add_volume(a_ct(), GRIDS["sheared"], transform=add_linear_transform(rotation(90, 0), parent=between))
    np.testing.assert_allclose(placement.world_ijk_to_ras(node), TURN @ rotation(90, 0) @ GRIDS["sheared"], atol=1e-9)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, bool])
def test_a_map_lies_on_its_volume_as_float32(scene, place, dtype):
    volumeNode = add_volume(a_ct(), GRIDS["oblique"], transform=PLACES[place]())
    values = np.random.default_rng(1).random(SHAPE).astype(dtype)
    mapNode = showing.show_scalar_volume(values, volumeNode, "liver probability")
    assert mapNode.GetName() == "liver probability"
    volume = mrml.volume_from_node(mapNode)
    np.testing.assert_array_equal(volume.array, values.astype(np.float32))
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.ijk_to_ras, GRIDS["oblique"], atol=1e-12)
    assert mapNode.GetTransformNodeID() == volumeNode.GetTransformNodeID()
    assert mapNode.GetDisplayNode() is not None


def test_a_map_of_another_shape_is_refused_and_leaves_nothing_behind(scene):
    volumeNode = add_volume(a_ct())
    with nothing_changes(scene), pytest.raises(VolumeError, match=r"\(9, 7, 5\) voxels.*segment this volume again"):
        showing.show_scalar_volume(np.zeros(SHAPE[::-1]), volumeNode, "probability")
