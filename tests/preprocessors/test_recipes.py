"""The preprocessors without weights against their recipes, written here with OpenCV and numpy as the published ones are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2")

import cv2

from control_composer.preprocessors import PREPROCESSORS
from control_composer.tests.preprocessors.pictures import SIZES, as_image, noise, photographs

Recipe = Callable[..., np.ndarray]


def binary(x: np.ndarray, threshold: int = 100) -> np.ndarray:
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)
    if threshold in (0, 255):
        threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)
    return np.where(grey > threshold, 255, 0)


def scribble(x: np.ndarray) -> np.ndarray:
    detected = np.zeros_like(x)
    detected[np.min(x, axis=2) < 127] = 255
    return detected


def xdog(x: np.ndarray, threshold: int = 32) -> np.ndarray:
    g1 = cv2.GaussianBlur(x.astype(np.float32), (0, 0), 0.5)
    g2 = cv2.GaussianBlur(x.astype(np.float32), (0, 0), 5.0)
    dog = (255 - np.min(g2 - g1, axis=2)).clip(0, 255).astype(np.uint8)
    result = np.zeros_like(x)
    result[2 * (255 - dog.astype(np.float32)) > threshold] = 255
    return result


def lineart_standard(x: np.ndarray, sigma: float = 6.0, intensity_threshold: int = 8) -> np.ndarray:
    x = x.astype(np.float32)
    intensity = np.min(cv2.GaussianBlur(x, (0, 0), sigma) - x, axis=2).clip(0, 255)
    above = intensity[intensity > intensity_threshold]
    intensity /= max(16, np.median(above)) if len(above) else 16
    intensity *= 127
    return intensity.clip(0, 255).astype(np.uint8)


def pyramid_canny(x: np.ndarray, low: int = 64, high: int = 128) -> np.ndarray:
    height, width = x.shape[:2]
    acc: Any = None
    for k in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        h, w = max(1, int(height * k)), max(1, int(width * k))
        small = cv2.resize(x, (w, h), interpolation=cv2.INTER_AREA)
        edge = np.stack([cv2.Canny(small[..., c].copy(), low, high) / np.float32(255) for c in range(3)], axis=2)
        if acc is None:
            acc = edge
        else:
            acc = cv2.resize(acc, (w, h), interpolation=cv2.INTER_LINEAR).reshape(edge.shape) * 0.75 + edge * 0.25
    total = acc.sum(axis=2)
    low_value, high_value = np.percentile(total, 1), np.percentile(total, 99)
    if high_value <= low_value:
        return (total > low_value) * 255
    return (((total - low_value) / (high_value - low_value)) * 255).clip(0, 255).astype(np.uint8)


def colour_grid(x: np.ndarray, cell: int = 64) -> np.ndarray:
    height, width = x.shape[:2]
    small = cv2.resize(x, (max(1, width // cell), max(1, height // cell)), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def shuffle(x: np.ndarray, seed: int = 0) -> np.ndarray:
    height, width = x.shape[:2]
    random = np.random.default_rng(seed)

    def disk() -> np.ndarray:
        field = random.uniform(low=0, high=1, size=(height // 256 + 2, width // 256 + 2))
        field = cv2.resize(field, (width + 512, height + 512), interpolation=cv2.INTER_CUBIC)
        field = field[256 : 256 + height, 256 : 256 + width]
        field = field - np.min(field)
        return field / np.max(field) if np.max(field) > 0 else field

    flow = np.stack([disk() * float(width - 1), disk() * float(height - 1)], axis=2).astype(np.float32)
    return cv2.remap(x, flow, None, cv2.INTER_LINEAR)


def tile(x: np.ndarray, halvings: int = 3) -> np.ndarray:
    height, width = x.shape[:2]
    h, w = (max(64, int(np.round(side / 64.0)) * 64) for side in (height, width))
    found = cv2.resize(x, (w // 2**halvings, h // 2**halvings), interpolation=cv2.INTER_AREA)
    for _ in range(halvings):
        found = cv2.pyrUp(found)
    return found if (h, w) == (height, width) else cv2.resize(found, (width, height), interpolation=cv2.INTER_CUBIC)


def tile_simple(x: np.ndarray, scale: float = 1.0, blur: float = 2.0) -> np.ndarray:
    height, width = x.shape[:2]
    x = cv2.resize(x, (max(1, int(width / scale)), max(1, int(height / scale))), interpolation=cv2.INTER_AREA)
    x = cv2.resize(x, (width, height), interpolation=cv2.INTER_LANCZOS4)
    kernel = int(blur) if int(blur) % 2 else int(blur) + 1
    return cv2.GaussianBlur(x, (kernel, kernel), blur / 2)


def gamma_of(grey: np.ndarray, gamma: float) -> np.ndarray:
    return ((grey.astype(np.float32) / 255.0) ** gamma * 255.0).clip(0, 255).astype(np.uint8)


def luminance(x: np.ndarray, channels: str = "as trained", gamma: float = 1.0) -> np.ndarray:
    code = {"as trained": cv2.COLOR_BGR2LAB, "corrected": cv2.COLOR_RGB2LAB}[channels]
    return gamma_of(cv2.cvtColor(x, code)[..., 0], gamma)


def intensity(x: np.ndarray, gamma: float = 1.0) -> np.ndarray:
    return gamma_of(cv2.cvtColor(x, cv2.COLOR_RGB2HSV)[..., 2], gamma)


RECIPES: dict[str, tuple[Recipe, list[dict[str, Any]]]] = {
    "Binary": (binary, [{}, {"threshold": 0}, {"threshold": 255}, {"threshold": 180}]),
    "Threshold": (lambda x, level=127: (x.min(axis=2) > level) * 255, [{}, {"level": 60}]),
    "Invert": (lambda x: 255 - x, [{}]),
    "Scribble": (scribble, [{}]),
    "XDoG": (xdog, [{}, {"threshold": 5}]),
    "LineartStandard": (lineart_standard, [{}, {"sigma": 2.0, "intensity_threshold": 3}]),
    "PyramidCanny": (pyramid_canny, [{}, {"low": 20, "high": 60}]),
    "ColorGrid": (colour_grid, [{}, {"cell": 9}]),
    "Shuffle": (shuffle, [{}, {"seed": 7}]),
    "Tile": (tile, [{}, {"halvings": 1}]),
    "TileSimple": (tile_simple, [{}, {"scale": 2.5, "blur": 5.0}]),
    "Blur": (lambda x, sigma=9.0: cv2.GaussianBlur(x, (0, 0), sigma), [{}, {"sigma": 1.5}]),
    "RecolorLuminance": (luminance, [{}, {"channels": "corrected"}, {"gamma": 0.6}]),
    "RecolorIntensity": (intensity, [{}, {"gamma": 1.7}]),
}
BY_ID = {preprocessor.id: preprocessor for preprocessor in PREPROCESSORS}


def check(name: str, picture: np.ndarray, settings: dict[str, Any]) -> None:
    expected = RECIPES[name][0](picture, **settings).astype(np.float32) / 255
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    found = BY_ID[name](as_image(picture), **settings)[0].numpy()
    assert found.shape == picture.shape
    # Both sides divide 8-bit numbers by 255: half a step of 255 would be another number.
    assert np.abs(found - expected).max() <= 1e-6


def test_every_preprocessor_without_weights_has_its_recipe() -> None:
    elsewhere = {"Canny", "TileGuided", "DepthNormalised", "NormalFromDepth"}
    assert set(RECIPES) | elsewhere == {one.id for one in PREPROCESSORS if not one.annotators}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", SIZES)
def test_the_recipe(name: str, size: tuple[int, int]) -> None:
    for settings in RECIPES[name][1]:
        check(name, noise(*size, seed=len(name)), settings)


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_on_photographs(name: str, shared: Path) -> None:
    for picture in photographs(shared):
        check(name, picture, {})


@pytest.mark.parametrize("name", RECIPES)
def test_settings_matter(name: str) -> None:
    picture = as_image(noise(96, 130))
    found = [BY_ID[name](picture, **settings) for settings in RECIPES[name][1]]
    assert all((one != found[0]).any() for one in found[1:])
