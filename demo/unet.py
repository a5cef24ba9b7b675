"""The demo world's UNet: Stable Diffusion's topology, 64 channels wide, in the host's classes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..training.layers import TrainingOperations
from .words import WIDTH as CONTEXT_WIDTH

CHANNELS = 64
HEAD_WIDTH = 64
METADATA = {"num_head_channels": str(HEAD_WIDTH)}  # shapes cannot tell it

# 12 encoder blocks, middle, 12 decoder blocks on 4 levels (16, 8, 4 and 2 cells for a picture of 128); attention on 8 and in the middle.
CONFIG: dict[str, Any] = {
    "image_size": 16,
    "in_channels": 4,
    "model_channels": CHANNELS,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 1, 1, 1],
    "transformer_depth": [0, 0, 1, 1, 0, 0, 0, 0],
    "transformer_depth_middle": 1,
    "num_heads": -1,
    "num_head_channels": HEAD_WIDTH,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "context_dim": CONTEXT_WIDTH,
    "adm_in_channels": None,
    "legacy": False,
}
UNET_CONFIG = {
    **CONFIG,
    "out_channels": 4,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0],
    "use_temporal_attention": False,
}


def trainable_unet() -> nn.Module:
    """A fresh UNet; its last convolution starts at zero, as in Stable Diffusion."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    unet: nn.Module = UNetModel(**UNET_CONFIG, dtype=torch.float32, operations=TrainingOperations)
    for parameter in unet.out[-1].parameters():  # type: ignore[index, union-attr]
        nn.init.zeros_(parameter)
    return unet


def host_model(state_dict: dict[str, Tensor], preview: Tensor) -> Any:
    """The UNet as the host's MODEL: a ModelPatcher that the stock KSampler runs (v-prediction).

    `preview` (5, 3) holds the RGB of each latent channel and, last, of an empty latent.
    """
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    class DemoLatents(comfy.latent_formats.LatentFormat):
        scale_factor = 1.0
        latent_rgb_factors = preview[:-1].tolist()
        latent_rgb_factors_bias = preview[-1].tolist()

    class DemoConfig(comfy.supported_models.SD15):
        unet_config = UNET_CONFIG
        unet_extra_config: ClassVar = {"num_heads": -1, "num_head_channels": HEAD_WIDTH}
        latent_format = DemoLatents

        def model_type(self, state_dict: dict[str, Tensor], prefix: str = "") -> Any:
            return comfy.model_base.ModelType.V_PREDICTION

    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    dtype = comfy.model_management.unet_dtype(
        device=load_device,
        model_params=sum(tensor.numel() for tensor in state_dict.values()),
        supported_dtypes=DemoConfig.supported_inference_dtypes,
    )
    config = DemoConfig(UNET_CONFIG)
    config.set_inference_dtype(dtype, comfy.model_management.unet_manual_cast(dtype, load_device))
    model = config.get_model(state_dict, "", device=offload_device)
    model.diffusion_model.load_state_dict(state_dict)
    return comfy.model_patcher.CoreModelPatcher(model, load_device=load_device, offload_device=offload_device)
