"""The demo world's networks as they were shipped, locked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import nn

from ..autoencoder import Autoencoder
from ..unet import trainable_unet
from ..words import Words
from ..world import WEIGHTS


@dataclass(frozen=True, eq=False)
class Base:
    autoencoder: Autoencoder
    unet: nn.Module
    words: Words

    @classmethod
    def load(cls, weights: Path = WEIGHTS) -> Base:
        """On the CPU in fp32. Raises FileNotFoundError where a file is missing."""
        networks = {"autoencoder": Autoencoder(), "unet": trainable_unet(), "words": Words()}
        for name, network in networks.items():
            network.load_state_dict(safetensors.torch.load_file(weights / f"{name}.safetensors"))
            network.eval().requires_grad_(False)
        return cls(**networks)  # type: ignore[arg-type]
