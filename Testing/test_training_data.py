"""Training data: wrong settings and slice folders are refused by name; draws and patches are reproducible."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import train
from data.sampler import BalancedSampler
from data.slices import UNKNOWN, DataError, Slice, SliceDataset, read_rows, read_slices
from data.targets import load_target
from fit.augmentation import Augment, coarsened, without_table
from fit.settings import Settings, SettingsError, load_settings
from fit.slice_data import SliceData
from Testing.support.slicefolders import liver_folder, read_table, write_table

LIVER = load_target("liver")
PATIENTS = {"A": "train", "B": "train", "C": "val"}


@pytest.fixture
def folder(tmp_path):
    return liver_folder(tmp_path / "data", PATIENTS)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("name: n\ntarget: liver\ndata: d\n")
    return path


def test_the_command_line_wins_over_the_file(config):
    settings = load_settings(config, ["steps=700", "patch=[32, 48]", "learning_rate=1e-4", "name=other"])
    assert (settings.steps, settings.patch, settings.learning_rate, settings.name) == (700, (32, 48), 1e-4, "other")


def test_saved_settings_read_back_as_they_were(config, tmp_path):
    settings = load_settings(config, ["filters=[2, 4, 8]", "seed=5"])
    settings.save(tmp_path / "saved.yaml")
    assert load_settings(tmp_path / "saved.yaml") == settings


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("learning_rat=1", r"no setting 'learning_rat'; did you mean 'learning_rate'\?"),
        ("steps=many", "steps='many' must be of type int"),
        ("steps=0", "steps=0 must be above zero"),
        ("with_organ=1.5", "share"),
        ("patch=[112]", "two numbers"),
        ("patch=[112, 1.5]", "two whole numbers"),
        ("patch=[112", "cannot be read"),
        ("scale=[1.4, 0.7]", "the smaller one first"),
        ("scale=[0, 1]", "above zero"),
        ("ema_decay=1.5", "must be at least 0 and below 1"),
        ("threads=-1", "must not be below zero"),
        ("steps=150", "must be a multiple of steps_per_epoch=100"),
        ("target=kidney", "target='kidney' is unknown; it can be abdomen, liver, nodule"),
        ("also={kidney: folder}", "also: 'kidney' is not a target"),
        ("also={nuclei: folder}", "also: 'nuclei' and the target liver have different images"),
        ("recolour=2", "share"),
        ("architecture=unet++", "unetpp_ds"),
        ("loss=dice", "bce_dice, bce_dice_each, bce_log_dice, hybrid, hybrid_background"),
        ("steps", "not of the form key=value"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_allowed_values(config, override, words):
    with pytest.raises(SettingsError, match=words):
        load_settings(config, [override])


def test_folders_and_faint_slices_cannot_both_be_drawn_equally_often(config):
    with pytest.raises(SettingsError, match=r"even_folders and faint_hu both .* give one of them"):
        load_settings(config, ["even_folders=true", "faint_hu=-400"])


def test_every_shipped_config_can_be_loaded():
    configs = sorted((Path(__file__).parents[1] / "training" / "configs").glob("*.yaml"))
    assert configs
    for path in configs:
        given = ["name=own", "target=abdomen", "data=data/own"] if path.stem == "own" else []
        assert isinstance(load_settings(path, given), Settings)


def test_stored_zero_becomes_air_and_the_rest_of_the_window_keeps_its_hu():
    hu = LIVER.to_hu(np.array([0, 1, 51, 255], np.uint8))
    np.testing.assert_allclose(hu, [-1000, -40 + 200 / 255, 0, 160], atol=1e-3)


def test_a_folder_is_read_by_split(folder):
    training, validation = read_slices(folder, LIVER, "train"), read_slices(folder, LIVER, "val")
    assert {s.row["patient"] for s in training} == {"A", "B"} and {s.row["patient"] for s in validation} == {"C"}
    assert training[0].pixel_mm == 2.0  # 512² made 256²


def test_a_missing_mask_is_refused_by_name(folder):
    (folder / "masks" / "A_2.png").unlink()
    with pytest.raises(DataError, match=r"masks.A_2\.png cannot be read"):
        read_slices(folder, LIVER, "train")


def test_a_mask_of_another_size_is_refused_by_name(folder):
    Image.fromarray(np.zeros((40, 41), np.uint8)).save(folder / "masks" / "B_0.png")
    with pytest.raises(DataError, match=r"B_0\.png has 40 × 41 pixels, but its image has 40 × 40"):
        read_slices(folder, LIVER, "train")


def test_a_label_out_of_range_is_refused_by_name(folder):
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(folder / "masks" / "B_0.png")
    with pytest.raises(DataError, match=r"B_0\.png holds the value 255"):
        read_slices(folder, LIVER, "train")


def test_a_truncated_image_is_refused_by_name(folder):
    path = folder / "images" / "A_0.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"A_0\.png cannot be read"):
        read_slices(folder, LIVER, "train")


def test_a_patient_in_two_splits_is_refused_by_name(folder):
    rows = read_table(folder)
    rows[1]["split"] = "val"
    write_table(folder, rows)
    with pytest.raises(DataError, match="patient A is in two splits, train and val"):
        read_slices(folder, LIVER, "train")


def test_an_empty_split_is_refused(folder):
    with pytest.raises(DataError, match=r"no row with split 'test'; its splits are train, val"):
        read_slices(folder, LIVER, "test")


def test_folds_divide_the_people_of_train_and_leave_val_unchanged(tmp_path):
    people = {f"P{n}": "train" for n in range(7)} | {"V": "val"}
    folder = liver_folder(tmp_path / "data", people, slices=2)
    kind = load_target("liver").slices

    def of(split):
        return {row["patient"] for row in read_rows(folder, kind, split)}

    folds = [of(f"train:{number}/3") for number in (1, 2, 3)]
    assert sorted(name for fold in folds for name in fold) == sorted(of("train"))
    assert sorted(map(len, folds)) == [2, 2, 3]
    assert [of(f"train:-{number}/3") for number in (1, 2, 3)] == [of("train") - fold for fold in folds]
    write_table(folder, read_table(folder)[::-1])
    assert [of(f"train:{number}/3") for number in (1, 2, 3)] == folds, "whatever the order of the rows"


@pytest.mark.parametrize("fold", ["0/3", "4/3", "1/1", "a/b", "-", "1"])
def test_a_wrong_fold_is_refused_with_a_correct_example(folder, fold):
    with pytest.raises(DataError, match="write 1/3 for the first of three"):
        read_rows(folder, load_target("liver").slices, f"train:{fold}")


def test_a_folder_of_another_target_is_refused(folder):
    with pytest.raises(DataError, match="does not belong to this target"):
        nuclei = load_target("nuclei")
        read_slices(folder, nuclei, "train", dataclasses.replace(nuclei.slices, group="patient"))
    with pytest.raises(DataError, match="pixel size"):
        read_slices(folder, load_target("nodule"), "train")


def test_a_missing_folder_is_refused_with_the_way_to_make_one(tmp_path):
    with pytest.raises(DataError, match="training/prepare"):
        read_slices(tmp_path / "nowhere", LIVER, "train")


def test_two_ranks_draw_disjoint_halves_of_the_draw_of_one(folder):
    slices = read_slices(folder, LIVER, "train")
    one = BalancedSampler(slices, 8, 0.5, seed=3)
    halves = [BalancedSampler(slices, 8, 0.5, 3, rank, 2) for rank in (0, 1)]
    drawn = [list(half) for half in halves]
    assert sorted(drawn[0] + drawn[1]) == sorted(one)
    assert not {i for i, _ in drawn[0]} & {i for i, _ in drawn[1]}


def test_a_draw_holds_the_wanted_share_with_the_organ_and_changes_with_the_epoch(folder):
    slices = read_slices(folder, LIVER, "train")
    sampler = BalancedSampler(slices, 8, 0.75, seed=3)
    first = list(sampler)
    assert first == list(sampler)
    assert sum(slices[i].mask.any() for i, _ in first) == 6
    sampler.epoch = lambda: 1
    assert first != list(sampler)


def test_a_patient_of_many_slices_is_drawn_as_often_as_one_of_few(tmp_path):
    folder = liver_folder(tmp_path / "data", {"A": "train", "C": "val"}, slices=20)
    few = liver_folder(tmp_path / "few", {"B": "train"}, slices=4)
    slices = read_slices(folder, LIVER, "train") + read_slices(few, LIVER, "train")
    drawn = [slices[i].row["patient"] for i, _ in BalancedSampler(slices, 16, 1.0, seed=3)]
    assert drawn.count("A") == drawn.count("B") == 8


def test_whose_a_slice_is_stands_in_the_column_that_the_target_names(tmp_path):
    """Of people in another column than `patient`, each is drawn equally often and has a Dice of its own in the validation."""
    folder = liver_folder(tmp_path / "data", {"A": "train", "B": "train", "C": "val", "D": "val"}, slices=4)
    table = folder / "slices.csv"
    table.write_text(table.read_text().replace("patient", "subject", 1))
    target = dataclasses.asdict(dataclasses.replace(LIVER, slices=dataclasses.replace(LIVER.slices, group="subject")))
    data = SliceData(Settings("tiny", target, str(folder), pixel_mm=2.0, filters=(2, 3), validation_stride=1))
    slices = data.training[1:]  # one fewer of A
    drawn = [slices[at].group for at, _ in BalancedSampler(slices, 8, 1.0, seed=3)]
    assert set(data.groups) == {0, 1} and drawn.count("A") == drawn.count("B") == 4


def test_no_slice_without_the_organ_is_drawn_where_its_share_rounds_to_none(folder):
    slices = read_slices(folder, LIVER, "train")
    drawn = list(BalancedSampler(slices, 2, 0.9, seed=3))
    assert len(drawn) == 2 and all(slices[i].mask.any() for i, _ in drawn)


def test_faint_slices_of_few_patients_are_drawn_as_often_as_all_others_with_the_organ(folder):
    slices = read_slices(folder, LIVER, "train")
    shown = np.flatnonzero([s.mask.any() for s in slices])
    faint = np.isin(np.arange(len(slices)), shown[:1])
    drawn = [i for i, _ in BalancedSampler(slices, 16, 0.75, seed=3, groups=faint)]
    assert drawn.count(shown[0]) == 6
    assert sum(bool(slices[i].mask.any()) for i in drawn) == 12


def test_an_unsure_pixel_is_unknown_in_the_patches_of_its_slice_and_nowhere_else(folder):
    slices = read_slices(folder, LIVER, "train")
    at = next(n for n, item in enumerate(slices) if item.mask.any())
    item = slices[at]
    unsure = np.zeros_like(item.mask)
    unsure[:, :8] = True
    slices[at] = replace(item, unsure=unsure)
    for pixel_mm, rows in ((item.pixel_mm, 8), (2 * item.pixel_mm, 4)):
        patches = SliceDataset(slices, pixel_mm)
        plain = SliceDataset([item], pixel_mm)[0][1]
        truth = patches[at][1]
        free = plain[:, :rows] == 0
        assert (truth[:, :rows][free] == UNKNOWN).all() and (truth[:, rows:] == plain[:, rows:]).all()
        assert not any((patches[n][1] == UNKNOWN).any() for n in range(len(slices)) if n != at)


def test_a_coarser_pixel_is_unknown_if_it_may_lie_on_either_side_of_one_half(folder):
    item = read_slices(folder, LIVER, "train")[0]
    mask, unsure = np.zeros((2, 1, 36, 36), bool)
    mask[:, :, ::3] = True  # a third of each coarser pixel
    unsure[:, :18, 1::3] = True  # another third of the upper ones
    item = replace(item, image=np.zeros((36, 36), np.uint8), mask=mask, unsure=unsure)
    truth = SliceDataset([item], 3 * item.pixel_mm)[0][1]
    assert (truth[:, 1:5, 1:-1] == UNKNOWN).all() and (truth[:, 7:, 1:-1] == 0).all()


def test_augmentation_moves_unknown_pixels_with_the_image_and_adds_none(folder):
    settings = settings_of(roam=1.0, recolour=1.0, bowel=1.0)
    image = torch.full((1, 64, 64), 0.5)
    truth = torch.full((1, 64, 64), float(UNKNOWN))
    truth[:, 20:40] = 0
    for seed in range(8):
        _, moved = Augment(settings, LIVER.window_hu)(image, truth, seed)
        assert set(moved.unique().tolist()) == {0.0, float(UNKNOWN)}


def test_folders_can_be_drawn_from_equally_often_however_many_people_they_have(tmp_path):
    for name, people in (("few", "A"), ("many", "BCDEF")):
        patients = dict.fromkeys(people, "train") | {f"{name}-val": "val"}
        liver_folder(tmp_path / name, patients, slices=4)
    common = {"name": "n", "target": "liver", "data": str(tmp_path / "few"), "also": {"liver": str(tmp_path / "many")}}
    for even, share in ((False, 1 / 6), (True, 1 / 2)):
        data = SliceData(Settings(**common, even_folders=even, with_organ=1.0))
        sampler = BalancedSampler(data.training, 120, 1.0, seed=1, groups=data.groups_of_draws())
        drawn = [data.training[at].row["patient"] for at, _ in sampler]
        assert drawn.count("A") == round(120 * share)


@pytest.fixture
def two_folders(folder, tmp_path):
    """Settings of a training with a second folder, whose masks mark a gallbladder as 1 and the liver as 2."""
    described = (Path(train.__file__).parent / "targets" / "liver.yaml").read_text()
    structures = {"liver": [2], "liver tumour": [3], "gallbladder": [1]}
    kind = yaml.safe_load(described)["slices"] | {"structures": structures, "unknown": []}
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"slices": kind}))
    more = liver_folder(tmp_path / "more", {"D": "train", "E": "val"})
    return Settings("tiny", "liver", str(folder), also={str(tmp_path / "more.yaml"): str(more)}, pixel_mm=2.0)


def mark_only(settings: Settings, value: int, side: int) -> None:
    """Mark a square of pixels of 2 mm, and nothing else, in what is learned from the second folder."""
    (more,) = map(Path, settings.also.values())
    erase(more, *(f"D_{number}" for number in range(4)))
    mask = np.zeros((40, 40), np.uint8)
    mask[20 : 20 + side, 20 : 20 + side] = value
    Image.fromarray(mask).save(more / "masks" / "D_0.png")


def test_paste_is_refused_where_nothing_beside_the_organ_is_large_enough_to_be_pasted(two_folders):
    SliceData(replace(two_folders, paste=0.2))
    refusal = r"nothing for paste=0\.2 to paste.* no slice shows a piece of 2 cm² of.*give paste=0"
    mark_only(two_folders, value=1, side=8)
    SliceData(replace(two_folders, paste=0.2))
    mark_only(two_folders, value=1, side=7)
    for settings in (two_folders, replace(two_folders, also={})):
        with pytest.raises(SettingsError, match=refusal):
            SliceData(replace(settings, paste=0.2))


def test_even_folders_is_refused_where_only_one_folder_shows_a_label(two_folders):
    for settings in (two_folders, replace(two_folders, also={})):  # the gallbladder of the second folder is no label
        with pytest.raises(
            SettingsError, match=r"nothing for even_folders to make even.*only one folder.*leave it out"
        ):
            SliceData(replace(settings, even_folders=True))
    mark_only(two_folders, value=2, side=8)
    SliceData(replace(two_folders, even_folders=True))


def erase(folder, *names: str) -> None:
    """Empty masks of a slice folder."""
    for name in names:
        path = folder / "masks" / f"{name}.png"
        Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)


def test_a_validation_without_the_organ_is_refused_and_the_stride_is_named_if_it_passes_the_organ_over(folder):
    settings = Settings("tiny", "liver", str(folder), validation_stride=4)
    SliceData(settings)
    erase(folder, "C_0")
    with pytest.raises(
        DataError, match=r"Of the slices of `val`, none that validation_stride=4 takes shows Liver.* a smaller"
    ):
        SliceData(settings)
    erase(folder, "C_2")
    with pytest.raises(
        DataError, match=r"No slice of `val` shows Liver, so no checkpoint.* put people with Liver into it"
    ):
        SliceData(settings)
    held_out = {row["patient"] for row in read_rows(folder, LIVER.slices, "train:1/2")}
    erase(folder, *(f"{name}_{number}" for name in held_out for number in range(4)))
    with pytest.raises(DataError, match="No slice of `train:1/2` shows Liver"):
        SliceData(replace(settings, fold="1/2"))


def thin_out(folder, patient: str) -> None:
    """Leave one row of pixels of each organ of a patient."""
    for path in (folder / "masks").glob(f"{patient}_*.png"):
        mask = np.array(Image.open(path))
        mask[np.arange(len(mask)) != len(mask) // 2] = 0
        Image.fromarray(mask).save(path)


def test_an_organ_of_which_the_network_s_pixels_leave_nothing_is_refused_before_the_training(folder):
    settings = Settings("tiny", "liver", str(folder), pixel_mm=5.0)
    thin_out(folder, "C")
    with pytest.raises(DataError, match=r"of `val` shows Liver at pixel_mm=5, as it fills half .*: give a smaller pix"):
        SliceData(settings)
    SliceData(replace(settings, pixel_mm=2.0))
    for patient in "AB":
        thin_out(folder, patient)
    with pytest.raises(DataError, match=r"of `train` shows Liver at pixel_mm=5, .* cannot be learned: give a smaller"):
        SliceData(settings)


def settings_of(**changes) -> Settings:
    return Settings(name="n", target="liver", data="d", patch=(32, 48), **changes)


def test_slices_without_the_organ_are_drawn_uniformly_over_patients(tmp_path):
    many = liver_folder(tmp_path / "many", {"A": "train", "C": "val"}, slices=40)
    few = liver_folder(tmp_path / "few", {"B": "train"}, slices=4)
    slices = read_slices(many, LIVER, "train") + read_slices(few, LIVER, "train")
    without = [s.row["patient"] for s in slices if not s.mask.any()]
    drawn = [slices[i].row["patient"] for i, _ in BalancedSampler(slices, len(without), 0.0, seed=3)]
    assert sorted(drawn) == sorted(without)


@pytest.mark.parametrize("seed", range(20))
def test_a_roaming_patch_is_centred_on_a_pixel_of_the_organ_or_the_body(seed):
    image, organ = torch.zeros(1, 90, 110), torch.zeros(1, 90, 110)
    image[0, 5:80, 10:70] = 0.5
    organ[0, 6:9, 60:66] = 1  # near the edge of the slice, where patches about its middle do not reach
    augment = Augment(
        settings_of(roam=1.0, shift=0.0, rotation_degrees=40.0, scale=(0.8, 1.2)), window_hu=LIVER.window_hu
    )
    patch, _mask = augment._place(image, organ, np.random.default_rng(seed))
    assert patch[0, 15:17, 23:25].max() > 0
    of_organ = [augment._place(image, organ, np.random.default_rng(100 * seed + n))[1] for n in range(8)]
    assert any(each[0, 15:17, 23:25].any() for each in of_organ)


def test_the_same_draw_gives_the_same_patch_and_another_draw_another(folder):
    patches = SliceDataset(read_slices(folder, LIVER, "train"), 2.0, Augment(settings_of(), window_hu=LIVER.window_hu))
    image, mask = patches[0, 11]
    again, mask_again = patches[0, 11]
    torch.testing.assert_close(image, again, rtol=0, atol=0)
    torch.testing.assert_close(mask, mask_again, rtol=0, atol=0)
    assert image.shape == mask.shape == (1, 32, 48)
    assert not torch.equal(image, patches[0, 12][0])


def test_image_and_mask_move_together():
    organ = torch.zeros(1, 64, 64)
    organ[:, 20:50, 15:40] = 1
    augment = Augment(settings_of(), window_hu=None)
    for seed in range(20):
        image, mask = augment._place(organ, organ, np.random.default_rng(seed))
        torch.testing.assert_close((image > 0.5).float().mean(), mask.mean(), atol=0.01, rtol=0)
        assert ((image > 0.5).float() - mask).abs().mean() < 0.02


def test_the_zoom_keeps_to_its_range():
    organ = torch.zeros(1, 64, 64)
    organ[:, 28:36, 28:36] = 1
    areas = []
    for seed in range(60):
        augment = Augment(settings_of(scale=(0.5, 2.0), shift=0.0), window_hu=None)
        areas.append(float(augment._place(organ, organ, np.random.default_rng(seed))[1].sum()) / 64)
    assert 0.2 < min(areas) < 0.4 and 2.5 < max(areas) < 4.8


def test_what_lies_below_the_window_stays_air_whatever_the_contrast():
    dark = torch.zeros(1, 64, 64)
    augment = Augment(settings_of(), window_hu=LIVER.window_hu)
    for seed in range(20):
        assert augment(dark, dark, seed)[0].max() == 0


def test_the_table_behind_the_body_becomes_air_and_the_body_stays():
    image = torch.zeros(1, 40, 40)
    image[:, 8:26, 10:30] = 0.5  # the body
    image[:, 12:15, 2:5] = 0.5  # an arm beside it
    image[:, 30:32, 4:36] = 0.9  # the table
    expected = image.clone()
    expected[:, 26:] = 0
    torch.testing.assert_close(without_table(image), expected, rtol=0, atol=0)
    assert image[0, 30, 10] == 0.9  # the slice itself is drawn again later
    torch.testing.assert_close(without_table(expected * 0), expected * 0, rtol=0, atol=0)


@pytest.mark.parametrize(("window_hu", "stays"), [((-40, 160), False), ((150, 1000), True)], ids=["tissue", "bone"])
def test_nothing_is_taken_for_a_table_in_a_window_that_does_not_show_the_body(window_hu, stays):
    image, mask = torch.zeros(2, 1, 40, 40)
    image[:, 4:20, 10:30] = 0.9
    image[:, 26:36, 10:30] = mask[:, 26:36, 10:30] = 0.9  # smaller, and behind
    still = {"gain": 0.0, "offset": 0.0, "noise": 0.0, "sharpen": 0.0, "gamma": (1.0, 1.0)}
    augment = Augment(settings_of(no_table=1.0, **still), window_hu)
    for seed in range(5):
        patch, truth = augment(image, mask, seed)
        assert (patch[truth > 0.45].mean() > 0.3) == stays


def test_sharpening_changes_the_grey_values_and_not_the_mask(folder):
    slices = read_slices(folder, LIVER, "train")
    plain, sharp = (
        SliceDataset(slices, 2.0, Augment(settings_of(sharpen=share), window_hu=LIVER.window_hu))[0, 5]
        for share in (0.0, 1.0)
    )
    assert not torch.equal(plain[0], sharp[0])
    torch.testing.assert_close(plain[1], sharp[1], rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(30))
def test_coarser_pixels_do_not_shift_the_image_against_its_mask(seed):
    draw = np.random.default_rng(seed)
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    middle, radius = draw.uniform((14, 14), (34, 50)), draw.uniform(3, 10)
    disc = (((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2) < radius**2).float()
    seen = coarsened(disc[None], draw.uniform(0.5, 1))[0]
    assert not torch.equal(seen, disc)
    for at in (rows, columns):
        assert (seen * at).sum() / seen.sum() == pytest.approx(float((disc * at).sum() / disc.sum()), abs=0.05)


def test_slices_of_another_kind_are_converted_to_the_target_s_window():
    stored_hu, wanted_hu = load_target("abdomen").window_hu, LIVER.window_hu
    hu = np.array([[-125.0, -39.0, 0.0], [60.0, 159.0, 275.0]])
    stored = ((hu + 125) * 255 / 400).round().astype(np.uint8)
    item = Slice({}, "A", stored, np.zeros((1, 2, 3), bool), 1.5).in_window(stored_hu, wanted_hu)
    expected = ((hu.clip(*wanted_hu) + 40) * 255 / 200).round()
    np.testing.assert_allclose(item.image, expected, atol=2)  # half a grey value of the wider window
    assert item.image[0, 0] == 0 and item.image[1, 2] == 255


def test_what_was_stored_as_0_may_be_air_and_stays_0_in_a_wider_window():
    item = Slice({}, "A", np.array([[0, 1, 255]], np.uint8), np.zeros((1, 1, 3), bool), 1.5)
    moved = item.in_window(LIVER.window_hu, load_target("abdomen").window_hu)  # from -40 … 160 to -125 … 275 HU
    np.testing.assert_array_equal(moved.image, [[0, round((85 + 200 / 255) * 255 / 400), round(285 * 255 / 400)]])
