"""A cohort that is run again: which cases are done anew, and with which files."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from Testing.support.quick_cohorts import Finder, add_scan, files_in, kill_at_the_next_result, rows_of
from Testing.support.sample_files import write_slice
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.jobs import cohort as cohorts
from UNetPlusPlusSegmentLib.jobs.corrections import add_correction, corrected_path
from UNetPlusPlusSegmentLib.jobs.manifest import MANIFEST, CohortError, read_manifest
from UNetPlusPlusSegmentLib.jobs.report import REPORT
from UNetPlusPlusSegmentLib.jobs.results import check_scan


def test_all_files_of_a_case_show_the_mask_that_was_made_last_whichever_were_asked_for(run, scans, tmp_path):
    forms = ["nii.gz", "stl", "obj"]
    run(scans, tmp_path / "fresh", forms, threshold=0.4)
    run(scans, tmp_path / "out", forms)
    assert run(scans, tmp_path / "out", threshold=0.4) == {"a": "done"}
    assert files_in(tmp_path / "out") == files_in(tmp_path / "fresh")
    assert run(scans, tmp_path / "out", forms, threshold=0.4) == {"a": "done"}
    assert len((tmp_path / "out" / MANIFEST).read_text().splitlines()) == 2, "nothing was left to do"


def test_a_model_that_has_learned_more_under_its_old_name_does_a_case_again(run, bundle, scans, tmp_path):
    retrained = tmp_path / bundle.name
    shutil.copytree(bundle, retrained)
    run(scans, tmp_path / "out", model=retrained)
    card = json.loads((retrained / "model.json").read_text())
    (retrained / "model.json").write_text(json.dumps(card | {"sha256": "0" * 64}))
    for _ in range(2):
        run(scans, tmp_path / "out", model=retrained)
    assert len((tmp_path / "out" / MANIFEST).read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "other", [{"speed": "fast"}, {"threshold": 0.4}, {"force": True}], ids=lambda other: next(iter(other))
)
def test_a_case_is_done_again_with_another_setting_but_not_with_the_same(run, scans, tmp_path, other):
    for asked in ({}, {}, other, other):
        run(scans, tmp_path / "out", **asked)
    ((name, value),) = other.items()
    first, second = [json.loads(line) for line in (tmp_path / "out" / MANIFEST).read_text().splitlines()]
    assert first[name] != second[name] == value


def test_the_same_scans_and_targets_are_known_however_they_are_spelled(run, scans, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(scans)
    out = tmp_path / "out"
    run(scans, out, target="Liver")
    run(tmp_path / "link", out, target="liver_")
    monkeypatch.chdir(out)
    run([Path("..") / "in" / "a.nii.gz"], out)
    assert len((out / MANIFEST).read_text().splitlines()) == 1


def write_series(folder: Path, level: int) -> None:
    """Write a DICOM series, whose values are about `level`."""
    for k in range(6):
        pixels = np.full((8, 8), level + k, np.int16).tobytes()
        write_slice(folder / f"{k}.dcm", (0, 0, 2.5 * k), InstanceNumber=k, Rows=8, Columns=8, PixelData=pixels)


def write_one_of_two_series(folder: Path, level: int) -> str:
    """Write a DICOM series beside others, and return its UID."""
    uid = generate_uid()
    for k in range(6):
        pixels = np.full((8, 8), level + k, np.int16).tobytes()
        about = {"SeriesInstanceUID": uid, "InstanceNumber": k, "Rows": 8, "Columns": 8, "PixelData": pixels}
        write_slice(folder / f"{level}-{k}.dcm", (0, 0, 2.5 * k), **about)
    return uid


def write_detached(folder: Path, level: int) -> None:
    folder.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(np.full((6, 8, 8), level, np.int16))
    sitk.WriteImage(image, str(folder / "a.mhd"))


def write_apart(folder: Path, level: int) -> None:
    """Write a header whose voxels have a name of their own."""
    write_detached(folder, level)
    (folder / "a.raw").replace(folder / "voxels.bin")
    header = folder / "a.mhd"
    header.write_text(header.read_text().replace("a.raw", "voxels.bin"))


def write_list(folder: Path, level: int) -> None:
    """Write a header that lists a file for each slice."""
    write_detached(folder, level)
    (folder / "a.raw").unlink()
    names = [f"s{k}.raw" for k in range(6)]
    for name in names:
        (folder / name).write_bytes(np.full((8, 8), level, np.int16).tobytes())
    header = folder / "a.mhd"
    header.write_text(header.read_text().replace("a.raw", "\n".join(["LIST", *names])))


def write_pattern(folder: Path, level: int) -> None:
    """Write a header that has a pattern for the names of a file for each slice."""
    write_list(folder, level)
    header = folder / "a.mhd"
    header.write_text(header.read_text().partition("LIST")[0] + "s%d.raw 0 5 1\n")


def write_pair(folder: Path, level: int) -> None:
    """Write a NIfTI header and its voxels."""
    folder.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.full((6, 8, 8), level, np.int16)), str(folder / "a.hdr"))


def write_link(folder: Path, level: int) -> None:
    """Write a link to a header that lies elsewhere; the voxels lie beside the link."""
    (folder / "a.mhd").unlink(missing_ok=True)
    write_detached(folder, level)
    (folder / "a.mhd").replace(folder.parent / "stored.mhd")
    (folder / "a.mhd").symlink_to(folder.parent / "stored.mhd")


def write_file(folder: Path, level: int) -> None:
    folder.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.full((6, 8, 8), level, np.int16)), str(folder / "a.nrrd"), False)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_series, ""),
        (write_detached, "a.mhd"),
        (write_apart, "a.mhd"),
        (write_list, "a.mhd"),
        (write_pattern, "a.mhd"),
        (write_link, "a.mhd"),
        (write_file, "a.nrrd"),
    ],
)
@pytest.mark.parametrize("out", ["out", ""], ids=["beside", "among"])
def test_a_scan_that_another_one_has_replaced_is_done_again_and_a_copy_is_not(run, tmp_path, write, name, out):
    scan, out = tmp_path / "in", tmp_path / "in" / out
    write(scan, level=1)
    lines = []
    for act in (None, lambda: os.utime(scan / name), lambda: write(scan, level=2), None):
        if act:
            act()
        assert {*run([scan / name], out).values()} == {"done"}
        lines.append(len((out / MANIFEST).read_text().splitlines()))
    assert lines == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "name", ["Thumbs.db", "@eaDir/0.dcm@Thumb", ".AppleDouble/0.dcm", "liver.seg.nrrd", "0 is gone"]
)
def test_files_in_a_dicom_folder_that_are_no_slices_do_not_change_the_scan(run, tmp_path, name):
    write_series(tmp_path / "in", level=1)
    run([tmp_path / "in"], tmp_path / "out")
    (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
    if name == "0 is gone":
        (tmp_path / "in" / name).symlink_to("nowhere")
    else:
        (tmp_path / "in" / name).write_bytes(b"not a slice")
    run([tmp_path / "in"], tmp_path / "out")
    assert len((tmp_path / "out" / MANIFEST).read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "sop_class", "has_pixels"),
    [
        ("RS.1.dcm", "1.2.840.10008.5.1.4.1.1.481.3", False),
        ("RD.1.dcm", "1.2.840.10008.5.1.4.1.1.481.2", True),
        ("PR.1.dcm", "1.2.840.10008.5.1.4.1.1.11.1", False),
        ("SEG.1.dcm", "1.2.840.10008.5.1.4.1.1.66.4", True),
        ("SR.1.dcm", "1.2.840.10008.5.1.4.1.1.88.22", False),
        ("CSA.1.dcm", "1.3.12.2.1107.5.9.1", False),
        ("DICOMDIR", "1.2.840.10008.1.3.10", False),
    ],
)
def test_dicom_files_that_are_made_from_the_slices_do_not_change_the_scan(tmp_path, name, sop_class, has_pixels):
    write_series(tmp_path, level=1)
    before = files.fingerprint_of(tmp_path)
    write_slice(tmp_path / name, SOPClassUID=sop_class, PixelData=bytes(96) if has_pixels else None)
    assert files.fingerprint_of(tmp_path) == before is not None


@pytest.mark.parametrize("damaged", [False, True])
def test_a_scan_whose_first_file_shows_no_image_is_still_told_from_another(tmp_path, damaged):
    prints = set()
    for level in (1, 2):
        write_series(tmp_path, level)
        if damaged:
            for path in tmp_path.iterdir():
                path.write_bytes(path.read_bytes()[:-1])
        else:
            write_slice(tmp_path / "0.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22", PixelData=None)
        prints.add(files.fingerprint_of(tmp_path))
    assert len(prints) == 2 and None not in prints


@pytest.mark.parametrize(
    ("write", "name", "voxels"),
    [
        (write_series, "", "*.dcm"),
        (write_apart, "a.mhd", "voxels.bin"),
        (write_list, "a.mhd", "s*.raw"),
        (write_pair, "a.hdr", "a.img"),
    ],
)
def test_a_scan_that_is_not_there_such_as_without_its_drive_was_not_replaced(run, tmp_path, write, name, voxels):
    scan, out = tmp_path / "in" / name, tmp_path / "out"
    write(tmp_path / "in", level=1)
    ((case, _),) = run([scan], out).items()
    correct(out, scan, case)
    for path in (tmp_path / "in").glob(voxels):
        path.unlink()
    check_scan(out, case)
    assert run([scan], out) == {case: "done"}


def test_a_scan_that_differs_in_its_body_alone_is_another_one(tmp_path):
    scan = np.full((8, 256, 256), -1000, np.int16)
    scan[:, 64:192, 64:192] = 40
    prints = set()
    for change in (np.s_[:, :0], np.s_[:, 64:192, 64:192], np.s_[4:, 100:156, 64:192]):
        other = scan.copy()
        other[change] += 60
        sitk.WriteImage(sitk.GetImageFromArray(other), str(tmp_path / "a.nrrd"), False)
        prints.add(files.fingerprint_of(tmp_path / "a.nrrd"))
    assert len(prints) == 3


@pytest.mark.parametrize(
    "named",
    [
        "{folder}/s%03d.raw 0 5 1",
        "s%.3d.raw 0 5 1",
        "50% dose.raw",
        "list of.raw",
        "LIST\n" + "\n".join(f" s{k:03}.raw" for k in range(6)),
    ],
    ids=["absolute", "precision", "percent", "called list", "list"],
)
@pytest.mark.parametrize("kind", ["nhdr", "mhd"])
def test_voxels_that_are_replaced_make_another_scan_however_the_header_names_them(tmp_path, kind, named):
    header = tmp_path / f"a.{kind}"
    fields = {
        "nhdr": "NRRD0004\nnote:={long}\ntype: int16\ndimension: 3\nsizes: 8 8 6\nendian: little\nencoding: raw\ndata file: {named}\n",
        "mhd": "Comment = {long}\nNDims = 3\nDimSize = 8 8 6\nElementType = MET_SHORT\nElementDataFile = {named}\n",
    }[kind]
    header.write_text(fields.format(long="x" * 300, named=named.format(folder=tmp_path)))
    prints = set()
    for level in (1, 1, 2):
        voxels = np.full((6, 8, 8), level, np.int16)
        for name in ("50% dose.raw", "list of.raw"):
            (tmp_path / name).write_bytes(voxels.tobytes())
        for k in range(6):
            (tmp_path / f"s{k:03}.raw").write_bytes(voxels[k].tobytes())
        prints.add(files.fingerprint_of(header))
    assert len(prints) == 2 and None not in prints


@pytest.mark.parametrize("named", ["/a\0b/s%d.raw 0 5 1", "s%d%d.raw 0 5 1", "x" * 300, "a\0b"])
def test_a_header_that_names_what_cannot_be_there_ends_no_cohort(run, scans, tmp_path, named):
    for name, field in (("b.nhdr", "NRRD0004\ndata file:"), ("c.mhd", "ElementDataFile =")):
        (scans / name).write_text(f"{field} {named}\n\n")
    assert run(scans, tmp_path / "out") == {"a": "done", "b": "failed", "c": "failed"}


def test_results_in_the_folder_of_their_scan_are_no_part_of_it_however_they_are_reached(run, tmp_path):
    write_series(tmp_path / "in", level=1)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for out in (tmp_path / "in" / "out", tmp_path / "link" / "out"):
        assert run([tmp_path / "in"], out) == {"in": "done"}
    assert len((out / MANIFEST).read_text().splitlines()) == 1


def test_a_correction_of_a_scan_that_was_replaced_is_kept_and_the_run_refused(run, scans, tmp_path):
    out = tmp_path / "out"
    run(scans, out)
    corrected, line = corrected_path(out, "a"), read_manifest(out)["a"]
    volume, _ = files.read_volume(scans / "a.nii.gz")
    correct(out, scans / "a.nii.gz", "a")
    assert run(scans, out) == {"a": "done"}
    before = files_in(out)
    files.write_volume(scans / "a.nii.gz", volume.array + 1, volume.ijk_to_ras)
    with pytest.raises(CohortError, match=r"a\.corrected\.seg\.nrrd corrects an earlier scan, .*: move it"):
        run(scans, out)
    assert files_in(out) == before
    corrected.rename(tmp_path / "moved")
    assert run(scans, out) == {"a": "done"}
    assert [*rows_of(out)] == ["a"] and read_manifest(out)["a"]["scan"] != line["scan"]


def correct(out: Path, scan: Path, case: str) -> None:
    """Save a correction of a case, as the panel does."""
    shutil.copyfile(out / f"{case}.seg.nrrd", corrected_path(out, case))
    line = read_manifest(out)[case]
    volume, _ = files.read_volume(scan, line["series"])
    add_correction(out, line, volume, np.zeros(volume.array.shape, np.uint8), [])


def test_a_correction_of_another_series_is_kept_and_the_run_refused(run, tmp_path):
    scan, out = tmp_path / "in", tmp_path / "out"
    series = [write_one_of_two_series(scan, level) for level in (0, 100)]
    run([scan], out, series={"in": series[0]})
    correct(out, scan, "in")
    with pytest.raises(CohortError, match=r"in\.corrected\.seg\.nrrd corrects another series of .*in: move it"):
        run([scan], out, series={"in": series[1]})
    assert run([scan], out, series={"in": series[0]}) == {"in": "done"}


def test_a_case_that_fails_says_what_the_mask_that_it_keeps_was_found_in(run, scans, tmp_path, monkeypatch):
    run(scans, tmp_path / "out")
    segmented = read_manifest(tmp_path / "out")["a"]["scan"]
    volume, _ = files.read_volume(scans / "a.nii.gz")
    files.write_volume(scans / "a.nii.gz", volume.array + 1, volume.ijk_to_ras)
    with monkeypatch.context() as patch:
        patch.setattr(Finder, "submit", lambda *_: 1 / 0)
        assert run(scans, tmp_path / "out") == {"a": "failed"}
    assert read_manifest(tmp_path / "out")["a"]["scan"] == segmented
    with pytest.raises(CohortError, match="no longer the scan that was segmented"):
        check_scan(tmp_path / "out", "a")
    assert run(scans, tmp_path / "out") == {"a": "done"}
    check_scan(tmp_path / "out", "a")


def test_a_correction_that_is_moved_back_is_still_that_of_the_earlier_scan(run, scans, tmp_path):
    out = tmp_path / "out"
    run(scans, out)
    correct(out, scans / "a.nii.gz", "a")
    volume, _ = files.read_volume(scans / "a.nii.gz")
    corrected_path(out, "a").rename(tmp_path / "aside")
    files.write_volume(scans / "a.nii.gz", volume.array + 1, volume.ijk_to_ras)
    run(scans, out)
    check_scan(out, "a")
    (tmp_path / "aside").rename(corrected_path(out, "a"))
    with pytest.raises(CohortError, match="no longer the scan that was segmented"):
        check_scan(out, "a")


def test_a_case_that_is_named_by_a_dot_has_the_name_of_its_folder(run, tmp_path, monkeypatch):
    for k in range(3):
        write_slice(tmp_path / "scans" / "P01" / "deeper" / f"{k}.dcm", (0, 0, 2.5 * k), InstanceNumber=k)
    add_scan(tmp_path / "scans" / "P02.nrrd")
    for at, dots in (("P01", "."), ("P01/deeper", "..")):
        monkeypatch.chdir(tmp_path / "scans" / at)
        out = tmp_path / f"out{len(dots)}"
        assert run([dots, tmp_path / "scans" / "P02.nrrd"], out) == {"P01": "done", "P02": "done"}
        assert {path.name for path in out.glob("*.seg.nrrd")} == {"P01.seg.nrrd", "P02.seg.nrrd"}


def test_a_case_is_not_done_if_a_killed_run_with_other_settings_has_replaced_its_files(
    run, scans, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    run(scans, out, ["nii.gz"])
    before = files_in(out)
    kill_at_the_next_result(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(scans, out, threshold=0.4)
    assert files_in(out) != before
    assert run(scans, out) == {"a": "done"}
    assert files_in(out) == before and not [*out.glob(".*")]


def test_a_picture_that_shows_an_older_mask_is_not_in_the_report(run, scans, tmp_path, monkeypatch):
    run(scans, tmp_path / "out")
    assert "data:image/jpeg" in (tmp_path / "out" / REPORT).read_text()
    monkeypatch.setattr(cohorts, "write_picture", lambda *_: 1 / 0)
    assert run(scans, tmp_path / "out", threshold=0.4) == {"a": "done"}
    assert "data:image/jpeg" not in (tmp_path / "out" / REPORT).read_text()


def test_a_case_that_fails_while_it_is_written_does_not_call_what_it_has_replaced_kept(
    run, scans, tmp_path, monkeypatch
):
    run(scans, tmp_path / "out")
    monkeypatch.setattr(files, "write_forms", lambda *_: 1 / 0)
    assert run(scans, tmp_path / "out", threshold=0.4) == {"a": "failed"}
    assert "is kept" not in read_manifest(tmp_path / "out")["a"]["reason"]


def test_a_tilted_scan_that_is_asked_for_as_nifti_fails_before_the_network_runs(run, scans, tmp_path, monkeypatch):
    add_scan(scans / "tilted.nrrd", aside_mm=1.0)
    monkeypatch.setattr(Finder, "submit", lambda *_: pytest.fail("ran"))
    assert run([scans / "tilted.nrrd"], tmp_path / "out", ["nii.gz"]) == {"tilted": "failed"}
    reason = read_manifest(tmp_path / "out")["tilted"]["reason"]
    assert "tilted.nii.gz cannot be written" in reason and "gantry tilt" in reason


def test_a_folder_of_an_earlier_version_goes_on_with_its_segmentations(run, scans, tmp_path):
    out = tmp_path / "out"
    run(scans, out)
    lines = [json.loads(line) for line in (out / MANIFEST).read_text().splitlines()]
    for line in lines:
        for key in ("files", "prints", "scan"):
            line.pop(key)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / MANIFEST).write_text(text)
    assert run(scans, out) == {"a": "done"} and (out / MANIFEST).read_text() == text
    assert run(scans, out, threshold=0.4) == {"a": "done"}


def as_by_an_earlier_formula(out: Path) -> str:
    """Give the manifest fingerprints as earlier versions made them, which are other digits without a prefix; returns its text."""
    text = re.sub(r'"(2:)?[0-9a-f]{16}"', '"0123456789abcdef"', (out / MANIFEST).read_text())
    (out / MANIFEST).write_text(text)
    return text


def test_fingerprints_of_an_earlier_formula_make_no_other_scan_and_no_edited_result(run, scans, tmp_path):
    out = tmp_path / "out"
    run(scans, out)
    correct(out, scans / "a.nii.gz", "a")
    text = as_by_an_earlier_formula(out)
    assert text.count("0123456789abcdef") == 3
    check_scan(out, "a")
    assert run(scans, out) == {"a": "done"} and (out / MANIFEST).read_text() == text
    assert run(scans, out, threshold=0.4) == {"a": "done"}


def test_a_case_that_fails_keeps_its_series_though_the_formula_of_fingerprints_has_changed(run, tmp_path, monkeypatch):
    scan, out = tmp_path / "in", tmp_path / "out"
    series = [write_one_of_two_series(scan, level) for level in (0, 100)]
    run([scan], out, series={"in": series[0]})
    as_by_an_earlier_formula(out)
    monkeypatch.setattr(Finder, "submit", lambda *_: 1 / 0)
    assert run([scan], out, series={"in": series[1]}) == {"in": "failed"}
    assert read_manifest(out)["in"]["series"] == series[0]
