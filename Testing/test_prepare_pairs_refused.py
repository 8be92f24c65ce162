"""pairs.py: what cannot be used is refused by name, before anything is written."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import pairs
from data.slices import read_slices
from data.targets import TargetError, load_target
from Testing.support.pairs import (
    KIDNEY,
    LPS,
    SAID,
    SPLEEN,
    a_ct,
    a_labelmap,
    folder_of_masks,
    numbered_cases,
    prepared,
    slicer_case,
    stored_of,
    write_nifti,
)
from Testing.support.prepare_scripts import refused, rows_of
from Testing.support.spleen import TERM
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.files.pairs import find_pairs
from UNetPlusPlusSegmentLib.files.segmentations import segments_in


def spoil(source, how: str) -> str:
    """Spoil the case Ben; returns what the refusal must say."""
    shifted, ct = LPS.copy(), a_ct()
    shifted[:3, 3] += (0.6, 0, 0)
    if how == "no such segment":
        slicer_case(source, "Ben", segments=(Segment(1, "Milz", TERM, (1, 2, 3), {}), KIDNEY))
        return "it has no segment Spleen; it has Milz, Right kidney."
    if how == "empty":
        slicer_case(source, "Ben", labelmap=a_labelmap() * (a_labelmap() == 2))
        return "its segment Spleen is empty: Ben.seg.nrrd has no voxel of value 1."
    if how == "shifted by a part of a voxel":
        files.write_segmentation(source / "Ben.seg.nrrd", a_labelmap(), shifted, [SPLEEN])
        return "Ben.seg.nrrd has other voxels"
    if how == "another spacing":
        files.write_segmentation(source / "Ben.seg.nrrd", a_labelmap(), LPS @ np.diag([1, 1, 1.1, 1]), [SPLEEN])
        return "Ben.seg.nrrd has other voxels, 24 × 20 × 6 of 1.5 × 1.5 × 3.3 mm"
    if how == "beyond the image":
        files.write_volume(source / "Ben.nrrd", ct[:3], LPS)
        return "voxels that lie outside its image"
    if how == "one voxel beyond the image":
        labelmap = a_labelmap()
        labelmap[-1, 8, 8] = 1
        files.write_segmentation(source / "Ben.seg.nrrd", labelmap, LPS, [SPLEEN, KIDNEY])
        files.write_volume(source / "Ben.nrrd", ct[:-1], LPS)
        return "outside its image, 1 of them"
    if how == "not CT":
        files.write_volume(source / "Ben.nrrd", ct + 200, LPS)
        return "where air (-1000 HU) and fat (-100 HU) lie. Choose a CT volume."
    if how == "probabilities":
        (source / "Ben.seg.nrrd").unlink()
        (source / "Ben.nrrd").unlink()
        folder_of_masks(source / "Ben")
        write_nifti(source / "Ben" / "segmentations" / "spleen.nii.gz", (a_labelmap() == 1) * 0.7, LPS)
        return (
            "spleen.nii.gz is not a label map: it contains values that are not whole numbers, or below 0, from 0 to 0.7"
        )
    if how == "cut short":
        whole = (source / "Ben.nrrd").read_bytes()
        (source / "Ben.nrrd").write_bytes(whole[: len(whole) // 2])
        return "Ben.nrrd"
    if how == "alone":
        (source / "Ben.seg.nrrd").unlink()
        return "Ben.nrrd has no segmentation next to it"
    assert how == "no orientation"
    (source / "Ben.nrrd").unlink()
    write_nifti(source / "Ben.nii.gz", ct, LPS)
    import nibabel

    image = nibabel.load(source / "Ben.nii.gz")
    voxels = np.asarray(image.dataobj)
    image = nibabel.Nifti1Image(voxels, None)
    image.header.set_zooms((1.5, 1.5, 3.0))
    nibabel.save(image, source / "Ben.nii.gz")
    return "does not say how the patient lies"


@pytest.mark.parametrize(
    "how",
    [
        "no such segment", "empty", "shifted by a part of a voxel", "another spacing", "beyond the image",
        "one voxel beyond the image", "not CT", "cut short", "alone", "no orientation", "probabilities",
    ],
)  # fmt: skip
def test_a_case_that_cannot_be_used_is_refused_by_name_and_nothing_is_written_or_it_is_left_out(tmp_path, capsys, how):
    for name in ("Ann", "Ben", "Cid"):
        slicer_case(tmp_path / "in", name)
    words = spoil(tmp_path / "in", how)
    arguments = [tmp_path / "in", "--segment", "Spleen"]
    line = refused(pairs, arguments, tmp_path / "out", capsys)
    assert "Ben" in line and words in line
    assert "--force" not in line  # it would replace the folder, not accept the case
    out = prepared(tmp_path / "in", tmp_path / "out", *arguments[1:], "--leave-out")
    assert {row["volume"] for row in rows_of(out)} == {"Ann", "Cid"}
    assert words in (out / "notes.txt").read_text()


def test_each_refused_case_gets_its_own_message(tmp_path, capsys):
    for name in ("Ann", "Ben", "Cid"):
        slicer_case(tmp_path / "in", name)
    spoil(tmp_path / "in", "empty")
    (tmp_path / "in" / "Cid.seg.nrrd").unlink()
    assert pairs.main([str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--segment", "Spleen"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if " slices (" not in line]
    assert len(lines) == 2 and "Cid" in lines[0] and "Ben" in lines[1]
    assert not list(tmp_path.glob("*out*"))


def test_labels_that_overlap_are_refused_and_slicer_s_layers_are_read(tmp_path, capsys):
    scene_file = tmp_path / "in" / "Ann.seg.nrrd"
    slicer_case(tmp_path / "in", "Ann")
    two = np.stack([a_labelmap() == 1, a_labelmap() > 0], axis=-1).astype(np.uint8)  # as overlapping segments are saved
    write_layers(scene_file, two)
    assert [(each.name, each.layer) for each in segments_in(scene_file)] == [("Spleen", 0), ("Both", 1)]
    line = refused(
        pairs, [tmp_path / "in", "--segment", "Spleen", "--segment", "Both", "--folds", "1"], tmp_path / "out", capsys
    )
    assert f"Spleen and Both overlap in {np.count_nonzero(a_labelmap() == 1)} voxels" in line
    out = prepared(tmp_path / "in", tmp_path / "out", "--segment", "Both", "--folds", "1")
    np.testing.assert_array_equal(stored_of(out, "Ann")[1][-1] > 0, a_labelmap()[4] > 0)


def test_a_label_may_contain_another_one(tmp_path, capsys):
    slicer_case(tmp_path / "in", "Ann")
    whole = ["--segment", "Both=Spleen+Right kidney", "--segment", "Right kidney"]
    out = prepared(tmp_path / "in", tmp_path / "out", *whole, "--folds", "1", *SAID)
    np.testing.assert_array_equal(stored_of(out, "Ann")[1][-1], a_labelmap()[4])
    target = load_target(str(out / "target.yaml"))
    assert target.priority == ("Right kidney", "Both")
    item = read_slices(out, target, "train")[-1]
    np.testing.assert_array_equal(item.mask, [a_labelmap()[4] > 0, a_labelmap()[4] == 2])
    twice = [tmp_path / "in", "--segment", "A=Spleen", "--segment", "B=Spleen"]
    assert "two labels are made of Spleen" in refused(pairs, twice, tmp_path / "twice", capsys)


def write_layers(path, layers: np.ndarray) -> None:
    """A .seg.nrrd of several layers, (K, J, I, layer), on the grid LPS."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(layers, isVector=True)
    image.SetSpacing((1.5, 1.5, 3.0))
    for number, name in enumerate(("Spleen", "Both")):
        image.SetMetaData(f"Segment{number}_ID", f"Segment_{number}")
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_Layer", str(number))
        image.SetMetaData(f"Segment{number}_LabelValue", "1")
    sitk.WriteImage(image, str(path), useCompression=True)


