"""Masks of a layer: what reaches the UNet is what the network gave times the mask's mean over each cell.

The reference is what the network itself gave in the same call, written down by hooks on the module, times factors that are computed here.
"""

import pytest

pytest.importorskip("comfy")

import torch
from torch.nn.functional import adaptive_avg_pool2d, pad

from control_composer.control import apply_control, compose_controls, layer_of
from control_composer.residuals import ImageStrengths, ListedWeights, ListSchedule, SoftWeights
from control_composer.tests import narrow
from control_composer.tests.control.watched import IMAGE, SIZE, apply, averaged, rows, soft_mask, start, watch


@pytest.fixture(scope="module", params=["sd1"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return narrow.make_model(kind)


@pytest.fixture(scope="module")
def module(kind):
    return narrow.make_module(kind)


@pytest.fixture(scope="module")
def control(module, kind):
    return narrow.make_ours(module, kind.upper())


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("invert", [False, True])
def test_every_block_gets_its_residual_times_the_area_average_of_the_mask(model, module, control, pictures, invert):
    mask = soft_mask(pictures)
    (call,) = watch(model, [module], apply(control, mask=mask, invert_mask=invert))
    assert len(call.reached) == len(call.raw) == 13
    for block, raw in zip(call.reached, call.raw, strict=True):
        factor = rows(averaged(1 - mask if invert else mask, raw).expand(2, -1, -1, -1), call.kinds)
        assert narrow.relative(block, raw * factor) <= 1e-5


def test_masks_of_sdxl_too():
    model, module = narrow.make_model("sdxl"), narrow.make_module("sdxl")
    layer = layer_of(narrow.make_ours(module, "SDXL"), IMAGE, mask=soft_mask())
    (call,) = watch(model, [module], compose_controls(*start("sdxl"), [layer]))
    assert len(call.raw) == 10
    for block, raw in zip(call.reached, call.raw, strict=True):
        assert narrow.relative(block, raw * averaged(soft_mask(), raw)) <= 1e-5


def test_a_mask_of_ones_changes_no_bit_and_apply_control_takes_one_too(model, control):
    flat = narrow.sample(model, *apply(control), SIZE, steps=2)
    ones = torch.ones(1, 32, 64)
    assert torch.equal(narrow.sample(model, *apply(control, mask=ones), SIZE, steps=2), flat)
    half = ones.clone()
    half[:, :, :32] = 0
    composed = narrow.sample(model, *apply(control, mask=half), SIZE, steps=2)
    applied = narrow.sample(model, *apply_control(*start(), control, IMAGE, mask=half), SIZE, steps=2)
    assert torch.equal(applied, composed) and narrow.relative(applied, flat) > 1e-2


def test_a_feathered_mask_fades_over_its_width_and_acts_in_the_middle(model, module, control):
    mask = torch.zeros(1, 64, 128)
    mask[:, :, 64:] = 1
    (call,) = watch(model, [module], apply(control, mask=mask, feather_mask=16.0))
    along = (call.reached[0] / call.raw[0]).mean((0, 1, 2))  # the finest block, cells of 8 pixels
    assert torch.allclose(along[[0, 1, 2, 3, 4]], torch.zeros(5), atol=1e-5)
    assert torch.allclose(along[[11, 12, 13, 14, 15]], torch.ones(5), atol=1e-5)
    assert along[5] < along[6] < along[7] < 0.5 < along[8] < along[9] < along[10]
    assert torch.allclose(along, 1 - along.flip(0), atol=1e-5)


def test_masks_that_overlap_are_divided_by_their_sum(model, module, control):
    """Cell by cell where they exceed one together; a layer without a mask and one that is off take no part."""
    left, right = torch.zeros(1, 64, 128), torch.zeros(1, 64, 128)
    left[:, :, :96], right[:, :, 32:] = 0.9, 0.6
    images = [narrow.picture(1, 64, 128, seed=seed) for seed in range(3)]
    layers = [
        layer_of(control, images[0], mask=left),
        layer_of(control, images[1], mask=right),
        layer_of(control, images[2], 0.5),
        layer_of(control, images[2], mask=torch.ones(1, 64, 128), enabled=False),
    ]
    (call,) = watch(model, [module], compose_controls(*start(), layers, overlap="normalised"))
    assert len(call.raw) == 13  # three layers below each other in one batch
    total = (left + right).clamp(min=1)  # cells are 8 pixels and the edges of the masks lie between them
    for index, block in enumerate(call.reached):
        a, b, c = call.raw[index].chunk(3)
        expected = a * averaged(left / total, a) + b * averaged(right / total, a) + 0.5 * c
        assert narrow.relative(block, expected) <= 1e-5
    (summed,) = watch(model, [module], compose_controls(*start(), layers))
    for index, block in enumerate(summed.reached):
        a, b, c = summed.raw[index].chunk(3)
        assert narrow.relative(block, a * averaged(left, a) + b * averaged(right, a) + 0.5 * c) <= 1e-5


def test_everything_multiplies(model, module, control):
    weights = ListedWeights(tuple(0.3 + 0.1 * index for index in range(13)))
    mask = soft_mask(2, seed=4)
    settings = {"weights": weights, "mask": mask, "uncond_strength": 0.25}
    settings["schedule"] = ListSchedule((1.0, 0.4), axis="step") * ImageStrengths((0.7, 1.5))
    layer = layer_of(control, IMAGE, 0.8, **settings)
    calls = watch(model, [module], compose_controls(*start(), [layer], 1.5), steps=2)
    for call, over_time in zip(calls, (1.0, 0.4), strict=True):
        by_row = [s * (1.0 if kind == 0 else 0.25) for kind in call.kinds for s in (0.7, 1.5)]
        by_row = torch.tensor(by_row).view(-1, 1, 1, 1)
        for index, (block, raw) in enumerate(zip(call.reached, call.raw, strict=True)):
            factor = rows(averaged(mask, raw), call.kinds) * by_row * (0.8 * 1.5 * over_time * weights.values[index])
            assert narrow.relative(block, raw * factor) <= 1e-5


def test_a_pooling_control_pools_first_and_is_masked_then(model, module):
    stock = narrow.make_stock(module, global_average_pooling=True)
    mask = soft_mask()
    (call,) = watch(model, [module], apply(stock, mask=mask, weights=SoftWeights(), strength=0.5))
    for index, (block, raw) in enumerate(zip(call.reached, call.raw, strict=True)):
        pooled = raw.mean((2, 3), keepdim=True).expand_as(raw)
        assert narrow.relative(block, pooled * averaged(mask, raw) * 0.5 * 0.825 ** (12 - index)) <= 1e-5


def test_a_mask_is_cropped_and_moved_with_its_hint(model, module, control):
    """A square picture on a wide canvas keeps its middle half under crop, and has empty sides under fit."""
    image, mask = narrow.picture(1, 128, 128), soft_mask(1, 2, 128, 128)
    (call,) = watch(model, [module], apply(control, image, mask=mask))
    (fitted,) = watch(model, [module], apply(control, image, mask=mask, sizing="fit", fill="white"))
    (pulled,) = watch(model, [module], apply(control, image, mask=mask, sizing="stretch"))
    for index in range(13):
        raw = call.raw[index]
        assert narrow.relative(call.reached[index], raw * averaged(mask[:, 32:96], raw)) <= 1e-5
        cells = pad(adaptive_avg_pool2d(mask.unsqueeze(1), (8, 8)), (4, 4))
        factor = adaptive_avg_pool2d(cells, tuple(raw.shape[-2:]))
        assert narrow.relative(fitted.reached[index], fitted.raw[index] * factor) <= 1e-5
        assert narrow.relative(pulled.reached[index], pulled.raw[index] * averaged(mask, raw)) <= 1e-5


def test_an_area_gets_its_part_of_the_mask(model, module, control):
    import nodes

    mask = soft_mask()
    (positive,) = nodes.ConditioningSetArea().append(apply(control, mask=mask)[0], 64, 64, 48, 0, 1.0)
    calls = watch(model, [module], (positive, narrow.conditioning("sd1", 11)))
    (call,) = [call for call in calls if call.reached is not None]
    for block, raw in zip(call.reached, call.raw, strict=True):
        assert raw.shape[-1] == raw.shape[-2]
        assert narrow.relative(block, raw * averaged(mask[:, :, 48:112], raw)) <= 1e-5


def test_two_areas_get_each_their_part_of_the_mask(model, module, control):
    import nodes

    mask = soft_mask()
    positive = apply(control, mask=mask)[0]
    left, right = (nodes.ConditioningSetArea().append(positive, 64, 64, x, 0, 1.0)[0] for x in (0, 64))
    calls = watch(model, [module], (left + right, narrow.conditioning("sd1", 11)))
    (call,) = [call for call in calls if call.reached is not None]
    assert sorted(call.kinds) == [
        0,
        0,
        1,
        1,
    ]  # the host gives the negative the same areas; which comes first is its affair
    for block, raw in zip(call.reached, call.raw, strict=True):
        parts = [averaged(mask[:, :, x : x + 64], raw).expand(2, -1, -1, -1) for x in (0, 64)]
        orders = [one + two for one in (parts, parts[::-1]) for two in (parts, parts[::-1])]
        fits = [narrow.relative(block, raw * torch.cat(order)) <= 1e-5 for order in orders]
        assert any(fits)
