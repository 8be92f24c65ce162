"""nodule.py: LIDC-IDRI, built from a real chest and the readers' masks of the shared folder."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from skimage import measure

import nodule
from data.slices import read_slices
from data.targets import load_target
from Testing.support.prepare_scripts import picture, refused, rows_of

WHERE_NODULE_LIES = (3, 302, 252)  # K, J, I of the first slice of LIDC-IDRI-0001_n0 in LIDC-IDRI-0001_ct


def outlines_of(region: np.ndarray) -> list[tuple[np.ndarray, bool]]:
    """Closed lines on the pixels just outside a region, as drawn by the readers of LIDC-IDRI: columns and rows, and inclusion."""
    padded = np.pad(region, 1)
    outlines = []
    for contour in measure.find_contours(padded.astype(float), 0.5):  # halfway between a pixel inside and one outside
        one, other = np.floor(contour).astype(int), np.ceil(contour).astype(int)
        outside = np.where(padded[tuple(one.T)][:, None], other, one) - 1
        outside = outside[np.r_[True, (np.diff(outside, axis=0) != 0).any(axis=1)]]
        y, x = contour.T
        outlines.append((outside[:, ::-1], bool((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0)))
    return outlines


def test_an_outline_gives_back_the_region_it_was_drawn_around_with_its_holes(shared_data):
    rows = rows_of(shared_data("nodule"))
    with_holes = 0
    for row in [
        *rows[::60],
        *(row for row in rows if row["file"].startswith(("LIDC-IDRI-0454_n6", "LIDC-IDRI-0508_n0"))),
    ]:
        count = picture(shared_data("nodule/masks") / row["file"])
        for readers in range(1, count.max() + 1):
            drawn = outlines_of(count >= readers)
            outlines = [nodule.Outline("a", points, inclusion) for points, inclusion in reversed(drawn)]
            area = nodule.filled(outlines, {"a": 7}, count.shape)
            np.testing.assert_array_equal(area[7], count >= readers, err_msg=row["file"])
            with_holes += not all(inclusion for _, inclusion in drawn)
    assert with_holes > 2


@pytest.fixture(scope="session")
def chest(shared_data) -> tuple[np.ndarray, np.ndarray, list[dict[str, str]]]:
    """HU of LIDC-IDRI-0001 (slices, rows, columns), readers that marked each voxel, and the shared rows of its nodule."""
    hu = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data("volumes/LIDC-IDRI-0001_ct.nii.gz"))))
    rows = [row for row in rows_of(shared_data("nodule")) if row["patient"] == "LIDC-IDRI-0001"]
    readers = np.zeros(hu.shape, np.uint8)
    first, top, left = WHERE_NODULE_LIES
    for row in rows:
        mask = picture(shared_data("nodule/masks") / row["file"])
        readers[first + int(row["slice"]), top : top + 128, left : left + 128] = mask
    return hu, readers, rows


def write_lidc(folder: Path, hu: np.ndarray, readings: list[list[np.ndarray]], prone=False) -> Path:
    """Write a scan as LIDC-IDRI has it: DICOM slices, and an XML file with the nodules of each reader (bool, as `hu`)."""
    series = folder / "LIDC-IDRI-0001" / "1.2" / "1.2.3"
    series.mkdir(parents=True)
    turn = -1 if prone else 1  # rows and columns run the other way, and the header says so
    for k, plane in enumerate(hu):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"1.2.3.{100 + k}"
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = "1.2.3", "1.2", "1.2.9"
        data.PatientID, data.Modality, data.SliceThickness = "LIDC-IDRI-0001", "CT", 2.5
        data.ImagePositionPatient = [-166 * turn, -171.7 * turn, -132.5 + 2.5 * k]
        data.ImageOrientationPatient = [turn, 0, 0, 0, turn, 0]
        data.PixelSpacing, (data.Rows, data.Columns) = [0.703125, 0.703125], plane.shape
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.RescaleIntercept, data.RescaleSlope = -1024, 1
        data.PixelData = np.ascontiguousarray(plane[::turn, ::turn] + 1024).astype("<i2").tobytes()
        data.save_as(series / f"1-{len(hu) - k:03d}.dcm", enforce_file_format=True)  # last slice first
    (series / "069.xml").write_bytes(lidc_xml(readings, turn))
    return folder


def lidc_xml(readings: list[list[np.ndarray]], turn: int) -> bytes:
    element = ElementTree.SubElement
    root = ElementTree.Element("LidcReadMessage", xmlns="http://www.nih.gov", uid="1.3.6.1.4.1.14519.5.2.1.6279.6001.1")
    header = element(root, "ResponseHeader")
    element(header, "SeriesInstanceUid").text = "1.2.3"
    for reader, nodules in enumerate(readings):
        session = element(root, "readingSession")
        element(session, "annotationVersion").text = "3.12"
        for number, region in enumerate(nodules):
            mark = element(session, "unblindedReadNodule")
            element(mark, "noduleID").text = f"Nodule {number:03d}"
            element(element(mark, "characteristics"), "subtlety").text = "5"
            for k in np.flatnonzero(region.any(axis=(1, 2))):
                for points, inclusion in outlines_of(region[k, ::turn, ::turn]):
                    add_roi(mark, int(k), points, inclusion)
        small = element(session, "unblindedReadNodule")  # below 3 mm: one point, right in the large one
        element(small, "noduleID").text = f"small {reader}"
        add_roi(small, 6, np.array([[316, 364]]), True)
        other = element(session, "nonNodule")
        element(other, "imageSOP_UID").text = "1.2.3.106"
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)


def add_roi(mark: ElementTree.Element, k: int, points: np.ndarray, inclusion: bool) -> None:
    element = ElementTree.SubElement
    roi = element(mark, "roi")
    element(roi, "imageZposition").text = f"{-132.5 + 2.5 * k} "
    element(roi, "imageSOP_UID").text = f"1.2.3.{100 + k}"
    element(roi, "inclusion").text = str(inclusion).upper()
    for x, y in points:
        edge = element(roi, "edgeMap")
        element(edge, "xCoord").text, element(edge, "yCoord").text = str(x), str(y)


@pytest.mark.parametrize("prone", [False, True], ids=["as usual", "turned by its header"])
def test_lidc_readings_give_the_crops_and_reader_counts_of_the_shared_folder(chest, shared_data, tmp_path, prone):
    hu, readers, shared_rows = chest
    source = write_lidc(tmp_path / "in", hu, [[readers > r] for r in range(4)], prone)
    assert (
        nodule.main([str(source), "-o", str(tmp_path / "out"), "--split", str(shared_data("nodule/slices.csv"))]) == 0
    )
    rows = rows_of(tmp_path / "out")
    assert rows == shared_rows
    for row in rows:
        new, old = (
            (folder / "images" / row["file"], folder / "masks" / row["file"])
            for folder in (tmp_path / "out", shared_data("nodule"))
        )
        new_mask, old_mask = picture(new[1]), picture(old[1])
        shift = [int(a.min() - b.min()) for a, b in zip(np.nonzero(new_mask), np.nonzero(old_mask), strict=True)]
        assert max(map(abs, shift)) <= 1  # the shared crops have another notion of the middle
        np.testing.assert_array_equal(new_mask, np.roll(old_mask, shift, axis=(0, 1)))
        k, top, left = np.add(WHERE_NODULE_LIES, (int(row["slice"]), -shift[0], -shift[1]))
        crop = hu[k, top : top + 128, left : left + 128].clip(-1000, 400)
        np.testing.assert_allclose(-1000 + picture(new[0]) * (1400 / 255), crop, atol=0.5 * 1400 / 255 + 1e-6)
    assert read_slices(tmp_path / "out", load_target("nodule"), "val")


def test_of_two_images_at_one_position_the_first_is_used_with_the_outlines_of_both(chest, tmp_path, capsys):
    hu, readers, _ = chest
    source = write_lidc(tmp_path / "in", hu, [[readers > 0], [readers > 1]])
    asked = [str(source), "--val", "0", "-o"]
    assert nodule.main([*asked, str(tmp_path / "once")]) == 0
    series = source / "LIDC-IDRI-0001/1.2/1.2.3"
    again = pydicom.dcmread(series / "1-010.dcm")
    assert again.SOPInstanceUID == "1.2.3.106"
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = "1.2.3.900"
    again.InstanceNumber, again.PixelData = 900, bytes(len(again.PixelData))
    again.save_as(series / "1-900.dcm")
    xml = series / "069.xml"
    xml.write_bytes(xml.read_bytes().replace(b"1.2.3.106", b"1.2.3.900", 1))
    assert nodule.main([*asked, str(tmp_path / "twice")]) == 0
    assert "left out 1 image at the position of another one" in capsys.readouterr().err
    assert rows_of(tmp_path / "twice") == rows_of(tmp_path / "once")
    for path in (tmp_path / "once").rglob("*.png"):
        np.testing.assert_array_equal(picture(path), picture(tmp_path / "twice" / path.relative_to(tmp_path / "once")))


def test_overlapping_marks_are_one_nodule_and_marks_of_a_single_reader_are_not_kept(chest, tmp_path):
    hu = chest[0]

    def disc(k: int, row: int, column: int) -> np.ndarray:
        y, x = np.ogrid[: hu.shape[1], : hu.shape[2]]
        region = np.zeros(hu.shape, bool)
        region[k : k + 3] = (y - row) ** 2 + (x - column) ** 2 < 50
        return region

    alone, edge = disc(2, 200, 150), disc(9, 30, 480)
    chain = [disc(5, 200, column) for column in (300, 310, 320)]  # the first and the third do not touch
    readings = [[alone, chain[0], edge], [chain[1]], [edge, chain[2]], [chain[2]]]
    assert nodule.main([str(write_lidc(tmp_path / "in", hu, readings)), "-o", str(tmp_path / "out"), "--val", "0"]) == 0
    rows = rows_of(tmp_path / "out")
    assert [(row["nodule"], row["slice"]) for row in rows] == [(n, k) for n in "12" for k in "012"]  # 0 was `alone`
    count = sum(region[5].astype(int) for region in (*chain, chain[2]))
    assert count.max() == 3
    for row in rows[:3]:
        assert [int(row[f"px_{n}reader{'s' * (n > 1)}"]) for n in (1, 2, 3)] == [(count >= n).sum() for n in (1, 2, 3)]
    at_edge = picture(tmp_path / "out" / "masks" / rows[3]["file"])  # the crop stays inside the slice
    np.testing.assert_array_equal(at_edge, 2 * edge[9, :128, -128:])


def test_a_reader_who_drew_a_nodule_in_two_parts_that_overlap_counts_once():
    left, right = np.array([[True, True, False]]), np.array([[False, True, True]])
    cluster = [(0, {5: left}), (0, {5: right, 6: right}), (3, {5: right})]
    readers = nodule.count_readers(cluster, (7, 1, 3))
    assert readers[5:].tolist() == [[[1, 2, 2]], [[0, 1, 1]]]
    assert not readers[:5].any()


def test_an_incomplete_lidc_source_is_refused_with_the_name_of_the_file(chest, tmp_path, capsys):
    hu, readers, _ = chest
    source, output = write_lidc(tmp_path / "in", hu, [[readers > 0], [readers > 1]]), tmp_path / "out"
    series = source / "LIDC-IDRI-0001/1.2/1.2.3"
    xml, image = series / "069.xml", series / "1-010.dcm"  # the seventh slice
    right, slice_7 = xml.read_bytes(), image.read_bytes()

    def line() -> str:
        return refused(nodule, [source, "--val", "0"], output, capsys)

    image.unlink()
    assert f"{xml} marks image 1.2.3.106, which is missing from {series}" in line()
    image.write_bytes(b"no DICOM")
    assert f"{image} cannot be read as DICOM" in line()
    image.write_bytes(slice_7)
    xml.write_bytes(right.replace(b"1.2.3</Series", b"1.2.4</Series"))
    assert f"{xml} is a reading of series 1.2.4, whose images are not in {source}" in line()
    xml.write_bytes(right[:-1000])
    assert f"{xml} cannot be read as XML" in line()
    xml.write_bytes(right.replace(b"<inclusion>TRUE", b"<inclusion>maybe", 1))
    assert f"{xml} is not a complete reading of LIDC-IDRI" in line()
    xml.write_bytes(right)
    (source / "copy.xml").write_bytes(right)
    assert f"{xml} and {source / 'copy.xml'} are" in line() or f"{source / 'copy.xml'} and {xml} are" in line()
    (source / "copy.xml").unlink()
    xml.write_bytes(right.replace(b"LidcReadMessage", b"IdriReadMessage"))  # of a chest film
    assert f"{source} holds no XML file of LIDC-IDRI readings" in line()
