"""An MRML scene on slicer-core, set up as by Slicer, and helpers to fill it and measure in it."""

from __future__ import annotations

import re
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from UNetPlusPlusSegmentLib.core.segment import Segment

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (its wheels are for Python 3.11)")
vtk = pytest.importorskip("vtk")

LOGICS = {
    "volumes": slicer.vtkSlicerVolumesLogic,
    "segmentations": slicer.vtkSlicerSegmentationsModuleLogic,
    "sequences": slicer.vtkSlicerSequencesLogic,
    "terminologies": slicer.vtkSlicerTerminologiesModuleLogic,
}


def take_messages() -> str:
    """The errors and warnings that VTK and MRML have reported so far in this test; the call clears them."""
    messages = vtk.vtkOutputWindow.GetInstance().GetOutput()
    vtk.vtkOutputWindow.SetInstance(vtk.vtkStringOutputWindow())
    return re.sub(r"^Info: In .*\n.*\n\s*", "", messages, flags=re.MULTILINE)


def follow_in_subject_hierarchy(scene) -> None:
    """Keep a subject hierarchy item for each volume, segmentation and transform, new ones at the top level, as the application does."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(_scene, _event, node):
        if (
            node.IsA("vtkMRMLDisplayableNode")
            and not node.GetHideFromEditors()
            and not hierarchy.GetItemByDataNode(node)
        ):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
        if node.IsA("vtkMRMLSegmentationNode"):  # qSlicerSubjectHierarchySegmentationsPlugin logs it as critical
            for event in (slicer.vtkSegmentation.SegmentAdded, slicer.vtkSegmentation.SegmentRemoved):
                node.AddObserver(event, changed)

    def changed(node, _event):
        if not hierarchy.GetItemByDataNode(node):
            vtk.vtkOutputWindow.GetInstance().DisplayText(f"{node.GetName()} has no subject hierarchy item")

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def leaving(_scene, _event, node):
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.RemoveItem(item, False, False)

    scene.AddObserver(scene.NodeAddedEvent, added)
    scene.AddObserver(scene.NodeAboutToBeRemovedEvent, leaving)


def add_volume(array: np.ndarray, ijk_to_ras: np.ndarray | None = None, name: str = "CT", transform=None):
    """Add a `vtkMRMLScalarVolumeNode` with voxels (K, J, I), under a transform node if one is given."""
    node = slicer.util.addVolumeFromArray(array, np.eye(4) if ijk_to_ras is None else ijk_to_ras, name)
    node.SetAndObserveTransformNodeID(transform.GetID() if transform is not None else None)
    return node


def add_linear_transform(matrix: np.ndarray, parent=None):
    """Add a `vtkMRMLLinearTransformNode`; `matrix` maps to its parent, 4 × 4, mm."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.asarray(matrix, dtype=float)))
    node.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
    return node


def add_grid_transform(parent=None):
    """Add a grid transform like the one Slicer puts above a series with gantry tilt: slices shift along A with S."""
    displacements = vtk.vtkImageData()
    displacements.SetDimensions(5, 5, 5)
    displacements.SetOrigin(-200, -200, -200)
    displacements.SetSpacing(100, 100, 100)
    displacements.AllocateScalars(vtk.VTK_DOUBLE, 3)
    vectors = vtk.util.numpy_support.vtk_to_numpy(displacements.GetPointData().GetScalars()).reshape(5, 5, 5, 3)
    vectors[...] = 0
    vectors[..., 1] = np.array([0, 4, 0, 8, 4])[:, None, None]
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(displacements)
    return _add_transform_node("vtkMRMLGridTransformNode", transform, parent)


def add_bspline_transform(parent=None):
    """Add a smooth B-spline deformation of a few mm, as made by a registration."""
    coefficients = vtk.vtkImageData()
    coefficients.SetDimensions(7, 7, 7)
    coefficients.SetOrigin(-300, -300, -300)
    coefficients.SetSpacing(100, 100, 100)
    coefficients.AllocateScalars(vtk.VTK_DOUBLE, 3)
    vectors = vtk.util.numpy_support.vtk_to_numpy(coefficients.GetPointData().GetScalars())
    vectors[...] = np.random.default_rng(0).uniform(-5, 5, vectors.shape)
    transform = slicer.vtkOrientedBSplineTransform()
    transform.SetCoefficientData(coefficients)
    return _add_transform_node("vtkMRMLBSplineTransformNode", transform, parent)


