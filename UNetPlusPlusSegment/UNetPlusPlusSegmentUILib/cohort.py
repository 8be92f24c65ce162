"""The cohort section of the panel: segments a folder of scans in a separate process; then its cases are reviewed and corrected."""

import getpass
import os
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from UNetPlusPlusSegmentLib.core.table import rounded
from UNetPlusPlusSegmentLib.jobs.review import Mark, change_mark, mark_of, read_review

from .messages import reason, showError, timeLeft
from .questions import mayRun

POLL_MS = 200


def _userName() -> str:
    """The user's login name; empty if unknown."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return ""


def _folderIn(field):
    """The folder that is typed into a field, as in a shell; None if the field is empty."""
    text = field.text.strip()
    # Unlike Path.expanduser, this keeps the name of a folder that begins with ~.
    return Path(os.path.expanduser(text)).absolute() if text else None  # noqa: PTH111


class CohortBox:
    """Runs a cohort, and steps through the cases in its folder. One case at a time is in the scene, loaded when it is clicked."""

    def __init__(self, ui, parent, request) -> None:
        """Connect the section of the panel.

        Args:
            ui: The panel's widgets by name.
            parent: The parent widget of dialogs.
            request: A function that returns the `Request` of the user's choices.
        """
        self._ui, self._parent, self._request = ui, parent, request
        self._process = None
        self._records: list[dict] = []
        self._reviewed: dict[str, dict] = {}
        self._shown = None  # a ShownCase
        self._seen = Mark()  # what the user was shown of its review
        self._outcome = ""
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", self._onTimer)
        ui.cohortTable.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        for widget, signal, slot in (
            (ui.cohortInputButton, "clicked(bool)", self.onChooseInputs),
            (ui.cohortFolderButton, "clicked(bool)", self.onChooseFolder),
            (ui.cohortFolderEdit, "editingFinished()", self.onFolder),
            (ui.cohortRunButton, "clicked(bool)", self.onRun),
            (ui.cohortTable, "cellClicked(int,int)", self.onRow),
            (ui.cohortPreviousButton, "clicked(bool)", self.onPrevious),
            (ui.cohortNextButton, "clicked(bool)", self.onNext),
            (ui.cohortAcceptButton, "clicked(bool)", self.onAccept),
            (ui.cohortFlagButton, "clicked(bool)", self.onFlag),
            (ui.cohortCommentEdit, "editingFinished()", self.onComment),
            (ui.cohortSaveButton, "clicked(bool)", self.onSave),
            (ui.cohortReportButton, "clicked(bool)", self.onReport),
        ):
            widget.connect(signal, slot)
        self._update()

    def close(self) -> None:
        """End the cohort process; finished cases are kept, and so is the comment."""
        if self._process:
            self._process.cancel()
        self._timer.stop()
        self._timer.disconnect("timeout()", self._onTimer)
        self._saveLastComment()

    # The folders

    @property
    def folder(self):
        """The folder of the results; None if none is chosen."""
        return _folderIn(self._ui.cohortFolderEdit)

    def onChooseInputs(self) -> None:
        """Ask for the folder of the scans."""
        self._choose(_("Folder with the scans"), self._ui.cohortInputEdit)

    def onChooseFolder(self) -> None:
        """Ask for the folder of the results, and list its cases."""
        self._choose(_("Folder for the results"), self._ui.cohortFolderEdit)
        self.onFolder()

    def onFolder(self) -> None:
        """List the cases of another folder; what was said of the one before no longer applies."""
        self._outcome = ""
        self.refresh()

    def _choose(self, title: str, field) -> None:
        path = qt.QFileDialog.getExistingDirectory(self._parent, title, field.text)
        if path:
            field.text = path

    def refresh(self) -> None:
        """List the cases in the folder of results, the most doubtful first, with their review."""
        from UNetPlusPlusSegmentLib.jobs.manifest import read_manifest
        from UNetPlusPlusSegmentLib.jobs.report import cases_of

        self._records = []
        try:
            if self.folder:
                self._records = cases_of(read_manifest(self.folder))
        except ValueError as error:
            self._outcome = str(error)
        self._readReview()

    def _readReview(self) -> None:
        """Show what the review says now; the rows stay where they are."""
        self._reviewed = {}
        try:
            if self.folder:
                self._reviewed = read_review(self.folder)
        except ValueError as error:
            self._outcome = str(error)
        if self._shownRow() is not None:
            self._seen = self._seen._replace(verdict=mark_of(self._reviewed, self._shown.record["case"]).verdict)
        self._fillTable()
        self._update()

    # Running

    def onRun(self) -> None:
        """Start the cohort, or cancel the running one."""
        if self._process and self._process.running:
            self._process.cancel()
            self._onTimer()
            return
        try:
            inputs = _folderIn(self._ui.cohortInputEdit)
            if not inputs or not self.folder:
                self._outcome = _("Choose a folder with scans and a folder for the results.")
            elif mayRun():
                self._start(inputs)
        except ValueError as error:
            self._fail(error)
        self._update()

    def _start(self, inputs) -> None:
        from UNetPlusPlusSegmentLib.jobs.cohort_client import CohortProcess

        self._outcome = ""
        self._process = CohortProcess(inputs, self.folder, self._request())
        self._timer.start()

    def _onTimer(self) -> None:
        process = self._process
        records = process.poll()
        if process.running:
            self._timer.start()
        if records or not process.running:
            self.refresh()
        if not process.running:
            self._outcome = self._ending(process)
            if process.error:
                self._update()
                showError(process.error)
        self._update()

    def _ending(self, process) -> str:
        if process.error:
            return reason(process.error)
        failed = sum(each["status"] == "failed" for each in self._records)
        return _("{count} done, {failed} failed.").format(count=len(self._records) - failed, failed=failed)

    # Looking through

    def onRow(self, row, column) -> None:
        """Load a case, in place of the previous one; the same one again only if parts of it were removed from the scene."""
        if row == self._shownRow() and self._shown.is_whole:
            return
        record = self._records[row]  # now, as a run goes on while a dialog is open, and its cases move the rows
        if self._leave():
            self._load(record)
        else:
            self._selectShown()

    def _load(self, record) -> None:
        from UNetPlusPlusSegmentLib.scene.shown_case import ShownCase  # imports SimpleITK

        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            self._shown = ShownCase(self.folder, record)
            self._outcome = self._about(record)
        except ValueError as error:
            self._outcome = str(error)
        finally:
            slicer.app.restoreOverrideCursor()
        if self._shown:
            slicer.util.setSliceViewerLayers(background=self._shown.volumeNode, fit=True)
            self._readReview()
            self._showMark(mark_of(self._reviewed, record["case"]))
        self._select(self._rowOf(record["case"]))
        self._update()

    def _about(self, record) -> str:
        return " ".join(filter(None, [record.get("reason"), *(record.get("notes") or ())]))

    def _leave(self) -> bool:
        """Remove the case from the scene; False if the user wants to keep what is not saved."""
        if not self._shown:
            return True
        if not (self._commentMayGo() and self._changesMayGo()):
            return False
        self._shown.drop()
        self._shown = None
        return True

    def _commentMayGo(self) -> bool:
        try:
            self._saveMark()  # a button that takes no focus, as on macOS, leaves the field unfinished
        except ValueError as error:
            return slicer.util.confirmOkCancelDisplay(
                _("{reason} Leave {case} without saving the comment?").format(
                    reason=error, case=self._shown.record["case"]
                )
            )
        return True

    def _changesMayGo(self) -> bool:
        return not self._shown.is_changed or slicer.util.confirmOkCancelDisplay(
            _("The segmentation of {case} has unsaved changes. Leave the case without saving them?").format(
                case=self._shown.record["case"]
            )
        )

    def onSceneClosed(self) -> None:
        """Forget the case, which was closed with the scene."""
        self._saveLastComment()
        self._shown = None
        self._update()

    def _saveLastComment(self) -> None:
        """Save the comment on a case that cannot stay open; one that cannot be saved is shown a last time."""
        try:
            if self._shown:
                self._saveMark()
        except ValueError as error:
            lost = _("{reason} The comment on {case} is not saved: {comment}").format(
                reason=error, case=self._shown.record["case"], comment=self._ui.cohortCommentEdit.text
            )
            self._fail(ValueError(lost))

    def onNext(self) -> None:
        """Load the next case in the list."""
        self._step(1)

    def onPrevious(self) -> None:
        """Load the previous case in the list."""
        self._step(-1)

    def _step(self, by: int) -> None:
        row = self._shownRow()
        row = (0 if by > 0 else -1) if row is None else row + by
        if 0 <= row < len(self._records):
            self.onRow(row, 0)

    def _shownRow(self):
        """The row of the case in the scene; None if there is none, or if it belongs to another folder."""
        if not self._shown or self._shown.folder != self.folder:
            return None
        return self._rowOf(self._shown.record["case"])

    def _rowOf(self, case):
        names = [each["case"] for each in self._records]
        return names.index(case) if case in names else None

    def _selectShown(self) -> None:
        self._select(self._shownRow())

    def _select(self, row) -> None:
        if row is not None:
            self._ui.cohortTable.selectRow(row)

    # Marks and corrections

    def onAccept(self) -> None:
        """Accept the case; a second click undoes it."""
        self._judge("accepted")

    def onFlag(self) -> None:
        """Flag the case; a second click undoes it."""
        self._judge("flagged")

    def _judge(self, verdict) -> None:
        self._mark(verdict)
        self.refresh()

    def onComment(self) -> None:
        """Save the comment on the case."""
        # The cases are not listed anew: a click on a row takes the cursor out of the field, and must not hit another row.
        if self._shown:
            self._mark()

    def _mark(self, verdict=None) -> None:
        try:
            self._saveMark(verdict)
        except ValueError as error:
            self._fail(error)

    def _saveMark(self, verdict=None) -> None:
        """Write down a verdict or, without one, a changed comment; in the case's own folder, whichever is listed now."""
        folder, case, before = self._shown.folder, self._shown.record["case"], self._seen.verdict
        verdict = before if verdict is None else "" if verdict == before else verdict
        given = Mark(verdict, self._ui.cohortCommentEdit.text.strip())
        self._showMark(change_mark(folder, case, self._seen, given, _userName()))

    def _showMark(self, mark) -> None:
        self._seen, self._ui.cohortCommentEdit.text = mark, mark.comment

    def onSave(self) -> None:
        """Save the changed segmentation next to the original one."""
        try:
            line = self._shown.save()
            found = line["measurements"].items()
            volumes = ", ".join(f"{name} {rounded('volume_ml', each['volume_ml'])} ml" for name, each in found)
            self._outcome = _("Saved as {case}: {volumes}.").format(case=line["case"], volumes=volumes)
        except ValueError as error:
            self._fail(error)
        self._update()

    def onReport(self) -> None:
        """Make the report again, with the review, and open it in the browser."""
        from UNetPlusPlusSegmentLib.jobs.report import make_report

        try:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(make_report(self.folder))))
        except ValueError as error:
            self._fail(error)
        self._update()

    def _fail(self, error) -> None:
        self._outcome = reason(error)
        self._update()
        showError(error)

    # What is shown

    def _fillTable(self) -> None:
        table, header = self._ui.cohortTable, [_("Case"), _("Status"), _("Doubt"), _("Review")]
        table.setColumnCount(len(header))
        table.setHorizontalHeaderLabels(header)
        table.setRowCount(len(self._records))
        for row, record in enumerate(self._records):
            for column, text in enumerate(self._texts(record)):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        self._selectShown()

    def _texts(self, record) -> list[str]:
        verdicts = {"accepted": _("accepted"), "flagged": _("flagged")}
        statuses = {"done": _("done"), "failed": _("failed")}
        return [
            record["case"],
            statuses.get(record["status"], record["status"]),
            self._doubt([*(record.get("measurements") or {}).values()]),
            verdicts.get(mark_of(self._reviewed, record["case"]).verdict, ""),
        ]

    def _doubt(self, segments) -> str:
        """How doubtful the most doubtful segment of a case is, as text."""
        if any(not each["volume_ml"] for each in segments):
            return _("not found")
        dice = [each["expected_dice"] for each in segments if each.get("expected_dice") is not None]
        chances = [each["probability"] for each in segments if each.get("probability") is not None]
        shares = [each["doubtful_share"] for each in segments if each.get("doubtful_share") is not None]
        if dice:
            return _("expected Dice {dice}").format(dice=f"{min(dice):.2f}")
        if chances:
            return _("probability {probability}").format(probability=f"{min(chances):.2f}")
        return _("{share} % doubtful").format(share=round(100 * max(shares))) if shares else ""

    def _update(self) -> None:
        ui, process, shown = self._ui, self._process, self._shown is not None
        running = process is not None and process.running
        ui.cohortRunButton.text = _("Cancel") if running else _("Run cohort")
        for widget in (ui.cohortInputEdit, ui.cohortInputButton, ui.cohortFolderEdit, ui.cohortFolderButton):
            widget.enabled = not running
        ui.cohortProgressBar.setVisible(running)
        if running:
            ui.cohortProgressBar.maximum = process.total
            ui.cohortProgressBar.value = process.done
            left = process.seconds_left
            cases = _("{done} of {total} cases").format(done=process.done, total=process.total)
            ui.cohortProgressBar.format = ", ".join([cases, timeLeft(left)] if left is not None else [cases])
            ui.cohortLabel.text = process.case or _("Starting...")
        else:
            ui.cohortLabel.text = self._outcome
        for widget in (ui.cohortAcceptButton, ui.cohortFlagButton, ui.cohortCommentEdit):
            widget.enabled = shown
        ui.cohortSaveButton.enabled = shown and self._shown.segmentationNode is not None
        ui.cohortNextButton.enabled = ui.cohortPreviousButton.enabled = bool(self._records)
        ui.cohortReportButton.enabled = bool(self._records)
