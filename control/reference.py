"""Reference control: no weights of its own; the model itself reads a picture, and its features steer those of the result."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import comfy.model_management
import torch
from torch import Tensor

from ..residuals.blocks import Block
from .errors import ControlError
from .expected import BRANCHES
from .in_use import models_in_use
from .patch_network import PatchCall, Patches, PatchNetwork
from .reference_pass import Reading, write
from .reference_places import ReferenceModel, ReferencePlace

Mode = Literal["attention", "adain", "attention + adain"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceNetwork(PatchNetwork):
    """ "reference_only", "reference_adain" and "reference_adain+attn" of sd-webui-controlnet (hook.py), for the UNet `unet`.

    In every call the model first sees the reference picture, noised to the same sigma, under the rows' own conditionings. *attention* lets every
    self-attention read the reference's tokens beside its own; *adain* gives features the mean and deviation of the reference's.
    `style_fidelity` leaves that much of it out in the rows of the unconditional branch, so that CFG amplifies the rest. `attention_weight` and
    `adain_weight` say which places act, see `ReferencePlace.threshold`. `seed` is that of the reference's noise, the same at every step of a run.
    """

    unet: ReferenceModel
    mode: Mode = "attention"
    style_fidelity: float = 0.5
    attention_weight: float = 1.0
    adain_weight: float = 1.0
    seed: int = 0
    vae: Any = None

    smooth: ClassVar[bool] = True

    before_others: ClassVar[frozenset[str]] = frozenset(
        {"attn1_patch", "input_block_patch", "middle_block_after_patch", "output_block_patch"}
    )

    @classmethod
    def of(cls, model: Any, mode: Mode, **settings: Any) -> ReferenceNetwork:
        """For a `comfy.model_base.BaseModel`. Raises ControlError for one without a UNet, or whose UNet reads more than the latent."""
        unet = ReferenceModel.of(model.diffusion_model)
        name = f"Reference Control ({mode})"
        if unet is None:
            raise ControlError(
                f"model of {name} is {type(model.model_config).__name__}, which has no UNet, but a model of Stable Diffusion 1, 2 or XL was expected; "
                "connect such a model, and the same to the sampler."
            )
        latent = int(model.latent_format.latent_channels)
        if unet.in_channels not in (latent, 2 * latent + 1):
            raise ControlError(
                f"model of {name} is {type(model.model_config).__name__}, whose UNet reads {unet.in_channels} channels, but {latent} (the latent) or "
                f"{2 * latent + 1} (an inpaint model) were expected; connect another model of its base, and the same to the sampler."
            )
        return cls(None, None, name, unet.base, unet=unet, mode=mode, **settings)

    @property
    def hint_channels(self) -> int:
        return 3

    @property
    def dtype(self) -> torch.dtype:
        """Of the picture that the VAE gets."""
        return torch.float32

    @property
    def key(self) -> Hashable:
        return ("reference", self.unet)

    @property
    def embedding_key(self) -> Hashable:
        return ("reference", id(self.vae))

    @cached_property
    def places(self) -> tuple[ReferencePlace, ...]:
        """Those that act, in the order of the pass."""
        weights = {
            "attention": self.attention_weight if "attention" in self.mode else 0.0,
            "norm": self.adain_weight if "adain" in self.mode else 0.0,
        }
        return tuple(place for place in self.unet.places if weights[place.part] > place.threshold)

    @property
    def fidelity(self) -> float:
        """Its cube on SDXL, whose attention sd-webui-controlnet found unstable."""
        return self.style_fidelity**3 if self.base == "SDXL" else self.style_fidelity

    def blocks(self, height: int, width: int) -> tuple[Block, ...]:
        return tuple(place.block(height, width) for place in self.places)

    def check_model(self, model: Any) -> None:
        found = ReferenceModel.of(model.diffusion_model)
        if found != self.unet:
            base = type(model.model_config).__name__
            raise ControlError(
                f"{self.name} was made for a model of {describe(self.unet)}, but the model that is sampled is {base} "
                f"({'which has no UNet' if found is None else describe(found)}); connect the model that goes to the sampler to Reference Control."
            )

    def with_vae(self, vae: Any) -> ReferenceNetwork:
        if vae is None:
            raise ControlError(
                f"{self.name} reads its picture as a latent, but vae of the node that applies it is empty and the model's VAE was expected; "
                "connect the VAE to that node."
            )
        return replace(self, vae=vae)

    def embed_hint(self, hint_bchw: Tensor) -> Tensor:
        """(N, 3, 8h, 8w) in 0..1 -> the VAE's latents (N, channels, h, w)."""
        loaded = models_in_use()
        latents: Tensor = self.vae.encode(hint_bchw.movedim(1, -1))
        comfy.model_management.load_models_gpu(loaded)
        return latents.to(hint_bchw.device)

    def memory_requirements(self, pictures: int, height: int, width: int, rows: int = BRANCHES) -> float:
        """What a call keeps of the reference, for all of its rows."""
        size = comfy.model_management.dtype_size(comfy.model_management.unet_dtype())
        blocks = self.blocks(height // self.pixels_per_cell, width // self.pixels_per_cell)
        return float(sum(rows * b.channels * b.height * b.width * size for b in blocks if b.part == "attention"))

    def patches(self, call: PatchCall) -> Patches:
        step, per_chunk = call.step, call.step.per_chunk
        factors = {row: 1.0 if step.kinds[row // per_chunk] == 0 else 1.0 - self.fidelity for row in call.rows}
        acting = {row: factor for row, factor in factors.items() if factor != 0}
        positions = {place: position for position, place in enumerate(self.places) if call.acts_at(position)}
        if not acting or not positions:
            return {}
        comfy.model_management.throw_exception_if_processing_interrupted()
        return Reading(call, write(call, tuple(acting), positions, self.seed), positions, acting).patches()


def describe(unet: ReferenceModel) -> str:
    """The numbers by which UNets differ, in words."""
    attention = sum(place.part == "attention" for place in unet.places)
    widest = max(place.channels for place in unet.places)
    return f"base {unet.base} with {attention} self-attentions of up to {widest} channels and {unet.in_channels} channels of input"
