"""Attaching a control to conditionings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.hooks
from torch import Tensor

from ..residuals.batches import BatchPolicy
from ..residuals.masks import MaskError, prepare_mask
from ..residuals.schedules import Schedule
from ..residuals.weights import BlockWeights, Flat
from .control import Control
from .errors import ControlError
from .foreign import ForeignControl
from .layer import Beside, Layer, Source, check_pixels, hint_from_image
from .network import EncoderNetwork
from .placing import Fill, Placing, Sizing, check_aspect
from .reuse import Reuse

Conditioning = list[list[Any]]


def make_layer(
    control_net: Any,
    hint_bchw: Tensor,
    *,
    strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    vae: Any = None,
    node: str = "Apply Control",
    **settings: Any,
) -> Layer:
    """A layer of a CONTROL_NET, ours or the host's, and a hint (N, C, H, W); `settings` are those of Layer.

    A stock ControlNet of Stable Diffusion becomes a layer like our own. Any other control keeps its own arithmetic; its strength and range are
    set in a copy of it, `vae` is for those that read latents. Raises ControlError.
    """
    source: Source | None
    if isinstance(control_net, Control):
        source = control_net.source
    else:
        source = EncoderNetwork.from_stock(control_net) or foreign_of(control_net, node)
    if isinstance(source, ForeignControl):
        own = control_net.extra_args if isinstance(control_net, Control) else {}
        source = source.with_hint(hint_bchw, strength, (start_percent, end_percent), vae, extra_args=own)
    elif source is not None:
        source = source.with_vae(vae)
    if source is None:
        raise ControlError(
            f"control_net of {node} has its layers already, but one fresh from a Load node was expected; "
            "connect the Load node to it."
        )
    hooks = hooks_of(control_net)
    return check_pixels(
        Layer(source, hint_bchw, strength, start_percent, end_percent, extra_hooks=hooks, node=node, **settings)
    )


def hooks_of(control_net: Any) -> Any:
    """The hooks that were put on a CONTROL_NET, ours or the host's."""
    return control_net.own_hooks if isinstance(control_net, Control) else getattr(control_net, "extra_hooks", None)


def foreign_of(control_net: Any, node: str) -> ForeignControl:
    """A control of another kind. Raises ControlError for what is no control."""
    if not all(callable(getattr(control_net, name, None)) for name in ("copy", "set_cond_hint", "get_control")):
        raise ControlError(
            f"control_net of {node} is {'empty' if control_net is None else type(control_net).__name__}, but a control was expected; "
            "connect a Load ControlNet node, and if it is connected, look at what it said about the file."
        )
    return ForeignControl(control_net, f"the connected control_net ({type(control_net).__name__})")


def attach(
    conditionings: tuple[Conditioning, ...], layers: Sequence[Layer], inspect: bool = False
) -> tuple[Conditioning, ...]:
    """New conditionings that carry `layers`, in one control, after the controls they had.

    Conditionings with the same control before get one and the same control after, or the host could not put them into one batch.
    """
    made: dict[int, Control] = {}
    hooks = comfy.hooks.HookGroup.combine_all_hooks([layer.extra_hooks for layer in layers])

    def control_after(previous: Any) -> Control:
        if id(previous) not in made:
            control = Control(layers=layers, inspect=inspect)
            control.extra_hooks = hooks
            made[id(previous)] = control.set_previous_controlnet(previous)
        return made[id(previous)]

    def attached(entry: list[Any]) -> list[Any]:
        values = {**entry[1], "control": control_after(entry[1].get("control")), "control_apply_to_uncond": False}
        return [entry[0], values, *entry[2:]]

    return tuple([attached(entry) for entry in conditioning] for conditioning in conditionings)


def layer_of(
    control_net: Any,
    image_bhwc: Tensor,
    strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    uncond_strength: float = 1.0,
    weights: BlockWeights | None = None,
    vae: Any = None,
    schedule: Schedule | None = None,
    mask: Tensor | None = None,
    *,
    enabled: bool = True,
    invert_mask: bool = False,
    feather_mask: float = 0.0,
    sizing: Sizing = "crop",
    fill: Fill = "black",
    batch: BatchPolicy = "cycle",
    reuse: Reuse | None = None,
    beside: Beside = "auto",
    node: str = "Control Layer",
) -> Layer:
    """A layer of `control_net` and the picture (N, H, W, C) in 0..1; `mask` (N, H, W) in 0..1 covers the picture.

    Raises ControlError for input that cannot work, with the name of the `node` that it came to.
    """
    return make_layer(
        control_net,
        hint_from_image(image_bhwc, node),
        strength=strength,
        start_percent=start_percent,
        end_percent=end_percent,
        vae=vae,
        node=node,
        uncond_strength=uncond_strength,
        weights=weights or Flat(),
        schedule=schedule,
        mask=None if mask is None else mask_for(mask, image_bhwc, node, invert_mask, feather_mask),
        enabled=enabled,
        placing=Placing(sizing, fill),
        batch=batch,
        reuse=reuse or Reuse(),
        beside=beside,
    )


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
    schedule: Schedule | None = None,
    mask: Tensor | None = None,
) -> tuple[Conditioning, Conditioning]:
    """Both conditionings under one control of `control_net` and the picture: `layer_of` and `attach` in one.

    At strength 0 they come back unchanged, so nothing is computed.
    """
    layer = layer_of(
        control_net,
        image_bhwc,
        strength,
        start_percent,
        end_percent,
        uncond_strength,
        weights,
        vae,
        schedule,
        mask,
        node="Apply Control",
    )
    if strength == 0:
        return positive, negative
    with_control = attach((positive, negative), (layer,))
    return with_control[0], with_control[1]


def mask_for(mask: Tensor, image_bhwc: Tensor, node: str, invert: bool = False, feather: float = 0.0) -> Tensor:
    """The host's MASK as a layer wants it, (N, H, W) in 0..1, of the picture's aspect. Raises ControlError."""
    try:
        prepared = prepare_mask(mask, invert, feather)
    except MaskError as problem:
        raise ControlError(f"{node}: {problem}") from None
    check_aspect((prepared.shape[-2], prepared.shape[-1]), (image_bhwc.shape[1], image_bhwc.shape[2]))
    return prepared
