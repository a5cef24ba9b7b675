"""Pictures of a control that is being trained: DDIM with guidance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .batch import EmptyPrompt
from .forward import controlled
from .objective import Schedule


@torch.no_grad()
def sample(
    unet: Any,
    control: nn.Module | None,
    schedule: Schedule,
    noise: Tensor,
    hint: Tensor,
    context: Tensor,
    empty: EmptyPrompt,
    y: Tensor | None = None,
    *,
    steps: int = 20,
    guidance: float = 4.0,
) -> Tensor:
    """Latents (B, 4, h, w) float32 of pure noise (B, 4, h, w), without any further noise (DDIM, arXiv 2010.02502, eta 0).

    hint (B, C, 8h, 8w) in 0..1, context (B, tokens, width), y (B, width) or None, all on the UNet's device. The control, None for the base
    alone, steers both branches; `guidance` is β of arXiv 2302.05543, 3.4, and 1 leaves out the one with the empty prompt.
    """
    alphas = schedule.alphas_cumprod.to(noise.device)
    times = torch.linspace(len(schedule) - 1, 0, steps).round().long().tolist()
    branches = [(context, y)]
    if guidance != 1:
        branches.append(_without_text(empty, context, y))
    x = noise.float()
    for time, after in zip(times, [*times[1:], None], strict=True):
        at = torch.full((len(x),), float(time), device=x.device)
        said = [_predicted(unet, control, x, hint, at, *branch).float() for branch in branches]
        predicted = said[0] if len(said) == 1 else said[1] + guidance * (said[0] - said[1])
        alpha = alphas[time]
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        if schedule.prediction == "v":
            latent, eps = signal * x - spread * predicted, signal * predicted + spread * x
        else:
            latent, eps = (x - spread * predicted) / signal, predicted
        then = torch.ones_like(alpha) if after is None else alphas[after]
        x = then.sqrt() * latent + (1 - then).sqrt() * eps
    return x


def _without_text(empty: EmptyPrompt, context: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
    blank = empty.context.to(context).expand(len(context), -1, -1)
    if y is None or empty.pooled is None:
        return blank, y
    pooled = empty.pooled.to(y).expand(len(y), -1)
    return blank, torch.cat([pooled, y[:, pooled.shape[1] :]], dim=1)


def _predicted(
    unet: Any, control: nn.Module | None, x: Tensor, hint: Tensor, at: Tensor, context: Tensor, y: Tensor | None
) -> Tensor:
    if control is not None:
        return controlled(unet, control, x, hint, at, context, y)
    dtype = unet.dtype
    y = None if y is None else y.to(dtype)
    predicted: Tensor = unet(x.to(dtype), at, context.to(dtype), y, None, transformer_options={})
    return predicted
