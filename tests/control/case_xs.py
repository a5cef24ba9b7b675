"""Cases of ControlNet-XS: narrow files of random weights in the layouts of both of diffusers' classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from control_composer.checkpoints.xs import XSHyperparameters, xs_shapes
from control_composer.control import Control
from control_composer.nodes.load import load_source
from control_composer.tests import narrow
from control_composer.tests.control.case import Case, save

STREAMS = {
    "sd1": XSHyperparameters(
        in_channels=4,
        hint_channels=3,
        hint_widths=(16, 32, 96, 256),
        channels=(4, 8, 16, 16),
        base_channels=(32, 64, 128, 128),
        depth=(1, 1, 1, 1, 1, 1, -1, -1),
        depth_middle=1,
        inner=(4, 8, 16, 16),
        context_dim=24,
        linear=False,
        own_time=False,
    ),
    "sdxl": XSHyperparameters(
        in_channels=4,
        hint_channels=3,
        hint_widths=(16, 32, 96, 256),
        channels=(8, 16, 32),
        base_channels=(32, 64, 128),
        depth=(-1, -1, 1, 1, 2, 2),
        depth_middle=2,
        inner=(8, 16, 32),
        context_dim=40,
        linear=True,
        own_time=False,
    ),
}


def random_xs(net: XSHyperparameters, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep activations near one, zero convolutions included."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in xs_shapes(net).items():
        noise = torch.randn(shape, generator=generator)
        norm = name.endswith("weight") and len(shape) == 1
        weights[name] = noise / noise[0].numel() ** 0.5 if len(shape) > 1 else 0.1 * noise + float(norm)
    return weights


def xs(kind: str) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        path = save(folder, random_xs(STREAMS[kind]), "xs.safetensors", {"num_heads": "2"})
        model = narrow.make_model(kind)
        source, description = load_source(path, model, "auto")
        return Case(kind, model, Control.unbound(source), None, description)

    return make
