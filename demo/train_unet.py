"""Second stage: the UNet and the words learn to draw what a caption says (v-prediction, one prompt in ten empty)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..training.objective import noised, target
from .diffusion import STEPS, alphas_cumprod
from .optimise import Plan, optimise
from .pairs import Pairs
from .unet import trainable_unet
from .words import Words

_EMPTY_PROMPTS = 0.1


def train_unet(plan: Plan, pairs: Pairs, batch: int, folder: Path, device: torch.device) -> tuple[nn.Module, Words]:
    """Trains both networks together on the pairs' latents and captions."""
    torch.manual_seed(plan.seed)
    unet, words = trainable_unet().to(device), Words().to(device)
    alphas = alphas_cumprod().to(device)

    def draw(generator: torch.Generator) -> tuple[Tensor, ...]:
        return draw_noised(pairs, batch, _EMPTY_PROMPTS, generator)[1:]

    def loss(latent: Tensor, noise: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        alpha = alphas[times]
        predicted: Tensor = unet(noised(latent, noise, alpha), times.float(), words(tokens))
        return nn.functional.mse_loss(predicted.float(), target(latent, noise, alpha, "v"))

    optimise(plan, [unet, words], draw, loss, folder, device)
    return unet.eval().requires_grad_(False), words.eval().requires_grad_(False)


def draw_noised(pairs: Pairs, batch: int, empty: float, generator: torch.Generator) -> tuple[Tensor, ...]:
    """A batch: rows (n,), latents, noise, timesteps (n,) and words (n, 24) of which a share `empty` are empty prompts."""
    device = pairs.latents.device
    rows = torch.randint(0, len(pairs), (batch,), generator=generator, device=device)
    latent = pairs.latents[rows].float()
    noise = torch.randn(latent.shape, generator=generator, device=device)
    # Half of the times are even, half lie where shapes form: with 256 cells a picture that is the middle.
    even = torch.rand(batch, generator=generator, device=device)
    middle = torch.sigmoid(1.2 * torch.randn(batch, generator=generator, device=device))
    pick = torch.rand(batch, generator=generator, device=device) < 0.5
    times = (torch.where(pick, even, middle) * STEPS).long().clamp(max=STEPS - 1)
    kept = torch.rand((batch, 1), generator=generator, device=device) >= empty
    return rows, latent, noise, times, pairs.words[rows] * kept
