"""Narrow random Stable Diffusion models and ControlNets, built through ComfyUI's own classes, for its real sampler on a CPU.

Import as `control_composer.tests.narrow`, after `pytest.importorskip("comfy")`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import torch
from torch import Tensor

COMMON = {
    "use_checkpoint": False,
    "image_size": 32,
    "in_channels": 4,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}

SD1 = COMMON | {
    "adm_in_channels": None,
    "model_channels": 32,
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "channel_mult": [1, 2, 4, 4],
    "use_linear_in_transformer": False,
    "context_dim": 24,
    "num_heads": 4,
}

SDXL = COMMON | {
    "num_classes": "sequential",
    "adm_in_channels": 2816,  # the host computes this vector itself, at its real width
    "model_channels": 32,
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    "transformer_depth_middle": 2,
    "channel_mult": [1, 2, 4],
    "use_linear_in_transformer": True,
    "context_dim": 40,
    "num_head_channels": 32,
}


class NarrowSD1(comfy.supported_models.SD15):
    unet_config: ClassVar = SD1
    unet_extra_config: ClassVar = {}


class NarrowSDXL(comfy.supported_models.SDXL):
    unet_config: ClassVar = SDXL
    unet_extra_config: ClassVar = {}


CONFIGS = {"sd1": NarrowSD1, "sdxl": NarrowSDXL}


def fill(module: torch.nn.Module, seed: int) -> None:
    """Seeded weights everywhere, zero convolutions included, that keep activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                noise = noise / parameter[0].numel() ** 0.5
            else:
                noise = 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)
            parameter.copy_(noise)


def make_model(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A ModelPatcher that ComfyUI's samplers accept."""
    config = CONFIGS[kind](copy.deepcopy(CONFIGS[kind].unet_config) | {"out_channels": 4})
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "")
    fill(model.diffusion_model, seed)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


def make_module(
    kind: str,
    seed: int = 1,
    *,
    hint_channels: int = 3,
    dtype: torch.dtype = torch.float32,
    operations: Any = comfy.ops.disable_weight_init,
    **changes: Any,
) -> Any:
    """A `comfy.cldm.cldm.ControlNet` for the model of the same kind."""
    config = copy.deepcopy(CONFIGS[kind].unet_config) | changes
    module = comfy.cldm.cldm.ControlNet(hint_channels=hint_channels, dtype=dtype, operations=operations, **config)
    fill(module, seed)
    return module.eval()


def make_stock(module: Any, **arguments: Any) -> Any:
    """The CONTROL_NET that ComfyUI's loader makes of such a module."""
    return comfy.controlnet.ControlNet(module, load_device=comfy.model_management.get_torch_device(), **arguments)


def make_ours(module: Any, base: str) -> Any:
    """The CONTROL_NET that our loader makes of it."""
    from control_composer.control import Control, EncoderNetwork

    return Control.unbound(EncoderNetwork.from_module(module, name="test.safetensors", base=base))


def stock_apply(
    positive: Any,
    negative: Any,
    control: Any,
    image: Tensor,
    strength: float = 1.0,
    start: float = 0.0,
    end: float = 1.0,
) -> Any:
    """ComfyUI's ControlNetApplyAdvanced."""
    import nodes  # ComfyUI's

    return nodes.ControlNetApplyAdvanced().apply_controlnet(positive, negative, control, image, strength, start, end)


def conditioning(kind: str, seed: int, tokens: int = 7) -> list[list[Any]]:
    """Random CONDITIONING of the kind's widths."""
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Any] = {}
    if kind == "sdxl":
        values["pooled_output"] = torch.randn(1, 1280, generator=generator)
    return [[torch.randn(1, tokens, CONFIGS[kind].unet_config["context_dim"], generator=generator), values]]


def picture(batch: int, height: int, width: int, seed: int = 5, channels: int = 3) -> Tensor:
    """Random IMAGE (batch, height, width, channels) in 0..1."""
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(seed))


def sample(model: Any, positive: Any, negative: Any, size: tuple[int, int, int], **changes: Any) -> Tensor:
    """Latents of the host's KSampler: `size` is batch, height and width in latent cells."""
    import nodes  # ComfyUI's

    settings = {
        "seed": 3,
        "steps": 8,
        "cfg": 7.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    } | changes
    batch, height, width = size
    latent = {"samples": torch.zeros(batch, 4, height, width)}
    with torch.inference_mode():
        (out,) = nodes.common_ksampler(model, positive=positive, negative=negative, latent=latent, **settings)
    samples: Tensor = out["samples"]
    return samples


@dataclass
class Call:
    """What one call of the UNet received."""

    control: dict[str, list[Tensor | None]] | None
    kinds: list[int]


class Spy:
    """Records what reaches the UNet, through the host's own hook for wrapping it."""

    def __init__(self, model: Any) -> None:
        self.calls: list[Call] = []
        self.model = model.clone()
        self.model.set_model_unet_function_wrapper(self._record)

    def _record(self, apply_model: Any, call: dict[str, Any]) -> Tensor:
        control = call["c"].get("control")
        kept = control and {place: [x if x is None else x.clone() for x in rows] for place, rows in control.items()}
        self.calls.append(Call(kept, list(call["cond_or_uncond"])))
        out: Tensor = apply_model(call["input"], call["timestep"], **call["c"])
        return out


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest value of `b`."""
    return float((a - b).abs().max() / b.abs().max())
