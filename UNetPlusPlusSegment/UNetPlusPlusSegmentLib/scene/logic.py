"""The module's logic: CT nodes and cohorts through one worker process. Knows no Qt, and MRML only through `runs`."""
# ruff: noqa: ANN001, N802, N803 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from ..core.request import Request, check_places
from ..jobs.worker_client import Worker
from ..network.bundle import choose_bundle
from . import pytorch_install
from .runs import Run, SceneRun, Task
from .sequence_runs import SequenceRun

_log = logging.getLogger(__name__)
EXISTING = ("new", "replace")


class Segmenter:
    """Segments volumes of the scene, one after the other, in a process that is started when first needed."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        super().__init__()
        self._worker = Worker()
        self._runs: weakref.WeakSet[Task] = weakref.WeakSet()

    @property
    def busy(self) -> bool:
        """True as long as `poll` has to be called again."""
        return self._worker.busy

    def process(
        self, volumeNode, segmentationNode=None, target: str = "liver", **options: object
    ) -> dict[str, Mapping] | list[dict[str, Mapping]]:
        """Segment a volume and wait for the result; works without a main window.

        Args:
            volumeNode: The CT, a `vtkMRMLScalarVolumeNode` in HU.
            segmentationNode: The `vtkMRMLSegmentationNode` to add to; None makes a new one, "<volume> segmentation".
            target: `liver` or `nodule`.
            options: speed, device, threshold, force, model, existing, maps, roi, points and allFrames, as in `start`.

        Returns:
            Measurements by the name of the segment: `{"Liver": {"volume_ml": 1480.2, "mean_hu": 104.1}}`. An organ that was
            not found has 0 ml, no mean, and an empty segment. Of all frames of a sequence: a list with one of these for each.

        Raises:
            ValueError: It cannot be done; the scene is as it was. The text is a sentence for the user.
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
        for note in run.result.notes:
            _log.warning(note.text)
        return run.frames if options.get("allFrames") else run.measurements

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
    ) -> list[dict]:
        """Segment a cohort, file by file, past the scene; see `jobs.cohort.run_cohort` for what lies in the folder after.

        Args:
            inputs: A folder of volume files and DICOM folders, or a list of them.
            outputFolder: Made if need be. Called again with it, only what is missing or failed is done.
            target, speed, device, threshold, force, model: As in `start`.
            progress: Called with cases done, cases in all, and the name of the next case.
            cluster: Address of a Dask scheduler, `tcp://host:8786`, whose workers do the cases; see `jobs.dask_cluster`.

        Returns:
            The manifest's record of each case, in order; `status` is `done` or `failed`.

        Raises:
            ValueError: No model, no PyTorch, no inputs, no cluster, or a folder that cannot be used. A bad case raises nothing.
        """
        from ..jobs.cohort import (  # brings SimpleITK, which would slow down Slicer's start
            one_after_the_other,
            run_cohort,
        )
        from ..jobs.dask_cluster import on_cluster

        request = Request(target, model=model, speed=speed, threshold=threshold, force=force, device=device)
        if cluster is None:
            pytorch_install.require()
        bundle = choose_bundle(request.target, request.model)
        run = on_cluster(cluster) if cluster else one_after_the_other(self._worker)
        return run_cohort(run, inputs, outputFolder, bundle, request, progress)

    def start(
        self,
        volumeNode,
        segmentationNode=None,
        target: str = "liver",
        *,
        speed: str = "balanced",
        device: str = "auto",
        threshold: float | None = None,
        force: bool = False,
        model: str | None = None,
        existing: str = "new",
        maps: Collection[str] = (),
        roi=None,
        points=None,
        allFrames: bool = False,
    ) -> SceneRun | SequenceRun:
        """Start to segment a volume; go on with other things, and `poll`.

        Args:
            volumeNode, segmentationNode, target: As in `process`.
            speed: `accurate`, `balanced` or `fast`.
            device: `auto`, `cuda`, `mps` or `cpu`.
            threshold: Probability from which on a voxel belongs to the target; the model's own if None.
            force: Take a volume that does not look like CT, too.
            model: Name or folder; the newest for the target if None.
            existing: If the segmentation holds such a segment already: add a `new` one beside it, or `replace` it.
            maps: `probability` and `uncertainty` add such volumes to the scene.
            roi: A `vtkMRMLMarkupsROINode`: only the voxels in it are segmented.
            points: A `vtkMRMLMarkupsFiducialNode`, or RAS points in the world (mm): one in each nodule to segment. Points
                and roi exclude each other.
            allFrames: The volume is a frame of a sequence: segment all of its frames, into a new sequence.

        Returns:
            The run; keep it, for a run that nobody holds is forgotten.

        Raises:
            ValueError: It cannot be done; the scene is as it was.
        """
        if existing not in EXISTING:
            raise ValueError(f"existing must be one of {', '.join(EXISTING)}, not {existing!r}.")
        request = Request(target, model=model, speed=speed, threshold=threshold, force=force, device=device)
        if allFrames:
            if segmentationNode is not None or maps or points is not None:
                raise ValueError(
                    "All frames of a sequence go into a new sequence: leave out segmentationNode, maps and points."
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
        model: str | None = None,
        roi=None,
        points=None,
    ) -> Run:
        """Start to segment a volume and leave the scene alone, for those who write the result themselves, and `poll`.

        Args:
            volumeNode, target, speed, device, threshold, force, model, roi, points: As in `start`.

        Returns:
            The run; keep it. Its `result.labelmap` lies on the voxels of the volume.

        Raises:
            ValueError: It cannot be done.
        """
        request = Request(target, model=model, speed=speed, threshold=threshold, force=force, device=device)
        return self._begin(Run, volumeNode, request, roi=roi, points=points)

    def _begin(self, kind: type[Task], volumeNode, request: Request, **options: object) -> Task:
        has_points, has_box = (options.get(each) is not None for each in ("points", "roi"))
        check_places(request.target, has_points, has_box)  # before anything in the scene is asked
        pytorch_install.require()
        bundle = choose_bundle(request.target, request.model)
        run = kind(self._worker, volumeNode, bundle, request, **options)
        self._runs.add(run)
        return run

    def poll(self) -> None:
        """Take what the worker says and act on it, never waiting; on the main thread, every tenth of a second."""
        for event in self._worker.poll():
            for run in [each for each in self._runs if event.job in each.jobs]:
                run.take(event)
        for run in list(self._runs):
            run.stop_without_volume()

    def close(self) -> None:
        """End the worker process, and as cancelled what is under way; another run would start it anew."""
        self._worker.close()
        for run in list(self._runs):
            run.abandon()
