"""Networks of lines with random weights, in the published files' names and, but for M-LSD's, narrow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def normalised(name: str, channels: int) -> Shapes:
    """A batch normalisation's tensors."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def convolution(name: str, outside: int, inside: int, kernel: int, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (outside, inside, kernel, kernel)}
    return weight | ({f"{name}.bias": (outside,)} if bias else {})


def pair(name: str, index: int, outside: int, inside: int, kernel: int, bias: bool) -> Shapes:
    within = f"{name}." if name else ""
    return convolution(f"{within}{index}", outside, inside, kernel, bias) | normalised(f"{within}{index + 1}", outside)


def mlsd_shapes(tiny: bool) -> Shapes:
    """Written from the published classes (lhwcv/mlsd_pytorch, models/)."""
    shapes = pair("backbone.features.0", 0, 32, 4, 3, False)
    number, inside = 0, 32
    for wider, outside, count in [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3)][: 4 if tiny else 5]:
        for _ in range(count):
            number += 1
            name, wide, place = f"backbone.features.{number}.conv", inside * wider, 0
            if wider > 1:
                shapes |= pair(f"{name}.0", 0, wide, inside, 1, False)
                place = 1
            shapes |= pair(f"{name}.{place}", 0, wide, 1, 3, False)
            shapes |= pair(name, place + 1, outside, wide, 1, False)
            inside = outside
    joints = [(12, 64, 32, 64), (14, 64, 24, 32)]
    if not tiny:
        joints = [(15, 96, 64, 64), (17, 64, 32, 64), (19, 64, 24, 64), (21, 64, 16, 64)]
    for block, deep, shallow, width in joints:
        shapes |= pair(f"block{block}.conv1", 0, width, deep, 1, True)
        shapes |= pair(f"block{block}.conv2", 0, width, shallow, 1, True)
        shapes |= pair(f"block{block + 1}.conv1", 0, 2 * width, 2 * width, 3, True)
        shapes |= pair(f"block{block + 1}.conv2", 0, 64, 2 * width, 3, True)
    last = f"block{16 if tiny else 23}"
    shapes |= pair(f"{last}.conv1", 0, 64, 64, 3, True) | pair(f"{last}.conv2", 0, 64, 64, 3, True)
    return shapes | convolution(f"{last}.conv3", 16, 64, 1)


def lineart_shapes(width: int) -> Shapes:
    """Written from the published class (carolineec/informative-drawings, model.py)."""
    shapes = convolution("model0.1", width, 3, 7)
    shapes |= convolution("model1.0", 2 * width, width, 3) | convolution("model1.3", 4 * width, 2 * width, 3)
    for block in range(3):
        for place in (1, 5):
            shapes |= convolution(f"model2.{block}.conv_block.{place}", 4 * width, 4 * width, 3)
    for place, inside in ((0, 4 * width), (3, 2 * width)):
        shapes |= {f"model3.{place}.weight": (inside, inside // 2, 3, 3), f"model3.{place}.bias": (inside // 2,)}
    return shapes | convolution("model4.1", 1, width, 7)


def lineart_anime_shapes(width: int) -> Shapes:
    """Written from the published class (Mukosame/Anime2Sketch, model.py), with the mark of several devices that the file has."""
    shapes: Shapes = {}
    name, outside = "module.model", 3
    for depth, inside in enumerate(factor * width for factor in (1, 2, 4, 8, 8, 8, 8, 8)):
        down, within, up = {0: (0, 1, 3), 7: (1, None, 3)}.get(depth, (1, 3, 5))
        shapes |= convolution(f"{name}.model.{down}", inside, outside, 4)
        below = 1 if depth == 7 else 2
        shapes[f"{name}.model.{up}.weight"] = (below * inside, 1 if depth == 0 else outside, 4, 4)
        shapes[f"{name}.model.{up}.bias"] = (1 if depth == 0 else outside,)
        name, outside = f"{name}.model.{within}", inside
    return shapes


def manga_line_shapes(width: int) -> Shapes:
    """Written from the published class (ljsabc/MangaLineExtraction_PyTorch, model_torch.py)."""
    wide = [width * factor for factor in (1, 2, 4, 8, 16)]
    # Channels before and after, blocks, and whether one of them changes the size.
    stages = [(1, wide[0], 2, False), (wide[0], wide[1], 3, True), (wide[1], wide[2], 5, True)]
    stages += [(wide[2], wide[3], 7, True), (wide[3], wide[4], 12, True), (wide[4], wide[3], 7, False)]
    stages += [(wide[3], wide[2], 5, False), (wide[2], wide[1], 3, False), (wide[1], wide[0], 2, False)]
    stages += [(wide[0], width * 2 // 3, 2, False)]
    shapes: Shapes = {}
    for stage, (channels, outside, blocks, halves) in enumerate(stages):
        for block in range(blocks):
            name, inside = f"block{stage}.model.{block}", outside if block else channels
            for part, before in (("conv1", inside), ("residual", outside)):
                shapes |= normalised(f"{name}.{part}.model.0", before)
                shapes |= convolution(f"{name}.{part}.model.2", outside, before, 3)
            if inside != outside or (halves and block == blocks - 1):
                shapes |= convolution(f"{name}.shortcut.model.0", outside, inside, 1)
    last = width * 2 // 3
    return shapes | normalised("conv15.model.0", last) | convolution("conv15.model.2", 1, last, 1)


def random_lines(shapes: Shapes, seed: int = 0, gain: float = 1.4) -> dict[str, Tensor]:
    """Weights that keep the spread of what goes through."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            values = torch.tensor(7)
        elif name.endswith("running_var") or (name.endswith(".weight") and len(shape) == 1):
            values = 0.8 + 0.2 * values.abs()
        elif len(shape) == 4:
            values *= gain * (shape[1] * shape[2] * shape[3]) ** -0.5
        else:
            values *= 0.2
        weights[name] = values
    return weights


def random_mlsd(tiny: bool) -> dict[str, Tensor]:
    """Lines of a few pixels in all directions, some of them likelier than others."""
    weights = random_lines(mlsd_shapes(tiny), seed=5, gain=1.2)
    last = f"block{16 if tiny else 23}.conv3"
    bias = weights[f"{last}.bias"]
    bias[7], bias[8:12] = -2.0, torch.tensor([-6.0, 4.0, 5.0, -3.0])
    weights[f"{last}.weight"][7:12] *= torch.tensor([2.0, 8, 8, 8, 8]).reshape(-1, 1, 1, 1)
    return weights


def narrow_manga_line() -> dict[str, Tensor]:
    weights = random_lines(manga_line_shapes(6), seed=2, gain=0.7)
    first = "block0.model.0.conv1.model.0"
    weights[f"{first}.running_mean"], weights[f"{first}.running_var"] = torch.tensor([128.0]), torch.tensor([5000.0])
    # The shortcut gets the picture as it is, 0..255; the lines are made of all of what comes up.
    weights["block0.model.0.shortcut.model.0.weight"] *= 0.01
    weights["conv15.model.2.weight"] *= 100
    weights["conv15.model.2.bias"] += 120
    return weights


MADE: dict[str, Callable[[], dict[str, Tensor]]] = {
    "MLSD-large": lambda: random_mlsd(False),
    "MLSD-tiny": lambda: random_mlsd(True),
    "Lineart": lambda: random_lines(lineart_shapes(8)),
    "Lineart-coarse": lambda: random_lines(lineart_shapes(8), seed=1),
    "LineartAnime": lambda: random_lines(lineart_anime_shapes(4)),
    "MangaLine": narrow_manga_line,
}
