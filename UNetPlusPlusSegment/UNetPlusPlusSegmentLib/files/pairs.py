"""Pairs of an image and its segmentation, in the layouts of Slicer, nnU-Net, Decathlon, TotalSegmentator, KiTS and DICOM archives."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.segment import plain_name
from .dicom_folder import headers_in
from .dicom_headers import SEGMENTATION_CLASSES, class_of
from .dicom_seg_reading import series_of_dicom_seg
from .images import FileError
from .reading import case_name, volume_ending
from .segmentations import Stored, is_segmentation, segments_in

LAYOUTS = (
    "case.nrrd with case.seg.nrrd; imagesTr with labelsTr; folders with ct.nii.gz and segmentations/*.nii.gz, or with"
    " imaging.nii.gz and segmentation.nii.gz; DICOM series with DICOM SEG"
)


@dataclass(frozen=True)
class Pair:
    """An image and its segments.

    Attributes:
        name: Name of the case, usable as a file name.
        image: A file, or a folder of DICOM files.
        series: The series in the folder that the segmentation refers to.
        person: The same for all images of a person, as far as DICOM headers tell; otherwise the name. Never show it.
    """

    name: str
    image: Path
    segments: tuple[Stored, ...]
    series: str | None = None
    person: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """A label, and the names of the segments that it combines (or their values, if they have no names)."""

    name: str
    parts: tuple[str, ...]

    def of(self, pair: Pair) -> list[Stored]:
        """The segments of a pair that the label combines; empty if one of them is missing.

        Nothing is missing in a label map without names: a value that no voxel has marks nothing.

        Raises:
            FileError: The pair has two segments of the same name.
        """
        found = [segments_called(part, pair.segments) or _unused(part, pair.segments) for part in self.parts]
        if any(len(same) > 1 for same in found):
            raise FileError(f"{pair.name} has two segments called {self.name}: rename or remove one of them.")
        return [same[0] for same in found] if all(found) else []


def read_wanted(text: str) -> Wanted:
    """A label from `Spleen`, `Spleen=1` or `Liver=liver+tumour`.

    Raises:
        FileError: A name is missing.
    """
    name, equals, parts = (part.strip() for part in text.partition("="))
    made_of = tuple(part.strip() for part in parts.split("+")) if equals else (name,)
    if not name or not all(made_of):
        raise FileError(
            f"--segment {text!r} must be a name, such as Spleen, or a name and the segments that it combines, such as Liver=liver+tumour."
        )
    return Wanted(name, made_of)


@dataclass
class Pairs:
    """The pairs in a folder.

    Attributes:
        found: The pairs.
        refused: A sentence for each file that has no partner or cannot be read.
        about: The content of dataset.json, if there is one.
    """

    found: list[Pair] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)


def find_pairs(folder: str | Path) -> Pairs:
    """Find all pairs in a folder and its subfolders; hidden files and folders without segmentations are skipped.

    Raises:
        FileError: There is no pair, or two pairs would have the same name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder} is not a folder: give the one that contains images and their segmentations.")
    pairs = Pairs()
    _look_into(folder, folder, pairs, set())
    _find_dicom(folder, pairs)
    if not pairs.found and not pairs.refused:
        raise FileError(f"{folder} contains no pairs of images and segmentations. Supported layouts: {LAYOUTS}.")
    names: dict[str, Path] = {}
    for pair in pairs.found:
        if names.setdefault(pair.name, pair.image) != pair.image:
            raise FileError(
                f"{names[pair.name]} and {pair.image} would both be called {pair.name}: rename one of them."
            )
    pairs.found.sort(key=lambda pair: pair.name)
    return pairs


def segments_called(name: str, segments: Sequence[Stored]) -> list[Stored]:
    """The segments with this name or, if there is none, those whose name differs only in case, spaces, hyphens or underscores."""
    exact = [each for each in segments if each.name == name]
    return exact or [each for each in segments if plain_name(each.name) == plain_name(name)]


def unknown_parts(wanted: Wanted, pairs: Pairs) -> list[str]:
    """The parts of a label that no pair has."""
    return [part for part in wanted.parts if not any(segments_called(part, pair.segments) for pair in pairs.found)]


