"""Masks: reading them, bringing them to a block, and what happens where several overlap."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool2d

from control_composer.residuals.masks import (
    MaskError,
    average,
    mask_for,
    normalised,
    prepare_mask,
    shrink,
)

few = settings(max_examples=40, derandomize=True, deadline=None)
sides = st.integers(1, 160)
sizes = st.tuples(sides, st.integers(1, 96))


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@few
@given(sizes, st.integers(1, 3), st.floats(0, 40))
def test_prepared_masks(size, batch, feather):
    mask = noise(batch, *size) * 3 - 1
    kept = mask.clone()
    plain = prepare_mask(mask)
    assert plain.dtype == torch.float32 and torch.equal(plain, mask.clamp(0, 1))
    soft = prepare_mask(mask, False, feather)
    inverted = prepare_mask(mask, True, feather)
    torch.testing.assert_close(inverted, 1 - soft, atol=1e-6, rtol=0)
    assert soft.shape == (batch, *size) and soft.min() >= 0 and soft.max() <= 1
    assert torch.equal(mask, kept) and plain.data_ptr() != mask.data_ptr()
    assert torch.equal(prepare_mask(mask[0], False, feather), soft[:1])


@few
@given(sizes, st.floats(0, 60), st.booleans())
def test_a_plain_mask_stays_what_it_is(size, feather, invert):
    for value in (0.0, 1.0):
        found = prepare_mask(torch.full(size, value), invert, feather)
        assert (found == (1 - value if invert else value)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.bool])
def test_other_numbers_become_float32(dtype):
    mask = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    assert torch.equal(prepare_mask(mask), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))


@pytest.mark.parametrize("feather", [2.0, 8.0, 15.5, 32.0])
@pytest.mark.parametrize("axis", [1, 2])
def test_feather_makes_an_edge_soft_by_so_many_pixels_and_does_not_move_it(feather, axis):
    size = 200
    edge = (torch.arange(size) >= size // 2).float()
    mask = edge.view(1, -1, 1).expand(1, size, size) if axis == 1 else edge.view(1, 1, -1).expand(1, size, size)
    soft = prepare_mask(mask, False, feather).movedim(axis, 0)[:, 0, size // 2]
    centres = torch.arange(size) + 0.5 - size / 2
    gauss = 0.5 * (1 + torch.erf(centres / (feather / 2) / math.sqrt(2)))
    assert (soft - gauss).abs().max() < 0.02
    torch.testing.assert_close(soft + soft.flip(0), torch.ones(size), atol=1e-6, rtol=0)
    assert (soft.diff() >= -1e-6).all()
    outside = soft[centres < -feather]
    assert 0 <= outside.max() < 0.04 and soft[centres > -feather / 4].min() > 0.2


def test_the_border_counts_as_continued():
    mask = torch.zeros(40, 40)
    mask[:, 20:] = 1
    soft = prepare_mask(mask, False, 12.0)[0]
    torch.testing.assert_close(soft, soft[:1].expand(40, 40), atol=1e-6, rtol=0)
    assert (soft[:, -1] > 0.999).all()


@few
@given(sizes, sizes)
def test_shrinking_keeps_the_mean_and_the_range(size, target):
    mask = noise(2, 1, *size)
    kept = mask.clone()
    small = shrink(mask, *target)
    assert small.shape == (2, 1, *target) and small.dtype == torch.float32
    torch.testing.assert_close(small.mean((1, 2, 3)), mask.mean((1, 2, 3)), atol=2e-6, rtol=0)
    assert small.min() >= mask.min() - 1e-6 and small.max() <= mask.max() + 1e-6
    assert torch.equal(mask, kept)
    assert (shrink(torch.ones(1, 1, *size), *target) == 1).all()
    assert not shrink(torch.zeros(1, 1, *size), *target).any()


@few
@given(sizes, sizes, st.floats(0, 1))
def test_shrinking_is_linear(size, target, factor):
    a, b = noise(1, 1, *size, seed=1), noise(1, 1, *size, seed=2)
    found = shrink(factor * a + (1 - factor) * b, *target)
    torch.testing.assert_close(
        found, factor * shrink(a, *target) + (1 - factor) * shrink(b, *target), atol=1e-6, rtol=0
    )


@few
@given(st.tuples(st.integers(1, 24), st.integers(1, 24)), st.integers(1, 8), st.integers(1, 8))
def test_whole_divisors_are_plain_averages_and_whole_multiples_are_repeated(size, rows, columns):
    fine = noise(1, 1, size[0] * rows, size[1] * columns)
    torch.testing.assert_close(shrink(fine, *size), avg_pool2d(fine, (rows, columns)), atol=1e-6, rtol=0)
    coarse = noise(1, 1, *size)
    repeated = coarse.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    torch.testing.assert_close(shrink(coarse, *repeated.shape[2:]), repeated, atol=1e-6, rtol=0)


@few
@given(st.integers(1, 60), st.integers(1, 60))
def test_a_pixel_that_a_line_cuts_counts_in_parts(size, cells):
    """Against the exact average: every pixel as `cells` equal parts, every cell as `size` of them."""
    mask = noise(1, 1, 1, size)
    parts = mask.repeat_interleave(cells, 3).view(1, 1, 1, cells, size).double().mean(-1)
    torch.testing.assert_close(shrink(mask, 1, cells).double(), parts, atol=1e-6, rtol=0)


def test_a_thin_line_is_not_lost():
    mask = torch.zeros(1, 1, 512, 512)
    mask[..., 300] = 1
    small = shrink(mask, 8, 8)
    assert torch.equal(small[0, 0, 0], torch.tensor([0, 0, 0, 0, 1 / 64, 0, 0, 0]))


def test_outside_of_its_picture_a_mask_counts_as_nothing():
    lines = torch.tensor([-2.0, 0.0, 1.0, 3.0, 6.0])
    found = average(torch.ones(1, 1, 1, 4), torch.tensor([0.0, 1.0]), lines)
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 1.0, 1.0, 1 / 3]))


@few
@given(st.integers(8, 160), st.integers(8, 96), st.integers(0, 3), st.integers(1, 3))
def test_masks_for_blocks_of_a_unet(height, width, level, batch):
    mask = noise(batch, 1, height, width)
    rows, columns = -(-height // 2**level), -(-width // 2**level)
    found = mask_for((batch, 320, rows, columns), mask)
    assert torch.equal(found, shrink(mask, rows, columns))
    residual = noise(batch, 4, rows, columns)
    assert (residual * found).shape == residual.shape
    video = mask_for((batch, 16, 5, rows, columns), mask)
    assert video.shape == (batch, 1, 1, rows, columns) and torch.equal(video[:, :, 0], found)


@few
@given(st.integers(8, 40), st.integers(8, 40), st.sampled_from([1, 2]), st.integers(1, 3))
def test_masks_for_tokens(height, width, patch, frames):
    """Each token has the mean of its cells, row by row, the same in all frames; at an odd edge of the cells that are there."""
    mask = noise(2, 1, height, width)
    rows, columns = -(-height // patch), -(-width // patch)
    found = mask_for((2, frames * rows * columns, 64), mask, frames)
    assert found.shape == (2, frames * rows * columns, 1)
    for frame in found.view(2, frames, rows, columns).unbind(1):
        for row, column in ((0, 0), (rows - 1, columns - 1), (rows // 2, 0), (0, columns - 1)):
            cells = mask[:, 0, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            torch.testing.assert_close(frame[:, row, column], cells.mean((1, 2)), atol=1e-6, rtol=0)
    assert (mask_for((2, rows * columns, 64), torch.ones_like(mask)) == 1).all()


@pytest.mark.parametrize("shape", [(2, 100, 64), (2, 64), (2,), (2, 3, 4, 5, 6, 7)])
def test_a_residual_without_a_place_on_the_picture_is_refused(shape):
    with pytest.raises(MaskError) as refused:
        mask_for(shape, torch.ones(1, 1, 8, 12))
    assert str(refused.value) == (
        f"a mask for 12×8 latent cells does not go with a residual of {' × '.join(map(str, shape))}: height and width, or one token "
        "per 1×1 or 2×2 cells, were expected; remove the mask from this layer."
    )


@few
@given(sizes, st.integers(1, 5))
def test_normalised_masks(size, count):
    masks = [noise(2 if n % 2 else 1, 1, *size, seed=n) for n in range(count)]
    kept = [mask.clone() for mask in masks]
    found = [normalised(masks, index) for index in range(count)]
    total, before = sum(found), sum(masks)
    torch.testing.assert_close(total, before.clamp(max=1).expand_as(total), atol=1e-5, rtol=0)
    assert all(torch.equal(mask, copy) for mask, copy in zip(masks, kept, strict=True))
    for mask, own in zip(masks, found, strict=True):
        alone = (before <= 1).expand_as(own)
        assert torch.equal(own[alone], mask.expand_as(own)[alone]) and (own <= mask).all()


def test_masks_that_do_not_overlap_stay_as_they_are():
    left, right = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    left[..., :4], right[..., :4] = 1, 0
    assert torch.equal(normalised([left, right], 0), left) and torch.equal(normalised([left, right], 1), right)


def test_masks_of_two_sizes_are_not_normalised():
    with pytest.raises(MaskError) as refused:
        normalised([torch.ones(1, 1, 8, 8), torch.ones(1, 1, 4, 8)], 0)
    assert str(refused.value) == (
        "masks of sizes 1 × 4 × 8 and 1 × 8 × 8 cannot be normalised, but one size was expected; "
        "bring them to the size of the latent first."
    )


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (None, "NoneType"),
        ("mask.png", "str"),
        (torch.ones(8), "a tensor of shape (8,)"),
        (torch.ones(1, 8, 8, 3), "a tensor of shape (1, 8, 8, 3)"),
    ],
)
def test_what_is_no_mask_is_refused(mask, found):
    with pytest.raises(MaskError) as refused:
        prepare_mask(mask)
    assert str(refused.value) == (
        f"mask is {found}, but a batch of masks (masks, height, width) was expected; connect a MASK output, "
        "for a picture through Convert Image to Mask."
    )


@pytest.mark.parametrize("shape", [(0, 8, 8), (1, 0, 8), (8, 0)])
def test_an_empty_mask_is_refused(shape):
    with pytest.raises(MaskError) as refused:
        prepare_mask(torch.ones(shape))
    sizes = " × ".join(map(str, shape))
    assert str(refused.value) == (
        f"mask is empty ({sizes}), but at least one pixel was expected; check the node that makes it."
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(value):
    mask = torch.ones(1, 8, 8)
    mask[0, 3, 3] = value
    with pytest.raises(MaskError) as refused:
        prepare_mask(mask)
    assert str(refused.value) == (
        "mask has pixels that are NaN or infinite, but numbers from 0 to 1 were expected; check the node that makes it."
    )
    with pytest.raises(MaskError) as refused:
        prepare_mask(torch.ones(8, 8), False, value)
    assert (
        str(refused.value)
        == f"feather is {value}, but a number of pixels from 0 was expected; type one, for example 16."
    )


def test_a_negative_feather_is_refused():
    with pytest.raises(MaskError, match=r"^feather is -1.0, but a number of pixels from 0 was expected"):
        prepare_mask(torch.ones(8, 8), False, -1.0)