@pytest.mark.parametrize("lacking", ["--source", "--licence", "--citation"])
def test_a_target_without_source_licence_or_citation_is_noted_and_refused_by_training(tmp_path, capsys, lacking):
    slicer_case(tmp_path / "in", "Ann")
    at = SAID.index(lacking)
    out = prepared(
        tmp_path / "in", tmp_path / "out", "--segment", "Spleen", "--folds", "1", *SAID[:at], *SAID[at + 2 :]
    )
    assert f"target.yaml is incomplete: give {lacking} too" in capsys.readouterr().err
    with pytest.raises(TargetError, match="is empty: fill it in"):
        load_target(str(out / "target.yaml"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--segment", "=1"], "--segment '=1' must be a name"),
        (["--segment", "Spleen="], "must be a name"),
        (["--segment", "Spleen", "--segment", "Spleen"], "two labels have the same name"),
        (["--segment", "Spleen", "--window", "240", "-100"], "must be two numbers in HU, the smaller one first"),
        (["--segment", "Spleen", "--pixel", "0"], "--pixel 0 must be a size in mm above zero"),
        (["--segment", "Spleen", "--every", "0"], "--every 0 must be 1 or more"),
        (["--segment", "Spleen", "--folds", "3"], "too few for 3 folds"),
        (["--segment", "Spleen", "--folds", "2", "--split", "x.csv"], "give one of them"),
        (["--segment", "Spleen", "--people", "("], "is not a valid regular expression"),
        (["--segment", "Spleen", "--people", "Q"], "does not match the case name Ann"),
        (["--segment", "Spleen", "--name", "My Spleen"], "one word of lower-case letters"),
        (["--segment", "Liver"], "there are Right kidney, Spleen"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path, capsys, arguments, words):
    slicer_case(tmp_path / "in", "Ann")
    assert words in refused(pairs, [tmp_path / "in", *arguments], tmp_path / "out", capsys)


def test_a_case_that_a_link_shows_again_is_taken_once(tmp_path):
    slicer_case(tmp_path / "in" / "a", "Ann")
    slicer_case(tmp_path / "in" / "b", "Ben")
    (tmp_path / "in" / "b" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "c").symlink_to(tmp_path / "in" / "a")
    assert len(find_pairs(tmp_path / "in").found) == 2


def test_labels_in_dataset_json_that_are_a_list_are_refused(tmp_path, capsys):
    numbered_cases(tmp_path / "in", ["case_001"], nnunet=True)
    (tmp_path / "in" / "dataset.json").write_text('{"labels": ["background", "spleen"]}')
    line = refused(pairs, [tmp_path / "in", "--segment", "Spleen"], tmp_path / "out", capsys)
    assert "labels in dataset.json must be names with values" in line


def test_pixels_larger_than_a_slice_are_refused(tmp_path, capsys):
    slicer_case(tmp_path / "in", "Ann")
    arguments = [tmp_path / "in", "--segment", "Spleen", "--pixel", "31"]
    line = refused(pairs, arguments, tmp_path / "out", capsys)
    assert "Ann" in line and "--pixel 31 is larger than its slices, 30 mm" in line


def test_a_label_of_which_the_pixels_leave_nothing_is_refused_or_noted_if_others_are_left(tmp_path, capsys):
    lesion = a_labelmap()
    lesion[lesion == 2] = 0
    lesion[3, 8, 15] = 2  # a voxel of 1.5 mm
    slicer_case(tmp_path / "in", "Ann", labelmap=lesion)
    alone = [tmp_path / "in", "--segment", "Right kidney", "--pixel", "6"]
    line = refused(pairs, alone, tmp_path / "out", capsys)
    assert (
        "Ann" in line
        and "Right kidney fills half of no pixel of 6 mm, so nothing is left of it: give a smaller" in line
    )
    prepared(tmp_path / "in", tmp_path / "out", "--segment", "Spleen", *alone[1:], "--folds", "1")
    assert "Ann: Right kidney fills half of no pixel of 6 mm, so it counts as absent" in capsys.readouterr().err


def test_one_person_alone_is_not_told_to_hold_out_a_fold(tmp_path, capsys):
    slicer_case(tmp_path / "in", "Ann")
    prepared(tmp_path / "in", tmp_path / "out", "--segment", "Spleen")
    assert "nobody is left for validation: add cases of other people" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(28, "No space left on device"), 1, "(No space left on device)"),
        (KeyboardInterrupt(), 130, "stopped, and nothing"),
    ],
    ids=["full disk", "Ctrl+C"],
)
def test_a_preparation_that_cannot_end_says_so_in_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, error, code, words
):
    slicer_case(tmp_path / "in", "Ann")

    def fail(*_):
        raise error

    monkeypatch.setattr(pairs, "draw_look", fail)
    assert pairs.main([str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--segment", "Spleen"]) == code
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_folder_without_pairs_is_refused_with_the_layouts_that_are_known(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in" / "ct.nii.gz", a_ct(), LPS)
    line = refused(pairs, [tmp_path / "in", "--segment", "Spleen"], tmp_path / "out", capsys)
    assert "contains no pairs" in line and "labelsTr" in line


def test_a_preparation_that_crashes_leaves_no_half_folder(tmp_path, monkeypatch):
    for name in ("Ann", "Ben"):
        slicer_case(tmp_path / "in", name)
    monkeypatch.setattr(pairs, "draw_look", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pairs.main([str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--segment", "Spleen"])
    assert not list(tmp_path.glob("*out*"))
    shutil.rmtree(tmp_path / "in")
