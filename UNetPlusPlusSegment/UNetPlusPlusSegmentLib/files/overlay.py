"""The overlay: a PNG of axial slices, or close-ups, with the segments drawn on them. NumPy and SimpleITK only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.masks import boxes, largest_component
from ..core.segment import Segment
from ..core.volume import AIR_HU, AxialOrder, Volume, axial_order, bounding_box, clean_hu, wider
from .images import silence, sitk_name
from .lettering import HEIGHT, letters
from .writing import whole_file

TILES, DOUBTFUL = 5, 3  # number of slices in a row, and of doubtful slices added to it at most
TILE_PIXELS = (420, 300)  # largest width and height of a tile
PAGE_TILES = 30  # most close-ups on a page
CLOSE_UP_MM, CLOSE_UP_PIXELS = 50.0, 320  # side of the square around a small segment
ORGAN_WINDOW_HU, LUNG_WINDOW_HU = (-160.0, 240.0), (-1350.0, 150.0)
GAP_PIXELS = 6
JPEG_QUALITY = 80
LETTER_PIXELS = 2  # size of one dot of a letter
SCALE_MM = 10.0
LINE_PIXELS = 1.5
FRAME_PIXELS, FRAME_COLOR = 3, (255, 190, 0)  # around a doubtful slice
FILL_ALPHA = 0.3
FINER = 2  # pictures are drawn this many times larger and averaged, for smooth edges
BODY_HU = -400  # the picture is cropped to what is denser
BODY_MARGIN_MM = 4.0
TABLE_MM = 12.0  # anything thinner is the table, not the patient


def write_overlay(
    path: str | Path,
    volume: Volume,
    labelmap: np.ndarray,
    segments: Sequence[Segment],
    window_hu: tuple[float, float] = ORGAN_WINDOW_HU,
    chosen: Sequence[int] | None = None,
) -> None:
    """Draw up to five axial slices in a row, from the lowest to the highest, seen from the patient's feet.

    They are followed by up to three framed slices: those that the segments' measurements name as most doubtful, also from the lowest
    to the highest. Anterior is at the top and the patient's right at the left; pixels are square.

    Args:
        path: The PNG or JPEG; an existing file is replaced once the new one is complete.
        volume: CT in HU.
        labelmap: uint8 (K, J, I) on the volume's voxels. The slices are spread evenly over the segments, or over the volume if
            there is none.
        segments: Their colours and measurements are used.
        window_hu: The HU shown black and white.
        chosen: Indices of the slices to draw, in axial order, instead.

    Raises:
        FileError: It cannot be written.
    """
    order = axial_order(volume)
    hu, labels = order.apply(volume.array), order.apply(labelmap)
    spread = spread_slices(labels, TILES) if chosen is None else np.array(chosen)
    doubtful = _doubtful(segments, order, len(labels)) if chosen is None else []
    drawn = [*spread, *doubtful]
    hu, labels = clean_hu(hu[drawn])[0], labels[drawn]
    box = _body(hu, labels, order.spacing_mm[1:])
    hu, labels = hu[(slice(None), *box)], labels[(slice(None), *box)]
    size = _tile_size(hu.shape[1:], order.spacing_mm[1:])
    tiles = [_tile(h, m, size, segments, window_hu) for h, m in zip(hu, labels, strict=True)]
    for tile in tiles[len(spread) :]:
        _frame(tile)
    _write_rows(path, tiles, len(tiles))


def write_close_ups(path: str | Path, volume: Volume, labelmap: np.ndarray, segments: Sequence[Segment]) -> None:
    """Draw a close-up of each segment, on the slice where it is largest, with a title and a scale bar.

    The orientation is that of `write_overlay`, in a lung window and rows of five. If there is no segment, `write_overlay` is used.

    Args:
        path: As in `write_overlay`; more than 30 segments continue on further pages, such as `overlay-2.png` for `overlay.png`.
        volume, labelmap, segments: As in `write_overlay`.

    Raises:
        FileError: It cannot be written.
    """
    order = axial_order(volume)
    hu, labels = order.apply(volume.array), order.apply(labelmap)
    pixel_mm = np.array(order.spacing_mm[1:])
    tiles: list[np.ndarray] = []
    found = boxes(labels)
    for segment in segments:
        if segment.value not in found:
            continue
        around = found[segment.value]
        mask = labels[around] == segment.value
        largest = int(np.count_nonzero(mask, axis=(1, 2)).argmax())
        k = around[0].start + largest
        pixels = np.argwhere(mask[largest]) + [along.start for along in around[1:]]
        start, stop = pixels.min(axis=0), pixels.max(axis=0) + 1
        middle = (start + stop) / 2
        length_mm = ((stop - start) * pixel_mm).max()
        half = max(CLOSE_UP_MM, 2 * length_mm) / 2 / pixel_mm
        pad = np.ceil(half).astype(int) + 1  # filled with air outside the slice
        first = np.round(middle - half).astype(int) + pad
        square = tuple(slice(f, f + n) for f, n in zip(first, np.round(2 * half).astype(int), strict=True))
        part, seen = (
            np.pad(plane, [(p, p) for p in pad], constant_values=outside)[square]
            for plane, outside in ((clean_hu(hu[k : k + 1])[0][0], AIR_HU), (labels[k], 0))
        )
        size = (CLOSE_UP_PIXELS * FINER, CLOSE_UP_PIXELS * FINER)  # the part is square except for rounding
        tile = _tile(part, seen, size, segments, LUNG_WINDOW_HU, fill_alpha=0)
        _write(tile, _title(segment), GAP_PIXELS)
        _draw_scale(tile, CLOSE_UP_PIXELS / (part.shape[1] * pixel_mm[1]))
        tiles.append(tile)
    if not tiles:
        write_overlay(path, volume, labelmap, segments, LUNG_WINDOW_HU)
        return
    for page, first in enumerate(range(0, len(tiles), PAGE_TILES), start=1):
        beside = Path(path).with_stem(f"{Path(path).stem}-{page}") if page > 1 else path
        _write_rows(beside, tiles[first : first + PAGE_TILES], TILES)


def _title(segment: Segment) -> str:
    """`Nodule 2 · 7 mm · S −156 · 0.91`: name, mean diameter, position along Superior, probability, as far as known."""
    known = segment.measurements
    parts = [segment.name]
    if "mean_diameter_rounded_mm" in known:
        parts.append(f"{known['mean_diameter_rounded_mm']} mm")
    if "centroid_ras" in known:
        parts.append(f"S {known['centroid_ras'][2]:.0f}".replace("-", "−"))
    if known.get("probability") is not None:
        parts.append(f"{known['probability']:.2f}")
    return " · ".join(parts)


def _write(picture: np.ndarray, text: str, top: int) -> None:
    """Write a text into a picture (row, column, RGB), white on black and centred; a text that is too wide is cut off."""
    ink = np.pad(letters(text), 1).repeat(LETTER_PIXELS, axis=0).repeat(LETTER_PIXELS, axis=1)[:, : picture.shape[1]]
    left = (picture.shape[1] - ink.shape[1]) // 2
    picture[top : top + ink.shape[0], left : left + ink.shape[1]] = ink[..., np.newaxis] * np.uint8(255)


def _draw_scale(picture: np.ndarray, pixels_per_mm: float) -> None:
    """Draw a scale bar of `SCALE_MM`, labelled with its length, at the lower edge of a picture."""
    length = round(SCALE_MM * pixels_per_mm)
    left, bottom = (picture.shape[1] - length) // 2, picture.shape[0] - GAP_PIXELS
    picture[bottom - LETTER_PIXELS : bottom, left : left + length] = 255
    _write(picture, f"{SCALE_MM:.0f} mm", bottom - LETTER_PIXELS * (HEIGHT + 4))


def _write_rows(path: str | Path, tiles: Sequence[np.ndarray], columns: int) -> None:
    """Write pictures of the same size in rows of `columns`."""
    height, width = tiles[0].shape[:2]
    columns, step = min(columns, len(tiles)), (height + GAP_PIXELS, width + GAP_PIXELS)
    rows = -(-len(tiles) // columns)
    page = np.zeros((rows * step[0] - GAP_PIXELS, columns * step[1] - GAP_PIXELS, 3), np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * step[0], number % columns * step[1]
        page[top : top + height, left : left + width] = tile
    with whole_file(path) as beside, silence():
        level = JPEG_QUALITY if beside.suffix == ".jpg" else -1  # the default for PNG
        image = sitk.GetImageFromArray(page, isVector=True)
        sitk.WriteImage(image, sitk_name(beside), useCompression=True, compressionLevel=level)


def spread_slices(labels: np.ndarray, most: int) -> np.ndarray:
    """Up to `most` slices of (slices, rows, columns), spread evenly over those with a label, or over all if there are none."""
    with_label = np.flatnonzero(labels.any(axis=(1, 2)))
    slices = with_label if len(with_label) else np.arange(len(labels))
    count = min(most, len(slices))
    return slices[((np.arange(count) + 0.5) * len(slices) / count).astype(int)]


def _doubtful(segments: Sequence[Segment], order: AxialOrder, slices: int) -> list[int]:
    """Up to `DOUBTFUL` slices, sorted in axial order, chosen from the worst of all segments, then the second worst, and so on."""
    named = [[each["k"] for each in segment.measurements.get("doubtful_slices", ())] for segment in segments]
    worst = dict.fromkeys(k for rank in zip_longest(*named) for k in rank if k is not None)
    return sorted(slices - 1 - k if order.flips[0] else k for k in [*worst][:DOUBTFUL])


def _frame(tile: np.ndarray) -> None:
    """Draw a frame around a picture (row, column, RGB), in place."""
    for edge in (np.s_[:FRAME_PIXELS], np.s_[-FRAME_PIXELS:], np.s_[:, :FRAME_PIXELS], np.s_[:, -FRAME_PIXELS:]):
        tile[edge] = FRAME_COLOR


def _body(hu: np.ndarray, labels: np.ndarray, spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """Rows and columns that contain the patient in any of the slices, with a margin; all of them if there is no patient."""
    radius = [max(1, round(TABLE_MM / 2 / s)) for s in reversed(spacing_mm)]
    body = np.asarray(labels.any(axis=0))
    for dense in hu > BODY_HU:
        opened = _array(sitk.BinaryMorphologicalOpening(_image(dense), radius)).astype(bool)
        body |= largest_component(opened, at_least=0.3)  # keeps both legs, but not the table or the arms
    box = bounding_box(body)
    if box is None:
        return np.s_[:, :]
    return wider(box, [round(BODY_MARGIN_MM / s) for s in spacing_mm])


def _tile_size(shape: tuple[int, ...], spacing_mm: Sequence[float]) -> tuple[int, int]:
    """Width and height of a tile in fine pixels, with the same number of pixels per mm."""
    height_mm, width_mm = shape[0] * spacing_mm[0], shape[1] * spacing_mm[1]
    scale = min(TILE_PIXELS[0] / width_mm, TILE_PIXELS[1] / height_mm)
    width, height = (max(1, round(side * scale)) * FINER for side in (width_mm, height_mm))
    return width, height


def _tile(
    hu: np.ndarray,
    labels: np.ndarray,
    size: tuple[int, int],
    segments: Sequence[Segment],
    window_hu: tuple[float, float],
    fill_alpha: float = FILL_ALPHA,
) -> np.ndarray:
    """One slice as uint8 (row, column, RGB)."""
    low, high = window_hu
    grey = np.clip((_enlarge(hu, size) - low) / (high - low), 0, 1) * 255
    picture = np.repeat(grey[..., np.newaxis], 3, axis=2)
    shown = set(np.unique(labels).tolist())
    for segment in segments:
        if segment.value not in shown:
            continue
        inside = _enlarge(labels == segment.value, size) >= 0.5
        line = inside & ~_erode(inside, round(LINE_PIXELS * FINER))
        color = np.array(segment.color, np.float32)
        picture[inside] += fill_alpha * (color - picture[inside])
        picture[line] = color
    height, width = picture.shape[0] // FINER, picture.shape[1] // FINER
    return picture.reshape(height, FINER, width, FINER, 3).mean(axis=(1, 3)).round().astype(np.uint8)


def _enlarge(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample (row, column) linearly to a width and height over the same field of view."""
    step = np.array(pixels.shape[::-1]) / size
    image = sitk.Resample(
        sitk.GetImageFromArray(pixels.astype(np.float32)),
        size=list(size),  # type: ignore[arg-type]  # its stub knows only the form with a reference image
        outputOrigin=((step - 1) / 2).tolist(),  # aligns the outer edges of the pixels
        outputSpacing=step.tolist(),
        useNearestNeighborExtrapolator=True,
    )
    return _array(image)


def _erode(mask: np.ndarray, radius: int) -> np.ndarray:
    return _array(sitk.BinaryErode(_image(mask), (radius, radius))).astype(bool)


def _image(mask: np.ndarray) -> sitk.Image:
    return sitk.GetImageFromArray(mask.astype(np.uint8))


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)
