"""The results table of the panel: a row for each segment of a run; it can be sorted, copied and saved."""

import re

import qt
import slicer
from slicer.i18n import tr as _

from UNetPlusPlusSegmentLib.core.table import COLUMNS


class ResultsTable:
    """Shows the measurements of the last run, before any edits; Segment Statistics measures edited segments."""

    def __init__(self, ui, parent) -> None:
        """Connect the table and its buttons.

        Args:
            ui: The panel's widgets by name.
            parent: The parent widget of dialogs.
        """
        self._ui, self._parent = ui, parent
        self._run = self._shown = None
        self._sortedBy, self._isDown = "", False  # title of a column; empty for the order of the run
        self._order = []  # for each row of the table, the row of the run
        ui.resultsTable.connect("cellClicked(int,int)", self.onRow)
        header = ui.resultsTable.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionsClickable(True)
        header.connect("sectionClicked(int)", self.onTitle)
        ui.copyButton.connect("clicked(bool)", self.onCopy)
        ui.saveButton.connect("clicked(bool)", self.onSave)

    def show(self, run) -> None:
        """Show the current result of a run; None empties the table."""
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
        self._showOrder(header)
        self._ui.copyButton.enabled = self._ui.saveButton.enabled = bool(rows)

    def _content(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as text, in the chosen order; columns without any text are left out."""
        found = self._run.rows if self._run else []
        self._order = self._sorted([measured for _name, measured in found])
        found = [found[row] for row in self._order]
        names = [name for name, _measured in found]
        columns = [(title, [text(measured) for _name, measured in found]) for title, text, _key in _columns()]
        shown = [column for column in columns if any(column[1])] or columns[:2]
        header = [_("Segment"), *(title for title, _texts in shown)]
        return header, [list(row) for row in zip(names, *(texts for _title, texts in shown), strict=True)]

    def _sorted(self, found) -> list[int]:
        """The rows of the run in the order of the table; rows without a value in the sort column come last."""
        keys = {title: key for title, _text, key in _columns()}
        rows = range(len(found))
        if self._sortedBy not in keys:
            return [*rows][:: -1 if self._isDown else 1]
        values = [keys[self._sortedBy](measured) for measured in found]
        known = [row for row in rows if values[row] not in (None, "")]
        unknown = [row for row in rows if values[row] in (None, "")]
        return sorted(known, key=lambda row: values[row], reverse=self._isDown) + unknown

    def _showOrder(self, titles) -> None:
        """Show the sort arrow in the title of the sort column; none for the order of the run."""
        header = self._ui.resultsTable.horizontalHeader()
        header.setSortIndicatorShown(self._sortedBy in titles)
        if self._sortedBy in titles:
            order = qt.Qt.DescendingOrder if self._isDown else qt.Qt.AscendingOrder
            header.setSortIndicator(titles.index(self._sortedBy), order)

    def onTitle(self, column) -> None:
        """Sort by a column: the largest numbers first, but the lowest expected Dice, the lowest slice, and texts from A to Z.

        A second click reverses the order.
        """
        header, rows = self._shown
        if not rows:
            return
        title = header[column]
        self._isDown = not self._isDown if title == self._sortedBy else title in _numeric()
        self._sortedBy = title
        self.show(self._run)
        self._showOrder(header)

    def onRow(self, row, column) -> None:
        """Centre the slice views on a segment or, in a Check column, on the doubtful part of that slice."""
        if self._shown != self._content():  # segments were removed or renamed: show that first
            self.show(self._run)
            return
        row = self._order[row]
        place = self._run.look_at(row)  # for a sequence, this also goes to the frame
        title = self._shown[0][column]
        if place and title in _doubtfulTitles():
            points = self._run.rows[row][1].get("doubtful_slices_ras", ())
            place = dict(zip(_doubtfulTitles(), points, strict=False)).get(title, place)
        if place:
            slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *place, slicer.vtkMRMLSliceNode.CenteredJumpSlice)

    def onCopy(self) -> None:
        """Copy the table to the clipboard, for a spreadsheet."""
        header, rows = self._content()
        slicer.app.clipboard().setText("\n".join("\t".join(row) for row in (header, *rows)))

    def onSave(self) -> None:
        """Save the table with the columns of the command line and of cohorts."""
        from UNetPlusPlusSegmentLib import files  # imports SimpleITK

        volume = self._run.volumeNode.GetName()
        # Names such as "4: Chest" are common, but invalid as file names on Windows.
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
    """For each column its title and two functions of a segment's measurements: its text ("" if missing) and its sort key (None if
    missing).
    """
    sides = {
        "inferior": _("inferior"), "superior": _("superior"), "anterior": _("anterior"), "posterior": _("posterior"),
        "right": _("right"), "left": _("left"),
    }  # fmt: skip
    kinds = {"solid": _("solid"), "part-solid": _("part-solid"), "ground-glass": _("ground-glass")}

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
        def place(found):
            points = found.get("doubtful_slices_ras", ())
            return points[number][2] if number < len(points) else None

        def text(found) -> str:
            s_mm = place(found)
            return "" if s_mm is None else f"S {s_mm:.0f}"

        return text, place

    def value(key: str):
        return lambda found: found.get(key)

    def kind(found) -> str:
        return kinds.get(found.get("kind"), "")

    def doubt(found) -> str:
        return number(100 * found["doubtful_share"], 0) if "doubtful_share" in found else ""

    def cut(found) -> str:
        return ", ".join(sides[each] for each in found.get("cut_by_scan") or ())

    return [
        (_("Volume (ml)"), volume, value("volume_ml")),
        (_("Mean HU"), lambda found: number(found["mean_hu"], 0), value("mean_hu")),
        (_("Probability"), lambda found: number(found.get("probability"), 2), value("probability")),
        (_("Axes (mm)"), axes, value("long_axis_mm")),
        (_("Diameter (mm)"), lambda found: number(found.get("mean_diameter_mm"), 1), value("mean_diameter_mm")),
        (_("Kind"), kind, kind),
        (_("Solid part (mm)"), lambda found: number(found.get("solid_long_axis_mm"), 1), value("solid_long_axis_mm")),
        (_("Expected Dice"), expected, value("expected_dice")),
        (_("Doubtful (%)"), doubt, value("doubtful_share")),
        (_("Cut by the scan"), cut, cut),
        *((title, *doubtful(n)) for n, title in enumerate(_doubtfulTitles())),
    ]


def _numeric() -> list:
    """Titles of the columns that are sorted in descending order at first."""
    return [
        _("Volume (ml)"), _("Mean HU"), _("Axes (mm)"), _("Diameter (mm)"), _("Solid part (mm)"), _("Probability"), _("Doubtful (%)"),
    ]  # fmt: skip


def _doubtfulTitles() -> list:
    """Titles of the columns with the most doubtful slices, the worst first; clicking a cell goes to the slice."""
    return [_("Check 1 (mm)"), _("Check 2 (mm)"), _("Check 3 (mm)")]
