"""DICOM SEG: read back with highdicom, each mask lies on the slice it was made from."""

from __future__ import annotations

import sys
from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, generate_uid

from Testing.support.bright import bright_bundle
from Testing.support.enhanced_ct import enhanced_ct
from Testing.support.sample_files import KIDNEY, LEFT, NODULE, RIGHT, SEGMENTS, WHO, five_slices, labels, write_slice
from UNetPlusPlusSegmentLib import __version__, files
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.files import FileError
from UNetPlusPlusSegmentLib.files.dicom_seg import headers_of, without_patient


@pytest.fixture
def series(tmp_path):
    return five_slices(tmp_path / "ct")


def test_every_slice_of_the_segmentation_refers_to_the_slice_it_was_made_from(series, tmp_path):
    source = files.slices_of(series)
    assert [path.name for path in source] == ["9.dcm", "8.dcm", "7.dcm", "6.dcm", "5.dcm"]
    labelmap = labels()
    files.write_dicom_seg(tmp_path / "out.dcm", labelmap, SEGMENTS, source, "liver-ct-v1.2.3")
    seg = hd.seg.segread(tmp_path / "out.dcm")
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in source]
    pixels = seg.get_pixels_by_source_instance(
        source_sop_instance_uids=uids,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
        combine_segments=True,
    )
    numbered = np.select([labelmap == segment.value for segment in SEGMENTS], [1, 2, 3])
    np.testing.assert_array_equal(pixels, numbered)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        z = frame.PlanePositionSequence[0].ImagePositionPatient[2]
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert (numbered[round((z - 30) / 2.5)] == number).any()
    for segment, described in zip(SEGMENTS, seg.SegmentSequence, strict=True):
        assert described.SegmentLabel == segment.name
        kind = described.SegmentedPropertyTypeCodeSequence[0]
        assert f"{kind.CodingSchemeDesignator}^{kind.CodeValue}^{kind.CodeMeaning}" == segment.terminology.split("~")[2]
        assert described.SegmentAlgorithmName == "liver-ct-v1.2.3"


def test_a_real_series_gets_the_mask_that_nifti_gets_and_an_empty_one_is_written_too(shared_data, tmp_path):
    anonymous, scan = shared_data("volumes/abdomen_dicom"), tmp_path / "ct"
    with pytest.raises(FileError, match="lack UIDs that a DICOM SEG needs"):
        files.slices_of(anonymous)
    scan.mkdir()
    study, series = generate_uid(), generate_uid()
    for path in anonymous.iterdir():
        data = pydicom.dcmread(path)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, data.file_meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID = study, series
        data.save_as(scan / path.name)
    bundle = bright_bundle(tmp_path / "liver-ct-v99.0.0")
    asked = ["liver", str(scan), "--model", str(bundle.folder), "--device", "cpu"]
    for name in ("out.nii.gz", "out.dcm"):
        assert main([*asked, "-o", str(tmp_path / name)]) == 0
    mask = files.read_volume(tmp_path / "out.nii.gz")[0].array
    seg = hd.seg.segread(tmp_path / "out.dcm")
    found = seg.get_volume(combine_segments=True)
    assert np.count_nonzero(found.array) == np.count_nonzero(mask) > 1000
    uids = [pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files.slices_of(scan)]
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True, combine_segments=True)
    np.testing.assert_array_equal(pixels, mask)
    files.write_dicom_seg(
        tmp_path / "none.dcm", np.zeros_like(mask), SEGMENTS[:1], files.slices_of(scan), "liver-ct-v1.0.0"
    )
    assert not hd.seg.segread(tmp_path / "none.dcm").pixel_array.any()


def test_inputs_that_are_not_a_series_and_a_missing_library_are_refused_before_anything_runs(
    series, tmp_path, monkeypatch, capsys
):
    volume = tmp_path / "scan.nrrd"
    files.write_volume(volume, np.zeros((2, 3, 4), np.int16), np.eye(4))
    with pytest.raises(FileError, match="is not DICOM"):
        files.slices_of(volume)
    bundle = bright_bundle(tmp_path / "liver-ct-v99.0.0")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    asked = ["liver", str(series), "--model", str(bundle.folder), "-o", str(tmp_path / "out.dcm")]
    assert main(asked) == 1
    assert "pip install highdicom" in capsys.readouterr().err
    assert not (tmp_path / "out.dcm").exists()


