"""Control-LoRA: low-rank differences to the connected model's encoder, with a hint network and zero convolutions of its own (stabilityai/control-lora)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import ConnectedBase, base_name, check_base
from ..canonical import MARKERS, Canonical
from ..condition import AllOf
from ..encoder import Shape, expected_shapes
from ..encoder_shapes import MissingNameError, check_shapes, incomplete, read_encoder
from ..errors import IncompleteError
from ..family import Built, Family, Kind, Match
from ..heads import Heads
from ..tensors import main_dtype
from .controlnet import pooling_of

UP, DOWN = ".up", ".down"
IN_BLOCK = re.compile(r"(.+\.transformer_blocks\.\d+)\.")
# What the model's encoder does not have, so the file must.
OWN = ("input_hint_block.", "zero_convs.", "middle_block_out.")


class ControlWeights(dict[str, Tensor]):
    """The tensors of a file under the network's names: a dict that weak references can point to."""


@dataclass(frozen=True)
class ControlLoraLoader:
    """The network is made anew for each sampling run, out of the sampled model's weights and these."""

    kind: Kind = "control lora"
    adds_to_model: bool = False

    def match(self, family: Family, file: Canonical, connected: ConnectedBase | None) -> Match:
        # As the host does, which leaves what has two underscores in its name.
        tensors = {name: info for name, info in file.tensors.items() if name not in MARKERS and "__" not in name}
        shapes = {name: info.shape for name, info in tensors.items()}
        merged = merged_shapes(family, file, shapes)
        try:
            net = read_encoder(with_first_norms(merged))
        except MissingNameError as error:
            raise incomplete(file.path, family.noun, [str(error)], ()) from None
        expected = expected_shapes(net)
        check_shapes(
            file.path,
            family.noun,
            {name: shape for name, shape in expected.items() if name in merged or name.startswith(OWN)},
            merged,
        )
        if connected is not None:
            check_base(file.path, net, connected)
        pooling, told_by = pooling_of(file)
        ranks = [shape[0] for name, shape in shapes.items() if name.endswith(DOWN)]
        return Match(
            family=family,
            base=base_name(net),
            hyperparameters=net,
            heads=Heads(count=None, width=None, source="model"),
            names={name: info.name for name, info in tensors.items()},
            parameter_count=sum(info.numel for info in tensors.values()),
            dtype=main_dtype(tensors.values()),
            pooling=pooling,
            pooling_source=told_by,
            notes=(*rank_notes(ranks), "weights and dtype: those of the model that it steers"),
        )

    def build(self, match: Match, tensors: Mapping[str, Tensor]) -> Built:
        """Only the tensors; the host's control makes its network when sampling begins."""
        device = torch.device("cpu")
        return Built(ControlWeights(tensors), match.dtype, None, device, device)


def merged_shapes(family: Family, file: Canonical, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of the differences that products of up and down are, beside those of the full tensors. Raises IncompleteError."""
    merged: dict[str, Shape] = {}
    for name, shape in shapes.items():
        if name.endswith(DOWN):
            module = name.removesuffix(DOWN)
            if module + UP not in shapes:
                raise incomplete(file.path, family.noun, [module + UP], ())
        elif name.endswith(UP):
            module = name.removesuffix(UP)
            down = shapes.get(module + DOWN)
            if down is None:
                raise incomplete(file.path, family.noun, [module + DOWN], ())
            if len(shape) < 2 or len(down) < 2 or math.prod(shape[1:]) != down[0]:
                raise IncompleteError(
                    file.path,
                    found=f"is a {family.noun} whose tensors '{name}' and '{module + DOWN}' have the shapes {list(shape)} and {list(down)}",
                    expected="the same rank in both was expected",
                    remedy="download it again, or ask its author for a file of the ordinary architecture",
                )
            merged[f"{module}.weight"] = (shape[0], *down[1:])
        else:
            merged[name] = shape
    return merged


def with_first_norms(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The same with a first norm in each transformer block, by which blocks are counted and which a file may leave to the model."""
    blocks = {found[1]: shape for name, shape in shapes.items() if (found := IN_BLOCK.match(name))}
    return {**{f"{block}.norm1.weight": shape[:1] for block, shape in blocks.items()}, **shapes}


def rank_notes(ranks: list[int]) -> tuple[str, ...]:
    if not ranks:
        return ()
    low, high = min(ranks), max(ranks)
    return (f"rank: {high}" if low == high else f"ranks: {low} to {high}",)


CONTROL_LORA = Family(
    name="a Control-LoRA",
    condition=AllOf("lora_controlnet", "input_hint_block.0.weight"),
    loader=ControlLoraLoader(),
)
