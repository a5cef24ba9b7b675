"""A layer of a union network and several hints, which it reads in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from comfy.cldm.control_types import UNION_CONTROLNET_TYPES
from torch import Tensor

from .apply import hooks_of, layer_of
from .control import Control
from .errors import ControlError
from .layer import Layer, check_pixels, hint_from_image
from .network import EncoderNetwork
from .union import UnionHint, check_union

TYPE_NUMBERS: Mapping[str, int] = dict(UNION_CONTROLNET_TYPES)
"""The host's names of the types, in the order of their embeddings in the files."""


@dataclass(frozen=True, eq=False)
class TypedPicture:
    """Pictures (N, H, W, C) in 0..1 of one type of hint, and how strongly they act."""

    image_bhwc: Tensor
    type_name: str
    strength: float = 1.0


def union_layer_of(
    control_net: Any, pictures: Sequence[TypedPicture], strength: float = 1.0, *settings: Any, node: str, **more: Any
) -> Layer:
    """A layer of the union network `control_net` and pictures of different types; all else is that of `layer_of`, and a mask covers the first picture.

    A picture of strength 0 is left out, as if it were not there. One picture alone makes an ordinary layer, whose residuals are multiplied by its
    strength: that is what the published classes do. Raises ControlError.
    """
    network = network_of(control_net)
    if not pictures:
        raise ControlError(
            f"{node} has no pictures, but at least one was expected by its ControlNet Union; connect Union Hint nodes to it, or take it out."
        )
    hints = tuple(hint_of(picture, node) for picture in pictures)
    check_union(hints, network, node)
    assert isinstance(network, EncoderNetwork)
    acting = [number for number, hint in enumerate(hints) if hint.strength != 0] or [0]
    first = hints[acting[0]]
    image = pictures[acting[0]].image_bhwc
    alone = len(acting) == 1
    layer = layer_of(
        Control.unbound(network.with_type(first.union_type if alone else None)),
        image,
        strength * first.strength if alone else strength,
        *settings,
        node=node,
        **more,
    )
    layer = replace(layer, extra_hooks=hooks_of(control_net))
    if alone:
        return layer
    # In the order of their types, in which the published classes read them: equal pictures give equal sums, however they are connected.
    union = sorted((hints[number] for number in acting), key=lambda hint: hint.union_type)
    return check_pixels(replace(layer, union=tuple(union)))


def network_of(control_net: Any) -> object:
    """What a CONTROL_NET, ours or the host's, computes with; the union network in it where there is one."""
    if isinstance(control_net, Control):
        return control_net.network
    return EncoderNetwork.from_stock(control_net, union=True)


def hint_of(picture: TypedPicture, node: str) -> UnionHint:
    if picture.type_name not in TYPE_NUMBERS:
        raise ControlError(
            f'type of a picture of {node} is "{picture.type_name}", but one of {", ".join(TYPE_NUMBERS)} was expected; choose one of them.'
        )
    where = f"{node} ({picture.type_name})"
    return UnionHint(hint_from_image(picture.image_bhwc, where), TYPE_NUMBERS[picture.type_name], picture.strength)
