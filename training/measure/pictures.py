"""Draws slices with the outlines of truth and result, and checks that private pictures cannot be committed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

TRUTH, FOUND = "#30e060", "#ff4040"


class PicturesError(ValueError):
    """A folder that pictures must not be written to. The message names the folder, the reason and what to do."""


@dataclass(frozen=True)
class Panel:
    """One image of an atlas.

    Attributes:
        title: Text above the image.
        image: uint8 (rows, columns) or (rows, columns, 3).
        outlines: From a colour to the bool mask (rows, columns) that is outlined in that colour.
    """

    title: str
    image: np.ndarray
    outlines: dict[str, np.ndarray]


def private_folder(folder: Path) -> Path:
    """Make a folder for pictures that must not be published: outside of any git work tree, or ignored by git.

    Raises:
        PicturesError: A commit could include it, or it cannot be made.
    """
    folder = folder.absolute()
    there = next(p for p in folder.parents if p.is_dir())
    try:
        asked = subprocess.run(
            ["git", "check-ignore", "-q", str(folder / "x.png")], cwd=there, capture_output=True, check=False
        )
        if asked.returncode == 1:
            raise PicturesError(
                f"{folder} lies in a git work tree and is not ignored by git, but most images must not be published:"
                " choose training/results/private/…, or a folder outside of the work tree."
            )
    except FileNotFoundError:
        pass  # without git, nothing can be committed
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PicturesError(f"{folder} cannot be made ({error.strerror}): choose another folder.") from error
    return folder


def save_atlas(path: Path, panels: Sequence[Panel], title: str, columns: int = 4, side: float = 3.0) -> None:
    """Write the panels, row by row, as one PNG; `side` is the side of a panel in inches."""
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(side * columns, (side + 0.3) * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=False):
        draw(axes, panel)
    for axes in figure.axes[len(panels) :]:
        axes.axis("off")
    figure.savefig(path, dpi=100)


def draw(axes: Axes, panel: Panel) -> None:
    """Draw one panel: the image without interpolation, and the outline of each mask."""
    axes.imshow(panel.image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    for color, mask in panel.outlines.items():
        if mask.any() and not mask.all():
            axes.contour(mask, [0.5], colors=color, linewidths=0.8)
    axes.set_title(panel.title, fontsize=7)
    axes.axis("off")
