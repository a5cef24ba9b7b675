"""Structural similarity against scikit-image's."""

import pytest
import torch

from control_composer.evaluation.errors import EvaluationError
from control_composer.evaluation.ssim import ssim, ssim_map


def pictures(seed: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(2, 23, 31, channels, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_scikit_images(channels: int):
    metrics = pytest.importorskip("skimage.metrics")
    wanted = pictures(0, channels)
    found = (0.7 * wanted + 0.3 * pictures(1, channels)).clamp(0, 1)
    expected = [
        metrics.structural_similarity(
            a.numpy(),
            b.numpy(),
            channel_axis=2,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(found.double(), wanted.double(), strict=True)
    ]
    assert 0.3 < expected[0] < 0.97
    assert ssim(found, wanted).tolist() == pytest.approx(expected, abs=1e-5)


def test_the_same_is_perfect_and_a_batch_is_its_pictures():
    wanted, found = pictures(0), pictures(1)
    assert ssim(wanted, wanted).tolist() == pytest.approx([1, 1], abs=1e-6)
    alone = [ssim(found[n : n + 1], wanted[n : n + 1]).item() for n in range(2)]
    assert ssim(found, wanted).tolist() == pytest.approx(alone, abs=1e-6)


def test_flat_pictures():
    black, white = torch.zeros(1, 11, 11, 3), torch.ones(1, 11, 11, 3)
    assert ssim(black, black).item() == 1
    # Only the light differs: C1 / (1 + C1).
    assert ssim(black, white).item() == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-3)


def test_the_map_is_lowest_where_they_differ():
    wanted = torch.full((1, 41, 41, 3), 0.5)
    found = wanted.clone()
    found[0, 10, 30] = 1
    similar = ssim_map(found, wanted)
    assert similar.shape == (1, 31, 31)
    assert divmod(int(similar.argmin()), 31) == (5, 25)
    assert similar[0, 20:].min().item() == pytest.approx(1, abs=1e-5)


def test_what_the_window_does_not_fit_into_is_refused():
    with pytest.raises(
        EvaluationError, match=r"^ssim: found pictures of 40 × 10 pixels, but at least 11 × 11 .*; enlarge"
    ):
        ssim(torch.zeros(1, 10, 40, 3), torch.zeros(1, 10, 40, 3))
