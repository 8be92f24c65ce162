"""Writes target.yaml, the description of the target that train.py needs: names, colours, terms, sources."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from slicefolder import PrepareError, SliceFolder
from UNetPlusPlusSegmentLib.files.segmentations import Stored

DEFAULT_WINDOW_HU = (-160.0, 240.0)  # soft tissue
HU_16_BIT = (-1024.0, 64511.0)  # HU of stored 0 and 65535: a stored value is HU + 1024
LEAST_PIXEL_MM = 1.5  # of the network, unless --pixel is given: for most organs finer pixels cost more than they help
TISSUE = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^85756007^Tissue~SCT^85756007^Tissue~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
UNSAID = "SCT^85756007^Tissue~SCT^85756007^Tissue"  # Slicer's default for a segment without a term
COLORS = [(230, 85, 65), (80, 170, 90), (70, 130, 230), (240, 190, 60), (170, 95, 200), (60, 190, 200), (235, 130, 180)]
OPTIONS = {"source": "name", "licence": "licence", "citation": "citation"}
BEFORE = "target.yaml.before"
SHIPPED = Path(__file__).resolve().parents[1] / "targets"

HEAD = (
    "# Made by training/prepare/pairs.py. Every key can be changed; training/README.md explains them under Targets.\n"
)
HU = "# The slices hold all HU: choose any window_hu for the network. Keep that under slices, which says how they are stored.\n"
PIECE = "# For an organ in one piece:\n# postprocessing: {largest_component: true, fill_holes: true}\n"


@dataclass(frozen=True)
class Described:
    """A label with the term and colour of the segment that was drawn or, if that has none, of a shipped target with that label."""

    name: str
    drawn: Stored | None
    number: int  # its position among the labels
    made_of: tuple[str, ...]  # the structures in the masks that it combines

    @cached_property
    def terminology(self) -> str:
        """The seven parts of a Slicer terminology entry, joined by ~."""
        said = self.drawn.terminology if self.drawn else ""
        is_whole = said.count("~") == 6 and said.count("^") >= 4 and UNSAID not in said
        return said if is_whole else _known().get(_plain(self.name), (TISSUE, ()))[0]

    @cached_property
    def color(self) -> tuple[int, int, int]:
        """Red, green and blue, 0…255."""
        if self.drawn and self.drawn.color:
            return self.drawn.color
        return _known().get(_plain(self.name), ("", COLORS[self.number % len(COLORS)]))[1]


def write_target(
    folder: SliceFolder,
    labels: Sequence[Described],
    structures: Sequence[str],
    given: argparse.Namespace,
    about: Mapping[str, Any],
) -> None:
    """Write target.yaml into a folder that is being made.

    If the folder that is replaced has one about the same labels, that stays with all that was edited in it, save what the command
    line says. Where another takes its place, the earlier one is kept beside it. Notes tell what stays and what does not.

    Args:
        folder: The folder with all its slices.
        labels: The labels.
        structures: The names of what is marked in the masks, in the order of its values.
        given: The command line.
        about: dataset.json of the source, which may give name, licence and reference.
    """
    made = _made(folder, labels, structures, given, about)
    earlier = folder.path / "target.yaml"
    before = _read(earlier)
    target = _kept(before, made, given) or made
    if target == before:
        shutil.copyfile(earlier, folder.file("target.yaml"))  # with its comments
    else:
        _write(folder, target, given)
        if earlier.exists():
            shutil.copyfile(earlier, folder.file(BEFORE))
            folder.note(
                f"target.yaml follows the command line in {_differing(target, before)}: the earlier file is kept as {BEFORE}."
            )
    if target != made:
        folder.note(
            f"target.yaml keeps {_differing(target, made)} from before: to have it made anew, delete it and prepare again."
        )
    _note_lacking(folder, target["slices"]["sources"][0])


def _note_lacking(folder: SliceFolder, source: Mapping[str, Any]) -> None:
    lacking = [f"--{option}" for option, key in OPTIONS.items() if not str(source.get(key) or "").strip()]
    if lacking:
        folder.note(
            f"target.yaml is incomplete: give {', '.join(lacking)} too, or fill it in by hand. Until then train.py refuses it."
        )


def _write(folder: SliceFolder, target: Mapping[str, Any], given: argparse.Namespace) -> None:
    text = yaml.safe_dump(target, sort_keys=False, allow_unicode=True, width=140, default_flow_style=None)
    head = HEAD + HU * (not given.window) + PIECE * ("postprocessing" not in target)
    folder.file("target.yaml").write_text(head + text, encoding="utf-8")


def _made(
    folder: SliceFolder,
    labels: Sequence[Described],
    structures: Sequence[str],
    given: argparse.Namespace,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The target as the command line and the slices describe it; the arguments are those of `write_target`."""
    source = {**_told(about), **_said(given)}
    window_hu = [float(hu) for hu in given.window or DEFAULT_WINDOW_HU]
    names = [label.name for label in labels]
    return {
        "name": given.name or _word(names[0] if len(names) == 1 else folder.path.resolve().name),
        "pixel_mm": given.pixel or max(LEAST_PIXEL_MM, _usual_pixel_mm(folder)),
        "labels": _labels(labels),
        **_priority(labels),
        "window_hu": window_hu,
        "slices": {
            # A list of its own, not a YAML alias of the other.
            "window_hu": list(window_hu if given.window else HU_16_BIT),
            "structures": {name: [value] for value, name in enumerate(structures, 1)},
            "pixel_mm": {"column": "pixel_mm"},
            "sources": [source],
        },
        "licence": source["licence"],
        "intended_use": f"Research: outlining {_in_words(names)} in axial CT. Not for diagnosis or treatment.",
        "limits": [
            "How well it does on scans of other hospitals is not known.",
            "Each slice is segmented by itself; neighbouring slices are not looked at.",
        ],
    }


