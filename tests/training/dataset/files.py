"""Sets of small pictures on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 that says where each pixel is: red to the right, green downwards, 0..255, from border to border."""
    down, across = (((np.arange(length) + 0.5) / length * 255) for length in (height, width))
    picture = np.zeros((height, width, 3))
    picture[..., 0], picture[..., 1] = across, down[:, None]
    return picture.round().astype(np.uint8)


def write(path: Path, picture: np.ndarray, caption: str | None = "a thing") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def cut_off(path: Path) -> Path:
    """Without the second half of its bytes."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path
