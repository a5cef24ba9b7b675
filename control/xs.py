"""ControlNet-XS: a narrow stream that runs beside the UNet's encoder, reads every feature and adds to it, and to those of the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import comfy.model_base
import comfy.model_management
from torch import Tensor

from ..residuals.blocks import Block, Layout, halve
from ..residuals.rows import put
from .compatibility import unet_layout
from .errors import ControlError
from .expected import BRANCHES
from .network import HINT_PIXELS_PER_CELL, context_dim_of
from .patch_network import PatchCall, Patches, PatchNetwork

if TYPE_CHECKING:
    from ..checkpoints.xs import XSHyperparameters
    from ..checkpoints.xs_settings import XSSettings

PART = "feature"


@dataclass(frozen=True, eq=False)
class XSNetwork(PatchNetwork):
    """`module` is a `checkpoints.networks.xs.ControlStream`."""

    @property
    def net(self) -> XSHyperparameters:
        net: XSHyperparameters = self.module.net
        return net

    @property
    def settings(self) -> XSSettings:
        settings: XSSettings = self.module.settings
        return settings

    @property
    def hint_channels(self) -> int:
        return self.net.hint_channels

    @cached_property
    def layout(self) -> Layout:
        """Level and channels of the UNet's features that it adds to, behind each block of the encoder and the middle."""
        encoder = [(0, self.net.base_channels[0])]
        for part, (_, level) in zip(self.net.parts(), self.net.skips()[1:], strict=True):
            encoder.append((level, part.base_after))
        return Layout(tuple(encoder), (self.net.levels - 1, self.net.base_channels[-1]))

    def blocks(self, height: int, width: int) -> tuple[Block, ...]:
        """Behind each block of the encoder, behind the middle, before each block of the decoder."""
        level, channels = self.layout.middle
        places = [("input", index, *place) for index, place in enumerate(self.layout.encoder)]
        places.append(("middle", 0, level, channels))
        places += [("output", index, level, channels) for index, (level, _, channels) in enumerate(self.net.decoder())]
        return tuple(
            Block(place, index, level, channels, halve(height, level), halve(width, level), PART)  # type: ignore[arg-type]
            for place, index, level, channels in places
        )

    def check_model(self, model: Any) -> None:
        layout, context = unet_layout(model), None
        if layout is not None:
            context = context_dim_of(model.diffusion_model)
            if layout == self.layout and self.net.context_dim in (None, context):
                return
        base = type(model.model_config).__name__
        found = "which has no UNet" if layout is None else f"which has {describe(layout, context)}"
        raise ControlError(
            f"{self.name} is a ControlNet-XS for {self.base} ({describe(self.layout, self.net.context_dim)}), but the model is {base}, {found}; "
            f"use a ControlNet-XS made for {base}, or a model of base {self.base}."
        )

    def embed_hint(self, hint_bchw: Tensor) -> Tensor:
        hint = hint_bchw.to(self.dtype)
        embedding: Tensor = self.module.controlnet_cond_embedding(hint.flip(1) if self.settings.bgr else hint)
        return embedding

    def memory_requirements(self, pictures: int, height: int, width: int, rows: int = BRANCHES) -> float:
        kept = sum(channels / 4**level for channels, level in self.net.skips())
        joined = 3 * (self.net.channels[0] + self.net.base_channels[0])  # a joined feature, its norm and the next
        cells = rows * height * width / HINT_PIXELS_PER_CELL**2
        return float((kept + joined) * cells * self.dtype.itemsize)

    def patches(self, call: PatchCall) -> Patches:
        beside = Beside(self, call, call.embedding())
        return {
            "emb_patch": [beside.time],
            "input_block_patch": [beside.encoder],
            "input_block_patch_after_skip": [beside.watch],
            "middle_block_after_patch": [beside.middle],
            "output_block_patch": [beside.decoder],
        }


