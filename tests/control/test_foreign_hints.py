"""Hints of controls that are not ours: placed, given to latents, cut for areas and context windows, as with the stock nodes."""

import pytest

pytest.importorskip("comfy")

import torch
from comfy.context_windows import ContextFuseMethods, ContextSchedules
from torch.nn.functional import interpolate, pad

from control_composer.control import compose_controls, layer_of
from control_composer.tests import narrow
from control_composer.tests.control.foreign_layers import CPU, IMAGE, SIZE, adapter, compose, ladder, reached, start


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


@pytest.fixture(scope="module")
def module():
    return narrow.make_module("sd1")


def placed_by_hand(image, sizing, fill):
    """A square picture on a canvas of 64 × 128 pixels."""
    planes = image.movedim(-1, 1)
    if sizing == "stretch":
        return interpolate(planes, size=(64, 128), mode="nearest-exact").movedim(1, -1)
    small = interpolate(planes, size=(64, 64), mode="nearest-exact")
    around = {"mode": "replicate"} if fill == "edge" else {"value": float(fill == "white")}
    return pad(small, (32, 32, 0, 0), **around).movedim(1, -1)


@pytest.mark.parametrize("kind", ["adapter", "ladder"])
@pytest.mark.parametrize(("sizing", "fill"), [("stretch", "black"), ("fit", "white")])
def test_sizing_equals_the_stock_nodes_with_a_hint_that_was_placed_by_hand(model, module, kind, sizing, fill):
    image = narrow.picture(2, 96, 96)
    control = adapter() if kind == "adapter" else ladder(module)
    expected = narrow.stock_apply(*start(), control, placed_by_hand(image, sizing, fill))
    found = compose(layer_of(control, image, sizing=sizing, fill=fill))
    expected, found = (narrow.sample(model, *conds, SIZE, steps=2) for conds in (expected, found))
    assert narrow.relative(found, expected) <= 1e-5


@pytest.mark.parametrize("kind", ["adapter", "ladder"])
def test_policies_equal_the_stock_nodes_with_hints_in_that_order(model, module, kind):
    image = narrow.picture(2, 64, 128)
    control = adapter() if kind == "adapter" else ladder(module)
    expected = narrow.stock_apply(*start(), control, image[[0, 0, 1, 1]])
    found = compose(layer_of(control, image, batch="repeat"))
    expected, found = (narrow.sample(model, *conds, (4, 8, 16), steps=2) for conds in (expected, found))
    assert narrow.relative(found, expected) <= 1e-5


def test_an_area_gets_its_part_of_the_hint(model, module):
    import nodes

    control = ladder(module)

    def in_area(conditioning):
        return nodes.ConditioningSetArea().append(conditioning, 64, 64, 48, 0, 1.0)[0]

    part = narrow.stock_apply(*start(), control, IMAGE[:, :, 48:112])
    expected = narrow.sample(model, in_area(part[0]), start()[1], SIZE, steps=2)
    whole = compose(layer_of(control, IMAGE))
    found = narrow.sample(model, in_area(whole[0]), start()[1], SIZE, steps=2)
    assert narrow.relative(found, expected) <= 1e-5


@pytest.mark.parametrize("kind", ["ladder", "adapter"])
def test_two_areas_of_one_size_in_one_batch_get_each_its_part(model, module, kind):
    """The stock reference: a control of its own for each area, with the hint cut by hand."""
    import nodes

    control = adapter() if kind == "adapter" else ladder(module)

    def in_area(conditioning, x):
        return nodes.ConditioningSetArea().append(conditioning, 64, 64, x, 0, 1.0)[0]

    (plain, negative), right = start(), narrow.conditioning("sd1", 12)
    expected = [
        in_area(narrow.stock_apply(words, [], control, IMAGE[:, :, x : x + 64])[0], x)
        for words, x in ((plain, 0), (right, 64))
    ]
    layer = layer_of(control, IMAGE)
    whole, _ = compose_controls(plain + right, [], [layer])
    found = in_area(whole[:1], 0) + in_area(whole[1:], 64)
    expected, found = (
        narrow.sample(model, positive, negative, SIZE, steps=2) for positive in (expected[0] + expected[1], found)
    )
    assert narrow.relative(found, expected) <= 1e-5
    assert layer.source.control.cond_hint_original is layer.hint_bchw  # as it was before the run


def windowed(model):
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    return ContextWindowsManualNode.execute(
        model,
        3,
        0,
        ContextSchedules.STATIC_STANDARD,
        1,
        False,
        ContextFuseMethods.PYRAMID,
        0,
        False,
        causal_window_fix=False,
    ).result[0]


def frames_in_windows(model, layer, image, control, size):
    """Per call of a window of three frames: what reached, and what the adapter gives their hints."""
    calls = reached(windowed(model), compose(layer), size)
    with torch.inference_mode():
        raw = control.t2i_model(image.movedim(-1, 1))["input"]
    return [(call, [x if x is None else x[3 * n : 3 * n + 3] for x in raw]) for n, call in enumerate(calls)]


def test_hints_stay_with_their_frames_and_the_next_run_has_its_own(model):
    image, control = narrow.picture(6, 64, 64), adapter()
    layer = layer_of(control, image)
    for _ in range(2):
        pairs = frames_in_windows(model, layer, image, control, (6, 8, 8))
        assert len(pairs) == 2
        for call, raw in pairs:
            for block, whole in zip(call.control["input"], raw, strict=True):
                assert whole is None or narrow.relative(block, whole.repeat(2, 1, 1, 1)) <= 1e-5
    expected = narrow.sample(model, *narrow.stock_apply(*start(), control, image), (6, 8, 8), steps=1)
    assert narrow.relative(narrow.sample(model, *compose(layer), (6, 8, 8), steps=1), expected) <= 1e-5


def test_a_clone_made_after_windows_has_the_whole_hint_and_weights_of_its_own(model):
    image, control = narrow.picture(6, 64, 64), adapter()
    layer = layer_of(control, image)
    reached(windowed(model), compose(layer), (6, 8, 8))
    conds = compose(layer)
    clone = conds[0][0][1]["control"].deepclone_multigpu(CPU)
    twin = clone.layers[0].source.control
    assert twin.t2i_model is not layer.source.control.t2i_model
    cloned = tuple([[entry[0], entry[1] | {"control": clone}] for entry in side] for side in conds)
    expected = narrow.sample(model, *narrow.stock_apply(*start(), control, image), (6, 8, 8), steps=1)
    assert narrow.relative(narrow.sample(model, *cloned, (6, 8, 8), steps=1), expected) <= 1e-5
