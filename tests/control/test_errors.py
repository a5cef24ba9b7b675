"""Input that cannot work, and the sentence that says so."""

import pytest

pytest.importorskip("comfy")

import torch

from control_composer.control import Control, ControlError, apply_control
from control_composer.tests import narrow

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def control():
    return narrow.make_ours(narrow.make_module("sd1"), "SD1")


def refusal(control, image=None, **settings):
    image = narrow.picture(1, 64, 64) if image is None else image
    with pytest.raises(ControlError) as error:
        apply_control(narrow.conditioning("sd1", 1), narrow.conditioning("sd1", 2), control, image, **settings)
    return str(error.value)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (
            narrow.picture(1, 64, 64, channels=4),
            "image of Apply Control has 4 channels, but test.safetensors reads hints of 3; remove the alpha channel, for example with "
            "Split Image with Alpha.",
        ),
        (
            narrow.picture(1, 64, 64, channels=1),
            "image of Apply Control has 1 channel, but test.safetensors reads hints of 3; turn it into a colour picture, for example with "
            "Convert Mask to Image.",
        ),
        (
            narrow.picture(1, 64, 64, channels=7),
            "image of Apply Control has 7 channels, but test.safetensors reads hints of 3; connect the hint that this control was trained for.",
        ),
        (
            narrow.picture(1, 1, 1),
            "image of Apply Control is 1×1 pixels, but a hint needs at least 8×8, one latent cell; connect the hint at the size of the picture.",
        ),
        (
            torch.full((1, 64, 64, 3), NAN),
            "image of Apply Control has pixels that are NaN or infinite, but numbers from 0 to 1 were expected by test.safetensors; "
            "check the node that makes the picture.",
        ),
        (
            torch.zeros(64, 64, 3),
            "image of Apply Control is a tensor of shape (64, 64, 3), but a batch of pictures (pictures, height, width, channels) was "
            "expected; connect an IMAGE output.",
        ),
        (
            torch.zeros(0, 64, 64, 3),
            "image of Apply Control is empty (0 × 64 × 64 × 3), but at least one picture was expected; check the node that makes it.",
        ),
        (
            "picture.png",
            "image of Apply Control is str, but a batch of pictures (pictures, height, width, channels) was expected; connect an IMAGE output.",
        ),
    ],
)
def test_pictures(control, image, words):
    assert refusal(control, image) == words


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("name", ["strength", "uncond_strength"])
def test_numbers_that_are_none(control, name, value):
    assert refusal(control, **{name: value}) == (
        f"{name} of test.safetensors is {value}, but a finite number was expected; type one, for example 1.0."
    )


@pytest.mark.parametrize(("start", "end"), [(0.7, 0.3), (-0.1, 1.0), (0.0, 1.1), (NAN, 1.0)])
def test_ranges_that_are_none(control, start, end):
    assert refusal(control, start_percent=start, end_percent=end) == (
        f"start_percent {start} and end_percent {end} of test.safetensors are no range: 0 ≤ start ≤ end ≤ 1 was expected; "
        "exchange or correct the two numbers."
    )


@pytest.mark.parametrize(("what", "found"), [(None, "empty"), ("control.pth", "str")])
def test_a_control_that_is_none(what, found):
    assert refusal(what) == (
        f"control_net of Apply Control is {found}, but a control was expected; connect a Load ControlNet node, and if it is connected, "
        "look at what it said about the file."
    )


