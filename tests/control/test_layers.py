"""What a layer's settings do to what reaches the UNet: masks, schedules, strengths of pictures, batch policies, sizing; and their sentences.

The reference is what the network itself gave in the same call, written down by hooks on the module, times factors that are computed here.
"""

import pytest

pytest.importorskip("comfy")

import comfy.samplers
import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pad

from control_composer.control import ControlError, apply_control, compose_controls, layer_of
from control_composer.residuals import (
    CurveSchedule,
    ImageStrengths,
    Keyframe,
    Keyframes,
    ListedWeights,
    ListSchedule,
    NamedStrengths,
    SoftWeights,
)
from control_composer.tests import narrow

SIZE = (2, 8, 16)
IMAGE = narrow.picture(2, 64, 128)
NAN = float("nan")


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


def start(kind="sd1"):
    return narrow.conditioning(kind, 10), narrow.conditioning(kind, 11)


class Seen:
    """One call: its sigma, its kinds, what reached the UNet, and what the network gave in it, both with the middle last."""

    def __init__(self, call):
        control = call["c"].get("control")
        self.reached = None if control is None else [x.clone() for x in control["output"] + control["middle"]]
        self.kinds = list(call["cond_or_uncond"])
        self.sigma = float(call["timestep"][0])
        self.raw = []


def watch(model, modules, conditionings, size=SIZE, **changes):
    """Every call of the UNet in a run."""
    raw, calls = [], []
    hooks = [
        part.register_forward_hook(lambda _, __, out: raw.append(out.clone()))
        for module in modules
        for part in (*module.zero_convs, module.middle_block_out)
    ]

    def record(apply_model, call):
        calls.append(Seen(call))
        calls[-1].raw, raw[:] = list(raw), []
        return apply_model(call["input"], call["timestep"], **call["c"])

    spied = model.clone()
    spied.set_model_unet_function_wrapper(record)
    narrow.sample(spied, *conditionings, size, **{"steps": 1} | changes)
    for hook in hooks:
        hook.remove()
    return calls


def rows(values, kinds):
    """(latents, …) -> (latents of every branch, …)."""
    return torch.cat([values] * len(kinds))


def soft_mask(count=1, seed=1, height=64, width=128):
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(seed))


def averaged(mask, block):
    """The mask (n, H, W) as a factor for a block, where its size divides the mask's."""
    assert mask.shape[-2] % block.shape[-2] == 0 and mask.shape[-1] % block.shape[-1] == 0
    return adaptive_avg_pool2d(mask.unsqueeze(1).double(), tuple(block.shape[-2:])).float()


def apply(control, image=IMAGE, **settings):
    return compose_controls(*start(), [layer_of(control, image, **settings)])


# -- masks -----------------------------------------------------------------------------------------------------------------------------------


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


# -- schedules -------------------------------------------------------------------------------------------------------------------------------


def percent_of(model, sigma):
    """The host's percent of a sigma: 1 - t / 999 for the t among its 1000 training timesteps, logarithms in between."""
    sigmas = model.model.model_sampling.sigmas.double().log().numpy()
    return 1 - np.interp(np.log(sigma), sigmas, np.arange(1000)) / 999


def step_of(model, sigma, steps, sampler, denoise):
    """Steps that are done at a sigma over all steps of the run, logarithms in between."""
    sigmas = comfy.samplers.KSampler(model, steps, torch.device("cpu"), sampler, "normal", denoise).sigmas
    logs = -sigmas[:-1].double().log().numpy()
    return np.interp(-np.log(sigma), logs, np.arange(steps)) / steps


@pytest.mark.parametrize("axis", ["percent", "step"])
@pytest.mark.parametrize(
    ("sampler", "denoise"), [("euler", 1.0), ("heun", 1.0), ("dpm_2_ancestral", 1.0), ("euler", 0.5)]
)
def test_the_residuals_of_every_call_follow_the_schedule(model, module, control, axis, sampler, denoise):
    """Samplers of second order ask between the steps as well, where the step is counted in log sigma."""
    schedule = Keyframes((Keyframe(0.0, 0.2), Keyframe(0.5, 1.0), Keyframe(1.0, 0.1)), axis=axis)
    changes = {"steps": 4, "sampler_name": sampler, "denoise": denoise, "size": (1, 8, 8)}
    calls = watch(model, [module], apply(control, IMAGE[:1], schedule=schedule), **changes)
    assert len(calls) == {"euler": 4, "heun": 7, "dpm_2_ancestral": 7}[sampler]
    factors = []
    for call in calls:
        place = percent_of(model, call.sigma) if axis == "percent" else step_of(model, call.sigma, 4, sampler, denoise)
        expected = np.interp(place, (0.0, 0.5, 1.0), (0.2, 1.0, 0.1))
        factors.append(round(expected, 3))
        assert narrow.relative(call.reached[-1], call.raw[-1] * expected) <= 2e-3
    assert len(set(factors)) >= 3
    if denoise == 0.5 and axis == "percent":
        assert min(percent_of(model, call.sigma) for call in calls) > 0.4


