"""Pictures for the tests of preprocessors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

SIZES = [(64, 64), (65, 99), (7, 5), (1, 1), (1, 40), (40, 1), (200, 30)]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs with edges of every strength, (height, width, 3) uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (max(2, height // 6), max(2, width // 6), 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def as_image(*pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).float() / 255.0


def photographs(shared: Path) -> list[np.ndarray]:
    """RGB uint8, at most 384 pixels wide."""
    found = []
    for path in sorted((shared / "images").glob("*.png")):
        picture = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        scale = min(1.0, 384 / picture.shape[1])
        found.append(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return found
