"""What is compared: each variant puts controls on the conditionings through the function of the node that an artist would use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from control_composer.control import apply_control, compose_controls, layer_of
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
    """`beside` names the variant whose added time its own is divided by; `equal` says that both must give the same picture."""

    name: str
    words: str
    attach: Callable[[Scene], Conditionings]
    beside: str | None = None
    equal: bool = False
    networks: int = 1
    optional: bool = False

    @property
    def of_peer(self) -> bool:
        return self.name.startswith("acn-")


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


def ours(scene: Scene, layers: int = 1, networks: int = 1, **settings: Any) -> Conditionings:
    """Layers in a chain of Apply Control nodes."""
    positive, negative = scene.plain
    for layer in range(layers):
        control_net = scene.networks.control_net(layer % networks)
        positive, negative = apply_control(positive, negative, control_net, scene.picture(layer), STRENGTH, **settings)
    return positive, negative


def reused(scene: Scene, every: int) -> Conditionings:
    """One Control Layer whose network runs at every so many steps."""
    layer = layer_of(scene.networks.control_net(), scene.picture(0), STRENGTH, reuse=Reuse(every))
    return compose_controls(*scene.plain, [layer])


def advanced(
    scene: Scene, layers: int = 1, soft: bool = False, uncond: float = 1.0, masked: bool = False
) -> Conditionings:
    """Layers in a chain of Apply Advanced ControlNet nodes; its weights node is there only where something differs from 1."""
    weights = scene.peer[SOFT].execute(0.825 if soft else 1.0, uncond).args[0] if soft or uncond != 1 else None
    positive, negative = scene.plain
    for layer in range(layers):
        applied = scene.peer[APPLY].execute(
            positive,
            negative,
            scene.networks.control_net(),
            scene.picture(layer),
            STRENGTH,
            0.0,
            1.0,
            mask_optional=scene.mask if masked else None,
            weights_override=weights,
        )
        positive, negative = applied.args
    return positive, negative


# Three layers share one network and have three pictures, unless a name says "networks".
VARIANTS: tuple[Variant, ...] = (
    Variant("none", "no control", lambda scene: scene.plain),
    Variant("stock-1", "stock node", stock),
    Variant("stock-2", "2 stock nodes", lambda scene: stock(scene, 2)),
    Variant("stock-3", "3 stock nodes", lambda scene: stock(scene, 3)),
    Variant("stock-cond-only", "stock node on the positive only", stock_conditional_only, "stock-1"),
    Variant("ours-1", "1 layer", ours, "stock-1", equal=True),
    Variant("ours-2", "2 layers", lambda scene: ours(scene, 2), "stock-2", equal=True),
    Variant("ours-3", "3 layers", lambda scene: ours(scene, 3), "stock-3", equal=True),
    Variant("ours-soft", "1 layer, Soft Weights", lambda scene: ours(scene, weights=SoftWeights()), "stock-1"),
    Variant("ours-cond-only", "1 layer, uncond 0", lambda scene: ours(scene, uncond_strength=0.0), "stock-1"),
    Variant("ours-every-2", "1 layer, every 2 steps", lambda scene: reused(scene, 2), "stock-1"),
    Variant("ours-every-3", "1 layer, every 3 steps", lambda scene: reused(scene, 3), "stock-1"),
    Variant("ours-masked", "1 layer with a soft mask", lambda scene: ours(scene, mask=scene.mask), "stock-1"),
    Variant("ours-zero", "1 layer, all block weights 0", lambda scene: ours(scene, weights=Flat(0.0)), "stock-1"),
    # The sigmas come from the first 0.8 of a sampling.
    Variant("ours-outside", "1 layer out of its range", lambda scene: ours(scene, start_percent=0.9), "stock-1"),
    Variant("acn-1", "1 Advanced-ControlNet", advanced, "stock-1", equal=True),
    Variant("acn-2", "2 Advanced-ControlNet", lambda scene: advanced(scene, 2), "stock-2", equal=True),
    Variant("acn-3", "3 Advanced-ControlNet", lambda scene: advanced(scene, 3), "stock-3", equal=True),
    Variant("acn-soft", "its scaled soft weights", lambda scene: advanced(scene, soft=True), "stock-1"),
    Variant("acn-cond-only", "its uncond multiplier 0", lambda scene: advanced(scene, uncond=0.0), "stock-1"),
    Variant("acn-masked", "its mask", lambda scene: advanced(scene, masked=True), "stock-1"),
    Variant("stock-3-networks", "3 stock nodes", lambda scene: stock(scene, 3, 3), networks=3, optional=True),
    Variant(
        "ours-3-networks",
        "3 layers",
        lambda scene: ours(scene, 3, 3),
        "stock-3-networks",
        equal=True,
        networks=3,
        optional=True,
    ),
)
