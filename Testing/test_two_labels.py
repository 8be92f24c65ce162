"""A user's own target with two labels, from its YAML file to two segments: really trained, exported, measured and run, but tiny."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import evaluate
import export
import train
from card.from_checkpoint import bundle_from_checkpoint
from data.slices import DataError, sources_of
from data.targets import load_target
from fit.checkpoint import read_checkpoint
from fit.settings import SettingsError, load_settings
from fit.slice_data import SliceData
from Testing.support.slicefolders import liver_folder, write_table
from Testing.support.spleen import SPLEEN, TERM
from UNetPlusPlusSegmentLib import api
from UNetPlusPlusSegmentLib.core.agreement import dice
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.network.bundle import BundleError
from UNetPlusPlusSegmentLib.network.card import PostProcessing, Source

SIZE, PIXEL_MM = 48, 2.0
GREY, WHITE, FLESH = 130, 210, 60  # stored grey values of the two organs, and of what lies round them
TARGET = {
    **SPLEEN,
    "name": "both",
    "labels": [
        {
            "name": "Grey organ", "terminology": TERM, "color": [1, 2, 3], "made_of": ["grey", "grey core"],
            "postprocessing": {"largest_component": True},
        },
        {"name": "White organ", "terminology": TERM, "color": [4, 5, 6], "made_of": ["white"]},
    ],
    "slices": {
        "window_hu": [-100, 155],  # a stored grey value is a HU
        "structures": {"grey": [1], "grey core": [2], "white": [3]},
        "pixel_mm": {"column": "pixel_mm"},
        "unknown": [{"structure": "white", "column": "white_marked", "values": ["no"]}],
        "sources": [
            {"name": "Made up", "licence": "CC0", "citation": "These tests.", "volumes": ["made*"]},
            {"name": "Never used", "licence": "CC BY 4.0", "citation": "Nobody.", "volumes": ["other*"]},
        ],
    },
    "pixel_mm": PIXEL_MM,
}  # fmt: skip


def slice_of(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A stored slice and its mask: air, a body of flesh, a grey organ with a core, a white organ."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    row, column = draw.integers(8, 16, 2)
    mask[row : row + 14, column : column + 12] = 1
    mask[row + 4 : row + 8, column + 4 : column + 8] = 2
    row, column = draw.integers(28, 34), draw.integers(8, 30)
    mask[row : row + 9, column : column + 11] = 3
    image = np.select([mask == 3, mask > 0], [WHITE, GREY], FLESH) + draw.integers(-8, 9, mask.shape)
    image[:4] = image[-4:] = 0
    return image.astype(np.uint8), mask


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Slices, a target and a config; in the slices of one patient nobody marked the white organ."""
    place = tmp_path_factory.mktemp("both")
    data = place / "data"
    for name in ("images", "masks"):
        (data / name).mkdir(parents=True)
    draw, rows = np.random.default_rng(0), []
    for patient, split in {"A": "train", "B": "train", "C": "val"}.items():
        for number in range(4):
            image, mask = slice_of(draw)
            if patient == "B":
                mask[mask == 3] = 0
            name = f"{patient}{number}.png"
            Image.fromarray(image).save(data / "images" / name)
            Image.fromarray(mask).save(data / "masks" / name)
            rows.append({
                "file": name, "volume": f"made{patient}", "patient": patient, "split": split, "slice": number,
                "pixel_mm": PIXEL_MM, "white_marked": "no" if patient == "B" else "yes",
            })  # fmt: skip
    write_table(data, rows)
    (place / "both.yaml").write_text(yaml.safe_dump(TARGET))
    (place / "config.yaml").write_text(
        f"name: both\ntarget: {place / 'both.yaml'}\ndata: {data}\nruns: {place / 'runs'}\nfilters: [6, 8]\npatch: [48, 48]\n"
        "batch_size: 4\nsteps: 120\nsteps_per_epoch: 40\nwarmup_steps: 5\nlearning_rate: 2e-2\nvalidation_stride: 1\nthreads: 1\n"
        "rotation_degrees: 0.0\nscale: [0.95, 1.05]\ngain: 0.02\noffset: 0.01\ngamma: [0.95, 1.05]\nema_decay: 0.9\n"
    )
    return place


@pytest.fixture(scope="module")
def checkpoint(place):
    assert train.main(["--config", str(place / "config.yaml")]) == 0
    return place / "runs" / "both" / "last.ckpt"


