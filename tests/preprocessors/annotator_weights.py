"""Networks of random weights, as narrow as the published code can be, in the published files' names and shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from control_composer.preprocessors import Preprocessor
from control_composer.preprocessors.annotators import ANNOTATORS, BY_ID, Annotator
from control_composer.preprocessors.networks.network import Network
from control_composer.tests.preprocessors import (
    weights_depth,
    weights_dwpose,
    weights_lines,
    weights_normals,
    weights_openpose,
    weights_segmentation,
    weights_vitpose,
)

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


def hed_shapes(widths: tuple[int, ...]) -> Shapes:
    """Written from the published class (lllyasviel, ControlNetHED_Apache2)."""
    shapes: Shapes = {"norm": (1, 3, 1, 1)}
    inside = 3
    for block, (count, width) in enumerate(zip((2, 2, 3, 3, 3), widths, strict=True), start=1):
        for number in range(count):
            shapes[f"block{block}.convs.{number}.weight"] = (width, inside, 3, 3)
            shapes[f"block{block}.convs.{number}.bias"] = (width,)
            inside = width
        shapes[f"block{block}.projection.weight"] = (1, width, 1, 1)
        shapes[f"block{block}.projection.bias"] = (1,)
    return shapes


def teed_shapes() -> Shapes:
    """Written from the published class (xavysp/TEED, ted.py)."""
    weights: Shapes = {
        "block_1.conv1": (16, 3, 3, 3),
        "block_1.conv2": (16, 16, 3, 3),
        "block_2.conv1": (32, 16, 3, 3),
        "block_2.conv2": (32, 32, 3, 3),
        "dblock_3.denselayer1.conv1": (48, 32, 3, 3),
        "dblock_3.denselayer1.conv2": (48, 48, 3, 3),
        "side_1.conv": (32, 16, 1, 1),
        "pre_dense_3.conv": (48, 32, 1, 1),
        "up_block_1.features.0": (1, 16, 1, 1),
        "up_block_1.features.2": (1, 1, 2, 2),
        "up_block_2.features.0": (1, 32, 1, 1),
        "up_block_2.features.2": (1, 1, 2, 2),
        "up_block_3.features.0": (16, 48, 1, 1),
        "up_block_3.features.2": (16, 16, 4, 4),
        "up_block_3.features.3": (1, 16, 1, 1),
        "up_block_3.features.5": (1, 1, 4, 4),
        "block_cat.DWconv1": (24, 1, 3, 3),
        "block_cat.DWconv2": (24, 1, 3, 3),
    }
    biases = {f"{name}.bias": (shape[0],) for name, shape in weights.items()}
    return {f"{name}.weight": shape for name, shape in weights.items()} | biases


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


def narrow_hed() -> dict[str, Tensor]:
    weights = random_weights(hed_shapes((8, 8, 12, 12, 12)), gain=1.4)
    weights["norm"] = torch.tensor([120.0, 110.0, 100.0]).reshape(1, 3, 1, 1)
    for block in range(1, 6):
        weights[f"block{block}.projection.weight"] *= 0.05
    return weights


def small_teed(seed: int) -> dict[str, Tensor]:
    weights = random_weights(teed_shapes(), seed, gain=1.4)
    weights["block_1.conv1.weight"] *= 0.2
    return weights


MADE: dict[str, Callable[[], dict[str, Tensor]]] = {
    annotator.id: partial(narrow_pidinet, annotator.id)
    for annotator in ANNOTATORS
    if annotator.id.startswith("PiDiNet")
} | {
    "HED": narrow_hed,
    "TEED": partial(small_teed, 0),
    "AnyLine": partial(small_teed, 1),
    **weights_lines.MADE,
    "NormalBAE": weights_normals.narrow_normalbae,
    **weights_openpose.MADE,
}
"""By annotator: the weights of its file."""


WRITTEN: dict[str, Callable[[Path], None]] = {
    **weights_dwpose.WRITTEN,
    **weights_depth.WRITTEN,
    **weights_segmentation.WRITTEN,
    **weights_vitpose.WRITTEN,
}
"""By annotator that is built from a path: what writes its small file, or its folder, there."""


QUICK: dict[str, dict[str, int]] = {
    "DepthAnything": {"inference_size": 112},
    "ZoeDepth": {"inference_size": 64},
    "SAM": {"points_per_side": 4},
}
"""By preprocessor: what spares time where one size is as good as another."""


@cache
def random_network(identifier: str) -> Network:
    annotator = BY_ID[identifier]
    if identifier in MADE:
        module = annotator.build(MADE[identifier]())
    else:
        with TemporaryDirectory() as folder:
            path = Path(folder) / (annotator.folder.rpartition("/")[2] or annotator.file)
            WRITTEN[identifier](path)
            module = annotator.build(path)
    return Network(module, torch.device("cpu"), torch.float32)


def with_networks(preprocessor: Preprocessor) -> Preprocessor:
    """The preprocessor as one that needs no networks any more, having random ones."""
    if not preprocessor.annotators:
        return preprocessor
    networks = Networks(preprocessor.annotators)
    return replace(
        preprocessor,
        function=partial(preprocessor.function, networks=networks, **QUICK.get(preprocessor.id, {})),
        annotators=(),
        chosen_by=(),
        switches={},
    )


class Networks(Mapping[str, Network]):
    """Random networks, made when they are asked for."""

    def __init__(self, identifiers: tuple[str, ...]):
        self.identifiers = identifiers

    def __getitem__(self, identifier: str) -> Network:
        if identifier not in self.identifiers:
            raise KeyError(identifier)
        return random_network(identifier)

    def __iter__(self) -> Iterator[str]:
        return iter(self.identifiers)

    def __len__(self) -> int:
        return len(self.identifiers)


def write_all(folder: Path) -> None:
    """Every annotator's file, with random weights."""
    for annotator in ANNOTATORS:
        write(annotator, folder)


def write(annotator: Annotator, folder: Path) -> None:
    """An annotator's file, or its folder, with random weights, where it belongs in a folder of annotators."""
    if annotator.id in MADE:
        torch.save(MADE[annotator.id](), folder / annotator.file)
        return
    path = folder / (annotator.folder or annotator.file)
    path.parent.mkdir(parents=True, exist_ok=True)
    WRITTEN[annotator.id](path)
