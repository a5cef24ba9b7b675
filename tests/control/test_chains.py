"""Controls in a row, ours and the host's in every order, through the real sampler."""

import pytest

pytest.importorskip("comfy")

import torch

from control_composer.control import Control, apply_control
from control_composer.residuals import ResolutionWeights
from control_composer.tests import narrow

SIZE = (2, 8, 12)
PICTURES = (narrow.picture(1, 64, 96, seed=1), narrow.picture(2, 70, 50, seed=2), narrow.picture(1, 96, 96, seed=3))
SETTINGS = ((0.8, 0.0, 1.0), (0.5, 0.2, 0.9), (1.0, 0.0, 0.6))


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


@pytest.fixture(scope="module")
def modules():
    return [narrow.make_module("sd1", seed) for seed in (1, 2, 3)]


def start():
    return narrow.conditioning("sd1", 10), narrow.conditioning("sd1", 11)


def chain(links):
    conds = start()
    for (link, control), image, settings in zip(links, PICTURES, SETTINGS, strict=False):
        conds = link(*conds, control, image, *settings)
    return conds


def stock_chain(modules):
    return chain([(narrow.stock_apply, narrow.make_stock(module)) for module in modules])


@pytest.mark.parametrize("order", ["oss", "sos", "sso", "oso", "ooo", "xxx", "xox", "yoy", "yys"])
def test_any_order_equals_the_stock_chain(model, modules, order):
    """o: our Apply, our loader; s: stock, stock; x: stock Apply, our loader; y: our Apply, stock loader."""
    links = {
        "o": lambda module: (apply_control, narrow.make_ours(module, "SD1")),
        "s": lambda module: (narrow.stock_apply, narrow.make_stock(module)),
        "x": lambda module: (narrow.stock_apply, narrow.make_ours(module, "SD1")),
        "y": lambda module: (apply_control, narrow.make_stock(module)),
    }
    positive, negative = chain([links[kind](module) for kind, module in zip(order, modules, strict=True)])
    control = positive[0][1]["control"]
    assert negative[0][1]["control"] is control
    if order in ("ooo", "xxx", "xox", "yoy"):
        assert len(control.layers) == 3 and control.previous_controlnet is None
    found = narrow.sample(model, positive, negative, SIZE, steps=4)
    expected = narrow.sample(model, *stock_chain(modules), SIZE, steps=4)
    assert narrow.relative(found, expected) <= 1e-5


def test_layers_of_one_network_and_one_picture_share_the_pass(model, modules):
    passes, embeddings = [], []
    module = modules[0]
    control = narrow.make_ours(module, "SD1")
    settings = ((0.5, 0.0, 0.6), (0.3, 0.3, 1.0))
    conds = start()
    for values in settings:
        conds = apply_control(*conds, control, PICTURES[0], *values)
    hooks = [
        module.middle_block.register_forward_hook(lambda *_: passes.append(1)),
        module.input_hint_block.register_forward_hook(lambda *_: embeddings.append(1)),
    ]
    found = narrow.sample(model, *conds, SIZE, steps=4)
    for hook in hooks:
        hook.remove()
    conds = start()
    for values in settings:
        conds = narrow.stock_apply(*conds, narrow.make_stock(module), PICTURES[0], *values)
    assert narrow.relative(found, narrow.sample(model, *conds, SIZE, steps=4)) <= 1e-5
    assert (len(passes), len(embeddings)) == (4, 1)


def test_layers_of_one_network_with_pictures_of_their_own(model, modules):
    """Six pictures are more than are embedded in one go."""
    size, pictures = (6, 8, 8), (narrow.picture(6, 64, 64, seed=1), narrow.picture(1, 64, 64, seed=2))
    ours, stock = start(), start()
    control = narrow.make_ours(modules[0], "SD1")
    for image in pictures:
        ours = apply_control(*ours, control, image, 0.5)
        stock = narrow.stock_apply(*stock, narrow.make_stock(modules[0]), image, 0.5)
    expected = narrow.sample(model, *stock, size, steps=2)
    assert narrow.relative(narrow.sample(model, *ours, size, steps=2), expected) <= 1e-5


def adapter():
    """The host's control for a T2I-Adapter of the narrow model's widths."""
    import comfy.controlnet

    network = comfy.t2i_adapter.adapter.Adapter(
        channels=[32, 64, 128, 128], nums_rb=2, cin=192, ksize=1, sk=True, use_conv=False, xl=False
    )
    narrow.fill(network, 4)
    return comfy.controlnet.T2IAdapter(network, 3, 8, "nearest-exact")


@pytest.mark.parametrize("order", ["a", "oa", "ao"])
def test_a_control_of_another_kind_keeps_its_own_arithmetic(model, modules, order):
    def links(apply, encoder):
        return [(apply, adapter() if kind == "a" else encoder(modules[0])) for kind in order]

    found = chain(links(apply_control, lambda module: narrow.make_ours(module, "SD1")))
    assert len(found[0][0][1]["control"].layers) == len(order)
    expected = narrow.sample(model, *chain(links(narrow.stock_apply, narrow.make_stock)), SIZE, steps=3)
    assert narrow.relative(narrow.sample(model, *found, SIZE, steps=3), expected) <= 1e-5
    assert narrow.relative(narrow.sample(model, *start(), SIZE, steps=3), expected) > 1e-3


def test_weights_and_balance_shape_a_control_of_another_kind(model):
    spy = narrow.Spy(model)
    narrow.sample(spy.model, *apply_control(*start(), adapter(), PICTURES[0]), SIZE, steps=1)
    weights = ResolutionWeights("literal", "actual")
    narrow.sample(
        spy.model, *apply_control(*start(), adapter(), PICTURES[0], uncond_strength=0.0, weights=weights), SIZE, steps=1
    )
    flat, shaped = (call.control["input"] for call in spy.calls)
    assert sum(residual is not None for residual in flat) == 4
    conditional = torch.tensor([kind == 0 for kind in spy.calls[0].kinds for _ in range(SIZE[0])])
    for a, b in zip(flat, shaped, strict=True):
        if a is not None:
            factor = 64 / (a.shape[2] * a.shape[3]) ** 0.5
            assert torch.equal(b[conditional], (a * factor).expand(len(conditional), -1, -1, -1)[conditional])
            assert not b[~conditional].any()


def test_conditionings_with_other_controls_before_keep_them(modules):
    positive, negative = start()
    positive = positive + narrow.stock_apply(positive, negative, narrow.make_stock(modules[0]), PICTURES[0])[0]
    out, _ = apply_control(positive, negative, narrow.make_ours(modules[1], "SD1"), PICTURES[0])
    plain, chained = (entry[1]["control"] for entry in out)
    assert plain.previous_controlnet is None and chained.previous_controlnet is positive[1][1]["control"]
    assert "control" not in positive[0][1]


def test_a_copy_has_the_layers_and_no_predecessor(modules):
    positive, _ = chain(
        [(narrow.stock_apply, narrow.make_stock(modules[0])), (apply_control, narrow.make_ours(modules[1], "SD1"))]
    )
    control = positive[0][1]["control"]
    twin = control.copy()
    assert isinstance(twin, Control) and twin.layers == control.layers and twin.previous_controlnet is None