def test_a_series_that_lacks_what_a_seg_takes_from_it_is_refused_with_a_way_out(tmp_path):
    write_slice(tmp_path / "ct" / "1.dcm")  # no patient, no frame of reference
    with pytest.raises(FileError, match=r"write_me\.dcm cannot be written.*\.seg\.nrrd"):
        files.write_dicom_seg(
            tmp_path / "write_me.dcm", labels()[:1], SEGMENTS, [tmp_path / "ct" / "1.dcm"], "liver-ct-v1.2.3"
        )
    assert not (tmp_path / "write_me.dcm").exists()


def lacking(folder, aside_mm=0.0, **tags):
    """A series without patient and study, but for what is given; each slice lies `aside_mm` to the side of the one before it."""
    for k in range(3):
        about = {"FrameOfReferenceUID": "1.2.3", "InstanceNumber": k, **tags}
        write_slice(folder / f"{k}.dcm", (0, aside_mm * k, 2.5 * k), **about)
    return folder


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"PatientName": "Doe"},
        {"PatientName": "Geheim^Person" + "x" * 70},
        {"PatientBirthDate": "1.1.1960", "StudyDate": "2026-01-01", "StudyTime": "noon", "PatientSex": "female"},
        {"PatientBirthDate": "00000000", "StudyTime": "12:00:00"},
    ],
    ids=["nothing", "one name", "long name", "no dates", "zero date"],
)
def test_what_may_be_empty_is_written_empty_and_nothing_is_printed_of_the_patient(
    tmp_path, tags, capfd, recwarn, caplog
):
    source = files.slices_of(lacking(tmp_path / "ct", **tags))
    recwarn.clear()
    caplog.clear()
    capfd.readouterr()
    files.check_dicom_seg(source)
    files.write_dicom_seg(tmp_path / "out.dcm", labels()[:3], SEGMENTS, source, "liver-ct-v1.2.3")
    assert capfd.readouterr() == ("", "") and not recwarn.list
    assert not caplog.records
    seg = hd.seg.segread(tmp_path / "out.dcm")
    assert seg.PatientName == tags.get("PatientName", "")
    assert not seg.PatientSex and not seg.StudyTime


@pytest.fixture
def refusal(tmp_path, capsys, monkeypatch):
    """A function that asks for a DICOM SEG of a scan, and returns the words with which that is refused before the scan is read."""

    def refusal(scan) -> str:
        bundle = bright_bundle(tmp_path / "liver-ct-v99.0.0")
        monkeypatch.setattr(files, "read_volume", lambda *_: pytest.fail("read"))
        assert main(["liver", str(scan), "--model", str(bundle.folder), "-o", str(tmp_path / "out.dcm")]) == 1
        return capsys.readouterr().err

    return refusal


def test_a_series_that_cannot_get_a_seg_is_refused_before_anything_is_read(tmp_path, refusal):
    path = with_uids(enhanced_ct(tmp_path / "ct.dcm", [0.0, 2.0]))
    header = pydicom.dcmread(path)
    measures = header.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence")
    for frame in header.PerFrameFunctionalGroupsSequence:
        frame.add(measures)
    header.save_as(path)
    assert "cannot be written: the series lacks attributes that a DICOM SEG needs" in refusal(path)


@pytest.mark.parametrize("value", [None, ""], ids=["removed", "emptied"])
@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
def test_a_series_whose_uids_were_removed_or_emptied_is_refused_before_anything_is_read(tmp_path, refusal, name, value):
    assert "lack UIDs that a DICOM SEG needs" in refusal(lacking(tmp_path / "ct", **{name: value}))


def test_the_reason_is_readable_and_tells_nothing_of_the_patient(tmp_path):
    write_slice(tmp_path / "ct" / "1.dcm", **{**WHO, "PatientSex": "F", "PatientID": "U"})
    source = [tmp_path / "ct" / "1.dcm"]
    with pytest.raises(FileError, match=r"\(Source images have no Frame Of Reference UID, "):
        files.write_dicom_seg(tmp_path / "out.dcm", labels()[:1], SEGMENTS, source, "liver-ct-v1.2.3")
    assert without_patient("A^B (1, U) lacks a UID.", headers_of(source)) == "… (…, …) lacks a UID."


@pytest.mark.parametrize("term", ["", "Liver", "~^^~^^~^^~~^^~^^", "~SCT^123037004~SCT^10200004^Liver"])
def test_a_segment_without_terminology_is_written_as_tissue(series, tmp_path, term):
    segments = [Segment(1, "Liver", term, (1, 2, 3), {"volume_ml": 1.0})]
    source = files.slices_of(series)
    files.write_dicom_seg(tmp_path / "out.dcm", labels() % 2, segments, source, "mine-v1.0.0")
    (written,) = files.segments_in(tmp_path / "out.dcm")
    assert (written.name, written.terminology.split("~")[1:3]) == (
        "Liver", ["SCT^123037004^Anatomical Structure", "SCT^85756007^Tissue"],
    )  # fmt: skip


