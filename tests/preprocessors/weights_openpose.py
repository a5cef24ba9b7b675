"""Narrow networks of OpenPose that find people in noise, in the published files' names."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

WIDE = {64: 64, 128: 128, 256: 256, 512: 512}
NARROW = {64: 4, 128: 5, 256: 6, 512: 7}


def layers_of(name: str) -> list[tuple[str, int, int, int]]:
    """Name, channels before, channels after, kernel: written from the published prototxt files, which name every layer so."""
    body = name == "body"
    stem = [("conv1_1", 3, 64), ("conv1_2", 64, 64), ("conv2_1", 64, 128), ("conv2_2", 128, 128), ("conv3_1", 128, 256)]
    stem += [("conv3_2", 256, 256), ("conv3_3", 256, 256), ("conv3_4", 256, 256), ("conv4_1", 256, 512)]
    stem += [("conv4_2", 512, 512)]
    if body:
        stem += [("conv4_3_CPM", 512, 256), ("conv4_4_CPM", 256, 128)]
    else:
        stem += [("conv4_3", 512, 512), ("conv4_4", 512, 512), ("conv5_1", 512, 512), ("conv5_2", 512, 512)]
        stem += [("conv5_3_CPM", 512, 128)]
    found = [(layer, before, after, 3) for layer, before, after in stem]
    maps = {"body": 57, "hand": 22, "face": 71}[name]
    for ending, count in (("_L1", 38), ("_L2", 19)) if body else (("", maps),):
        if body:
            found += [(f"conv5_{n}_CPM{ending}", 128, 128, 3) for n in (1, 2, 3)]
            found += [(f"conv5_4_CPM{ending}", 128, 512, 1), (f"conv5_5_CPM{ending}", 512, count, 1)]
        else:
            found += [("conv6_1_CPM", 128, 512, 1), ("conv6_2_CPM", 512, count, 1)]
        for stage in range(2, 7):
            found += [(f"Mconv1_stage{stage}{ending}", -(128 + maps), 128, 7)]
            found += [(f"Mconv{n}_stage{stage}{ending}", 128, 128, 7) for n in (2, 3, 4, 5)]
            found += [(f"Mconv6_stage{stage}{ending}", 128, 128, 1), (f"Mconv7_stage{stage}{ending}", 128, count, 1)]
    return found


def openpose_shapes(name: str, widths: dict[int, int]) -> Shapes:
    """`widths`: what stands for the published ones."""
    shapes: Shapes = {}
    for layer, before, after, kernel in layers_of(name):
        channels = widths[128] - before - 128 if before < 0 else widths.get(before, before)
        out = widths.get(after, after)
        shapes |= {f"{layer}.weight": (out, channels, kernel, kernel), f"{layer}.bias": (out,)}
    return shapes


def random_openpose(name: str, widths: dict[int, int] = WIDE, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep the spread of what goes through."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, shape in openpose_shapes(name, widths).items():
        spread = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5 if len(shape) > 1 else 0.1
        weights[key] = torch.randn(shape, generator=generator) * spread
    return weights


def narrow_openpose(name: str) -> dict[str, Tensor]:
    """Hands and faces show points at random; bodies join whatever lies in a direction of each limb's own."""
    weights = random_openpose(name, NARROW)
    if name != "body":
        return weights
    last = "Mconv7_stage6_L1"
    weights[f"{last}.weight"] *= 0.1
    angles = torch.linspace(0, 12, 19)
    weights[f"{last}.bias"] = torch.stack([angles.cos(), angles.sin()], 1).flatten()
    weights["Mconv7_stage6_L2.weight"] *= 8
    weights["Mconv7_stage6_L2.bias"][:] = -0.2
    return weights


MADE = {f"OpenPose-{name}": partial(narrow_openpose, name) for name in ("body", "hand", "face")}
"""By annotator: the weights of its file."""
