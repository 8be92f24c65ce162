"""Results: the segments that a run found, in this process and from a worker. NumPy only."""

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
        labelmap: uint8 (K, J, I), the volume's own voxels.
        segments: The meaning of its values, with measurements; an organ that was not found has 0 ml.
        notes: What the user should read.
        threshold: Probability from which on voxels belong to the target.
        model: Name of the model, with its version.
        device: Device and precision that were used.
        slices: How many slices the network saw at full quality.
        seconds: From the decoded volume, model loaded, to the label map.
    """

    labelmap: np.ndarray
    segments: tuple[Segment, ...]
    notes: tuple[Note, ...]
    threshold: float
    model: str
    device: str
    slices: int
    seconds: float

    def to_json(self) -> dict:
        """All but the label map, as `json.dumps` takes it."""
        rest = {name: value for name, value in vars(self).items() if name != "labelmap"}
        return {**rest, "segments": [*map(asdict, self.segments)], "notes": [*map(asdict, self.notes)]}

    @classmethod
    def from_json(cls, message: Mapping, labelmap: np.ndarray) -> Result:
        """The way back from `to_json`."""
        segments = tuple(Segment(**{**each, "color": tuple(each["color"])}) for each in message["segments"])
        notes = tuple(Note(**each) for each in message["notes"])
        return cls(**{**message, "labelmap": labelmap, "segments": segments, "notes": notes})
