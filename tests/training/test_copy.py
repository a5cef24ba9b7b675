"""The trainable copy beside the host's UNets."""

import pytest
import torch

pytest.importorskip("comfy")
from safetensors.torch import save_file

from control_composer.checkpoints.encoder import expected_shapes
from control_composer.checkpoints.load import load_checkpoint
from control_composer.tests.narrow import fill
from control_composer.training.copy import encoder_of, trainable_copy, zero_convolutions
from control_composer.training.errors import TrainingError
from control_composer.training.forward import controlled

from .bases import SMALL, inputs, make_unet

KINDS = ("demo", "sd1", "sd2", "sdxl")


def base_alone(unet, made):
    arguments = {name: tensor.to(unet.dtype) for name, tensor in made.items() if name in ("x", "context", "y")}
    return unet(timesteps=made["timesteps"], transformer_options={}, **arguments)


@pytest.mark.parametrize("form", ["copy", "lite"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_at_step_0_the_controlled_model_is_the_base_bit_for_bit(kind, form):
    unet = make_unet(kind)
    made = inputs(unet)
    control = trainable_copy(unet, form=form)
    assert torch.equal(controlled(unet, control, **made), base_alone(unet, made))
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in control.parameters())
    # The hint network is no constant: something is there to be learned from.
    assert torch.nn.Sequential(*list(control.input_hint_block)[:-1])(made["hint"]).std() > 1e-3


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@torch.no_grad()
def test_so_it_is_in_bfloat16(kind):
    unet = make_unet(kind, torch.bfloat16)
    made = inputs(unet)
    together = controlled(unet, trainable_copy(unet), **made)
    assert together.dtype == torch.bfloat16
    assert torch.equal(together, base_alone(unet, made))


@torch.no_grad()
def test_gaussian_convolutions_change_the_base_at_once_and_by_the_seed():
    unet = make_unet("sd1")
    made = inputs(unet)
    one, same, other = (trainable_copy(unet, start="gaussian", seed=seed) for seed in (0, 0, 1))
    changed = controlled(unet, one, **made)
    assert (changed - base_alone(unet, made)).abs().max() > 0.01
    assert torch.equal(changed, controlled(unet, same, **made))
    assert not torch.equal(changed, controlled(unet, other, **made))
    for layer in zero_convolutions(one):
        assert float(layer.weight.std()) == pytest.approx(layer.in_channels**-0.5, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_copy_has_the_weights_of_the_encoder_and_the_names_of_cldm(kind):
    unet = make_unet(kind)
    own, base = trainable_copy(unet).state_dict(), unet.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    assert shapes == expected_shapes(encoder_of(unet, 3))
    shared = own.keys() & base.keys()
    assert len(shared) == len([name for name in base if not name.startswith(("output_blocks.", "out."))])
    assert all(torch.equal(own[name], base[name]) for name in shared)


@pytest.mark.parametrize("hint_channels", [1, 3, 4, 6])
@torch.no_grad()
def test_hints_of_any_number_of_channels(hint_channels):
    unet = make_unet("sd1")
    control = trainable_copy(unet, hint_channels)
    made = inputs(unet, hint_channels=hint_channels)
    assert torch.equal(controlled(unet, control, **made), base_alone(unet, made))
    assert control.input_hint_block[0].in_channels == hint_channels


@torch.no_grad()
def test_the_saved_copy_loads_and_computes_the_same(tmp_path):
    unet = make_unet("sd1")
    control = trainable_copy(unet, hint_channels=4)
    fill(control, seed=7)
    save_file(control.state_dict(), tmp_path / "own.safetensors", metadata={"num_heads": "4"})
    loaded = load_checkpoint(tmp_path / "own.safetensors")
    assert loaded.match.hyperparameters == encoder_of(unet, 4)
    made = inputs(unet, hint_channels=4)
    ours, theirs = control(**made), loaded.built.module(**{k: v.to(loaded.built.dtype) for k, v in made.items()})
    assert len(ours["output"]) == len(theirs["output"]) == 12
    for place in ("output", "middle"):
        for one, other in zip(ours[place], theirs[place], strict=True):
            torch.testing.assert_close(one, other.float(), rtol=1e-5, atol=1e-5)


def test_gradients_of_a_zero_convolution_after_one_and_two_steps():
    """∂Z/∂W = I ≠ 0 and ∂Z/∂I = W = 0 at first, so only the zero convolutions learn in step 1, and everything does in step 2."""
    # Two levels: with four, the middle would have a single cell, whose attention to itself learns nothing.
    unet = make_unet("sd1", **SMALL)
    made = inputs(unet)
    control = trainable_copy(unet)
    optimiser = torch.optim.SGD(control.parameters(), lr=0.1)
    tied = {id(parameter) for layer in zero_convolutions(control) for parameter in layer.parameters()}
    locked = {name: tensor.clone() for name, tensor in unet.state_dict().items()}

    def gradients():
        optimiser.zero_grad()
        controlled(unet, control, **made).square().mean().backward()
        return {name: (id(p) in tied, float(p.grad.abs().max())) for name, p in control.named_parameters()}

    first = gradients()
    assert all(size > 0 for is_tied, size in first.values() if is_tied)
    assert all(size == 0 for is_tied, size in first.values() if not is_tied)
    optimiser.step()
    second = gradients()
    # E's last layer is a zero convolution too: what lies before it waits for one step more.
    waiting = [name for name, (_, size) in second.items() if size == 0]
    assert waiting and all(name.startswith("input_hint_block.") for name in waiting)
    assert second["input_hint_block.14.weight"][1] > 0
    optimiser.step()
    assert all(size > 0 for _, size in gradients().values())
    assert all(torch.equal(tensor, unet.state_dict()[name]) for name, tensor in locked.items())


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_gradient_checkpointing_computes_the_same(kind):
    unet = make_unet(kind)
    made = inputs(unet)
    control = trainable_copy(unet, start="gaussian")
    found = []
    for checkpointing in (False, True):
        control.gradient_checkpointing = checkpointing
        control.zero_grad()
        predicted = controlled(unet, control, **made, checkpointing=checkpointing)
        predicted.square().mean().backward()
        found.append((predicted.detach(), {name: p.grad.clone() for name, p in control.named_parameters()}))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_what_cannot_be_copied_is_refused():
    with pytest.raises(TrainingError, match="UNet is a Linear, but the UNet of SD1, SD2, SDXL or the demo world was"):
        trainable_copy(torch.nn.Linear(1, 1))
    inpainting = make_unet("sd1", in_channels=9)
    with pytest.raises(TrainingError, match=r"reads 9 channels, but the 4 of a latent were expected.*inpainting"):
        trainable_copy(inpainting)
    with pytest.raises(TrainingError, match="hints of 0 channels, but 1 to 1024 were expected; use 3 for pictures"):
        trainable_copy(make_unet("sd1"), hint_channels=0)
