"""Volume sequences in the scene, and their frames."""

from __future__ import annotations

import numpy as np

from Testing.support.mrml_scene import add_volume, slicer


def add_sequence(arrays: list[np.ndarray], ijk_to_ras: np.ndarray):
    """Add a volume sequence with these voxels (K, J, I), all in one place or each in its own (frames, 4, 4).

    Returns:
        The volume that shows its frames, and the browser that replays it.
    """
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "CT sequence")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    for item, (array, matrix) in enumerate(zip(arrays, np.broadcast_to(ijk_to_ras, (len(arrays), 4, 4)), strict=True)):
        frame = add_volume(array, matrix, "frame")
        sequence.SetDataNodeAtValue(frame, f"{item / 10}")
        slicer.mrmlScene.RemoveNode(frame)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    show_frame(browser, 0)
    return browser.GetProxyNode(sequence), browser


def show_frame(browser, item: int) -> None:
    browser.SetSelectedItemNumber(item)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
