"""A made-up body with an organ brighter than 60 HU, and the same patient stored in another array order."""

import numpy as np

from UNetPlusPlusSegmentLib.core.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def body(shape=(30, 90, 110), spacing_mm=(2.0, 2.0, 3.0), organ=np.s_[10:20, 30:60, 25:70]) -> Volume:
    """Noise below 50 HU in air, with a block of 90 HU inside; array axes run to S, P and L. `spacing_mm` is along I, J, K."""
    draw = np.random.default_rng(0)
    array = np.full(shape, -1000.0)
    array[:, 8:-8, 8:-8] = draw.uniform(-120, 50, (shape[0], shape[1] - 16, shape[2] - 16))
    array[organ] = draw.uniform(80, 100, array[organ].shape)
    return Volume(array.astype(np.float32), LPS @ np.diag([*spacing_mm, 1.0]))


def reorder(volume: Volume, axes, flips):
    """The same patient in another array, with the axes (K, J, I) permuted and some flipped; and a function that maps a mask back."""
    matrix = volume.ijk_to_ras.copy()
    columns = matrix[:, [2, 1, 0]][:, list(axes)]  # of the new axes
    array = volume.array.transpose(axes)
    for axis, flip in enumerate(flips):
        if flip:
            matrix[:, 3] += columns[:, axis] * (array.shape[axis] - 1)
            columns[:, axis] *= -1
    steps = tuple(slice(None, None, -1 if f else 1) for f in flips)
    matrix[:, :3] = columns[:, ::-1]
    back = lambda mask: mask[steps].transpose(np.argsort(axes))  # noqa: E731
    return Volume(np.ascontiguousarray(array[steps]), matrix), back
