"""Resampling to the network's pixels: what Pillow gives, at every size, as well in a box that is one pixel wide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from Testing.support.bright import bright_bundle
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.network.resampling import onto_grid

SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))


@given(SIZES, SIZES)
@example((17, 1), (4, 1))
@example((1, 17), (1, 4))
@example((17, 5), (4, 1))
def test_every_pixel_is_the_mean_that_pillow_gives(size, new_size):
    image = np.random.default_rng(0).random((2, *size), np.float32)
    found = onto_grid(torch.from_numpy(image)[None], new_size)[0]
    expected = [Image.fromarray(each).resize(new_size[::-1], Image.Resampling.BILINEAR) for each in image]
    np.testing.assert_allclose(found.numpy(), np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("voxels", [1, 2, 3])
@pytest.mark.parametrize("axis", [1, 2])
def test_a_box_is_segmented_however_narrow_it_is(tmp_path, voxels, axis):
    hu = np.full((12, 80, 80), -1000, np.int16)
    hu[:, 10:70, 10:70] = 40
    hu[:, 20:60, 20:60] = organ = 120
    box = [slice(0, 12), slice(0, 80), slice(0, 80)]
    box[axis] = slice(40, 40 + voxels)
    engine = SliceEngine(bright_bundle(tmp_path / "bright-v1.0.0"), "cpu")
    volume = Volume(hu, np.diag([-1.0, -1.0, 1.0, 1.0]))
    found = engine.predict(volume, Request("liver", speed="accurate", box=tuple(box))).at().labelmap > 0
    there = np.zeros_like(found)
    there[tuple(box)] = hu[tuple(box)] == organ
    assert (found & there).sum() > 0.95 * there.sum() and not (found & ~there).any()
