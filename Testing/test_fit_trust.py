"""fit_trust.py with a target of two labels: each is measured by its own output, and what would fail in the end is refused at once."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import fit_trust
from card.from_checkpoint import bundle_from_checkpoint
from data.targets import load_target
from fit.settings import Settings
from fit.task import SegmentationTask
from Testing.support.bright import passing_through
from Testing.support.spleen import SPLEEN, TERM
from UNetPlusPlusSegmentLib.network.bundle import Bundle

SIZE = 24
LABELS = [
    {"name": "Bright", "terminology": TERM, "color": [1, 2, 3], "made_of": ["bright"]},
    {"name": "Grey", "terminology": TERM, "color": [4, 5, 6], "made_of": ["grey"]},
]


@pytest.fixture
def data(tmp_path) -> Path:
    """Two people of `train` and one of `val`, each with twelve slices that show both labels."""
    folder = tmp_path / "data"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[4:12, 4:12], mask[14:22, 4:12] = 1, 2
    with (folder / "slices.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "volume", "patient", "slice", "split", "source_slice_mm"])
        for person, split in {"A": "train", "B": "train", "C": "val"}.items():
            for number in range(12):
                name = f"{person}_{number}.png"
                Image.fromarray(np.array([0, 220, 110], np.uint8)[mask]).save(folder / "images" / name)
                Image.fromarray(mask).save(folder / "masks" / name)
                table.writerow([name, person, person, number, split, 2.0])
    slices = {**SPLEEN["slices"], "structures": {"bright": [1], "grey": [2]}}
    target = {**SPLEEN, "name": "both", "labels": LABELS, "slices": slices, "pixel_mm": 1.5}
    (folder / "target.yaml").write_text(yaml.safe_dump(target))
    return folder


def checkpoint(path: Path, data: Path, fold: str = "", bias: tuple[float, float] = (-28.0, -12.0)) -> Path:
    """A checkpoint of a network whose first output is what is bright, and whose second is what is grey or brighter."""
    target = load_target(str(data / "target.yaml"))
    settings = Settings(
        path.stem, asdict(target), str(data), filters=(1,) * 3, batch_norm=False, pixel_mm=1.5, fold=fold
    )
    task = SegmentationTask(settings, [0, 0])
    with torch.no_grad():
        for head in passing_through(task.network).outputs.values():
            head.weight.fill_(40)
            head.bias[:] = torch.tensor(bias)
    saved = {"state_dict": task.state_dict(), "global_step": 1}
    task.on_save_checkpoint(saved)
    torch.save(saved, path)
    return path


def exported(data: Path, *names: str) -> Bundle:
    target = load_target(str(data / "target.yaml")).only(names)
    folder = data.parent / f"{'-'.join(names)}-v1.0.0".lower()
    return bundle_from_checkpoint(checkpoint(data.parent / "all.ckpt", data), folder, {}, target=target)


def outputs_of(bundle: Bundle) -> torch.Tensor:
    """What the deepest head of a network gives for dark, grey and bright stripes."""
    with torch.no_grad():
        return bundle.load_network()(torch.tensor([[[[0.0, 0.5, 1.0] * 8] * SIZE]]))[-1]


@pytest.mark.parametrize("names", [("Bright", "Grey"), ("Grey", "Bright"), ("Grey",)], ids=", ".join)
def test_each_label_is_measured_by_its_own_output_whatever_labels_the_model_has(data, monkeypatch, names):
    bundle, measured = exported(data, *names), []

    def judged(network, *_):
        assert [label.name for label in network.labels] == [*names]
        measured.append(outputs_of(network))
        return iter(())

    monkeypatch.setattr(fit_trust, "judged", judged)
    fold = checkpoint(data.parent / "one.ckpt", data, "1/2")
    fit_trust.main([str(bundle.folder), "--data", str(data), "--folds", str(fold)])
    assert torch.equal(measured[0], outputs_of(bundle))


def test_a_network_that_finds_nothing_gives_no_row_and_leaves_no_empty_table(data, capsys):
    bundle, rows = exported(data, "Bright", "Grey"), data.parent / "rows.csv"
    early = checkpoint(data.parent / "early.ckpt", data, "1/2", bias=(-99.0, -99.0))
    command = [str(bundle.folder), "--data", str(data), "--rows", str(rows), "--folds", str(early)]
    assert fit_trust.main(command) == 1
    assert "come from fewer than two people" in capsys.readouterr().err
    assert not rows.exists()
    rows.touch()  # as such a run left it
    folds = [checkpoint(data.parent / f"{n}.ckpt", data, f"{n}/2") for n in (1, 2)]
    for _ in range(2):
        assert fit_trust.main([*command[:-1], *map(str, folds)]) == 0


def test_a_folder_among_the_images_is_passed_over(data):
    (data / "images" / "@eaDir").mkdir()  # as disks of some makers have it
    folds = [str(checkpoint(data.parent / f"{n}.ckpt", data, f"{n}/2")) for n in (1, 2)]
    command = [str(exported(data, "Grey").folder), "--data", str(data), "--rows", str(data.parent / "rows.csv")]
    assert fit_trust.main([*command, "--folds", *folds]) == 0


def spoil_evaluation(bundle: Bundle, data: Path) -> None:
    (bundle.folder / "evaluation.json").write_text("")


def thin_out_val(bundle: Bundle, data: Path) -> None:
    header, *lines = (data / "slices.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("C") or line.startswith("C_1")]
    (data / "slices.csv").write_text("\n".join([header, *kept]))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(spoil_evaluation, "evaluation.json is no JSON"), (thin_out_val, "has no scan with evenly spaced slices")],
)
def test_what_would_fail_in_the_end_is_refused_before_a_network_runs(data, capsys, monkeypatch, spoil, words):
    bundle, fold = exported(data, "Grey"), checkpoint(data.parent / "one.ckpt", data, "1/2")
    spoil(bundle, data)
    monkeypatch.setattr(fit_trust, "judged", lambda *_: pytest.fail("a network has run"))
    assert fit_trust.main([str(bundle.folder), "--data", str(data), "--folds", str(fold)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_fold_that_has_not_learned_a_label_of_the_model_is_refused_by_its_name(data, capsys):
    fold = checkpoint(data.parent / "one.ckpt", data, "1/2")
    bundle = exported(data, "Grey")
    card = (bundle.folder / "model.json").read_text()
    (bundle.folder / "model.json").write_text(card.replace('"Grey"', '"Dark"'))
    text = (data / "target.yaml").read_text()
    (data / "target.yaml").write_text(text.replace("name: Grey", "name: Dark"))
    assert fit_trust.main([str(bundle.folder), "--data", str(data), "--folds", str(fold)]) == 1
    assert "has no label 'Dark': it has Bright, Grey" in capsys.readouterr().err
