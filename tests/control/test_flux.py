"""A Flux ControlNet with its transformer as a layer; the host's classes with random weights, and the stock nodes as the reference."""

import copy

import pytest

pytest.importorskip("comfy")

import comfy.controlnet
import comfy.ldm.flux.controlnet
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import torch
from torch.nn.functional import adaptive_avg_pool2d, pad

from control_composer.control import compose_controls, layer_of
from control_composer.residuals import ListedWeights, ListSchedule
from control_composer.tests import narrow
from control_composer.tests.control.foreign_layers import CPU, by_row, reached

FLUX = {
    "image_model": "flux",
    "guidance_embed": False,
    "in_channels": 16,
    "vec_in_dim": 32,
    "context_in_dim": 24,
    "hidden_size": 64,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 3,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "txt_ids_dims": [],
}
FLUX_SIZE = (2, 8, 12)


class NarrowFlux(comfy.supported_models.Flux):
    unet_config = FLUX | {"out_channels": 16}


@pytest.fixture(scope="module")
def flux():
    config = NarrowFlux(copy.deepcopy(NarrowFlux.unet_config))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    narrow.fill(model.diffusion_model, 1)
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def flux_control():
    """As the host builds XLabs' ControlNet for Flux: one residual of tokens per transformer block, repeated to 19 and 38."""
    network = comfy.ldm.flux.controlnet.ControlNetFlux(
        dtype=torch.float32, operations=comfy.ops.disable_weight_init, **FLUX, out_channels=16
    )
    narrow.fill(network, 5)
    return comfy.controlnet.ControlNet(network, load_device=CPU, extra_conds=["y", "guidance"])


def flux_start():
    def conditioning(seed):
        generator = torch.Generator().manual_seed(seed)
        pooled = torch.randn(1, 32, generator=generator)
        return [[torch.randn(1, 7, 24, generator=generator), {"pooled_output": pooled, "guidance": None}]]

    return conditioning(1), conditioning(2)


def test_a_flux_control_equals_the_stock_nodes(flux):
    image, control = narrow.picture(2, 64, 96), flux_control()
    expected = narrow.stock_apply(*flux_start(), control, image, 0.7, 0.0, 0.8)
    found = compose_controls(*flux_start(), [layer_of(control, image, 0.7, 0.0, 0.8)])
    expected, found, plain = (
        narrow.sample(flux, *conds, FLUX_SIZE, steps=3) for conds in (expected, found, flux_start())
    )
    assert narrow.relative(found, expected) <= 1e-5
    assert narrow.relative(plain, expected) > 1e-3


def test_the_tokens_of_a_flux_control_are_weighted_masked_scheduled_and_balanced(flux):
    image, control = narrow.picture(1, 64, 96), flux_control()
    mask = torch.rand(1, 64, 96, generator=torch.Generator().manual_seed(6))
    weights = tuple(0.5 + 0.01 * index for index in range(57))
    layer = layer_of(
        control,
        image,
        0.7,
        weights=ListedWeights(weights),
        mask=mask,
        schedule=ListSchedule((0.5,)),
        uncond_strength=0.3,
    )
    (flat,) = reached(flux, narrow.stock_apply(*flux_start(), control, image), FLUX_SIZE)
    (found,) = reached(flux, compose_controls(*flux_start(), [layer]), FLUX_SIZE)
    tokens = adaptive_avg_pool2d(mask.unsqueeze(1), (4, 6)).flatten().view(1, 24, 1)  # 2 × 2 cells each
    factor = 0.7 * 0.5 * tokens * by_row(found.kinds, (1.0, 1.0), 0.3).view(-1, 1, 1)
    position = iter(weights)  # transformers count from the beginning: input, then output
    for place, count in (("input", 19), ("output", 38)):
        assert len(found.control[place]) == len(flat.control[place]) == count
        for block, whole in zip(found.control[place], flat.control[place], strict=True):
            assert block.shape == whole.shape == (4, 24, 64)
            assert narrow.relative(block, whole * factor * next(position)) <= 1e-5


def test_a_flux_control_on_conditional_rows_alone_with_the_chain_before_it(flux):
    image, first, second = narrow.picture(2, 64, 96), flux_control(), flux_control()
    rows = []
    hook = second.control_model.img_in.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    before = narrow.stock_apply(*flux_start(), first, image, 0.5)
    (alone,) = reached(flux, before, FLUX_SIZE)
    (both,) = reached(flux, narrow.stock_apply(*before, second, image, 0.8), FLUX_SIZE)
    layer = layer_of(second, image, 0.8, uncond_strength=0.0)
    (found,) = reached(flux, compose_controls(*before, [layer]), FLUX_SIZE)
    hook.remove()
    assert rows == [4, 2]
    conditional = by_row(found.kinds, (1.0, 1.0), 0.0).view(-1, 1, 1)
    for place in ("input", "output"):
        for block, a, b in zip(found.control[place], alone.control[place], both.control[place], strict=True):
            assert narrow.relative(block, a + (b - a) * conditional) <= 1e-5


def test_a_mask_on_a_flux_control_of_an_odd_size(flux):
    """The host pads the latent: the last tokens cover cells that are half outside, and have the mean of those inside."""
    image, control = narrow.picture(1, 72, 88), flux_control()
    control.control_model.input_hint_block[-1].register_forward_hook(lambda _, __, out: pad(out, (0, 1, 0, 1)))
    mask = torch.zeros(1, 72, 88)
    mask[:, 64:], mask[:, :, 80:] = 1.0, 1.0
    (found,) = reached(flux, compose_controls(*flux_start(), [layer_of(control, image, mask=mask)]), (1, 9, 11))
    kept = found.control["input"][0].abs().sum((0, 2)).view(5, 6) > 0
    assert kept[4].all() and kept[:, 5].all() and not kept[:4, :5].any()
