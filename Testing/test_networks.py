"""The networks: parameter counts of the paper, any input size, pruning and folding that change nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from UNetPlusPlusSegmentLib.network.unetpp import (
    ARCHITECTURES,
    NodeGrid,
    build_network,
    fold_batch_norm,
    unetpp_ds,
)

SMALL = (2, 3, 4, 5, 6)


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def small_network(**options) -> NodeGrid:
    torch.manual_seed(0)
    return unetpp_ds(filters=SMALL, **options).eval()


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        ("unet", 7_759_521),
        ("unetpp", 9_041_601),
        ("unetpp_ds", 9_041_700),
        ("wide_unet", 9_130_476),
        ("unet_plus", 8_728_257),
    ],
)
def test_each_network_has_the_parameters_that_the_paper_names(architecture, parameters):
    assert count(build_network(architecture)) == parameters


@pytest.mark.parametrize(("level", "parameters"), [(1, 100_961), (2, 511_105), (3, 2_204_961), (4, 9_041_601)])
def test_each_pruned_network_has_the_parameters_of_the_official_figure(level, parameters):
    assert count(unetpp_ds().pruned(level)) == parameters


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_weight_of_every_network_gets_a_gradient(architecture):
    network = build_network(architecture, batch_norm=True)
    sum(head.sum() for head in network(torch.rand(2, 1, 32, 32))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"no gradient for {name}"


@settings(max_examples=30)
@given(height=st.integers(1, 70), width=st.integers(1, 70), depth=st.integers(1, 5))
def test_any_image_size_comes_back_at_its_own_size_from_any_depth(height, width, depth):
    network = NodeGrid(filters=[2] * (depth + 1), heads=range(1, depth + 1)).eval()
    with torch.inference_mode():
        heads = network(torch.rand(1, 1, height, width))
    assert [tuple(h.shape) for h in heads] == [(1, 1, height, width)] * depth


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_pruning_drops_nodes_and_keeps_the_head_exactly(level):
    network = small_network()
    image = torch.rand(2, 1, 48, 32)  # needs no padding at any level
    with torch.inference_mode():
        full, alone, together = network(image), network.pruned(level)(image), network.pruned(level, True)(image)
    torch.testing.assert_close(alone, [full[level - 1]], rtol=0, atol=0)
    torch.testing.assert_close(together, full[:level], rtol=0, atol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folding_takes_the_batch_norm_out_and_leaves_the_result(architecture):
    network = build_network(architecture, batch_norm=True)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 1, 32, 32) * 3)  # fills the running statistics
        network.eval()
        folded = fold_batch_norm(network)
        assert count(folded) == count(build_network(architecture))
        image = torch.rand(1, 1, 32, 32)
        torch.testing.assert_close(folded(image), network(image), rtol=1e-4, atol=1e-4)


def test_a_batch_equals_its_images_one_by_one():
    network = small_network()
    images = torch.rand(3, 1, 17, 33)
    with torch.inference_mode():
        together = network(images)
        for n in range(3):
            torch.testing.assert_close([h[n : n + 1] for h in together], network(images[n : n + 1]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"filters": (32,)}, "two levels"),
        ({"heads": (5,)}, "heads must be among"),
        ({"heads": (1,), "skips": "long"}, "heads must be among"),
        ({"skips": "none"}, "skips must be one of"),
    ],
)
def test_arguments_that_make_no_network_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        NodeGrid(**arguments)


def test_an_unknown_architecture_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="unetpp_ds"):
        build_network("unet++")
