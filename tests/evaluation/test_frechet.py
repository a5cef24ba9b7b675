"""Fréchet distances against the closed form and against SciPy's root of a matrix."""

import numpy as np
import pytest
import scipy.linalg
import torch

from control_composer.evaluation.errors import EvaluationError
from control_composer.evaluation.frechet import frechet_distance


def rows(count: int, width: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=random) @ torch.randn(width, width, generator=random)


def by_scipy(first: torch.Tensor, second: torch.Tensor) -> float:
    a, b = first.double().numpy(), second.double().numpy()
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(one @ two).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one + two - 2 * root))


def test_it_is_what_scipys_root_gives():
    first, second = rows(60, 9, 0), rows(45, 9, 1) + 0.5
    assert frechet_distance(first, second) == pytest.approx(by_scipy(first, second), rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(by_scipy(first, second), rel=1e-9)


def test_the_closed_form_of_one_dimension():
    """(difference of means)² + (difference of standard deviations)²."""
    first, second = rows(30, 1, 0), rows(30, 1, 1) * 3 + 7
    expected = (first.mean() - second.mean()) ** 2 + (first.std() - second.std()) ** 2
    assert frechet_distance(first, second) == pytest.approx(expected.item(), rel=1e-5)


def test_a_shift_is_its_square_and_the_same_is_nothing():
    first = rows(40, 6, 0)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(first, first + 2) == pytest.approx(6 * 4, rel=1e-5)


def test_fewer_pictures_than_features():
    first, second = rows(4, 20, 0), rows(5, 20, 1)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(first, second) > 1


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (
            torch.zeros(1, 3),
            torch.zeros(4, 3),
            r"^features: found 3 features of 1 pictures, but .* were expected; give more",
        ),
        (
            torch.zeros(4, 3),
            torch.zeros(4, 2),
            r"^features: found 3 numbers .* and 2 .*, but as many were expected; take",
        ),
        (
            torch.zeros(4, 3),
            torch.zeros(4, 3, 1),
            r"^features: found torch.float32 numbers of shape \(4, 3, 1\), but .*;",
        ),
        (
            torch.zeros(4, 3),
            torch.full((4, 3), torch.nan),
            r"^features: found numbers that are NaN .*, but finite .*; run",
        ),
    ],
)
def test_what_has_no_distance_is_refused(first: torch.Tensor, second: torch.Tensor, text: str):
    with pytest.raises(EvaluationError, match=text):
        frechet_distance(first, second)
