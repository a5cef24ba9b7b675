"""'Difference' ControlNets, also called transfer controls: what training added to the encoder of its base (kohya-ss/ControlNet-diff-modules)."""

from __future__ import annotations

from dataclasses import dataclass

from ..canonical import MARKERS, Canonical
from ..condition import AllOf, NoneOf
from ..family import Family
from .controlnet import ControlNetLoader, unchanged


@dataclass(frozen=True)
class DifferenceLoader(ControlNetLoader):
    """A ControlNet's file whose encoder is to be added to that of a model."""

    adds_to_model: bool = True

    def names(self, file: Canonical) -> dict[str, str]:
        return {ours: theirs for ours, theirs in super().names(file).items() if ours not in MARKERS}


DIFFERENCE = Family(
    name="a difference ControlNet, which is added to its model",
    condition=AllOf("difference", "zero_convs.0.0.weight", "input_hint_block.0.weight", NoneOf("task_embedding")),
    loader=DifferenceLoader(rename=unchanged, diffusers=False),
)
