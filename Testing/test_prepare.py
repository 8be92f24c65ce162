"""The prepare scripts for photographs, and what all scripts share: splits, refusals, folders written completely or not at all."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import measure

import liver
import nodule
import nuclei
import polyp
import slicefolder
from data.slices import read_slices
from data.targets import load_target
from Testing.support.prepare_scripts import PREPARE, picture, refused, rows_of


def write_bowl(folder: Path, shared_data, rows: list[dict[str, str]], times: int) -> Path:
    """Write images as the Data Science Bowl has them, `times` as large, each with a mask for each nucleus."""
    for row in rows:
        name = row["file"].removesuffix(".png").ljust(64, "0")
        rgb, mask = (picture(shared_data(f"nuclei/{kind}") / row["file"]) for kind in ("images", "masks"))
        large = rgb.repeat(times, axis=0).repeat(times, axis=1)
        labelled = measure.label(mask.repeat(times, axis=0).repeat(times, axis=1))
        for kind in ("images", "masks"):
            (folder / name / kind).mkdir(parents=True)
        Image.fromarray(large).convert("RGBA").save(folder / name / "images" / f"{name}.png")
        for nucleus in range(1, max(2, labelled.max() + 1)):
            Image.fromarray(np.where(labelled == nucleus, 255, 0).astype(np.uint8)).save(
                folder / name / "masks" / f"{nucleus}.png"
            )
    return folder


@pytest.mark.parametrize("times", [1, 3])
def test_nuclei_equal_those_of_the_shared_folder(shared_data, tmp_path, times):
    shared = rows_of(shared_data("nuclei"))[:60:10]
    source = write_bowl(tmp_path / "stage1_train", shared_data, shared, times)
    assert (
        nuclei.main([str(source), "-o", str(tmp_path / "out"), "--split", str(shared_data("nuclei/slices.csv"))]) == 0
    )
    size = {"source_width": str(128 * times), "source_height": str(128 * times)}
    assert rows_of(tmp_path / "out") == [row | size for row in shared]
    for row in shared:
        for kind in ("images", "masks"):
            new, old = (picture(folder / kind / row["file"]) for folder in (tmp_path / "out", shared_data("nuclei")))
            np.testing.assert_array_equal(new, old)
    assert read_slices(tmp_path / "out", load_target("nuclei"), shared[0]["split"])


def test_polyps_equal_those_of_the_shared_folder_except_for_jpeg(shared_data, tmp_path):
    shared = rows_of(shared_data("polyp"))[:500:100]
    for kind in ("images", "masks"):
        (tmp_path / "in" / kind).mkdir(parents=True)
    for row in shared:
        rgb, mask = (
            picture(shared_data("polyp/images") / row["file"]),
            picture(shared_data("polyp/masks") / row["mask"]),
        )
        for kind, pixels in (("images", rgb), ("masks", (mask * 255)[..., None].repeat(3, axis=2))):
            large = pixels.repeat(2, axis=0).repeat(2, axis=1)
            Image.fromarray(large).save(tmp_path / "in" / kind / row["file"], quality=90)
    assert polyp.main([str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--test", "0.2"]) == 0
    rows = rows_of(tmp_path / "out")
    assert [row | {"split": "any"} for row in rows] == [row | {"split": "any"} for row in shared]
    assert sorted(row["split"] for row in rows) == ["test", "train", "train", "train", "val"]
    for row in rows:
        new, old = (picture(folder / "masks" / row["mask"]) for folder in (tmp_path / "out", shared_data("polyp")))
        np.testing.assert_array_equal(new, old)
        new, old = (picture(folder / "images" / row["file"]) for folder in (tmp_path / "out", shared_data("polyp")))
        assert np.abs(new.astype(int) - old).mean() < 3
    assert read_slices(tmp_path / "out", load_target("polyp"), "train")


def test_photographs_that_do_not_fit_are_refused_with_the_name_of_the_file(shared_data, tmp_path, capsys):
    row = rows_of(shared_data("nuclei"))[0]
    source = write_bowl(tmp_path / "in", shared_data, [row], 1)
    (image,), (mask, *_) = sorted(source.rglob("images/*.png")), sorted(source.rglob("masks/*.png"))
    right = mask.read_bytes()
    Image.new("L", (64, 128)).save(mask)
    assert f"{mask} has 64 × 128 pixels, but its image has 128 × 128" in refused(
        nuclei, [source, "--val=0"], tmp_path / "out", capsys
    )
    Image.open(image).save(mask)
    Image.new("L", (128, 128), 100).save(mask)
    assert f"{mask} is not a mask: 100% of its pixels" in refused(nuclei, [source, "--val=0"], tmp_path / "out", capsys)
    mask.write_bytes(right[:60])
    assert f"{mask} cannot be read as an image" in refused(nuclei, [source, "--val=0"], tmp_path / "out", capsys)
    for path in source.rglob("masks/*.png"):
        path.unlink()
    assert f"{image} has no mask" in refused(nuclei, [source, "--val=0"], tmp_path / "out", capsys)
    (tmp_path / "kvasir/masks").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "kvasir/masks/a.jpg")
    assert "masks/a.jpg has no image" in refused(polyp, [tmp_path / "kvasir", "--val=0"], tmp_path / "out", capsys)


@pytest.mark.parametrize("script", [liver, nodule, nuclei, polyp], ids=lambda script: script.__name__)
def test_the_table_has_the_columns_of_the_shared_folder(script, shared_data):
    with shared_data(f"{script.__name__}/slices.csv").open() as file:
        assert list(script.COLUMNS) == file.readline().strip().split(",")


@pytest.mark.parametrize("script", [liver, nodule, nuclei, polyp], ids=lambda script: script.__name__)
def test_a_source_without_data_is_refused(script, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'} holds no " in refused(script, [tmp_path / "empty"], tmp_path / "out", capsys)
    assert f"{tmp_path / 'none'} is not a folder" in refused(script, [tmp_path / "none"], tmp_path / "out", capsys)


def test_a_larger_pixel_is_marked_from_half_of_its_area_on():
    marked = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 1, 0]], bool)
    assert slicefolder.area_majority(np.pad(marked, ((0, 2), (0, 0))), 3).tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 0]]


def splits_given(**changes) -> argparse.Namespace:
    return argparse.Namespace(**{"source": "in", "split": None, "val": 0.2, "test": 0.1, "seed": 0} | changes)


@given(
    names=st.sets(st.text("P0123456789", min_size=1, max_size=4), min_size=3, max_size=30),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_every_patient_gets_one_split_in_any_order_and_every_split_gets_a_patient(names, seed, data):
    split_of = slicefolder.assign_splits(sorted(names) * 2, splits_given(seed=seed))
    shuffled = data.draw(st.permutations(sorted(names)))
    assert slicefolder.assign_splits(shuffled, splits_given(seed=seed)) == split_of
    assert split_of.keys() == names
    assert set(split_of.values()) == {"train", "val", "test"}


def test_another_seed_draws_another_split():
    names = [f"P{n}" for n in range(30)]
    draws = [slicefolder.assign_splits(names, splits_given(seed=seed)) for seed in range(3)]
    assert draws[0] != draws[1] != draws[2]
    assert all(list(draw.values()).count("val") == 6 and list(draw.values()).count("test") == 3 for draw in draws)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ("patient,split\nP1,train\nP1,val\n", "P1 is in two splits, train (line 2) and val (line 3)"),
        ("patient,split\nP1,training\n", "line 2: P1 has the split 'training'"),
        ("patient,split\nP2,train\n", "has no line for P1"),
        ("who,where\nP1,train\n", "needs the columns patient and split"),
        ("", "needs the columns patient and split"),
        (None, "cannot be read as a table"),
    ],
)
def test_a_split_file_that_cannot_be_used_is_refused_by_name(tmp_path, table, named):
    path = tmp_path / "splits.csv"
    if table is not None:
        path.write_text(table)
    with pytest.raises(slicefolder.PrepareError, match=r"splits\.csv") as refusal:
        slicefolder.assign_splits(["P1"], splits_given(split=path))
    assert named in str(refusal.value)


@pytest.mark.parametrize("shares", [{"val": 0.6, "test": 0.4}, {"val": -0.1}, {"val": float("nan")}])
def test_shares_that_leave_nothing_to_train_are_refused(shares):
    with pytest.raises(slicefolder.PrepareError, match="--val"):
        slicefolder.assign_splits(["P1", "P2", "P3", "P4"], splits_given(**shares))


def test_a_single_patient_cannot_be_divided_into_splits():
    with pytest.raises(slicefolder.PrepareError, match=r"1 patient.*--val 0"):
        slicefolder.assign_splits(["P1", "P1"], splits_given())


def test_an_existing_folder_is_replaced_only_with_force_and_only_if_it_is_a_slice_folder(shared_data, tmp_path, capsys):
    source = write_bowl(tmp_path / "in", shared_data, rows_of(shared_data("nuclei"))[:1], 1)
    output, other = tmp_path / "out", tmp_path / "holiday"
    assert nuclei.main([str(source), "-o", str(output), "--val=0"]) == 0
    (output / "images" / "older.png").touch()
    assert f"{output} already exists" in refused(nuclei, [source, "--val=0"], output, capsys)
    (source / "broken" / "images").mkdir(parents=True)
    (source / "broken" / "images" / "a.png").touch()
    assert "has no mask" in refused(nuclei, [source, "--val=0", "--force"], output, capsys)
    assert (output / "images" / "older.png").exists()
    (source / "broken" / "images" / "a.png").unlink()
    (tmp_path / ".out.older" / "images").mkdir(parents=True)  # of a call that was killed
    assert nuclei.main([str(source), "-o", str(output), "--val=0", "--force"]) == 0
    assert not (output / "images" / "older.png").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    other.mkdir()
    (other / "beach.jpg").touch()
    assert f"{other} is not a slice folder" in refused(nuclei, [source, "--val=0", "--force"], other, capsys)
    assert (other / "beach.jpg").exists()


def test_a_folder_behind_a_link_is_made_and_replaced_as_often_as_wanted_and_the_link_stays(tmp_path):
    grey, disk, link = np.zeros((8, 8), np.uint8), tmp_path / "disk", tmp_path / "link"
    disk.mkdir()
    link.symlink_to(disk / "data")
    for name in ("a.png", "b.png", "c.png"):
        with slicefolder.SliceFolder(link, ["file"], replace=True) as folder:
            folder.add({"file": name}, grey, grey)
        assert link.is_symlink() and [row["file"] for row in rows_of(disk / "data")] == [name]
        assert sorted(path.name for path in (*tmp_path.iterdir(), *disk.iterdir())) == ["data", "disk", "link"]


def test_an_interrupted_run_leaves_nothing(tmp_path):
    grey = np.zeros((8, 8), np.uint8)
    with pytest.raises(KeyboardInterrupt), slicefolder.SliceFolder(tmp_path / "out", ["file"]) as folder:
        folder.add({"file": "a.png"}, grey, grey)
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("replace", [False, True])
def test_a_second_preparation_of_a_folder_is_refused_and_the_first_goes_on(tmp_path, replace):
    grey = np.zeros((8, 8), np.uint8)
    with slicefolder.SliceFolder(tmp_path / "out", ["file"]) as folder:
        with (
            pytest.raises(
                slicefolder.PrepareError, match=r"Another preparation is writing .*out: wait until it is done"
            ),
            slicefolder.SliceFolder(tmp_path / "out", ["file"], replace),
        ):
            pytest.fail("two preparations ran at once")
        folder.add({"file": "a.png"}, grey, grey)
    assert [row["file"] for row in rows_of(tmp_path / "out")] == ["a.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_slices_of_the_same_name_are_refused(tmp_path):
    grey = np.zeros((8, 8), np.uint8)
    with (
        pytest.raises(slicefolder.PrepareError, match=r"images/a\.png"),
        slicefolder.SliceFolder(tmp_path / "out", ["file"]) as folder,
    ):
        folder.add({"file": "a.png"}, grey, grey)
        folder.add({"file": "a.png"}, grey, grey)


def test_a_full_disk_leaves_no_files_and_one_message(shared_data, tmp_path):
    source = write_bowl(tmp_path / "in", shared_data, rows_of(shared_data("nuclei"))[:3], 1)
    few_bytes = 5000  # fewer than an image takes; the kernel refuses the rest, as it does on a full disk
    result = subprocess.run(
        [sys.executable, PREPARE / "nuclei.py", source, "-o", tmp_path / "out", "--val=0"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (few_bytes, few_bytes)),
    )
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert f"{tmp_path / 'out' / 'images'}" in result.stderr
    assert "cannot be written (File too large). Free space on that disk" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
