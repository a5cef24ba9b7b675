"""TEED against the published definition, written anew here, and AnyLine against its recipe, on random weights in the published names."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.networks.teed import build_teed
from control_composer.preprocessors.teed import anyline, teed
from control_composer.tests.preprocessors.annotator_weights import MADE, random_network
from control_composer.tests.preprocessors.pictures import as_image, noise


def smish(x: Tensor) -> Tensor:
    return x * torch.tanh(torch.log(1 + torch.sigmoid(x)))


def recipe(w: dict[str, Tensor], picture: np.ndarray) -> np.ndarray:
    """An RGB picture, uint8, padded as the field does it -> edges in 0..1, float64."""

    def conv(x: Tensor, name: str, **settings: int) -> Tensor:
        return conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **settings)

    def up(x: Tensor, block: int, padding: int) -> Tensor:
        layers = ("0", "2") if block < 3 else ("0", "2", "3", "5")
        for first, second in zip(layers[::2], layers[1::2], strict=True):
            name = f"up_block_{block}.features."
            x = smish(conv(x, name + first))
            x = conv_transpose2d(x, w[f"{name}{second}.weight"], w[f"{name}{second}.bias"], stride=2, padding=padding)
        return x

    height, width = picture.shape[:2]
    padded = np.pad(picture, ((0, -height % 64), (0, -width % 64), (0, 0)), mode="edge")
    x = torch.from_numpy(padded).float().permute(2, 0, 1)[None]
    one = smish(conv(smish(conv(x, "block_1.conv1", stride=2, padding=1)), "block_1.conv2", padding=1))
    two = conv(smish(conv(one, "block_2.conv1", padding=1)), "block_2.conv2", padding=1)
    down = max_pool2d(two, kernel_size=3, stride=2, padding=1)
    added = smish(down + conv(one, "side_1.conv", stride=2))
    dense = conv(smish(conv(added, "dblock_3.denselayer1.conv1", padding=2)), "dblock_3.denselayer1.conv2")
    three = 0.5 * (dense + conv(down, "pre_dense_3.conv"))
    maps = [up(one, 1, 0), up(two, 2, 0), up(three, 3, 1)]
    attention = conv(smish(torch.cat(maps, dim=1)), "block_cat.DWconv1", padding=1, groups=3)
    attention2 = conv(smish(attention), "block_cat.DWconv2", padding=1, groups=24)
    maps.append(smish((attention2 + attention).sum(1).unsqueeze(1)))
    size = padded.shape[1], padded.shape[0]
    edges = [cv2.resize(e[0, 0].numpy(), size, interpolation=cv2.INTER_LINEAR) for e in maps]
    edge = 1 / (1 + np.exp(-np.mean(np.stack(edges, axis=2), axis=2).astype(np.float64)))
    return edge[:height, :width]


@pytest.mark.parametrize("size", [(64, 128), (70, 93)])
def test_random_weights(size: tuple[int, int]) -> None:
    picture = noise(*size)
    expected = recipe(MADE["TEED"](), picture)
    assert expected.std() > 0.05
    networks = {"TEED": random_network("TEED")}
    soft = teed(as_image(picture), networks=networks, safe_steps=0)
    assert np.abs(soft[0, ..., 1].numpy() - expected).max() < 1e-4
    for steps in (1, 2, 10):
        found = teed(as_image(picture), networks=networks, safe_steps=steps)[0, ..., 0].numpy()
        assert np.mean(np.abs(found - np.minimum(np.trunc(expected * (steps + 1)) / steps, 1)) > 1e-6) < 2e-3


@pytest.mark.parametrize("settings", [{}, {"lower": 0.1, "upper": 0.6}, {"smallest": 60}, {"smallest": 0}])
def test_anyline_is_its_recipe(settings: dict[str, float]) -> None:
    lower, upper, smallest = (
        settings.get(name, default) for name, default in (("lower", 0), ("upper", 1), ("smallest", 12))
    )
    picture = noise(90, 121)
    x = picture.astype(np.float32)
    intensity = np.min(cv2.GaussianBlur(x, (0, 0), 2.0) - x, axis=2).clip(0, 255)
    intensity /= max(16, np.median(intensity[intensity > 3]))
    line = (intensity * 127).clip(0, 255).astype(np.uint8) / np.float32(255)
    line = np.where((line >= lower) & (line <= upper), line, 0)
    # The published recipe counts all three channels of a connected spot: 36 of them are 12 pixels.
    spots, count = ndimage.label(np.repeat((line > 0)[..., None], 3, axis=2))
    for number in range(1, count + 1):
        if (spots == number).sum() < 3 * smallest:
            line[(spots == number)[..., 0]] = 0
    networks = {"AnyLine": random_network("AnyLine")}
    soft = teed(as_image(picture), networks={"TEED": networks["AnyLine"]})[0, ..., 0].numpy()
    expected = np.where(line > 0, 1 - (1 - line) * (1 - soft), soft)
    assert 0 < (line > 0).mean() < 1 and soft.std() > 0.05
    found = anyline(as_image(picture), networks=networks, **settings)[0].numpy()  # type: ignore[arg-type]
    assert np.abs(found - expected[..., None]).max() < 1e-6


def test_other_files_are_refused() -> None:
    weights = MADE["TEED"]()
    weights["block_1.conv1.weight"] = torch.zeros(16, 1, 3, 3)
    with pytest.raises(PreprocessorError) as refused:
        build_teed(weights, file="7_model.pth")
    assert str(refused.value) == (
        "'7_model.pth': found 'block_1.conv1.weight' of shape (16, 1, 3, 3) in place of (16, 3, 3, 3), but the 36 tensors of TEED were "
        "expected; put the published file there, under its own name."
    )