def _add_transform_node(class_name: str, transform, parent=None):
    node = slicer.mrmlScene.AddNewNodeByClass(class_name)
    node.SetAndObserveTransformFromParent(transform)  # as files of non-linear transforms have them
    node.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
    return node


def ijk_to_ras_of(volumeNode) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def to_world(volumeNode, ijk) -> list[float]:
    world = [0.0, 0.0, 0.0]
    volumeNode.TransformPointToWorld((ijk_to_ras_of(volumeNode) @ [*ijk, 1])[:3].tolist(), world)
    return world


def add_roi(volumeNode, first_ijk, last_ijk, transform=None):
    """An ROI around the voxels from first to last, oriented like the volume, with its faces between voxels."""
    matrix = ijk_to_ras_of(volumeNode)
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    toNode = np.eye(4)
    toNode[:3, :3] = matrix[:3, :3] / spacing
    toNode[:3, 3] = (matrix @ [*(np.add(first_ijk, last_ijk) / 2), 1])[:3]
    roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(toNode))
    roi.SetSize(*(spacing * (np.subtract(last_ijk, first_ijk) + 0.9)))
    roi.SetAndObserveTransformNodeID(transform.GetID() if transform is not None else None)
    return roi


LIVER_TERMINOLOGY = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure"
    "~SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^"
)
NODULE_TERMINOLOGY = (
    "Segmentation category and type - DICOM master list~SCT^49755003^Morphologically Altered Structure"
    "~SCT^27925004^Nodule~^^~Anatomic codes - DICOM master list~SCT^39607008^Lung~SCT^24028007^Right"
)
LIVER = Segment(1, "liver", LIVER_TERMINOLOGY, (221, 130, 101), {})
NODULE = Segment(2, "nodule 1", NODULE_TERMINOLOGY, (144, 238, 144), {})
SHAPE = (5, 7, 9)  # K, J, I: no two alike, so a swapped axis shows


def rotation(degrees: float, axis: int) -> np.ndarray:
    """A 4 × 4 rotation about R, A or S."""
    matrix, (a, b) = np.eye(4), [i for i in range(3) if i != axis]
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = cosine, -sine, sine, cosine
    return matrix


def at(matrix: np.ndarray, origin_mm: tuple[float, float, float]) -> np.ndarray:
    moved = matrix.copy()
    moved[:3, 3] = origin_mm
    return moved


SHEAR = np.eye(4)
SHEAR[1, 2] = 0.33  # gantry tilt of 18°
SPACING = np.diag([0.7, 0.8, 2.5, 1.0])
GRIDS = {
    "identity": np.eye(4),
    "as DICOM lies in RAS": at(np.diag([-0.7, -0.8, 2.5, 1.0]), (120.0, 90.0, -300.0)),
    "feet up, left-handed": at(np.diag([0.7, 0.8, -2.5, 1.0]), (-50.0, 3.0, 11.0)),
    "sagittal": at(np.eye(4)[[2, 0, 1, 3]] @ SPACING, (5.0, -6.0, 7.0)),
    "oblique": at(rotation(31, 0) @ rotation(-23, 1) @ rotation(12, 2) @ SPACING, (1.0, 20.0, -3.0)),
    "sheared": at(SHEAR @ np.diag([-0.7, -0.8, 2.5, 1.0]), (10.0, -20.0, 30.0)),
}
TURN = at(rotation(180, 2) @ rotation(20, 0), (100.0, -40.0, 7.0))
STRETCH = at(rotation(10, 1) @ SHEAR @ np.diag([1.1, 0.9, 1.3, 1.0]), (-5.0, 6.0, 70.0))
PLACES = {
    "no transform": lambda: None,
    "linear transform": lambda: add_linear_transform(TURN),
    "affine transform": lambda: add_linear_transform(STRETCH),
    "two linear transforms": lambda: add_linear_transform(TURN, parent=add_linear_transform(STRETCH)),
    "grid transform": add_grid_transform,
    "B-spline transform": add_bspline_transform,
    "grid under linear transform": lambda: add_grid_transform(parent=add_linear_transform(TURN)),
}


