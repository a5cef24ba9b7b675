"""What is learned: noise or velocity at a random time, weighed by the signal-to-noise ratio where asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["eps", "v"]
BUCKETS = 10


@dataclass(frozen=True, eq=False)
class Schedule:
    """How much of the picture is left at each time, and what the base predicts."""

    alphas_cumprod: Tensor
    """(T,) float32, falling from nearly 1 to nearly (or, with zero terminal SNR, quite) 0."""
    prediction: Prediction

    @classmethod
    def from_sigmas(cls, sigmas: Tensor, prediction: Prediction) -> Schedule:
        """From the sigmas (T,) of the host's `model_sampling`: sigma² = (1 - alpha) / alpha."""
        return cls((1 / (1 + sigmas.double().square())).float(), prediction)

    def to(self, device: torch.device) -> Schedule:
        return Schedule(self.alphas_cumprod.to(device), self.prediction)

    def __len__(self) -> int:
        return len(self.alphas_cumprod)


def noised(latent: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """x_t (B, C, h, w) of a latent for alphas_cumprod values (B,)."""
    signal, spread = _parts(alpha)
    return signal * latent + spread * noise


def target(latent: Tensor, noise: Tensor, alpha: Tensor, prediction: Prediction) -> Tensor:
    """What the base should have said: the noise, or the velocity (Salimans & Ho, arXiv 2202.00512)."""
    if prediction == "eps":
        return noise
    signal, spread = _parts(alpha)
    return signal * noise - spread * latent


def weights(alpha: Tensor, prediction: Prediction, min_snr: float | None) -> Tensor:
    """(B,): how much each row counts. Min-SNR-γ (Hang et al., arXiv 2303.09556, 3.4 and appendix), or 1 where `min_snr` is None."""
    if min_snr is None:
        return torch.ones_like(alpha)
    snr = alpha / (1 - alpha)
    if prediction == "eps":
        # min(snr, γ) / snr, which is 1 where nothing of the picture is left.
        return (min_snr / snr).clamp(max=1.0)
    return snr.clamp(max=min_snr) / (snr + 1)


def row_losses(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of each row, (B,) float32 (eq. 5)."""
    return (predicted.float() - wanted.float()).square().mean(dim=(1, 2, 3))


def bucket_sums(losses: Tensor, times: Tensor, length: int) -> Tensor:
    """(2, BUCKETS) float64: sums of losses (B,) and their numbers in equal parts of the schedule's `length`, the least noise first."""
    bucket = (times * BUCKETS).div(length, rounding_mode="floor")
    sums = torch.zeros(2, BUCKETS, dtype=torch.float64, device=losses.device)
    values = torch.stack([losses.detach().double(), torch.ones_like(losses, dtype=torch.float64)])
    return sums.index_add_(1, bucket.to(losses.device), values)


def _parts(alpha: Tensor) -> tuple[Tensor, Tensor]:
    alpha = alpha[:, None, None, None]
    return alpha.sqrt(), (1 - alpha).sqrt()
