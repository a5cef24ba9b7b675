"""Distances as hints."""

from __future__ import annotations

import pytest
import torch

from control_composer.preprocessors.geometry_depth import EVEN, INVERSE, geometry_depth


def ramp(near: float, far: float) -> torch.Tensor:
    return torch.linspace(near, far, 1001).reshape(1, 1, 1001)


@pytest.mark.parametrize("grading", [INVERSE, EVEN])
def test_near_is_white_in_any_unit(grading: str) -> None:
    hint = geometry_depth(ramp(1, 5), grading=grading)
    assert hint.shape == (1, 1, 1001, 3) and hint.dtype == torch.float32
    row = hint[0, 0, :, 0]
    assert bool((row.diff() <= 0).all()) and float(row[0]) == 1 and float(row[-1]) == 0
    assert torch.allclose(hint, geometry_depth(ramp(1, 5) * 1000, grading=grading), atol=1e-5)


def test_gradings() -> None:
    inverse, even = (geometry_depth(ramp(1, 5), grading=grading)[0, 0, :, 0] for grading in (INVERSE, EVEN))
    assert float(inverse[500]) == pytest.approx((1 / 3 - 0.2) / 0.8, abs=0.003)  # at a distance of 3
    assert float(even[500]) == pytest.approx(1 - (0.5 - 0.02) / (0.85 - 0.02), abs=0.003)


def test_what_was_not_measured_is_black_and_does_not_count() -> None:
    distances = ramp(1, 5).clone()
    distances[0, 0, :7] = torch.tensor([float("inf"), float("nan"), 0.0, -1.0, float("inf"), 1e9, 1e-9])
    seen = torch.ones(1, 1, 1001, dtype=torch.bool)
    seen[0, 0, 5:7] = False
    hint = geometry_depth(distances, seen)[0, 0, :, 0]
    assert bool((hint[:7] == 0).all()) and float(hint[7]) == 1
    assert torch.allclose(hint[7:], geometry_depth(distances[:, :, 7:])[0, 0, :, 0])


def test_frames_are_graded_alone_and_nothing_seen_is_black() -> None:
    frames = torch.cat([ramp(1, 5), ramp(100, 700), torch.full((1, 1, 1001), float("inf")), torch.ones(1, 1, 1001)])
    hint = geometry_depth(frames)
    assert all(torch.equal(hint[index], geometry_depth(frames[index][None])[0]) for index in range(4))
    assert not hint[2:].any() and hint[:2].any()
