"""Draws look.png, the picture to check before training: do the masks lie on the organ, and is anybody mirrored?"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from pairs_target import HU_16_BIT
from slicefolder import SliceFolder, to_8_bit

TILES, COLUMNS, SIDE = 12, 4, 256
TEXT = 14  # height of a line, in pixels
BRIGHT = [(50, 255, 90), (255, 80, 80), (90, 170, 255), (255, 225, 60), (255, 110, 255), (60, 240, 240), (255, 160, 60)]


def draw_look(folder: SliceFolder, window_hu: tuple[float, float]) -> None:
    """Draw up to 12 slices, spread over the cases, with the outlines of their labels, as look.png in the folder.

    Args:
        folder: A folder with all its slices.
        window_hu: HU shown black and white, for 16-bit images; 8-bit images are shown as they are.
    """
    marked = [row for row in folder.rows if row["marked_px"]] or folder.rows
    chosen = [marked[int((n + 0.5) * len(marked) / TILES)] for n in range(TILES)] if len(marked) > TILES else marked
    lines = -(-len(chosen) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE, lines * (SIDE + TEXT)))
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(chosen):
        image, mask = (_picture(folder, part, str(row["file"])) for part in ("images", "masks"))
        grey = to_8_bit(image.astype(np.float32) + HU_16_BIT[0], window_hu) if image.dtype != np.uint8 else image
        left, top = number % COLUMNS * SIDE, number // COLUMNS * (SIDE + TEXT)
        draw.text((left + 2, top + 1), str(row["file"])[-40:], fill=(255, 255, 255))
        sheet.paste(_tile(grey, mask), (left, top + TEXT))
        draw.text((left + 3, top + TEXT + SIDE // 2), "R", fill=(255, 255, 0))
    sheet.save(folder.file("look.png"))


def _picture(folder: SliceFolder, part: str, name: str) -> np.ndarray:
    with Image.open(folder.file(part, name)) as picture:
        return np.asarray(picture)


def _tile(grey: np.ndarray, mask: np.ndarray) -> Image.Image:
    """A slice scaled to fit a square, with its labels outlined."""
    scale = SIDE / max(grey.shape)
    size = tuple(max(1, round(side * scale)) for side in reversed(grey.shape))
    picture = np.array(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB"))
    labels = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    inner = np.pad(labels, 1, mode="edge")
    rim = np.zeros(labels.shape, bool)
    for neighbour in (inner[:-2, 1:-1], inner[2:, 1:-1], inner[1:-1, :-2], inner[1:-1, 2:]):
        rim |= neighbour != labels
    for value in range(1, int(labels.max(initial=0)) + 1):
        picture[rim & (labels == value)] = BRIGHT[(value - 1) % len(BRIGHT)]
    square = Image.new("RGB", (SIDE, SIDE))
    square.paste(Image.fromarray(picture), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return square
