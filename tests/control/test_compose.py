"""Many layers in one control: against a chain of stock nodes, and what cannot be meant."""

import pytest

pytest.importorskip("comfy")

import torch

from control_composer.control import Control, ControlError, compose_controls, layer_of
from control_composer.tests import narrow
from control_composer.tests.control.composed import (
    PICTURES,
    SETTINGS,
    SIZE,
    control_of,
    layers_of,
    reached,
    start,
    stock_chain,
)


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


@pytest.fixture(scope="module")
def modules():
    return [narrow.make_module("sd1", seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def controls(modules):
    return [narrow.make_ours(module, "SD1") for module in modules]


# -- equal to stock nodes in a chain ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@pytest.mark.parametrize("networks", [(1, 2, 3), (1, 1, 1)])
def test_flat_layers_equal_as_many_stock_nodes(kind, networks):
    model, made = narrow.make_model(kind), {seed: narrow.make_module(kind, seed) for seed in set(networks)}
    expected = stock_chain(start(kind), [narrow.make_stock(made[seed]) for seed in networks])
    ours = {seed: narrow.make_ours(module, kind.upper()) for seed, module in made.items()}
    found = compose_controls(*start(kind), layers_of([ours[seed] for seed in networks]))
    expected, found = (narrow.sample(model, *conds, SIZE, steps=3) for conds in (expected, found))
    assert narrow.relative(found, expected) <= 1e-5
    assert narrow.relative(narrow.sample(model, *start(kind), SIZE, steps=3), expected) > 1e-2


@pytest.mark.parametrize("sampler", ["dpm_2_ancestral"])
def test_they_do_with_every_sampler(model, modules, controls, sampler):
    changes = {"steps": 2, "sampler_name": sampler, "scheduler": "karras", "denoise": 0.7}
    expected = narrow.sample(model, *stock_chain(start(), map(narrow.make_stock, modules)), SIZE, **changes)
    found = narrow.sample(model, *compose_controls(*start(), layers_of(controls)), SIZE, **changes)
    assert narrow.relative(found, expected) <= 1e-5


@pytest.mark.parametrize("order", ["after", "both"])
def test_with_stock_controls_before_and_after(model, modules, controls, order):
    stock = [narrow.make_stock(module) for module in modules]
    others = stock[:1] if order == "both" else [], stock[2:]
    settings = {"pictures": PICTURES[2:], "settings": SETTINGS[2:]}

    def around(conds, between):
        return stock_chain(between(stock_chain(conds, others[0], **settings)), others[1], **settings)

    expected = around(start(), lambda conds: stock_chain(conds, stock[:2]))
    found = around(start(), lambda conds: compose_controls(*conds, layers_of(controls[:2])))
    expected, found = (narrow.sample(model, *conds, SIZE, steps=3) for conds in (expected, found))
    assert narrow.relative(found, expected) <= 1e-5


def test_a_chain_of_compose_nodes_is_one_control(model, modules, controls):
    layers = layers_of(controls)
    conds = compose_controls(*compose_controls(*start(), layers[:1], 0.5), layers[1:], 2.0)
    control = control_of(conds)
    assert control.previous_controlnet is None and len(control.layers) == 3
    strengths = [(0.4, 0.0, 1.0), (1.0, 0.2, 0.9), (2.6, 0.0, 0.6)]
    expected = stock_chain(start(), map(narrow.make_stock, modules), settings=strengths)
    expected, found = (narrow.sample(model, *both, SIZE, steps=3) for both in (expected, conds))
    assert narrow.relative(found, expected) <= 1e-5


def test_the_order_of_layers_only_rounds(model, controls):
    layers = layers_of(controls)
    first = narrow.sample(model, *compose_controls(*start(), layers), SIZE, steps=3)
    for order in ((2, 1, 0), (1, 2, 0)):
        found = narrow.sample(model, *compose_controls(*start(), [layers[i] for i in order]), SIZE, steps=3)
        assert narrow.relative(found, first) <= 1e-5


def test_the_master_strength_is_linear(model, controls):
    layers = layers_of(controls)
    flat, double, negative = (
        reached(model, compose_controls(*start(), layers, strength))[0] for strength in (1.0, 2.0, -0.3)
    )
    for a, b, c in zip(flat, double, negative, strict=True):
        assert torch.equal(b, 2 * a)  # a power of two: to the last bit
        assert narrow.relative(c, -0.3 * a) <= 1e-6


def test_both_branches_share_the_control_and_layers_are_left_as_they_were(controls):
    layers = layers_of(controls)
    positive, negative = compose_controls(*start(), layers, 0.5, "normalised")
    assert positive[0][1]["control"] is negative[0][1]["control"]
    assert [layer.master for layer in layers] == [1.0] * 3
    assert [layer.master for layer in control_of((positive, negative)).layers] == [0.5] * 3


# -- what cannot be meant --------------------------------------------------------------------------------------------------------------------


def test_no_layers():
    with pytest.raises(ControlError) as refused:
        compose_controls(*start(), [])
    assert str(refused.value) == (
        "Compose Controls has no layers, but at least one was expected; connect Control Layer nodes to it, or take it out."
    )


def test_an_overlap_that_there_is_none(controls):
    with pytest.raises(ControlError) as refused:
        compose_controls(*start(), layers_of(controls), overlap="most")
    assert str(refused.value) == (
        "overlap of Compose Controls is 'most', but one of ('sum', 'normalised') was expected; choose one."
    )


def test_a_strength_that_is_no_number(controls):
    with pytest.raises(ControlError) as refused:
        compose_controls(*start(), layers_of(controls[:1]), float("nan"))
    assert str(refused.value) == (
        "the strength of the whole of test.safetensors is nan, but a finite number was expected; type one, for example 1.0."
    )


def test_a_layer_for_another_base_is_refused_before_sampling(model, controls):
    other = narrow.make_ours(narrow.make_module("sdxl"), "SDXL")
    layers = [layer_of(controls[0], PICTURES[0]), layer_of(other, PICTURES[0])]
    spy = narrow.Spy(model)
    with pytest.raises(ControlError) as refused:
        narrow.sample(spy.model, *compose_controls(*start(), layers), SIZE)
    assert str(refused.value) == (
        "test.safetensors is an SDXL control (10 connections, context 40, 32 to 128 channels, pooled vector 2816), but the model is NarrowSD1 "
        "(13 connections, context 24, 32 to 128 channels); use a control made for NarrowSD1, or a model of base SDXL."
    )
    assert spy.calls == []
    off = [layers[0], layer_of(other, PICTURES[0], enabled=False)]  # what is off is in nobody's way
    narrow.sample(spy.model, *compose_controls(*start(), off), SIZE, steps=1)


def test_a_composed_control_is_no_network_for_a_layer(controls):
    bound = control_of(compose_controls(*start(), layers_of(controls[:1])))
    assert isinstance(bound, Control)
    with pytest.raises(
        ControlError,
        match="control_net of Control Layer has its layers already, but one fresh from a Load node was expected",
    ):
        layer_of(bound, PICTURES[0])
