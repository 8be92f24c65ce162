"""Targets as YAML files: errors are refused by name, labels are made of marked structures, and unknown ones do not count."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from data.kinds import Unknown
from data.slices import UNKNOWN
from data.targets import SHIPPED, TargetError, load_kind, load_target
from fit.losses import LOSSES, of_labels
from fit.settings import Settings, SettingsError
from fit.task import GroupDice
from Testing.support.spleen import SPLEEN, TERM

RIGHT = TERM.replace("~^^~A", "~SCT^24028007^Right~A")
TUMOUR = {
    "labels": [
        {"name": "Liver", "terminology": TERM, "color": [1, 2, 3], "made_of": ["liver", "tumour"]},
        {"name": "Tumour", "terminology": TERM, "color": [4, 5, 6], "made_of": ["tumour"]},
    ],
    "priority": ["Tumour", "Liver"],
    "slices": {
        **SPLEEN["slices"],
        "structures": {"liver": [1], "tumour": [2, 3]},
        "unknown": [{"structure": "tumour", "marked_as": "liver", "column": "tumour_px", "values": [""]}],
    },
}


def changed(path: str, value: object = None) -> dict:
    """A description with another value at a path of keys and indices; with the key left out if None."""
    described = copy.deepcopy(SPLEEN)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    inside = described
    for step in way:
        inside = inside[step]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    return described


@pytest.mark.parametrize(
    ("described", "words"),
    [
        (changed("licence"), "lacks licence"),
        (changed("licence", " "), "licence is empty"),
        (changed("slices.sources.0.licence"), r"sources\[0\] lacks licence"),
        (changed("slices.sources.0.licence", ""), r"sources\[0\]: licence is empty"),
        (changed("slices.sources.0.citation"), r"sources\[0\] lacks citation"),
        (changed("slices.sources", []), "sources must name at least one source"),
        (changed("labels"), "lacks labels"),
        (changed("intended_use"), "lacks intended_use"),
        (changed("license", "CC0"), "no key 'license'; did you mean 'licence'"),
        (changed("slices.structure", {}), "slices: there is no key 'structure'; did you mean 'structures'"),
        (changed("postprocessing", {"fill_hole": True}), "no key 'fill_hole'; did you mean 'fill_holes'"),
        (changed("postprocessing", {"fill_holes": 1}), "fill_holes=1 must be true or false"),
        (changed("speeds", {"fast": {"level": 3}}), "fast lacks find_first"),
        (changed("name", "My Spleen"), "one word of lower-case letters"),
        (changed("labels.0.made_of", ["splen"]), "'splen', which is not one of the structures of `slices`, spleen"),
        (changed("labels.0.made_of", []), "made of nothing"),
        (changed("labels.0.color", [1, 2]), "must have 3 values"),
        (changed("labels.0.color", [1, 2, 300]), "each 0…255"),
        (changed("labels.0.terminology", "SCT^78961009^Spleen"), "seven parts"),
        (changed("labels", [SPLEEN["labels"][0]] * 2), "no two with the same name"),
        (changed("slices.structures", {"spleen": [1], "fat": [1]}), "each can belong to one structure only"),
        (changed("slices.structures", {"spleen": [256]}), "1…255"),
        (changed("slices.structures", {"spleen": "one"}), "spleen='one' must be a list"),
        (changed("slices.window_hu", [240, -100]), "the smaller one first"),
        (changed("slices.pixel_mm", {"times": 2}), "needs a column of slices.csv"),
        (changed("slices.pixel_mm.usual", "wide"), "usual='wide' must be a number"),
        (changed("slices.unknown", [{"structure": "x", "marked_as": "y"}]), "'y' is not one of the structures, spleen"),
        (changed("slices.unknown", [{"structure": "x", "column": "y"}]), "column and values go together"),
        (changed("engine", "volumes"), "engine='volumes' is unknown; it can be slices, nodule"),
        (changed("priority", ["Liver"]), "must list all labels, Spleen"),
        ({**SPLEEN, **TUMOUR, "priority": []}, "Liver and Tumour share tumour: say in `priority`"),
        ({**SPLEEN, **TUMOUR, "engine": "nodule"}, "one label"),
        ([], "must be lines of `key: value`"),
    ],
    ids=lambda value: value.partition(";")[0] if isinstance(value, str) else "",
)
def test_a_description_that_lacks_or_misspells_something_is_refused_by_file_and_key(tmp_path, described, words):
    path = tmp_path / "spleen.yaml"
    path.write_text(yaml.safe_dump(described))
    with pytest.raises(TargetError, match=rf"spleen\.yaml.*{words}"):
        load_target(str(path))


def test_a_missing_file_or_one_that_is_not_yaml_is_refused(tmp_path):
    with pytest.raises(TargetError, match=r"none\.yaml cannot be read"):
        load_target(str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_text("name: [")
    with pytest.raises(TargetError, match=r"bad\.yaml cannot be read"):
        load_target(str(tmp_path / "bad.yaml"))


def test_every_shipped_target_can_be_read_and_names_sources_with_licence_and_citation():
    assert SHIPPED == ["abdomen", "liver", "nodule", "nuclei", "polyp"]
    for name in SHIPPED:
        target = load_target(name)
        assert target.name == name and target.limits
        assert all(source.licence and source.citation for source in target.slices.sources)


def test_the_example_of_the_readme_is_a_target():
    text = (Path(__file__).parents[1] / "training" / "README.md").read_text(encoding="utf-8")
    (example,) = (part.partition("```")[0] for part in text.split("```yaml\n")[1:])
    assert load_target(yaml.safe_load(example)).labels[0].name == "Spleen"


def test_the_terms_of_the_organs_are_among_those_that_the_extension_gives_to_slicer():
    path = Path(__file__).parents[1] / "UNetPlusPlusSegment/Resources/Terminologies/UNetPlusPlusSegment.term.json"
    (category, _) = json.loads(path.read_text(encoding="utf-8"))["SegmentationCodes"]["Category"]
    known = {}
    for kind in category["Type"]:
        for side in kind.get(
            "Modifier", [{"CodeValue": "", "CodeMeaning": "", "CodingSchemeDesignator": "", **look(kind)}]
        ):
            known[code(kind), code(side)] = (side["3dSlicerLabel"], tuple(side["recommendedDisplayRGBValue"]))
    for label in load_target("abdomen").labels:
        kind, side = label.terminology.split("~")[2:4]
        assert known[kind, side] == (label.name.lower(), label.color)


def look(kind: dict) -> dict:
    return {key: kind[key] for key in ("3dSlicerLabel", "recommendedDisplayRGBValue")}


def code(entry: dict) -> str:
    return f"{entry['CodingSchemeDesignator']}^{entry['CodeValue']}^{entry['CodeMeaning']}"


def test_the_organs_are_the_eight_that_their_masks_hold():
    organs = load_target("abdomen")
    masks = organs.masks(np.arange(9, dtype=np.uint8)[None], organs.slices)
    assert masks.shape == (8, 1, 9)
    np.testing.assert_array_equal(masks[:, 0, 1:], np.eye(8, dtype=bool))
    assert [label.name for label in organs.labels if label.has_side] == ["Right kidney", "Left kidney"]


@pytest.mark.parametrize(
    ("name", "has_side"),
    [("femur_left", True), ("lung_upper_lobe_right", True), ("Left femur", True), ("bright", False), ("cleft", False)],
)
def test_a_side_is_recognised_in_any_spelling_of_a_name(name, has_side):
    label = load_target("liver").labels[0]
    assert replace(label, name=name).has_side == has_side


def test_a_label_may_be_a_union_of_structures_and_share_them_with_another():
    target = load_target({**SPLEEN, **TUMOUR})
    liver, tumour = target.masks(np.array([[0, 1, 2, 3]], np.uint8), target.slices)
    assert liver.tolist() == [[False, True, True, True]] and tumour.tolist() == [[False, False, True, True]]


def test_another_kind_of_folder_gives_structures_of_the_same_name_their_own_values():
    liver, organs = load_target("liver"), load_kind("abdomen")
    stored = np.arange(9, dtype=np.uint8)[None]
    assert np.flatnonzero(liver.masks(stored, organs)).tolist() == [5]
    assert np.flatnonzero(liver.beside_in(stored, organs)).tolist() == [4, 6, 8]  # gallbladder, stomach, pancreas
    assert liver.beside_in(stored % 3, liver.slices) is None


def test_where_tumours_are_not_marked_separately_the_tumour_is_unknown_but_the_liver_is_known():
    target = load_target({**SPLEEN, **TUMOUR})
    assert target.known({"tumour_px": "0"}, target.slices).tolist() == [True, True]
    assert target.known({"tumour_px": ""}, target.slices).tolist() == [True, False]
    assert target.known({}, load_kind("abdomen")).tolist() == [
        False,
        False,
    ]  # it does not say what became of a `tumour`
    assert load_target("liver").known({}, load_kind("abdomen")).tolist() == [True]
    assert (
        load_target("abdomen").known({"tumour_px": ""}, load_kind("liver")).tolist()
        == [False] * 4 + [True] + [False] * 3
    )


def test_a_label_is_unknown_if_it_has_only_one_of_two_structures_marked_alike():
    not_told = Unknown("tumour", marked_as="liver")
    assert not_told.blurs(["tumour"]) and not_told.blurs(["liver"])
    assert not not_told.blurs(["liver", "tumour"]) and not not_told.blurs(["spleen"])


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_an_unknown_label_has_no_gradient_and_leaves_the_loss_of_the_others_alone(loss):
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 6, 6, requires_grad=True)
    truth = (torch.rand(3, 2, 6, 6) > 0.5).float()
    truth[1, 1] = UNKNOWN
    total = of_labels(loss, logits, truth)
    total.backward()
    assert not logits.grad[1, 1].any()
    assert logits.grad[1, 0].any() and logits.grad[0, 1].any()
    first, second = (slice(0, 1), [0, 1, 2]), (slice(1, 2), [0, 2])
    by_hand = [loss(logits[images][:, label], truth[images][:, label]) for label, images in (first, second)]
    assert float(total.detach()) == pytest.approx(float(sum(by_hand).detach()) / 2, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_an_unknown_pixel_has_no_gradient_and_counts_as_background_that_was_recognised(loss):
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 6, 6, requires_grad=True)
    truth = (torch.rand(2, 1, 6, 6) > 0.5).float()
    truth[0, 0, 0] = UNKNOWN
    total = of_labels(loss, logits, truth)
    total.backward()
    assert not logits.grad[0, 0, 0].any()
    assert logits.grad[0, 0, 1:].all() and logits.grad[1].all()
    by_hand, background = logits.detach().clone(), truth.clone()
    by_hand[0, 0, 0], background[0, 0, 0] = -100, 0
    assert float(total.detach()) == pytest.approx(float(loss(by_hand, background)), abs=1e-6)


def test_the_loss_of_one_known_label_is_that_of_the_label():
    logits, truth = torch.randn(3, 1, 6, 6), (torch.rand(3, 1, 6, 6) > 0.5).float()
    for loss in LOSSES.values():
        assert torch.equal(of_labels(loss, logits, truth), loss(logits, truth))


def test_a_label_that_no_image_knows_adds_nothing():
    logits, truth = torch.randn(2, 2, 6, 6), torch.zeros(2, 2, 6, 6)
    truth[:, 1] = UNKNOWN
    expected = LOSSES["bce_dice"](logits[:, :1], truth[:, :1]) / 2
    assert torch.equal(of_labels(LOSSES["bce_dice"], logits, truth), expected)


def test_dice_is_of_each_label_over_the_patients_who_have_it_and_are_known_to():
    truth = torch.zeros(1, 3, 4, 4)
    truth[0, :2, :2] = 1
    found = truth > 0
    found[0, 1, 1] = False  # of eight pixels four
    dice = GroupDice(2, 3)
    dice.update(found, truth, 0)
    truth[0, 1] = UNKNOWN
    dice.update(torch.ones(1, 3, 4, 4, dtype=torch.bool), truth, 1)
    of_each = dice.compute()
    assert of_each[:2].tolist() == pytest.approx([(1 + 2 / 3) / 2, 2 / 3])
    assert of_each[2].isnan()  # nobody has the third


def test_a_training_accepts_a_target_s_name_file_or_contents(tmp_path):
    path = tmp_path / "spleen.yaml"
    path.write_text(yaml.safe_dump(SPLEEN))
    by_file, by_itself = (Settings("n", target, "d") for target in (str(path), SPLEEN))
    assert by_file.goal == by_itself.goal and by_file.goal.window_hu == (-100, 240)
    assert Settings("n", "abdomen", "d").network_arguments["out_channels"] == 8


def test_the_target_s_pixel_size_is_used_unless_a_training_gives_one():
    assert Settings("n", "liver", "d").pixel_mm == 2.0
    assert Settings("n", "liver", "d", pixel_mm=3.0).pixel_mm == 3.0
    assert Settings("n", "nuclei", "d").pixel_mm == 0


@pytest.mark.parametrize("change", [{"name": "Left kidney"}, {"terminology": RIGHT}], ids=["name", "terminology"])
def test_flips_are_refused_where_a_mirror_image_is_another_label(change):
    sided = {**SPLEEN, "labels": [{**SPLEEN["labels"][0], **change}]}
    with pytest.raises(SettingsError, match="flips"):
        Settings("n", sided, "d", flips=True)
    Settings("n", sided, "d")
    Settings("n", SPLEEN, "d", flips=True)


def test_a_file_with_only_a_kind_suffices_for_additional_slices(tmp_path):
    path = tmp_path / "others.yaml"
    path.write_text(yaml.safe_dump({"slices": SPLEEN["slices"]}))
    assert Settings("n", "liver", "d", also={str(path): "e"}).folders[1] == ("e", load_kind(str(path)))
