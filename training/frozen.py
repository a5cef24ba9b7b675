"""The locked base of a training: the connected model's UNet, in layers that gradients pass (host side)."""

from __future__ import annotations

import hashlib
from typing import Any

import comfy.lora
import comfy.model_management
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from .layers import TrainingOperations

PREFIX = "diffusion_model."
SAMPLES = 16
"""Numbers of each weight by which a base is known again."""


@torch.inference_mode(False)
@torch.no_grad()
def frozen_unet(model: Any, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """A copy of the UNet of a ModelPatcher with its LoRAs, in `dtype` on `device`; the model itself is left as it is.

    A copy, because the host may hold the UNet's weights in parts on several devices, in half precision, or as tensors of inference, which
    gradients cannot pass. `model` has a UNet that `copy.encoder_of` accepts.
    """
    config = model.model.model_config.unet_config | {"dtype": dtype}
    unet: nn.Module = UNetModel(**config, operations=TrainingOperations, device=torch.device("meta"))
    unet.to_empty(device=device)
    own = unet.state_dict()
    for name, patches in model.get_key_patches(PREFIX).items():
        own[name.removeprefix(PREFIX)].copy_(_patched(name, patches))
    return unet.eval().requires_grad_(False)


# The host may hold its weights as tensors of inference, of which there are no views outside of it.
@torch.inference_mode()
def base_fingerprint(model: Any) -> str:
    """SHA-256, in hexadecimal digits, of some numbers of every weight with its LoRAs: the same wherever the model is and whatever it computes in."""
    told = hashlib.sha256()
    for name, patches in sorted(model.get_key_patches(PREFIX).items()):
        weight = patches[0][0]
        plain = len(patches) == 1 and type(weight) in (Tensor, nn.Parameter)
        values = (weight if plain else _patched(name, patches)).detach().flatten()
        step = max(1, len(values) // SAMPLES)
        told.update(f"{name} {tuple(weight.shape)}".encode())
        told.update(values[::step][:SAMPLES].to("cpu", torch.float32, copy=True).numpy().tobytes())
    return told.hexdigest()


def _patched(name: str, patches: list[Any]) -> Tensor:
    """`patches` as the host lists them: the weight with its conversion, then what LoRAs do to it. Always on the CPU, so always the same."""
    weight, convert = patches[0]
    copied = comfy.model_management.cast_to_device(weight, torch.device("cpu"), torch.float32, copy=True)
    converted = convert(copied, inplace=True)
    patched: Tensor = comfy.lora.calculate_weight(patches[1:], converted, name) if patches[1:] else converted
    return patched


def moved(unet: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The same UNet, in which `controlled` computes in `dtype`."""
    unet.to(device, dtype)
    unet.dtype = dtype
    return unet
