"""What is compared: each variant puts controls on the conditionings through the function of the node that an artist would use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from control_composer.control import compose_controls, layer_of
from control_composer.control.layer import Beside
from control_composer.control.reuse import Reuse
from control_composer.residuals.weights import Flat, SoftWeights

from .peers import APPLY, SOFT
from .widths import Networks, picture

Conditionings = tuple[Any, Any]
STRENGTH = 0.8


@dataclass(frozen=True)
class Scene:
    """Conditionings, pictures and networks that all variants share. `peer` holds Advanced-ControlNet's nodes, if it is there."""

    networks: Networks
    pixels: int
    peer: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> Conditionings:
        """The positive and the negative conditioning without a control."""
        return self.networks.width.conditioning(1), self.networks.width.conditioning(2)

    def picture(self, layer: int) -> Tensor:
        """The IMAGE of the layer with this number."""
        return picture(self.pixels, 10 + layer)

    @property
    def mask(self) -> Tensor:
        """A soft MASK (1, pixels, pixels): nothing at the left, all at the right."""
        return torch.linspace(0, 1, self.pixels).expand(1, self.pixels, self.pixels).clone()


@dataclass(frozen=True)
class Variant:
    """`against` names the variant whose added time its own is divided by; `equal` says that both must give the same picture.

    After `period` steps it does the same again.
    """

    name: str
    words: str
    attach: Callable[[Scene], Conditionings]
    against: str | None = None
    equal: bool = False
    networks: int = 1
    optional: bool = False
    period: int = 1

    @property
    def of_peer(self) -> bool:
        return self.name.startswith("acn-")

    @property
    def of_gpu(self) -> bool:
        """Whether it is something else than its namesake on a GPU alone."""
        return self.name.endswith(BESIDE)


def stock(scene: Scene, layers: int = 1, networks: int = 1) -> Conditionings:
    """Layers in a chain of ControlNetApplyAdvanced nodes."""
    import nodes  # ComfyUI's

    positive, negative = scene.plain
    for layer in range(layers):
        control_net = scene.networks.control_net(layer % networks)
        positive, negative = nodes.ControlNetApplyAdvanced().apply_controlnet(
            positive, negative, control_net, scene.picture(layer), STRENGTH, 0.0, 1.0
        )
    return positive, negative


def stock_conditional_only(scene: Scene) -> Conditionings:
    """The stock node's result on the positive conditioning alone, which is how artists do it without a balance."""
    return stock(scene)[0], scene.plain[1]


def ours(scene: Scene, layers: int = 1, networks: int = 1, *, beside: Beside = "off", **settings: Any) -> Conditionings:
    """Layers of Control Layer nodes in a Compose Controls."""
    return compose_controls(
        *scene.plain,
        [
            layer_of(
                scene.networks.control_net(number % networks),
                scene.picture(number),
                STRENGTH,
                beside=beside,
                **settings,
            )
            for number in range(layers)
        ],
    )


def advanced(
    scene: Scene, layers: int = 1, networks: int = 1, soft: bool = False, uncond: float = 1.0, masked: bool = False
) -> Conditionings:
    """Layers in a chain of Apply Advanced ControlNet nodes; its weights node is there only where something differs from 1."""
    weights = scene.peer[SOFT].execute(0.825 if soft else 1.0, uncond).args[0] if soft or uncond != 1 else None
    positive, negative = scene.plain
    for layer in range(layers):
        applied = scene.peer[APPLY].execute(
            positive,
            negative,
            scene.networks.control_net(layer % networks),
            scene.picture(layer),
            STRENGTH,
            0.0,
            1.0,
            mask_optional=scene.mask if masked else None,
            weights_override=weights,
        )
        positive, negative = applied.args
    return positive, negative


MOST = 4
"""Layers of a variant."""
BESIDE = "-beside"
"""Ends the names of those that run beside the model; the others do not, on any device."""


def several(layers: int, networks: int) -> tuple[Variant, Variant, Variant]:
    """So many layers of stock nodes, ours and Advanced-ControlNet, with a picture each, and one network or as many."""
    end = f"{layers}-networks" if networks > 1 else f"{layers}"
    words = f", {networks} networks" if networks > 1 else ""
    optional = networks > 1 or layers == MOST
    like = f"stock-{end}"
    return (
        Variant(
            like,
            f"{layers} stock nodes{words}",
            partial(stock, layers=layers, networks=networks),
            networks=networks,
            optional=optional,
        ),
        Variant(
            f"ours-{end}",
            f"{layers} layers{words}",
            partial(ours, layers=layers, networks=networks),
            like,
            True,
            networks,
            optional,
        ),
        Variant(
            f"acn-{end}",
            f"{layers} Advanced-ControlNet{words}",
            partial(advanced, layers=layers, networks=networks),
            like,
            True,
            networks,
            optional,
        ),
    )


def beside(variant: Variant) -> Variant:
    """The same of ours with "beside_model" on."""
    attach, words = variant.attach, f"{variant.words}, beside the model"
    assert isinstance(attach, partial)
    on = partial(attach.func, *attach.args, **attach.keywords, beside="on")
    return replace(variant, name=variant.name + BESIDE, words=words, attach=on, optional=True)


STOCK, OURS, ACN = zip(
    *(several(layers, networks) for layers in range(2, MOST + 1) for networks in (1, layers)), strict=True
)
FIRST = "stock-1"
SINGLE = (
    Variant("ours-1", "1 layer", partial(ours), FIRST, equal=True),
    Variant("ours-cond-only", "1 layer, uncond 0", partial(ours, uncond_strength=0.0), FIRST),
    Variant("ours-every-2", "1 layer, every 2 steps", partial(ours, reuse=Reuse(2)), FIRST, period=2),
    Variant("ours-every-3", "1 layer, every 3 steps", partial(ours, reuse=Reuse(3)), FIRST, period=3),
)
VARIANTS: tuple[Variant, ...] = (
    Variant("none", "no control", lambda scene: scene.plain),
    Variant(FIRST, "stock node", stock),
    *STOCK,
    Variant("stock-cond-only", "stock node on the positive only", stock_conditional_only, FIRST),
    *SINGLE,
    *OURS,
    Variant("ours-soft", "1 layer, Soft Weights", partial(ours, weights=SoftWeights()), FIRST),
    Variant("ours-masked", "1 layer with a soft mask", lambda scene: ours(scene, mask=scene.mask), FIRST),
    Variant("ours-zero", "1 layer, all block weights 0", partial(ours, weights=Flat(0.0)), FIRST),
    # The sigmas come from the first 0.8 of a sampling.
    Variant("ours-outside", "1 layer out of its range", partial(ours, start_percent=0.9), FIRST),
    *(beside(one) for one in (*SINGLE, *OURS)),
    Variant("acn-1", "1 Advanced-ControlNet", advanced, FIRST, equal=True),
    *ACN,
    Variant("acn-soft", "its scaled soft weights", partial(advanced, soft=True), FIRST),
    Variant("acn-cond-only", "its uncond multiplier 0", partial(advanced, uncond=0.0), FIRST),
    Variant("acn-masked", "its mask", partial(advanced, masked=True), FIRST),
)
