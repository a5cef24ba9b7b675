"""Cases of ControlNeXt: a file of each release, as the Load node loads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from control_composer.checkpoints.controlnext import ControlNeXtHyperparameters, Release, controlnext_shapes
from control_composer.control import Control
from control_composer.nodes.load import load_source
from control_composer.tests import narrow
from control_composer.tests.control.case import Case, save

NETWORKS: dict[Release, ControlNeXtHyperparameters] = {
    "SD1.5": ControlNeXtHyperparameters("SD1.5", 3, (), (16, 32, 32), 32, 48, 128),
    "SDXL": ControlNeXtHyperparameters("SDXL", 3, (), (16, 32, 32), 32, 48, 128),
    "SDXL July": ControlNeXtHyperparameters("SDXL July", 3, (8, 6, 16), (16, 32, 32), 32, 48, 128),
    "August": ControlNeXtHyperparameters("August", 3, (8, 6, 16), (16, 32), 32, 48, 32),
}


def random_controlnext(release: Release, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep activations near one, and a scale of 0.7 where there is one."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in controlnext_shapes(NETWORKS[release]).items():
        noise = torch.randn(shape, generator=generator)
        norm = name.endswith("weight") and len(shape) == 1
        weights[name] = noise / noise[0].numel() ** 0.5 if len(shape) > 1 else 0.1 * noise + (1.0 if norm else 0.1)
    return weights | ({"scale": torch.tensor(0.7)} if "scale" in weights else {})


def controlnext(kind: str, release: Release, connected: bool = True) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        path = save(folder, random_controlnext(release), "controlnext.safetensors")
        model = narrow.make_model(kind)
        source, description = load_source(path, model if connected else None, "auto")
        return Case(kind, model, Control.unbound(source), None, description)

    return make
