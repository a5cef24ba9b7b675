"""Controls of another kind as layers: a T2I-Adapter, and a ControlNet with the host's own strength ladder.

Nothing is a stand-in: all are the host's classes with random weights, and the references are the stock nodes.
"""

import pytest

pytest.importorskip("comfy")

import comfy.controlnet
import torch
from torch.nn.functional import adaptive_avg_pool2d

from control_composer.control import ControlError, compose_controls, layer_of
from control_composer.residuals import ImageStrengths, ListedWeights, ListSchedule, ScheduleError
from control_composer.tests import narrow
from control_composer.tests.control.foreign_layers import IMAGE, SIZE, adapter, by_row, compose, ladder, reached, start


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


@pytest.fixture(scope="module")
def module():
    return narrow.make_module("sd1")


# -- flat ------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["atl", "lat", "tal"])
def test_layers_of_all_kinds_equal_the_stock_chain(model, module, order):
    """a: adapter, t: ours, l: the host's ladder."""
    images = {kind: narrow.picture(2, 64, 128, seed=seed) for seed, kind in enumerate("atl")}
    layers, conds = [], start()
    for kind in order:
        control = {"a": adapter, "t": lambda: narrow.make_ours(module, "SD1"), "l": lambda: ladder(module)}[kind]()
        stock = narrow.make_stock(module) if kind == "t" else control
        layers.append(layer_of(control, images[kind], 0.7, 0.0, 0.8))
        conds = narrow.stock_apply(*conds, stock, images[kind], 0.7, 0.0, 0.8)
    expected = narrow.sample(model, *conds, SIZE, steps=3)
    assert narrow.relative(narrow.sample(model, *compose(*layers), SIZE, steps=3), expected) <= 1e-5


# -- shaped ----------------------------------------------------------------------------------------------------------------------------------


def test_weights_schedule_mask_balance_and_strengths_multiply(model):
    control, weights = adapter(), (0.3, 0.5, 0.7, 1.1)
    mask = torch.rand(2, 64, 128, generator=torch.Generator().manual_seed(3))
    schedule = ListSchedule((1.0, 0.4), axis="step") * ImageStrengths((0.6, 1.2))
    layer = layer_of(
        control, IMAGE, 0.8, uncond_strength=0.5, weights=ListedWeights(weights), mask=mask, schedule=schedule
    )
    calls = reached(model, compose(layer, strength=1.5), steps=2)
    with torch.inference_mode():
        raw = control.t2i_model(IMAGE.movedim(-1, 1))["input"]
    for call, over_time in zip(calls, (1.0, 0.4), strict=True):
        factors = by_row(call.kinds, (0.6, 1.2), 0.5).view(-1, 1, 1, 1) * (0.8 * 1.5 * over_time)
        finest_first = iter(weights)
        for block, whole in reversed(list(zip(call.control["input"], raw, strict=True))):
            if whole is None:
                assert block is None
                continue
            spread = adaptive_avg_pool2d(mask.unsqueeze(1), tuple(whole.shape[-2:])).repeat(2, 1, 1, 1)
            assert narrow.relative(block, whole * spread * factors * next(finest_first)) <= 1e-5
        assert list(finest_first) == []


def test_conditional_only_evaluates_the_conditional_chunks_and_equals_all_with_the_others_at_zero(model, module):
    rows = []
    hook = module.middle_block.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    image = narrow.picture(2, 64, 128)
    (whole,) = reached(model, compose(layer_of(ladder(module), image, 0.9)))
    (found,) = reached(model, compose(layer_of(ladder(module), image, 0.9, uncond_strength=0.0)))
    hook.remove()
    assert rows == [4, 2]
    conditional = by_row(found.kinds, (1.0, 1.0), 0.0).view(-1, 1, 1, 1)
    for place in ("output", "middle"):
        for block, both in zip(found.control[place], whole.control[place], strict=True):
            assert narrow.relative(block, both * conditional) <= 1e-5


def test_a_strength_of_zero_for_one_picture_leaves_the_others_their_own(model, module):
    image = narrow.picture(2, 64, 128)
    (whole,) = reached(model, compose(layer_of(ladder(module), image, 0.9)))
    (found,) = reached(model, compose(layer_of(ladder(module), image, 0.9, schedule=ImageStrengths((0.0, 0.5)))))
    factors = by_row(found.kinds, (0.0, 0.5)).view(-1, 1, 1, 1)
    for block, both in zip(found.control["output"], whole.control["output"], strict=True):
        assert narrow.relative(block, both * factors) <= 1e-5


