"""ControlNeXt as numbers: what its file's shapes tell, and the shapes that follow (arXiv 2408.06070, github.com/dvlab-research/ControlNeXt)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .encoder import Shape
from .encoder_shapes import MissingNameError

Release = Literal["SD1.5", "SDXL", "SDXL July", "August"]
"""The networks that were published, by their repository's folders: ControlNeXt-SD1.5 and ControlAny-SDXL (June 2024), ControlNeXt-SDXL of July,
and the one of August 2024 that ControlNeXt-SDXL and ControlNeXt-SD1.5-Training share."""

# Whether it embeds the hint with convolutions of its own, normalises in its middle, has a learned scale; how often it halves after the embedding.
RELEASES: Mapping[tuple[bool, bool, bool, int], Release] = {
    (False, False, True, 3): "SD1.5",
    (False, True, True, 3): "SDXL",
    (True, True, False, 3): "SDXL July",
    (True, True, False, 2): "August",
}
BASES: Mapping[Release, tuple[str, ...]] = {
    "SD1.5": ("SD1",),
    "SDXL": ("SDXL",),
    "SDXL July": ("SDXL",),
    "August": ("SD1", "SDXL"),
}
# Groups of each GroupNorm; no shape tells them.
EMBEDDING_GROUPS, MIDDLE_GROUPS = 2, 8
EMBEDDING = (0, 3, 6)
"""The positions of the convolutions in the hint embedding; the next one is the norm of each."""


@dataclass(frozen=True)
class ControlNeXtHyperparameters:
    """One small network for one map of features."""

    release: Release
    hint_channels: int
    embedding: tuple[int, ...]
    """Widths of the convolutions that embed the hint; none in the first releases."""
    widths: tuple[int, ...]
    """Width of each residual block, which is followed by a halving."""
    time_features: int
    time_channels: int
    out_channels: int

    @property
    def bases(self) -> tuple[str, ...]:
        return BASES[self.release]

    @property
    def scaled(self) -> bool:
        """Whether the factor of its map was learned."""
        return self.release in ("SD1.5", "SDXL")

    def groups(self, position: int) -> int:
        """Of the norms in a residual block."""
        return 8 if position else 4 if self.embedding else 1

    def inputs(self) -> tuple[int, ...]:
        """What each residual block reads."""
        first = self.embedding[-1] if self.embedding else self.hint_channels
        return (first, *self.widths[:-1])


def read_controlnext(shapes: Mapping[str, Shape]) -> ControlNeXtHyperparameters | None:
    """The hyperparameters that these shapes tell; None for an arrangement that was never published. Raises MissingNameError."""
    embeds = any(name.startswith("embedding.") for name in shapes)
    normed = any(name.startswith(("mid_convs.0.3.", "mid_convs.0.4.")) for name in shapes)
    blocks = len({name.split(".")[1] for name in shapes if name.startswith("down_res.")})
    release = RELEASES.get((embeds, normed, "scale" in shapes, blocks))
    if release is None:
        return None
    time = _at(shapes, "time_embedding.linear_1.weight", 2)
    return ControlNeXtHyperparameters(
        release=release,
        hint_channels=_at(shapes, "embedding.0.weight" if embeds else "down_res.0.conv1.weight", 4)[1],
        embedding=tuple(_at(shapes, f"embedding.{number}.weight", 4)[0] for number in EMBEDDING) if embeds else (),
        widths=tuple(_at(shapes, f"down_res.{block}.conv1.weight", 4)[0] for block in range(blocks)),
        time_features=time[1],
        time_channels=time[0],
        out_channels=_at(shapes, "mid_convs.1.weight", 4)[0],
    )


def indivisible(net: ControlNeXtHyperparameters) -> tuple[int, int] | None:
    """The first width that its number of groups does not divide, and that number."""
    pairs = [(width, EMBEDDING_GROUPS) for width in net.embedding]
    for position, (before, width) in enumerate(zip(net.inputs(), net.widths, strict=True)):
        pairs += [(before, net.groups(position)), (width, net.groups(position))]
    pairs += [(net.widths[-1], MIDDLE_GROUPS), (net.time_features, 2), (net.hint_channels, 1), (net.time_channels, 1)]
    pairs += [(net.out_channels, 1)]
    return next(((width, groups) for width, groups in pairs if width == 0 or width % groups), None)


def controlnext_shapes(net: ControlNeXtHyperparameters) -> dict[str, Shape]:
    """Name -> shape of every tensor of such a network."""
    shapes: dict[str, Shape] = {"scale": ()} if net.scaled else {}
    shapes |= _linear("time_embedding.linear_1", net.time_features, net.time_channels)
    shapes |= _linear("time_embedding.linear_2", net.time_channels, net.time_channels)
    before = net.hint_channels
    for number, width in zip(EMBEDDING, net.embedding, strict=False):
        shapes |= _conv(f"embedding.{number}", before, width, 3) | _norm(f"embedding.{number + 1}", width)
        before = width
    for position, width in enumerate(net.widths):
        block = f"down_res.{position}"
        shapes |= _norm(f"{block}.norm1", before) | _conv(f"{block}.conv1", before, width, 3)
        shapes |= _linear(f"{block}.time_emb_proj", net.time_channels, width)
        shapes |= _norm(f"{block}.norm2", width) | _conv(f"{block}.conv2", width, width, 3)
        if before != width:
            shapes |= _conv(f"{block}.conv_shortcut", before, width, 1)
        shapes |= _conv(f"down_sample.{position}.conv", width, width, 3)
        before = width
    shapes |= _conv("mid_convs.0.0", before, before, 3)
    if net.release == "SD1.5":
        shapes |= _conv("mid_convs.0.2", before, before, 3)
    else:
        shapes |= _norm("mid_convs.0.2", before) | _conv("mid_convs.0.3", before, before, 3)
        shapes |= _norm("mid_convs.0.4", before)
    return shapes | _conv("mid_convs.1", before, net.out_channels, 1)


def _conv(name: str, in_channels: int, out_channels: int, kernel: int) -> dict[str, Shape]:
    return {f"{name}.weight": (out_channels, in_channels, kernel, kernel), f"{name}.bias": (out_channels,)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, channels: int) -> dict[str, Shape]:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def _at(shapes: Mapping[str, Shape], name: str, dimensions: int) -> Shape:
    shape = shapes.get(name)
    if shape is None or len(shape) != dimensions:
        raise MissingNameError(name)
    return shape
