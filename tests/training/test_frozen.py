"""The locked copy of a model's UNet."""

import pytest
import torch

pytest.importorskip("comfy")
import comfy.model_patcher

from control_composer.tests import narrow
from control_composer.training.copy import trainable_copy
from control_composer.training.forward import controlled
from control_composer.training.frozen import PREFIX, base_fingerprint, frozen_unet, moved

from .bases import SMALL, inputs

CPU = torch.device("cpu")


CHANGES = {"sd1": SMALL, "sdxl": SMALL | {"transformer_depth_middle": 1}}


def make(kind="sd1", dtype=torch.float32, seed=0):
    """As the host loads it: under inference mode, and cast by hand where it is held in half precision."""

    class Narrow(narrow.CONFIGS[kind]):
        unet_config = narrow.CONFIGS[kind].unet_config | CHANGES[kind] | {"out_channels": 4}

    with torch.inference_mode():
        config = Narrow(dict(Narrow.unet_config))
        config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
        model = config.get_model({}, "")
        narrow.fill(model.diffusion_model, seed)
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def patched(patcher, name, value):
    clone = patcher.clone()
    weight = patcher.model.diffusion_model.state_dict()[name]
    clone.add_patches({PREFIX + name: ("diff", (torch.full(weight.shape, value),))}, 1.0)
    return clone


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_it_is_the_models_unet_and_gradients_pass_it(kind):
    patcher = make(kind)
    own = patcher.model.diffusion_model
    with torch.inference_mode(), torch.inference_mode(False), torch.enable_grad():
        unet = frozen_unet(patcher, torch.float32, CPU)
        control = trainable_copy(unet, start="gaussian")
        given = inputs(unet)
        predicted = controlled(unet, control, **given)
        predicted.square().mean().backward()
    assert all(parameter.grad is not None for parameter in control.zero_convs.parameters())
    assert not any(parameter.requires_grad or parameter.is_inference() for parameter in unet.parameters())
    with torch.inference_mode():
        rest = {name: given[name] for name in ("context", "y") if name in given}
        alone = unet(given["x"], given["timesteps"], transformer_options={}, **rest)
        assert torch.equal(alone, own(given["x"], given["timesteps"], transformer_options={}, **rest))
    for name, weight in own.state_dict().items():
        assert torch.equal(weight, unet.state_dict()[name]) and weight.data_ptr() != unet.state_dict()[name].data_ptr()


def test_half_precision_is_exact_in_full_and_moves_to_any():
    patcher = make(dtype=torch.float16)
    with torch.inference_mode(False):
        unet = frozen_unet(patcher, torch.float32, CPU)
        for name, weight in patcher.model.diffusion_model.state_dict().items():
            assert torch.equal(unet.state_dict()[name], weight.float())
        half = moved(unet, torch.bfloat16, CPU)
        assert {weight.dtype for weight in half.state_dict().values()} == {torch.bfloat16}
        given = inputs(half)
        assert controlled(half, trainable_copy(half), **given).dtype == torch.bfloat16


def test_loras_are_in_it_and_the_model_stays():
    name = "input_blocks.1.0.in_layers.2.weight"
    patcher = make()
    before = patcher.model.diffusion_model.state_dict()[name].clone()
    unet = frozen_unet(patched(patcher, name, 0.5), torch.float32, CPU)
    assert torch.allclose(unet.state_dict()[name], before + 0.5)
    assert torch.equal(patcher.model.diffusion_model.state_dict()[name], before)


def test_a_base_is_known_again_wherever_and_however_it_is_held():
    patcher = make()
    known = base_fingerprint(patcher)
    assert known == base_fingerprint(make()) == base_fingerprint(patcher.clone())
    assert len(known) == 64
    others = [make(seed=1), patched(patcher, "out.2.bias", 0.5), make("sdxl")]
    assert len({known, *map(base_fingerprint, others)}) == 4
    # Numbers that half precision can hold are the same numbers in full.
    half, full = make(dtype=torch.float16), make(dtype=torch.float16)
    with torch.inference_mode():
        full.model.diffusion_model.float()
    assert base_fingerprint(half) == base_fingerprint(full)
