"""A finished network marks what the people who drew a mask left unmarked, so that another training learns from those images too."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from data.slices import Slice, to_network_grid
from fit.checkpoint import read_checkpoint
from fit.settings import Settings, SettingsError
from UNetPlusPlusSegmentLib.network.bundle import BundleError
from UNetPlusPlusSegmentLib.network.device import cpu_has_bf16
from UNetPlusPlusSegmentLib.network.unetpp import build_network

DOUBT = 0.2  # a pixel is marked from probability 0.8 on and unmarked up to 0.2; those between teach nothing


class Teacher:
    """The network of a checkpoint, of the same labels, window and pixel size as the training that it teaches."""

    def __init__(self, checkpoint: str, settings: Settings) -> None:
        """Load it.

        Raises:
            SettingsError: The checkpoint cannot be read, or has other labels, another window or another pixel size; or two labels
                share a structure, so that a mask of one does not exclude the other.
        """
        for one, other in combinations(settings.goal.labels, 2):
            shared = sorted(set(one.made_of) & set(other.made_of))
            if shared:
                raise SettingsError(
                    f"teacher: {one.name} and {other.name} share {', '.join(shared)}, and a teacher marks each pixel as one label"
                    " only: train without a teacher, or with labels that share nothing."
                )
        try:
            trained = read_checkpoint(Path(checkpoint))
        except BundleError as error:
            raise SettingsError(f"teacher: {error}") from error
        for what, its, wanted in (
            ("labels", [x.name for x in trained.target.labels], [x.name for x in settings.goal.labels]),
            ("window_hu", trained.target.window_hu, settings.goal.window_hu),
            ("pixel_mm", trained.settings.pixel_mm, settings.pixel_mm),
        ):
            if its != wanted:
                raise SettingsError(f"teacher={checkpoint!r} has the {what} {its}, not {wanted}: give another teacher.")
        self.pixel_mm = settings.pixel_mm
        self.network = build_network(trained.settings.architecture, **trained.settings.network_arguments).eval()
        self.network.load_state_dict(trained.state)

    @torch.inference_mode()
    def mark(self, item: Slice) -> Slice:
        """The slice with marks for its unknown labels, by the deepest head; what was marked by hand stays, and excludes the others."""
        if item.known is None or item.known.all():
            return item
        image, _ = to_network_grid(item, self.pixel_mm)
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bf16()):
            deepest = self.network(image[None])[-1]
        logits = F.interpolate(deepest.float(), item.image.shape[:2], mode="bilinear")
        probability = logits[0].sigmoid().numpy()
        free = ~item.known[:, None, None] & ~item.mask[item.known].any(axis=0)
        marked = free & (probability >= 1 - DOUBT) & (probability == probability.max(axis=0))
        unsure = free & (probability > DOUBT) & ~marked
        mask = np.where(item.known[:, None, None], item.mask, marked)
        return replace(item, mask=mask, known=None, unsure=unsure)
