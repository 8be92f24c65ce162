"""Multi-frame DICOM: each frame lies where its functional groups say, or the file is refused."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage, RLELossless

from Testing.support.enhanced_ct import ENHANCED_CT, enhanced_ct, sequence
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.cli.main import main

EVEN = [0.0, 2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [3, 0, 4, 1, 2]])
def test_frames_are_stacked_by_where_they_lie(tmp_path, order):
    volume, notes = files.read_volume(enhanced_ct(tmp_path / "ct.dcm", [EVEN[n] for n in order]))
    assert notes == []
    np.testing.assert_array_equal(volume.array[:, 0, 0], 10 * np.argsort(order))
    expected = [[-0.5, 0, 0, -10], [0, -0.7, 0, -20], [0, 0, 2, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.ijk_to_ras, expected, atol=1e-9)


def test_positions_that_are_rounded_do_not_change_the_pixels(tmp_path):
    volume, notes = files.read_volume(enhanced_ct(tmp_path / "ct.dcm", [0, 0.625, 1.255, 1.875, 2.5]))
    assert notes == []
    assert volume.spacing_mm == pytest.approx([0.5, 0.7, 0.625])


def test_uneven_and_tilted_frames_have_a_note(tmp_path):
    _, (note,) = files.read_volume(enhanced_ct(tmp_path / "uneven.dcm", [0, 2, 4, 7, 9]))
    assert "2.00 to 3.00 mm apart" in note
    volume, (note,) = files.read_volume(enhanced_ct(tmp_path / "tilted.dcm", EVEN, aside_mm=0.7))
    assert "tilted by 19.3" in note
    np.testing.assert_allclose(volume.ijk_to_ras[:3, 2], [-0.7, 0, 2])


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 1, 2]])
@pytest.mark.parametrize("packed", [False, True])
def test_frames_that_are_scaled_each_in_its_own_way_are_all_in_hu(tmp_path, order, packed):
    path = enhanced_ct(tmp_path / "ct.dcm", [EVEN[n] for n in order], scales=((1, -1000), (2, -1024), (0.5, 0)))
    if packed:
        header = pydicom.dcmread(path)
        header.compress(RLELossless, generate_instance_uid=False)
        header.save_as(path)
    volume, notes = files.read_volume(path)
    assert notes == []
    np.testing.assert_array_equal(volume.array[:, 0, 0], 10 * np.argsort(order))
    assert (volume.array == volume.array[:, :1, :1]).all()


def test_frames_that_do_not_say_how_they_become_hu_have_a_note(tmp_path):
    volume, (note,) = files.read_volume(enhanced_ct(tmp_path / "ct.dcm", EVEN, scales=(None,)))
    assert "does not say how the values become HU" in note
    np.testing.assert_array_equal(volume.array[:, 0, 0], [0, 10, 20, 30, 40])


def test_a_file_of_frames_is_listed_with_its_true_size_and_spacing(tmp_path, capsys):
    enhanced_ct(tmp_path / "ct.dcm", [4.0, 0.0, 2.0])
    (entry,) = files.list_series(tmp_path)
    assert (entry["size"], entry["slices"], entry["spacing_mm"]) == ([5, 4], 3, [0.5, 0.7, 2.0])
    assert main(["series", str(tmp_path)]) == 0
    assert "5 × 4 × 3 voxels of 0.5 × 0.7 × 2 mm" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [ENHANCED_CT, MultiFrameGrayscaleWordSecondaryCaptureImageStorage])
@pytest.mark.parametrize("count", [1, 5])
def test_frames_that_are_all_scaled_alike_are_in_hu_in_every_kind_of_file(tmp_path, kind, count):
    path = enhanced_ct(tmp_path / "ct.dcm", EVEN[:count], scales=((1, -1024),))
    header = pydicom.dcmread(path)
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = kind
    header.save_as(path)
    volume, notes = files.read_volume(tmp_path)
    assert notes == []
    np.testing.assert_array_equal(volume.array[:, 0, 0], [0, 10, 20, 30, 40][:count])


@pytest.mark.parametrize("count", [1, 5])
def test_a_unit_that_all_frames_share_has_a_note_unless_it_is_hu(tmp_path, count):
    path = enhanced_ct(tmp_path / "ct.dcm", EVEN[:count], scales=(None,))
    for unit, expected in (
        ("MGML", ["According to the DICOM header, the values are not in HU but in MGML."]),
        ("HU", []),
    ):
        header = pydicom.dcmread(path)
        header.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = sequence(
            RescaleSlope=1, RescaleIntercept=-1000, RescaleType=unit
        )
        header.save_as(path)
        assert files.read_volume(tmp_path)[1] == expected


@pytest.mark.parametrize("scales", [((1, -1000),), (None,)])
def test_frames_without_positions_are_counted(tmp_path, scales):
    path = enhanced_ct(tmp_path / "ct.dcm", EVEN, scales=scales)
    header = pydicom.dcmread(path)
    header.PerFrameFunctionalGroupsSequence.pop()
    header.save_as(path)
    with pytest.raises(files.FileError, match="contains 5 frames but gives the positions of 4: export it again"):
        files.read_volume(path)


def test_a_file_of_one_frame_is_one_slice(tmp_path):
    volume, (note,) = files.read_volume(enhanced_ct(tmp_path / "ct.dcm", [5]))
    assert "Only the slice in this file was read" in note
    assert volume.array.shape == (1, 4, 5)
    assert volume.spacing_mm == pytest.approx([0.5, 0.7, 3])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"positions_mm": [0, 2, 4, 0, 2, 4]}, "is a sequence, with 6 images at 3 positions"),
        ({"positions_mm": [0, 2, 4, 10, 12]}, "lacks 2 slices, at z = 6 mm, z = 8 mm: copy"),
        (
            {"positions_mm": EVEN, "scales": ((1, -1000), None)},
            r"2 of the frames .* \(Rescale Intercept\), such as frame 2",
        ),
        ({"positions_mm": EVEN, "placed": False}, "does not say where each of its frames lies"),
    ],
)
def test_frames_that_make_no_volume_are_refused_with_one_sentence(tmp_path, options, words):
    with pytest.raises(files.FileError, match=words) as caught:
        files.read_volume(enhanced_ct(tmp_path / "ct.dcm", **options))
    assert "\n" not in str(caught.value)


def test_one_of_several_files_of_frames_in_a_series_is_read_only_if_its_number_was_given(tmp_path):
    for name, start in (("a.dcm", 0), ("b.dcm", 10)):
        header = pydicom.dcmread(enhanced_ct(tmp_path / name, [start + 2 * n for n in range(5)]))
        header.SeriesInstanceUID = "1.2.3"
        header.save_as(tmp_path / name)
    for series in (None, "1.2.3"):
        with pytest.raises(files.FileError, match="spread over 2 multi-frame files"):
            files.read_volume(tmp_path, series)
    assert len(files.read_volume(tmp_path, "1")[0].array) == 5


def test_the_frames_of_a_real_enhanced_ct_lie_where_its_header_says(shared_data):
    path = shared_data("odd_inputs/eCT_Supplemental.dcm")
    volume, _ = files.read_volume(path)
    assert volume.array.shape == (2, 512, 512)
    header = pydicom.dcmread(path)
    for frame, stored in zip(header.PerFrameFunctionalGroupsSequence, header.pixel_array, strict=True):
        x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
        i, j, k, _ = np.linalg.solve(volume.ijk_to_ras, [-x, -y, z, 1])
        np.testing.assert_allclose([i, j, k - round(k)], 0, atol=1e-6)
        here = volume.array[round(k)]
        assert np.corrcoef(here.ravel(), stored.ravel())[0, 1] > 0.9999  # in HU
