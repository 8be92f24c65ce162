"""The module's logic: segments CT volumes of the scene, and cohorts, in one worker process. No Qt; MRML only through `runs`."""
# ruff: noqa: ANN001, N802, N803 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..core.request import Point, Request, check_places
from ..jobs.worker_client import Worker
from ..network.bundle import choose_bundle
from . import pytorch_install
from .runs import Run, Task
from .scene_runs import SceneRun
from .sequence_runs import SequenceRun

_log = logging.getLogger(__name__)
EXISTING = ("new", "replace")
MAPS = ("probability", "uncertainty")
AnyTask = TypeVar("AnyTask", bound=Task)


class Segmenter:
    """Segments volumes of the scene, one at a time, in a worker process that is started on first use."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._worker = Worker()
        self._runs: weakref.WeakSet[Task] = weakref.WeakSet()

    @property
    def busy(self) -> bool:
        """True while `poll` must be called again."""
        return self._worker.busy

    def process(
        self, volumeNode, segmentationNode=None, target: str = "liver", **options: Any
    ) -> dict[str, Mapping] | list[dict[str, Mapping]]:
        """Segment a volume and wait for the result; works without a main window.

        Args:
            volumeNode: The CT, a `vtkMRMLScalarVolumeNode` in HU.
            segmentationNode: The `vtkMRMLSegmentationNode` to add to; None makes a new one, "<volume> segmentation".
            target: What to segment: the target of a model or one of its labels, such as `liver`, `nodule` or `left kidney`.
            options: speed, device, threshold, showFrom, force, model, existing, maps, roi, points and allFrames, as for `start`.

        Returns:
            Measurements by the name of the segment: `{"Liver": {"volume_ml": 1480.2, "mean_hu": 104.1}}`. An organ that was
            not found has an empty segment, 0 ml and no mean. With allFrames, a list with one such dictionary for each frame.

        Raises:
            ValueError: The volume cannot be segmented. The scene is unchanged; the message is a sentence for the user.
        """
        run = self.start(volumeNode, segmentationNode, target, **options)
        try:
            while run.running:
                self.poll()
                time.sleep(0.01)
        except BaseException:
            run.cancel()
            raise
        if run.error:
            raise run.error
        for note in run.result.notes if run.result else ():
            _log.warning(note.text)
        return run.frames if isinstance(run, SequenceRun) else run.measurements

    def processFolder(
        self,
        inputs: str | Path | Iterable[str | Path],
        outputFolder: str | Path,
        target: str = "liver",
        speed: str = "balanced",
        device: str = "auto",
        threshold: float | None = None,
        force: bool = False,
        model: str | None = None,
        progress: Callable[[int, int, str], None] = lambda done, total, case: None,
        cluster: str | None = None,
        series: Mapping[str, str] | None = None,
        formats: Collection[str] = (),
        workers: int = 1,
        ended: Callable[[Mapping[str, Any]], None] = lambda record: None,
        points: Mapping[str, Sequence[Point]] | None = None,
        threads: int | None = None,
        also: Collection[str] = (),
        showFrom: float | None = None,
    ) -> list[dict]:
        """Segment a cohort, file by file, without loading it into the scene.

        `jobs.cohort.run_cohort` describes the files in the output folder.

        Args:
            inputs: A folder of volume files and DICOM folders, or a list of them.
            outputFolder: Created if missing. Another call with the same folder runs only missing and failed cases.
            target, speed, device, threshold, force, model: As for `start`.
            progress: Called with the number of cases done, the number of all cases, and the name of the next case.
            cluster: Address of a Dask scheduler, such as `tcp://host:8786`, whose workers run the cases; see `jobs.dask_cluster`.
            series: The DICOM series to segment, by the name of the case.
            formats: Further formats of each result, besides `.seg.nrrd`: `nii.gz`, `stl`, `obj`, `dcm` and `sr.dcm`. The last two need
                highdicom, which Slicer does not have.
            workers: Number of cases to run at once on this computer, at best one for each graphics card; more than 1 needs `distributed`.
            ended: Called with the manifest record of each case as it ends.
            points: Points in nodules, by the name of the case: RAS of its file, in mm. In other cases, the whole lungs are searched.
            threads: Number of slices that the CPU computes at once, at most one for each core; None for as many.
            also: Further targets, which may need other models; each case gets one segmentation with all of them.
            showFrom: As for `start`.

        Returns:
            The manifest record of each case, in order; its `status` is `done`, `failed` or `skipped`.

        Raises:
            ValueError: There is no model, no PyTorch, no input or no cluster; a package that a format needs is missing; or the folder
                cannot be used. A case that fails does not raise.
        """
        from ..jobs.cohort import (  # imports SimpleITK, which would slow down Slicer's start
            one_after_the_other,
            run_cohort,
        )
        from ..jobs.dask_cluster import on_cluster, on_this_computer

        request = Request(
            target,
            also=also,
            model=model,
            speed=speed,
            threshold=threshold,
            show_from=showFrom,
            force=force,
            device=device,
            threads=threads,
        )
        if cluster is None:
            pytorch_install.require()
        here = one_after_the_other(self._worker) if workers == 1 else on_this_computer(workers)
        run = on_cluster(cluster) if cluster else here
        return run_cohort(run, inputs, outputFolder, request, progress, series, ended, [*formats], points)

    def start(
        self,
        volumeNode,
        segmentationNode=None,
        target: str = "liver",
        *,
        speed: str = "balanced",
        device: str = "auto",
        threshold: float | None = None,
        showFrom: float | None = None,
        force: bool = False,
        model: str | None = None,
        existing: str = "new",
        maps: Collection[str] = (),
        roi=None,
        points=None,
        allFrames: bool = False,
    ) -> SceneRun | SequenceRun:
        """Start segmenting a volume and return at once; call `poll` until the run has ended.

        Args:
            volumeNode, segmentationNode, target: As for `process`.
            speed: `accurate`, `balanced` or `fast`.
            device: `auto`, `cuda`, `mps` or `cpu`.
            threshold: Lowest probability at which a voxel belongs to the target; None for the model's own.
            showFrom: Lowest probability at which a nodule of a search without points is shown; None for the model's own.
            force: Accept a volume that does not look like CT.
            model: Name or folder of the model; None for the one that `choose_bundle` chooses.
            existing: If the segmentation already has a segment for this target: `new` adds another one, `replace` replaces it.
            maps: `probability`, `uncertainty` or both: volumes to add to the scene.
            roi: A `vtkMRMLMarkupsROINode`; only voxels inside it are segmented.
            points: A `vtkMRMLMarkupsFiducialNode`, or RAS points in the world (mm), with one point in each nodule to segment; cannot
                be combined with roi.
            allFrames: If the volume is a frame of a sequence, segment all frames, into a new sequence.

        Returns:
            The run. Keep a reference to it, otherwise it is dropped.

        Raises:
            ValueError: The volume cannot be segmented. The scene is unchanged.
        """
        if existing not in EXISTING:
            raise ValueError(f"existing must be one of {', '.join(EXISTING)}; got {existing!r}.")
        if not set(maps) <= set(MAPS):
            raise ValueError(f"maps must be a list with {', '.join(MAPS)} or both; got {maps!r}.")
        request = Request(
            target, model=model, speed=speed, threshold=threshold, show_from=showFrom, force=force, device=device
        )
        if allFrames:
            if segmentationNode is not None or maps or points is not None:
                raise ValueError(
                    "allFrames creates a new sequence of segmentations: leave out segmentationNode, maps and points."
                )
            return self._begin(SequenceRun, volumeNode, request, roi=roi)
        return self._begin(
            SceneRun, volumeNode, request, roi=roi, points=points, segmentationNode=segmentationNode,
            replaces=existing == "replace", maps=maps,
        )  # fmt: skip

    def find(
        self,
        volumeNode,
        target: str = "liver",
        *,
        speed: str = "balanced",
        device: str = "auto",
        threshold: float | None = None,
        force: bool = False,
        roi=None,
        points=None,
    ) -> Run:
        """Start segmenting a volume without changing the scene, for callers that use the result themselves; call `poll`.

        Args:
            volumeNode, target, speed, device, threshold, force, roi, points: As for `start`.

        Returns:
            The run. Keep a reference to it. Its `result.labelmap` is on the voxel grid of the volume.

        Raises:
            ValueError: The volume cannot be segmented.
        """
        request = Request(target, speed=speed, threshold=threshold, force=force, device=device)
        return self._begin(Run, volumeNode, request, roi=roi, points=points)

    def _begin(self, kind: Callable[..., AnyTask], volumeNode, request: Request, **options: Any) -> AnyTask:
        has_points, has_box = (options.get(each) is not None for each in ("points", "roi"))
        check_places(has_points, has_box)  # before the scene is read
        pytorch_install.require()
        bundle = choose_bundle(request.target, request.model)
        bundle.check_request(request, has_points)
        run = kind(self._worker, volumeNode, bundle, request, **options)
        self._runs.add(run)
        return run

    def poll(self) -> None:
        """Handle the events of the worker without blocking; call it on the main thread, about every 0.1 s."""
        for event in self._worker.poll():
            for run in [each for each in self._runs if event.job in each.jobs]:
                run.take(event)
        for run in list(self._runs):
            run.stop_without_volume()

    def close(self) -> None:
        """End the worker process and cancel its runs; the next run starts a new process."""
        self._worker.close()
        for run in list(self._runs):
            run.abandon()
