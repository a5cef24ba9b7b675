"""Angles between normals that were turned by known angles, and against NumPy's sums."""

import numpy as np
import pytest
import torch

from control_composer.evaluation.errors import EvaluationError
from control_composer.evaluation.normals import angles, normal_score


def turned(*degrees: float) -> torch.Tensor:
    """(1, 1, n, 3): the axis to the viewer turned to the right."""
    radians = torch.deg2rad(torch.tensor(degrees))
    vectors = torch.stack([radians.sin(), torch.zeros_like(radians), radians.cos()], dim=1)
    return (vectors / 2 + 0.5)[None, None]


def test_the_angle_is_that_of_the_turn():
    degrees = [0.0, 0.5, 11.0, 45.0, 90.0, 135.0, 179.0]
    found = angles(turned(*degrees), turned(*[0.0] * 7))
    assert found.flatten().tolist() == pytest.approx(degrees, abs=1e-3)


def test_mean_median_and_shares():
    score = normal_score(turned(1, 10, 12, 25, 42, 90), turned(0, 0, 0, 0, 0, 0))
    assert score.mean.item() == pytest.approx(30)
    assert score.median.item() == pytest.approx((12 + 25) / 2, abs=1e-3)
    assert [score.within_11.item(), score.within_22.item(), score.within_30.item()] == pytest.approx(
        [2 / 6, 3 / 6, 4 / 6]
    )


def test_it_is_what_numpy_computes():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(2, 2, 6, 7, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    expected = np.degrees(np.arccos((vectors[0] * vectors[1]).sum(-1)))
    score = normal_score(*torch.from_numpy(vectors / 2 + 0.5).float())
    np.testing.assert_allclose(score.mean, expected.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(score.median, np.median(expected.reshape(2, -1), axis=1), rtol=1e-5)
    for share, limit in ((score.within_11, 11.25), (score.within_22, 22.5), (score.within_30, 30)):
        np.testing.assert_allclose(share, (expected < limit).mean(axis=(1, 2)), rtol=1e-6)


def test_pixels_that_are_no_normals_do_not_count():
    found, wanted = turned(0, 20, 20, 20, 40), turned(0, 0, 0, 0, 0)
    found[0, 0, 1], wanted[0, 0, 2], wanted[0, 0, 3] = 0, 0.5, 1
    score = normal_score(found, wanted)
    assert (score.mean.item(), score.median.item()) == (pytest.approx(20, abs=1e-3), pytest.approx(20, abs=1e-3))
    assert score.within_11.item() == 0.5
    nothing = normal_score(torch.zeros(1, 2, 2, 3), turned(0, 0, 0, 0).reshape(1, 2, 2, 3))
    assert all(number.isnan().all() for number in vars(nothing).values())


def test_eight_bits_and_resizing_keep_a_normal():
    wanted = turned(0, 30, 60)
    eight_bit = (wanted * 255).round() / 255
    assert normal_score(eight_bit, wanted).mean.item() < 0.5
    assert normal_score((wanted - 0.5) * 0.7 + 0.5, wanted).mean.item() == pytest.approx(0, abs=1e-3)


def test_the_same_is_perfect_and_a_batch_is_its_pictures():
    wanted = torch.cat([turned(0, 20, 50), turned(5, 70, 80)])
    perfect = normal_score(wanted, wanted)
    assert perfect.mean.tolist() == pytest.approx([0, 0], abs=1e-5) and perfect.within_11.tolist() == [1, 1]
    found = torch.cat([turned(1, 2, 3), turned(9, 9, 9)])
    whole = normal_score(found, wanted)
    for number in range(2):
        alone = normal_score(found[number : number + 1], wanted[number : number + 1])
        assert [value.item() for value in vars(alone).values()] == [
            value[number].item() for value in vars(whole).values()
        ]


def test_unequal_sizes_are_refused():
    with pytest.raises(
        EvaluationError, match=r"^normals: found shapes \(1, 2, 2, 3\) and \(1, 2, 2, 1\), but two equal"
    ):
        normal_score(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 1))