def test_an_uneven_batch_of_several_conditionings_does_too(model, module):
    """Text lengths that cannot be put into one batch: the host asks for one chunk and for two, and an adapter keeps what it computed."""
    image = narrow.picture(2, 64, 128)

    def conds(apply):
        positive = narrow.conditioning("sd1", 10) + narrow.conditioning("sd1", 12, tokens=11)
        return apply(positive, narrow.conditioning("sd1", 11))

    found = conds(lambda *both: compose_controls(*both, [layer_of(adapter(), image, 0.8)]))
    calls = reached(model, found, steps=2)
    assert {len(call.kinds) for call in calls} == {1, 2}
    for call in calls:
        for block in call.control["input"]:
            assert block is None or len(block) == 2 * len(call.kinds)
    one = adapter()
    with torch.inference_mode():
        raw = one.t2i_model(image.movedim(-1, 1))["input"]
    for call in calls:
        for block, whole in zip(call.control["input"], raw, strict=True):
            assert whole is None or narrow.relative(block, 0.8 * whole.repeat(len(call.kinds), 1, 1, 1)) <= 1e-5


def test_a_foreign_control_out_of_range_or_at_schedule_zero_is_not_asked(model, module):
    passes = []
    hook = module.middle_block.register_forward_hook(lambda *_: passes.append(1))
    for settings in (
        {"start_percent": 0.2, "end_percent": 0.5},
        {"schedule": ListSchedule((0.0,))},
        {"mask": torch.zeros(1, 64, 128)},
    ):
        calls = reached(model, compose(layer_of(ladder(module), IMAGE, **settings)), steps=2)
        assert [call.control for call in calls] == [None] * 2
    hook.remove()
    assert passes == []


# -- what cannot be meant --------------------------------------------------------------------------------------------------------------------


class Other(comfy.controlnet.ControlBase):
    """A control of another pack, which sizes its hint itself."""

    def copy(self):
        twin = Other()
        self.copy_to(twin)
        return twin

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        return self.control_merge({"input": [torch.ones(len(x_noisy), 32, *x_noisy.shape[-2:])]}, None, x_noisy.dtype)


def test_a_control_of_another_pack_is_shaped_as_it_comes(model):
    mask = torch.zeros(1, 64, 128)
    mask[:, :, 64:] = 1
    (call,) = reached(model, compose(layer_of(Other(), IMAGE, 0.6, mask=mask, uncond_strength=0.5), strength=2.0))
    (block,) = call.control["input"]
    assert not block[..., :8].any()
    expected = by_row(call.kinds, (1.0, 1.0), 0.5).view(-1, 1, 1, 1) * 1.2
    assert torch.allclose(block[..., 8:], expected.expand(4, 32, 8, 8))


def test_it_is_not_sized_by_us(model):
    with pytest.raises(ControlError) as refused:
        reached(model, compose(layer_of(Other(), IMAGE, sizing="fit")))
    assert str(refused.value) == (
        "the connected control_net (Other) sizes its hint itself, but a placing other than the host's was expected of it (sizing, batch policy, "
        "area or context window); leave sizing at crop and batch at cycle, and use it without areas and context windows."
    )


def test_weights_of_another_count_are_refused(model):
    with pytest.raises(
        ControlError, match=r"Block Weights has 13 numbers, but this control has 4 blocks \(input 0 to input 3\)"
    ):
        reached(model, compose(layer_of(adapter(), IMAGE, weights=ListedWeights((0.5,) * 13))))


def test_more_hints_than_latents_are_refused(model):
    with pytest.raises(
        ControlError, match="there are 3 pictures for 2 latents, but at most one for each was expected; take 2"
    ):
        reached(model, compose(layer_of(adapter(), narrow.picture(3, 64, 128))))


def test_strengths_for_more_pictures_than_there_are(model):
    with pytest.raises(
        (ControlError, ScheduleError), match="has 3 numbers, but the batch has 2 pictures; write at most 2"
    ):
        reached(model, compose(layer_of(adapter(), IMAGE, schedule=ImageStrengths((1.0, 0.5, 0.2)))))
