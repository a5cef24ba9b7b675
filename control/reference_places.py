"""Where a reference acts in a UNet, and in which order the published thresholds take the places in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, Upsample

from ..residuals.blocks import Block, Place, halve
from .network import adm_channels_of, base_of, context_dim_of

Part = Literal["attention", "norm"]

ADAIN_OUTPUT_SHARE = 2 / 3
"""Share of the UNet's output blocks, from the coarsest on: 8 of SD1's 12 and 6 of SDXL's 9, as sd-webui-controlnet lists them."""


@dataclass(frozen=True)
class ReferencePlace:
    """A self-attention, or the end of one of the UNet's blocks, whose statistics AdaIN sets.

    `place` and `index` are those of the UNet's block, `number` that of the transformer in it. A place acts where the weight that the user gives to
    its part is above its `threshold`.
    """

    part: Part
    place: Place
    index: int
    number: int
    level: int
    channels: int
    threshold: float

    def block(self, height: int, width: int) -> Block:
        """It in a latent of `height` × `width` cells."""
        return Block(
            self.place,
            self.index,
            self.level,
            self.channels,
            halve(height, self.level),
            halve(width, self.level),
            self.part,
        )


@dataclass(frozen=True)
class ReferenceModel:
    """What a reference must know of a UNet: `places` in the order in which it passes them, the channels that it reads, and its base."""

    places: tuple[ReferencePlace, ...]
    in_channels: int
    base: str

    @classmethod
    def of(cls, unet: Any) -> ReferenceModel | None:
        """Of a `diffusion_model` of the host; None if it is no UNet of Stable Diffusion's kind."""
        if not all(hasattr(unet, part) for part in ("input_blocks", "middle_block", "output_blocks", "model_channels")):
            return None
        base = base_of(context_dim_of(unet), adm_channels_of(unet))
        return cls(tuple(with_thresholds(list(walk(unet)))), int(unet.in_channels), base)


def walk(unet: Any) -> Iterator[ReferencePlace]:
    """The places of a UNet, in the order of its pass, without thresholds.

    AdaIN acts at the ends of the middle, of input blocks below the finest level that are no mere downsampling, and of the coarser output blocks.
    """
    level, channels = 0, int(unet.model_channels)
    normed = int(len(unet.output_blocks) * ADAIN_OUTPUT_SHARE + 1e-6)
    blocks: list[tuple[Place, int, Any]] = [("input", index, block) for index, block in enumerate(unet.input_blocks)]
    blocks.append(("middle", 0, unet.middle_block))
    blocks += [("output", index, block) for index, block in enumerate(unet.output_blocks)]
    for place, index, block in blocks:
        downs = False
        for part in block:
            if is_sampling(part, Downsample, "h_upd"):
                level, downs = level + 1, True
            elif is_sampling(part, Upsample, "h_upd"):
                level -= 1
            channels = int(getattr(part, "out_channels", channels))
            for number, transformer in enumerate(getattr(part, "transformer_blocks", ())):
                if not transformer.disable_self_attn:
                    width = int(transformer.norm1.normalized_shape[0])
                    yield ReferencePlace("attention", place, index, number, level, width, 0.0)
        if place == "middle" or (level >= 1 and not downs if place == "input" else index < normed):
            yield ReferencePlace("norm", place, index, 0, level, channels, 0.0)


def is_sampling(part: Any, kind: type, inside: str) -> bool:
    """Whether a module changes the resolution: by itself, or a ResBlock that holds one that does."""
    return isinstance(part, kind) or (isinstance(part, ResBlock) and isinstance(getattr(part, inside, None), kind))


def with_thresholds(places: list[ReferencePlace]) -> Iterator[ReferencePlace]:
    """The thresholds of sd-webui-controlnet, where one weight of 1 is compared with them.

    Attention: i / n, the widest first. AdaIN: 0 in the middle, from 2 down in the input blocks and from 0 up in the output blocks, so that 1 takes
    in the coarser half and 2 all.
    """
    attention = sorted((place for place in places if place.part == "attention"), key=lambda place: -place.channels)
    thresholds = ladder(attention, lambda share: share)
    norms = [place for place in places if place.part == "norm"]
    thresholds |= ladder((place for place in norms if place.place == "input"), lambda share: 2 * (1 - share))
    thresholds |= ladder((place for place in norms if place.place == "output"), lambda share: 2 * share)
    for place in places:
        yield replace(place, threshold=thresholds.get(place, 0.0))


def ladder(places: Iterable[ReferencePlace], threshold: Callable[[float], float]) -> dict[ReferencePlace, float]:
    """`threshold` of the share of `places` that stand before each."""
    listed = list(places)
    return {place: threshold(position / len(listed)) for position, place in enumerate(listed)}
