"""The preprocessors without weights as their recipes are published, with OpenCV and numpy, one 8-bit picture at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

Recipe = Callable[..., np.ndarray]
"""(H, W, 3) uint8 RGB -> (H, W) or (H, W, 3), whole numbers 0..255."""


def canny(x: np.ndarray, low: int = 100, high: int = 200) -> np.ndarray:
    return cv2.Canny(x, low, high)


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


def threshold(x: np.ndarray, level: int = 127) -> np.ndarray:
    return (x.min(axis=2) > level) * 255


def invert(x: np.ndarray) -> np.ndarray:
    return 255 - x


def blur(x: np.ndarray, sigma: float = 9.0) -> np.ndarray:
    return cv2.GaussianBlur(x, (0, 0), sigma)


def gamma_of(grey: np.ndarray, gamma: float) -> np.ndarray:
    return ((grey.astype(np.float32) / 255.0) ** gamma * 255.0).clip(0, 255).astype(np.uint8)


def luminance(x: np.ndarray, channels: str = "as trained", gamma: float = 1.0) -> np.ndarray:
    code = {"as trained": cv2.COLOR_BGR2LAB, "corrected": cv2.COLOR_RGB2LAB}[channels]
    return gamma_of(cv2.cvtColor(x, code)[..., 0], gamma)


def intensity(x: np.ndarray, gamma: float = 1.0) -> np.ndarray:
    return gamma_of(cv2.cvtColor(x, cv2.COLOR_RGB2HSV)[..., 2], gamma)


RECIPES: dict[str, Recipe] = {
    "Canny": canny,
    "PyramidCanny": pyramid_canny,
    "LineartStandard": lineart_standard,
    "Scribble": scribble,
    "XDoG": xdog,
    "Binary": binary,
    "Threshold": threshold,
    "Invert": invert,
    "ColorGrid": colour_grid,
    "Shuffle": shuffle,
    "Tile": tile,
    "TileSimple": tile_simple,
    "Blur": blur,
    "RecolorLuminance": luminance,
    "RecolorIntensity": intensity,
}
"""By the ids of our preprocessors."""