@pytest.fixture(scope="module")
def bundle(checkpoint, place):
    folder = place / "both-v1.0.0"
    assert export.main([str(checkpoint), str(folder), "--data", str(place / "data")]) == 0
    return api.choose_bundle("both", str(folder))


def test_the_trained_model_gives_two_segments_that_do_not_overlap(bundle):
    slices = [slice_of(np.random.default_rng(7)) for _ in range(6)]  # six alike: the organs go through
    hu = np.stack([image for image, _ in slices]).astype(np.float32) - 100
    hu[hu == -100] = -1000
    truth = np.stack([mask for _, mask in slices])
    volume = Volume(hu, np.diag([-PIXEL_MM, -PIXEL_MM, 4.0, 1.0]))
    for speed in ("accurate", "balanced"):
        result = api.segment(volume, "both", model=bundle.folder, speed=speed, device="cpu", force=True)
        assert [(s.name, s.value, s.color) for s in result.segments] == [
            ("Grey organ", 1, (1, 2, 3)), ("White organ", 2, (4, 5, 6)),
        ]  # fmt: skip
        for value, mask in ((1, (truth == 1) | (truth == 2)), (2, truth == 3)):
            found = result.labelmap == value
            assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.9
        voxel_ml = PIXEL_MM**2 * 4 / 1000
        counts = np.bincount(result.labelmap.ravel(), minlength=3)
        assert [s.measurements["volume_ml"] for s in result.segments] == pytest.approx(list(counts[1:] * voxel_ml))
    maps = api.load_engine(bundle, "cpu").predict(volume, api.Request("both", force=True))
    assert maps.probability().shape == maps.uncertainty().shape == volume.array.shape


def test_the_card_repeats_the_target_and_names_only_sources_that_gave_a_slice(bundle):
    assert (bundle.target, bundle.engine, bundle.priority) == ("both", "slices", ())
    assert [(label.value, label.name, label.terminology) for label in bundle.labels] == [
        (1, "Grey organ", TERM), (2, "White organ", TERM),
    ]  # fmt: skip
    assert bundle.labels[0].postprocessing == PostProcessing(largest_component=True)
    assert bundle.training_data == (Source("Made up (2 patients)", "CC0", "These tests."),)
    assert (bundle.licence, bundle.intended_use, bundle.limits) == ("CC BY 4.0", "Research.", ("Ten patients.",))
    assert (bundle.window_hu, bundle.pixel_mm) == ((-100, 155), PIXEL_MM)


def test_a_label_that_no_slice_of_the_validation_shows_is_named_in_a_warning(place, tmp_path, caplog):
    data = shutil.copytree(place / "data", tmp_path / "data")
    SliceData(load_settings(place / "config.yaml", [f"data={data}"]))
    assert not caplog.messages
    for path in (data / "masks").glob("C*.png"):
        mask = np.array(Image.open(path))
        Image.fromarray(mask * (mask < 3)).save(path)
    SliceData(load_settings(place / "config.yaml", [f"data={data}"]))
    (message,) = caplog.messages
    assert message.startswith("No slice of `val` shows White organ, so the best checkpoint is chosen without it")


def test_the_sources_of_further_folders_are_named_where_they_were_used(place, tmp_path):
    livers = liver_folder(tmp_path / "livers", {"L": "train", "M": "val"})
    alone = load_settings(place / "config.yaml")
    more = load_settings(place / "config.yaml", [f"also={{liver: {livers}}}"])
    assert [source.name for source in SliceData(alone).own.sources] == ["Made up (2 patients)"]
    assert [source.name[:12] for source in SliceData(more).own.sources] == ["Made up (2 p", "LiTS (Liver "]
    unknown = [item for item in SliceData(more).training if item.row["patient"] == "L"]
    assert not unknown  # it knows neither label


def test_a_volume_without_a_named_source_is_refused(place, tmp_path):
    folder = liver_folder(tmp_path / "livers", {"L": "train"})
    table = folder / "slices.csv"
    table.write_text(table.read_text().replace("lits000", "found000"))
    with pytest.raises(DataError, match=r"names no source of L_0\.png \(volume 'found000'\)"):
        sources_of(folder, load_target("liver").slices, "train")


