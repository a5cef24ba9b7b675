"""Small UNets of every base, through the host's own classes."""

from __future__ import annotations

from typing import Any

import comfy.ldm.modules.diffusionmodules.openaimodel
import torch
from torch import Tensor

from control_composer.tests import narrow

SD2 = narrow.SD1 | {"use_linear_in_transformer": True, "context_dim": 40, "num_heads": -1, "num_head_channels": 16}
CONFIGS = {"sd1": narrow.SD1, "sd2": SD2, "sdxl": narrow.SDXL | {"adm_in_channels": 48}}

# The least that has every kind of block.
SMALL = {
    "model_channels": 32,
    "channel_mult": [1, 1],
    "num_res_blocks": [1, 1],
    "transformer_depth": [0, 1],
    "transformer_depth_output": [0, 0, 1, 1],
}


def make_unet(kind: str, dtype: torch.dtype = torch.float32, operations: Any = None, **changes: Any) -> Any:
    """A frozen UNet; "demo" is the shipped one."""
    if kind == "demo":
        from safetensors.torch import load_file

        from control_composer.demo.unet import UNET_CONFIG
        from control_composer.demo.world import WEIGHTS

        unet = _unet(UNET_CONFIG, dtype, operations)
        unet.load_state_dict(load_file(WEIGHTS / "unet.safetensors"))
    else:
        unet = _unet(CONFIGS[kind] | {"out_channels": 4} | changes, dtype, operations)
        narrow.fill(unet, seed=0)
    return unet.eval().requires_grad_(False)


def _unet(config: dict[str, Any], dtype: torch.dtype, operations: Any) -> Any:
    module = comfy.ldm.modules.diffusionmodules.openaimodel
    return module.UNetModel(**config, dtype=dtype, operations=operations or module.ops)


def inputs(unet: Any, rows: int = 2, size: int = 8, hint_channels: int = 3, seed: int = 3) -> dict[str, Tensor]:
    """Random arguments of `controlled`; `size` in latent cells."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    width = next(t for name, t in unet.state_dict().items() if name.endswith("attn2.to_k.weight")).shape[1]
    made = {
        "x": random(rows, 4, size, size),
        "hint": torch.rand(rows, hint_channels, 8 * size, 8 * size, generator=generator),
        "timesteps": torch.tensor([10.0, 700.0, 400.0, 999.0])[:rows],
        "context": random(rows, 5, width),
    }
    if unet.num_classes is not None:
        made["y"] = random(rows, unet.label_emb[0][0].weight.shape[1])
    return made
