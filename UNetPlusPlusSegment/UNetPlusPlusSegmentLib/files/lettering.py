"""Lettering: short texts for pictures, in letters of 5 × 7 pixels. NumPy only, as Slicer's Python has no font library."""

from __future__ import annotations

import numpy as np

HEIGHT, GAP, SPACE = 7, 1, 2

# Five columns each; the lowest bit is the top pixel.
GLYPHS = {
    " ": "0000000000", "-": "0808080808", "−": "0808080808", "·": "0000180000", ".": "0060600000", "0": "3e5149453e",
    "1": "00427f4000", "2": "4261514946", "3": "2141454b31", "4": "1814127f10", "5": "2745454539", "6": "3c4a494930",
    "7": "0171090503", "8": "3649494936", "9": "064949291e", "M": "7f020c027f", "N": "7f0408107f", "S": "4649494931",
    "a": "2054545478", "d": "384444487f", "e": "3854545418", "l": "00417f4000", "m": "7c04180478", "o": "3844444438",
    "s": "4854545420", "u": "3c4040207c",
}  # fmt: skip
UNKNOWN = "7f4141417f"


def letters(text: str) -> np.ndarray:
    """bool (7, width): True for the pixels of a text; a box stands for an unknown letter."""
    columns: list[int] = []
    for character in text:
        glyph = GLYPHS.get(character, UNKNOWN)
        inked = [column for column in bytes.fromhex(glyph) if column]  # without the empty columns
        columns += [*(inked or [0] * SPACE), *[0] * GAP]
    return (np.array(columns, int) >> np.arange(HEIGHT)[:, None] & 1).astype(bool)
