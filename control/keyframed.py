"""Layers out of timestep keyframes, and controls that carry keyframes until their hint comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..residuals.blocks import NOMINAL_LATENT
from ..residuals.keyframe_weights import KeyframeWeights, OnlyAt, ScaledSoft
from ..residuals.schedules import ScheduleError
from ..residuals.timestep_keyframes import LatentStrengths, Part, Timeline, parts_of
from .apply import Conditioning, attach, make_layer, mask_for
from .control import Control
from .errors import ControlError
from .foreign import ForeignControl
from .layer import Layer, Source, hint_from_image

NODE = "Apply Advanced ControlNet"


@dataclass(frozen=True, eq=False)
class LatentHint:
    """A picture with the VAE that will make it latents: what that pack's RGB SparseCtrl and Reference Preprocessor hand out in place of a picture."""

    image: Tensor
    vae: Any


@dataclass(frozen=True, eq=False)
class Keyframing:
    """All that shapes a control beside its strength, range and mask."""

    timeline: Timeline | None = None
    weights: KeyframeWeights | None = None
    latents: LatentStrengths | None = None

    def layers(self, layer: Layer) -> tuple[Layer, ...]:
        """`layer` as one for each part of the timeline, of which one acts at a time. Raises ControlError."""
        try:
            parts = parts_of(self.timeline, self.weights, self.latents)
        except ScheduleError as problem:
            raise ControlError(f"The keyframes of {layer.source.name} cannot be meant: {problem}") from None
        return tuple(one for part in parts for one in layers_of(layer, part))


def layers_of(layer: Layer, part: Part) -> Iterator[Layer]:
    """One layer; with a ladder whose base is a mask one for each block, because each gets another power of it. They share a network pass."""
    weights, mask = part.settings.weights, both(layer.mask, checked_mask(part.settings.mask, layer))
    shaped = replace(
        layer,
        weights=weights.blocks,
        uncond_strength=weights.uncond_multiplier,
        schedule=part.schedule,
        mask=mask,
        batch="hold last" if len(layer.hint_bchw) > 1 or (mask is not None and len(mask) > 1) else "cycle",
    )
    base = checked_mask(weights.base_mask, layer)
    if base is None:
        yield shaped
        return
    if isinstance(layer.source, ForeignControl):
        raise ControlError(
            f"Scaled Soft Masked Weights are connected to {layer.source.name}, but only networks whose blocks are known before they run can have a "
            "ladder for each pixel; connect Scaled Soft Weights and a mask."
        )
    powers = ScaledSoft(1.0).powers(layer.source.blocks(NOMINAL_LATENT, NOMINAL_LATENT))
    for position, power in enumerate(powers):
        only = weights.blocks * OnlyAt(position)
        yield replace(shaped, weights=only, mask=mask if power == 0 else both(mask, base**power))


def checked_mask(mask: Tensor | None, layer: Layer) -> Tensor | None:
    """A keyframe's mask as a layer wants it. Raises ControlError."""
    return None if mask is None else mask_for(mask, layer.hint_bchw.movedim(1, -1), layer.node)


def both(mask: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The product of two masks (N, H, W), at the size of the first, as long as the longer one: the shorter one's last mask holds."""
    if mask is None or other is None:
        return other if mask is None else mask
    if other.shape[-2:] != mask.shape[-2:]:
        other = torch.nn.functional.interpolate(other[:, None], mask.shape[-2:], mode="bilinear")[:, 0]
    count = max(len(mask), len(other))
    return held(mask, count) * held(other, count)


def held(masks: Tensor, count: int) -> Tensor:
    return torch.cat([masks, masks[-1:].expand(count - len(masks), -1, -1)])


class KeyframedControl(Control):
    """A loaded control with keyframes that its Load node got, for the stock Apply nodes and for that pack's."""

    def __init__(self, inner: Any, keyframing: Keyframing) -> None:
        super().__init__()
        self.inner = inner
        self.keyframing = keyframing
        self.concat_mask = bool(getattr(inner, "concat_mask", False))  # the stock node for inpainting asks for it

    @property
    def source(self) -> Source | None:
        """Nothing that a layer could be made of without its keyframes: raises ControlError."""
        raise ControlError(
            "control_net has timestep keyframes from its Load node, but a control without any was expected; connect it to a stock Apply ControlNet or "
            f"to {NODE} (Control Composer), or take the keyframes off its Load node and write them into a Strength Keyframes node."
        )

    def copy(self) -> KeyframedControl:
        twin = KeyframedControl(self.inner, self.keyframing)
        self.copy_to(twin)
        return twin

    def set_cond_hint(
        self,
        cond_hint: Tensor,
        strength: float = 1.0,
        timestep_percent_range: tuple[float, float] = (0.0, 1.0),
        vae: Any = None,
        extra_concat: Sequence[Tensor] = (),
    ) -> Control:
        """A control with layers in place of keyframes: the stock Apply nodes' way."""
        bound: Control = (
            self.freed().copy().set_cond_hint(cond_hint, strength, timestep_percent_range, vae, extra_concat)
        )
        bound.layers = tuple(one for layer in bound.layers for one in self.keyframing.layers(layer))
        return bound

    def freed(self) -> Any:
        """The control without keyframes, with what stock nodes have set on this one."""
        control = self.inner.copy()
        for name, value in self.extra_args.items():
            control.set_extra_arg(name, value)
        if self.own_hooks is not None:
            control.extra_hooks = self.own_hooks
        return control


def apply_keyframed(
    conditionings: tuple[Conditioning, ...],
    control_net: Any,
    image_bhwc: Tensor | LatentHint,
    strength: float,
    start_percent: float,
    end_percent: float,
    mask: Tensor | None,
    vae: Any,
    keyframing: Keyframing,
    *,
    to_uncond: bool = False,
) -> tuple[Conditioning, ...]:
    """The conditionings under one control with the layers that `keyframing` makes of it.

    Keyframes of the Load node act where there are none here. At strength 0 the conditionings come back unchanged. `to_uncond` lets the host give
    the control to the unconditional branch too. Raises ControlError.
    """
    if strength == 0:
        return conditionings
    if isinstance(control_net, KeyframedControl):
        keyframing = replace(keyframing, timeline=keyframing.timeline or control_net.keyframing.timeline)
        control_net = control_net.freed()
    if isinstance(image_bhwc, LatentHint):
        vae = image_bhwc.vae
        image_bhwc = image_bhwc.image
    layer = make_layer(
        control_net,
        hint_from_image(image_bhwc, NODE),
        strength=strength,
        start_percent=start_percent,
        end_percent=end_percent,
        vae=vae,
        node=NODE,
        mask=None if mask is None else mask_for(mask, image_bhwc, NODE),
    )
    attached = attach(conditionings, keyframing.layers(layer))
    if not to_uncond:
        return attached
    return tuple(
        [[entry[0], {**entry[1], "control_apply_to_uncond": True}, *entry[2:]] for entry in conditioning]
        for conditioning in attached
    )
