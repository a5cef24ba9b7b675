"""Stable Diffusion models and ControlNets of real or narrow width with random weights, built through the host's own classes.

Import after `comfy.cli_args.args` is as it should be: the host picks its device then.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import torch
from torch import Tensor

# The UNet configurations are those that comfy.model_detection finds for these models.
COMMON: dict[str, Any] = {
    "use_checkpoint": False,
    "image_size": 32,
    "in_channels": 4,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}
SD15 = COMMON | {
    "adm_in_channels": None,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "channel_mult": [1, 2, 4, 4],
    "use_linear_in_transformer": False,
    "context_dim": 768,
    "num_heads": 8,
}
SDXL = COMMON | {
    "num_classes": "sequential",
    "adm_in_channels": 2816,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "channel_mult": [1, 2, 4],
    "use_linear_in_transformer": True,
    "context_dim": 2048,
    "num_head_channels": 64,
}
NARROW = SD15 | {"model_channels": 32, "context_dim": 24}
TOKENS = 77


@dataclass(frozen=True)
class Width:
    """A UNet configuration and the host's class of models that have it."""

    unet: dict[str, Any]
    kind: type

    def model(self, dtype: torch.dtype, device: str | None = None) -> Any:
        """The host's BaseModel, weights as they come from memory."""
        config = self.kind(copy.deepcopy(self.unet) | {"out_channels": 4})
        config.set_inference_dtype(dtype, None)
        return config.get_model({}, "", device=device)

    def encoder(self, dtype: torch.dtype, device: str | None = None) -> Any:
        """The ControlNet module of this model, weights as they come from memory."""
        config = copy.deepcopy(self.unet)
        operations = comfy.ops.disable_weight_init
        module = comfy.cldm.cldm.ControlNet(
            hint_channels=3, dtype=dtype, device=device, operations=operations, **config
        )
        return module.eval()

    def parameter_counts(self) -> tuple[int, int]:
        """Of the UNet and of one ControlNet; nothing is allocated."""
        parts = self.model(torch.float32, "meta").diffusion_model, self.encoder(torch.float32, "meta")
        unet, encoder = (sum(parameter.numel() for parameter in part.parameters()) for part in parts)
        return unet, encoder

    def conditioning(self, seed: int) -> list[list[Any]]:
        """A random CONDITIONING of the width."""
        generator = torch.Generator().manual_seed(seed)
        values: dict[str, Any] = {}
        if self.unet["adm_in_channels"] is not None:
            values["pooled_output"] = torch.randn(1, 1280, generator=generator)
        return [[torch.randn(1, TOKENS, self.unet["context_dim"], generator=generator), values]]


WIDTHS = {
    "sd15": Width(SD15, comfy.supported_models.SD15),
    "sdxl": Width(SDXL, comfy.supported_models.SDXL),
    "narrow": Width(NARROW, comfy.supported_models.SD15),
}


class Networks:
    """The model and the ControlNets of one width and dtype, each made when it is first asked for."""

    def __init__(self, width: Width, dtype: torch.dtype) -> None:
        self.width = width
        self.dtype = dtype
        self._model: Any = None
        self._controls: list[Any] = []

    @property
    def model(self) -> Any:
        """The MODEL of the graph."""
        if self._model is None:
            device = comfy.model_management.get_torch_device()
            model = self.width.model(self.dtype)
            fill(model.diffusion_model, 0, device)
            self._model = comfy.model_patcher.CoreModelPatcher(
                model, load_device=device, offload_device=comfy.model_management.unet_offload_device()
            )
        return self._model

    def control_net(self, index: int = 0) -> Any:
        """The CONTROL_NET that the stock loader makes of the network with this number."""
        while len(self._controls) <= index:
            device = comfy.model_management.get_torch_device()
            module = self.width.encoder(self.dtype)
            fill(module, 1 + len(self._controls), device)
            self._controls.append(comfy.controlnet.ControlNet(module, load_device=device))
        return self._controls[index]


@torch.no_grad()
def fill(module: torch.nn.Module, seed: int, on: torch.device | None = None) -> None:
    """Seeded weights everywhere, zero convolutions included, that keep activations near 1.

    They are drawn where they lie, or on the device `on`: billions of them take minutes on a CPU. Each device draws others.
    """
    generator = torch.Generator(on or "cpu").manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            mean, deviation = 0.0, parameter[0].numel() ** -0.5
        else:
            mean, deviation = 1.0 if name.endswith("weight") else 0.0, 0.1
        drawn = (
            parameter if parameter.device == generator.device else torch.empty_like(parameter, device=generator.device)
        )
        drawn.normal_(mean, deviation, generator=generator)
        if drawn is not parameter:
            parameter.copy_(drawn)


def picture(pixels: int, seed: int) -> Tensor:
    """A random IMAGE (1, pixels, pixels, 3) in 0..1."""
    return torch.rand(1, pixels, pixels, 3, generator=torch.Generator().manual_seed(seed))
