"""First stage: the autoencoder learns to redraw scenes, edges above all."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .autoencoder import CHANNELS, FACTOR, Autoencoder
from .optimise import Plan, optimise
from .pairs import pictures
from .scenes import SIZE, sample_scenes

_NOISE = 0.05  # on latents, so that the decoder forgives what sampling leaves


def train_autoencoder(plan: Plan, count: int, batch: int, folder: Path, device: torch.device) -> Autoencoder:
    """Trains on `count` scenes and scales the latents to unit variance."""
    torch.manual_seed(plan.seed)
    autoencoder = Autoencoder().to(device)
    autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types miss this form
    data = pictures(sample_scenes(count, plan.seed), device)

    def draw(side: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        rows = torch.randint(0, count, (batch,), generator=generator, device=device)
        top, left = (
            int(place)
            for place in torch.randint(0, (SIZE - side) // FACTOR + 1, (2,), generator=generator, device=device)
            * FACTOR
        )
        picture = data[rows, :, top : top + side, left : left + side].float() / 255
        noise = torch.randn((batch, CHANNELS, side // FACTOR, side // FACTOR), generator=generator, device=device)
        return picture.contiguous(memory_format=torch.channels_last), noise

    def loss(picture: Tensor, noise: Tensor) -> Tensor:
        latent = autoencoder.encode(picture).float()
        drawn = autoencoder.decode(latent + _NOISE * noise).float()
        difference = drawn - picture
        slope = torch.stack([difference.diff(dim=dim).abs().mean() for dim in (-1, -2)]).sum()
        # The host's decoder clamps latents softly at 3; unit size keeps them far from it.
        size = (latent.mean(dim=(0, 2, 3)) ** 2).mean() + ((latent.var(dim=(0, 2, 3)) - 1) ** 2).mean()
        return difference.abs().mean() + 5 * (difference**2).mean() + 2 * slope + 0.01 * size

    # Quarters of pictures first, four times as many for the same time; whole ones last, for their borders.
    optimise(plan, [autoencoder], partial(draw, SIZE // 2), loss, folder, device)
    whole = replace(plan, name=plan.name + "_whole", steps=max(1, plan.steps // 20), rate=plan.rate / 4)
    optimise(whole, [autoencoder], partial(draw, SIZE), loss, folder, device)
    with torch.no_grad():
        spread = autoencoder.encode(data[:2048].float() / 255).std()
        autoencoder.vae_scale.mul_(spread)
    return autoencoder.eval().requires_grad_(False)


@torch.no_grad()
def psnr(autoencoder: Autoencoder, picture: Tensor) -> float:
    """Decibels of redrawn pictures (N, 3, H, W) in 0..1."""
    redrawn = autoencoder.decode(autoencoder.encode(picture)).clamp(0, 1)
    return float(-10 * torch.log10(((redrawn - picture) ** 2).mean()))