@pytest.mark.parametrize(
    "term",
    [KIDNEY.format(RIGHT), KIDNEY.format(LEFT), NODULE, NODULE.removesuffix("^^") + RIGHT],
    ids=["right kidney", "left kidney", "nodule of a lung", "nodule of the right lung"],
)
def test_side_and_region_of_a_segment_are_written_and_read_back(series, tmp_path, term):
    source = files.slices_of(series)
    files.write_dicom_seg(
        tmp_path / "out.dcm", labels() % 2, [Segment(1, "It", term, (1, 2, 3), {})], source, "mine-v1.0.0"
    )
    (written,) = files.segments_in(tmp_path / "out.dcm")
    assert written.terminology.split("~")[1:] == term.split("~")[1:]


def test_a_meaning_that_is_too_long_for_dicom_is_cut(series, tmp_path):
    segments = [Segment(1, "Liver", f"~99X^1^{'category' * 9}~99X^2^{'type' * 20}", (1, 2, 3), {})]
    files.write_dicom_seg(tmp_path / "out.dcm", labels() % 2, segments, files.slices_of(series), "mine-v1.0.0")
    (written,) = files.segments_in(tmp_path / "out.dcm")
    assert written.terminology.split("~")[1:3] == [f"99X^1^{'category' * 8}", f"99X^2^{'type' * 16}"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO 2022 IR 6", "Mueller^Joerg"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Müller^Jörg"),
        ("UTF-8", "Müller^Jörg"),
        (None, "Mueller^Joerg"),
    ],
)
def test_names_of_patient_and_segment_in_any_alphabet_are_in_seg_and_sr(tmp_path, charset, name):
    who = {**WHO, "SpecificCharacterSet": charset, "PatientName": name}
    for k in range(5):
        write_slice(tmp_path / "ct" / f"{k}.dcm", (1, 2, 30 + 2.5 * k), FrameOfReferenceUID="1.2.3", **who)
    source = files.slices_of(tmp_path / "ct")
    files.check_dicom_seg(source)
    liver = replace(SEGMENTS[0], name="肝臓", measurements={"volume_ml": 1.0})
    paths = files.beside(tmp_path / "out.sr.dcm")
    files.write_forms(paths, labels() % 2, np.eye(4), [liver], source, "liver-ct-v1.2.3")
    assert [str(pydicom.dcmread(path).PatientName) for path in paths] == [name, name]
    assert [segment.name for segment in files.segments_in(paths[0])] == ["肝臓"]
    (group,) = hd.sr.srread(paths[1]).content.get_volumetric_roi_measurement_groups()
    assert group.tracking_identifier == "肝臓"


def test_a_seg_is_written_of_slices_without_preamble(series, tmp_path):
    for path in series.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    source = files.slices_of(series)
    files.write_dicom_seg(tmp_path / "out.dcm", labels(), SEGMENTS, source, "liver-ct-v1.2.3")
    assert hd.seg.segread(tmp_path / "out.dcm").number_of_segments == len(SEGMENTS)


def thickness_of(path):
    return hd.seg.segread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness


@pytest.mark.parametrize("thickness", [None, ""], ids=["missing", "empty"])
@pytest.mark.parametrize(("count", "thick_mm"), [(3, 2.5), (1, 1.0)])
def test_slices_of_unknown_thickness_are_as_thick_as_they_are_apart_and_a_single_one_as_it_is_read(
    tmp_path, thickness, count, thick_mm
):
    source = files.slices_of(lacking(tmp_path / "ct", aside_mm=0.5, SliceThickness=thickness))[:count]
    files.check_dicom_seg(source)
    files.write_dicom_seg(tmp_path / "out.dcm", labels()[1 : count + 1], SEGMENTS, source, "liver-ct-v1.2.3")
    assert thickness_of(tmp_path / "out.dcm") == thick_mm
    volume, _ = files.read_volume(source[0] if count == 1 else tmp_path / "ct")
    assert volume.ijk_to_ras[2, 2] == thick_mm
    liver = next(files.masks_of(files.segments_in(tmp_path / "out.dcm"), volume))
    np.testing.assert_array_equal(liver, labels()[1 : count + 1] == 1)


