"""The results of a cohort: which files belong to a case, whether they show the mask that is asked for, and what stays. No torch."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import files
from ..core.request import Request
from ..core.segment import plain_name
from ..files.images import printable
from .cases import ENDING
from .corrections import CORRECTED, corrected_path
from .manifest import GONE, TABLE, CohortError, append, read_all, read_manifest
from .picture import PICTURES
from .report import REPORT

FORM = ENDING[1:]  # always written
MARK = ".writing"
SHOWN = ("scan", "series")  # what a mask was found in; a case that fails keeps its earlier mask
_log = logging.getLogger(__name__)


class Todo(NamedTuple):
    """A case to run.

    Attributes:
        case: Its name.
        input: File or folder.
        output: Path of the result, without its ending.
        parts: The folder of each model, and the request to it.
        series: As for `run_cohort`.
        forms: The forms of its result.
        settings: What its line in the manifest says before it is run.
    """

    case: str
    input: Path
    output: Path
    parts: tuple[tuple[Path, Request], ...]
    series: str | None = None
    forms: tuple[str, ...] = (FORM,)
    settings: Mapping[str, Any] = {}

    @property
    def outputs(self) -> list[Path]:
        """All files of the result; the one in `FORM` comes first."""
        return _in_forms(self.output, self.forms)

    @property
    def picture(self) -> Path:
        """The picture for the report."""
        return self.output.parent / PICTURES / f"{self.case}.jpg"

    def mark(self) -> None:
        """Say beside each file of the result that it is being written, and with which settings, until the manifest has its line."""
        for path in self.outputs:
            with contextlib.suppress(OSError):  # if nothing can be written here, writing the result says so
                _mark_of(path).write_text(json.dumps(self.settings), encoding="ascii")


def check_scan(folder: Path, case: str) -> None:
    """Refuse to show a result over a scan that has replaced the one it was found in.

    Nothing is known of the scan from lines of earlier versions, nor if it cannot be read: these pass.

    Args:
        folder: Folder with the results of the cohort.
        case: The name of the case.

    Raises:
        CohortError: The scan is another one, or the manifest cannot be read.
    """
    known = read_manifest(folder)
    line = known.get(f"{case}{CORRECTED}") or known.get(case, {})  # that of the file which is shown
    segmented = line.get("scan")
    if segmented and files.fingerprints_differ(segmented, files.fingerprint_of(Path(line["input"]), besides=folder)):
        raise CohortError(f"{line['input']} is no longer the scan that was segmented: run the cohort again.")


class Results:
    """The results in the folder of a cohort, which nobody else writes to meanwhile.

    A file belongs to a case if its last line names it, or if a run was killed while it wrote it. All files of a case show one
    mask: whenever that is made again, all of them are written, in whatever forms the case has.

    Attributes:
        known: The last line of each case and skipped file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.known = read_manifest(folder)
        self._ever = {*read_all(folder)}  # also cases that are gone, whose pictures are still there
        # What a killed run was writing, with its settings, by the name of the file.
        self._marked = {path.name[1 : -len(MARK)]: _settings_in(path) for path in folder.glob(f".*{MARK}")}

    def check_nothing_is_replaced(self, cases: Iterable[Todo]) -> None:
        """Refuse to replace scans, and files that do not belong to this cohort.

        Raises:
            CohortError: A result would replace one.
        """
        cases = list(cases)
        scans = {os.path.realpath(each.input) for each in cases}
        replaced = [path for each in cases for path in each.outputs if os.path.realpath(path) in scans]
        if replaced:
            raise CohortError(
                f"{min(replaced)} is one of the scans, and would be replaced: choose another folder for the results."
            )
        foreign = [path for each in cases for path in each.outputs if not self._has(each.case, path)]
        foreign += [each.picture for each in cases if not self._knows(each)]
        foreign += [self._folder / name for name in (TABLE, REPORT) if not self._ever]
        there = [path for path in foreign if path.is_file()]
        if there:
            raise CohortError(
                f"{min(there)} is not a result of this cohort, and would be replaced: move it, or choose another folder for the"
                " results."
            )

    def check_nothing_was_edited(self, cases: Iterable[Todo]) -> None:
        """Refuse to replace results that were changed since they were written, as by a save in another program.

        Files of earlier versions' lines pass, and those that a killed run was writing.

        Raises:
            CohortError: There is one.
        """
        for each in cases:
            written = self.known.get(each.case, {}).get("prints", {})
            for path in each.outputs:
                if (
                    path.name in written
                    and path.name not in self._marked
                    and files.fingerprints_differ(written[path.name], files.fingerprint_of(path))
                ):
                    raise CohortError(
                        f"{path} was changed since it was written, and would be replaced: move it, or choose another folder for the"
                        " results."
                    )

    def check_corrections(self, cases: Iterable[Todo]) -> None:
        """Refuse corrections of other scans or series than those to be segmented: they would hide what is found in these.

        Raises:
            CohortError: There is one.
        """
        for each in cases:
            path = corrected_path(self._folder, each.case)
            line = self.known.get(path.name.removesuffix(ENDING), {})
            what = ""
            if files.fingerprints_differ(line.get("scan"), each.settings["scan"]):
                what = f"an earlier scan, which {each.input} has replaced"
            elif line.get("series", each.series) != each.series:
                what = f"another series of {each.input}"
            if what:
                raise CohortError(f"{path} corrects {what}: move it, or choose another folder for the results.")

    def in_all_its_forms(self, todo: Todo) -> Todo:
        """A case with the forms that it has been written in, besides those that are asked for now."""
        every = _in_forms(todo.output, files.FORMS)
        there = [path for path in every if self._has(todo.case, path) and path.is_file()]
        return todo._replace(forms=(*todo.forms, *map(files.form_of, there)))

    def is_done(self, todo: Todo, threshold: float | None) -> bool:
        """Check whether a case has its result, by its last line in the manifest.

        Lines of earlier versions lack `scan`, `series`, `show_from` and `weights`, and `threshold` if it was that of the model (here
        `threshold`). A scan counts as the same if it cannot be read, or if its last fingerprint is of an earlier formula.

        Raises:
            CohortError: There is a result for another target or input.
        """
        asked, last = todo.settings, self.known.get(todo.case, {})
        there = [path for path in todo.outputs if path.is_file()]
        for key, same in (("target", _plain_targets), ("input", os.path.realpath)):
            if key in last and same(last[key]) == same(asked[key]):
                last = {**last, key: asked[key]}  # the same, spelled differently
            if there and last.get(key, asked[key]) != asked[key]:
                raise CohortError(
                    f"{there[0]} is a result for {last[key]}, which would be replaced: choose another folder for the results."
                )
        last = {"series": None, "show_from": None, "weights": asked["weights"], **last}
        if not files.fingerprints_differ(asked["scan"], last.get("scan")):
            last["scan"] = asked["scan"]
        if last.get("threshold") is None:
            last["threshold"] = threshold
        if last.get("points") != asked.get("points") or any(self._marked.get(p.name, asked) != asked for p in there):
            return False
        return last.get("status") == "done" and there == todo.outputs and asked.items() <= last.items()

    def add(self, record: dict[str, Any]) -> None:
        """Append a line to the manifest."""
        append(self._folder, record)
        self.known[record["case"]] = record

    def end(self, todo: Todo, outcome: Mapping[str, Any]) -> None:
        """Append the line of a case that has ended, with the names of its files and their fingerprints."""
        there = {path.name: files.fingerprint_of(path) for path in todo.outputs if path.is_file()}
        line = {**todo.settings, **outcome, "files": [*there], "prints": there}
        last, shown = self.known.get(todo.case, {}), todo.outputs[0].name
        written = last.get("prints", {})
        kept = shown in there and shown in written and not files.fingerprints_differ(written[shown], there[shown])
        if outcome["status"] == "failed" and kept:
            line |= {key: last.get(key) for key in SHOWN}
        self.add(line)
        self.unmark(todo)

    def leave_out(self, cases: Mapping[str, Path], skipped: Iterable[Path]) -> None:
        """List no longer what has no result and will never get one: failed cases and skipped files that were removed or renamed.

        Args:
            cases, skipped: What is there now; a file that was skipped may have become a case.
        """
        still, inputs = {*cases, *(path.name for path in skipped)}, {*map(str, cases.values())}
        for name, last in [*self.known.items()]:
            path = Path(last.get("input", ""))
            kept = any((self._folder / file).exists() for file in _files_of(last))  # of an earlier run
            if name in still or last["status"] not in ("failed", "skipped") or kept:
                continue
            if _is_gone(path):
                _log.warning("%s is no longer listed, as there is no %s any more.", name, printable(path))
            elif str(path) not in inputs:
                continue
            append(self._folder, {"case": name, "input": str(path), "status": GONE})
            del self.known[name]

    def unmark(self, todo: Todo) -> None:
        """Remove the marks of a case, whose line says all about its files."""
        for path in _in_forms(todo.output, files.FORMS):
            with contextlib.suppress(OSError):
                _mark_of(path).unlink()

    def _knows(self, todo: Todo) -> bool:
        """Whether a run has ended or begun to write this case."""
        return todo.case in self._ever or any(path.name in self._marked for path in todo.outputs)

    def _has(self, case: str, path: Path) -> bool:
        """Whether a file belongs to a case."""
        return path.name in self._marked or path.name in _files_of(self.known.get(case, {}))


def _plain_targets(targets: str) -> list[str]:
    return [plain_name(each) for each in targets.split(",")]


def _in_forms(output: Path, forms: Iterable[str]) -> list[Path]:
    return files.beside(output.with_name(f"{output.name}{ENDING}"), forms)


def _files_of(record: Mapping[str, Any]) -> Sequence[str]:
    """The names of the files of a case by its last line in the manifest, which may be empty; lines of earlier versions lack them."""
    return record.get("files", [f"{record['case']}{ENDING}"] if record else [])


def _is_gone(path: Path) -> bool:
    """True if a file or folder is certainly not there; False also if its disk does not answer."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _mark_of(output: Path) -> Path:
    return output.with_name(f".{output.name}{MARK}")


def _settings_in(mark: Path) -> Any:
    """The settings in a mark; None if it is damaged."""
    try:
        return json.loads(mark.read_bytes())
    except (OSError, ValueError):
        return None
