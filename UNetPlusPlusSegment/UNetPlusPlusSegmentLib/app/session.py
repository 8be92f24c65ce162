"""A session: what the buttons of the page do, with its own scene and worker. Uses the state of the page, not its widgets."""
# ruff: noqa: ANN001 (Slicer's nodes have no types to import)

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trame_server import Server
from trame_slicer.app.logic.segmentation import SegmentEditorLogic
from trame_slicer.segmentation import SegmentationEffectNoTool

from .. import files
from ..core.request import DEVICES, SPEEDS
from ..core.result import Result
from ..core.volume import Volume
from ..files.nrrd import read_nrrd_layers
from ..jobs.corrections import CORRECTED, add_correction, names_of
from ..jobs.manifest import read_manifest
from ..jobs.results import check_scan
from ..jobs.review import Mark, change_mark, mark_of, read_review
from ..network.bundle import Bundle
from ..scene import mrml
from ..scene.scene_runs import SceneRun, segments_of_target
from ..scene.snapshots import Snapshot, snapshot
from .cases import Case
from .choice import Choice
from .corrections import AutoSave, Stamp, stamp_of
from .measured import Measurements
from .runs import Runs
from .table import Table
from .views import Views

NOTHING_SAVED = "Changes are not saved on the app's computer: download what you want to keep."
CORRECTED_BEFORE = (
    "The segments of this target may contain corrections, which Apply would replace: remove the segments from the list, and click"
    " Apply again."
)


