"""What reaches the UNet under soft, level and block weights and the presets, and which weights are refused."""

import pytest

pytest.importorskip("comfy")

import torch

from control_composer.control import ControlError, apply_control
from control_composer.nodes.weight import (
    ControlComposerBlockWeights,
    ControlComposerLevelWeights,
    ControlComposerSoftWeights,
    ControlComposerWeightPreset,
)
from control_composer.residuals import LevelWeights, ListedWeights, SoftWeights
from control_composer.tests import narrow

SIZE = (1, 8, 8)
IMAGE = narrow.picture(1, 64, 64)


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return narrow.make_model(kind)


@pytest.fixture(scope="module")
def control(kind):
    return narrow.make_ours(narrow.make_module(kind), kind)


def reached(model, kind, control, **settings):
    """The first call of the UNet: its control and the kinds of its rows."""
    spy = narrow.Spy(model)
    conditionings = narrow.conditioning(kind, 10), narrow.conditioning(kind, 11)
    narrow.sample(spy.model, *apply_control(*conditionings, control, IMAGE, **settings), SIZE, steps=1)
    return spy.calls[0]


def blocks(call):
    return call.control["output"] + call.control["middle"]


def test_soft_weights_reach_every_block(model, kind, control):
    last = {"sd1": 12, "sdxl": 9}[kind]
    flat = blocks(reached(model, kind, control))
    soft = blocks(reached(model, kind, control, weights=ControlComposerSoftWeights.execute(0.825).result[0]))
    assert len(flat) == last + 1
    for i, (a, b) in enumerate(zip(flat, soft, strict=True)):
        assert torch.equal(b, a * 0.825 ** (last - i))


def test_the_numbers_of_levels_and_blocks_reach_them(model, kind, control):
    count = {"sd1": 13, "sdxl": 10}[kind]
    values = [0.1 * number for number in range(count)]
    (levels,) = ControlComposerLevelWeights.execute(2.0, 0.5, 0.25, 0.75, 1.5).result
    (both,) = ControlComposerBlockWeights.execute(", ".join(map(str, values)), levels).result
    flat = blocks(reached(model, kind, control))
    for i, (a, b) in enumerate(zip(flat, blocks(reached(model, kind, control, weights=both)), strict=True)):
        level = 1.5 if i == count - 1 else (2.0, 0.5, 0.25, 0.75)[i // 3]
        if values[i] == 0:
            assert b is None  # nothing to add
        else:
            assert torch.equal(b, a * (level * values[i]))


@pytest.mark.parametrize(
    ("name", "base", "uncond"),
    [("Balanced", 1.0, 1.0), ("My prompt is more important", 0.825, 1.0), ("ControlNet is more important", 1.0, 0.0)],
)
def test_the_modes_of_sd_webui_controlnet(model, kind, control, name, base, uncond):
    """Its arithmetic: each residual times weight · base^(n-i), times 1 in conditional and `uncond` in unconditional rows."""
    weights, uncond_strength = ControlComposerWeightPreset.execute(name).result
    flat = reached(model, kind, control, strength=0.8)
    found = reached(model, kind, control, strength=0.8, weights=weights, uncond_strength=uncond_strength)
    assert sorted(found.kinds) == [0, 1]
    rows = torch.tensor([1.0 if branch == 0 else uncond for branch in found.kinds]).view(-1, 1, 1, 1)
    last = len(blocks(flat)) - 1
    for i, (a, b) in enumerate(zip(blocks(flat), blocks(found), strict=True)):
        expected = a * base ** float(last - i) * rows
        assert narrow.relative(b, expected) <= 1e-5
        assert not b[[branch != 0 for branch in found.kinds]].any() or uncond


def adapter(xl):
    import comfy.controlnet

    network = comfy.t2i_adapter.adapter.Adapter(
        channels=[32, 64, 128, 128], nums_rb=2, cin=768 if xl else 192, ksize=1, sk=True, use_conv=False, xl=xl
    )
    narrow.fill(network, 4)
    return comfy.controlnet.T2IAdapter(network, 3, 8, "nearest-exact")


def test_the_four_places_of_a_t2i_adapter_count_from_the_finest():
    """The host's list holds the coarsest first, and nothing for the blocks between."""
    model = narrow.make_model("sd1")

    def places(**settings):
        return [
            x for x in reversed(reached(model, "sd1", adapter(False), **settings).control["input"]) if x is not None
        ]

    flat, soft, listed, levels = (
        places(),
        places(weights=SoftWeights()),
        places(weights=ListedWeights((0.1, 0.2, 0.3, 0.4))),
        places(weights=LevelWeights((0.1, 0.2, 0.3, 0.4), 9)),
    )
    assert [x.shape[1] for x in flat] == [32, 64, 128, 128]
    for i, a in enumerate(flat):
        assert torch.equal(soft[i], a * 0.825 ** (3 - i))
        assert torch.equal(listed[i], a * (0.1, 0.2, 0.3, 0.4)[i])
        assert torch.equal(levels[i], listed[i])


def test_the_places_of_a_t2i_adapter_for_sdxl_end_with_the_middle():
    model = narrow.make_model("sdxl")

    def places(**settings):
        control = reached(model, "sdxl", adapter(True), **settings).control
        return [x for x in (*reversed(control["input"]), *control["middle"]) if x is not None]

    flat, soft, levels = places(), places(weights=SoftWeights()), places(weights=LevelWeights((9, 0.2, 0.3), 0.4))
    assert [x.shape[1] for x in flat] == [32, 64, 128, 128]
    for i, a in enumerate(flat):
        assert torch.equal(soft[i], a * 0.825 ** (3 - i))
        assert torch.equal(levels[i], a * (0.2, 0.2, 0.3, 0.4)[i])


def test_a_t2i_adapter_for_sdxl_does_what_the_stock_nodes_do_with_it():
    model, conditionings = narrow.make_model("sdxl"), (narrow.conditioning("sdxl", 10), narrow.conditioning("sdxl", 11))
    expected, found = (
        narrow.sample(model, *apply(*conditionings, adapter(True), IMAGE), SIZE, steps=3)
        for apply in (narrow.stock_apply, apply_control)
    )
    assert narrow.relative(found, expected) <= 1e-5
    assert narrow.relative(narrow.sample(model, *conditionings, SIZE, steps=3), expected) > 1e-3


@pytest.mark.parametrize("count", [12, 14, 2])
def test_a_wrong_count_is_refused_before_sampling(count):
    control = narrow.make_ours(narrow.make_module("sd1"), "SD1")
    with pytest.raises(ControlError) as error:
        apply_control(
            narrow.conditioning("sd1", 1),
            narrow.conditioning("sd1", 2),
            control,
            IMAGE,
            weights=ListedWeights((1.0,) * count),
        )
    assert str(error.value) == (
        f"The weights do not go with test.safetensors: Block Weights has {count} numbers, but this control has 13 blocks (output 0 to "
        "output 11, middle); write 13 numbers, or a single one for all of them."
    )


def test_a_wrong_count_for_a_control_of_another_kind_is_refused_too():
    with pytest.raises(ControlError) as error:
        reached(narrow.make_model("sd1"), "sd1", adapter(False), weights=ListedWeights((1.0,) * 13))
    assert str(error.value) == (
        "The weights do not go with the connected control_net (T2IAdapter): Block Weights has 13 numbers, but this control has 4 blocks "
        "(input 0 to input 3); write 4 numbers, or a single one for all of them."
    )
