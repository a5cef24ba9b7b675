"""CtrLoRA's network: a ControlNet's encoder that reads the hint as a latent, in place of the sampled latent (xyfJASON/ctrlora, cldm_ctrlora_inference.py)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import comfy.latent_formats
import comfy.model_management
from torch import Tensor

from .errors import ControlError
from .in_use import models_in_use
from .network import HINT_PIXELS_PER_CELL, EncoderNetwork

if TYPE_CHECKING:
    from typing_extensions import Self

HINT_CHANNELS = 3


@dataclass(frozen=True, eq=False)
class CtrLoraNetwork(EncoderNetwork):
    """An EncoderNetwork whose module has no hint network. Its residuals follow from hint, timestep and text, and not from the sampled latent.

    `vae` is the one (`comfy.sd.VAE`) that makes latents of hints.
    """

    vae: Any = None

    unrecordable: ClassVar[str] = ""
    loads_models: ClassVar[bool] = True

    @property
    def hint_channels(self) -> int:
        return HINT_CHANNELS

    @property
    def embedding_key(self) -> Hashable:
        return (super().embedding_key, id(self.vae))

    def with_vae(self, vae: Any) -> Self:
        if vae is None:
            raise ControlError(
                f"No vae is connected for {self.name}, but it is a CtrLoRA, which reads its hint through the VAE; connect the VAE of a model of base "
                f"{self.base} to the vae input of the Apply or Layer node."
            )
        channels = int(self.module.input_blocks[0][0].in_channels)
        cells, found = vae.spacial_compression_encode(), vae.latent_channels
        if (cells, found) != (HINT_PIXELS_PER_CELL, channels):
            raise ControlError(
                f"The vae connected for {self.name} makes latents of {found} channels, one cell for {cells} pixels, but {channels} channels and {HINT_PIXELS_PER_CELL} pixels "
                f"were expected; connect the VAE of a model of base {self.base}."
            )
        return replace(self, vae=vae)

    def embed_hint(self, hint_bchw: Tensor) -> Tensor:
        """(N, 3, 8h, 8w) in 0..1 -> (N, model channels, h, w): the first convolution of the hint's latent.

        The encoder is given the picture in 0..1, as in training, where it reads −1..1 otherwise; of the latent it takes the mean, as the host
        does, where the original repository draws a sample anew at each step.
        """
        # The host's `encode` maps 0..1 to −1..1, and moves what is in use off the device where there is no room for all.
        pixels = (hint_bchw.movedim(1, -1) + 1) / 2
        in_use = models_in_use()
        encoded = self.vae.encode(pixels)
        comfy.model_management.load_models_gpu(in_use)
        latent = comfy.latent_formats.SD15().process_in(encoded).to(hint_bchw.device, self.dtype)
        embedding: Tensor = self.module.input_blocks[0](latent, None, None)
        return embedding

    def first_block(self, x: Tensor, hint_embedding: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """The hint's latent takes the place of `x`."""
        return hint_embedding.expand(x.shape[0], -1, -1, -1)