class Session:
    """Opens cases, runs the network, shows results, and saves corrections and verdicts.

    The page calls its methods on the thread of the event loop. Errors become a sentence in `state.message`.
    """

    def __init__(self, server: Server, views: Views, cases: Mapping[str, Case]) -> None:
        """Open nothing yet."""
        self.server, self.views, self.cases = server, views, dict(cases)
        self.editor = SegmentEditorLogic(server, views.app)
        self.case: Case | None = None
        self._asked: Case | None = None
        self.segmentation: Any = None
        self._seen = Mark()  # what the page shows of the review of the case
        self._by_hand = False  # whether segments may have been corrected before the last result
        self._table, self._rows = Table(), list[str]()  # the table, and the IDs of the segments in its rows
        self._measured = Measurements(None, None)
        self._autosave = AutoSave(self._tell_saved, self._measure_again)
        self.state = server.state
        self.state.update(
            {
                "cases": list(self.cases), "case_name": None, "position": "", "window_name": "Abdomen", "message": "", "wrong": False,
                "saved": "", "stale": False, "speeds": SPEEDS, "speed": "balanced", "devices": DEVICES, "device": "auto", "running": False,
                "progress": 0, "progress_text": "", "header": [], "rows": [], "overlay": False, "loaded": False,
                "in_cohort": False, "took": "", "verdict": "", "comment": "", "reviewer": "", "dicom": False,
            }
        )  # fmt: skip
        self.choice = Choice(self.state)
        self.runs = Runs(self.state, views, self._take_in, self._tell)
        self.state.change("case_name")(lambda case_name, **_: self.open(case_name))  # a coroutine, which trame awaits
        self.state.change("window_name")(lambda window_name, **_: views.set_window(window_name))
        self.state.change("picking")(lambda picking, **_: picking and views.app.segmentation_editor.deactivate_effect())
        views.when_clicked(self._clicked)
        self._connect_corrections()

    # Cases

    async def open(self, name: str | None, again: bool = False) -> None:
        """Open a case by its name, with its segmentation if it has one; changes of the previous case are saved first.

        Args:
            name: Name of the case; nothing happens if it is None.
            again: Open it again, if it is open already, as another session may have changed it.
        """
        if name is None or (self.case and self.case.name == name and not again):
            return
        if name not in self.cases:
            self._tell(f"There is no case {name!r}: choose one from the list.", wrong=True)
            return
        case = self._asked = self.cases[name]
        self._tell("Opening …")
        self.state.flush()
        try:
            read = await asyncio.to_thread(_read, case)
        except (ValueError, MemoryError) as error:
            why = str(error) or "There is not enough memory for this scan: close other programs, or crop the scan."
            self._stay(why.replace(str(case.scan), case.name))  # an upload's path means nothing to a visitor
            return
        if case is self._asked:
            await self._leave()
        refused = self._autosave.refused or self._save_comment()
        if refused:
            self._stay(refused)
            return
        if case is self._asked:  # no other case has been chosen meanwhile
            said = [case.record.get("reason"), *(case.record.get("notes") or ()), *read.notes]
            self._tell(" ".join(dict.fromkeys(filter(None, said))))
            self._show(case, read)
            self.state.flush()
            await self._measure_corrected_before()
        self.state.flush()

    def _stay(self, why: str) -> None:
        """Say why another case was not opened; the present one stays chosen."""
        self._tell(why, wrong=True)
        self.state.case_name = self.case.name if self.case else None
        self.state.flush()

    def _show(self, case: Case, read: _Read) -> None:
        """Show a case that has been read, in place of the previous one."""
        self.views.show(read.volume, case.name, self.state.window_name)
        self.case, self.runs.shown, saved_as = case, None, case.corrected
        loaded = self.views.load_segmentation(read.segmentation) if read.segmentation else None
        self._by_hand = loaded is not None and read.by_hand
        if read.segmentation and loaded is None:
            self._tell(f"{read.segmentation} could not be shown, so changes are not saved: copy it again.", wrong=True)
            saved_as = None
        self._use(loaded or self.views.app.segmentation_editor.create_empty_segmentation_node())
        state = self.take()
        self._measured = Measurements(self.views.volume, None if self._by_hand else state, case.record.get("target"))
        self._autosave.follow(saved_as, self.take, state, read.stamp)
        self.state.update(
            {
                "case_name": case.name, "loaded": True, "overlay": False, "in_cohort": case.cohort is not None,
                "dicom": case.scan.is_dir(), "saved": "" if saved_as else NOTHING_SAVED,
                "stale": not self._autosave.is_current, "took": "",
            }
        )  # fmt: skip
        self._show_rows()
        self._show_verdict()

    async def _leave(self) -> None:
        """Stop the current run, and save changes."""
        self.runs.leave()
        self._autosave.changed()
        await self._autosave.finish()
        saved, self._autosave.last = self._autosave.last, None
        if saved and self.case and self.case.cohort and self._autosave.is_current:
            await self._add_correction(self.case, self.case.cohort, saved)

    async def _measure_again(self, state: Snapshot) -> None:
        """Measure the segments that have changed, and update the table."""
        measured = self._measured
        await measured.update(state)
        if measured is self._measured and self.segmentation is not None:
            self._show_rows()
            self.state.flush()

    async def _measure_corrected_before(self) -> None:
        """Measure a correction that was loaded; if the cohort's table lacks it because the app was killed, add its row."""
        state, case = self.take(), self.case
        if not self._by_hand or state is None or case is None:
            return
        await self._measure_again(state)
        found = [self._measured.of(each) for each in state.ids]
        if case is not self.case or case.cohort is None or self._autosave.last or None in found:
            return
        line = read_manifest(case.cohort).get(f"{case.name}{CORRECTED}", {})
        told = {name: measured["volume_ml"] for name, measured in (line.get("measurements") or {}).items()}
        now = {name: each["volume_ml"] for name, each in zip(names_of(state.segments), found, strict=True) if each}
        if told != now and state.overlap is None and self._autosave.is_current:
            await self._add_correction(case, case.cohort, state)

    async def _add_correction(self, case: Case, folder: Path, state: Snapshot) -> None:
        """Add a correction to the cohort's table."""
        volume = mrml.volume_from_node(self.views.volume)
        try:
            await asyncio.to_thread(add_correction, folder, case.record, volume, state.labelmap, state.segments)
        except ValueError as error:
            self._tell(str(error), wrong=True)

    async def add(self, case: Case) -> None:
        """Add an uploaded case to the list, and open it."""
        self.cases[case.name] = case
        self.state.cases = list(self.cases)
        await self.open(case.name, again=True)

    async def open_again(self) -> None:
        """Open the case again, as another session may have changed it."""
        if self.case is not None:
            await self.open(self.case.name, again=True)

    async def step(self, by: int) -> None:
        """Open the next case (1) or the previous one (-1)."""
        names = list(self.cases)
        here = names.index(self.case.name) if self.case else -1
        if 0 <= here + by < len(names):
            await self.open(names[here + by])

    def judge(self, verdict: str) -> None:
        """Add a verdict on this case (`accepted`, `flagged` or `""`), with the comment, to the cohort's review, if one has changed."""
        try:
            self._mark(Mark(verdict, self._comment))
        except ValueError as error:
            self._tell(str(error), wrong=True)

    def _save_comment(self) -> str:
        """Save the comment; returns why a text in its field cannot be saved, and what to do."""
        try:
            self._mark(Mark(self._seen.verdict, self._comment))
        except ValueError as error:
            return self._comment and f"{error} To leave the case without the comment, empty its field."
        return ""

    def _mark(self, given: Mark) -> None:
        if self.case and self.case.cohort:
            case, reviewer = self.case.name, self.state.reviewer or ""
            self._show_mark(change_mark(self.case.cohort, case, self._seen, given, reviewer))

    @property
    def _comment(self) -> str:
        return (self.state.comment or "").strip()

    # Results

    def apply(self, points: list | None = None) -> None:
        """Segment the volume, replacing an earlier result for the target; or only the nodules at points, adding them."""
        if self.case is None or self.state.running:
            return
        bundle = self.choice.bundle
        if bundle is None:
            self._tell("Choose a target and a model first.", wrong=True)
            return
        if not points and self._has_corrected(bundle):
            self._tell(CORRECTED_BEFORE, wrong=True)
            return
        self.runs.start(self.segmentation, bundle, points)

    def _has_corrected(self, bundle: Bundle) -> bool:
        """True if segments that a run would replace may contain corrections, from this session or an earlier one."""
        by_hand = self._by_hand or self.views.app.segmentation_editor.undo_stack.can_undo()
        return by_hand and bool(segments_of_target(self.segmentation, bundle, self.state.target))

    def look_at(self, row: int) -> None:
        """Centre the slice views on the segment of a row of the table."""
        place = mrml.centre_of(self.segmentation, self._rows[row])  # None if the segment was removed
        if place:
            self.views.centre(place)

    def take(self) -> Snapshot | None:
        """A snapshot of the segmentation; None if there is none."""
        if self.segmentation is None or self.views.volume is None:
            return None
        return snapshot(self.segmentation, self.views.volume)

    async def close(self) -> None:
        """Save changes and the comment, and end the worker."""
        await self._leave()
        self._save_comment()
        self.runs.close()

    def _take_in(self, run: SceneRun, result: Result) -> None:
        """Show a result in the views and in the table, and save it."""
        found = {each: segment.measurements for each, segment in zip(run.segmentIDs, result.segments, strict=True)}
        self._measured.replaced(found, run.edited, self.take())
        editor = self.views.app.segmentation_editor
        self._by_hand = self._by_hand or editor.undo_stack.can_undo()  # the next call clears the undo stack
        self._use(run.segmentationNode)
        if run.segmentIDs:
            editor.set_active_segment_id(run.segmentIDs[0])
        self._show_rows()
        self._tell(" ".join(note.text for note in result.notes))
        self._autosave.changed()

    # The scene

    def _use(self, node) -> None:
        """Make a segmentation the one that is edited, shown and saved."""
        self.segmentation = node
        editor = self.views.app.segmentation_editor
        node.CreateDefaultDisplayNodes()
        editor.set_active_segmentation(node, self.views.volume)
        editor.show_3d(True)
        self.views.look_from_the_front()

    def _connect_corrections(self) -> None:
        editor = self.views.app.segmentation_editor
        editor.segmentation_modified.connect(self._corrected)
        editor.undo_stack.index_changed.connect(self._corrected)
        editor.active_effect_name_changed.connect(self._choose_tool)

    def _corrected(self, *_: object) -> None:
        self._autosave.changed()

    def _choose_tool(self, name: str) -> None:
        """Stop picking nodules when a tool is chosen, as a click cannot do both."""
        self.state.picking = self.state.picking and name == SegmentationEffectNoTool.get_effect_name()

    def _clicked(self, ras: tuple[float, float, float]) -> None:
        bundle = self.choice.bundle
        if self.state.picking and bundle and bundle.finds_nodules:
            self.apply([ras])
            self.state.flush()

    # The page

    def _show_rows(self) -> None:
        """List all segments with their measurements."""
        segmentation = self.segmentation.GetSegmentation()
        segments = {
            each: (segmentation.GetSegment(each).GetName(), self._measurements_of(each))
            for each in segmentation.GetSegmentIDs()
        }
        self._rows, self.state.header, self.state.rows = self._table.content(segments)

    def sort_by(self, title: str) -> None:
        """Sort the table by a column."""
        self._table.sort_by(title)
        if self.segmentation is not None:
            self._show_rows()

    def _measurements_of(self, segment_id: str) -> Mapping[str, Any]:
        """The latest measurements of a segment: after its last change or its run, or from the cohort."""
        measured = self._measured.of(segment_id)
        if measured is not None:
            return measured
        segment = self.segmentation.GetSegmentation().GetSegment(segment_id)
        of_cohort = (self.case and self.case.record.get("measurements")) or {}
        return of_cohort.get(segment.GetName(), {}) if segment else {}

    def _show_verdict(self) -> None:
        case, mark = self.case, Mark()
        try:
            if case and case.cohort:
                mark = mark_of(read_review(case.cohort), case.name)
        except ValueError as error:
            self._tell(str(error), wrong=True)
        self._show_mark(mark)
        names = list(self.cases)
        self.state.position = f"{names.index(case.name) + 1} of {len(names)}" if case else ""

    def _show_mark(self, mark: Mark) -> None:
        self._seen = mark
        self.state.update(mark._asdict())

    def _tell(self, message: str, wrong: bool = False) -> None:
        self.state.update({"message": message, "wrong": wrong})

    def _tell_saved(self, said: str) -> None:
        self.state.update({"saved": said, "stale": not self._autosave.is_current})
        self.state.flush()


class _Read(NamedTuple):
    """What was read of a case.

    Attributes:
        volume: The scan.
        notes: Notes on it.
        segmentation: The file of its segmentation; None if there is none.
        by_hand: Whether that is the corrected one.
        stamp: That of the corrected one, if only to come.
    """

    volume: Volume
    notes: list[str]
    segmentation: Path | None
    by_hand: bool
    stamp: Stamp


def _read(case: Case) -> _Read:
    stamp, found = stamp_of(case.corrected), case.segmentation  # in this order, as another session may save meanwhile
    segmentation = found and case.folders.scan(found)
    if segmentation:
        read_nrrd_layers(segmentation)  # Slicer's core ends the whole process on a damaged file
    volume, notes = files.read_volume(case.folders.scan(case.scan), case.series, bool(case.record.get("force")))
    if segmentation and case.cohort:
        check_scan(case.cohort, case.name)
    return _Read(volume, notes, segmentation, found is not None and found == case.corrected, stamp)
