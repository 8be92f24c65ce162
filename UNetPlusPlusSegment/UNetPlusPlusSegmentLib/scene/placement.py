"""Where voxels lie in the scene: matrices and transforms of nodes, and images on a grid.

There are three frames: IJK (voxels), RAS (a node's own patient coordinates, mm) and world (RAS after the transforms above the node).
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support


def world_ijk_to_ras(volumeNode, under=None) -> np.ndarray:
    """IJK to RAS of a volume (4 × 4, mm), rotated by the linear transforms above it (or above `under`).

    This orientation defines the axial slices, so that transforms which correct the patient's position are respected. Only the
    nearest rotation or reflection is applied: scaling and shear, such as those of an affine registration to an atlas, would
    change voxel sizes and volumes. Non-linear transforms are ignored, too: the one that Slicer puts above a series with gantry
    tilt or uneven slices moves slices by millimetres but does not rotate the patient.
    """
    return turned_to_world(ijk_to_ras_of(volumeNode), under or volumeNode)


def ijk_to_ras_of(volumeNode) -> np.ndarray:
    """The IJK to RAS matrix of a volume (4 × 4, mm), without the transforms above it."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def turned_to_world(ijk_to_ras: np.ndarray, node) -> np.ndarray:
    """A matrix (4 × 4, mm) that ends in the RAS of a node, rotated as in `world_ijk_to_ras`."""
    to_world, transformNode = np.eye(4), node.GetParentTransformNode()
    while transformNode is not None:
        if transformNode.IsLinear():
            matrix = vtk.vtkMatrix4x4()
            transformNode.GetMatrixTransformToParent(matrix)
            to_world = slicer.util.arrayFromVTKMatrix(matrix) @ to_world
        transformNode = transformNode.GetParentTransformNode()
    left, _, right = np.linalg.svd(to_world[:3, :3])
    turned = to_world @ ijk_to_ras
    turned[:3, :3] = left @ right @ ijk_to_ras[:3, :3]  # the orthogonal part of a polar decomposition
    return turned


def transform_between(node, otherNode):
    """The transform from the RAS of one node to that of another; empty if both have the same parent, so that nothing is resampled."""
    parents, transform = (node.GetParentTransformNode(), otherNode.GetParentTransformNode()), vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(*parents, transform)
    return transform


def oriented_image(shape_kji, first_kji, ijk_to_ras: np.ndarray, voxels: np.ndarray | None = None):
    """A `vtkOrientedImageData` on part of a grid; `ijk_to_ras` is that of the whole grid."""
    image = slicer.vtkOrientedImageData()
    bounds = [(first, first + size - 1) for first, size in zip(first_kji, shape_kji, strict=True)]
    image.SetExtent(*bounds[2], *bounds[1], *bounds[0])  # I, J, K
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras))
    if voxels is not None:
        image.AllocateScalars(numpy_support.get_vtk_array_type(voxels.dtype), 1)
        numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = voxels.ravel()
    return image


def resampled(image, grid, transform) -> np.ndarray:
    """Resample an image onto another grid, nearest-neighbour."""
    onGrid = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        image, grid, onGrid, False, False, transform
    )
    return voxels_of(onGrid).copy()


def voxels_of(image) -> np.ndarray:
    """The voxels of a `vtkOrientedImageData`, axes (K, J, I) of its extent: a view, for reading and writing."""
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
