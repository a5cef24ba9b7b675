"""ControlNet-LLLite as numbers: what its file's names and shapes tell (kohya-ss/sd-scripts, networks/control_net_lllite.py)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from .encoder import Shape
from .encoder_shapes import MissingNameError

PREFIX = "lllite_unet_"
PLACE = re.compile(
    PREFIX
    + r"(?:(?P<part>input|output)_blocks_(?P<index>0|[1-9]\d?)|middle_block)_1_transformer_blocks_(?P<transformer>0|[1-9]\d?)_"
    r"(?P<attention>attn[12])_to_(?P<projection>[qkv])",
    re.ASCII,
)
PARTS = ("input", "middle", "output")
CELL = 8
"""Pixels per latent cell."""


@dataclass(frozen=True)
class AttentionInput:
    """One input of one attention: what a module changes."""

    part: Literal["input", "middle", "output"]
    index: int
    """Number of the UNet's block in its part."""
    transformer: int
    """Number of the transformer block in it."""
    attention: Literal["attn1", "attn2"]
    projection: Literal["q", "k", "v"]

    @property
    def block(self) -> tuple[str, int]:
        return self.part, self.index

    @property
    def order(self) -> tuple[int, int, int, str, str]:
        """Sorts as the UNet passes them."""
        return PARTS.index(self.part), self.index, self.transformer, self.attention, self.projection

    def __str__(self) -> str:
        number = "" if self.part == "middle" else f" {self.index}"
        return f"{self.attention}.to_{self.projection} of transformer block {self.transformer} in {self.part} block{number}"


@dataclass(frozen=True)
class LLLiteModule:
    """One module: a hint network of `depth`, and a bottleneck that reads tokens and the hint."""

    name: str
    """In the file, without the tensor's own."""
    place: AttentionInput
    width: int
    """Channels of the tokens."""
    depth: int
    """1, 2 and 3 for hints of 8, 16 and 32 pixels per token."""
    embedding: int
    """Channels of the hint's embedding."""
    bottleneck: int
    convolution: bool = False
    """Whether its weights are those of 1 × 1 convolutions, which is the same arithmetic."""

    @property
    def stride(self) -> int:
        """Pixels of the hint per token."""
        return CELL << (self.depth - 1)


@dataclass(frozen=True)
class LLLiteHyperparameters:
    """Modules in the order in which the UNet passes their places."""

    modules: tuple[LLLiteModule, ...]
    hint_channels: int = 3

    @property
    def levels(self) -> int:
        """Levels of the UNet: four where attention is on the first or on the fourth, as in SD1 and SD2, else three, as in SDXL."""
        blocks = {module.place.block for module in self.modules}
        return 4 if any(block in blocks for block in FOUR_LEVELS) else 3

    @property
    def blocks(self) -> tuple[tuple[str, int, int, int], ...]:
        """Part, index, level and channels of each block of the UNet that has modules, in the UNet's order."""
        widths = {module.place.block: module.width for module in self.modules}
        return tuple(
            (part, index, level_of(part, index, self.levels), width) for (part, index), width in widths.items()
        )


# Blocks with attention in SD1 and SD2, and without in SDXL: of the first level, and all after SDXL's last.
FOUR_LEVELS = (("input", 1), ("input", 2), ("input", 10), ("input", 11), *(("output", index) for index in range(6, 12)))


def level_of(part: str, index: int, levels: int) -> int:
    """Halvings of the latent at a block, in a UNet of two residual blocks a level, as SD1, SD2 and SDXL are."""
    if part == "input":
        return (index - 1) // 3
    return levels - 1 if part == "middle" else max(0, levels - 1 - index // 3)


class ForeignPlaceError(LookupError):
    """A module is for a place that the host gives no way to change."""


def module_names(names: Iterable[str]) -> tuple[str, ...]:
    """The modules of a file, in its order."""
    return tuple(dict.fromkeys(name.split(".", 1)[0] for name in names))


def place_of(name: str) -> AttentionInput:
    """The place that a module's name tells. Raises ForeignPlaceError."""
    found = PLACE.fullmatch(name)
    # What cross-attention reads for k and v is the text, which has no place in the picture.
    if found is None or (found["attention"] == "attn2" and found["projection"] != "q"):
        raise ForeignPlaceError(name)
    return AttentionInput(
        part=found["part"] or "middle",  # type: ignore[arg-type]
        index=int(found["index"] or 0),
        transformer=int(found["transformer"]),
        attention=found["attention"],  # type: ignore[arg-type]
        projection=found["projection"],  # type: ignore[arg-type]
    )


def read_lllite(shapes: Mapping[str, Shape]) -> LLLiteHyperparameters:
    """The hyperparameters that these names and shapes tell. Raises MissingNameError or ForeignPlaceError."""
    names = module_names(shapes)
    modules = sorted((read_module(name, shapes) for name in names), key=lambda module: module.place.order)
    return LLLiteHyperparameters(tuple(modules), _at(shapes, f"{names[0]}.conditioning1.0.weight", 4)[1])


def read_module(name: str, shapes: Mapping[str, Shape]) -> LLLiteModule:
    place = place_of(name)
    _at(shapes, f"{name}.conditioning1.0.weight", 4)
    second = f"{name}.conditioning1.2.weight"
    if f"{name}.conditioning1.4.weight" in shapes:
        depth, last = 3, f"{name}.conditioning1.4.weight"
    else:
        depth, last = (2 if _at(shapes, second, 4)[-1] == 4 else 1), second
    down = _at(shapes, f"{name}.down.0.weight", 2, 4)
    return LLLiteModule(
        name=name,
        place=place,
        width=down[1],
        depth=depth,
        embedding=_at(shapes, last, 4)[0],
        bottleneck=down[0],
        convolution=len(down) == 4,
    )


def lllite_shapes(net: LLLiteHyperparameters) -> dict[str, Shape]:
    """Name -> shape of every tensor of such a network."""
    return {name: shape for module in net.modules for name, shape in module_shapes(module, net.hint_channels).items()}


def module_shapes(module: LLLiteModule, hint_channels: int) -> dict[str, Shape]:
    half, whole, inner = module.embedding // 2, module.embedding, module.bottleneck
    ones = (1, 1) if module.convolution else ()
    weights: dict[str, Shape] = {"conditioning1.0": (half, hint_channels, 4, 4)}
    if module.depth == 3:
        weights |= {"conditioning1.2": (half, half, 4, 4), "conditioning1.4": (whole, half, 2, 2)}
    else:
        kernel = 2 * module.depth
        weights |= {"conditioning1.2": (whole, half, kernel, kernel)}
    weights |= {
        "down.0": (inner, module.width, *ones),
        "mid.0": (inner, inner + whole, *ones),
        "up.0": (module.width, inner, *ones),
    }
    shapes: dict[str, Shape] = {}
    for name, shape in weights.items():
        shapes |= {f"{module.name}.{name}.weight": shape, f"{module.name}.{name}.bias": shape[:1]}
    return shapes


def _at(shapes: Mapping[str, Shape], name: str, *dimensions: int) -> Shape:
    shape = shapes.get(name)
    if shape is None or len(shape) not in dimensions or 0 in shape:
        raise MissingNameError(name)
    return shape
