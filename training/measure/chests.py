"""The search for nodules in whole chests: sensitivity against false findings per scan (FROC), and the seconds of each phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from UNetPlusPlusSegmentLib.core.agreement import dice
from UNetPlusPlusSegmentLib.core.masks import components
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.files import FileError, read_volume
from UNetPlusPlusSegmentLib.network.bundle import Bundle
from UNetPlusPlusSegmentLib.nodule.engine import NoduleEngine

RATES = (0.25, 0.5, 1, 2, 4, 8)  # false findings per scan, as in LUNA16's score but without the smallest rate
READERS = 3  # readers who must have marked a nodule for it to count
LEAST_MM = 4.0  # smallest mean diameter of a finding that counts as false
NOBODY = -1  # in place of a number of readers: nobody was asked about this voxel


@dataclass(frozen=True)
class Chest:
    """A chest CT, and what is known about its nodules.

    Attributes:
        image: File of the CT.
        readers: File with the number of readers who marked each voxel; empty: the scan has no marks.
        stands_for: Number of readers that a value of 1 in that file stands for.
        unasked: Voxels (K, J, I) about which nobody was asked: findings there are neither right nor wrong.
        fitted: True if the decision was fitted on this scan, which then says nothing about new scans.
    """

    image: str
    readers: str = ""
    stands_for: int = 1
    unasked: tuple[slice, ...] | None = None
    fitted: bool = False

    @property
    def patient(self) -> str:
        """Whose it is; the crops of `nodule` name the patient in the same way."""
        return self.image.partition("_")[0]


CHESTS = (
    Chest("LIDC-IDRI-0001_lungs_ct.nii.gz", "LIDC-IDRI-0001_lungs_readers.nii.gz"),
    Chest("LIDC-IDRI-0314_lungs_ct.nii.gz", "LIDC-IDRI-0314_lungs_readers.nii.gz", fitted=True),
    Chest("chest_clean_ct.nrrd", unasked=np.s_[19:34, 220:266, 338:381]),  # around its lesion
    Chest("chest_lesion_ct.nrrd", "chest_lesion_label.nrrd", stands_for=READERS),
)


@dataclass(frozen=True)
class Finding:
    """A segment of the result.

    `nodule` is the number of the nodule that it shows, 0 if it shows none, None if it is neither right nor wrong.
    """

    name: str
    probability: float
    mean_mm: float
    centroid_ras: tuple[float, float, float]
    nodule: int | None

    @property
    def is_false(self) -> bool:
        """True if nobody marked anything there, and it is at least `LEAST_MM` large."""
        return self.nodule == 0 and self.mean_mm >= LEAST_MM

    def __str__(self) -> str:
        place = ", ".join(f"{x:.0f}" for x in self.centroid_ras)
        return f"{self.name}: {self.mean_mm:.1f} mm at ({place}), {self.probability:.2f}"


def check_folder(folder: Path) -> None:
    """Check that a folder has all chests, before time is spent.

    Raises:
        FileError: One is missing.
    """
    missing = [
        name for chest in CHESTS for name in (chest.image, chest.readers) if name and not (folder / name).is_file()
    ]
    if missing:
        raise FileError(f"{folder} lacks {', '.join(missing)}: give the folder of the whole CTs.")


def measure(bundle: Bundle, folder: Path, speed: str = "balanced", device: str = "auto") -> dict:
    """Figures of a nodule model on the chests of a folder.

    Returns:
        `froc`, the sensitivity by false findings per scan, and `default`, what a user gets: both without the chest on which the
        decision was fitted. `chests` has, for each chest, the numbers of nodules and of those found, the false findings, and the
        seconds of each phase.
    """
    check_folder(folder)
    engine, request = NoduleEngine(bundle, device), Request(bundle.target, speed=speed)
    figures: dict[str, dict] = {}
    every: list[list[Finding]] = []
    nodules = found = false = 0
    for chest in CHESTS:
        volume, _ = read_volume(folder / chest.image)
        readers = readers_of(chest, folder, volume.array.shape)
        maps = engine.predict(volume, request)
        result = maps.at()
        shown, marked = findings(result, readers), nodules_of(readers)
        wrong = [finding for finding in shown if finding.is_false]
        figures[chest.image] = {
            "nodules": int(marked.max()),
            "found": len({finding.nodule for finding in shown if finding.nodule}),
            f"false of {LEAST_MM:g} mm and more": [*map(str, wrong)],
            "dice": [_best_dice(result, marked == n, readers) for n in range(1, marked.max() + 1)],
            "segments": len(shown),
            "seconds": {phase: round(seconds, 2) for phase, seconds in maps.phases.items()},
            "fitted": chest.fitted,
        }
        if not chest.fitted:
            every.append(findings(maps.at(show_from=0.0), readers))
            nodules, false = nodules + int(marked.max()), false + len(wrong)
            found += figures[chest.image]["found"]
    return {
        "command": f"python training/evaluate.py <bundle> --volumes <volumes> --chests --speed {speed}",
        "froc": froc(every, nodules),
        "default": {"found": found, "nodules": nodules, "false per scan": round(false / len(every), 2)},
        "chests": figures,
    }


def readers_of(chest: Chest, folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    """int8 (K, J, I): how many readers marked a voxel; `NOBODY` where nobody was asked."""
    readers = np.zeros(shape, np.int8)
    if chest.readers:
        readers[:] = read_volume(folder / chest.readers)[0].array
        readers *= np.int8(chest.stands_for)
    if chest.unasked:
        readers[chest.unasked] = NOBODY
    return readers


def nodules_of(readers: np.ndarray) -> np.ndarray:
    """The number of the nodule, from 1, at each voxel (K, J, I) that a reader marked; 0 elsewhere.

    A nodule is a connected marked region in which at least one voxel was marked by `READERS` readers or more.
    """
    marked = components(readers > 0, corners=True)
    agreed = np.unique(marked[readers >= READERS])
    return np.searchsorted(agreed, marked, side="right") * np.isin(marked, agreed)


def findings(result: Result, readers: np.ndarray) -> list[Finding]:
    """The segments of a result, each with the nodule with which it shares the most voxels."""
    nodules, found = nodules_of(readers), []
    for segment in result.segments:
        mask, measured = result.labelmap == segment.value, segment.measurements
        shared = np.bincount(nodules[mask])
        shown = int(shared[1:].argmax()) + 1 if shared[1:].any() else None if readers[mask].any() else 0
        found.append(
            Finding(
                segment.name, measured["probability"], measured["mean_diameter_mm"], measured["centroid_ras"], shown
            )
        )
    return found


def froc(scans: Sequence[Sequence[Finding]], nodules: int) -> dict[str, float]:
    """Sensitivity by false findings per scan: the largest share of nodules that is found with at most that many."""
    curve = dict.fromkeys(map(str, RATES), 0.0)
    false, seen = 0, set()
    for finding, scan in sorted(
        ((f, n) for n, each in enumerate(scans) for f in each), key=lambda pair: -pair[0].probability
    ):
        false += finding.is_false
        if finding.nodule:
            seen.add((scan, finding.nodule))
        curve |= {str(rate): round(len(seen) / nodules, 3) for rate in RATES if false <= rate * len(scans)}
    return curve


def as_table(figures: dict) -> str:
    """The figures as lines of text."""
    default = figures["default"]
    lines = [
        "sensitivity by false findings per scan: "
        + ", ".join(f"{rate}: {share}" for rate, share in figures["froc"].items()),
        f"by default: {default['found']} of {default['nodules']} nodules, {default['false per scan']} false per scan",
    ]
    for name, each in figures["chests"].items():
        seconds = ", ".join(f"{phase} {s:g} s" for phase, s in each["seconds"].items())
        wrong = each[f"false of {LEAST_MM:g} mm and more"]
        fitted = " (the decision was fitted on it)" if each["fitted"] else ""
        dices = ", ".join(map(str, each["dice"])) or "-"
        lines.append(
            f"{name}{fitted}: {each['found']} of {each['nodules']}, Dice {dices}, {len(wrong)} false; {seconds}"
        )
        lines += [f"    {finding}" for finding in wrong]
    return "\n".join(lines)


def _best_dice(result: Result, nodule: np.ndarray, readers: np.ndarray) -> float:
    """The highest Dice of any segment with a nodule, as marked by at least half of the readers."""
    truth = nodule & (readers >= 2)
    return round(max((float(dice(result.labelmap == s.value, truth)) for s in result.segments), default=0.0), 3)
