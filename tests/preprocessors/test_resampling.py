"""Resizing with tensors against OpenCV's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

import cv2

from control_composer.preprocessors import resampling, sizing
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.pictures import as_image, noise

SIZES = [
    ((64, 64), (32, 32)),  # halves, rounded up
    ((60, 90), (20, 30)),  # whole blocks, rounded to even
    ((60, 90), (30, 30)),
    ((97, 131), (50, 61)),
    ((683, 40), (512, 30)),
    ((98, 59), (2, 1)),  # 1 / (1 / 49) is not 49 in double precision
    ((40, 1), (10, 1)),
    ((1, 40), (1, 7)),
    ((7, 5), (8, 8)),  # area averaging where a side grows
    ((1, 1), (8, 8)),
    ((20, 100), (32, 48)),
    ((64, 64), (64, 64)),
]


def whole(*pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures).astype(np.float32))


def opencv(picture: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    return cv2.resize(picture, size[::-1], interpolation=interpolation).reshape(*size, 3)


def random_sizes(count: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    random = np.random.default_rng(0)
    found = [random.integers(1, 120, 4).tolist() for _ in range(count)]
    return [((one[0], one[1]), (one[2], one[3])) for one in found]


@pytest.mark.parametrize(("before", "after"), SIZES + random_sizes(40))
def test_area_and_nearest_to_the_bit(before: tuple[int, int], after: tuple[int, int]) -> None:
    pictures = [noise(*before, seed=seed) for seed in range(2)]
    averaged = resampling.area(whole(*pictures), Size(*after), eight_bit=True)
    nearest = resampling.nearest(whole(*pictures), Size(*after))
    for number, picture in enumerate(pictures):
        assert np.array_equal(averaged[number].numpy(), opencv(picture, after, cv2.INTER_AREA))
        assert np.array_equal(nearest[number].numpy(), opencv(picture, after, cv2.INTER_NEAREST))


@pytest.mark.parametrize(("before", "after"), [*SIZES, ((50, 70), (120, 133)), ((5, 9), (64, 200))])
def test_lanczos_and_cubic_within_one_step(before: tuple[int, int], after: tuple[int, int]) -> None:
    picture = noise(*before)
    for function, interpolation, share in (
        (resampling.lanczos_8_bit, cv2.INTER_LANCZOS4, 0.005),
        # One pixel in twenty, where OpenCV computes without Intel's library.
        (lambda image, size: resampling.cubic(image, size, eight_bit=True), cv2.INTER_CUBIC, 0.1),
    ):
        found = function(whole(picture), Size(*after))[0].numpy()
        apart = np.abs(found - opencv(picture, after, interpolation))
        assert apart.max() <= 1 and (apart > 0).mean() <= share
        assert np.array_equal(found, np.rint(found)) and found.min() >= 0 and found.max() <= 255


@pytest.mark.parametrize(("before", "after"), [*SIZES, ((50, 70), (120, 133)), ((5, 9), (64, 200))])
def test_numbers_that_are_not_whole(before: tuple[int, int], after: tuple[int, int]) -> None:
    picture = noise(*before).astype(np.float32) / 255
    image = torch.from_numpy(picture)[None]
    for function, interpolation in (
        (resampling.area, cv2.INTER_AREA),
        (resampling.cubic, cv2.INTER_CUBIC),
        (resampling.linear, cv2.INTER_LINEAR),
    ):
        found = function(image, Size(*after))[0].numpy()
        # Without Intel's library OpenCV has places in float32: 1 / 2^13 of a pixel, 1000 pixels from the border.
        assert np.abs(found - opencv(picture, after, interpolation)).max() <= 1e-4


@pytest.mark.parametrize(("size", "resolution"), [((60, 90), 40), ((60, 90), 77), ((64, 64), 32), ((33, 50), 33)])
def test_resized_batches(size: tuple[int, int], resolution: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = as_image(noise(*size), noise(*size, seed=1))
    expected = sizing.resized(image, resolution)
    monkeypatch.setattr(sizing, "on_cpu", lambda tensor: False)
    found = sizing.resized(image, resolution)
    assert found.shape == expected.shape and float((found - expected).abs().max()) < 1e-4
    assert torch.equal(found[1:], sizing.resized(image[1:], resolution))
