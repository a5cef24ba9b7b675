"""Networks of random weights, as narrow as the published code can be, in the published files' names and shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from control_composer.preprocessors import Preprocessor
from control_composer.preprocessors.annotators import ANNOTATORS, BY_ID
from control_composer.preprocessors.networks.network import Network

Shapes = dict[str, tuple[int, ...]]


def pidinet_shapes(channels: int, dilated: int = 0, attention: bool = False) -> Shapes:
    """Written from the published class (hellozhuo/pidinet, models/pidinet.py)."""
    shapes: Shapes = {"init_block.weight": (channels, 3, 3, 3)}
    inside = channels
    for stage, (blocks, outside) in enumerate([(3, 1), (4, 2), (4, 4), (4, 4)], start=1):
        for block in range(1, blocks + 1):
            name = f"block{stage}_{block}"
            if stage > 1 and block == 1:
                shapes[f"{name}.shortcut.weight"] = (outside * channels, inside, 1, 1)
                shapes[f"{name}.shortcut.bias"] = (outside * channels,)
            shapes[f"{name}.conv1.weight"] = (inside, 1, 3, 3)
            inside, before = outside * channels, inside
            shapes[f"{name}.conv2.weight"] = (inside, before, 1, 1)
    for index, width in enumerate([channels, 2 * channels, 4 * channels, 4 * channels]):
        if dilated:
            shapes[f"dilations.{index}.conv1.weight"] = (dilated, width, 1, 1)
            shapes[f"dilations.{index}.conv1.bias"] = (dilated,)
            shapes |= {f"dilations.{index}.conv2_{view}.weight": (dilated, dilated, 3, 3) for view in (1, 2, 3, 4)}
        width = dilated or width
        if attention:
            shapes[f"attentions.{index}.conv1.weight"] = (4, width, 1, 1)
            shapes[f"attentions.{index}.conv1.bias"] = (4,)
            shapes[f"attentions.{index}.conv2.weight"] = (1, 4, 3, 3)
        shapes[f"conv_reduces.{index}.conv.weight"] = (1, width, 1, 1)
        shapes[f"conv_reduces.{index}.conv.bias"] = (1,)
    return shapes | {"classifier.weight": (1, 4, 1, 1), "classifier.bias": (1,)}


def random_weights(shapes: Shapes, seed: int = 0, gain: float = 1.0) -> dict[str, Tensor]:
    """Weights that keep the spread of what goes through."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        fan_in = max(1, int(torch.tensor(shape[1:]).prod())) if len(shape) > 1 else 16
        weights[name] = torch.randn(shape, generator=generator) * gain * fan_in**-0.5
    return weights


def narrow_pidinet(identifier: str) -> dict[str, Tensor]:
    light = identifier.endswith("-L")
    weights = random_weights(pidinet_shapes(8, 0 if light else 4, not light))
    # Edges of every strength, most of them weak.
    weights["classifier.weight"] *= 8
    weights["classifier.bias"] = 8 * weights["classifier.bias"] - 2.4
    return weights


MADE: dict[str, Callable[[], dict[str, Tensor]]] = {
    annotator.id: partial(narrow_pidinet, annotator.id)
    for annotator in ANNOTATORS
    if annotator.id.startswith("PiDiNet")
}
"""By annotator: the weights of its file."""


@cache
def random_network(identifier: str) -> Network:
    module = BY_ID[identifier].build(MADE[identifier]())
    return Network(module, torch.device("cpu"), torch.float32)


def with_networks(preprocessor: Preprocessor) -> Preprocessor:
    """The preprocessor as one that needs no networks any more, having random ones."""
    if not preprocessor.annotators:
        return preprocessor
    networks = {identifier: random_network(identifier) for identifier in preprocessor.annotators}
    return replace(
        preprocessor, function=partial(preprocessor.function, networks=networks), annotators=(), chosen_by=""
    )


def write_all(folder: Path) -> None:
    """Every annotator's file, with random weights under the mark of several devices where the published ones have it."""
    for annotator in ANNOTATORS:
        torch.save(MADE[annotator.id](), folder / annotator.file)
