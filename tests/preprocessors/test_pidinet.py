"""PiDiNet against the published definition of its convolutions, written anew here, on random weights and on the real files."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, max_pool2d

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.annotators import PIDINETS
from control_composer.preprocessors.networks.network import Network
from control_composer.preprocessors.networks.pidinet import BASELINE, build_pidinet, variant_of
from control_composer.preprocessors.pidinet import pidinet, scribble_pidinet, sketch_pidinet
from control_composer.tests.preprocessors.annotator_weights import pidinet_shapes, random_network, random_weights
from control_composer.tests.preprocessors.pictures import as_image, noise, photographs

FILES = "CONTROL_COMPOSER_PIDINETS"
"""A folder with the nine published files, for who has them."""


def difference(x: Tensor, weight: Tensor, kind: str) -> Tensor:
    """The paper's equations: sums of weights times differences of two pixels."""
    groups = x.shape[1] // weight.shape[1]
    plain = conv2d(x, weight, padding=1, groups=groups)
    if kind == "cv":
        return plain
    if kind == "cd":  # every pixel minus the middle one
        return plain - conv2d(x, weight.sum((2, 3), keepdim=True), groups=groups)
    # Neighbours on the way round the middle, clockwise from the upper left.
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    height, width = x.shape[2:]

    def pixel(row: int, column: int) -> Tensor:
        """The pixel at an offset from the middle."""
        top, left = row + 2, column + 2
        return padded[:, :, top : top + height, left : left + width]

    total = torch.zeros_like(plain)
    for index, (row, column) in enumerate(ring):
        y, x_ = row - 1, column - 1
        if kind == "ad":  # every pixel of the ring minus the next one clockwise
            following = ring[(index + 1) % 8]
            pair = pixel(y, x_) - pixel(following[0] - 1, following[1] - 1)
            number = 3 * row + column
        else:  # rd: the ring of radius two minus that of radius one; the published code has its first weight unused, not the middle one
            pair = pixel(2 * y, 2 * x_) - pixel(y, x_)
            number = 1 + sum(3 * r + c < 3 * row + column for r, c in ring)
        total = total + conv2d(pair, weight.flatten(2)[:, :, number, None, None], groups=groups)
    return total


def published(weights: dict[str, Tensor], bgr: Tensor, kinds: tuple[str, ...]) -> Tensor:
    w = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    size, of_each = bgr.shape[2:], iter(kinds * 16)
    x, maps = difference(bgr, w["init_block.weight"], next(of_each)), []
    for stage, blocks in enumerate((3, 4, 4, 4), start=1):
        for block in range(1, blocks + 1):
            name, shortcut = f"block{stage}_{block}", None
            if f"{name}.shortcut.weight" in w:
                x = max_pool2d(x, kernel_size=2, stride=2)
                shortcut = conv2d(x, w[f"{name}.shortcut.weight"], w[f"{name}.shortcut.bias"])
            y = difference(x, w[f"{name}.conv1.weight"], next(of_each)).relu()
            x = conv2d(y, w[f"{name}.conv2.weight"]) + (x if shortcut is None else shortcut)
        seen, index = x, stage - 1
        if f"dilations.{index}.conv1.weight" in w:
            seen = conv2d(seen.relu(), w[f"dilations.{index}.conv1.weight"], w[f"dilations.{index}.conv1.bias"])
            seen = sum(  # type: ignore[assignment]
                conv2d(seen, w[f"dilations.{index}.conv2_{n}.weight"], padding=d, dilation=d)
                for n, d in ((1, 5), (2, 7), (3, 9), (4, 11))
            )
        if f"attentions.{index}.conv1.weight" in w:
            a = conv2d(seen.relu(), w[f"attentions.{index}.conv1.weight"], w[f"attentions.{index}.conv1.bias"])
            seen = seen * conv2d(a, w[f"attentions.{index}.conv2.weight"], padding=1).sigmoid()
        one = conv2d(seen, w[f"conv_reduces.{index}.conv.weight"], w[f"conv_reduces.{index}.conv.bias"])
        maps.append(interpolate(one, size, mode="bilinear", align_corners=False))
    return conv2d(torch.cat(maps, 1), w["classifier.weight"], w["classifier.bias"]).sigmoid()


CARV4 = ("cd", "ad", "rd", "cv")


def assert_same(weights: dict[str, Tensor], bgr: Tensor, **kinds: tuple[str, ...]) -> Tensor:
    with torch.no_grad():
        expected = published(weights, bgr, ("cv",) if kinds else CARV4)
        found = build_pidinet(weights, **kinds)(bgr).sigmoid()  # type: ignore[arg-type]
    assert float((found - expected).abs().max()) < 1e-4
    return found


@pytest.mark.parametrize(("dilated", "attention"), [(0, False), (6, False), (0, True), (6, True)])
@pytest.mark.parametrize("differences", [{}, {"differences": BASELINE}], ids=["differences", "baseline"])
def test_random_weights(dilated: int, attention: bool, differences: dict[str, tuple[str, ...]]) -> None:
    weights = random_weights(pidinet_shapes(10, dilated, attention), seed=3)
    assert variant_of(weights) == (10, dilated, attention)
    found = assert_same(weights, as_image(noise(70, 93)).movedim(-1, 1), **differences)
    assert float(found.std()) > 0.01


