"""liver.py: LiTS and the Decathlon, built from a real abdomen, with correct and wrong headers."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

import anatomy
import liver
import slicefolder
from data.slices import read_slices
from data.targets import load_target
from Testing.support.prepare_scripts import picture, refused, rows_of

LPS = np.diag([-1.0, -1.0, 1.0])  # steps along I, J, K of an array in training order, in RAS
ROUNDING_HU = 200 / 255  # half a grey value for each of the two roundings


@pytest.fixture(scope="session")
def abdomen(shared_data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU and labels (slices, rows, columns) in training order, and spacing (I, J, K) in mm; a part is called tumour."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(shared_data("volumes/abdomen_dicom"))))
    image = reader.Execute()
    truth = sitk.DICOMOrient(sitk.ReadImage(str(shared_data("volumes/abdomen_dicom_liver.nii.gz"))), "LPS")
    labels = sitk.GetArrayFromImage(truth)
    labels[5:9, 215:252, 141:190] *= 2  # odd edges: not in step with the pairs of pixels that become one
    assert (labels == 2).sum() > 1000
    return sitk.GetArrayFromImage(image), labels, np.array(image.GetSpacing())


def write_nifti(path: Path, array: np.ndarray, spacing_mm: np.ndarray, directions=LPS, stored_as="LPS") -> None:
    """Write an array (K, J, I) whose steps run along the columns of `directions`, with its axes stored in another order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing_mm
    affine[:3, 3] = (11, -22, 333)
    image = nibabel.Nifti1Image(array.T, affine)
    now, then = nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(stored_as)
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(now, then)), path)


def write_lits(folder: Path, abdomen, number=3, **how) -> Path:
    hu, labels, spacing_mm = abdomen
    write_nifti(folder / f"volume-{number}.nii", hu, spacing_mm, **how)
    write_nifti(folder / f"segmentation-{number}.nii", labels, spacing_mm, **how)
    return folder


def assert_is_abdomen(folder: Path, abdomen, name="lits003") -> None:
    hu, labels, _ = abdomen
    rows = rows_of(folder)
    assert [int(row["slice"]) for row in rows] == list(range(0, len(hu), 2))
    for row in rows:
        k = int(row["slice"])
        assert row["file"] == f"{name}_{k:04d}.png"
        stored, mask = picture(folder / "images" / row["file"]), picture(folder / "masks" / row["file"])
        quarters = hu[k].clip(-40, 160).reshape(256, 2, 256, 2)
        np.testing.assert_allclose(-40 + stored * (200 / 255), quarters.mean(axis=(1, 3)), atol=ROUNDING_HU)
        parts = labels[k].reshape(256, 2, 256, 2).swapaxes(1, 2).reshape(256, 256, 4)
        all_one = (parts == parts[..., :1]).all(axis=2)
        np.testing.assert_array_equal(mask[all_one], parts[all_one][:, 0])
        np.testing.assert_array_equal(mask > 0, (parts > 0).sum(axis=2) >= 2)
        assert (row["liver_px"], row["tumour_px"]) == (str((mask > 0).sum()), str((mask == 2).sum()))
    assert sum(int(row["tumour_px"]) for row in rows) > 300


@pytest.mark.parametrize("stored_as", ["LPS", "RAS", "RPI", "PSL", "SRA"])
def test_a_lits_scan_gives_the_same_slices_in_any_stored_order(abdomen, tmp_path, stored_as):
    source = write_lits(tmp_path / "Training Batch 1", abdomen, stored_as=stored_as)
    write_nifti(source / "segmentation-3.nii", abdomen[1], abdomen[2], stored_as="LAI")  # its own order
    assert liver.main([str(source), "-o", str(tmp_path / "out"), "--val", "0"]) == 0
    assert_is_abdomen(tmp_path / "out", abdomen)
    row = rows_of(tmp_path / "out")[0]
    assert (row["patient"], row["split"], row["size_from"]) == ("P3", "train", "header")
    assert (row["source_pixel_mm"], row["source_slice_mm"]) == ("0.9766", "2.0")


