"""Small made-up slice folders, for tests of what a training accepts, draws and refuses."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = (
    "file", "volume", "patient", "split", "source_pixel_mm", "source_slice_mm", "nodule", "slice", "pixel_mm", "left_marked",
    "white_marked",
)  # fmt: skip


def liver_folder(folder: Path, patients: dict[str, str], slices: int = 4, size: int = 40) -> Path:
    """A folder like that of the liver: a bright disc in grey noise on every other slice; `patients` maps names to splits."""
    draw = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = []
    y, x = np.ogrid[:size, :size]
    for volume, (patient, split) in enumerate(patients.items()):
        for number in range(slices):
            centre = draw.uniform(0.35, 0.65, 2) * size
            mask = (np.hypot(y - centre[0], x - centre[1]) < size / 4) & (number % 2 == 0)
            image = np.where(mask, 180, 60) + draw.integers(-20, 20, (size, size))
            image[: size // 8] = 0
            name = f"{patient}_{number}.png"
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / name)
            Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / name)
            of_scan = {"volume": f"lits{volume:03}", "slice": number, "patient": patient, "split": split}
            rows.append({"file": name, **of_scan, "source_pixel_mm": "1.0"})
    write_table(folder, rows)
    return folder


def nodule_folder(folder: Path, patients: dict[str, str], slices: int = 3, size: int = 128) -> Path:
    """A folder like that of the nodules: a dense disc in lung, of which four readers mark the middle and one reader the rim."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = []
    radius = np.hypot(*(np.indices((size, size)) - (size - 1) / 2))
    for patient, split in patients.items():
        for number in range(slices):
            name = f"{patient}_n0_s{number:03}.png"
            image = np.where(radius < 9, 180, 30)
            Image.fromarray(image.astype(np.uint8)).save(folder / "images" / name)
            counts = np.select([radius < 8, radius < 9, radius < 10], [4, 2, 1])
            Image.fromarray(counts.astype(np.uint8)).save(folder / "masks" / name)
            rows.append(
                {"file": name, "patient": patient, "split": split, "nodule": "0", "slice": number, "pixel_mm": "0.7"}
            )
    write_table(folder, rows)
    return folder


def write_table(folder: Path, rows: list[dict]) -> None:
    with (folder / "slices.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [c for c in COLUMNS if c in rows[0]], extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)


def read_table(folder: Path) -> list[dict]:
    with (folder / "slices.csv").open(newline="") as file:
        return list(csv.DictReader(file))
