"""Depth errors against the paper's sums, and the alignment against NumPy's least squares."""

import math

import numpy as np
import pytest
import torch

from control_composer.evaluation.depth import FARTHEST, aligned, depth_score, nearness_score
from control_composer.evaluation.errors import EvaluationError


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_sum_over_pairs_of_pixels_in_the_paper():
    """Equation 2 of Eigen et al.: the differences of all pairs of pixels, not their mean."""
    found, wanted = noise(1, 4, 5) + 0.5, noise(1, 4, 5, seed=1) + 0.5
    y, target = found.double().flatten().log().numpy(), wanted.double().flatten().log().numpy()
    pairs = ((y[:, None] - y[None]) - (target[:, None] - target[None])) ** 2
    expected = math.sqrt(pairs.sum() / (2 * len(y) ** 2))
    assert depth_score(found, wanted).scale_invariant.item() == pytest.approx(expected, rel=1e-6)


def test_the_scale_matters_to_the_share_alone():
    wanted = noise(1, 6, 6) + 1
    for scale, close in ((1.0, 1), (1.2, 1), (1 / 1.2, 1), (1.3, 0), (1 / 1.3, 0)):
        score = depth_score(wanted * scale, wanted)
        assert score.scale_invariant.item() == pytest.approx(0, abs=1e-6)
        assert score.close.item() == close


def test_pixels_without_depth_do_not_count():
    wanted = torch.tensor([[[1.0, 2.0, 0.0, 4.0, -1.0, 5.0]]])
    found = torch.tensor([[[1.0, 2.0, 3.0, math.inf, 3.0, math.nan]]])
    score = depth_score(found, wanted)
    assert (score.scale_invariant.item(), score.close.item()) == (0, 1)
    nothing = depth_score(found, torch.zeros_like(wanted))
    assert nothing.scale_invariant.isnan().all() and nothing.close.isnan().all()


def test_the_alignment_is_that_of_least_squares():
    wanted = noise(3, 8, 7)
    found = 0.3 * wanted + 0.2 + 0.1 * noise(3, 8, 7, seed=3)
    for frame, goal, result in zip(found, wanted, aligned(found, wanted), strict=True):
        design = np.stack([frame.double().flatten().numpy(), np.ones(56)], axis=1)
        scale, shift = np.linalg.lstsq(design, goal.double().flatten().numpy(), rcond=None)[0]
        np.testing.assert_allclose(result.numpy(), frame.double().numpy() * scale + shift, atol=1e-12)


def test_hints_may_differ_by_scale_and_shift():
    wanted = noise(2, 8, 8)
    score = nearness_score(wanted * 0.5 + 0.3, wanted)
    assert score.scale_invariant.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert score.close.tolist() == [1, 1]


def test_hints_are_inverse_depth_to_the_farthest():
    wanted = torch.tensor([[[0.0, 0.25, 0.5, 1.0]]])
    found = torch.tensor([[[0.1, 0.2, 0.6, 0.9]]])
    brought = aligned(found, wanted)
    depths = [1 / max(value, 1 / FARTHEST) for value in brought.flatten().tolist()]
    score, expected = (
        nearness_score(found, wanted),
        depth_score(torch.tensor([[depths]]), torch.tensor([[[20.0, 4, 2, 1]]])),
    )
    assert score.scale_invariant.item() == pytest.approx(expected.scale_invariant.item(), rel=1e-6)
    assert score.close.item() == expected.close.item()
    assert 0.1 < score.scale_invariant.item() < 1


def test_what_is_inside_out_is_not_turned():
    wanted = noise(1, 8, 8)
    assert nearness_score(1 - wanted, wanted).scale_invariant.item() > 0.3
    assert aligned(1 - wanted, wanted).std().item() == pytest.approx(0, abs=1e-9)


def test_flat_pictures():
    flat, hill = torch.full((1, 8, 8), 0.4), noise(1, 8, 8)
    assert nearness_score(flat, flat).scale_invariant.item() == pytest.approx(0, abs=1e-7)
    assert nearness_score(torch.zeros(1, 8, 8), flat).close.item() == 1
    assert nearness_score(hill, flat).scale_invariant.item() > 0.3
    assert nearness_score(flat, hill).scale_invariant.item() > 0.3


def test_a_batch_is_its_pictures():
    found, wanted = noise(3, 5, 6), noise(3, 5, 6, seed=4)
    whole = nearness_score(found, wanted)
    for number in range(3):
        alone = nearness_score(found[number : number + 1], wanted[number : number + 1])
        assert alone.scale_invariant.item() == whole.scale_invariant[number].item()
        assert alone.close.item() == whole.close[number].item()


def test_unequal_sizes_and_broken_pixels_are_refused():
    with pytest.raises(
        EvaluationError, match=r"^depth: found shapes \(1, 2, 2\) and \(1, 3, 2\), but two equal ones .*;"
    ):
        depth_score(torch.ones(1, 2, 2), torch.ones(1, 3, 2))
    with pytest.raises(EvaluationError, match=r"^depth: found pixels that are NaN or infinite, but numbers .*; look"):
        nearness_score(torch.full((1, 2, 2), math.nan), torch.ones(1, 2, 2))
    with pytest.raises(EvaluationError, match=r"^depth: found shapes .* but two equal ones were expected; resize one"):
        aligned(torch.ones(1, 2, 2), torch.ones(1, 3, 2))