def test_a_curve_has_its_own_scale_and_may_be_negative(model, module, control):
    schedule = CurveSchedule(lambda place: place**2, -1.0, 3.0, "step")
    calls = watch(model, [module], apply(control, schedule=schedule), steps=3)
    for index, call in enumerate(calls):
        assert narrow.relative(call.reached[3], call.raw[3] * (4 * (index / 3) ** 2 - 1)) <= 1e-5


def test_steps_at_which_the_schedule_is_zero_are_not_computed(model, module, control):
    calls = watch(model, [module], apply(control, schedule=ListSchedule((1, 0, 0, 0.5), axis="step")), steps=4)
    assert [len(call.raw) for call in calls] == [13, 0, 0, 13]
    assert [call.reached is None for call in calls] == [False, True, True, False]


def test_each_latent_has_the_strength_of_its_picture(model, module, control):
    image = narrow.picture(3, 64, 64)
    (call,) = watch(model, [module], apply(control, image, schedule=ImageStrengths((1.0, 0.0, 0.3))), (3, 8, 8))
    factors = torch.tensor([1.0, 0.0, 0.3]).view(-1, 1, 1, 1)
    (flat,) = watch(model, [module], apply(control, image), (3, 8, 8))
    for block, raw, whole in zip(call.reached, call.raw, flat.raw, strict=True):
        assert raw.shape[0] == 4  # the second latent is not computed, in neither branch
        assert narrow.relative(block, whole * rows(factors, call.kinds)) <= 1e-5
        assert not block[1].any() and not block[4].any()


# -- batches and sizes -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "order"),
    [("cycle", [0, 1, 2, 0, 1]), ("repeat", [0, 0, 1, 1, 2]), ("hold last", [0, 1, 2, 2, 2])],
)
def test_hints_and_masks_go_to_latents_by_the_policy(model, module, control, policy, order):
    size, image, mask = (5, 8, 8), narrow.picture(3, 64, 64), soft_mask(3, 1, 64, 64)
    (call,) = watch(model, [module], apply(control, image, mask=mask, batch=policy), size)
    by_hand = narrow.stock_apply(*start(), narrow.make_stock(module), image[order])
    (expected,) = watch(model, [module], by_hand, size)
    for block, flat in zip(call.reached, expected.reached, strict=True):
        assert narrow.relative(block, flat * rows(averaged(mask[order], flat), call.kinds)) <= 1e-5


def by_hand(image, sizing, fill):
    """A square picture on a canvas of 64 × 128 pixels."""
    planes = image.movedim(-1, 1)
    if sizing == "stretch":
        return interpolate(planes, size=(64, 128), mode="nearest-exact").movedim(1, -1)
    small = interpolate(planes, size=(64, 64), mode="nearest-exact")
    around = {"mode": "replicate"} if fill == "edge" else {"value": float(fill == "white")}
    return pad(small, (32, 32, 0, 0), **around).movedim(1, -1)


@pytest.mark.parametrize(
    ("sizing", "fill"), [("stretch", "black"), ("fit", "black"), ("fit", "white"), ("fit", "edge"), ("crop", "edge")]
)
def test_sizing_equals_the_stock_nodes_with_a_hint_that_was_placed_by_hand(model, module, control, sizing, fill):
    image = narrow.picture(1, 96, 96)
    placed = image if sizing == "crop" else by_hand(image, sizing, fill)
    expected = narrow.stock_apply(*start(), narrow.make_stock(module), placed)
    found = apply(control, image, sizing=sizing, fill=fill)
    expected, found = (narrow.sample(model, *conds, SIZE, steps=2) for conds in (expected, found))
    assert narrow.relative(found, expected) <= 1e-5


def test_a_second_pass_of_another_size_reads_the_original_picture_with_its_own_strength(model, module, control):
    image = narrow.picture(1, 100, 140)
    layer = layer_of(control, image, mask=None)
    stock = narrow.make_stock(module)
    for strength, size in ((1.0, (1, 8, 8)), (0.4, (1, 12, 16)), (1.0, (1, 8, 8))):
        found = narrow.sample(model, *compose_controls(*start(), [layer], strength), size, steps=2)
        expected = narrow.sample(model, *narrow.stock_apply(*start(), stock, image, strength), size, steps=2)
        assert narrow.relative(found, expected) <= 1e-5