@pytest.mark.parametrize(
    ("signs", "named"), [((1, 1, 1), "ap, lr"), ((1, -1, 1), "lr"), ((-1, 1, 1), "ap")], ids=["RAS", "RPS", "LAS"]
)
def test_a_wrong_header_is_corrected_after_the_image_if_asked_to(abdomen, tmp_path, capsys, signs, named):
    source = write_lits(tmp_path / "in", abdomen, directions=np.diag(signs), stored_as="RAS")
    line = refused(liver, [source, "--val", "0"], tmp_path / "out", capsys)
    assert f"its header is wrong about {named}" in line and "--flip image" in line and "--flip 3=none" in line
    assert liver.main([str(source), "-o", str(tmp_path / "out"), "--val", "0", "--flip", "image"]) == 0
    assert_is_abdomen(tmp_path / "out", abdomen)
    assert f"lits003: the header is wrong about {named}," in (tmp_path / "out" / "notes.txt").read_text()


def test_flip_overrides_the_image_with_a_note_about_the_contradiction(abdomen, tmp_path, capsys):
    labels = abdomen[1]
    source = write_lits(tmp_path / "in", abdomen)
    assert (
        liver.main([str(source), "-o", str(tmp_path / "out"), "--val", "0", "--flip", "none", "--flip", "3=lr,si"]) == 0
    )
    assert "contradicts --flip about lr" in capsys.readouterr().err
    first = rows_of(tmp_path / "out")[0]["file"]
    np.testing.assert_array_equal(picture(tmp_path / "out" / "masks" / first), liver.halved_labels(labels[-1, :, ::-1]))


def test_a_wrong_header_is_refused_if_the_image_shows_only_a_part_of_the_error(abdomen, tmp_path, capsys):
    hu, labels, spacing_mm = abdomen
    boneless = hu.clip(None, 200)  # without bones nothing shows front and back
    source = write_lits(tmp_path / "in", (boneless, labels, spacing_mm), directions=np.eye(3), stored_as="RAS")
    line = refused(liver, [source, "--val", "0", "--flip", "image"], tmp_path / "out", capsys)
    assert "volume-3.nii" in line
    assert "wrong about lr, but the image does not show whether si, ap is right" in line
    assert liver.main([str(source), "-o", str(tmp_path / "out"), "--val", "0", "--flip", "lr,ap"]) == 0
    assert_is_abdomen(tmp_path / "out", (boneless, labels, spacing_mm))


def test_the_image_shows_every_possible_orientation(shared_data):
    hu, labels = (
        sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(shared_data(f"volumes/abdomen_3mm_{kind}.nii.gz"))), "LPS"))
        for kind in ("ct", "liver")
    )  # fmt: skip
    for turned in ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        wrong, unclear = anatomy.wrong_axes(np.flip(hu, turned), np.flip(labels > 0, turned))
        assert wrong == {anatomy.AXES[axis] for axis in turned}
        assert not unclear


DENSE_SLICES = 20  # with liver, that a scan must have to be judged: single slices show neither its dome nor its tip


