"""Canny with tensors against OpenCV's, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

import cv2

from control_composer.preprocessors.canny_torch import FRAMES_PER_WORD, STEPS_PER_QUESTION, canny_edges, connected
from control_composer.tests.preprocessors.pictures import SIZES, noise

KINDS = {
    "blobs": noise,
    "noise": lambda height, width: np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8),
    # Equal gradients, equal channels and equal neighbours everywhere: who wins then is a rule of its own.
    "four levels": lambda height, width: (
        np.random.default_rng(1).integers(0, 4, (height, width, 3), dtype=np.uint8) * 60
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [*SIZES, (2, 2), (3, 150)])
@pytest.mark.parametrize("thresholds", [(100, 200), (20, 60), (0, 0), (255, 255), (200, 100), (30.7, 99.9)])
def test_the_same_edges(kind: str, size: tuple[int, int], thresholds: tuple[float, float]) -> None:
    picture = KINDS[kind](*size)
    for seen in (picture, picture[..., :1].copy()):
        found = canny_edges(torch.from_numpy(seen).view(1, *size, -1), *thresholds)
        assert np.array_equal(found[0].numpy(), cv2.Canny(seen, *thresholds) > 0)


def test_photographs(shared: Path) -> None:
    for path in sorted((shared / "images").glob("*.png"))[:3]:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        for thresholds in ((100, 200), (30, 90)):
            found = canny_edges(torch.from_numpy(picture)[None].float(), *thresholds)
            assert np.array_equal(found[0].numpy(), cv2.Canny(picture, *thresholds) > 0), path.name


def test_weak_edges_far_from_strong_ones() -> None:
    """A line that winds through the picture, with one seed at its end."""
    ground = torch.zeros(2, 21, 30, dtype=torch.bool)
    ground[:, ::2] = True
    ground[:, 1::4, -1] = ground[:, 3::4, 0] = True
    seeds = torch.zeros_like(ground)
    seeds[0, 0, 0] = True
    found = connected(seeds, ground)
    assert int(ground[0].sum()) > 10 * STEPS_PER_QUESTION
    assert torch.equal(found[0], ground[0]) and not found[1].any()


def test_corners_connect_and_gaps_do_not() -> None:
    ground = torch.tensor([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [1, 0, 0, 1, 0]]).bool()[None]
    seeds = torch.zeros_like(ground)
    seeds[0, 1, 1] = True
    assert connected(seeds, ground)[0].int().tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_frames_stay_apart_when_they_share_words() -> None:
    count = 2 * FRAMES_PER_WORD + 3
    pictures = np.stack([noise(20, 24, seed) for seed in range(count)])
    found = canny_edges(torch.from_numpy(pictures), 30, 60)
    for edges, picture in zip(found, pictures, strict=True):
        assert np.array_equal(edges.numpy(), cv2.Canny(picture, 30, 60) > 0)
