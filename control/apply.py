"""Attaching a control to conditionings."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..residuals.weights import BlockWeights, Flat
from .control import Control
from .errors import ControlError
from .foreign import ForeignControl
from .layer import Layer, hint_from_image
from .network import EncoderNetwork

Conditioning = list[list[Any]]


def make_layer(
    control_net: Any,
    hint_bchw: Tensor,
    *,
    strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    uncond_strength: float = 1.0,
    weights: BlockWeights | None = None,
    vae: Any = None,
) -> Layer:
    """A layer of a CONTROL_NET, ours or the host's, and a hint (N, C, H, W).

    A stock ControlNet of Stable Diffusion becomes a layer like our own. Any other control keeps its own arithmetic; its strength and range are
    set in a copy of it, `vae` is for those that read latents.
    """
    source: EncoderNetwork | ForeignControl | None
    if isinstance(control_net, Control):
        source = control_net.network
    else:
        source = EncoderNetwork.from_stock(control_net) or foreign_of(control_net)
    if source is None:
        raise ControlError(
            "control_net of Apply Control has its layers already, but one fresh from a Load node was expected; "
            "connect the Load node to it."
        )
    layer = Layer(source, hint_bchw, strength, start_percent, end_percent, uncond_strength, weights or Flat())
    if isinstance(source, ForeignControl):
        source.control.set_cond_hint(hint_bchw, strength, (start_percent, end_percent), vae=vae)
    return layer


def foreign_of(control_net: Any) -> ForeignControl:
    """A copy of a control of another kind, ready for a hint. Raises ControlError for what is no control."""
    if not all(callable(getattr(control_net, name, None)) for name in ("copy", "set_cond_hint", "get_control")):
        raise ControlError(
            f"control_net of Apply Control is {'empty' if control_net is None else type(control_net).__name__}, but a control was expected; "
            "connect a Load ControlNet node, and if it is connected, look at what it said about the file."
        )
    return ForeignControl(control_net.copy(), f"the connected control_net ({type(control_net).__name__})")


def attach(conditionings: tuple[Conditioning, ...], layer: Layer, extra_hooks: Any = None) -> tuple[Conditioning, ...]:
    """New conditionings that carry `layer` after the controls they had.

    Conditionings with the same control before get one and the same control after, or the host could not put them into one batch.
    """
    made: dict[int, Control] = {}

    def control_after(previous: Any) -> Control:
        if id(previous) not in made:
            control = Control(layers=(layer,))
            control.extra_hooks = extra_hooks
            made[id(previous)] = control.set_previous_controlnet(previous)
        return made[id(previous)]

    def attached(entry: list[Any]) -> list[Any]:
        values = {**entry[1], "control": control_after(entry[1].get("control")), "control_apply_to_uncond": False}
        return [entry[0], values, *entry[2:]]

    return tuple([attached(entry) for entry in conditioning] for conditioning in conditionings)


def apply_control(
    positive: Conditioning,
    negative: Conditioning,
    control_net: Any,
    image_bhwc: Tensor,
    strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    uncond_strength: float = 1.0,
    weights: BlockWeights | None = None,
    vae: Any = None,
) -> tuple[Conditioning, Conditioning]:
    """Both conditionings under one control of `control_net` and the picture (N, H, W, C) in 0..1.

    At strength 0 they come back unchanged, so nothing is computed. Raises ControlError for input that cannot work.
    """
    layer = make_layer(
        control_net,
        hint_from_image(image_bhwc),
        strength=strength,
        start_percent=start_percent,
        end_percent=end_percent,
        uncond_strength=uncond_strength,
        weights=weights,
        vae=vae,
    )
    if strength == 0:
        return positive, negative
    with_control = attach((positive, negative), layer, getattr(control_net, "extra_hooks", None))
    return with_control[0], with_control[1]