def real(shared: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(shared / "annotators" / "table5_pidinet.pth", weights_only=True)[
        "state_dict"
    ]
    return weights


def test_the_real_file_on_photographs(shared: Path) -> None:
    weights = real(shared)
    network = Network(build_pidinet(weights), torch.device("cpu"), torch.float32)
    for whole in photographs(shared)[::4]:
        photograph = whole[-150:, 60:250]
        height, width = photograph.shape[:2]
        padded = np.pad(photograph, ((0, -height % 64), (0, -width % 64), (0, 0)), mode="edge")
        bgr = torch.from_numpy(padded[..., ::-1].copy()).float().movedim(-1, 0)[None] / 255
        with torch.no_grad():
            expected = published(weights, bgr, CARV4)[0, 0, :height, :width].numpy()
        assert 0.02 < expected.mean() < 0.4
        image = as_image(photograph)
        soft = pidinet(image, networks={"PiDiNet": network}, safe=False)
        assert np.abs(soft[0, ..., 0].numpy() - expected).max() < 1e-4 and soft.shape == image.shape
        safe = pidinet(image, networks={"PiDiNet": network})
        assert set(safe.unique().tolist()) <= {0.0, 0.5, 1.0}
        # A level's border may fall on either side of a value within the tolerance.
        assert np.mean(np.abs(safe[0, ..., 0].numpy() - np.minimum(np.trunc(expected * 3) / 2, 1)) > 0) < 1e-4
        sketch = sketch_pidinet(image, networks={"PiDiNet": network})
        assert np.mean(sketch[0, ..., 0].numpy() != (expected > 0.5)) < 1e-4


def test_every_published_file(shared: Path) -> None:
    folder = os.environ.get(FILES)
    if folder is None:
        pytest.skip(f"{FILES} names no folder with the published files")
    bgr = as_image(photographs(shared)[0][-96:, :96]).movedim(-1, 1)
    for annotator in PIDINETS:
        path = Path(folder) / annotator.file
        assert path.stat().st_size == annotator.bytes
        weights = torch.load(path, weights_only=True)["state_dict"]
        with torch.no_grad():
            expected = published(weights, bgr, ("cv",) if annotator.id == "PiDiNet-Baseline" else CARV4)
            assert float((annotator.build(weights)(bgr).sigmoid() - expected).abs().max()) < 1e-4, annotator.id


def strokes_recipe(soft: np.ndarray) -> np.ndarray:
    """The field's "nms" and what follows it, on an 8-bit map."""
    x = cv2.GaussianBlur(soft.astype(np.float32), (0, 0), 3.0)
    lines = [np.eye(3), np.eye(3)[::-1], np.outer([0, 1, 0], [1, 1, 1]), np.outer([1, 1, 1], [0, 1, 0])]
    y = np.zeros_like(x)
    for line in lines:
        np.putmask(y, cv2.dilate(x, kernel=np.ascontiguousarray(line, dtype=np.uint8)) == x, x)
    z = np.zeros_like(y, dtype=np.uint8)
    z[y > 127] = 255
    z = cv2.GaussianBlur(z, (0, 0), 3.0)
    z[z > 4] = 255
    z[z < 255] = 0
    return z


@pytest.mark.parametrize("safe", [True, False])
def test_scribbles_are_the_recipe_on_the_soft_edges(safe: bool) -> None:
    networks = {"PiDiNet": random_network("PiDiNet")}
    image = as_image(*(noise(190, 221, seed) for seed in range(2)))
    soft = (pidinet(image, networks=networks, safe=safe)[..., 0].numpy() * 255).astype(np.uint8)
    found = scribble_pidinet(image, networks=networks, safe=safe).numpy()
    for edges, strokes in zip(soft, found, strict=True):
        expected = strokes_recipe(edges)
        assert 0.02 < (expected > 0).mean() < 0.98
        assert np.array_equal(strokes, np.repeat(expected[..., None] / 255, 3, axis=-1))


def broken(change: str) -> dict[str, Tensor]:
    weights = random_weights(pidinet_shapes(8, 4, True))
    if change == "missing":
        del weights["block2_1.conv1.weight"]
    elif change == "unknown":
        weights["head.weight"] = torch.zeros(1)
    elif change == "shape":
        weights["init_block.weight"] = torch.zeros(8, 3, 5, 5)
    else:
        weights = {}
    return weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "'a.pth': found no tensor 'block2_1.conv1.weight', but the 83 tensors of PiDiNet were expected; "),
        ("unknown", "'a.pth': found a tensor 'head.weight' that it has no use for, but the 83 tensors of PiDiNet were expected; "),
        (
            "shape",
            "'a.pth': found 'init_block.weight' of shape (8, 3, 5, 5) in place of (8, 3, 3, 3), but the 83 tensors of PiDiNet were expected; ",
        ),
        (
            "empty",
            "'a.pth': found no tensor 'init_block.weight' (and 46 more such), but the 47 tensors of PiDiNet were expected; ",
        ),
    ],
)  # fmt: skip
def test_other_files_are_refused(change: str, message: str) -> None:
    with pytest.raises(PreprocessorError) as refused:
        build_pidinet(broken(change), file="a.pth")
    assert str(refused.value) == message + "put the published file there, under its own name."
