"""Third stage: a ControlNet by the paper's rule: trainable copy, zero convolutions, half of the prompts empty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .diffusion import alphas_cumprod, noised
from .optimise import Plan, optimise
from .pairs import Pairs
from .train_unet import draw_noised
from .unet import trainable_copy
from .words import Words

_EMPTY_PROMPTS = 0.5  # arXiv 2302.05543, 3.3


def train_control(
    plan: Plan,
    unet: nn.Module,
    words: Words,
    pairs: Pairs,
    hints: Callable[[Tensor], Tensor],
    batch: int,
    folder: Path,
    device: torch.device,
    watch: Callable[[nn.Module, int], None],
) -> nn.Module:
    """Trains a control on `hints(rows)` beside the frozen UNet; `watch(control, step)` sees it at step 0 and at every save."""
    torch.manual_seed(plan.seed)
    control = trainable_copy(unet).to(device).requires_grad_(True)
    alphas = alphas_cumprod().to(device)

    def draw(generator: torch.Generator) -> tuple[Tensor, ...]:
        rows, *batched = draw_noised(pairs, batch, _EMPTY_PROMPTS, generator)
        return hints(rows), *batched

    def loss(hint: Tensor, latent: Tensor, noise: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        x, v = noised(latent, noise, alphas[times])
        predicted = controlled(unet, [control], [hint], x, times.float(), words(tokens))
        return nn.functional.mse_loss(predicted.float(), v)

    optimise(plan, [control], draw, loss, folder, device, watch=lambda step: watch(control, step))
    return control.eval().requires_grad_(False)


def controlled(
    unet: nn.Module, controls: list[nn.Module], hints: list[Tensor], x: Tensor, times: Tensor, context: Tensor
) -> Tensor:
    """The UNet's output with the controls' residuals added (eq. 2, several by their sum)."""
    output: list[Tensor] | None = None
    middle: list[Tensor] = []
    for control, hint in zip(controls, hints, strict=True):
        own = control(x, hint, times, context)
        output = own["output"] if output is None else [a + b for a, b in zip(output, own["output"], strict=True)]
        middle = own["middle"] if not middle else [middle[0] + own["middle"][0]]
    residuals = None if output is None else {"output": output, "middle": middle}
    predicted: Tensor = unet(x, times, context, control=residuals)
    return predicted
