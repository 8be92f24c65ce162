"""Model folders: what is written can be read, and what is missing, truncated, altered or too new is refused with a way out."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from UNetPlusPlusSegmentLib.network.bundle import BundleError, choose_bundle, find_bundles, read_bundle, write_bundle
from UNetPlusPlusSegmentLib.network.card import SCHEMA, PostProcessing, Source, Speed, card_from_json
from UNetPlusPlusSegmentLib.network.quantization import STEPS, pack, unpack
from UNetPlusPlusSegmentLib.network.unetpp import build_network

FILTERS = [2, 3, 4, 5, 6]
CARD = {  # of schema 3, as JSON has it
    "target": "liver",
    "architecture": {"name": "unetpp_ds", "arguments": {"filters": FILTERS, "batch_norm": True}},
    "labels": [{"value": 1, "name": "Liver", "terminology": "t", "color": [221, 130, 101]}],
    "input": {"pixel_mm": 2.0, "window_hu": [-40, 160]},
    "threshold": 0.5,
    "average_from": 1,
    "postprocessing": {},
    "speeds": {"accurate": {"level": 4, "find_first": False}},
}


@pytest.fixture
def only_here(tmp_path, monkeypatch):
    """A folder that is the only place where models are looked for."""
    monkeypatch.setattr("UNetPlusPlusSegmentLib.network.bundle.search_folders", lambda: [tmp_path])
    return tmp_path


def make(folder, **changes):
    torch.manual_seed(0)
    return write_bundle(folder, card_from_json({**CARD, **changes}), trained_network().state_dict())


def trained_network():
    network = build_network("unetpp_ds", filters=FILTERS, batch_norm=True)
    network(torch.rand(4, 1, 32, 32))  # running statistics that are not the initial ones
    return network.eval()


def change_card(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_written_bundle_gives_back_the_network_to_the_precision_it_is_stored_in(tmp_path):
    torch.manual_seed(0)
    network = trained_network()
    bundle = write_bundle(tmp_path / "liver-ct-v1.2.3", card_from_json(CARD), network.state_dict())
    stored = bundle.load_state()
    for key, value in network.state_dict().items():
        if value.ndim > 1:  # half a step of each channel
            most = value.abs().amax(dim=tuple(range(1, value.ndim)), keepdim=True)
            assert ((stored[key] - value).abs() <= most / STEPS * 0.5001).all(), key
        else:
            torch.testing.assert_close(stored[key], value, rtol=2.0**-11, atol=1e-7, msg=key)
    network.load_state_dict(stored)
    image = torch.rand(1, 1, 32, 48)
    with torch.inference_mode():
        torch.testing.assert_close(bundle.load_network()(image), network(image), rtol=1e-4, atol=1e-5)
    assert (bundle.name, bundle.version, bundle.target) == ("liver-ct-v1.2.3", (1, 2, 3), "liver")


def test_a_bundle_is_half_as_large_as_in_fp16(tmp_path):
    network = build_network("unetpp_ds", filters=[32, 64, 128])
    bundle = write_bundle(tmp_path / "m-v1.0.0", card_from_json(CARD), network.state_dict())
    plain = sum(value.numel() * 2 for value in network.state_dict().values())
    assert (bundle.folder / "weights.pt").stat().st_size < 0.55 * plain


def test_a_channel_of_noughts_stays_one():
    assert not unpack(pack({"kernel": torch.zeros(2, 3, 3, 3)}))["kernel"].any()


def test_a_variance_beyond_fp16_is_kept_and_one_lost_in_an_older_bundle_is_not_infinite():
    variance = torch.tensor([0.25, 90_000.0])
    assert torch.equal(unpack(pack({"running_var": variance}))["running_var"], variance)
    assert torch.equal(unpack({"running_var": variance.half()})["running_var"], torch.tensor([0.25, 65_504.0]))


def test_a_bundle_of_schema_1_with_kernels_in_fp16_is_read(tmp_path):
    bundle = make(tmp_path / "m-v1.0.0")
    plain = {key: value.half() for key, value in trained_network().state_dict().items()}
    torch.save(plain, bundle.folder / "weights.pt")
    digest = hashlib.sha256((bundle.folder / "weights.pt").read_bytes()).hexdigest()
    change_card(bundle.folder, schema=1, sha256=digest)
    stored = read_bundle(bundle.folder).load_state()
    assert all(torch.equal(stored[key], value.float()) for key, value in plain.items())


def test_cards_of_schema_1_and_2_say_what_one_of_schema_3_says(tmp_path):
    source = {"name": "LiTS", "licence": "CC BY-NC-ND 4.0", "citation": "Bilic P et al."}
    new = make(tmp_path / "m-v1.0.0", training_data=[source], limits=["Trained on adults."])
    for schema in (1, 2):
        old = {
            **CARD,
            "schema": schema,
            "sha256": new.sha256,
            "input": {**CARD["input"], "patch": [112, 144]},
            "training_data": source,
            "limits": ["Trained on adults."],
            "training": {"steps": 1500},
            "figures": {"heads": {"L4": {"dice": 0.9468}}},
        }
        (new.folder / "model.json").write_text(json.dumps(old))
        assert read_bundle(new.folder) == new


def test_a_card_without_an_engine_goes_by_its_target(tmp_path):
    for target, engine in (("liver", "slices"), ("nodule", "nodule"), ("spleen", "slices")):
        bundle = make(tmp_path / f"{target}-v1.0.0", target=target)
        stored = json.loads((bundle.folder / "model.json").read_text())
        del stored["engine"], stored["priority"]
        (bundle.folder / "model.json").write_text(json.dumps(stored))
        assert read_bundle(bundle.folder) == bundle and bundle.engine == engine


def test_a_card_gives_typed_parts_and_the_same_json_again(tmp_path):
    source = {"name": "LiTS", "licence": "CC BY-NC-ND 4.0", "citation": "Bilic P et al."}
    fast = {"level": 3, "find_first": True, "step_mm": 8, "change": 0.08, "margin_mm": 40}
    bundle = make(
        tmp_path / "m-v1.0.0",
        training_data=[source],
        postprocessing={"fill_holes": True},
        speeds={"fast": fast},
        licence="research use only",
    )
    assert bundle.training_data == (Source(**source),)
    assert bundle.postprocessing == PostProcessing(largest_component=False, fill_holes=True)
    assert bundle.speed("fast") == Speed(**fast)
    assert bundle.labels[0].color == (221, 130, 101) and bundle.window_hu == (-40.0, 160.0) and bundle.depth == 4
    stored = json.loads((bundle.folder / "model.json").read_text())
    assert stored["schema"] == SCHEMA and stored["licence"] == "research use only"
    assert card_from_json(stored).as_json() == card_from_json(bundle.as_json()).as_json()
    assert json.loads(json.dumps(bundle.as_json())) == stored


def test_a_key_that_this_version_does_not_know_is_passed_over(tmp_path):
    bundle = make(tmp_path / "m-v1.0.0")
    change_card(bundle.folder, expected_dice={"balanced": [0.1, 0.2]})
    assert read_bundle(bundle.folder) == bundle


def test_the_figures_lie_beside_the_card_and_nobody_needs_them(tmp_path):
    figures = {"heads": {"L4": {"dice": 0.9468}}}
    bundle = write_bundle(
        tmp_path / "m-v1.0.0", card_from_json(CARD), trained_network().state_dict(), {"figures": figures}
    )
    assert json.loads((bundle.folder / "evaluation.json").read_text()) == {"figures": figures}
    assert "figures" not in json.loads((bundle.folder / "model.json").read_text())
    (bundle.folder / "evaluation.json").unlink()
    assert read_bundle(bundle.folder) == bundle


def test_the_loaded_state_keeps_batch_norm_so_that_training_can_start_from_it(tmp_path):
    make(tmp_path / "m-v1.0.0")
    build_network("unetpp_ds", filters=FILTERS, batch_norm=True).load_state_dict(
        read_bundle(tmp_path / "m-v1.0.0").load_state()
    )


def test_truncated_weights_are_refused(tmp_path):
    bundle = make(tmp_path / "m-v1.0.0")
    weights = bundle.folder / "weights.pt"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"m-v1\.0\.0.*checksum.*Copy the folder again"):
        bundle.load_network()


def test_one_altered_bit_in_the_weights_is_refused(tmp_path):
    bundle = make(tmp_path / "m-v1.0.0")
    weights = bundle.folder / "weights.pt"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match="checksum"):
        bundle.load_network()


def test_missing_weights_are_refused(tmp_path):
    bundle = make(tmp_path / "m-v1.0.0")
    (bundle.folder / "weights.pt").unlink()
    with pytest.raises(BundleError, match=r"weights\.pt cannot be read.*Copy the folder again"):
        bundle.load_network()


def test_a_card_that_does_not_fit_the_weights_is_refused(tmp_path):
    bundle = make(tmp_path / "m-v1.0.0")
    change_card(
        bundle.folder, architecture={"name": "unetpp_ds", "arguments": {"filters": [2, 3, 4], "batch_norm": True}}
    )
    with pytest.raises(BundleError, match="do not match"):
        read_bundle(bundle.folder).load_network()


def test_weights_that_could_run_a_program_are_refused_without_advice_to_run_it(tmp_path):
    folder = make(tmp_path / "m-v1.0.0").folder
    torch.save({"a": tmp_path}, folder / "weights.pt")
    change_card(folder, sha256=hashlib.sha256((folder / "weights.pt").read_bytes()).hexdigest())
    with pytest.raises(BundleError, match=r"m-v1\.0\.0.*more than weights") as refusal:
        read_bundle(folder).load_network()
    assert "weights_only" not in str(refusal.value)


def test_a_card_that_is_nested_without_end_hides_no_other_model(only_here):
    make(only_here / "good-v1.0.0")
    (make(only_here / "m-v1.0.0").folder / "model.json").write_text("[" * 100_000)
    found, refused = find_bundles()
    assert [bundle.name for bundle in found] == ["good-v1.0.0"]
    assert "not valid JSON" in refused[0]


def test_a_newer_schema_is_refused_and_an_update_proposed(tmp_path):
    bundle = make(tmp_path / "m-v1.0.0")
    change_card(bundle.folder, schema=SCHEMA + 1)
    with pytest.raises(BundleError, match=r"schema 4.*reads up to 3.*Update"):
        read_bundle(bundle.folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "x"}', '{"schema": 1, "target": "liver"}'])
def test_a_card_that_is_no_whole_card_is_refused(tmp_path, content):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(BundleError, match=r"model\.json"):
        read_bundle(tmp_path)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(BundleError, match="nowhere"):
        read_bundle(tmp_path / "nowhere")


def test_the_newest_usable_model_of_the_target_is_chosen(only_here):
    for version in ("v0.9.0", "v0.10.0", "v0.2.0"):
        make(only_here / f"liver-ct-{version}")
    make(only_here / "lung-nodule-ct-v3.0.0", target="nodule")
    assert choose_bundle("liver").name == "liver-ct-v0.10.0"
    assert choose_bundle("liver", "liver-ct-v0.2.0").name == "liver-ct-v0.2.0"
    assert choose_bundle("liver", str(only_here / "liver-ct-v0.9.0")).name == "liver-ct-v0.9.0"


def test_a_broken_folder_does_not_hide_the_others_and_is_named(only_here):
    make(only_here / "liver-ct-v1.0.0")
    make(only_here / "liver-ct-v2.0.0")
    change_card(only_here / "liver-ct-v2.0.0", schema=99)
    found, refused = find_bundles("liver")
    assert [b.name for b in found] == ["liver-ct-v1.0.0"]
    assert len(refused) == 1 and "liver-ct-v2.0.0" in refused[0]


@pytest.mark.usefixtures("ordinary_user")
def test_a_folder_without_permission_does_not_hide_the_others_and_is_named(only_here):
    make(only_here / "liver-ct-v1.0.0")
    make(only_here / "liver-ct-v2.0.0").folder.chmod(0)
    found, refused = find_bundles("liver")
    (only_here / "liver-ct-v2.0.0").chmod(0o700)
    assert [b.name for b in found] == ["liver-ct-v1.0.0"]
    assert refused == [f"{only_here / 'liver-ct-v2.0.0'} cannot be read (Permission denied): correct its permissions."]


def test_a_folder_of_results_with_the_name_of_a_model_does_not_hide_it(only_here, tmp_path_factory, monkeypatch):
    make(only_here / "liver-ct-v1.0.0")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "liver-ct-v1.0.0").mkdir()
    monkeypatch.chdir(elsewhere)
    assert choose_bundle("liver", "liver-ct-v1.0.0").folder == only_here / "liver-ct-v1.0.0"
    with pytest.raises(BundleError, match=r"model\.json"):
        choose_bundle("liver", "./liver-ct-v1.0.0/")


def test_an_older_model_is_not_used_for_a_damaged_newer_one_without_a_warning(only_here, caplog):
    make(only_here / "liver-ct-v1.0.0")
    assert choose_bundle("liver").name == "liver-ct-v1.0.0" and not caplog.messages
    make(only_here / "liver-ct-v2.0.0")
    change_card(only_here / "liver-ct-v2.0.0", schema=99)
    assert choose_bundle("liver").name == "liver-ct-v1.0.0"
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("The model liver-ct-v2.0.0 needs a newer")
    choose_bundle("liver", "liver-ct-v1.0.0")  # chosen by name: nothing was passed over
    assert len(caplog.messages) == 1


def test_an_unknown_model_is_refused_with_those_that_exist(only_here):
    make(only_here / "liver-ct-v1.0.0")
    with pytest.raises(BundleError, match=r"no model 'liver'.*liver-ct-v1\.0\.0"):
        choose_bundle("liver", "liver")


@pytest.mark.parametrize(
    "changes",
    [
        {"input": {}},
        {"labels": []},
        {"labels": [*CARD["labels"], {**CARD["labels"][0], "value": 2}]},
        {"labels": [{**CARD["labels"][0], "value": 0}]},
        {"labels": [{**CARD["labels"][0], "value": 256}]},
        {"engine": "volumes"},
        {"priority": ["Spleen"]},
        {"threshold": "half"},
        {"threshold": 2},
        {"average_from": 0},
        {"threshold": 0.995},
        {"threshold": 0},
        {"target": None},
        {"target": " "},
        {"labels": [{**CARD["labels"][0], "name": 7}]},
        {"labels": [{**CARD["labels"][0], "color": [1, None, 3]}]},
        {"input": {**CARD["input"], "pixel_mm": 0}},
        {"input": {**CARD["input"], "window_hu": [160, -40]}},
        {"speeds": {"fast": {"level": 3, "find_first": True, "step_mm": "8"}}},
        {"speeds": {"fast": {"level": 3, "find_first": True, "margin_mm": float("nan")}}},
        {"speeds": {"fast": {"depth": 3}}},
        {"architecture": 7},
        {"postprocessing": {"smooth": True}},
    ],
)
def test_a_card_that_is_not_as_it_has_to_be_is_refused_when_it_is_read(only_here, changes):
    make(only_here / "m-v1.0.0")
    change_card(only_here / "m-v1.0.0", **changes)
    with pytest.raises(BundleError, match=r"m-v1\.0\.0 cannot be used: its model\.json"):
        read_bundle(only_here / "m-v1.0.0")


def test_a_model_whose_target_is_no_text_does_not_hide_the_others(only_here):
    make(only_here / "m-v1.0.0")
    make(only_here / "n-v1.0.0")
    change_card(only_here / "m-v1.0.0", target=7)
    assert choose_bundle("liver").name == "n-v1.0.0"


def test_a_bundle_itself_may_be_named_where_models_are_looked_for(tmp_path, monkeypatch):
    bundle = make(tmp_path / "mine" / "m-v99.0.0")
    monkeypatch.setenv("UNETPP_MODELS", str(bundle.folder))
    assert choose_bundle("liver") == bundle


def test_without_any_model_the_places_looked_at_are_named(only_here):
    with pytest.raises(BundleError, match=str(only_here)):
        choose_bundle("liver")


def test_a_model_for_another_target_is_refused(only_here):
    make(only_here / "nodule-v1.0.0", target="nodule", labels=[{**CARD["labels"][0], "name": "Nodule"}])
    with pytest.raises(BundleError, match="for nodule, not for liver"):
        choose_bundle("liver", str(only_here / "nodule-v1.0.0"))


def test_the_folder_of_the_environment_variable_comes_first(tmp_path, monkeypatch):
    make(tmp_path / "liver-ct-v99.0.0")
    monkeypatch.setenv("UNETPP_MODELS", str(tmp_path))
    assert choose_bundle("liver").folder == tmp_path / "liver-ct-v99.0.0"


def test_a_model_named_by_a_dot_has_the_name_of_its_folder(only_here, monkeypatch):
    make(only_here / "liver-ct-v1.0.0")
    monkeypatch.chdir(only_here / "liver-ct-v1.0.0")
    assert read_bundle(".").name == "liver-ct-v1.0.0" and read_bundle(".").version == (1, 0, 0)


def test_what_a_stopped_export_left_does_not_block_the_next(only_here):
    (only_here / ".m-v1.0.0.partial").mkdir()
    assert make(only_here / "m-v1.0.0").name == "m-v1.0.0"


def test_a_model_for_which_the_disk_is_too_full_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    write, room = Path.write_bytes, 1000

    def fill(path, content):
        write(path, content[:room])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(BundleError, match=r"spleen-v1\.0\.0 cannot be written \(No space left on device\): free space"):
        make(tmp_path / "spleen-v1.0.0")
    assert not [*tmp_path.iterdir()]


def test_a_model_is_never_overwritten(tmp_path):
    make(tmp_path / "m-v1.0.0")
    with pytest.raises(BundleError, match="already exists"):
        make(tmp_path / "m-v1.0.0")
