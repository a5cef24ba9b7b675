"""Ways to bring a hint into classifier-free guidance, and several hints at once, through the host's sampler and the pack's own controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...control import Control, apply_control
from ...nodes.load import load_source
from ...residuals.weights import BlockWeights, Flat, ResolutionWeights, SoftWeights
from ..scenes import SIZE
from ..world import CONTROLS, load_world
from .drawing import GUIDANCE

_BLOCKS = 13
_MEAN = (3 * 1 + 3 * 2 + 3 * 4 + 4 * 8) / _BLOCKS
"""Of 64/h over the blocks of h = 64, 32, 16, 8 and the middle."""


@dataclass(frozen=True)
class Way:
    about: str
    weights: BlockWeights = field(default_factory=Flat)
    uncond_strength: float = 0.0
    guidance: float = GUIDANCE


# arXiv 2302.05543, 3.4 and figure 5; the demo's blocks have 16, 8, 4 and 2 cells where Stable Diffusion's have 64, 32, 16 and 8.
WAYS: Mapping[str, Way] = {
    "both branches": Way("1 in every block", uncond_strength=1.0),
    "both branches, CFG 1": Way("no guidance", uncond_strength=1.0, guidance=1.0),
    "conditional only": Way("1 in every block"),
    "64/h": Way("1, 2, 4, 8: the paper's formula with the paper's sizes", ResolutionWeights("literal", "nominal")),
    "64/h, own sizes": Way("4, 8, 16, 32: the same with the demo's sizes", ResolutionWeights("literal", "actual")),
    "64/h, mean 1": Way("0.25, 0.49, 0.98, 1.96", Flat(1 / _MEAN) * ResolutionWeights("literal", "nominal")),
    "64/h, largest 1": Way("0.125, 0.25, 0.5, 1", ResolutionWeights("normalised")),
    "guess ladder": Way("0.825^(12 − i), 0.1 to 1", SoftWeights()),
}
CONDITIONS = ("colour alone", "edges and colour")
"""Beside the edges alone, which are the way "both branches"."""


class Guide:
    """The demo world and its colour control in the host."""

    def __init__(self, steps: int = 20) -> None:
        self.steps, self.world = steps, load_world()

    @cached_property
    def colour(self) -> Control:
        return control_from(CONTROLS / "control_composer_demo_colour.safetensors")

    @torch.no_grad()
    def draw(
        self,
        controls: Sequence[tuple[Control, Tensor]],
        noise: Tensor,
        prompts: Sequence[str],
        way: Way,
        batch: int = 24,
    ) -> Tensor:
        """Pictures (N, 128, 128, 3) of noise (N, 4, 16, 16): euler at `way`'s guidance, under (control, its hints (N, 128, 128, 3)), added up."""
        import comfy.sample

        parts = []
        for rows in torch.arange(len(noise)).split(batch):
            positive = self.world.encode(*[prompts[int(row)] for row in rows])
            negative = self.world.encode(*[""] * len(rows))
            for control, hints in controls:
                positive, negative = apply_control(
                    positive, negative, control, hints[rows], uncond_strength=way.uncond_strength, weights=way.weights
                )
            latent = torch.zeros(len(rows), 4, SIZE // 8, SIZE // 8)
            sampled: Any = comfy.sample.sample(
                self.world.model, noise[rows], self.steps, way.guidance, "euler", "normal",
                positive, negative, latent, disable_pbar=True, seed=0,
            )  # fmt: skip
            parts.append(self.world.vae.decode(sampled).detach().clamp(0, 1).cpu().float())
        return torch.cat(parts)


def control_from(path: Path) -> Control:
    """By the pack's own loader."""
    source, *_ = load_source(path, None, "auto")
    return Control.unbound(source)