def test_a_label_that_no_slice_of_the_training_shows_is_refused(place, capsys):
    described = {
        **TARGET,
        "slices": {**TARGET["slices"], "structures": {"grey": [1], "grey core": [2, 3], "white": [4]}},
    }
    (place / "none.yaml").write_text(yaml.safe_dump(described))
    assert train.main(["--config", str(place / "config.yaml"), f"target={place / 'none.yaml'}", "name=none"]) == 1
    assert "No slice of `train` shows White organ" in capsys.readouterr().err


def test_every_label_has_its_own_figures_and_the_overall_ones_are_their_means(bundle, place, capsys):
    figures = json.loads((bundle.folder / "evaluation.json").read_text())["figures"]
    assert set(figures["labels"]) == {"Grey organ", "White organ"}
    of_each = [each["postprocessed"]["L1"]["patients"]["C"]["dice"] for each in figures["labels"].values()]
    assert min(of_each) > 0.9
    assert figures["postprocessed"]["L1"]["dice"] == pytest.approx(np.mean(of_each), abs=1e-4)
    command = [str(bundle.folder), "--data", str(place / "data"), "--target", str(place / "both.yaml")]
    assert evaluate.main([*command, "--pictures", str(place / "worst")]) == 0
    assert "White organ" in capsys.readouterr().out


def test_a_label_is_measured_on_the_slices_that_know_it(bundle, place, tmp_path):
    figures = tmp_path / "f.json"
    command = [str(bundle.folder), "--data", str(place / "data"), "--target", str(place / "both.yaml")]
    assert evaluate.main([*command, "--split", "train", "-o", str(figures)]) == 0
    labels = json.loads(figures.read_text())["labels"]
    assert set(labels["Grey organ"]["heads"]["L1"]["patients"]) == {"A", "B"}
    assert set(labels["White organ"]["heads"]["L1"]["patients"]) == {"A"}
    assert not labels["White organ"]["heads"]["L1"]["without_organ"]


def test_a_bundle_of_a_target_that_is_not_shipped_needs_its_own_file(bundle, place, capsys):
    assert evaluate.main([str(bundle.folder), "--data", str(place / "data")]) == 1
    assert "'both' is unknown" in capsys.readouterr().err
    assert evaluate.main([str(bundle.folder), "--data", str(place / "data"), "--target", "liver"]) == 1
    assert "The target liver has no label 'Grey organ'" in capsys.readouterr().err