def dense_runs(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The rows with liver of each scan of which every second slice is there, by volume."""
    by_volume: dict[str, list[dict[str, str]]] = {}
    for row in rows_of(folder):
        if row["liver_px"] != "0":
            by_volume.setdefault(row["volume"], []).append(row)
    return {
        volume: rows
        for volume, rows in by_volume.items()
        if len(rows) >= DENSE_SLICES and np.median(np.diff([int(row["slice"]) for row in rows])) <= 2
    }


def test_the_image_shows_the_orientation_of_every_dense_run_with_liver(shared_data):
    runs = dense_runs(shared_data("liver"))
    assert len(runs) >= 24
    unclear_of = {}
    for volume, rows in runs.items():
        stored, masks = (
            np.stack(
                [picture(shared_data(f"liver/{kind}") / row["file"]) for row in rows[:: 3 if len(rows) > 30 else 1]]
            )
            for kind in ("images", "masks")
        )
        hu = np.where(stored < 3, -1000, np.where(stored > 249, 1000, -40 + stored * (200 / 255)))  # beyond the window
        wrong, unclear_of[volume] = anatomy.wrong_axes(hu, masks > 0)
        assert not wrong, volume
        assert anatomy.share_of_soft_tissue(hu, masks > 0) > 0.99, volume
    assert unclear_of.pop("lits035") <= {"ap"}  # its liver is brighter than the window
    assert all(unclear <= {"si"} for unclear in unclear_of.values())
    assert sum(bool(unclear) for unclear in unclear_of.values()) <= 3


def test_the_decathlon_form_is_read_and_scans_6_to_10_are_one_patient(abdomen, tmp_path):
    hu, labels, spacing_mm = (abdomen[0][:4], abdomen[1][:4], abdomen[2])
    for number in (6, 10, 11):
        write_nifti(tmp_path / f"in/imagesTr/liver_{number}.nii.gz", hu, spacing_mm)
        write_nifti(tmp_path / f"in/labelsTr/liver_{number}.nii.gz", labels, spacing_mm)
    (tmp_path / "in/imagesTr/._liver_6.nii.gz").write_bytes(b"what macOS leaves in archives")
    assert liver.main([str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--val", "0.5"]) == 0
    split_of = {(row["volume"], row["patient"]): row["split"] for row in rows_of(tmp_path / "out")}
    assert set(split_of) == {("lits006", "P7"), ("lits010", "P7"), ("lits011", "P11")}
    assert split_of["lits006", "P7"] == split_of["lits010", "P7"] != split_of["lits011", "P11"]
    assert read_slices(tmp_path / "out", load_target("liver"), "val")


def test_a_pixel_of_four_is_liver_from_two_of_them_on_and_tumour_from_half_of_these_on():
    labels = np.array([[1, 0, 1, 0, 1, 2, 1, 1, 2, 0], [0, 0, 1, 0, 0, 0, 1, 2, 2, 0]], np.uint8)
    assert liver.halved_labels(labels).tolist() == [[0, 1, 2, 1, 2]]
    labels = np.array([[1, 2], [1, 2]], np.uint8)
    assert liver.halved_labels(labels).tolist() == [[2]]


def test_volumes_of_lits_have_the_patients_of_the_data_at_hand(shared_data):
    for row in rows_of(shared_data("liver")):
        if row["volume"].startswith("lits"):
            assert liver.Scan(int(row["volume"][4:]), Path(), Path()).patient == row["patient"]


def test_an_empty_header_gives_no_sizes(abdomen, tmp_path):
    hu, labels, _ = abdomen
    source = write_lits(tmp_path / "in", (hu, labels, np.ones(3)), directions=np.eye(3), stored_as="RAS")
    assert liver.main([str(source), "-o", str(tmp_path / "out"), "--val", "0", "--flip", "image"]) == 0
    assert_is_abdomen(tmp_path / "out", abdomen)
    row = rows_of(tmp_path / "out")[0]
    assert row["source_pixel_mm"] == row["source_slice_mm"] == row["size_from"] == ""


def test_a_mask_whose_header_disagrees_is_laid_on_its_image_if_it_fits(abdomen, tmp_path, capsys):
    labels = abdomen[1]
    source = write_lits(tmp_path / "in", abdomen)
    write_nifti(source / "segmentation-3.nii", labels, np.ones(3), directions=np.eye(3), stored_as="RAS")
    assert liver.main([str(source), "-o", str(tmp_path / "out"), "--val", "0"]) == 0
    assert_is_abdomen(tmp_path / "out", abdomen)
    assert "laid on the image voxel by voxel" in (tmp_path / "out" / "notes.txt").read_text()

    write_nifti(source / "segmentation-3.nii", labels[:, ::-1], np.ones(3), directions=np.eye(3), stored_as="RAS")
    line = refused(liver, [source, "--val", "0"], tmp_path / "again", capsys)
    assert "segmentation-3.nii does not lie on the liver of its image" in line


def test_slices_are_chosen_as_in_the_folder_the_networks_are_trained_on(shared_data):
    rows = [row for row in rows_of(shared_data("liver")) if row["volume"] == "lits004"]
    with_liver = [int(row["slice"]) for row in rows if row["liver_px"] != "0"]
    has_liver = np.zeros(842, bool)
    has_liver[with_liver[0] : with_liver[-1] + 1] = True
    chosen = slicefolder.chosen_slices(has_liver, every=2)
    assert [k for k in chosen if has_liver[k]] == with_liver
    assert abs(len(chosen) - len(rows)) < 20
    assert np.diff(chosen).max() == 12
    assert slicefolder.chosen_slices(np.zeros(25, bool), every=2) == [0, 12, 24]


def test_every_slice_with_the_organ_is_kept_every_second_one_beside_it_and_every_sixth_one_farther_off():
    organ = np.isin(np.arange(100), range(40, 50))
    near = [*range(28, 40, 2), *range(40, 50), *range(50, 62, 2)]
    assert slicefolder.chosen_slices(organ, every=1) == [*range(0, 28, 6), *near, *range(66, 100, 6)]


def test_of_a_run_of_slices_that_would_be_left_out_the_middle_one_is_kept():
    lesions = np.isin(np.arange(40), [9, 15, 21, 22, 23])
    chosen = slicefolder.chosen_slices(lesions, every=4)
    assert [k for k in chosen if lesions[k]] == [9, 15, 22]
    beside = np.isin(np.arange(40), range(8, 30))
    assert [k for k in slicefolder.chosen_slices(np.stack([beside, lesions]), every=4) if lesions[k]] == [9, 15, 22]
    assert {*slicefolder.chosen_slices(beside, every=4)} <= {*range(0, 40, 4)}


def test_of_an_outline_whose_kept_slices_show_less_than_half_of_its_largest_area_the_largest_slice_is_kept_too():
    area = np.zeros(40, int)
    area[3:6] = 9, 1, 1  # only its tip lies on the grid
    area[9:12] = 1, 2, 9  # nothing of it does
    area[19:22] = 9, 5, 2  # more than half does
    assert [k for k in slicefolder.chosen_slices(area, every=4) if area[k]] == [3, 4, 11, 20]


def damage(source: Path, how: str, abdomen) -> str:
    """Damage a LiTS source; returns what the refusal must name."""
    hu, labels, spacing_mm = abdomen
    image, mask = source / "volume-3.nii", source / "segmentation-3.nii"
    if how == "image without mask":
        mask.unlink()
        return f"{image} has no mask"
    if how == "mask without image":
        image.unlink()
        return f"{mask} has no image"
    if how == "sizes differ":
        write_nifti(mask, labels[:-1], spacing_mm)
        return f"{mask} has 19 × 512 × 512 voxels, but its image has 20 × 512 × 512"
    if how == "label 3":
        write_nifti(mask, labels + (labels == 2).astype(np.uint8), spacing_mm)
        return f"{mask} holds values from 0 to 3"
    if how == "label a half":
        write_nifti(mask, labels * np.float32(0.5), spacing_mm)
        return f"{mask} holds values from 0 to 1"
    if how == "small slices":
        write_nifti(image, hu[:, ::2, ::2], spacing_mm)
        write_nifti(mask, labels[:, ::2, ::2], spacing_mm)
        return f"{image} has 20 × 256 × 256 voxels"
    if how == "not CT":
        write_nifti(image, (hu.clip(0, 255)).astype(np.uint8), spacing_mm)
        return f"{image}: This does not look like CT"
    if how == "mask of another":
        write_nifti(mask, np.flip(labels, (1, 2)), spacing_mm)
        return f"{mask} does not lie on the liver"
    if how == "torn":
        packed = gzip.compress(image.read_bytes(), compresslevel=1)
        image.unlink()
        (source / "volume-3.nii.gz").write_bytes(packed[: len(packed) // 2])
        return f"{source / 'volume-3.nii.gz'} is damaged or incomplete"
    assert how == "twice"
    write_nifti(source / "more" / "volume-3.nii", hu, spacing_mm)
    return "have the same number"


@pytest.mark.parametrize(
    "how",
    [
        "image without mask",
        "mask without image",
        "sizes differ",
        "label 3",
        "label a half",
        "small slices",
        "not CT",
        "mask of another",
        "torn",
        "twice",
    ],
)
def test_a_damaged_liver_source_is_refused_with_the_name_of_the_file(abdomen, tmp_path, capsys, how):
    source = write_lits(tmp_path / "in", abdomen)
    named = damage(source, how, abdomen)
    assert named in refused(liver, [source, "--val", "0"], tmp_path / "out", capsys)


@pytest.mark.parametrize("flip", ["up", "lr;ap", "7=lr", ""])
def test_a_flip_that_means_nothing_is_refused(tmp_path, capsys, flip):
    for name in ("volume-3.nii", "segmentation-3.nii"):
        (tmp_path / name).touch()
    assert f"--flip {flip}: " in refused(liver, [tmp_path, "--val", "0", f"--flip={flip}"], tmp_path / "out", capsys)
