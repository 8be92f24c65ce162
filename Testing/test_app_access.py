"""Who may open the app, and what it reads: rules that need neither browser nor Slicer."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from UNetPlusPlusSegmentLib.app.access import COOKIE, Door, Folders, RefusedError
from UNetPlusPlusSegmentLib.app.cases import find, uploaded
from UNetPlusPlusSegmentLib.files import FileError
from UNetPlusPlusSegmentLib.jobs.manifest import MANIFEST

HERE = {"Host": "127.0.0.1:8080"}
SOCKET = {**HERE, "Upgrade": "websocket"}


def a_scan(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16)), str(path))
    return path


def test_on_this_computer_the_page_and_its_socket_open_without_a_token():
    door = Door()
    door.check("GET", HERE, {}, None)
    door.check("GET", {**SOCKET, "Origin": "http://127.0.0.1:8080"}, {}, None)
    door.check("POST", {**HERE, "Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}, {}, None)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"Host": "attacker.example:8080"}),  # a name that was made to point here
        ("GET", {**SOCKET, "Origin": "http://attacker.example"}),
        ("GET", {**SOCKET, "Origin": "http://127.0.0.1:9999"}),
        ("GET", SOCKET),
        ("POST", HERE),
        ("POST", {**HERE, "Origin": "null"}),
        ("POST", {**HERE, "Origin": "http://["}),
        ("GET", {**HERE, "Sec-Fetch-Site": "cross-site"}),  # a picture or a frame in another page
    ],
)
def test_another_origin_is_refused(method, headers):
    with pytest.raises(RefusedError):
        Door().check(method, headers, {}, None)


@pytest.mark.parametrize("cookies", [{}, {COOKIE: ""}, {COOKIE: "wrong"}, {COOKIE: "right "}, {COOKIE: "ríght\udcff"}])
@pytest.mark.parametrize("given", [None, "", "wrong"])
@pytest.mark.parametrize("headers", [HERE, {**SOCKET, "Origin": "http://127.0.0.1:8080"}], ids=["page", "socket"])
def test_a_wrong_token_opens_neither_page_nor_socket(headers, given, cookies):
    with pytest.raises(RefusedError, match="token"):
        Door("right").check("GET", headers, cookies, given)


def test_the_right_token_opens_both_from_the_address_and_as_a_cookie():
    door, there = Door("right"), {"Host": "gpu.example:8080"}
    door.check("GET", {**there, "Sec-Fetch-Site": "cross-site"}, {}, "right")  # a link in a mail
    door.check("GET", there, {COOKIE: "right"}, None)
    door.check("GET", {**there, "Upgrade": "websocket", "Origin": "https://gpu.example:8080"}, {COOKIE: "right"}, None)
    with pytest.raises(RefusedError, match="page from"):
        door.check("GET", {**there, "Upgrade": "websocket", "Origin": "https://x.example"}, {COOKIE: "right"}, None)


def test_a_file_inside_the_folders_is_served_and_one_outside_is_not(tmp_path):
    inside, outside = a_scan(tmp_path / "in" / "a.nrrd"), a_scan(tmp_path / "out" / "b.nrrd")
    link = tmp_path / "in" / "link.nrrd"
    link.symlink_to(outside)
    (tmp_path / "in" / "folder").symlink_to(outside.parent)
    folders = Folders([tmp_path / "in"])
    assert folders.scan(inside) == inside.resolve()
    for path in (outside, link, tmp_path / "in" / ".." / "out" / "b.nrrd", tmp_path / "in" / "folder", "/etc/passwd"):
        with pytest.raises(RefusedError, match="outside the folders"):
            folders.scan(path)


def test_a_dicom_folder_with_a_link_to_a_file_outside_is_refused(tmp_path):
    (tmp_path / "series").mkdir()
    a_scan(tmp_path / "secret.nrrd")
    (tmp_path / "series" / "1.dcm").symlink_to(tmp_path / "secret.nrrd")
    with pytest.raises(RefusedError, match="outside"):
        Folders([tmp_path / "series"]).scan(tmp_path / "series")


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/passwd", "%03d.raw", "LIST", "list", "sub/secret.raw"])
def test_a_header_that_names_voxels_elsewhere_is_refused(tmp_path, name):
    nrrd, meta = tmp_path / "a.nrrd", tmp_path / "a.mha"
    nrrd.write_bytes(b"NRRD0004\r\ntype: short\r\nData File: " + name.encode() + b"\r\n\r\n")
    meta.write_text(f"ObjectType = Image\nNDims = 3\nElementDataFile : {name}\nElementDataFile = LOCAL\n")
    for path in (nrrd, meta):
        with pytest.raises(RefusedError, match="names other files"):
            Folders([tmp_path]).scan(path)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.nhdr", "NRRD0004\n# a comment\rdata file: {}\n\n"),
        ("a.nhdr", "NRRD0004\rdata file: {}\r\r"),
        ("a.mhd", "NDims = 3\nElementDataFile = \rlist\n{}\n"),
        ("a.mhd", "NDims = 3\nElementDataFile = \x1clist 2D\n{}\n"),
    ],
)
def test_an_odd_line_end_or_space_hides_no_voxels_elsewhere(tmp_path, name, header):
    (tmp_path / name).write_bytes(header.format("/etc/passwd").encode())
    with pytest.raises(RefusedError, match="names other files"):
        Folders([tmp_path]).scan(tmp_path / name)


@pytest.mark.parametrize("name", ["é.raw", "a.raw "])
def test_the_voxels_beside_a_header_are_checked_under_the_name_that_is_read(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "a.nhdr").write_bytes(f"NRRD0004\ndata file: {name}\n\n".encode())
    with pytest.raises(RefusedError, match="outside"):
        Folders([tmp_path / "in"]).scan(tmp_path / "in" / "a.nhdr")


def test_a_header_beside_its_voxels_is_read_if_both_are_inside(tmp_path):
    scan = a_scan(tmp_path / "in" / "a.mhd")
    folders = Folders([tmp_path / "in"])
    folders.scan(scan)
    (tmp_path / "in" / "a.raw").rename(tmp_path / "a.raw")
    (tmp_path / "in" / "a.raw").symlink_to(tmp_path / "a.raw")
    with pytest.raises(RefusedError, match="outside"):
        folders.scan(scan)


@pytest.mark.parametrize(("given", "other"), [("a.hdr", "a.img"), ("a.hdr", "a.img.gz"), ("a.img", "a.hdr")])
def test_a_file_of_a_pair_is_read_if_both_are_inside(tmp_path, given, other):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / given).touch()
    folders = Folders([tmp_path / "in"])
    folders.scan(tmp_path / "in" / given)
    (tmp_path / "secret").touch()
    (tmp_path / "in" / other).symlink_to(tmp_path / "secret")
    with pytest.raises(RefusedError, match="outside"):
        folders.scan(tmp_path / "in" / given)


def test_a_header_without_end_or_without_voxels_is_refused(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\n" + b"# padding\n" * 200_000 + b"data file: x.raw\n\n")
    (tmp_path / "b.nrrd").write_bytes(b"NRRD0004\r\n" + b"# padding\r\n" * 200_000 + b"data file: x.raw\r\n\r\n")
    (tmp_path / "a.mha").write_bytes(b"NDims = 3\n")
    for name in ("a.nrrd", "b.nrrd", "a.mha"):
        with pytest.raises(FileError, match="the file is damaged"):
            Folders([tmp_path]).scan(tmp_path / name)


def test_a_scan_a_folder_of_scans_and_a_cohort_become_cases(tmp_path):
    scans, results = tmp_path / "scans", tmp_path / "results"
    for name in ("a", "b"):
        a_scan(scans / f"{name}.nrrd")
    results.mkdir()
    line = '{"case": "a", "input": "%s", "status": "done", "measurements": {"Liver": {"volume_ml": 1.0}}}\n'
    (results / MANIFEST).write_text(line % (scans / "a.nrrd"))
    cases = find([scans, results], tmp_path / "out")
    assert list(cases) == ["a", "b"]
    assert cases["a"].cohort == results
    assert cases["a"].corrected == results / "a.corrected.seg.nrrd"
    assert cases["b"].corrected == tmp_path / "out" / "b.corrected.seg.nrrd"
    assert cases["a"].segmentation is None
    (results / "a.seg.nrrd").touch()
    assert cases["a"].segmentation == results / "a.seg.nrrd"
    cases["a"].corrected.touch()
    assert cases["a"].segmentation == cases["a"].corrected
    assert list(find([scans / "b.nrrd"])) == ["b"]


def test_the_folder_of_changes_is_no_case_though_it_lies_among_the_scans_or_is_given_with_them(tmp_path):
    scans = tmp_path / "scans"
    a_scan(scans / "a.nrrd")
    assert list(find([scans], scans)) == ["a"]
    for _ in range(2):  # before and after it holds a change
        assert list(find([scans], scans / "corrected")) == ["a"]
        assert list(find([*scans.iterdir()], scans / "corrected")) == ["a"]  # as a shell expands scans/*
        (scans / "corrected" / "a.corrected.seg.nrrd").touch()


def test_a_series_whose_folder_takes_the_changes_is_the_case(tmp_path):
    (tmp_path / "pat01").mkdir()
    (tmp_path / "pat01" / "1.dcm").touch()
    assert find([tmp_path / "pat01"], tmp_path / "pat01" / "corrected")["pat01"].scan == tmp_path / "pat01"


def test_a_file_that_a_cohort_skipped_is_no_case(tmp_path):
    (tmp_path / MANIFEST).write_text(
        '{"case": "a", "status": "failed"}\n{"case": "labels.nrrd", "status": "skipped"}\n'
    )
    assert list(find([tmp_path])) == ["a"]


def test_a_cohort_s_scan_is_read_only_if_its_folder_was_given_too(tmp_path):
    scan = a_scan(tmp_path / "scans" / "a.nrrd")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / MANIFEST).write_text(f'{{"case": "a", "input": "{scan}", "status": "done"}}\n')
    case = find([tmp_path / "results"])["a"]
    with pytest.raises(RefusedError, match="start it with that folder, too"):
        case.folders.scan(case.scan)
    case = find([tmp_path / "results", scan.parent])["a"]
    assert case.folders.scan(case.scan) == scan.resolve()


@pytest.mark.parametrize("name", ["../../x", "/x", "sub/x"])
def test_a_case_of_a_manifest_cannot_be_read_or_saved_elsewhere(tmp_path, name):
    (tmp_path / MANIFEST).write_text(f'{{"case": "{name}", "input": "", "status": "done"}}\n')
    assert not find([tmp_path])


def test_two_scans_with_one_name_and_a_path_that_is_not_there_are_refused(tmp_path):
    one, two = a_scan(tmp_path / "1" / "a.nrrd"), a_scan(tmp_path / "2" / "a.nrrd")
    with pytest.raises(RefusedError, match="Two cases are called a"):
        find([one, two])
    with pytest.raises(RefusedError, match="no file or folder"):
        find([tmp_path / "nothing"])


def test_a_folder_without_a_scan_is_refused(tmp_path):
    (tmp_path / "scans" / "pat01").mkdir(parents=True)
    with pytest.raises(RefusedError, match="There is no scan in"):
        find([tmp_path / "scans" / "pat01"])


def test_an_uploaded_volume_is_a_case_and_so_are_the_slices_of_a_series(tmp_path):
    assert uploaded([tmp_path / "a.mhd", tmp_path / "a.raw"], tmp_path).scan == tmp_path / "a.mhd"
    assert uploaded([tmp_path / "1.dcm", tmp_path / "2.dcm"], tmp_path).scan == tmp_path
    assert uploaded([tmp_path / "1.dcm"], tmp_path).scan == tmp_path / "1.dcm"
