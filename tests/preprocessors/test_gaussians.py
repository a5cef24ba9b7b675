"""Blurs with tensors against OpenCV's, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

import cv2

from control_composer.preprocessors.gaussians import BLOCK, blurred, blurred_8_bit
from control_composer.preprocessors.strokes import as_strokes, made_safe, strokes_on_device
from control_composer.tests.preprocessors.pictures import SIZES, as_image, noise, photographs

SIGMAS = [0.01, 0.3, 0.5, 1.0, 2.7, 5.0, 9.0, 13.3, 33.0, 64.0]


@pytest.mark.parametrize("size", [*SIZES, (3, BLOCK + 70), (2 * BLOCK + 1, 4)])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_same_blur(size: tuple[int, int], sigma: float) -> None:
    pictures = [noise(*size), np.full((*size, 3), 255, np.uint8)]
    image = torch.from_numpy(np.stack(pictures)).float()
    for picture, whole, soft in zip(pictures, blurred_8_bit(image, sigma), blurred(image, sigma), strict=True):
        assert np.array_equal(whole.numpy(), cv2.GaussianBlur(picture, (0, 0), sigma))
        expected = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), sigma).reshape(soft.shape)
        assert np.abs(soft.numpy() - expected).max() < 5e-4


@pytest.mark.parametrize("size", [1, 3, 5, 7, 11])
def test_kernels_of_a_given_size(size: int) -> None:
    picture = noise(30, 41)
    found = blurred_8_bit(torch.from_numpy(picture)[None].float(), 1.7, size)
    assert np.array_equal(found[0].numpy(), cv2.GaussianBlur(picture, (size, size), 1.7))


def test_flat_parts_stay_flat() -> None:
    """A ridge is where no neighbour is higher: noise of rounding would make one of every pixel."""
    for level in (3.0, 77.7, 254.9):
        assert len(blurred(torch.full((1, 50, 61, 1), level), 3.0).unique()) == 1


def test_products_are_exact_in_fewer_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU multiplies float32 where the user allows it: factors in 8 bits, sums in float32."""
    picture, multiply = noise(70, 300), torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda one, other: multiply(one.bfloat16().float(), other.bfloat16().float())
    )
    for sigma in (0.5, 2.0, 9.0):
        found = blurred_8_bit(torch.from_numpy(picture)[None].float(), sigma)
        assert np.array_equal(found[0].numpy(), cv2.GaussianBlur(picture, (0, 0), sigma))


def flipped(edges: torch.Tensor) -> int:
    found, expected = strokes_on_device(edges), as_strokes(edges)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    return int((found != expected)[..., 0].sum())


@pytest.mark.parametrize("size", SIZES)
def test_strokes(size: tuple[int, int]) -> None:
    edges = as_image(noise(*size), noise(*size, seed=1))[..., :1]
    assert flipped(edges) == 0
    # The middle level is RIDGE itself, and where all is flat it is the last bit of the blur that decides.
    assert flipped(made_safe(edges)) == 0 or size == (1, 1)


def test_strokes_of_photographs(shared: Path) -> None:
    pixels = flips = 0
    for picture in photographs(shared)[:4]:
        lines = cv2.GaussianBlur(cv2.Canny(picture, 100, 200), (0, 0), 2)
        for edges in (as_image(picture)[..., :1], torch.from_numpy(lines).float()[None, ..., None] / 80):
            flips += flipped(edges)
            pixels += edges.numel()
            assert 0.01 < float(strokes_on_device(edges).mean()) < 0.99
    assert flips <= 1e-4 * pixels
