"""Results: what a run found at one threshold. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from .note import Note
from .segment import Segment


@dataclass(frozen=True, eq=False)
class Result:
    """A segmentation of one volume at one threshold.

    Attributes:
        labelmap: uint8 (K, J, I) on the volume's own voxels.
        segments: One for each value, with its measurements; an organ that was not found has 0 ml.
        notes: Notes for the user.
        threshold: Lowest probability at which a voxel belongs to the target; None if several models used different ones.
        model: Name of the model, with its version.
        device: The device and precision used.
        scan_slices: Number of axial slices of the scan.
        slices: Number of slices that the network analysed at full quality.
        seconds: Time from the decoded volume to the label map, with the model already loaded.
        show_from: Lowest probability at which a finding is shown; None if findings have no probability, or were found at points.
    """

    labelmap: np.ndarray
    segments: tuple[Segment, ...]
    notes: tuple[Note, ...]
    threshold: float | None
    model: str
    device: str
    scan_slices: int
    slices: int
    seconds: float
    show_from: float | None = None

    def to_json(self) -> dict:
        """All attributes except the label map, in types for `json.dumps`."""
        rest = {name: value for name, value in vars(self).items() if name != "labelmap"}
        return {**rest, "segments": [*map(asdict, self.segments)], "notes": [*map(asdict, self.notes)]}

    @classmethod
    def from_json(cls, message: Mapping, labelmap: np.ndarray) -> Result:
        """Restore a result from `to_json`."""
        segments = tuple(Segment(**{**each, "color": tuple(each["color"])}) for each in message["segments"])
        notes = tuple(Note(**{**each, "points": tuple(map(tuple, each["points"]))}) for each in message["notes"])
        return cls(**{**message, "labelmap": labelmap, "segments": segments, "notes": notes})
