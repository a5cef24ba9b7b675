"""Presets: block weights and a balance, under the names by which artists know them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .weights import BlockWeights, Flat, ResolutionWeights, SoftWeights

PresetName = Literal[
    "Balanced", "My prompt is more important", "ControlNet is more important", "CFG resolution weighting"
]


@dataclass(frozen=True)
class Preset:
    """`uncond_strength` is the balance: 1 steers both branches, 0 the conditional one only."""

    weights: BlockWeights
    uncond_strength: float


PRESETS: dict[PresetName, Preset] = {
    # The control modes of sd-webui-controlnet; its soft ladder for SDXL is cut out of that for 13 blocks, this one is SDXL's own.
    "Balanced": Preset(Flat(), 1.0),
    "My prompt is more important": Preset(SoftWeights(), 1.0),
    "ControlNet is more important": Preset(Flat(), 0.0),
    # Section 3.4 of arXiv 2302.05543: the condition goes to the conditional branch only, and each connection is weighted by resolution.
    "CFG resolution weighting": Preset(ResolutionWeights(), 0.0),
}