def _read(path: Path) -> dict[str, Any]:
    """The keys of a YAML file; none if there is no such file, or it cannot be read."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _kept(before: dict[str, Any], made: dict[str, Any], given: argparse.Namespace) -> dict[str, Any] | None:
    """The earlier target, with what the command line says and how the slices are stored; None if it is about other labels."""
    said = {"name": given.name, "pixel_mm": given.pixel, "window_hu": given.window, "licence": given.licence}
    try:
        if _learned(before) != _learned(made):
            return None
        first, *others = before["slices"]["sources"]
        sources = [{**first, **_said(given)}, *others]
        slices = {**before["slices"], "window_hu": made["slices"]["window_hu"], "sources": sources}
    except (KeyError, TypeError, ValueError):  # it was edited into something that is no target
        return None
    return {**before, **{key: made[key] for key, value in said.items() if value}, "slices": slices}


def _learned(target: dict[str, Any]) -> tuple[Any, ...]:
    """What is marked in the slices, and the labels made of it."""
    return target["slices"]["structures"], [(label["name"], label["made_of"]) for label in target["labels"]]


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The keys whose values differ, in words."""
    return ", ".join(str(key) for key in {**one, **other} if one.get(key) != other.get(key))


def _usual_pixel_mm(folder: SliceFolder) -> float:
    sizes = sorted(float(str(row["pixel_mm"])) for row in folder.rows)
    return round(sizes[len(sizes) // 2], 2)


def _told(about: Mapping[str, Any]) -> dict[str, str]:
    """Name, licence and citation of the data according to dataset.json; empty where it gives none."""
    licence = about.get("licence") or about.get("license")
    told = {"name": about.get("name"), "licence": licence, "citation": about.get("reference")}
    return {key: str(value or "") for key, value in told.items()}


def _said(given: argparse.Namespace) -> dict[str, str]:
    """Which of these the command line gives."""
    said = {"name": given.source_name, "licence": given.licence, "citation": given.citation}
    return {key: value for key, value in said.items() if value}


def _labels(labels: Sequence[Described]) -> list[dict[str, Any]]:
    return [
        {
            "name": label.name,
            "terminology": label.terminology,
            "color": list(label.color),
            "made_of": list(label.made_of),
        }
        for label in labels
    ]


def _priority(labels: Sequence[Described]) -> dict[str, list[str]]:
    """If labels share structures, the one made of fewer wins, such as a tumour over the whole liver."""
    if len({name for label in labels for name in label.made_of}) == sum(len(label.made_of) for label in labels):
        return {}
    return {"priority": [label.name for label in sorted(labels, key=lambda label: len(label.made_of))]}


def check_name(name: str) -> None:
    """Check the name of a target.

    Raises:
        PrepareError: It is not one word of lower-case letters and digits.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise PrepareError(f"--name {name!r} must be one word of lower-case letters and digits.")


@cache
def _known() -> dict[str, tuple[str, tuple[int, int, int]]]:
    """Terminology and colour of the labels of all shipped targets, by name."""
    known = {}
    for path in sorted(SHIPPED.glob("*.yaml")):
        for label in yaml.safe_load(path.read_text(encoding="utf-8"))["labels"]:
            red, green, blue = label["color"]
            known[_plain(label["name"])] = (label["terminology"], (red, green, blue))
    return known


def _plain(name: str) -> str:
    return " ".join(sorted(re.split(r"[\s_-]+", name.casefold())))  # kidney_right is Right kidney


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-") or "organ"


def _in_words(names: Sequence[str]) -> str:
    words = [f"the {name}" if name.isupper() else f"the {name[0].lower()}{name[1:]}" for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
