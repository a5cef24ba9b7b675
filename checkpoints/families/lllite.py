"""ControlNet-LLLite: small networks that read the hint and change the inputs of attention (kohya-ss/sd-scripts, docs/train_lllite_README.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..base import ConnectedBase, other_base
from ..canonical import Canonical
from ..condition import Starting
from ..encoder_shapes import MissingNameError, check_shapes, incomplete
from ..errors import IncompleteError, short
from ..family import Built, Family, Kind, Match
from ..heads import Heads
from ..lllite import PREFIX, ForeignPlaceError, LLLiteHyperparameters, lllite_shapes, read_lllite
from ..tensors import main_dtype

Blocks = Mapping[tuple[str, int], tuple[int, int]]
"""Part and index of a UNet's block -> channels and number of its transformer blocks."""


def blocks_of(
    part: str, indices: tuple[int, ...], channels: int, transformers: int
) -> dict[tuple[str, int], tuple[int, int]]:
    return {(part, index): (channels, transformers) for index in indices}


SD1_OR_SD2: Blocks = {
    **blocks_of("input", (1, 2), 320, 1),
    **blocks_of("input", (4, 5), 640, 1),
    **blocks_of("input", (7, 8), 1280, 1),
    **blocks_of("middle", (0,), 1280, 1),
    **blocks_of("output", (3, 4, 5), 1280, 1),
    **blocks_of("output", (6, 7, 8), 640, 1),
    **blocks_of("output", (9, 10, 11), 320, 1),
}
SDXL: Blocks = {
    **blocks_of("input", (4, 5), 640, 2),
    **blocks_of("input", (7, 8), 1280, 10),
    **blocks_of("middle", (0,), 1280, 10),
    **blocks_of("output", (0, 1, 2), 1280, 10),
    **blocks_of("output", (3, 4, 5), 640, 2),
}
BASES = {"SD1": SD1_OR_SD2, "SD2": SD1_OR_SD2, "SDXL": SDXL}


@dataclass(frozen=True)
class LLLiteLoader:
    kind: Kind = "lllite"
    adds_to_model: bool = False

    def match(self, family: Family, file: Canonical, connected: ConnectedBase | None) -> Match:
        shapes = {name: info.shape for name, info in file.tensors.items()}
        try:
            net = read_lllite(shapes)
        except MissingNameError as error:
            raise incomplete(file.path, family.noun, [str(error)], ()) from None
        except ForeignPlaceError as error:
            raise IncompleteError(
                file.path,
                found=f"is a {family.noun} with a module for '{short(str(error).removeprefix(PREFIX))}'",
                expected="modules for q, k and v of self-attention and q of cross-attention in the UNet's own names were expected, and the host "
                "gives no way to any other place",
                remedy="use the node that its author made for it",
            ) from None
        check_shapes(file.path, family.noun, lllite_shapes(net), shapes)
        if connected is not None and not fits(net, connected):
            raise other_base(file.path, lllite_base(net), connected)
        return Match(
            family=family,
            base=lllite_base(net),
            hyperparameters=net,
            heads=Heads(count=None, width=None, source="no attention"),
            names={name: info.name for name, info in file.tensors.items()},
            parameter_count=sum(info.numel for info in file.tensors.values()),
            dtype=main_dtype(file.tensors.values()),
            pooling=None,
            notes=(f"modules: {len(net.modules)}, in {', '.join(block_names(net))}",),
        )

    def build(self, match: Match, tensors: Mapping[str, Tensor]) -> Built:
        # Imported here: everything before this step runs without the host.
        from ..build_lllite import build_lllite

        return build_lllite(match, tensors)


def known_bases(net: LLLiteHyperparameters) -> tuple[str, ...]:
    """The bases that have every place of these modules, at its width."""

    def has(blocks: Blocks) -> bool:
        return all(
            module.width == channels and module.place.transformer < transformers
            for module in net.modules
            for channels, transformers in (blocks.get(module.place.block, (0, 0)),)
        )

    return tuple(name for name, blocks in BASES.items() if has(blocks))


def lllite_base(net: LLLiteHyperparameters) -> str:
    """SD1 and SD2 have blocks of the same widths, and the modules read no text."""
    known = known_bases(net)
    if known:
        return " or ".join(known)
    return f"custom ({'-'.join(str(width) for width in dict.fromkeys(width for *_, width in net.blocks))} channels)"


def fits(net: LLLiteHyperparameters, model: ConnectedBase) -> bool:
    """Whether the connected model has blocks of these widths. The blocks of two bases can be alike; those of known name differ in depth."""
    known = known_bases(net)
    if known and model.name in BASES:
        return model.name in known
    widths = widths_of(model)
    return all(widths.get((part, index)) == width for part, index, _, width in net.blocks)


def widths_of(model: ConnectedBase) -> dict[tuple[str, int], int]:
    """Channels of each block of the connected model's UNet that can have attention."""
    per_level = [mult * model.model_channels for mult in model.channel_mult]
    encoder: list[int] = [0]
    decoder: list[int] = []
    for level, (width, count) in enumerate(zip(per_level, model.num_res_blocks, strict=False)):
        # The last of a level halves the latent; it has no attention.
        encoder += [width] * count + [0] * (level + 1 < len(per_level))
        decoder = [width] * (count + 1) + decoder
    widths = {("input", index): width for index, width in enumerate(encoder)}
    widths |= {("output", index): width for index, width in enumerate(decoder)}
    return widths | ({("middle", 0): per_level[-1]} if per_level else {})


def block_names(net: LLLiteHyperparameters) -> list[str]:
    """ "input 4, 5", "middle": the blocks by their parts."""
    parts: dict[str, list[str]] = {}
    for part, index, *_ in net.blocks:
        parts.setdefault(part, []).append(str(index))
    return [part if part == "middle" else f"{part} {', '.join(indices)}" for part, indices in parts.items()]


LLLITE = Family(name="a ControlNet-LLLite", condition=Starting(PREFIX), loader=LLLiteLoader())
