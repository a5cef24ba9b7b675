"""First stage: the autoencoder learns to redraw scenes, edges above all."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .autoencoder import Autoencoder
from .optimise import Plan, optimise
from .pairs import pictures
from .scenes import sample_scenes

_NOISE = 0.05  # on latents, so that the decoder forgives what sampling leaves


def train_autoencoder(plan: Plan, count: int, batch: int, folder: Path, device: torch.device) -> Autoencoder:
    """Trains on `count` scenes and scales the latents to unit variance."""
    torch.manual_seed(plan.seed)
    autoencoder = Autoencoder().to(device)
    data = pictures(sample_scenes(count, plan.seed), device)

    def draw(generator: torch.Generator) -> tuple[Tensor, ...]:
        rows = torch.randint(0, count, (batch,), generator=generator, device=device)
        picture = data[rows].float() / 255
        noise = torch.randn((batch, 4, 16, 16), generator=generator, device=device)
        return picture, noise

    def loss(picture: Tensor, noise: Tensor) -> Tensor:
        latent = autoencoder.encode(picture).float()
        drawn = autoencoder.decode(latent + _NOISE * noise).float()
        difference = drawn - picture
        slope = sum(difference.diff(dim=dim).abs().mean() for dim in (-1, -2))
        # The host's decoder clamps latents softly at 3; unit size keeps them far from it.
        size = (latent.mean(dim=(0, 2, 3)) ** 2).mean() + ((latent.var(dim=(0, 2, 3)) - 1) ** 2).mean()
        return difference.abs().mean() + 5 * (difference**2).mean() + 2 * slope + 0.01 * size

    optimise(plan, [autoencoder], draw, loss, folder, device)
    with torch.no_grad():
        spread = autoencoder.encode(data[:2048].float() / 255).std()
        autoencoder.vae_scale.mul_(spread)
    return autoencoder.eval().requires_grad_(False)


@torch.no_grad()
def psnr(autoencoder: Autoencoder, picture: Tensor) -> float:
    """Decibels of redrawn pictures (N, 3, H, W) in 0..1."""
    redrawn = autoencoder.decode(autoencoder.encode(picture)).clamp(0, 1)
    return float(-10 * torch.log10(((redrawn - picture) ** 2).mean()))
