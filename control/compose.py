"""Many layers as one control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from .apply import Conditioning, attach
from .errors import ControlError
from .layer import Layer

Overlap = Literal["sum", "normalised"]
OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)


def compose_controls(
    positive: Conditioning,
    negative: Conditioning,
    layers: Sequence[Layer],
    strength: float = 1.0,
    overlap: Overlap = "sum",
    inspect: bool = False,
) -> tuple[Conditioning, Conditioning]:
    """Both conditionings under one control with all layers, in their order.

    `strength` multiplies the strength of each. *normalised* divides masks by their sum where several layers' masks together exceed 1; layers
    without a mask act everywhere and take no part in that. Layers that are off stay in the control, where a report can tell that they are, and cost
    nothing: not even the hooks of their controls, which act on the model itself, are kept. Raises ControlError.
    """
    if not layers:
        raise ControlError(
            "Compose Controls has no layers, but at least one was expected; connect Control Layer nodes to it, or take it out."
        )
    if overlap not in OVERLAPS:
        raise ControlError(
            f"overlap of Compose Controls is {overlap!r}, but one of {OVERLAPS} was expected; choose one."
        )
    scaled = [replace(layer, master=layer.master * strength, node="Compose Controls") for layer in layers]
    scaled = [replace(layer, extra_hooks=None) if layer.idle else layer for layer in scaled]
    if overlap == "normalised":
        masked = [layer for layer in scaled if layer.mask is not None and not layer.idle]
        scaled = [
            replace(layer, overlapping=tuple(other for other in masked if other is not layer))
            if layer in masked and len(masked) > 1
            else layer
            for layer in scaled
        ]
    with_control = attach((positive, negative), scaled, inspect)
    return with_control[0], with_control[1]
