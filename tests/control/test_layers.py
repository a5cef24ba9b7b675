"""What a layer's settings do to what reaches the UNet: schedules, strengths of pictures, batch policies, sizing.

The reference is what the network itself gave in the same call, written down by hooks on the module, times factors that are computed here.
"""

import pytest

pytest.importorskip("comfy")

import comfy.samplers
import numpy as np
import torch
from torch.nn.functional import interpolate, pad

from control_composer.control import compose_controls, layer_of
from control_composer.residuals import CurveSchedule, ImageStrengths, Keyframe, Keyframes, ListSchedule
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
