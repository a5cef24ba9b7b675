"""A file of differences plus the connected model's weights, as they are with its LoRAs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_management
import torch
from torch import Tensor

from .errors import BaseMismatchError

PREFIX = "diffusion_model."


def add_model(path: Path, tensors: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The tensors of the file, each plus the weight of that name in the model (`comfy.model_patcher.ModelPatcher`), in the file's dtypes.

    Neither the file's tensors nor the model's are changed, and the model need not be loaded. Raises BaseMismatchError.
    """
    patches = model.get_key_patches(PREFIX)
    return {
        name: tensor if PREFIX + name not in patches else added(path, name, tensor, patches[PREFIX + name])
        for name, tensor in tensors.items()
    }


def added(path: Path, name: str, difference: Tensor, patches: list[Any]) -> Tensor:
    """One sum; `patches` as the host lists them: the weight with its conversion, then what LoRAs do to it."""
    weight, convert = patches[0]
    if tuple(weight.shape) != tuple(difference.shape):
        raise BaseMismatchError(
            path,
            found=f"adds {list(difference.shape)} to the weight '{name}'",
            expected=f"that of the connected model is {list(weight.shape)}",
            remedy="connect a model that it was made for, or choose a control made for the connected one",
        )
    copied = comfy.model_management.cast_to_device(weight, torch.device("cpu"), torch.float32, copy=True)
    patched = comfy.lora.calculate_weight(patches[1:], convert(copied, inplace=True), PREFIX + name)
    summed: Tensor = (patched + difference.float()).to(difference.dtype)
    return summed
