"""What a card says its weights have learned from, where they went on from other weights: the sources and licences of both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import train
from card.from_checkpoint import bundle_from_checkpoint
from data.provenance import Provenance
from data.targets import load_target
from fit.checkpoint import provenance_of, read_checkpoint
from fit.task import SegmentationTask
from Testing.support.slicefolders import liver_folder
from Testing.support.tiny_training import command, trained
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError, read_bundle
from UNetPlusPlusSegmentLib.network.card import Source

MODELS = Path(__file__).parents[1] / "UNetPlusPlusSegment" / "Resources" / "Models"
LICENCE = load_target("liver").licence  # that of the trainings here
SMALL = Source("Spleens (2 patients)", "CC BY-NC 4.0", "We, 2024.")
LARGE = Source("Spleens (10 patients)", "CC BY-NC 4.0", "We, 2024.")
OTHER = Source("Kidneys", "CC0", "They, 2023.")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    patients = {"A": "train", "B": "train", "C": "val"}
    return liver_folder(tmp_path_factory.mktemp("slices") / "data", patients, slices=2)


@pytest.fixture(scope="module")
def own(data, tmp_path_factory) -> Path:
    """The checkpoint of a training from nothing."""
    return trained(tmp_path_factory.mktemp("own"), data)


@pytest.fixture
def start(own, tmp_path) -> Bundle:
    """A model of other data under a licence of its own, of the architecture that is trained here."""
    return another(bundle_from_checkpoint(own, tmp_path / "first-v1.0.0", {}), [SMALL], "CC BY-NC 4.0")


def another(bundle: Bundle, sources: list[Source], licence: str) -> Bundle:
    """The bundle, its card saying that it was trained on these."""
    path = bundle.folder / "model.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "training_data": [vars(each) for each in sources], "licence": licence}))
    return read_bundle(bundle.folder)


def names(sources: tuple[Source, ...]) -> list[str]:
    return [source.name.partition(" ")[0] for source in sources]


def as_before(checkpoint: Path, **changes: object) -> None:
    """Make it one from the time when a checkpoint named its own sources alone."""
    saved = torch.load(checkpoint, weights_only=True)
    del saved["inherited"]
    torch.save({**saved, **changes}, checkpoint)


def test_own_sources_come_first_and_one_that_both_name_stands_there_once_with_the_larger_number():
    both = Provenance((OTHER, SMALL), "CC BY 4.0").going_on_from(Provenance((LARGE, OTHER), "CC BY 4.0"))
    assert both == Provenance((OTHER, LARGE), "CC BY 4.0")
    assert Provenance((LARGE,)).going_on_from(Provenance((SMALL,))).sources == (LARGE,)
    elsewhere = Source(SMALL.name, SMALL.licence, "They, of other people.")
    assert Provenance((SMALL,)).going_on_from(Provenance((elsewhere,))).sources == (SMALL, elsewhere)


def test_of_two_licences_both_hold_and_each_is_said_once():
    first = Provenance(licence="CC BY 4.0").going_on_from(Provenance(licence="research only"))
    assert first.licence == "CC BY 4.0; research only"
    assert Provenance(licence="research only").going_on_from(first).licence == "research only; CC BY 4.0"
    assert Provenance(licence="CC0").going_on_from(Provenance()).licence == "CC0"


def test_a_card_names_what_the_weights_of_its_start_have_learned_from(start, data, tmp_path):
    checkpoint = trained(tmp_path, data, f"init_from={start.folder}")
    shutil.rmtree(start.folder)  # the checkpoint knows it now
    card = bundle_from_checkpoint(checkpoint, tmp_path / "second-v1.0.0", {})
    assert names(card.training_data) == ["LiTS", "Spleens"]
    assert card.training_data[1] == SMALL
    assert card.licence == f"{LICENCE}; CC BY-NC 4.0"


def test_a_card_names_the_start_of_its_start(start, data, tmp_path):
    (tmp_path / "again").mkdir()
    first = trained(tmp_path, data, f"init_from={start.folder}")
    second = trained(tmp_path / "again", data, f"init_from={first}")
    card = bundle_from_checkpoint(second, tmp_path / "third-v1.0.0", {})
    assert names(card.training_data) == ["LiTS", "Spleens"]
    assert card.licence == f"{LICENCE}; CC BY-NC 4.0"


def test_a_model_that_is_described_anew_keeps_what_its_start_has_learned_from(start, data, tmp_path):
    checkpoint = trained(tmp_path, data, f"init_from={start.folder}")
    settings = read_checkpoint(checkpoint).settings
    renamed = load_target({**torch.load(checkpoint, weights_only=True)["target"], "licence": "CC0"})
    card = bundle_from_checkpoint(checkpoint, tmp_path / "anew-v1.0.0", {}, target=renamed)
    assert settings.goal.licence == LICENCE
    assert names(card.training_data) == ["LiTS", "Spleens"]
    assert card.licence == "CC0; CC BY-NC 4.0"


def test_a_resumed_training_names_its_start_though_that_is_gone_and_what_it_learned_from_before(
    start, data, tmp_path, monkeypatch
):
    two_steps = [f"init_from={start.folder}", "steps=2"]
    real = SegmentationTask.training_step

    def stop(task, *batch):
        if task.global_step:
            raise InterruptedError
        return real(task, *batch)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(SegmentationTask, "training_step", stop)
        trained(tmp_path, data, *two_steps)
    shutil.rmtree(start.folder)
    table = tmp_path / "kind.yaml"
    table.write_text((Path(train.__file__).parent / "targets" / "liver.yaml").read_text().replace("LiTS (", "Clinic ("))
    resumed = read_checkpoint(trained(tmp_path, data, *two_steps, f"target={table}", "--resume"))
    assert resumed.steps == 2
    assert names(resumed.provenance.sources) == ["Clinic", "LiTS", "Spleens"]


def test_a_checkpoint_that_names_its_own_sources_alone_has_those_of_its_start_looked_up(start, data, tmp_path):
    checkpoint = trained(tmp_path, data, f"init_from={start.folder}")
    as_before(checkpoint)
    assert names(bundle_from_checkpoint(checkpoint, tmp_path / "b-v1.0.0", {}).training_data) == ["LiTS", "Spleens"]
    shutil.rmtree(start.folder)
    with pytest.raises(BundleError, match=r"last\.ckpt started from .*first-v1\.0\.0"):
        bundle_from_checkpoint(checkpoint, tmp_path / "b-v1.0.1", {})


def test_a_start_that_does_not_say_what_it_has_learned_from_is_refused_before_the_first_step(
    start, own, data, tmp_path, capsys
):
    unsourced = another(start, [], "CC0").folder
    old = shutil.copy(own, tmp_path / "old.ckpt")
    as_before(old, sources=[])
    older = tmp_path / "older.ckpt"
    torch.save({"state_dict": torch.load(own, weights_only=True)["state_dict"]}, older)
    for path in (unsourced, old, older):
        capsys.readouterr()
        assert train.main(command(tmp_path, data, f"init_from={path}")) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert str(path) in line and "trained" in line
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("folder", sorted(MODELS.glob("*-v*")), ids=lambda folder: folder.name)
def test_a_model_folder_says_what_its_weights_have_learned_from(folder):
    card = read_bundle(folder)
    assert provenance_of(folder) == Provenance(card.training_data, card.licence, unnamed=card.training_data)


@pytest.mark.parametrize("folder", sorted(MODELS.glob("*-v*")), ids=lambda folder: folder.name)
def test_a_model_folder_names_the_limits_of_its_target(folder):
    card = read_bundle(folder)
    target = load_target(card.target)
    assert (card.limits, card.intended_use) == (target.limits, target.intended_use)
