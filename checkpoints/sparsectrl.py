"""SparseCtrl as numbers: a ControlNet's encoder with motion modules, and the shapes that follow (arXiv 2311.16933, guoyww/AnimateDiff)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from .diffusers_layout import cldm_names
from .encoder import EncoderHyperparameters, ResBlock, Shape, expected_shapes
from .encoder_shapes import MissingNameError, read_encoder

# Pictures as the user gives them; the network reads a mask beside them, or beside their latents.
PICTURE_CHANNELS = 3
# Every published motion module has so many heads (motion_module_kwargs of AnimateDiff's configurations); no shape tells them.
MOTION_HEADS = 8
# Length of the position encoding where the file does not hold it: it is a table of sines that some conversions leave out.
MOTION_FRAMES = 32
HINT = "input_hint_block.0.weight"
ENCODING = re.compile(r"motion_modules\.\d+\.transformer_blocks\.\d+\.attention_blocks\.\d+\.pos_encoder\.pe")
# Diffusers' names inside of a motion module -> AnimateDiff's.
MOTION_NAMES = {
    "attn1": "attention_blocks.0",
    "norm1": "norms.0",
    "norm3": "ff_norm",
    "pos_embed": "attention_blocks.0.pos_encoder",
}


@dataclass(frozen=True, kw_only=True)
class SparseHyperparameters(EncoderHyperparameters):
    """A ControlNet's encoder with a motion module behind each of its ResBlocks."""

    latent_hint: bool
    """Whether it reads the latents of pictures rather than their pixels."""
    motion_depth: int
    """Transformer blocks of a motion module."""
    frames: int
    """The longest sequence that the motion modules know places for."""


def sparse_names(names: Iterable[str]) -> dict[str, str]:
    """Name in AnimateDiff's or diffusers' layout -> the network's: cldm's with `motion_modules.N`, counted over all levels."""
    names = list(names)
    places = dict(_motion_modules(set(names)))

    def renamed(name: str, cldm: str) -> str:
        if name.startswith("controlnet_cond_embedding.") and name.count(".") == 1:
            return f"input_hint_block.0.{name.rpartition('.')[2]}"
        found = re.match(r"down_blocks\.\d{1,4}\.motion_modules\.\d{1,4}", name)
        if found is None or found[0] not in places:
            return cldm
        inside = name[found.end() + 1 :].removeprefix("temporal_transformer.")
        if inside == name[found.end() + 1 :]:
            parts = inside.split(".")
            if parts[0] == "transformer_blocks" and len(parts) > 2:
                parts[2] = MOTION_NAMES.get(parts[2], parts[2])
            inside = ".".join(parts)
        return f"{places[found[0]]}.{inside}"

    return {name: renamed(name, cldm) for name, cldm in cldm_names(names).items()}


def _motion_modules(names: set[str]) -> Iterator[tuple[str, str]]:
    folders = {".".join(name.split(".")[:4]) for name in names if name.startswith("down_blocks.")}
    level = number = 0
    while f"down_blocks.{level}.motion_modules.0" in folders:
        place = 0
        while f"down_blocks.{level}.motion_modules.{place}" in folders:
            yield f"down_blocks.{level}.motion_modules.{place}", f"motion_modules.{number}"
            place, number = place + 1, number + 1
        level += 1


def read_sparse(shapes: Mapping[str, Shape]) -> SparseHyperparameters:
    """The hyperparameters that these shapes (in the network's names) tell. Raises MissingNameError."""
    encodings = [shape for name, shape in shapes.items() if ENCODING.fullmatch(name)]
    if any(len(shape) != 3 or shape[1] == 0 for shape in encodings):
        raise MissingNameError("motion_modules.0.transformer_blocks.0.attention_blocks.0.pos_encoder.pe")
    net = asdict(read_encoder(shapes)) | {"hint_channels": PICTURE_CHANNELS}
    return SparseHyperparameters(
        **net,
        latent_hint="input_hint_block.2.weight" not in shapes,
        motion_depth=max(1, _count(shapes, "motion_modules.0.transformer_blocks.{}.ff_norm.weight")),
        frames=encodings[0][1] if encodings else MOTION_FRAMES,
    )


def sparse_shapes(net: SparseHyperparameters, encodings: bool = False) -> dict[str, Shape]:
    """Name -> shape of every tensor of such a network, with or without its position encodings, which follow from their length."""
    shapes = expected_shapes(net)
    if net.latent_hint:
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith("input_hint_block.")}
        shapes[HINT] = (net.model_channels, net.in_channels + 1, 3, 3)
        shapes["input_hint_block.0.bias"] = (net.model_channels,)
    else:
        first = shapes[HINT]
        shapes[HINT] = (first[0], net.hint_channels + 1, *first[2:])
    for number, channels in enumerate(motion_widths(net)):
        shapes |= _motion(f"motion_modules.{number}", channels, net, encodings)
    return shapes


def motion_widths(net: EncoderHyperparameters) -> tuple[int, ...]:
    """Channels of each motion module: one behind every ResBlock of the encoder."""
    return tuple(block.out_channels for block in net.blocks() if isinstance(block, ResBlock))


def _motion(name: str, channels: int, net: SparseHyperparameters, encodings: bool) -> dict[str, Shape]:
    """AnimateDiff's VanillaTemporalModule (animatediff/models/motion_module.py)."""
    square, vector = (channels, channels), (channels,)
    shapes: dict[str, Shape] = {}
    for part in ("proj_in", "proj_out"):
        shapes |= {f"{name}.{part}.weight": square, f"{name}.{part}.bias": vector}
    norms = [f"{name}.norm"]
    for depth in range(net.motion_depth):
        block = f"{name}.transformer_blocks.{depth}"
        attention, proj = f"{block}.attention_blocks.0", f"{block}.ff.net.0.proj"
        norms += [f"{block}.norms.0", f"{block}.ff_norm"]
        shapes |= {f"{attention}.to_{letter}.weight": square for letter in "qkv"}
        shapes |= {f"{attention}.to_out.0.weight": square, f"{attention}.to_out.0.bias": vector}
        if encodings:
            shapes[f"{attention}.pos_encoder.pe"] = (1, net.frames, channels)
        # Gated GELU: the first projection yields value and gate, each four times as wide.
        shapes |= {f"{proj}.weight": (8 * channels, channels), f"{proj}.bias": (8 * channels,)}
        shapes |= {f"{block}.ff.net.2.weight": (channels, 4 * channels), f"{block}.ff.net.2.bias": vector}
    for norm in norms:
        shapes |= {f"{norm}.weight": vector, f"{norm}.bias": vector}
    return shapes


def _count(shapes: Mapping[str, Shape], name: str) -> int:
    count = 0
    while name.format(count) in shapes:
        count += 1
    return count
