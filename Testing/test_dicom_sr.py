"""DICOM SR: read back with highdicom, and by the rules of dciodvfy where that is installed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest

from Testing.support.sample_files import KIDNEY, LEFT, RIGHT, SEGMENTS, five_slices, labels
from UNetPlusPlusSegmentLib import __version__, files

LIVER = {"volume_ml": 1146.2718281828459, "mean_hu": 101.54321}
NODULE = {
    "volume_ml": 0.842, "mean_hu": -12.5, "long_axis_mm": 14.26, "short_axis_mm": 9.1, "mean_diameter_mm": 11.68,
    "long_axis_ras": ((1.0, 2.0, 3.0), (10.0, 2.0, 3.0)), "short_axis_ras": ((5.0, 0.0, 3.0), (5.0, 9.0, 3.0)),
    "centroid_ras": (5.0, 4.0, 3.0),
}  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """A SEG and an SR of a liver and a nodule, the slices, and the folder."""
    source = files.slices_of(five_slices(tmp_path / "ct"))
    segments = [replace(SEGMENTS[0], measurements=LIVER), replace(SEGMENTS[2], measurements=NODULE)]
    paths = files.beside(tmp_path / "out.dcm", ["sr.dcm"])
    assert [path.name for path in paths] == ["out.dcm", "out.sr.dcm"]
    files.write_forms(paths, labels(), np.eye(4), segments, source, "liver-ct-v1.2.3")
    return tmp_path, source, segments


def measured(group) -> dict[str, tuple[float, str]]:
    return {
        each.name.meaning: (each.value, each.unit.value) for each in group.get_measurements()
    }  # fmt: skip


def test_the_report_has_the_figures_of_each_segment_and_refers_to_seg_and_images(written):
    folder, source, segments = written
    report = hd.sr.srread(folder / "out.sr.dcm")
    seg = pydicom.dcmread(folder / "out.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == [segment.name for segment in segments]
    assert measured(groups[0]) == {"Volume": (1146.27183, "ml"), "Attenuation Coefficient": (101.54321, "[hnsf'U]")}
    assert measured(groups[1]) == {
        "Volume": (0.842, "ml"), "Attenuation Coefficient": (-12.5, "[hnsf'U]"), "Long Axis": (14.26, "mm"),
        "Short Axis": (9.1, "mm"), "Diameter": (11.68, "mm"),
    }  # fmt: skip
    for number, (group, segment) in enumerate(zip(groups, segments, strict=True), start=1):
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert reference.referenced_segment_numbers[0] == number
        assert group.finding_type.meaning == segment.terminology.split("~")[2].split("^")[2]
    evidence = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert evidence == {seg.SOPInstanceUID, *(pydicom.dcmread(path).SOPInstanceUID for path in source)}


def test_the_report_says_where_a_nodule_is(written):
    folder, _, _ = written
    report = hd.sr.srread(folder / "out.sr.dcm")
    (places,) = report.content.get_image_measurement_groups()
    assert places.tracking_uid == report.content.get_volumetric_roi_measurement_groups()[1].tracking_uid
    found = {
        each.name.meaning: each.referenced_coordinates[0].value for each in places.get_measurements()
    }  # fmt: skip
    lps = np.array([-1, -1, 1])
    np.testing.assert_allclose(found["Long Axis"], np.array(NODULE["long_axis_ras"]) * lps)
    np.testing.assert_allclose(found["Short Axis"], np.array(NODULE["short_axis_ras"]) * lps)
    np.testing.assert_allclose(found["Diameter"], [np.array(NODULE["centroid_ras"]) * lps])


def test_the_report_gives_the_side_of_an_organ_and_the_region_of_a_nodule_as_its_site(written):
    folder, source, segments = written
    liver, nodule = (segment.terminology for segment in segments)
    terms = [KIDNEY.format(RIGHT), KIDNEY.format(LEFT), nodule, nodule.removesuffix("^^") + LEFT, liver]
    said = [replace(SEGMENTS[0], measurements={"volume_ml": 0.0}, terminology=term) for term in terms]
    files.write_forms(
        files.beside(folder / "sites.sr.dcm"), np.zeros_like(labels()), np.eye(4), [], source, "mine-v1.2.3", said
    )
    sites = [
        [(site.value.meaning, site.laterality and site.laterality.meaning) for site in group.finding_sites]
        for group in hd.sr.srread(folder / "sites.sr.dcm").content.get_volumetric_roi_measurement_groups()
    ]
    assert sites == [[("Kidney", "Right")], [("Kidney", "Left")], [("Lung", None)], [("Lung", "Left")], []]


def test_seg_and_sr_name_series_program_and_version_in_their_own_fields(written):
    folder, _, _ = written
    for name, about in (("out.dcm", "Segmentation"), ("out.sr.dcm", "Measurements")):
        read = pydicom.dcmread(folder / name)
        assert read.SeriesDescription == f"{about} by liver-ct-v1.2.3"
        assert read.ManufacturerModelName == "UNetPlusPlusSegment"
        assert str(read.SoftwareVersions) == __version__
        assert (read.PatientName, read.StudyDate) == ("A^B", "20260101")


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("liver-ct-v1.2.3", "1.2.3"),
        ("liver-ct-v1.2.3, lung-nodule-ct-v2.0.0", "1.2.3, 2.0.0"),
        ("a-very-long-name-of-a-model-for-the-liver-in-computed-tomography-v1.2.3", "1.2.3"),
        ("my-vessels", "unknown"),
    ],
)
def test_the_version_of_the_algorithm_is_that_of_the_models_and_never_their_name(written, model, version):
    folder, source, segments = written
    files.write_forms(files.beside(folder / "again.sr.dcm"), labels(), np.eye(4), segments, source, model)
    for segment in pydicom.dcmread(folder / "again.dcm").SegmentSequence:
        assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == version
    report = hd.sr.srread(folder / "again.sr.dcm")
    said = [
        item.TextValue
        for group in report.content.get_volumetric_roi_measurement_groups()
        for item in group[0].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Algorithm Version"
    ]
    assert said == [version] * len(segments)


def test_where_nothing_was_found_the_report_says_0_ml(written):
    folder, source, _ = written
    nothing = [replace(SEGMENTS[0], measurements={"volume_ml": 0.0})]
    paths = files.beside(folder / "none.sr.dcm")
    files.write_forms(paths, np.zeros_like(labels()), np.eye(4), [], source, "liver-ct-v1.2.3", nothing)
    (group,) = hd.sr.srread(folder / "none.sr.dcm").content.get_volumetric_roi_measurement_groups()
    assert measured(group) == {"Volume": (0.0, "ml")}


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy is not installed (Debian: dicom3tools)")
@pytest.mark.parametrize("name", ["out.dcm", "out.sr.dcm"])
def test_seg_and_sr_keep_dicom_s_rules(written, name):
    done = subprocess.run(["dciodvfy", written[0] / name], capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))]
    assert not said