def a_labelmap() -> np.ndarray:
    """Two labels without any symmetry; the first one is in several slices and touches an edge."""
    labelmap = np.zeros(SHAPE, np.uint8)
    labelmap[1:4, 2:5, 0:4] = 1
    labelmap[2, 3, 4:7] = 1
    labelmap[3, 6, 5:8] = 2
    return labelmap


def a_ct() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1500, SHAPE).astype(np.int16)


def segments_of(segmentationNode) -> dict:
    """ID → `vtkSegment`, in the order of the segmentation."""
    segmentation = segmentationNode.GetSegmentation()
    return {segmentID: segmentation.GetSegment(segmentID) for segmentID in segmentation.GetSegmentIDs()}


def voxels_in_world(node, matrix: np.ndarray, mask: np.ndarray, first_ijk=(0, 0, 0)) -> np.ndarray:
    """Centres of the True voxels in world coordinates, n × 3, in array order; computed here, not by the library."""
    ijk = np.argwhere(mask)[:, ::-1] + np.array(first_ijk)
    ras = ijk @ matrix[:3, :3].T + matrix[:3, 3]
    world = np.zeros_like(ras)
    for point, target in zip(ras.tolist(), world, strict=True):
        place = [0.0, 0.0, 0.0]
        node.TransformPointToWorld(point, place)
        target[:] = place
    return world


def segment_in_world(segmentationNode, segmentID: str) -> np.ndarray:
    image = slicer.vtkOrientedImageData()
    assert segmentationNode.GetBinaryLabelmapRepresentation(segmentID, image)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    scalars = vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    mask = scalars.reshape(image.GetDimensions()[::-1]) > 0
    return voxels_in_world(segmentationNode, slicer.util.arrayFromVTKMatrix(matrix), mask, image.GetExtent()[::2])


def all_about(segmentationNode) -> dict:
    """Everything about a segmentation that must not change when segments are added."""
    about = {"transform": segmentationNode.GetTransformNodeID()}
    for segmentID, segment in segments_of(segmentationNode).items():
        image = slicer.vtkOrientedImageData()
        segmentationNode.GetBinaryLabelmapRepresentation(segmentID, image)
        voxels = vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).tobytes()
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        place = (image.GetExtent(), slicer.util.arrayFromVTKMatrix(matrix).tobytes())
        about[segmentID] = (segment.GetName(), segment.GetColor(), segment.GetTerminology(), place, voxels)
    return about


@contextmanager
def nothing_changes(scene, segmentationNode=None):
    """Check that after the block the scene has the same nodes, and the segmentation the same voxels at the same places."""
    nodes_before = [scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())]
    before = all_about(segmentationNode) if segmentationNode is not None else None
    yield
    assert [scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())] == nodes_before
    if segmentationNode is not None:
        assert all_about(segmentationNode) == before


def add_hand_made_segments(transform=None, ijk_to_ras=GRIDS["oblique"]):
    """A segmentation with two segments in one shared layer, drawn on its own grid."""
    drawn = np.zeros((6, 8, 10), np.uint8)
    drawn[1:3, 2:6, 3:7], drawn[3:5, 2:6, 4:9] = 1, 2
    labelmapNode = slicer.util.addVolumeFromArray(drawn, ijk_to_ras, "drawn", "vtkMRMLLabelMapVolumeNode")
    segmentationNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "by hand")
    for node in (labelmapNode, segmentationNode):
        node.SetAndObserveTransformNodeID(transform.GetID() if transform is not None else None)
    logic = slicer.modules.segmentations.logic()
    assert logic.ImportLabelmapToSegmentationNode(labelmapNode, segmentationNode)
    slicer.mrmlScene.RemoveNode(labelmapNode)
    assert segmentationNode.GetSegmentation().GetNumberOfSegments() == 2
    assert segmentationNode.GetSegmentation().GetNumberOfLayers() == 1
    return segmentationNode


def new_segment_ids(segmentationNode, before: dict) -> list[str]:
    return [segmentID for segmentID in segments_of(segmentationNode) if segmentID not in before]


angles = st.tuples(*[st.floats(-180, 180)] * 3)
shifts = st.tuples(*[st.floats(-500, 500)] * 3)
several_in_one_scene = settings(
    max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def turned_by(degrees, shift) -> np.ndarray:
    return at(rotation(degrees[0], 0) @ rotation(degrees[1], 1) @ rotation(degrees[2], 2), shift)
