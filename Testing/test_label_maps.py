"""Label maps beside images are no cases, whatever they are called and however they are stored."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.pairs import slicer_case
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.files.pairs import find_pairs
from UNetPlusPlusSegmentLib.jobs.cases import find_cases

PAIRS = {
    "abdomen_3mm_ct.nii.gz": "abdomen_3mm_liver.nii.gz",
    "chest_lesion_ct.nrrd": "chest_lesion_label.nrrd",
    "LIDC-IDRI-0001_ct.nii.gz": "LIDC-IDRI-0001_nodule.nii.gz",
}


def test_the_label_maps_of_real_scans_are_told_from_the_scans(shared_data):
    scans = [shared_data(f"volumes/{name}") for name in (*PAIRS, "chest_clean_ct.nrrd")]
    labels = [shared_data(f"volumes/{name}") for name in PAIRS.values()]
    assert files.label_maps([*scans, *labels]) == set(labels)
    assert files.label_maps(scans) == set()


@pytest.mark.parametrize("kind", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkFloat32])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_label_map_of_any_type_and_format_is_one(shared_data, tmp_path, kind, ending):
    scan, label = (
        sitk.ReadImage(shared_data(f"volumes/abdomen_3mm_{name}.nii.gz"))[30:70, 30:70, 40:60]
        for name in ("ct", "liver")
    )
    sitk.WriteImage(scan, tmp_path / "somebody.nii.gz")
    sitk.WriteImage(sitk.Cast(label, kind), tmp_path / f"drawn{ending}")
    assert list(find_cases(tmp_path)[0]) == ["somebody"]


def test_two_scans_on_the_same_grid_are_two_cases_and_a_lone_label_map_is_not_left_out(shared_data, tmp_path):
    for name in ("arterial", "venous"):
        shutil.copy(shared_data("volumes/abdomen_3mm_ct.nii.gz"), tmp_path / f"{name}.nii.gz")
    assert sorted(find_cases(tmp_path)[0]) == ["arterial", "venous"]
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(shared_data("volumes/abdomen_3mm_liver.nii.gz"), alone)
    assert files.label_maps(alone.iterdir()) == set()


def test_a_folder_with_broken_files_is_gone_through(tmp_path):
    for name in ("a.nii.gz", "b.nrrd", "c.mha"):
        (tmp_path / name).write_bytes(b"broken")
    many = "".join(f"{name} = {'1 ' * 40}\n" for name in ("DimSize", "ElementSpacing", "Offset"))
    (tmp_path / "d.mha").write_text(
        f"ObjectType = Image\nNDims = 40\n{many}ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    for _ in range(20):  # ITK writes beyond its memory, which ends the process, but not at once
        assert files.label_maps(tmp_path.iterdir()) == set()
    assert sorted(find_cases(tmp_path)[0]) == ["a", "b", "c", "d"]


def test_values_beyond_those_of_labels_make_an_image(tmp_path):
    for name, values in (
        ("ct", np.arange(-1000, -760)),
        ("shifted", np.arange(300, 540)),
        ("label", np.arange(240) % 3),
    ):
        sitk.WriteImage(sitk.GetImageFromArray(values.reshape(5, 6, 8).astype(np.int16)), tmp_path / f"{name}.nrrd")
    assert {path.name for path in files.label_maps(tmp_path.iterdir())} == {"label.nrrd"}


def test_of_two_images_a_segmentation_belongs_to_the_one_whose_name_it_repeats_further_whatever_their_endings(tmp_path):
    for name in ("P01", "P01_b"):
        slicer_case(tmp_path, name)
    volume, _ = files.read_volume(tmp_path / "P01.nrrd")
    (tmp_path / "P01.nrrd").unlink()
    files.write_volume(tmp_path / "P01.nii.gz", volume.array, volume.ijk_to_ras)
    pairs = find_pairs(tmp_path)
    found = {pair.image.name: {segment.path.name for segment in pair.segments} for pair in pairs.found}
    assert found == {"P01.nii.gz": {"P01.seg.nrrd"}, "P01_b.nrrd": {"P01_b.seg.nrrd"}}
    assert not pairs.refused