# -- what cannot be meant --------------------------------------------------------------------------------------------------------------------


def refusal(control, image=IMAGE, **settings):
    with pytest.raises(ControlError) as refused:
        layer_of(control, image, **settings)
    return str(refused.value)


def refusal_in_sampling(model, control, image, size, **settings):
    with pytest.raises(ControlError) as refused:
        narrow.sample(model, *apply(control, image, **settings), size, steps=1)
    return str(refused.value)


def test_weights_of_another_count(control):
    assert refusal(control, weights=ListedWeights((1.0,) * 10)) == (
        "The weights do not go with test.safetensors: Block Weights has 10 numbers, but this control has 13 blocks (output 0 to output 11, "
        "middle); write 13 numbers, or a single one for all of them."
    )


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (
            torch.ones(1, 64, 64),
            "mask is 64×64 pixels, but the hint is 128×64 and a mask of the same aspect was expected, at any size; "
            "make the mask from the hint's picture, or crop both alike.",
        ),
        (
            torch.full((1, 64, 128), NAN),
            "Control Layer: mask has pixels that are NaN or infinite, but numbers from 0 to 1 were expected; check the node that makes it.",
        ),
        (
            torch.ones(0, 64, 128),
            "Control Layer: mask is empty (0 × 64 × 128), but at least one pixel was expected; check the node that makes it.",
        ),
        (
            torch.ones(1, 64, 128, 3),
            "Control Layer: mask is a tensor of shape (1, 64, 128, 3), but a batch of masks (masks, height, width) was expected; "
            "connect a MASK output, for a picture through Convert Image to Mask.",
        ),
    ],
)
def test_masks(control, mask, words):
    assert refusal(control, mask=mask) == words


def test_a_feather_that_is_none(control):
    assert refusal(control, mask=soft_mask(), feather_mask=-1.0) == (
        "Control Layer: feather is -1.0, but a number of pixels from 0 was expected; type one, for example 16."
    )


def test_pictures_and_networks_are_named_with_the_layers_node(control):
    assert refusal(control, narrow.picture(1, 64, 64, channels=1)) == (
        "image of Control Layer has 1 channel, but test.safetensors reads hints of 3; turn it into a colour picture, for example with "
        "Convert Mask to Image."
    )
    assert refusal(None) == (
        "control_net of Control Layer is empty, but a control was expected; connect a Load ControlNet node, and if it is connected, "
        "look at what it said about the file."
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sizing": "pad"}, 'sizing is "pad", but one of crop, fit, stretch was expected; choose one of them.'),
        ({"fill": "grey"}, 'fill is "grey", but one of black, white, edge was expected; choose one of them.'),
    ],
)
def test_choices_that_there_are_none(control, settings, words):
    assert refusal(control, **settings) == words


def test_more_hints_than_latents(model, control):
    assert refusal_in_sampling(model, control, narrow.picture(3, 64, 64), (2, 8, 8)) == (
        "The hints for test.safetensors do not go with the batch: there are 3 pictures for 2 latents, but at most one for each was expected; "
        "take 2 of them, or make the latent batch 3 long."
    )


def test_more_masks_than_latents(model, control):
    found = refusal_in_sampling(model, control, narrow.picture(1, 64, 64), (2, 8, 8), mask=soft_mask(3, 1, 64, 64))
    assert found == (
        "The masks for test.safetensors do not go with the batch: there are 3 pictures for 2 latents, but at most one for each was expected; "
        "take 2 of them, or make the latent batch 3 long."
    )


def test_fewer_hints_than_latents_where_that_is_refused(model, control):
    assert refusal_in_sampling(model, control, narrow.picture(2, 64, 64), (3, 8, 8), batch="error") == (
        "The hints for test.safetensors do not go with the batch: there are 2 pictures for 3 latents, but one for each, or a single one, was "
        'expected by the batch policy "error"; give 3 pictures, or choose cycle, repeat, hold last.'
    )


def test_strengths_for_more_pictures_than_there_are(model, control):
    found = refusal_in_sampling(model, control, IMAGE, SIZE, schedule=ImageStrengths((1.0, 0.5, 0.2)))
    assert found == (
        "The schedule of test.safetensors does not go with the batch: Image Strengths has 3 numbers, but the batch has 2 pictures; "
        "write at most 2, or make the batch 3 long."
    )
    assert "names picture 4, but the batch has 2 pictures" in refusal_in_sampling(
        model, control, IMAGE, SIZE, schedule=NamedStrengths(((4, 4, 0.0),))
    )
