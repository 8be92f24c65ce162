"""The views: a Slicer scene with three slice views and a 3D view, served by trame-slicer. No network, no page."""
# ruff: noqa: ANN001, ANN201 (Slicer's nodes have no types to import)

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from trame_server import Server
from trame_slicer.core import LayoutManager, SlicerApp, VolumeWindowLevel
from trame_slicer.rca_view import register_rca_factories
from trame_slicer.views import Layout, LayoutDirection, SliceView, ViewLayoutDefinition

from ..core.volume import Volume
from ..scene import showing

WINDOWS = {"Abdomen": (400, 40), "Lung": (1500, -600)}  # width and centre in HU
OVERLAY_OPACITY = 0.5
VISIBLE_FROM = 0.05  # a map is transparent below
MAP_COLORS = "vtkMRMLColorTableNodeFileViridis.txt", "vtkMRMLColorTableNodeWarm1"  # the first that exists is used


class Views:
    """A scene, and four views on it."""

    def __init__(self, server: Server) -> None:
        """Create them; the page shows them where it calls `layout.initialize_layout_grid`."""
        self.app = SlicerApp()
        # A low frame rate, which leaves the CPU to the network.
        register_rca_factories(self.app.view_manager, server, target_fps=20, blur_fps=5)
        self.layout = LayoutManager(self.app.scene, self.app.view_manager, server)
        axial, coronal = ViewLayoutDefinition.axial_view(), ViewLayoutDefinition.coronal_view()
        sagittal, threed = ViewLayoutDefinition.sagittal_view(), ViewLayoutDefinition.threed_view()
        rows = [Layout(LayoutDirection.Horizontal, pair) for pair in ([axial, threed], [coronal, sagittal])]
        self.layout.register_layout("four", Layout(LayoutDirection.Vertical, rows))
        self.layout.set_layout("four")
        self.layout.create_layout_views_if_needed("four")
        self.volume: Any = None

    @property
    def scene(self):
        """The `vtkMRMLScene`."""
        return self.app.scene

    @property
    def slices(self) -> list[SliceView]:
        """The three slice views."""
        return self.app.view_manager.get_slice_views()

    def show(self, volume: Volume, name: str, window: str = "Abdomen"):
        """Clear the scene and show a volume; returns its `vtkMRMLScalarVolumeNode`."""
        self.scene.Clear()
        node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(volume.ijk_to_ras))
        slicer.util.updateVolumeFromArray(node, showing.in_32_bits(volume.array))
        node.CreateDefaultDisplayNodes()
        self.volume = node
        self.set_window(window)
        self.app.display_manager.show_volume_in_slice_background(node)
        self.app.display_manager.show_volume_in_slice_foreground(None)
        for view in self.slices:
            _set_step(view, volume.ijk_to_ras)
        self.app.display_manager.reset_views()
        return node

    def load_segmentation(self, path: Path):
        """Load a `.seg.nrrd` file; returns its `vtkMRMLSegmentationNode`, or None if it is not a segmentation."""
        node = self.app.segmentation_editor.load_segmentation_from_file(str(path))
        if node is not None and self.volume is not None:
            node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        return node

    def set_window(self, name: str) -> None:
        """Show the volume in one of `WINDOWS`."""
        if self.volume is not None:
            VolumeWindowLevel.set_volume_node_window_level(self.volume, *WINDOWS[name])

    def overlay(self, map_node) -> None:
        """Show a probability map over the volume; None hides it."""
        if map_node is not None:
            display = map_node.GetDisplayNode()
            color = next((c for c in MAP_COLORS if self.scene.GetNodeByID(c)), None)
            display.SetAndObserveColorNodeID(color)
            display.SetAutoWindowLevel(False)
            display.SetWindowLevelMinMax(0, 1)
            display.SetThreshold(VISIBLE_FROM, 1)
            display.SetApplyThreshold(True)
        self.app.display_manager.show_volume_in_slice_foreground(map_node)
        for view in self.slices:
            view.set_foreground_opacity(OVERLAY_OPACITY if map_node is not None else 0)

    def centre(self, ras: tuple[float, float, float]) -> None:
        """Centre the slice views on a point in the world (mm)."""
        slicer.vtkMRMLSliceNode.JumpAllSlices(self.scene, *ras, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
        for view in self.slices:
            view.schedule_render()

    def when_clicked(self, call: Callable[[tuple[float, float, float]], None]) -> None:
        """Call a function with the point in the world (R, A, S in mm) at each press of the left button in a slice view."""
        for view in self.slices:
            view.interactor().AddObserver("LeftButtonPressEvent", lambda *_, view=view: call(_point(view)))

    def look_from_the_front(self) -> None:
        """Reset the 3D view so that its content fits."""
        for view in self.app.view_manager.get_threed_views():
            view.render()  # new surfaces are added only when it is rendered
            view.reset_view()


def _set_step(view: SliceView, ijk_to_ras: np.ndarray) -> None:
    """Set the slice spacing of a view for tilted slices (gantry tilt): Slicer 5.11 computes 0 mm, and then draws no segments."""
    node, axes = view.get_view_node(), ijk_to_ras[:3, :3] / np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    if np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        node.SetSliceSpacingModeToAutomatic()
        return
    normal = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 2]
    node.SetPrescribedSliceSpacing(*[np.abs(normal @ ijk_to_ras[:3, :3]).max()] * 3)
    node.SetSliceSpacingModeToPrescribed()


def _point(view: SliceView) -> tuple[float, float, float]:
    x, y = view.interactor().GetEventPosition()
    r, a, s, _ = view.get_view_node().GetXYToRAS().MultiplyPoint((x, y, 0, 1))
    return r, a, s


def render_without_a_screen() -> None:
    """Without a display, let VTK render off-screen instead of printing errors. Call this before the first view is created.

    Windows and macOS have a display of their own, and no EGL.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