def test_frames_of_unknown_thickness_are_as_thick_as_they_are_apart(tmp_path):
    path = with_uids(enhanced_ct(tmp_path / "ct.dcm", [4.0, 0.0, 2.0]))
    header = pydicom.dcmread(path)
    del header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness
    header.save_as(path)
    mask = np.zeros((3, 4, 5), np.uint8)
    mask[[0, 1, 2], [0, 1, 2], 1] = 1
    files.write_dicom_seg(tmp_path / "out.dcm", mask, SEGMENTS[:1], files.slices_of(path), "liver-ct-v1.0.0")
    assert thickness_of(tmp_path / "out.dcm") == 2.0
    (found,) = files.masks_of(files.segments_in(tmp_path / "out.dcm"), files.read_volume(path)[0])
    np.testing.assert_array_equal(found, mask)


def test_segments_that_people_drew_or_corrected_do_not_pass_for_those_of_a_model(series, tmp_path):
    files.write_dicom_seg(tmp_path / "out.dcm", labels(), SEGMENTS, files.slices_of(series), model=None)
    seg = hd.seg.segread(tmp_path / "out.dcm")
    assert seg.SeriesDescription == "Segmentation edited by hand"
    for segment in seg.SegmentSequence:
        assert (segment.SegmentAlgorithmType, segment.SegmentAlgorithmName) == ("SEMIAUTOMATIC", "UNetPlusPlusSegment")
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Manual Processing"
        assert algorithm.AlgorithmVersion == __version__


def with_uids(path):
    """A file with the UIDs of study and frame of reference that `enhanced_ct` leaves out."""
    header = pydicom.dcmread(path)
    header.StudyInstanceUID, header.FrameOfReferenceUID = generate_uid(), generate_uid()
    header.save_as(path)
    return path


def places_of_mask(path):
    """The place of every frame of a segmentation, and the frame of the image that it refers to."""
    found = {}
    for frame in hd.seg.segread(path).PerFrameFunctionalGroupsSequence:
        referred = frame.DerivationImageSequence[0].SourceImageSequence[0]
        found[float(frame.PlanePositionSequence[0].ImagePositionPatient[2])] = int(referred.ReferencedFrameNumber)
    return found


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 1, 2]])
def test_a_seg_of_one_file_with_many_frames_lies_on_the_frames_it_was_made_from(tmp_path, order):
    path = with_uids(enhanced_ct(tmp_path / "ct.dcm", [2.0 * n for n in order]))
    volume, _ = files.read_volume(path)
    mask = np.zeros(volume.array.shape, np.uint8)
    mask[1, 1:3, 2:4] = 1  # at 2 mm
    mask[4, 0, 0] = 1  # at 8 mm
    source = files.slices_of(path)
    files.check_dicom_seg(source)
    files.write_dicom_seg(tmp_path / "out.dcm", mask, SEGMENTS[:1], source, "liver-ct-v1.0.0")
    assert places_of_mask(tmp_path / "out.dcm") == {2.0: order.index(1) + 1, 8.0: order.index(4) + 1}
    pixels = hd.seg.segread(tmp_path / "out.dcm").get_pixels_by_source_frame(
        source_sop_instance_uid=pydicom.dcmread(path).SOPInstanceUID,
        source_frame_numbers=[order.index(k) + 1 for k in range(5)],
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
        combine_segments=True,
    )
    np.testing.assert_array_equal(pixels, mask)


def test_a_real_enhanced_ct_gets_a_seg_from_the_command_line(shared_data, tmp_path):
    scan = shared_data("odd_inputs/eCT_Supplemental.dcm")
    bundle = bright_bundle(tmp_path / "liver-ct-v99.0.0")
    asked = ["liver", str(scan), "--model", str(bundle.folder), "--device", "cpu", "--force"]
    for name in ("out.nii.gz", "out.dcm"):
        assert main([*asked, "-o", str(tmp_path / name)]) == 0
    mask, affine = (v := files.read_volume(tmp_path / "out.nii.gz")[0]).array, v.ijk_to_ras
    assert set(places_of_mask(tmp_path / "out.dcm")) == {
        float((affine @ [0, 0, k, 1])[2]) for k in np.flatnonzero(mask.any(axis=(1, 2)))
    }
    assert hd.seg.segread(tmp_path / "out.dcm").pixel_array.sum() == mask.sum() > 0


def test_a_seg_of_a_single_slice_is_written_beside_it(series, tmp_path):
    bundle = bright_bundle(tmp_path / "liver-ct-v99.0.0")
    slice_ = series / "9.dcm"
    asked = ["liver", str(slice_), "--model", str(bundle.folder), "--device", "cpu", "--force"]
    assert main([*asked, "-o", str(tmp_path / "out.dcm")]) == 0
    uid = pydicom.dcmread(slice_).SOPInstanceUID
    assert (
        pydicom.dcmread(tmp_path / "out.dcm")
        .ReferencedSeriesSequence[0]
        .ReferencedInstanceSequence[0]
        .ReferencedSOPInstanceUID
        == uid
    )