def _unused(value: str, segments: Sequence[Stored]) -> list[Stored]:
    """The segment of a value that no voxel of a label map without names has; empty for other files and names."""
    nameless = bool(segments) and all(each.values and each.name == str(each.values[0]) for each in segments)
    return [Stored(segments[0].path, value, (int(value),))] if nameless and value.isdecimal() else []


def names_in_words(segments: Iterable[Stored]) -> str:
    """The names of segments, each once."""
    return ", ".join(sorted({segment.name for segment in segments})) or "none"


def _look_into(folder: Path, root: Path, pairs: Pairs, seen: set[Path]) -> None:
    if folder.resolve() in seen:  # a link to it: the same person would be there twice, in two splits perhaps
        return
    seen.add(folder.resolve())
    images, labels, masks = folder / "imagesTr", folder / "labelsTr", folder / "segmentations"
    if images.is_dir() and labels.is_dir():
        _add_numbered(images, labels, folder / "dataset.json", pairs)
        return
    volumes = _volumes(folder)
    drawn = list(filter(is_segmentation, volumes))
    scans = [path for path in volumes if path not in drawn]
    if masks.is_dir() and not drawn:
        _add_folder_of_masks(folder, scans, masks, root, pairs)
        return
    inner = [path for path in _shown(folder) if path.is_dir()]
    if drawn:
        scans += [path for path in inner if _called_after(path, drawn) and _holds_images(path)]
        _add_side_by_side(scans or [folder], drawn, folder, root, pairs)
    for path in inner:
        _look_into(path, root, pairs, seen)


def _add_numbered(images: Path, labels: Path, dataset: Path, pairs: Pairs) -> None:
    """nnU-Net and the Decathlon: files of the same name in two folders; dataset.json names the values."""
    about = _dataset(dataset)
    pairs.about = pairs.about or about
    scans = {re.sub(r"_0000$", "", case_name(path)): path for path in _volumes(images)}
    masks = {case_name(path): path for path in _volumes(labels)}
    for stem in sorted(scans.keys() ^ masks.keys()):
        path, lacking = (scans[stem], labels) if stem in scans else (masks[stem], images)
        pairs.refused.append(f"{path} has no partner in {lacking}: add the partner, or remove the file.")
    for stem in sorted(scans.keys() & masks.keys()):
        named = [Stored(masks[stem], name, values) for name, values in _labels(about)]
        _add(pairs, stem, scans[stem], masks[stem], named)


