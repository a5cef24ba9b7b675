"""Colour error per block on pictures whose error can be told by hand."""

import pytest
import torch

from control_composer.evaluation.colour import block_colour_error


def test_it_is_the_mean_difference_of_block_means():
    black = torch.zeros(1, 16, 16, 3)
    half = black.clone()
    half[:, :, :8] = 1
    assert block_colour_error(half, black).item() == pytest.approx(0.5)
    assert block_colour_error(half, half).item() == 0


def test_detail_within_a_block_does_not_count():
    fine = torch.zeros(1, 16, 16, 3)
    fine[:, ::2] = 1
    assert block_colour_error(fine, torch.full((1, 16, 16, 3), 0.5)).item() == pytest.approx(0)


def test_sizes_may_differ_and_each_picture_has_its_own_error():
    pictures = torch.stack([torch.zeros(64, 48, 3), torch.ones(64, 48, 3)])
    assert block_colour_error(pictures, torch.zeros(2, 8, 8, 3)).tolist() == [0, 1]


def test_another_number_of_pictures_is_refused():
    with pytest.raises(ValueError, match="give each picture its own hint"):
        block_colour_error(torch.zeros(2, 8, 8, 3), torch.zeros(1, 8, 8, 3))
