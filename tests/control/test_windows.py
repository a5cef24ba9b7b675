"""Hints, masks and strengths stay with their frames while the host samples a long batch in windows.

The frame of each latent is found from its pixels, not from what the window says: every sampling step starts from the same latents without windows.
"""

import pytest

pytest.importorskip("comfy")

import torch
from comfy.context_windows import ContextFuseMethods, ContextSchedules
from torch.nn.functional import adaptive_avg_pool2d

from control_composer.control import ControlError, compose_controls, layer_of
from control_composer.residuals import ImageStrengths, ListSchedule
from control_composer.tests import narrow

FRAMES = 6
SIZE = (FRAMES, 8, 8)


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


@pytest.fixture(scope="module")
def module():
    return narrow.make_module("sd1")


@pytest.fixture(scope="module")
def control(module):
    return narrow.make_ours(module, "SD1")


def start():
    return narrow.conditioning("sd1", 10), narrow.conditioning("sd1", 11)


def windowed(model, **settings):
    """The model as the host's node gives it."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    arguments = {
        "context_length": 3,
        "context_overlap": 1,
        "context_schedule": ContextSchedules.STATIC_STANDARD,
        "context_stride": 1,
        "closed_loop": False,
        "fuse_method": ContextFuseMethods.PYRAMID,
        "dim": 0,
        "freenoise": False,
        "causal_window_fix": False,
    } | settings
    return ContextWindowsManualNode.execute(model, **arguments).result[0]


def calls_of(model, conditionings, size=SIZE, **changes):
    """Latents, kinds and residuals (middle last) of every call of the UNet."""
    calls = []

    def record(apply_model, call):
        control = call["c"].get("control")
        found = None if control is None else [x.clone() for x in control["output"] + control["middle"]]
        calls.append((call["input"].clone(), list(call["cond_or_uncond"]), found))
        return apply_model(call["input"], call["timestep"], **call["c"])

    spied = model.clone()
    spied.set_model_unet_function_wrapper(record)
    narrow.sample(spied, *conditionings, size, **{"steps": 1} | changes)
    return calls


def in_frames(model, conditionings):
    """What the first step gives each (frame, kind) without windows: residuals, and the latent of each frame."""
    ((latents, kinds, found),) = calls_of(model, conditionings)
    by_frame = {
        (row % FRAMES, kinds[row // FRAMES]): None if found is None else [block[row] for block in found]
        for row in range(len(latents))
    }
    return by_frame, latents[:FRAMES]


def check(model, settings, conditionings, reference, factor=lambda frame, kind, block: block):
    """Every residual in every window is that of its frame without windows, times a factor. Returns the frames of each call."""
    expected, latents = in_frames(model, reference)
    told = []
    for given, kinds, found in calls_of(windowed(model, **settings), conditionings):
        per_chunk = len(given) // len(kinds)
        frames = [next(f for f in range(FRAMES) if torch.equal(row, latents[f])) for row in given]
        told.append(tuple(frames[:per_chunk]))
        for row, frame in enumerate(frames):
            kind = kinds[row // per_chunk]
            for block, whole in zip(found, expected[frame, kind], strict=True):
                wanted = factor(frame, kind, whole)
                assert float((block[row] - wanted).abs().max()) <= 1e-5 * float(whole.abs().max())
    assert {frame for frames in told for frame in frames} == set(range(FRAMES)) and len(told) > 1
    return told


KINDS_OF_WINDOWS = {
    "overlapping": {},
    "one frame before": {"causal_window_fix": True},
    "wrapping": {"context_schedule": ContextSchedules.UNIFORM_LOOPED, "context_stride": 2, "closed_loop": True},
    "batched": {"context_schedule": ContextSchedules.BATCHED},
    "retained": {"latent_retain_index_list": "0"},
}


@pytest.mark.parametrize("windows", KINDS_OF_WINDOWS)
def test_each_frame_keeps_the_residuals_of_its_own_hint(model, module, control, windows):
    """The reference are the stock nodes, which give frame k hint k where all frames are sampled at once."""
    image = narrow.picture(FRAMES, 64, 64)
    stock = narrow.stock_apply(*start(), narrow.make_stock(module), image)
    told = check(model, KINDS_OF_WINDOWS[windows], compose_controls(*start(), [layer_of(control, image)]), stock)
    assert any(frames != tuple(range(3)) for frames in told)


def test_policies_count_over_the_whole_batch(model, module, control):
    image = narrow.picture(2, 64, 64)
    for policy, order in (("repeat", [0, 0, 0, 1, 1, 1]), ("hold last", [0, 1, 1, 1, 1, 1]), ("cycle", [0, 1] * 3)):
        stock = narrow.stock_apply(*start(), narrow.make_stock(module), image[order])
        check(model, {}, compose_controls(*start(), [layer_of(control, image, batch=policy)]), stock)


def test_masks_and_strengths_stay_with_their_frames_too(model, module, control):
    image = narrow.picture(FRAMES, 64, 64)
    mask = torch.rand(FRAMES, 64, 64, generator=torch.Generator().manual_seed(7))
    strengths = (1.0, 0.2, 0.0, 0.7, 1.4, 0.5)
    layer = layer_of(control, image, 0.8, uncond_strength=0.5, mask=mask, schedule=ImageStrengths(strengths))

    def factor(frame, kind, block):
        part = adaptive_avg_pool2d(mask[None, frame : frame + 1], tuple(block.shape[-2:]))[0]
        return block * part * (0.8 * strengths[frame] * (1.0 if kind == 0 else 0.5))

    stock = narrow.stock_apply(*start(), narrow.make_stock(module), image)
    check(model, {"causal_window_fix": True}, compose_controls(*start(), [layer]), stock, factor)


def test_a_window_whose_frames_all_have_strength_zero_computes_nothing(model, module, control):
    image = narrow.picture(FRAMES, 64, 64)
    passes = []
    layer = layer_of(control, image, schedule=ImageStrengths((0.0, 0.0, 0.0, 1.0, 1.0, 1.0)))
    hook = module.middle_block.register_forward_hook(lambda _, given, __: passes.append(len(given[0])))
    calls = calls_of(windowed(model, context_overlap=0), compose_controls(*start(), [layer]))
    hook.remove()
    assert [found is None for _, _, found in calls] == [True, False]
    assert passes == [6]


def test_hints_are_embedded_once_however_often_windows_show_them(model, module, control):
    image = narrow.picture(FRAMES, 64, 64)
    embedded = []
    hook = module.input_hint_block.register_forward_hook(lambda _, given, __: embedded.append(len(given[0])))
    calls_of(windowed(model), compose_controls(*start(), [layer_of(control, image)]), steps=2)
    hook.remove()
    assert sum(embedded) == FRAMES


def test_one_hint_for_all_frames_samples_as_the_stock_nodes_do(model, module, control):
    """Several steps: schedules and range go by sigma, so windows, which ask at one sigma again and again, change nothing."""
    image = narrow.picture(1, 64, 64)
    stock = narrow.stock_apply(*start(), narrow.make_stock(module), image, 0.9, 0.0, 0.7)
    layer = layer_of(control, image, 0.9, 0.0, 0.7, schedule=ListSchedule((1.0,)))
    expected, found = (
        narrow.sample(windowed(model), *conds, SIZE, steps=3) for conds in (stock, compose_controls(*start(), [layer]))
    )
    assert narrow.relative(found, expected) <= 1e-5


def test_a_hint_per_frame_samples_as_windows_that_were_sampled_by_hand(model, module, control):
    """Windows that do not overlap are two runs of their own: the stock nodes on each, with the noise of the whole."""
    import comfy.sample

    image = narrow.picture(FRAMES, 64, 64)
    found = narrow.sample(
        windowed(model, context_overlap=0), *compose_controls(*start(), [layer_of(control, image)]), SIZE, steps=2
    )
    zeros = torch.zeros(FRAMES, 4, 8, 8)
    noise = comfy.sample.prepare_noise(zeros, 3)
    parts = []
    for frames in (slice(0, 3), slice(3, 6)):
        positive, negative = narrow.stock_apply(*start(), narrow.make_stock(module), image[frames])
        with torch.inference_mode():
            parts.append(
                comfy.sample.sample(
                    model, noise[frames], 2, 7.0, "euler", "normal", positive, negative, zeros[frames], seed=3
                )
            )
    assert narrow.relative(found, torch.cat(parts)) <= 1e-5


def test_more_hints_than_frames_are_refused_by_the_whole_batch(model, control):
    layer = layer_of(control, narrow.picture(FRAMES + 1, 64, 64))
    with pytest.raises(
        ControlError, match="there are 7 pictures for 6 latents, but at most one for each was expected; take 6 of them"
    ):
        narrow.sample(windowed(model), *compose_controls(*start(), [layer]), SIZE, steps=1)
