"""Depth stretched and turned into normals, against OpenCV and numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

import cv2

from control_composer.preprocessors.batches import in_chunks
from control_composer.preprocessors.depth_normalised import DEPTH_NORMALISED, depth_normalised
from control_composer.preprocessors.normal_from_depth import normal_from_depth
from control_composer.tests.preprocessors.pictures import SIZES, as_image, noise


def grey(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.repeat(noise(height, width, seed)[..., :1], 3, axis=2)


def midas_normal(depth: np.ndarray, a: float = 2 * math.pi, bg: float = 0.1) -> np.ndarray:
    """lllyasviel/ControlNet, annotator/midas: depth as the network gives it -> (H, W, 3) 0..255."""
    depth_01 = depth - depth.min()
    depth_01 = depth_01 / depth_01.max() if depth_01.max() > 0 else depth_01
    x = cv2.Sobel(depth, cv2.CV_32F, 1, 0, ksize=3)
    y = cv2.Sobel(depth, cv2.CV_32F, 0, 1, ksize=3)
    z = np.ones_like(x) * a
    x[depth_01 < bg] = 0
    y[depth_01 < bg] = 0
    normal = np.stack([x, y, z], axis=2)
    normal /= np.sum(normal**2.0, axis=2, keepdims=True) ** 0.5
    return (normal * 127.5 + 127.5).clip(0, 255)[:, :, ::-1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("settings", [{}, {"a": 20.0, "background": 0.4, "depth_range": 3000.0}])
def test_normals_are_midas_s(size: tuple[int, int], settings: dict[str, float]) -> None:
    picture = grey(*size)
    depth = (picture[..., 0] / np.float32(255) * settings.get("depth_range", 1000.0)).astype(np.float32)
    wanted = midas_normal(depth, settings.get("a", 2 * math.pi), settings.get("background", 0.1))
    found = normal_from_depth(as_image(picture), **settings)[0].numpy() * 255
    # What is at the background's edge to the last bit may be on either side of it.
    off = np.abs(found - wanted).max(axis=2) > 0.01
    assert off.mean() <= 1e-3


def test_colours_of_normals() -> None:
    """Flat is (255, 127.5, 127.5), or blue as ControlNet 1.1 has it, where what is nearer to the right faces to the left, which is red."""
    flat = normal_from_depth(torch.full((1, 8, 8, 3), 0.5))
    assert torch.allclose(flat, torch.tensor([1.0, 0.5, 0.5]))
    ramp = torch.linspace(0.5, 0.6, 32).reshape(1, 1, 32, 1).expand(1, 32, 32, 3)
    facing_left = normal_from_depth(ramp, channels="x y z", background=0.0)[0, 16, 16]
    assert facing_left[0] > 0.9 and facing_left[1] == 0.5 and facing_left[2] > 0.5
    facing_up = normal_from_depth(ramp.transpose(1, 2), channels="x y z", background=0.0)[0, 16, 16]
    assert facing_up[1] > 0.9 and facing_up[0] == 0.5
    assert torch.equal(normal_from_depth(ramp, background=0.0)[0, 16, 16], facing_left.flip(0))
    assert (normal_from_depth(torch.zeros(1, 4, 4, 3), a=0.0) == 0.5).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "settings", [{}, {"low": 10.0, "high": 80.0}, {"invert": True}, {"invert": True, "low": 2.0, "high": 85.0}]
)
def test_percentiles_of_each_frame(size: tuple[int, int], settings: dict[str, Any]) -> None:
    frames = [grey(*size, seed) for seed in range(2)]
    found = depth_normalised(as_image(*frames), **settings).numpy()
    for frame, hint in zip(frames, found, strict=True):
        d = frame[..., 0].astype(np.float64)
        low, high = np.percentile(d, settings.get("low", 0)), np.percentile(d, settings.get("high", 100))
        wanted = ((d - low) / (high - low)).clip(0, 1) if high > low else np.zeros_like(d)
        if settings.get("invert") and high > low:
            wanted = 1 - wanted
        assert np.abs(hint - wanted[..., None]).max() < 1e-5


def test_all_frames_have_one_black_and_white() -> None:
    near, far = torch.linspace(0.5, 1.0, 16), torch.linspace(0.0, 0.25, 16)
    frames = torch.stack([near, far]).reshape(2, 1, 16, 1).expand(2, 4, 16, 3)
    alone, together = depth_normalised(frames), depth_normalised(frames, over="all frames")
    assert torch.allclose(alone[0], alone[1], atol=1e-6)
    assert torch.allclose(together, frames, atol=1e-6)
    assert torch.allclose(depth_normalised(frames, over="all frames", invert=True), 1 - frames, atol=1e-6)
    assert DEPTH_NORMALISED.needs_all({"over": "all frames"}) and not DEPTH_NORMALISED.needs_all({})
    assert not torch.equal(in_chunks(lambda part: depth_normalised(part, over="all frames"), frames, 1), together)


def test_depths_keep_their_steps() -> None:
    """A ramp of a hundredth becomes a ramp of one, in more than 256 steps."""
    ramp = torch.linspace(0.4, 0.41, 1000).reshape(1, 1, 1000, 1).expand(1, 4, 1000, 3)
    assert len(depth_normalised(ramp).unique()) > 900
