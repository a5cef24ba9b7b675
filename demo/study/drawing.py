"""Draws with a system of the study: DDIM with guidance, both branches under the hint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from ..diffusion import sample
from ..words import token_batch
from .base import Base
from .learn import WEIGHTS, begun, velocity, velocity_of
from .systems import Run, Velocity

GUIDANCE = 4.0
Precision = Literal["fp32", "bf16"]


@torch.no_grad()
def draw(
    predict: Velocity,
    base: Base,
    noise: Tensor,
    hints: Tensor,
    prompts: Sequence[str],
    *,
    steps: int = 20,
    precision: Precision = "fp32",
    batch: int = 24,
) -> Tensor:
    """Pictures (N, 128, 128, 3) float32 in 0..1 of noise (N, 4, 16, 16) and hints (N, 128, 128, 3) in 0..1, `batch` at once.

    Empty prompts cost half: both branches are the same then, and guidance has nothing to guide (arXiv 2302.05543, 3.4).
    """
    parts = []
    for rows in torch.arange(len(noise)).split(batch):
        said = [prompts[int(row)] for row in rows]
        branches = [said] if not any(said) else [said, [""] * len(said)]
        context = base.words(token_batch([prompt for branch in branches for prompt in branch]))
        hint = hints[rows].movedim(-1, 1).repeat(len(branches), 1, 1, 1)
        latents = sample(_guided(predict, context, hint, len(branches), precision), noise[rows], steps)
        parts.append(base.autoencoder.decode(latents).clamp(0, 1).movedim(1, -1).float())
    return torch.cat(parts)


def finished(run: Run, folder: Path) -> bool:
    return run.system == "no control" or (folder / run.name / WEIGHTS).exists()


def quick_velocity(run: Run, folder: Path, unet: nn.Module) -> Velocity:
    """That of a finished run, which reads the same hint only once."""
    if run.system == "no control":
        return velocity_of(run, folder, unet)
    control, predict = begun(run, unet)
    control.load_state_dict(safetensors.torch.load_file(folder / run.name / WEIGHTS))
    control.eval().requires_grad_(False)
    layers = getattr(control, "input_hint_block", None)
    if isinstance(layers, nn.Sequential):
        control.input_hint_block = nn.Sequential(Remembering(layers))
    return velocity(unet, control, predict)


class Remembering(nn.Module):
    """The layers of a hint network that keep their last answer: a sampler shows them the same tensor at every step. For locked weights."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._hint: Tensor | None = None
        self._embedding: Tensor | None = None

    def forward(self, hint: Tensor) -> Tensor:
        if self._embedding is None or hint is not self._hint:
            self._hint, x = hint, hint
            for layer in self.layers:
                x = layer(x)
            self._embedding = x
        return self._embedding


def _guided(predict: Velocity, context: Tensor, hint: Tensor, branches: int, precision: Precision) -> Any:
    def guided(x: Tensor, times: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found = predict(x.repeat(branches, 1, 1, 1), times.float().repeat(branches), context, hint).float()
        if branches == 1:
            return found
        cond, uncond = found.chunk(2)
        return uncond + GUIDANCE * (cond - uncond)

    return guided
