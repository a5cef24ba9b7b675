import torch
from hypothesis import given
from hypothesis import strategies as st

from control_composer.residuals import Block
from control_composer.residuals.blocks import halve, level_between
from control_composer.tests.residuals.layouts import SD1


def test_sd1_blocks_at_512_pixels():
    blocks = SD1.blocks(64, 64)
    assert SD1.connections == len(blocks) == 13
    assert [block.height for block in blocks] == [64] * 3 + [32] * 3 + [16] * 3 + [8] * 4
    assert [block.nominal_size for block in blocks] == [64] * 3 + [32] * 3 + [16] * 3 + [8] * 4
    assert [block.name for block in blocks][::6] == ["output 0", "output 6", "middle"]
    assert blocks[4] == Block("output", 4, 1, 640, 32, 32)


@given(st.integers(1, 200), st.integers(0, 4))
def test_halving_is_what_the_downsampling_convolutions_do(size, times):
    x = torch.zeros(1, 1, size, 1)
    convolution = torch.nn.Conv2d(1, 1, 3, stride=2, padding=1)
    for _ in range(times):
        x = convolution(x)
    assert halve(size, times) == x.shape[2]


@given(st.integers(8, 200), st.integers(0, 3))
def test_level_is_found_again_from_the_sizes(size, level):
    assert level_between(size, halve(size, level)) == level


def test_actual_size_of_a_block_that_is_not_square_is_that_of_the_square_of_equal_area():
    assert Block("output", 0, 0, 4, 16, 64).actual_size == 32
    assert Block("output", 0, 0, 4, 64, 16).actual_size == 32
