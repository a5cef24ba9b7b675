"""Noise schedule and a small sampler for the sheets drawn while the demo world trains."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 1000
Velocity = Callable[[Tensor, Tensor], Tensor]  # (x, timesteps) -> v


def alphas_cumprod() -> Tensor:
    """Stable Diffusion's schedule (the host's default): square roots of beta evenly spaced, 0.00085 to 0.012. (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


@torch.no_grad()
def sample(velocity: Velocity, noise: Tensor, steps: int = 20) -> Tensor:
    """DDIM without noise (arXiv 2010.02502) from pure noise (N, C, H, W) to latents."""
    alphas = alphas_cumprod().to(noise.device)
    times = torch.linspace(STEPS - 1, 0, steps).round().long().tolist()
    x = noise
    for t, after in zip(times, [*times[1:], None], strict=True):
        alpha, then = alphas[t], (torch.ones_like(alphas[0]) if after is None else alphas[after])
        v = velocity(x, torch.full((len(x),), t, device=x.device))
        latent = alpha.sqrt() * x - (1 - alpha).sqrt() * v
        eps = alpha.sqrt() * v + (1 - alpha).sqrt() * x
        x = then.sqrt() * latent + (1 - then).sqrt() * eps
    return x
