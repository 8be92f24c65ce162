"""What a visitor of the app does and waits for, on a session without a browser."""

from __future__ import annotations

import csv
import json

import numpy as np
from vtk.util.numpy_support import numpy_to_vtk

from Testing.support.mrml_scene import slicer
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.jobs.manifest import MANIFEST, TABLE
from UNetPlusPlusSegmentLib.scene import mrml

MATRIX = np.diag([-2.0, -2.0, 3.0, 1.0])  # a voxel of 0.012 ml
BLOCK = np.s_[2:6, 5:15, 5:15]  # 4.8 ml


def two_cases(folder):
    """Write two cases, a and b, with a liver of 4.8 ml, as a run has left them; returns the folders of results and of scans."""
    scans, results = folder / "scans", folder / "results"
    scans.mkdir()
    results.mkdir()
    labels = np.zeros((10, 30, 40), np.uint8)
    labels[BLOCK] = 1
    for name in "ab":
        files.write_volume(scans / f"{name}.nrrd", np.where(labels, 60, -100).astype(np.int16), MATRIX)
        segments = [Segment(1, "Liver", "", (255, 0, 0), {})]
        files.write_segmentation(results / f"{name}.seg.nrrd", labels, MATRIX, segments)
        found = {"Liver": {"volume_ml": 4.8, "mean_hu": 60.0}}
        line = {"case": name, "input": str(scans / f"{name}.nrrd"), "status": "done", "measurements": found}
        with (results / MANIFEST).open("a") as stream:
            stream.write(json.dumps(line) + "\n")
    return results, scans


def paint(session, do, where=np.s_[2:6, 15:20, 5:15]) -> None:
    """Add 2.4 ml to the first segment, and wait until what follows is done."""
    segmentation, volume = session.segmentation, session.views.volume
    segment_id = segmentation.GetSegmentation().GetNthSegmentID(0)
    mask = mrml.labelmap_of(segmentation, segment_id, volume).astype(np.uint8)
    mask[where] = 1
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*mask.shape[::-1])
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(MATRIX))
    image.GetPointData().SetScalars(numpy_to_vtk(mask.ravel(), deep=True))
    editor = slicer.vtkSlicerSegmentationsModuleLogic
    editor.SetBinaryLabelmapToSegment(image, segmentation, segment_id, editor.MODE_REPLACE)

    async def follow():
        session._corrected()  # as the segment editor calls it
        await session._autosave.finish()

    do(follow())


def choose(session, target: str) -> None:
    """Choose a target on the page, which then sends the values that have changed."""
    session.state.target, session.state.device = target, "cpu"
    session.choice.target_changed()
    move(session, session.state.threshold)


def move(session, threshold: float) -> None:
    """Move the slider on the page."""
    session.state.threshold = threshold
    session.runs.set_threshold(threshold)


async def end_of(session):
    """Wait until the last run and what follows is done; returns the run."""
    await session.runs.following
    await session._autosave.finish()
    return session.runs.current


async def segmented(session, points=None):
    session.apply(points)
    return await end_of(session)


def volumes_ml(results) -> dict[str, str]:
    """The column of the cohort's table, by case."""
    with (results / TABLE).open() as stream:
        return {row["case"]: row["volume_ml"] for row in csv.DictReader(stream)}
