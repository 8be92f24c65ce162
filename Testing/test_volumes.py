"""Volumes: every orientation turns to the same axial order and back, and only CT passes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from UNetPlusPlusSegmentLib.core.volume import AIR_HU, Volume, VolumeError, axial_order, check_ct, clean_hu, index_of
from UNetPlusPlusSegmentLib.files import read_volume

SIZES = (3, 5, 7)  # slices, rows, columns: no two alike, so that a swapped axis shows
SPACINGS_MM = (3.0, 0.8, 0.7)
TRAINING_STEPS_RAS = np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]]).T  # columns: to Superior, Posterior, Left
ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)
]
CT_SPACING = np.diag([0.7, 0.8, 3.0, 1.0])


def in_another_order(turned: np.ndarray, steps_ras: np.ndarray, order: tuple, flips: tuple) -> Volume:
    """The volume whose (slice, row, column) array is `turned`, with its array axes in another order and flipped.

    Args:
        turned: In training order.
        steps_ras: 3 × 3, its columns the steps in mm along slices, rows and columns.
        order: Axis of `turned` that becomes K, J and I.
        flips: Which of K, J and I then run the other way.
    """
    array = turned.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    steps = steps_ras[:, order] * np.where(flips, -1, 1)  # along K, J, I
    matrix = np.eye(4)
    matrix[:3, :3] = steps[:, ::-1]
    return Volume(array, matrix)


def numbered() -> np.ndarray:
    return np.arange(np.prod(SIZES), dtype=np.int16).reshape(SIZES)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
@pytest.mark.parametrize("angles", [(0, 0, 0), (20, -10, 30)], ids=["straight", "oblique"])
def test_all_48_orders_and_flips_of_a_volume_turn_to_the_same_array_and_back(order, flips, angles):
    tilt = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    volume = in_another_order(numbered(), tilt @ TRAINING_STEPS_RAS * SPACINGS_MM, order, flips)
    axial = axial_order(volume)
    np.testing.assert_array_equal(axial.apply(volume.array), numbered())
    np.testing.assert_array_equal(axial.undo(axial.apply(volume.array)), volume.array)
    assert axial.spacing_mm == pytest.approx(SPACINGS_MM)


def test_turning_copies_nothing():
    volume = Volume(numbered(), np.diag([-1.0, 1, -1, 1]))
    axial = axial_order(volume)
    assert np.shares_memory(axial.apply(volume.array), volume.array)
    assert np.shares_memory(axial.undo(axial.apply(volume.array)), volume.array)


angle = st.one_of(st.floats(-180, 180), st.sampled_from([-135.0, -45.0, 44.999999, 45.0, 45.000001, 90.0, 135.0]))


@given(st.tuples(angle, angle, angle), st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
@example((45.0, 45.0, 45.0), [0, 1, 2], (False, False, False))
@example((0.0, 0.0, 45.0), [2, 1, 0], (True, False, True))
def test_every_oblique_grid_uses_each_axis_once_and_its_slices_are_those_nearest_to_axial(angles, order, flips):
    tilt = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    volume = in_another_order(numbered(), tilt @ TRAINING_STEPS_RAS * SPACINGS_MM, tuple(order), flips)
    axial = axial_order(volume)
    assert sorted(axial.axes) == [0, 1, 2]
    towards_superior = (volume.ijk_to_ras[2, :3] / volume.spacing_mm)[::-1]  # of K, J, I
    slices = axial.axes[0]
    assert abs(towards_superior[slices]) >= abs(towards_superior).max() - 1e-6
    assert (towards_superior[slices] < -1e-6) <= axial.flips[0] <= (towards_superior[slices] < 1e-6)
    np.testing.assert_array_equal(axial.undo(axial.apply(volume.array)), volume.array)


def test_a_gantry_tilt_keeps_the_acquired_slices():
    sheared = np.array([[-0.5, 0, 0, 0], [0, -0.474, 0, 0], [0, -0.159, 4.2, 0], [0, 0, 0, 1]])
    assert axial_order(Volume(numbered(), sheared)).axes == (0, 1, 2)


def test_size_and_volume_of_a_voxel_of_a_sheared_grid_are_those_of_a_parallelepiped():
    sheared = np.array([[2.0, 0, 0, 5], [0, 3, 4, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    volume = Volume(numbered(), sheared)
    np.testing.assert_allclose(volume.spacing_mm, [2, 3, 5])
    assert volume.voxel_volume_ml == pytest.approx(18 / 1000)  # 2 × 3 × 3 mm³: the shear does not count


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("last", [False, True])
def test_a_point_lies_in_a_volume_as_far_as_the_outer_faces_of_its_voxels(axis, last):
    tilt = Rotation.from_euler("xyz", (20, -10, 30), degrees=True).as_matrix()
    volume = in_another_order(numbered(), tilt @ TRAINING_STEPS_RAS * SPACINGS_MM, (1, 2, 0), (True, False, True))
    border = np.array([1.25, 2, 1.5])
    border[axis] = (volume.array.shape[axis] - 1) * last
    beyond = np.eye(3)[axis] * (1 if last else -1)
    just_inside, just_outside = ((volume.ijk_to_ras @ [*(border + n * beyond)[::-1], 1])[:3] for n in (0.49, 0.51))
    np.testing.assert_allclose(index_of(volume, just_inside), border, atol=1e-9)
    with pytest.raises(VolumeError, match="lies outside this volume"):
        index_of(volume, just_outside)


def test_the_matrix_of_a_volume_is_its_own_and_cannot_change():
    matrix = np.eye(4)
    volume = Volume(numbered(), matrix)
    matrix[0, 0] = 9
    assert volume.ijk_to_ras[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        volume.ijk_to_ras[0, 0] = 9


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4, 5)), "4 dimensions.*Choose one frame"),
        (np.zeros((2, 3, 4, 3), np.uint8), "colour"),
        (np.zeros((3, 4)), "2 dimensions"),
        (np.zeros((2, 0, 4)), "no voxels"),
        (np.zeros((2, 3, 4), complex), "not real numbers"),
        (np.zeros((2, 3, 4), bool), "not real numbers"),
    ],
)
def test_what_is_no_grid_of_real_numbers_is_no_volume(array, message):
    with pytest.raises(VolumeError, match=message):
        Volume(array, np.eye(4))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "4 × 4"),
        (np.diag([1, np.nan, 1, 1]), "finite"),
        (np.diag([1, 1, 1, 2.0]), "last row"),
        (np.diag([0.7, 0, 3, 1]), "0.7 × 0 × 3 mm"),
        ([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "do not span three dimensions"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused(matrix, message):
    with pytest.raises(VolumeError, match=message):
        Volume(numbered(), matrix)


def abdomen_like(dtype=np.int16) -> np.ndarray:
    """Air round fat round soft tissue, in HU."""
    array = np.full((4, 30, 40), -1000, dtype)
    array[:, 5:-5, 5:-5] = -100
    array[:, 8:-8, 8:-8] = 60
    return array


@pytest.mark.parametrize("spacing_mm", [0.005, 101, 5e4, 1e-9])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_absurd_voxel_sizes_are_refused_by_force_too(axis, spacing_mm):
    matrix = CT_SPACING.copy()
    matrix[axis, axis] = spacing_mm
    with pytest.raises(VolumeError, match=rf"{spacing_mm:g}.* mm, which is impossible for CT \(0.01 to 100 mm\)"):
        check_ct(Volume(abdomen_like(), matrix), force=True)


def test_nothing_but_nan_is_refused_by_force_too():
    with pytest.raises(VolumeError, match="no finite values"):
        check_ct(Volume(np.full((2, 3, 4), np.nan), CT_SPACING), force=True)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        ((abdomen_like() // 8 + 128).astype(np.uint8), "from 3 to 135 in 8 bits"),
        ((abdomen_like() + 1000).astype(np.uint16), "from 0 to 1060, none below 0"),
        (abdomen_like(np.float32) / 1000, "from -1 to 0.06, and only 0.00% of them are air or fat"),
        (np.where(abdomen_like() > 0, 300, -3024), "only 0.00% of them are air or fat"),  # padding is not air
    ],
    ids=["8 bit", "without its intercept", "scaled", "padding only"],
)
def test_values_that_are_not_hu_are_refused_or_with_force_accepted_with_a_note(array, reason):
    volume = Volume(array, CT_SPACING)
    with pytest.raises(VolumeError, match=f"{reason}.*--force"):
        check_ct(volume)
    (note,) = check_ct(volume, force=True)
    assert note.kind == "forced" and reason.partition(",")[0] in note.text


def test_a_ct_passes_without_a_note_and_one_slice_with_one():
    assert check_ct(Volume(abdomen_like(), CT_SPACING)) == []
    (note,) = check_ct(Volume(abdomen_like()[:1], CT_SPACING))
    assert (note.kind, note.text) == ("one-slice", "There is only one slice; it is assumed to be 3 mm thick.")
    coronal = Volume(abdomen_like()[:, :1], CT_SPACING[:, [0, 2, 1, 3]])  # J runs to Superior
    assert check_ct(coronal) == [note]


@pytest.mark.parametrize(
    "name",
    [
        "volumes/abdomen_dicom",
        "volumes/abdomen_3mm_ct.nii.gz",
        "volumes/LIDC-IDRI-0001_ct.nii.gz",
        "volumes/chest_lesion_ct.nrrd",
        "volumes/chest_clean_ct.nrrd",
        "odd_inputs/693_UNCR.dcm",
        "odd_inputs/eCT_Supplemental.dcm",
        "odd_inputs/gantry_tilt_dicom",
    ],
)
def test_every_real_ct_passes(shared_data, name):
    volume, _ = read_volume(shared_data(name))
    check_ct(volume)


def test_a_crop_of_a_real_abdomen_without_any_air_passes(shared_data):
    volume, _ = read_volume(shared_data("volumes/abdomen_3mm_ct.nii.gz"))
    box = np.s_[70:85, 40:55, 40:60]
    assert volume.array[box].min() > -200, "the crop must hold no air, or it shows nothing"
    assert check_ct(Volume(volume.array[box], volume.ijk_to_ras)) == []


@pytest.mark.parametrize(
    "name",
    [
        "volumes/not_ct_mr.nii.gz",
        "odd_inputs/MR_Gd.nii.gz",
        "odd_inputs/CT_pitch.nii.gz",
        "odd_inputs/JPEG-LL.dcm",
        "volumes/chest_lesion_label.nrrd",
    ],
)
def test_every_real_image_that_is_no_ct_is_refused_and_passes_by_force(shared_data, name):
    volume, _ = read_volume(shared_data(name))
    with pytest.raises(VolumeError, match=r"does not look like CT.*range from .* to .*--force"):
        check_ct(volume)
    assert check_ct(volume, force=True)[0].kind == "forced"


def test_nan_infinity_and_padding_become_air_and_the_input_stays():
    dirty = np.array([[[np.nan, np.inf, -np.inf, -3024, -1500, -1499, 40]]])
    before = dirty.copy()
    cleaned, notes = clean_hu(dirty)
    assert cleaned.dtype == np.float32
    np.testing.assert_array_equal(cleaned, [[[AIR_HU] * 5 + [-1499, 40]]])
    np.testing.assert_array_equal(dirty, before)
    assert notes == []  # at the border, where no body is


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_padding_in_whole_numbers_becomes_air_and_what_is_just_above_it_stays(dtype):
    values = np.array([[[-3024, -1500, -1499, 40]]], dtype)
    np.testing.assert_array_equal(clean_hu(values)[0], [[[AIR_HU, AIR_HU, -1499, 40]]])


def test_padding_round_the_body_is_no_news_and_inside_it_is(shared_data):
    chest = read_volume(shared_data("volumes/chest_clean_ct.nrrd"))[0].array
    assert (chest <= -1500).any()  # the corners outside the round field of view
    assert clean_hu(chest)[1] == []
    assert clean_hu(chest.transpose(1, 0, 2))[1] == []
    hole = chest.astype(np.float32)
    hole[10, 250:260, 200:220] = np.nan  # mediastinum
    (note,) = clean_hu(hole)[1]
    assert note.text.startswith("200 voxels (") and "inside the body" in note.text


def test_slices_without_any_measurement_are_news_only_between_others():
    array = np.concatenate([abdomen_like()] * 2).astype(np.float32)
    array[[0, -1]] = np.nan
    assert clean_hu(array)[1] == []
    array[2] = -3024
    (note,) = clean_hu(array)[1]
    assert note.text.startswith(f"{array[2].size} voxels")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, ">i2"])
def test_integers_become_int16_without_wrapping_round(dtype):
    limits = np.iinfo(dtype)
    values = np.array([[[max(limits.min, -1499), 0, 7, limits.max]]], dtype)
    cleaned, notes = clean_hu(values)
    assert cleaned.dtype == np.int16
    np.testing.assert_array_equal(cleaned, [[[max(limits.min, -1499), 0, 7, min(limits.max, 32767)]]])
    assert notes == []


def test_clean_values_are_not_copied():
    for clean in (abdomen_like(), abdomen_like(np.float32)):
        assert np.shares_memory(clean_hu(clean)[0], clean)
