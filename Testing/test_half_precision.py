"""float16, in which graphics cards compute: the shipped models find the same in it, as a processor can tell."""

import numpy as np
import pytest
import torch

from UNetPlusPlusSegmentLib.api import load_engine
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.files import read_volume
from UNetPlusPlusSegmentLib.network.device import Device

LARGEST = torch.finfo(torch.float16).max


@pytest.mark.parametrize(
    ("target", "scan", "asked"),
    [
        ("liver", "volumes/abdomen_dicom", {"box": ((8, 12), (0, 512), (0, 512))}),
        ("abdomen", "volumes/abdomen_dicom", {"box": ((8, 10), (0, 512), (0, 512))}),
        ("nodule", "volumes/LIDC-IDRI-0001_ct.nii.gz", {"points": ((-56, -86, -116),)}),
    ],
)
def test_a_shipped_model_finds_the_same_in_float16_and_stays_far_from_its_limit(
    shared_data, monkeypatch, tmp_path, target, scan, asked
):
    monkeypatch.delenv("UNETPP_MODELS", raising=False)
    monkeypatch.setattr("UNetPlusPlusSegmentLib.network.bundle.user_folder", lambda: tmp_path / "none")
    volume, _ = read_volume(shared_data(scan))
    peak, masks = 0.0, []

    def watch(_module, _inputs, output) -> None:
        nonlocal peak
        if isinstance(output, torch.Tensor):
            peak = max(peak, float(output.abs().max()))

    for precision in (torch.float32, torch.float16):
        engine = load_engine(target, device="cpu")
        engine.device = Device("cpu", precision, str(precision))
        hook = torch.nn.modules.module.register_module_forward_hook(watch)
        try:
            found = engine.predict(volume, Request(target, speed="accurate", **asked)).at()
        finally:
            hook.remove()
        masks.append(found.labelmap)
    assert masks[0].any()
    assert np.count_nonzero(masks[0] != masks[1]) <= 0.005 * np.count_nonzero(masks[0])
    assert 1 < peak < LARGEST / 100
