"""Several hints of a union network in one pass: each is read by itself, with its type and strength, and what was read is added up.

The published classes (`models/controlnet_union.py` of xinsir6/ControlNetPlus, diffusers' `ControlNetUnionModel`) send a token of every hint and one of
the latent through a small transformer together. Its attention takes the rows of the batch for the sequence, so tokens of one picture never meet: what
comes out for a hint depends on that hint alone, neither on the others nor on the latent and the timestep, and can be kept through a run. With one hint
they multiply the residuals by its strength, with several the hint's token, its features and what the transformer adds to them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from .errors import ControlError
from .network import EncoderNetwork, type_name


@dataclass(frozen=True, eq=False)
class UnionHint:
    """One of the hints that a union network reads in one pass: pictures (N, channels, H, W) of one type."""

    hint_bchw: Tensor
    union_type: int
    strength: float = 1.0

    def read_by(self, network: EncoderNetwork) -> EncoderNetwork:
        """The network as it reads this hint. Raises ControlError for a type that it lacks."""
        return replace(network.with_type(self.union_type), hint_strength=self.strength)

    def __str__(self) -> str:
        """Type, strength and size, as a report tells them."""
        pictures, _, height, width = self.hint_bchw.shape
        count = f"{pictures} of " if pictures > 1 else ""
        return f"{type_name(self.union_type)} × {self.strength:g} ({count}{width}×{height})"


def check_union(hints: Sequence[UnionHint], network: object, node: str) -> None:
    """Raises ControlError for hints that `network` cannot read in one pass; `node` names the node in messages."""
    if not isinstance(network, EncoderNetwork) or not network.control_types:
        name = getattr(network, "name", "the connected control_net")
        raise ControlError(
            f"control_net of {node} is {name}, which has no types of hint, but a ControlNet Union or ProMax was expected; connect one, or take "
            "Control Layer for a control of one kind of hint."
        )
    seen: set[int] = set()
    for hint in hints:
        network.with_type(hint.union_type)
        if hint.union_type in seen:
            raise ControlError(
                f"{node} has two pictures of the type {type_name(hint.union_type)}, but {network.name} reads one of each type in a pass; change the "
                "type of one of them, or give it a layer of its own."
            )
        seen.add(hint.union_type)
        if not math.isfinite(hint.strength):
            raise ControlError(
                f"strength of {type_name(hint.union_type)} of {node} is {hint.strength}, but a finite number was expected by {network.name}; type "
                "one, for example 1.0."
            )
