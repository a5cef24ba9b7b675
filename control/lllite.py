"""ControlNet-LLLite: changes what attention reads, by tokens and hint (kohya-ss/ControlNet-LLLite-ComfyUI)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn.functional import interpolate

from ..residuals.blocks import Block, halve
from .errors import ControlError
from .expected import BRANCHES
from .patch_network import PatchCall, Patches, PatchNetwork

if TYPE_CHECKING:
    from ..checkpoints.lllite import LLLiteHyperparameters, LLLiteModule

Place = tuple[str, int, int, str]
"""Part and index of the UNet's block, number of its transformer block, "attn1" or "attn2"."""
ATTENTIONS = ("attn1", "attn2")


@dataclass(frozen=True, eq=False)
class LLLiteNetwork(PatchNetwork):
    """`module` is a `checkpoints.networks.lllite.LLLite`."""

    @property
    def net(self) -> LLLiteHyperparameters:
        net: LLLiteHyperparameters = self.module.net
        return net

    @property
    def hint_channels(self) -> int:
        return self.net.hint_channels

    @cached_property
    def at(self) -> Mapping[Place, tuple[tuple[str, int], ...]]:
        """The modules of each attention: the letter of the input and the module's number."""
        found: dict[Place, list[tuple[str, int]]] = {}
        for number, module in enumerate(self.net.modules):
            place = module.place
            key = (*place.block, place.transformer, place.attention)
            found.setdefault(key, []).append((place.projection, number))
        return {key: tuple(modules) for key, modules in found.items()}

    def blocks(self, height: int, width: int) -> tuple[Block, ...]:
        """One for each block of the UNet: all attentions in it share a weight."""
        return tuple(
            Block(part, index, level, channels, halve(height, level), halve(width, level), "attention")  # type: ignore[arg-type]
            for part, index, level, channels in self.net.blocks
        )

    def check_model(self, model: Any) -> None:
        for module in self.net.modules:
            found = width_at(model.diffusion_model, module)
            if found != module.width:
                base = type(model.model_config).__name__
                raise ControlError(
                    f"{self.name} is an LLLite for {self.base} with a module of {module.width} channels for {module.place}, but the model is "
                    f"{base}, which has {f'{found} channels' if found else 'no such place'}; use an LLLite made for {base}, or a model of base "
                    f"{self.base}."
                )

    def embed_hint(self, hint_bchw: Tensor) -> tuple[Tensor, ...]:
        embedding: tuple[Tensor, ...] = self.module.embed(hint_bchw)
        return embedding

    def memory_requirements(self, pictures: int, height: int, width: int, rows: int = BRANCHES) -> float:
        tokens = sum(
            math.ceil(height / module.stride) * math.ceil(width / module.stride) * module.bottleneck
            for module in self.net.modules
        )
        return float(pictures * tokens * self.dtype.itemsize)

    def patches(self, call: PatchCall) -> Patches:
        embedding = call.embedding()
        assert isinstance(embedding, tuple)
        attentions = [attention for attention in ATTENTIONS if any(key[3] == attention for key in self.at)]
        return {f"{attention}_patch": [self._patch(call, attention, embedding)] for attention in attentions}

    def _patch(self, call: PatchCall, attention: str, embedding: Sequence[Tensor]) -> Callable[..., Any]:
        positions = {(block.place, block.index): position for position, block in enumerate(call.blocks)}
        places = list(self.module.places.values())

        def patch(q: Tensor, k: Tensor, v: Tensor, options: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
            modules = self.at.get((*options["block"][:2], options["block_index"], attention))
            if modules is None or not call.acts_at(position := positions[options["block"][:2]]):
                return q, k, v
            block = call.blocks[position]
            inputs = {"q": q, "k": k, "v": v}
            height, width = options.get("activations_shape", (block.height, block.width))[-2:]
            for letter, number in modules:
                tokens = inputs[letter]
                self._check_tokens(tokens, block, height, width)
                hint = fitted(embedding[number], height, width)
                change = places[number](call.pick(tokens).to(self.dtype), hint)
                inputs[letter] = call.add(position, tokens, change, (height, width))
            return inputs["q"], inputs["k"], inputs["v"]

        return patch

    def _check_tokens(self, tokens: Tensor, block: Block, height: int, width: int) -> None:
        if tokens.shape[1] != height * width:
            raise ControlError(
                f"{block.name} of the model reads {tokens.shape[1]} tokens, but {self.name} changes all {height} × {width} of them; remove the node "
                "that merges or tiles the tokens (ToMe, HyperTile)."
            )


def fitted(hint: Tensor, height: int, width: int) -> Tensor:
    """(rows, h, w, channels) -> (rows, tokens, channels), at the size that the tokens have where it is another: a model shrunk inside, SD1's middle."""
    if hint.shape[1:3] != (height, width):
        sized = interpolate(hint.movedim(-1, 1), (height, width), mode="nearest-exact")
        hint = sized.movedim(1, -1)
    return hint.flatten(1, 2)


def width_at(unet: Any, module: LLLiteModule) -> int | None:
    """Channels that the UNet has at the place of a module; None where it has no such place."""
    place = module.place
    try:
        block = unet.middle_block if place.part == "middle" else getattr(unet, f"{place.part}_blocks")[place.index]
        attention = getattr(block[1].transformer_blocks[place.transformer], place.attention)
        return int(getattr(attention, f"to_{place.projection}").in_features)
    except (AttributeError, IndexError):
        return None
