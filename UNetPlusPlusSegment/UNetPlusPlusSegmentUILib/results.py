"""The panel's table of results: a row for each segment that a run found, to look at, to copy and to save."""

import re

import qt
import slicer
from slicer.i18n import tr as _

from UNetPlusPlusSegmentLib.core.table import COLUMNS


class ResultsTable:
    """Shows the measurements of the last run, before any edits; Segment Statistics measures what was edited."""

    def __init__(self, ui, parent) -> None:
        """Take over the table and its buttons.

        Args:
            ui: The panel's widgets by name.
            parent: The widget over which dialogs open.
        """
        self._ui, self._parent = ui, parent
        self._run = self._shown = None
        ui.resultsTable.connect("cellClicked(int,int)", self.onRow)
        ui.resultsTable.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        ui.copyButton.connect("clicked(bool)", self.onCopy)
        ui.saveButton.connect("clicked(bool)", self.onSave)

    def show(self, run) -> None:
        """Show what there is now of a run's result; None empties the table."""
        self._run = run
        volume = run.volumeNode.GetName() if run and run.result else ""
        title = _("Results for {volume} (before edits)").format(volume=volume) if volume else _("Results")
        self._ui.resultsBox.text = title
        header, rows = content = self._content()
        if self._shown == content:
            return
        self._shown, table = content, self._ui.resultsTable
        table.setColumnCount(len(header))
        table.setHorizontalHeaderLabels(header)
        table.setRowCount(len(rows))
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        self._ui.copyButton.enabled = self._ui.saveButton.enabled = bool(rows)

    def _content(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as text, in the order of the run; of the columns, those with text in any row."""
        found = self._run.rows if self._run else []
        names = [name for name, _measured in found]
        columns = [(title, [text(measured) for _name, measured in found]) for title, text in _columns()]
        shown = [column for column in columns if any(column[1])] or columns[:2]
        header = [_("Segment"), *(title for title, _texts in shown)]
        return header, [list(row) for row in zip(names, *(texts for _title, texts in shown), strict=True)]

    def onRow(self, row, column) -> None:
        """Centre the slice views on a segment, or on what is doubtful on the slice that was clicked."""
        if self._shown != self._content():  # segments were removed or renamed since: the user shall see that first
            self.show(self._run)
            return
        place = self._run.look_at(row)  # of a sequence, this also goes to the frame
        title = self._shown[0][column]
        if place and title in _doubtfulTitles():
            points = self._run.rows[row][1].get("doubtful_slices_ras", ())
            place = dict(zip(_doubtfulTitles(), points, strict=False)).get(title, place)
        if place:
            slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *place, slicer.vtkMRMLSliceNode.CenteredJumpSlice)

    def onCopy(self) -> None:
        """Put the table onto the clipboard, as spreadsheets take it."""
        header, rows = self._content()
        slicer.app.clipboard().setText("\n".join("\t".join(row) for row in (header, *rows)))

    def onSave(self) -> None:
        """Save the table, in the columns of the command line and of cohorts."""
        from UNetPlusPlusSegmentLib import files  # brings SimpleITK

        volume = self._run.volumeNode.GetName()
        # "4: Chest" is a usual name, and none for a file of Windows
        suggestion = re.sub(r'[\\/:*?"<>|]', "_", f"{volume}.csv")
        path = qt.QFileDialog.getSaveFileName(
            self._parent, _("Save measurements"), suggestion, _("CSV table") + " (*.csv)"
        )
        if path:
            try:
                files.write_report(path if path.lower().endswith(".csv") else f"{path}.csv", self._run.table, COLUMNS)
            except ValueError as error:
                slicer.util.errorDisplay(str(error))


def _columns() -> list:
    """Titles of the columns, each with a function from the measurements of a segment to its text, "" if they lack it."""
    sides = {
        "inferior": _("inferior"), "superior": _("superior"), "anterior": _("anterior"), "posterior": _("posterior"),
        "right": _("right"), "left": _("left"),
    }  # fmt: skip
    types = {"solid": _("solid"), "part-solid": _("part-solid"), "ground-glass": _("ground-glass")}

    def number(value, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    def volume(found) -> str:
        return number(found["volume_ml"], 1 if found["volume_ml"] >= 10 or not found["volume_ml"] else 2)

    def axes(found) -> str:
        return f"{found['long_axis_mm']:.1f} × {found['short_axis_mm']:.1f}" if "long_axis_mm" in found else ""

    def expected(found) -> str:
        if "expected_dice" not in found:
            return ""
        return "{expected_dice:.2f} ({expected_dice_low:.2f}–{expected_dice_high:.2f})".format(**found)

    def doubtful(number: int):
        def text(found) -> str:
            points = found.get("doubtful_slices_ras", ())
            return f"S {points[number][2]:.0f}" if number < len(points) else ""

        return text

    return [
        (_("Volume (ml)"), volume),
        (_("Mean HU"), lambda found: number(found["mean_hu"], 0)),
        (_("Axes (mm)"), axes),
        (_("Diameter (mm)"), lambda found: number(found.get("mean_diameter_mm"), 1)),
        (_("Type"), lambda found: types.get(found.get("kind"), "")),
        (_("Expected Dice"), expected),
        (
            _("Doubtful (%)"),
            lambda found: number(100 * found["doubtful_share"], 0) if "doubtful_share" in found else "",
        ),
        (_("Cut by the scan"), lambda found: ", ".join(sides[each] for each in found.get("cut_by_scan", ()))),
        *((title, doubtful(n)) for n, title in enumerate(_doubtfulTitles())),
    ]


def _doubtfulTitles() -> list:
    """Titles of the columns with the most doubtful slices, the worst first; a click on a cell goes there."""
    return [_("Check 1 (mm)"), _("Check 2 (mm)"), _("Check 3 (mm)")]
