"""A case: one file of a family as the Load node loads it, and a narrow model that it fits."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.model_patcher
import safetensors.torch
import torch

from control_composer.control import Control, Layer, compose_controls, layer_of
from control_composer.tests import narrow

SIZE = (2, 8, 16)
CPU = torch.device("cpu")
IMAGE = narrow.picture(2, 64, 128)


@dataclass
class Case:
    """One family: our control and, where the stock loader knows the family, the stock one from the same file, and a narrow model that they fit.

    `settings` are those that its layers need, for example a VAE.
    """

    kind: str
    model: Any
    ours: Control
    stock: Any
    description: str
    settings: dict[str, Any] = field(default_factory=dict)
    hint_for_each_latent: bool = True
    """Whether a latent's picture acts on that latent alone."""

    def start(self) -> Any:
        return narrow.conditioning(self.kind, 10), narrow.conditioning(self.kind, 11)

    def layer(self, image: torch.Tensor = IMAGE, **settings: Any) -> Layer:
        return layer_of(self.ours, image, **self.settings | settings)

    def compose(self, **settings: Any) -> Any:
        return compose_controls(*self.start(), [self.layer(**settings)])


def save(folder: Path, tensors: dict[str, torch.Tensor], name: str, metadata: dict[str, str] | None = None) -> Path:
    path = folder / name
    safetensors.torch.save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata)
    return path


def made(config_class: Any, seed: int = 0) -> Any:
    """A ModelPatcher with random weights."""
    config = config_class(copy.deepcopy(config_class.unet_config) | {"out_channels": 4})
    config.set_inference_dtype(torch.float32, None)
    inside = config.get_model({}, "")
    narrow.fill(inside.diffusion_model, seed)
    return comfy.model_patcher.ModelPatcher(inside, load_device=CPU, offload_device=CPU)