def test_a_bundle_is_measured_with_the_target_in_the_slice_folder(bundle, place, tmp_path, capsys):
    data = shutil.copytree(place / "data", tmp_path / "data")
    shutil.copy(place / "both.yaml", data / "target.yaml")
    assert evaluate.main([str(bundle.folder), "--data", str(data)]) == 0
    assert "Grey organ" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(bundle, checkpoint, place, capsys):
    command = [str(bundle.folder), "--data", str(place / "data"), "-o", "/dev/null/figures.json"]
    assert evaluate.main(command) == 1
    assert export.main([str(checkpoint), "/dev/null/both-v1.0.0", "--data", str(place / "data")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("cannot be written" in line for line in lines)


def test_the_validation_logs_the_dice_of_each_label_and_their_mean(checkpoint):
    (log,) = checkpoint.parent.rglob("metrics.csv")
    header, *lines = [line.split(",") for line in log.read_text().splitlines()]
    last = dict(zip(header, [line for line in lines if line[header.index("val_dice")]][-1], strict=True))
    of_each = [float(last[f"val_dice_{name}"]) for name in ("grey_organ", "white_organ")]
    assert float(last["val_dice"]) == pytest.approx(np.mean(of_each), abs=1e-5)


def test_a_checkpoint_needs_neither_the_target_s_file_nor_the_data_any_more(checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    saved["settings"] |= {"target": "gone.yaml", "data": "gone", "also": {"gone.yaml": "gone"}}
    torch.save(saved, tmp_path / "moved.ckpt")
    bundle = bundle_from_checkpoint(tmp_path / "moved.ckpt", tmp_path / "both-v1.0.1", {})
    assert [label.name for label in bundle.labels] == ["Grey organ", "White organ"]


def test_an_older_checkpoint_has_its_sources_looked_up_where_it_was_trained(checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    del saved["target"], saved["sources"]
    older = tmp_path / "older.ckpt"
    torch.save({**saved, "patients": 2}, older)
    assert [source.name for source in read_checkpoint(older).sources] == ["Made up (2 patients)"]
    saved["settings"]["data"] = "gone"
    torch.save({**saved, "patients": 2}, older)
    with pytest.raises(BundleError, match=r"older\.ckpt cannot be used: gone"):
        read_checkpoint(older)


def test_a_model_can_be_described_anew_after_its_training(checkpoint, place, capsys):
    renamed = {**TARGET, "name": "organs", "limits": ["Said later."]}
    (place / "renamed.yaml").write_text(yaml.safe_dump(renamed))
    command = ["--data", str(place / "data"), "--target", str(place / "renamed.yaml")]
    folder = place / "organs-v1.0.0"
    assert export.main([str(checkpoint), str(folder), *command]) == 0
    bundle = api.choose_bundle("organs", str(folder))
    assert (bundle.target, bundle.limits) == ("organs", ("Said later.",))
    assert [label.name for label in bundle.labels] == ["Grey organ", "White organ"]
    assert json.loads((folder / "evaluation.json").read_text())["figures"]["labels"]


def test_a_model_can_leave_out_a_label_that_it_has_not_learned_well(checkpoint, place, bundle, capsys):
    folder = place / "white-v1.0.0"
    command = ["--data", str(place / "data"), "--target", str(place / "both.yaml")]
    assert export.main([str(checkpoint), str(folder), *command, "--labels", "White organ"]) == 0
    white = api.choose_bundle("white organ", str(folder))
    assert [(label.value, label.name) for label in white.labels] == [(1, "White organ")]
    image = torch.rand(1, 1, 32, 32)
    both, alone = (each.load_network()(image)[-1] for each in (bundle, white))
    assert torch.allclose(both[:, 1:], alone, atol=1e-5)
    figures = place / "white.json"
    assert evaluate.main([str(folder), *command, "-o", str(figures)]) == 0
    assert json.loads(figures.read_text())["heads"]["L1"]["dice"] > 0.9
    capsys.readouterr()
    assert export.main([str(checkpoint), str(place / "red-v1.0.0"), *command, "--labels", "Red organ"]) == 1
    assert "no label 'Red organ': it has Grey organ, White organ" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": [{**TARGET["labels"][0], "made_of": ["grey"]}, TARGET["labels"][1]]}, "has labels"),
        ({"window_hu": [-90, 150]}, "has a window"),
    ],
)
def test_a_description_for_another_network_is_refused(checkpoint, place, tmp_path, capsys, change, said):
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({**TARGET, "name": "other", **change}))
    command = ["--data", str(place / "data"), "--target", str(tmp_path / "other.yaml")]
    assert export.main([str(checkpoint), str(tmp_path / "other-v1.0.0"), *command]) == 1
    assert f"The target other {said} that the network was not trained for" in capsys.readouterr().err
    assert not (tmp_path / "other-v1.0.0").exists()


def taught(place, checkpoint, *overrides) -> SliceData:
    """The data of a training whose teacher is the checkpoint."""
    return SliceData(load_settings(place / "config.yaml", [f"teacher={checkpoint}", *overrides]))


def test_a_teacher_marks_the_organ_that_nobody_marked_and_leaves_hand_drawn_masks_alone(place, checkpoint):
    before = SliceData(load_settings(place / "config.yaml"))
    after = taught(place, checkpoint)
    for old, new in zip(before.training, after.training, strict=True):
        assert new.known is None or new.known.all()
        assert np.array_equal(new.mask[0], old.mask[0])  # the grey organ was marked by hand in all
        if old.row["patient"] == "B":
            white = new.image > (GREY + WHITE) / 2
            assert dice(new.mask[1], white) > 0.8
            assert not (new.mask[1] & new.unsure[1]).any() and not ((new.mask | new.unsure)[1] & new.mask[0]).any()
            assert not new.unsure[0].any()
        else:
            assert np.array_equal(new.mask, old.mask) and new.unsure is None
    assert [item.row["file"] for item in after.validation] == [item.row["file"] for item in before.validation]


def test_nobody_is_taught_about_the_people_on_whom_a_training_is_validated(place, checkpoint, tmp_path):
    described = {**TARGET, "slices": {**TARGET["slices"], "unknown": [{"structure": "white"}]}}
    (tmp_path / "unmarked.yaml").write_text(yaml.safe_dump(described))
    data = taught(place, checkpoint, f"target={tmp_path / 'unmarked.yaml'}")
    assert all(item.known is None and item.mask[1].any() for item in data.training)
    assert all(item.known.tolist() == [True, False] and item.unsure is None for item in data.validation)


def test_images_without_any_masks_are_left_out_unless_a_teacher_marks_them(place, checkpoint, tmp_path):
    unmarked = {**TARGET["slices"], "structures": {}, "unknown": []}
    (tmp_path / "unmarked.yaml").write_text(yaml.safe_dump({"slices": unmarked}))
    (tmp_path / "more" / "images").mkdir(parents=True)
    image, mask = slice_of(np.random.default_rng(9))
    Image.fromarray(image).save(tmp_path / "more" / "images" / "D.png")
    row = {"file": "D.png", "volume": "madeD", "patient": "D", "split": "train", "slice": 0, "pixel_mm": PIXEL_MM}
    write_table(tmp_path / "more", [row])
    also = f"also={{{tmp_path / 'unmarked.yaml'}: {tmp_path / 'more'}}}"
    untaught = SliceData(load_settings(place / "config.yaml", [also]))
    assert "D.png" not in [item.row["file"] for item in untaught.training]
    data = taught(place, checkpoint, also)
    (item,) = [item for item in data.training if item.row["file"] == "D.png"]
    for label, truth in enumerate(((mask == 1) | (mask == 2), mask == 3)):
        assert dice(item.mask[label], truth) > 0.8
    assert data.folder_of.tolist() == [0] * 8 + [1]
    assert {item.row["patient"] for item in data.validation} == {"C"}


def test_a_teacher_that_names_no_source_is_called_a_teacher(place, checkpoint, tmp_path, capsys):
    saved = torch.load(checkpoint, weights_only=True)
    saved["sources"] = []
    torch.save(saved, tmp_path / "silent.ckpt")
    for key in ("teacher", "init_from"):
        arguments = ["name=silent", f"{key}={tmp_path / 'silent.ckpt'}"]
        assert train.main(["--config", str(place / "config.yaml"), *arguments]) == 1
        assert capsys.readouterr().err.startswith(
            f"train.py: {key}: {tmp_path / 'silent.ckpt'} does not say what it was"
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [("pixel_mm=3.0", "pixel_mm 2.0, not 3.0"), ("teacher=none.ckpt", "none.ckpt is not a checkpoint")],
)
def test_a_teacher_that_does_not_fit_is_refused(place, checkpoint, change, said):
    with pytest.raises(SettingsError, match=said):
        taught(place, checkpoint, change)


def test_a_teacher_with_nothing_to_mark_is_refused(place, checkpoint, tmp_path):
    known = {**TARGET, "slices": {**TARGET["slices"], "unknown": []}}
    (tmp_path / "known.yaml").write_text(yaml.safe_dump(known))
    with pytest.raises(SettingsError, match=r"nothing for a teacher to mark.*`also`"):
        taught(place, checkpoint, f"target={tmp_path / 'known.yaml'}")


def test_a_teacher_of_labels_that_share_a_structure_is_refused(place, checkpoint, tmp_path):
    grey, white = TARGET["labels"]
    shared = [grey, {**white, "made_of": ["white", "grey core"]}]
    (tmp_path / "shared.yaml").write_text(
        yaml.safe_dump({**TARGET, "labels": shared, "priority": ["White organ", "Grey organ"]})
    )
    with pytest.raises(SettingsError, match="Grey organ and White organ share grey core"):
        taught(place, checkpoint, f"target={tmp_path / 'shared.yaml'}")


def test_a_teacher_of_other_labels_is_refused(place, checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    saved["target"]["labels"][1]["name"] = "Red organ"
    torch.save(saved, tmp_path / "red.ckpt")
    with pytest.raises(SettingsError, match=r"'Red organ'.*not.*'White organ'.*another teacher"):
        taught(place, tmp_path / "red.ckpt")


def test_the_card_names_what_the_teacher_has_learned_from(place, checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    saved["sources"] = [vars(Source("Taught by", "CC BY 4.0", "Them."))]
    torch.save(saved, tmp_path / "teacher.ckpt")
    arguments = ["name=pupil", "steps=40", f"teacher={tmp_path / 'teacher.ckpt'}"]
    assert train.main(["--config", str(place / "config.yaml"), *arguments]) == 0
    sources = read_checkpoint(place / "runs" / "pupil" / "last.ckpt").provenance.sources
    assert [source.name for source in sources] == ["Made up (2 patients)", "Taught by"]
