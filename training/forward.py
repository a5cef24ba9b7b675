"""The locked UNet with a control beside it (host side)."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import forward_timestep_embed, timestep_embedding
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import options


def controlled(
    unet: Any,
    control: nn.Module,
    x: Tensor,
    hint: Tensor,
    timesteps: Tensor,
    context: Tensor,
    y: Tensor | None = None,
    *,
    checkpointing: bool = False,
) -> Tensor:
    """The UNet's prediction (B, 4, h, w) in its dtype with the control's residuals added (eq. 2).

    `checkpointing`: the decoder's blocks are computed anew in the backward pass in place of kept; the control does so by itself.
    """
    residuals = control(x, hint, timesteps, context, y)
    dtype = unet.dtype
    x, context = x.to(dtype), context.to(dtype)
    y = None if y is None else y.to(dtype)
    if checkpointing and torch.is_grad_enabled():
        return _checkpointed(unet, residuals, x, timesteps, context, y)
    # The host takes residuals out of the lists, and writes into the dictionary of options.
    given = {place: list(values) for place, values in residuals.items()}
    predicted: Tensor = unet(x, timesteps, context, y, given, transformer_options=options())
    return predicted


def _checkpointed(
    unet: Any, residuals: dict[str, list[Tensor]], x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None
) -> Tensor:
    """The host's UNetModel._forward, with the decoder's blocks one by one."""

    chosen = options()

    def block(module: Any, h: Tensor, shape: torch.Size | None) -> Tensor:
        out: Tensor = forward_timestep_embed(module, h, emb, context, chosen.copy(), shape)
        return out

    def decoded(module: Any, h: Tensor, skip: Tensor, residual: Tensor, shape: torch.Size | None) -> Tensor:
        return block(module, torch.cat([h, skip + residual.to(skip.dtype)], dim=1), shape)

    with torch.no_grad():
        emb = unet.time_embed(timestep_embedding(timesteps, unet.model_channels).to(x.dtype))
        if unet.num_classes is not None:
            emb = emb + unet.label_emb(y)
        skips, h = [], x
        for module in unet.input_blocks:
            h = block(module, h, None)
            skips.append(h)
        if unet.middle_block is not None:
            h = block(unet.middle_block, h, None)
    h = h + residuals["middle"][-1].to(h.dtype)
    added = list(residuals["output"])
    for module in unet.output_blocks:
        skip, residual = skips.pop(), added.pop()
        h = checkpoint(decoded, module, h, skip, residual, skips[-1].shape if skips else None, use_reentrant=False)
    predicted: Tensor = unet.out(h.to(x.dtype))
    return predicted
