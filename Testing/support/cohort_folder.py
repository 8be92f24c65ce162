"""A made-up folder of a cohort's results, with any number of cases, some of them unusual."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SCRIPT = "<script>alert(1)<!--\"'&"  # a name that some file system allows
CAPTIONS = ["S -120 mm", "S -80 mm, most doubtful", "S -40 mm"]


def picture() -> bytes:
    """A small JPEG."""
    grey = np.add.outer(np.arange(100), np.arange(400)) % 256
    image = sitk.GetImageFromArray(np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2), isVector=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jpg"
        sitk.WriteImage(image, str(path), True, compressionLevel=80)
        return path.read_bytes()


def case(number: int) -> dict:
    """The manifest line of a case. Cases with higher numbers are more doubtful; every tenth one failed."""
    name = SCRIPT if number == 1 else f"case{number:04d}"
    about = {
        "case": name, "input": f"/data/{name}.nii.gz", "series": None, "target": "liver", "model": "liver-ct-v1.0.0",
        "speed": "balanced", "threshold": 0.5, "force": False, "version": "0.2.0", "seconds": 48.1234,
    }  # fmt: skip
    if number % 10 == 9:
        return {**about, "status": "failed", "reason": f"The file {name} <b>is</b> damaged."}
    dice = 0.99 - 0.4 * number / 1000
    liver = {
        "volume_ml": 4000.1234 if number == 3 else 1500.1234 + 100 * np.sin(number), "mean_hu": 104.4, "sd_hu": 20.2,
        "extent_ras": [200.0, 150.0, 170.0], "expected_dice": dice, "expected_dice_low": dice - 0.05,
        "expected_dice_high": dice + 0.01,
    }  # fmt: skip
    notes = [f"There is only one slice; it is assumed to be {number} mm thick."] if number % 4 == 2 else []
    return {
        **about, "status": "done", "measurements": {"Liver": liver}, "notes": notes, "device": "cpu",
        "picture": CAPTIONS,
    }  # fmt: skip


def make_cohort(folder: Path, count: int, line: Callable[[int], Mapping] = case) -> Path:
    """Write a manifest with this many cases, and their pictures and empty segmentations."""
    (folder / "pictures").mkdir(parents=True)
    data = picture()
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(count):
            record = line(number)
            stream.write(json.dumps(record) + "\n")
            if record["status"] == "done":
                (folder / "pictures" / f"{record['case']}.jpg").write_bytes(data)
                (folder / f"{record['case']}.seg.nrrd").write_bytes(b"")
    return folder