@dataclass(eq=False)
class Beside:
    """The stream in one call of the UNet, for the rows of its layer."""

    network: XSNetwork
    call: PatchCall
    hint: Any
    emb: Tensor | None = None
    feature: Tensor | None = None
    """What the UNet's next block reads."""
    streams: list[Tensor] = field(default_factory=list)
    """The stream behind each block of the encoder."""

    @cached_property
    def to_base(self) -> list[Any]:
        return list(self.network.module.to_base())

    @cached_property
    def context(self) -> Tensor:
        cond = self.call.step.cond
        context = cond.get("crossattn_controlnet", cond["c_crossattn"])
        device = self.call.step.x_noisy.device
        return self.call.pick(comfy.model_management.cast_to_device(context, device, self.network.dtype))

    def time(self, emb: Tensor, model_channels: int, options: Mapping[str, Any]) -> Tensor:
        """Begins a call: mixes the network's own time embedding, if it has one, with the model's, for both of them.

        Its share does not depend on strength, schedule or mask, as in diffusers: it was trained as a part of the controlled model.
        """
        call, share = self.call, self.network.settings.time_share
        self.streams, self.feature = [], None
        rows = call.pick(emb)
        if share:
            own = self.network.module.time_embedding(call.pick(call.step.timesteps), self.network.dtype)
            rows = own.to(emb.dtype) * share + rows * (1 - share)
            emb = rows if len(call.rows) == call.step.count else put(emb, rows, call.rows)
        self.emb = (rows + self._pooled(emb)).to(self.network.dtype)
        return emb

    def encoder(self, h: Tensor, options: Mapping[str, Any]) -> Tensor:
        """Behind a block of the encoder."""
        index, module = options["block"][1], self.network.module
        if index == 0:
            latent = self.call.pick(self.call.step.latent).to(self.network.dtype)
            stream = module.begin(latent, self.hint)
        else:
            stream = module.beside(index, self.streams[-1], self._read(index), self.emb, self.context)
        self.streams.append(stream)
        return self._add(index, h, stream)

    def watch(self, h: Tensor, options: Mapping[str, Any]) -> Tensor:
        """What the next block reads, with what all other patches have done."""
        self.feature = self.call.pick(h).to(self.network.dtype)
        return h

    def middle(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        position = len(self.streams)
        stream = self.network.module.middle(self.streams[-1], self._read(position), self.emb, self.context)
        return {**arguments, "h": self._add(position, arguments["h"], stream)}

    def decoder(self, h: Tensor, skip: Tensor, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Before a block of the decoder."""
        index = options["block"][1]
        return self._add(len(self.streams) + 1 + index, h, self.streams[-1 - index]), skip

    def _pooled(self, like: Tensor) -> Tensor | float:
        """The model's embedding of the pooled vector, which its patch for embeddings comes too early to see."""
        unet, y = self.call.model.diffusion_model, self.call.step.cond.get("y")
        if unet.num_classes is None or y is None:
            return 0.0
        pooled: Tensor = unet.label_emb(self.call.pick(comfy.model_base.convert_tensor(y, like.dtype, like.device)))
        return pooled

    def _read(self, position: int) -> Tensor:
        assert self.feature is not None, "the UNet calls the patches of a block in order"
        self._check_size(position, self.feature, self.streams[-1])
        return self.feature

    def _add(self, position: int, feature: Tensor, stream: Tensor) -> Tensor:
        if not self.call.acts_at(position):
            return feature
        self._check_size(position, feature, stream)
        return self.call.add(position, feature, self.to_base[position](stream))

    def _check_size(self, position: int, feature: Tensor, stream: Tensor) -> None:
        if feature.shape[-2:] != stream.shape[-2:]:
            raise ControlError(
                f"{self.call.blocks[position].name} of the model is {feature.shape[-1]}×{feature.shape[-2]} cells, but "
                f"{stream.shape[-1]}×{stream.shape[-2]} were expected by {self.network.name}; remove the node that changes the sizes inside of the "
                "model."
            )


def describe(layout: Layout, context_dim: int | None) -> str:
    """The numbers by which bases differ, in words."""
    widths = f"{len(layout.encoder)} blocks of {layout.encoder[0][1]} to {layout.middle[1]} channels"
    return f"{widths}, {'no text' if context_dim is None else f'context {context_dim}'}"
