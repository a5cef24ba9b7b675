"""Networks that turn a hint into residuals: the ControlNet encoder as the host builds it, split into its two steps."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import torch
from comfy.cldm.control_types import UNION_CONTROLNET_TYPES
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor
from torch.nn.functional import silu

from ..residuals.blocks import Block, Layout
from ..residuals.residuals import Residuals
from .errors import ControlError

if TYPE_CHECKING:
    from typing_extensions import Self

HINT_PIXELS_PER_CELL = 8
"""Pixels of the hint per latent cell: the hint network has three convolutions of stride 2."""


@dataclass(frozen=True, eq=False)
class NetworkInputs:
    """What one pass of an encoder network reads; as `EncoderNetwork.residuals` takes it."""

    x: Tensor
    hint_embedding: Tensor
    timesteps: Tensor
    context: Tensor
    y: Tensor | None = None
    types: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class EncoderNetwork:
    """A trainable copy of a Stable Diffusion encoder with its hint network and zero convolutions.

    The host's `forward` embeds the hint anew at every step. Here it is a step of its own, so that the result can be kept. `name` (the file)
    and `base` (SD1, SD2, SDXL) are for messages only; `pooling` averages each residual over its area (the shuffle models). `union_type` says which of
    its types of hint a union network reads; without one it reads the hint as a plain network would. `hint_strength` is that of a hint that
    it reads together with others, in one pass. `about` says in words what it is (base, condition, steps, licence), for the file that it is saved in.
    """

    module: Any
    patcher: Any
    name: str
    base: str
    pooling: bool = False
    manual_cast_dtype: torch.dtype | None = None
    union_type: int | None = None
    hint_strength: float = 1.0
    about: Mapping[str, str] = field(default_factory=dict)

    pixels_per_cell: ClassVar[int] = HINT_PIXELS_PER_CELL
    smooth: ClassVar[bool] = False
    unrecordable: ClassVar[str] = ""
    """Why `residuals` cannot be recorded as a CUDA graph, in words; empty where all it does is work of the device that follows from inputs and weights
    alone: it waits for nothing, takes no numbers from the CPU and keeps nothing between calls. A subclass that changes what it does says it anew."""
    loads_models: ClassVar[bool] = False
    """Whether `embed_hint` loads another model, for which the host may move those that are in use."""

    @classmethod
    def from_module(
        cls,
        module: Any,
        *,
        name: str,
        base: str,
        pooling: bool = False,
        load_device: torch.device | None = None,
        offload_device: torch.device | None = None,
        manual_cast_dtype: torch.dtype | None = None,
        about: Mapping[str, str] | None = None,
    ) -> Self:
        """Puts a `comfy.cldm.cldm.ControlNet` into the host's memory management.

        Devices default to those the host uses for ControlNets.
        """
        patcher = comfy.model_patcher.CoreModelPatcher(
            module,
            load_device=load_device or comfy.model_management.get_torch_device(),
            offload_device=offload_device or comfy.model_management.unet_offload_device(),
        )
        return cls(module, patcher, name, base, pooling, manual_cast_dtype, about=about or {})

    @classmethod
    def from_stock(cls, control: Any, union: bool = False) -> EncoderNetwork | None:
        """The network inside a stock `comfy.controlnet.ControlNet`, sharing its patcher; None if it is more than a plain encoder.

        Union networks, Control-LoRAs, transformers and controls that read latents stay with the host's own arithmetic. With `union` it is a union
        network or None, whatever type the stock node chose for it.
        """
        module: Any = getattr(control, "control_model", None)
        plain = (
            type(control) is comfy.controlnet.ControlNet
            and type(module) is comfy.cldm.cldm.ControlNet
            and (module.control_add_embedding is not None) == union
            and control.latent_format is None
            and not control.concat_mask
            and (union or not control.extra_args)
            and control.compression_ratio == HINT_PIXELS_PER_CELL
            and control.strength_type is comfy.controlnet.StrengthType.CONSTANT
        )
        if not plain:
            return None
        return cls(
            module,
            control.control_model_wrapped,
            name="the connected control_net",
            base=base_of(context_dim_of(module), adm_channels_of(module)),
            pooling=control.global_average_pooling,
            manual_cast_dtype=control.manual_cast_dtype,
        )

    def clone_to(self, device: torch.device) -> EncoderNetwork:
        """A deep copy whose weights live on another device, for the host's multi-GPU work units."""
        module = copy.deepcopy(self.module)
        patcher = comfy.model_patcher.ModelPatcher(
            module, load_device=device, offload_device=comfy.model_management.unet_offload_device()
        )
        return replace(self, module=module, patcher=patcher)

    @property
    def key(self) -> int:
        """Equal for two networks that are one and the same module, however often it was wrapped."""
        return id(self.module)

    @property
    def embedding_key(self) -> Hashable:
        """Equal for two networks that embed a hint alike."""
        return (self.key, self.dtype, self.union_type, self.hint_strength)

    @property
    def control_types(self) -> int:
        """How many types of hint a union network knows; 0 for any other."""
        embedding = getattr(self.module, "control_add_embedding", None)
        return 0 if embedding is None else int(embedding.num_control_type)

    def with_type(self, union_type: int | None) -> EncoderNetwork:
        """The same network for hints of one type; a network without types stays as it is, as in the host. Raises ControlError."""
        known = self.control_types
        if not known:
            return self
        if union_type is not None and not 0 <= union_type < known:
            raise ControlError(
                f"{self.name} is a union ControlNet of the types {', '.join(map(type_name, range(known)))}, but the type "
                f"{type_name(union_type)} was asked for; choose one of its types, or another file."
            )
        return replace(self, union_type=union_type)

    def with_vae(self, vae: Any) -> Self:
        """The same with the VAE that an Apply or Layer node was given. Raises ControlError where one is needed and there is none."""
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the network computes."""
        dtype: torch.dtype = self.manual_cast_dtype or self.module.dtype
        return dtype

    @property
    def hint_channels(self) -> int:
        return int(self.module.input_hint_block[0].in_channels)

    @property
    def hint_width(self) -> int:
        """Channels of the hint network at the size of the picture: 16, or 48 in some union networks."""
        block = getattr(self.module, "input_hint_block", None)
        return 16 if block is None else int(block[0].out_channels)

    @property
    def model_channels(self) -> int:
        return int(self.module.model_channels)

    @property
    def latent_channels(self) -> int:
        return int(self.module.input_blocks[0][0].in_channels)

    @cached_property
    def context_dim(self) -> int | None:
        return context_dim_of(self.module)

    @cached_property
    def adm_channels(self) -> int | None:
        return adm_channels_of(self.module)

    @cached_property
    def layout(self) -> Layout:
        return layout_of(self.module)

    def blocks(self, height: int, width: int) -> tuple[Block, ...]:
        """The blocks it feeds in a latent of `height` × `width` cells."""
        return self.layout.blocks(height, width)

    def embed_hint(self, hint_bchw: Tensor) -> Tensor:
        """(N, hint channels, 8h, 8w) in 0..1 -> (N, model channels, h, w); does not depend on the timestep."""
        net = self.module
        embedding: Tensor = net.input_hint_block(hint_bchw.to(self.dtype), None, None)
        if self.union_type is None:
            return embedding
        # As published, the small transformer is given no token but this one: hints are read alone and added up, and its output depends neither on
        # the other hints nor on the latent (union.py).
        token = embedding.mean(dim=(2, 3)) + net.task_embedding[self.union_type].to(embedding)
        if self.hint_strength != 1:
            token = token * self.hint_strength
        of_type: Tensor = net.spatial_ch_projs(net.transformer_layes(token.unsqueeze(1))[:, 0])
        read = embedding + of_type.unsqueeze(-1).unsqueeze(-1)
        return read if self.hint_strength == 1 else read * self.hint_strength

    @property
    def told(self) -> tuple[int, ...]:
        """The types that a union network is told beside the timestep."""
        return () if self.union_type is None else (self.union_type,)

    def type_embedding(self, types: Sequence[tuple[int, ...]], like: Tensor) -> Tensor:
        """A union network's part of the time embedding: one row for the types of each row, or a single one where all have the same."""
        net = self.module.control_add_embedding
        if len(set(types)) == 1:
            types = types[:1]
        chosen = torch.zeros(len(types), net.num_control_type, device=like.device)
        for row, numbers in enumerate(types):
            for number in numbers:
                chosen[row, number].fill_(1.0)  # `= 1.0` copies a number from the CPU, which a CUDA graph cannot record
        features = timestep_embedding(chosen.flatten(), net.in_dim, repeat_only=False).to(like.dtype)
        embedding: Tensor = net.linear_2(silu(net.linear_1(features.reshape(len(types), -1))))
        return embedding

    def residuals(
        self,
        x: Tensor,
        hint_embedding: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None = None,
        types: Sequence[tuple[int, ...]] = (),
    ) -> Residuals:
        """One residual per encoder block and one for the middle, each (B, channels, h, w) in the network's dtype.

        `x` (B, C, h, w) is the latent as the UNet sees it, `hint_embedding` has B rows or one, `timesteps` is (B,), `context` (B, tokens,
        context_dim), `y` (B, adm channels) for networks that have them, `types` (B) are those that a union network is told for each row, its own if empty. The arithmetic is that of `comfy.cldm.cldm.ControlNet.forward`.
        """
        net, dtype = self.module, self.dtype
        x, context = x.to(dtype), context.to(dtype)
        embedded_time = timestep_embedding(timesteps.to(dtype), net.model_channels, repeat_only=False).to(dtype)
        emb = net.time_embed(embedded_time)
        if self.control_types:
            emb = emb + self.type_embedding(types or (self.told,), emb)
        if net.num_classes is not None:
            if y is None:
                raise ControlError(
                    f"{self.name} is an {self.base} control that reads a pooled vector (y), but the conditioning has none; "
                    f"use it with a model of its own base, {self.base}."
                )
            emb = emb + net.label_emb(y.to(dtype))

        output = []
        h = x
        for index, (block, zero_convolution) in enumerate(zip(net.input_blocks, net.zero_convs, strict=True)):
            h = block(h, emb, context) if index else self.first_block(h, hint_embedding.to(dtype), emb, context)
            output.append(zero_convolution(h, emb, context))
        h = net.middle_block(h, emb, context)
        middle = net.middle_block_out(h, emb, context)
        if self.pooling:
            output, middle = [pool(residual) for residual in output], pool(middle)
        return Residuals(output=tuple(output), middle=(middle,))

    def first_block(self, x: Tensor, hint_embedding: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """What the encoder's first block makes of the latent, plus the hint, which may have a single row."""
        h: Tensor = self.module.input_blocks[0](x, emb, context)
        return h + hint_embedding


def type_name(number: int) -> str:
    """A union network's type of hint as the host names it."""
    names = list(UNION_CONTROLNET_TYPES)
    return names[number] if 0 <= number < len(names) else f"type {number}"


def pool(residual: Tensor) -> Tensor:
    """Mean over the area, at the full size again: (B, C, h, w) -> (B, C, h, w)."""
    return residual.mean(dim=(2, 3), keepdim=True).repeat(1, 1, residual.shape[2], residual.shape[3])


def layout_of(module: Any) -> Layout:
    """Level and channels of each encoder block and the middle, read from the modules of a UNet or of its trainable copy."""
    encoder: list[tuple[int, int]] = []
    level, channels = 0, int(module.model_channels)
    for block in module.input_blocks:
        for part in block:
            if isinstance(part, Downsample) or (isinstance(part, ResBlock) and isinstance(part.h_upd, Downsample)):
                level += 1
            channels = int(getattr(part, "out_channels", channels))
        encoder.append((level, channels))
    return Layout(tuple(encoder), (level, channels))


def context_dim_of(module: Any) -> int | None:
    """Width of the text features that cross-attention reads; None without cross-attention."""
    for blocks in (*module.input_blocks, module.middle_block):
        for part in blocks:
            if len(getattr(part, "transformer_blocks", ())):  # SDXL small has attention modules without any
                return int(part.transformer_blocks[0].attn2.to_k.in_features)
    return None


def adm_channels_of(module: Any) -> int | None:
    """Width of the pooled vector y (2816 for SDXL); None for networks that read none."""
    if getattr(module, "num_classes", None) != "sequential":
        return None
    return int(module.label_emb[0][0].in_features)


def base_of(context_dim: int | None, adm_channels: int | None) -> str:
    """Name of the base that has text features of this width, as far as the width tells."""
    if adm_channels is not None:
        return "SDXL"
    return {768: "SD1", 1024: "SD2"}.get(context_dim or 0, "Stable Diffusion")
