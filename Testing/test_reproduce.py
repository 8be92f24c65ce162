"""The paper's table: running, recording and continuing, with trainings that are tiny but real."""

import csv
import dataclasses
import shutil
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

import reproduce
from fit.settings import load_settings
from paper import cell_runs, cells
from paper.cells import Cell, planned
from paper.origin import commit, processor
from paper.records import Results, ResultsError
from Testing.support.slicefolders import liver_folder

ROOT = Path(__file__).parents[1]


def nuclei_folder(folder: Path) -> Path:
    """A slice folder of bright spots on purple, with the same number of images in each split."""
    draw = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = []
    for number in range(12):
        mask = np.zeros((32, 32), bool)
        row, column = draw.integers(4, 20, 2)
        mask[row : row + 8, column : column + 8] = True
        image = np.where(mask[..., None], (230, 220, 240), (60, 20, 80)) + draw.integers(-15, 15, (32, 32, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{number:02}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{number:02}.png")
        rows.append((f"{number:02}.png", ("train", "val", "test")[number % 3]))
    with (folder / "slices.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "split"), *rows])
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data and configs of networks that are small enough to train in a test."""
    place = tmp_path_factory.mktemp("table")
    nuclei_folder(place / "data" / "nuclei")
    liver_folder(place / "data" / "liver", {"A": "train", "B": "val", "C": "val"})
    (place / "configs").mkdir()
    for dataset in cells.DATASETS:
        (place / "configs" / f"{dataset}.yaml").write_text(
            f"name: {dataset}\ntarget: {dataset}\ndata: {dataset}\nfilters: [2, 3, 4, 5, 6]\npatch: [32, 32]\nbatch_size: 2\n"
            "validation_stride: 1\n"
        )
    return place


def command(place: Path, *arguments: str) -> int:
    return reproduce.main([
        "--data", str(place / "data"), "--configs", str(place / "configs"), "--results", str(place / "results"),
        "--runs", str(place / "runs"), "--steps", "5", "--threads", "1", *arguments,
    ])  # fmt: skip


@pytest.fixture(scope="module")
def made(place):
    """The table after two seeds on nuclei and, in a second run, one seed on the liver, for two networks each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_runs, "EPOCHS", 2)
        assert command(place, "--datasets", "nuclei", "--architectures", "unet", "unetpp_ds", "--seeds", "2") == 0
        assert command(place, "--datasets", "liver", "--architectures", "unet", "unetpp_ds", "--seeds", "1") == 0
        yield place


def test_the_first_seed_of_all_data_sets_comes_before_any_second():
    plan = planned(cells.DATASETS, cells.ARCHITECTURES)
    table = [cell for cell in plan if cell.loss == "bce_dice"]
    assert {(c.dataset, c.architecture) for c in table[:16]} == {
        (d, a) for d in cells.DATASETS for a in cells.ARCHITECTURES
    }
    assert {c.seed for c in table[16:32]} == {2} and {c.dataset for c in table[32:]} == {"nuclei", "nodule"}
    assert [c for c in plan if c not in table] == [
        Cell("nuclei", "unetpp_ds", seed, loss) for seed in (1, 2, 3) for loss in ("hybrid", "hybrid_background")
    ]


def test_fewer_steps_are_made_before_the_second_seed(tmp_path):
    given = Namespace(
        datasets=["nuclei", "polyp"], architectures=["unet", "unetpp_ds"], seeds=None, steps=None, data=Path("d"), runs="r",
        configs=ROOT / "training" / "configs" / "table", threads=0, no_training=False,
    )  # fmt: skip
    results = Results(tmp_path)
    jobs = reproduce.jobs_of(results, given)
    folders = [results.folder, results.half.folder, results.half.half.folder]
    assert [folders.index(job.results.folder) for job in jobs] == [0] * 6 + [1] * 4 + [2] * 4 + [0] * 10
    assert [job.cell.seed for job in jobs] == [1] * 14 + [2] * 6 + [3] * 4
    whole, half, quarter = (jobs[n].settings for n in (0, 6, 10))
    assert whole.name.removesuffix("2004") == half.name.removesuffix("996") == quarter.name.removesuffix("504")
    assert (half.steps, quarter.steps) == (
        pytest.approx(whole.steps / 2, rel=0.01),
        pytest.approx(whole.steps / 4, rel=0.01),
    )


@pytest.mark.parametrize(("configs", "steps"), [("table", None), ("table", 25), ("table-paper", None)])
def test_trainings_of_a_data_set_differ_in_nothing_but_the_network(configs, steps):
    given = Namespace(steps=steps, configs=ROOT / "training" / "configs" / configs, data=Path("d"), runs="r", threads=0)
    for dataset in cells.DATASETS:
        unet, *others = (cell_runs.settings_of(Cell(dataset, a, 1), given) for a in cells.ARCHITECTURES)
        for other in others:
            assert dataclasses.replace(other, name=unet.name, architecture=unet.architecture) == unet
        wanted = steps or load_settings(given.configs / f"{dataset}.yaml").steps
        assert unet.steps == pytest.approx(wanted, rel=0.08)
        assert unet.steps % unet.steps_per_epoch == 0  # the last step has a checkpoint


def test_every_cell_is_recorded_with_its_counts_log_and_examples(made):
    results = Results(made / "results")
    assert set(results.done()) == {
        *(Cell("nuclei", a, seed) for a in ("unet", "unetpp_ds") for seed in (1, 2)),
        *(Cell("nuclei", "unetpp_ds", seed, loss) for seed in (1, 2) for loss in ("hybrid", "hybrid_background")),
        *(Cell("liver", a, 1) for a in ("unet", "unetpp_ds")),
    }
    cell = Cell("nuclei", "unetpp_ds", 2)
    ious = results.counts(cell).ious()
    assert sorted(ious) == ["02.png", "05.png", "08.png", "11.png"]  # the test split
    assert float(results.done()[cell]["iou"]) == pytest.approx(np.mean(list(ious.values())), abs=1e-4)
    assert results.counts(cell).ious("L1").keys() == ious.keys()
    assert set(results.counts(Cell("liver", "unet", 1)).ious()) == {"B", "C"}  # pooled by patient
    assert [step for step, _, what, _ in results.log(cell) if what == "val_iou"] == [2, 4]
    assert results.example(cell, "05.png").shape == (32, 32)
    assert results.done()[cell]["commit"] == commit() and results.done()[cell]["processor"] == processor()


def test_the_first_seed_is_also_trained_with_half_and_with_a_quarter_of_the_steps(made):
    half = Results(made / "results").half
    for records in (half, half.half):  # of 4 steps; no training has fewer than 2
        assert set(records.done()) == {Cell(d, a, 1) for d in ("nuclei", "liver") for a in ("unet", "unetpp_ds")}
        assert {row["steps"] for row in records.done().values()} == {"2"}


def test_the_table_has_all_sixteen_lines_and_says_what_was_not_run(made):
    with (made / "results" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "dataset", "architecture", "seeds", "iou_mean", "iou_spread", "compute_iou", "mean_iou", "parameters", "gflop",
        "seconds_per_image", "seconds_per_step",
    ]  # fmt: skip
    assert [(r["dataset"], r["architecture"]) for r in rows] == [
        (d, a) for d in cells.DATASETS for a in cells.ARCHITECTURES
    ]
    by_line = {(r["dataset"], r["architecture"]): r for r in rows}
    done = by_line["nuclei", "unetpp_ds"]
    both = [float(Results(made / "results").done()[Cell("nuclei", "unetpp_ds", seed)]["iou"]) for seed in (1, 2)]
    assert done["seeds"] == "2" and float(done["iou_mean"]) == pytest.approx(np.mean(both), abs=1e-4)
    assert float(done["iou_spread"]) == pytest.approx(np.std(both, ddof=1), abs=1e-4)
    assert by_line["liver", "unet"]["seeds"] == "1" and by_line["liver", "unet"]["iou_spread"] == ""
    missing = by_line["polyp", "unet"]
    assert (missing["seeds"], missing["iou_mean"]) == ("0", "") and int(missing["parameters"]) > 0
    assert by_line["nodule", "wide_unet"]["parameters"] == "9130476"
    assert all(float(row["seconds_per_step"]) > float(row["seconds_per_image"]) for row in rows)
    text = (made / "results" / "table.md").read_text()
    assert "| polyp | U-Net | 0 | not yet run |" in text
    counts = Results(made / "results").counts(Cell("liver", "unetpp_ds", 1))
    level = 100 * np.mean(list(counts.ious("L2").values()))
    of_heads = text.partition("## Each head")[2].partition("##")[0]
    (heads,) = (line for line in of_heads.splitlines() if line.startswith("| liver |"))
    assert heads.split("|")[4].strip() == f"{level:.2f}"


def test_a_later_run_continues_from_the_records_alone(made, tmp_path, monkeypatch):
    later = tmp_path / "later"
    shutil.copytree(made, later, ignore=shutil.ignore_patterns("runs", "table.*"))
    trained = []
    real = cell_runs.train
    monkeypatch.setattr(
        cell_runs, "train", lambda settings, resume: trained.append(settings.name) or real(settings, resume)
    )
    arguments = ("--architectures", "unet", "unetpp", "unetpp_ds", "--seeds", "1", "--datasets")
    assert command(later, *arguments, "nuclei") == 0
    assert trained == ["nuclei-unetpp-bce_dice-1-4", "nuclei-unetpp-bce_dice-1-2"]
    assert len(Results(later / "results").done()) == 11
    assert "| nuclei | UNet++ | 1 | " in (later / "results" / "table.md").read_text()


def test_a_training_whose_record_is_lost_is_measured_again_and_not_trained(made, tmp_path, monkeypatch):
    results = Results(tmp_path / "again")
    shutil.copytree(made / "results", results.folder)
    cell = Cell("nuclei", "unetpp_ds", 2)
    before = (results.folder / "cells.csv").read_text().splitlines()
    kept = [line for line in before if not line.startswith("nuclei,unetpp_ds,bce_dice,2,")]
    (results.folder / "cells.csv").write_text("\n".join(kept) + "\n")
    shutil.rmtree(results.folder / "cells" / cell.name)
    monkeypatch.setattr(cell_runs, "train", lambda settings, resume: pytest.fail("it must not train"))
    arguments = ("--results", str(results.folder), "--no-training")  # of all that it could train
    assert command(made, *arguments) == 0
    assert sorted((results.folder / "cells.csv").read_text().splitlines()) == sorted(before)
    assert results.counts(cell).ious() == Results(made / "results").counts(cell).ious()


def test_trainings_with_another_number_of_steps_are_refused_in_the_same_table(made, capsys):
    assert command(made, "--steps", "9", "--datasets", "nuclei") == 1
    refusal = capsys.readouterr().err
    assert "another --results" in refusal and len(refusal.splitlines()) == 1


def test_other_cases_than_the_records_hold_are_refused_before_anything_is_trained(made, tmp_path, capsys, monkeypatch):
    shutil.copytree(made / "data", tmp_path / "data")
    index = tmp_path / "data" / "nuclei" / "slices.csv"
    index.write_text(index.read_text().replace("02.png,test", "02.png,train"))
    shutil.copytree(made / "results", tmp_path / "results")
    monkeypatch.setattr(reproduce, "run", None)
    assert command(made, "--data", str(tmp_path / "data"), "--results", str(tmp_path / "results")) == 1
    message = capsys.readouterr().err
    assert "nuclei-unet-bce_dice-1, measured on other cases (1 differ, such as 02.png)" in message
    assert "--data" in message


def test_too_few_steps_are_refused_by_the_option(place, capsys):
    assert command(place, "--steps", "1") == 1
    assert "--steps 1 is too few" in capsys.readouterr().err


def test_a_run_folder_with_other_settings_is_not_continued(made, monkeypatch):
    given = Namespace(steps=5, configs=made / "configs", data=made / "data", runs=str(made / "runs"), threads=1)
    cell = Cell("nuclei", "unet", 1)
    settings = cell_runs.settings_of(cell, given)
    monkeypatch.setattr(cell_runs, "train", lambda settings, resume: pytest.fail("it must not train"))
    with pytest.raises(ResultsError, match="other settings"):
        cell_runs.run(cell, dataclasses.replace(settings, flips=True))
    shutil.copytree(made / "data" / "nuclei", made / "moved", dirs_exist_ok=True)
    moved = cell_runs.run(cell, dataclasses.replace(settings, data=str(made / "moved")))  # that is no other setting
    assert moved.counts.ious() == Results(made / "results").counts(cell).ious()


def test_without_any_record_the_pages_are_written_and_nothing_is_drawn(place, made, tmp_path):
    shutil.copy(place / "results" / "speed.csv", tmp_path)  # which is not measured again
    assert command(place, "--no-training", "--results", str(tmp_path), "--runs", str(tmp_path / "runs")) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "speed.csv", "table.csv", "table.md"}


def test_a_folder_with_the_config_of_one_data_set_is_enough_for_its_table(place, tmp_path, capsys):
    config = (place / "configs" / "nuclei.yaml").read_text()
    (tmp_path / "spots.yaml").write_text(config.replace("name: nuclei", "name: spots"))
    nuclei_folder(tmp_path / "data" / "spots")
    where = ("--configs", str(tmp_path), "--data", str(tmp_path / "data"), "--results", str(tmp_path / "results"))
    asked = ("--datasets", "spots", "--architectures", "unet", "--seeds", "1", "--runs", str(tmp_path / "runs"))
    assert command(place, *where, *asked) == 0
    with (tmp_path / "results" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["dataset"] for row in rows} == {"spots"} and float(rows[0]["iou_mean"]) >= 0
    assert command(place, *where, "--datasets", "absent") == 1
    assert "absent.yaml cannot be read" in capsys.readouterr().err


def test_finished_trainings_are_measured_on_as_many_threads_as_they_are_given(place, made, tmp_path):
    shutil.copy(place / "results" / "speed.csv", tmp_path)  # which is not measured again
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert command(place, "--no-training", "--results", str(tmp_path), "--runs", str(tmp_path / "runs")) == 0
        assert torch.get_num_threads() == 1  # as `command` gives
    finally:
        torch.set_num_threads(before)


def test_a_training_that_did_not_reach_its_last_step_is_not_recorded(made):
    given = Namespace(steps=5, configs=made / "configs", data=made / "data", runs=str(made / "runs"), threads=1)
    settings = cell_runs.settings_of(Cell("nuclei", "unet", 1), given)
    cell_runs.load_network(settings)
    with pytest.raises(ResultsError, match="4 of 6 steps"):
        cell_runs.load_network(dataclasses.replace(settings, steps=6))


def test_figures_are_drawn_from_the_records_and_private_images_go_to_another_folder(made):
    results = made / "results"
    assert {p.name for p in results.glob("*.png")} == {"edge.png", "learning.png", "pruning.png", "examples-nuclei.png"}
    assert [p.name for p in (results / "private").iterdir()] == ["examples-liver.png"]
    red, green, _ = np.moveaxis(
        np.asarray(Image.open(results / "examples-nuclei.png").convert("RGB")).astype(int), -1, 0
    )
    assert (green - red > 100).any()  # the truth's outline
    page = (results / "README.md").read_text()
    assert "](edge.png)" in page and "examples-nodule.png" not in page


def test_a_damaged_record_is_refused_by_name(tmp_path, place, capsys):
    (tmp_path / "cells.csv").write_text("dataset,architecture\nnuclei,unet\n")
    assert command(place, "--results", str(tmp_path)) == 1
    assert "cells.csv is damaged" in capsys.readouterr().err


def test_the_log_of_a_resumed_training_has_each_step_once_and_leaves_out_the_pause(tmp_path, monkeypatch):
    start, later = 1e9, 1e9 + 5 * 3600
    for begun, steps, value in ((start, (1, 2, 3), 0.25), (later, (3, 4), 0.75)):
        monkeypatch.setattr(time, "time", lambda begun=begun: begun)
        writer = SummaryWriter(tmp_path)
        for step in steps:
            writer.add_scalar("val_iou", value, step - 1, walltime=begun + 60 * step)
        writer.close()
    assert cell_runs.read_log(tmp_path) == [
        (1, 1.0, "val_iou", 0.25),
        (2, 2.0, "val_iou", 0.25),
        (3, 6.0, "val_iou", 0.75),
        (4, 7.0, "val_iou", 0.75),
    ]
