"""CIEDE2000 against its authors' 34 pairs, and colours of sRGB against scikit-image."""

import pytest
import torch

from control_composer.evaluation.delta_e import ciede2000, colour_difference, lab
from control_composer.evaluation.errors import EvaluationError

# Sharma, Wu & Dalal 2005, table 1: L, a, b of both colours and the difference.
PAIRS = """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 9, 14, 3, generator=torch.Generator().manual_seed(seed))


def test_the_authors_pairs_to_their_last_digit():
    rows = [[float(number) for number in line.split()] for line in PAIRS.strip().splitlines()]
    table = torch.tensor(rows, dtype=torch.float64)
    assert len(table) == 34
    first, second, expected = table[:, :3], table[:, 3:6], table[:, 6]
    assert (ciede2000(first, second) - expected).abs().max().item() < 5.1e-5
    assert (ciede2000(second, first) - expected).abs().max().item() < 5.1e-5


def test_pictures_are_scikit_images():
    color = pytest.importorskip("skimage.color")
    found, wanted = pictures(0), pictures(1)
    expected = color.deltaE_ciede2000(*(color.rgb2lab(picture.double().numpy()) for picture in (wanted, found)))
    # The two have the matrix to sRGB's primaries with four and six digits.
    assert (colour_difference(found, wanted) - torch.from_numpy(expected)).abs().max().item() < 0.02
    assert (lab(found) - torch.from_numpy(color.rgb2lab(found.double().numpy()))).abs().max().item() < 0.05


def test_the_same_is_perfect_and_black_to_white_is_a_hundred():
    picture = pictures(0)
    assert colour_difference(picture, picture).eq(0).all()
    black, white = torch.zeros(1, 2, 2, 3), torch.ones(1, 2, 2, 3)
    assert colour_difference(black, white).flatten().tolist() == pytest.approx([100] * 4, abs=1e-3)
    assert lab(white)[0, 0, 0].tolist() == pytest.approx([100, 0, 0], abs=1e-4)


def test_greys_differ_in_lightness_alone():
    dark, light = torch.full((1, 1, 1, 3), 0.3), torch.full((1, 1, 1, 3), 0.6)
    assert lab(dark)[..., 1:].abs().max().item() < 1e-3
    assert torch.isfinite(colour_difference(dark, light)).all()


def test_a_batch_is_its_pictures():
    found, wanted = pictures(0), pictures(1)
    alone = torch.cat([colour_difference(found[n : n + 1], wanted[n : n + 1]) for n in range(2)])
    assert torch.allclose(alone, colour_difference(found, wanted), atol=1e-4)


def test_whole_numbers_are_refused():
    with pytest.raises(EvaluationError, match=r"^colours: found torch.uint8 numbers, but floats .*; divide"):
        colour_difference(torch.zeros(1, 2, 2, 3, dtype=torch.uint8), torch.zeros(1, 2, 2, 3, dtype=torch.uint8))