def _dataset(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read ({error}): correct or remove it.") from error
    return about if isinstance(about, dict) else {}


def _labels(about: Mapping[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    """Names and values, from `{"spleen": 1}` of nnU-Net (a region has several values) or `{"1": "spleen"}` of the Decathlon."""
    found, labels = [], about.get("labels") or {}
    if not isinstance(labels, Mapping):
        raise FileError('The labels in dataset.json must be names with values, such as {"spleen": 1}: correct it.')
    for key, value in labels.items():
        name, numbers = (str(value), key) if str(key).isdigit() else (str(key), value)
        try:
            values = tuple(int(number) for number in (numbers if isinstance(numbers, list) else [numbers]))
        except (TypeError, ValueError) as error:
            raise FileError(
                f"The value of the label {name} in dataset.json is not a number ({numbers!r}): correct it."
            ) from error
        if values != (0,):
            found.append((name, values))
    return found


def _add_folder_of_masks(folder: Path, scans: Sequence[Path], masks: Path, root: Path, pairs: Pairs) -> None:
    """TotalSegmentator: an image, and a folder with a mask for each organ."""
    if len(scans) != 1:
        pairs.refused.append(f"{folder} contains {len(scans)} images next to {masks.name}: keep exactly one.")
        return
    segments = [Stored(path, case_name(path)) for path in _volumes(masks)]
    _add(pairs, _name_of(folder, root), scans[0], masks, segments)


def _add_side_by_side(scans: Sequence[Path], drawn: Sequence[Path], folder: Path, root: Path, pairs: Pairs) -> None:
    """Slicer, KiTS: a segmentation next to the image that it is named after, or to the only image. DICOM folders count as images."""
    of_scan: dict[Path, list[Path]] = defaultdict(list)
    for path in drawn:
        near = [scan for scan in scans if _called_after(scan, [path])] or (scans if len(scans) == 1 else [])
        if near:
            of_scan[max(near, key=lambda scan: len(case_name(scan)))].append(path)
        else:
            pairs.refused.append(
                f"{path} does not begin with the name of an image in its folder: rename it after its image."
            )
    for scan in scans:
        if scan in of_scan:
            alone = len(scans) == 1 and folder != root
            _add_drawn(pairs, _name_of(folder, root) if alone else case_name(scan), scan, of_scan[scan])
        else:
            pairs.refused.append(
                f"{scan} has no segmentation next to it: add {case_name(scan)}.seg.nrrd, or remove the image."
            )


def _add_drawn(pairs: Pairs, name: str, scan: Path, drawn: Sequence[Path]) -> None:
    try:
        segments = [segment for path in drawn for segment in segments_in(path)]
        person = headers_in(scan)[0][0].patient if scan.is_dir() else ()
    except FileError as error:
        pairs.refused.append(str(error))
        return
    _add(pairs, name, scan, drawn[0], segments, person=person)


def _called_after(scan: Path, drawn: Sequence[Path]) -> bool:
    """True if the name of a segmentation begins with the name of the image, as a whole word."""
    return any(re.match(rf"{re.escape(case_name(scan))}(?![a-z0-9])", path.name, re.IGNORECASE) for path in drawn)


def _find_dicom(root: Path, pairs: Pairs) -> None:
    """DICOM archives: a DICOM SEG in the folder of its series, or in a subfolder."""
    at: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        try:
            if path.is_file() and not volume_ending(path) and class_of(path) in SEGMENTATION_CLASSES:
                folder = next((p for p in path.parents if _holds_images(p) or p == root), root)
                at[folder, series_of_dicom_seg(path)].append(path)
        except FileError as error:
            pairs.refused.append(str(error))
    folders = [folder for folder, _ in at]
    for (folder, series), files in at.items():
        name = _name_of(folder, root) + f"_{series.rpartition('.')[2]}" * (folders.count(folder) > 1)
        _add_series(pairs, name, folder, series, files)


def _add_series(pairs: Pairs, name: str, folder: Path, series: str, files: Sequence[Path]) -> None:
    try:
        segments = [segment for path in files for segment in segments_in(path)]
        person = next((header.patient for header in headers_in(folder)[0] if header.series == series), None)
    except FileError as error:
        pairs.refused.append(str(error))
        return
    if person is None:
        pairs.refused.append(f"{files[0]} refers to the series {series}, which is not in {folder}: add the series.")
    else:
        _add(pairs, name, folder, files[0], segments, series, person)


def _holds_images(folder: Path) -> bool:
    """True if the folder or a subfolder contains a DICOM file that is not a segmentation."""
    classes = (class_of(path) for path in folder.rglob("*") if path.is_file() and not volume_ending(path))
    return any(each not in ("", *SEGMENTATION_CLASSES) for each in classes)


def _add(
    pairs: Pairs,
    name: str,
    image: Path,
    mask: Path,
    segments: Sequence[Stored],
    series: str | None = None,
    person: tuple[str, ...] = (),
) -> None:
    name = re.sub(r"[^\w.-]+", "_", name)
    try:
        pairs.found.append(Pair(name, image, tuple(segments or segments_in(mask)), series, person or (name,)))
    except FileError as error:
        pairs.refused.append(str(error))


def _volumes(folder: Path) -> list[Path]:
    return [path for path in _shown(folder) if volume_ending(path) and path.is_file()]


def _shown(folder: Path) -> list[Path]:
    """The content of a folder without hidden files, such as `._case.nii.gz` of macOS."""
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _name_of(folder: Path, root: Path) -> str:
    """The path of a folder from the root, joined by underscores."""
    return "_".join(folder.relative_to(root).parts) or folder.resolve().name
