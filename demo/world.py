"""The demo world as the host's objects: MODEL, VAE and CONDITIONING from the files in `weights/`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from .autoencoder import CHANNELS, Autoencoder, host_state_dict
from .unet import host_model
from .words import Words, token_batch

WEIGHTS = Path(__file__).parent / "weights"
CONTROLS = WEIGHTS / "controlnet"


@dataclass(frozen=True)
class World:
    """A loaded demo world."""

    model: Any  # the host's ModelPatcher
    vae: Any  # the host's VAE
    words: Words

    @torch.no_grad()
    def encode(self, *prompts: str) -> list[list[Any]]:
        """CONDITIONING of one prompt, or of several as one batch: [[(N, 24, 64) float32, {}]].

        Raises ValueError for words that the world does not know.
        """
        return [[self.words(token_batch(prompts)), {}]]


def load_world(weights: Path = WEIGHTS) -> World:
    """Reads the demo world's files. Raises FileNotFoundError where one is missing."""
    import comfy.sd

    autoencoder = _read(weights / "autoencoder.safetensors")
    words = Words()
    words.load_state_dict(_read(weights / "words.safetensors"))
    return World(
        model=host_model(_read(weights / "unet.safetensors"), preview_factors(autoencoder)),
        vae=comfy.sd.VAE(sd=host_state_dict(autoencoder)),
        words=words.eval().requires_grad_(False),
    )


@torch.no_grad()
def preview_factors(autoencoder: dict[str, Tensor]) -> Tensor:
    """What a latent looks like to the sampler's preview: (5, 3), RGB in -1..1 for each channel at 1, and for all at 0."""
    network = Autoencoder()
    network.load_state_dict(autoencoder)
    flat = torch.cat([torch.eye(CHANNELS), -torch.eye(CHANNELS), torch.zeros(1, CHANNELS)])
    colour = network.decode(flat[:, :, None, None].expand(-1, -1, 4, 4)).mean(dim=(2, 3)) * 2 - 1
    return torch.cat([(colour[:CHANNELS] - colour[CHANNELS : 2 * CHANNELS]) / 2, colour[-1:]])


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f"The demo world's file {path.name} is not in {path.parent}, but it ships with the pack; install the pack again, whole."
        )
    return {key: tensor.float() for key, tensor in safetensors.torch.load_file(path).items()}