def test_a_control_with_layers_takes_no_second_hint(control):
    positive, _ = apply_control(narrow.conditioning("sd1", 1), [], control, narrow.picture(1, 64, 64))
    bound = positive[0][1]["control"]
    assert refusal(bound) == (
        "control_net of Apply Control has its layers already, but one fresh from a Load node was expected; connect the Load node to it."
    )
    with pytest.raises(
        ControlError, match="has its layers already, but one fresh from a Load node was expected; connect"
    ):
        bound.set_cond_hint(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("apply", [apply_control, narrow.stock_apply])
@pytest.mark.parametrize(
    ("of_control", "of_model", "words"),
    [
        (
            "sdxl",
            "sd1",
            "test.safetensors is an SDXL control (10 connections, context 40, 32 to 128 channels, pooled vector 2816), but the model is "
            "NarrowSD1 (13 connections, context 24, 32 to 128 channels); use a control made for NarrowSD1, or a model of base SDXL.",
        ),
        (
            "sd1",
            "sdxl",
            "test.safetensors is an SD1 control (13 connections, context 24, 32 to 128 channels), but the model is NarrowSDXL "
            "(10 connections, context 40, 32 to 128 channels, pooled vector 2816); use a control made for NarrowSDXL, or a model of base SD1.",
        ),
    ],
)
def test_a_control_for_another_base_is_refused_before_sampling(apply, of_control, of_model, words):
    control = narrow.make_ours(narrow.make_module(of_control), of_control.upper())
    model = narrow.make_model(of_model)
    spy = narrow.Spy(model)
    conds = apply(
        narrow.conditioning(of_model, 1), narrow.conditioning(of_model, 2), control, narrow.picture(1, 64, 64)
    )
    with pytest.raises(ControlError) as error:
        narrow.sample(spy.model, *conds, (1, 8, 8))
    assert str(error.value) == words
    assert spy.calls == []


def test_same_layout_and_another_text_width_is_refused():
    control = narrow.make_ours(narrow.make_module("sd1", context_dim=48), "SD2")
    conds = apply_control(
        narrow.conditioning("sd1", 1), narrow.conditioning("sd1", 2), control, narrow.picture(1, 64, 64)
    )
    with pytest.raises(
        ControlError,
        match=r"SD2 control \(13 connections, context 48, .* the model is NarrowSD1 \(13 connections, context 24",
    ):
        narrow.sample(narrow.make_model("sd1"), *conds, (1, 8, 8))


def test_a_model_without_a_unet_is_refused(control):
    class Transformer:
        diffusion_model = torch.nn.Linear(1, 1)
        model_config = narrow.NarrowSD1

    bound = control.copy().set_cond_hint(torch.zeros(1, 3, 64, 64))
    with pytest.raises(
        ControlError, match=r"is an SD1 control, but the model is .*, which has no UNet; use a control made for"
    ):
        bound.pre_run(Transformer, lambda percent: percent)


def test_residuals_that_do_not_fit_stop_the_sampling(control):
    """The host would log a warning and draw the picture without the control."""
    from control_composer.residuals import ResidualShapeError

    conds = apply_control(
        narrow.conditioning("sd1", 1), narrow.conditioning("sd1", 2), control, narrow.picture(1, 64, 64)
    )
    hook = control.network.module.zero_convs[4].register_forward_hook(lambda _, __, out: out[..., :-1])
    try:
        with pytest.raises(
            ResidualShapeError,
            match=r"test.safetensors gave output 4 a residual of 2 × 64 × 4 × 3, but .* takes 2 × 64 × 4 × 4",
        ):
            narrow.sample(narrow.make_model("sd1"), *conds, (1, 8, 8))
    finally:
        hook.remove()


def test_a_control_outside_a_run_says_so(control):
    bound = control.copy().set_cond_hint(torch.zeros(1, 3, 64, 64))
    assert isinstance(bound, Control)
    with pytest.raises(
        ControlError, match="outside a sampling run, but the host prepares controls before it samples; sample with"
    ):
        bound.get_control(torch.zeros(2, 4, 8, 8), torch.ones(2), {}, 2, {})


def test_a_control_lora_on_several_devices():
    from control_composer.control.control_lora import LoraControl

    with pytest.raises(ControlError) as error:
        LoraControl({}, "lora.safetensors", "SD1").deepclone_multigpu(torch.device("cpu"))
    assert str(error.value) == (
        "lora.safetensors is a Control-LoRA, which is made of the sampled model on one device, but the batch is split over several and one was "
        "expected; remove the node that samples on several GPUs, or use a whole ControlNet."
    )
