"""The guided tile against its recipe, with the guided filter of the paper solved pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

import cv2

from control_composer.preprocessors import frames
from control_composer.preprocessors.tile_guided import A_LITTLE, tile_guided
from control_composer.tests.preprocessors.pictures import SIZES, as_image, noise, photographs


def guided(guide: np.ndarray, radius: int, epsilon: float, scale: float) -> np.ndarray:
    """He, Sun, Tang: a = (Σ + εU)⁻¹ cov(I, p) and b = mean(p) − a · mean(I) in each window, p each channel of I; (H, W, 3) 0..1, float64."""
    height, width = guide.shape[:2]
    size = max(1, int(width / scale)), max(1, int(height / scale))
    window = (2 * int(radius / scale) + 1,) * 2
    i = cv2.resize(guide.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.float64)
    mean = cv2.blur(i, window).reshape(*size[::-1], 3)
    products = np.stack([cv2.blur(i[..., r] * i[..., c], window) for r in range(3) for c in range(3)], axis=-1)
    covariance = products.reshape(*size[::-1], 3, 3) - mean[..., :, None] * mean[..., None, :]
    a = np.linalg.solve(covariance + epsilon * np.eye(3), covariance)
    b = mean - np.einsum("hwrc,hwr->hwc", a, mean)

    def wide(x: np.ndarray) -> np.ndarray:
        return cv2.resize(cv2.blur(np.ascontiguousarray(x), window), (width, height), interpolation=cv2.INTER_LINEAR)

    q = np.empty_like(guide)
    for c in range(3):
        q[..., c] = sum(wide(a[..., r, c]) * guide[..., r] for r in range(3)) + wide(b[..., c])
    return q


def recipe(x: np.ndarray, scale: float = 1.0, blur: float = 2.0, radius: int = 7, epsilon: float = 0.01) -> np.ndarray:
    height, width = x.shape[:2]
    kernel = int(blur) if int(blur) % 2 else int(blur) + 1
    x = cv2.GaussianBlur(x, (kernel, kernel), sigmaX=blur / 2)
    x = (guided(x.astype(np.float64) / 255, radius, epsilon, scale) * 255 + A_LITTLE).clip(0, 255).astype(np.uint8)
    x = cv2.resize(x, (max(1, int(width / scale)), max(1, int(height / scale))), interpolation=cv2.INTER_AREA)
    return cv2.resize(x, (width, height), interpolation=cv2.INTER_CUBIC)


SETTINGS = [{}, {"scale": 2.0, "blur": 5.0, "radius": 4}, {"radius": 1, "epsilon": 0.1}]


def check(picture: np.ndarray, settings: dict[str, float]) -> None:
    """Within one step: the filter is computed in float32 here, and its numbers are cut off."""
    found = tile_guided(as_image(picture), **settings)[0].numpy() * 255
    difference = np.abs(found - recipe(picture, **settings))
    assert difference.max() < 1.01 and (difference > 0.01).mean() < 0.01


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_recipe(size: tuple[int, int], settings: dict[str, float]) -> None:
    check(noise(*size, seed=5), settings)


def test_the_recipe_on_photographs(shared: Path) -> None:
    for picture in photographs(shared)[:3]:
        check(picture, {})


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("size", SIZES)
def test_the_same_with_tensors(
    size: tuple[int, int], settings: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is computed on accelerators, where cubic enlarging may differ by a step in one pixel of twenty (see resampling.py)."""
    image = as_image(noise(*size, seed=5), noise(*size, seed=6))
    wanted = tile_guided(image, **settings)
    monkeypatch.setattr(frames, "on_cpu", lambda tensor: False)
    found = tile_guided(image, **settings)
    difference = (found - wanted).abs() * 255
    assert difference.max() < 1.01 and (difference > 0.01).float().mean() < 0.05
    assert torch.allclose(found[1:], tile_guided(image[1:], **settings), atol=1e-6)


def test_settings_matter() -> None:
    image = as_image(noise(60, 80))
    found = [tile_guided(image, **settings) for settings in ({}, *SETTINGS[1:], {"blur": 4.0}, {"epsilon": 0.001})]
    assert all((one != found[0]).any() for one in found[1:])
