"""ControlNet Union: one network for several kinds of hint, each with an embedding of its own (huggingface.co/xinsir/controlnet-union-sdxl-1.0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from ..base import ConnectedBase
from ..canonical import Canonical
from ..condition import AllOf
from ..diffusers_layout import cldm_names
from ..encoder import EncoderHyperparameters, Shape, expected_shapes
from ..encoder_shapes import incomplete
from ..errors import IncompleteError
from ..family import Family, Match
from .controlnet import ControlNetLoader, unchanged

# As the host names them (comfy/cldm/control_types.py). The first release has the first six.
UNION_TYPES = (
    "openpose",
    "depth",
    "hed/pidi/scribble/ted",
    "canny/lineart/anime_lineart/mlsd",
    "normal",
    "segment",
    "tile",
    "repaint",
)
# Width of the embeddings in the host's network and in diffusers' (there a default); it must be that of the hint embedding.
WIDTH = 320
# Numbers by which each type is told to the time embedding.
TYPE_FEATURES = 256


@dataclass(frozen=True)
class UnionHyperparameters(EncoderHyperparameters):
    """A ControlNet's encoder that knows several types of hint."""

    control_types: int

    @property
    def type_names(self) -> tuple[str, ...]:
        more = tuple(f"type {number}" for number in range(len(UNION_TYPES), self.control_types))
        return UNION_TYPES[: self.control_types] + more


def union_shapes(net: UnionHyperparameters) -> dict[str, Shape]:
    """Name -> shape of every tensor that such a network has beside its encoder, in the host's names."""
    block, time = "transformer_layes.0", 4 * net.model_channels
    linear = {
        f"{block}.attn.in_proj": (3 * WIDTH, WIDTH),
        f"{block}.attn.out_proj": (WIDTH, WIDTH),
        f"{block}.mlp.c_fc": (4 * WIDTH, WIDTH),
        f"{block}.mlp.c_proj": (WIDTH, 4 * WIDTH),
        "spatial_ch_projs": (WIDTH, WIDTH),
        "control_add_embedding.linear_1": (time, TYPE_FEATURES * net.control_types),
        "control_add_embedding.linear_2": (time, time),
    }
    shapes: dict[str, Shape] = {"task_embedding": (net.control_types, WIDTH)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for norm in ("ln_1", "ln_2"):
        shapes |= {f"{block}.{norm}.weight": (WIDTH,), f"{block}.{norm}.bias": (WIDTH,)}
    return shapes


@dataclass(frozen=True)
class UnionLoader(ControlNetLoader):
    """A ControlNet's file with the parts for its types."""

    def names(self, file: Canonical) -> dict[str, str]:
        names = super().names(file)
        return {ours.replace(".attn.in_proj_", ".attn.in_proj."): theirs for ours, theirs in names.items()}

    def shapes(self, net: EncoderHyperparameters) -> dict[str, Shape]:
        assert isinstance(net, UnionHyperparameters)
        return expected_shapes(net) | union_shapes(net)

    def read(self, family: Family, file: Canonical, shapes: Mapping[str, Shape]) -> UnionHyperparameters:
        net = super().read(family, file, shapes)
        types = shapes["task_embedding"]
        if len(types) != 2 or types[0] == 0:
            raise incomplete(file.path, family.noun, ["task_embedding"], ())
        if net.model_channels != WIDTH:
            raise IncompleteError(
                file.path,
                found=f"is a {family.noun} of {net.model_channels} channels",
                expected=f"{WIDTH} were expected, the width of its type embeddings in every network that computes it",
                remedy="use the node that its author made for it",
            )
        return UnionHyperparameters(**asdict(net), control_types=types[0])

    def match(self, family: Family, file: Canonical, connected: ConnectedBase | None) -> Match:
        match = super().match(family, file, connected)
        return replace(
            match,
            notes=(
                *match.notes,
                f"types: {', '.join(match.hyperparameters.type_names)}",
            ),
        )


UNION_DIFFUSERS = Family(
    name="a Union ControlNet (diffusers layout)",
    condition=AllOf(
        "task_embedding", "control_add_embedding.linear_1.weight", "controlnet_cond_embedding.conv_in.weight"
    ),
    loader=UnionLoader(rename=cldm_names, diffusers=True),
)

UNION_CLDM = Family(
    name="a Union ControlNet (cldm layout)",
    condition=AllOf("task_embedding", "control_add_embedding.linear_1.weight", "input_hint_block.0.weight"),
    loader=UnionLoader(rename=unchanged, diffusers=False),
)
