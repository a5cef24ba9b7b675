"""Where hint and mask come to lie on the canvas, for any size, aspect and area."""

import pytest

pytest.importorskip("comfy")

import comfy.utils
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from control_composer.control.errors import ControlError
from control_composer.control.placing import Placing, place_hint, place_mask

CELL = 8
few = settings(max_examples=40, derandomize=True, deadline=None)
cells = st.integers(8, 160)
pixels = st.integers(8, 200)
placings = st.builds(Placing, st.sampled_from(["crop", "fit", "stretch"]), st.sampled_from(["black", "white", "edge"]))


@st.composite
def canvases(draw):
    """A canvas in cells and an area of it."""
    height, width = draw(st.integers(8, 96)), draw(cells)
    y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return height, width, (draw(st.integers(1, height - y)), draw(st.integers(1, width - x)), y, x)


def noise(height, width, batch=1, channels=3):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(height + width))


@few
@given(pixels, pixels, canvases(), st.booleans())
def test_crop_is_what_the_stock_nodes_do(height, width, canvas, from_image):
    hint = noise(height, width, 2)
    if from_image:  # as it comes from an IMAGE: another layout in memory, for which torch has another kernel
        hint = hint.movedim(1, -1).contiguous().movedim(-1, 1)
    rows, columns, _ = canvas
    expected = comfy.utils.common_upscale(hint, columns * CELL, rows * CELL, "nearest-exact", "center")
    before = hint.clone()
    assert torch.equal(place_hint(hint, rows, columns, Placing()), expected)
    assert torch.equal(hint, before)


@few
@given(pixels, pixels, canvases(), placings)
def test_an_area_is_cut_out_of_the_whole_canvas(height, width, canvas, placing):
    hint = noise(height, width)
    rows, columns, (h, w, y, x) = canvas
    whole = place_hint(hint, rows, columns, placing)
    assert whole.shape == (1, 3, rows * CELL, columns * CELL)
    part = place_hint(hint, rows, columns, placing, (h, w, y, x))
    assert torch.equal(part, whole[..., y * CELL : (y + h) * CELL, x * CELL : (x + w) * CELL])
    mask = hint[:, 0]
    whole = place_mask(mask, (height, width), rows, columns, placing)
    assert whole.shape == (1, 1, rows, columns)
    part = place_mask(mask, (height, width), rows, columns, placing, (h, w, y, x))
    torch.testing.assert_close(part, whole[..., y : y + h, x : x + w], atol=1e-6, rtol=0)


@few
@given(pixels, pixels, canvases(), st.sampled_from(["black", "white", "edge"]))
def test_fit_shows_the_whole_picture_in_the_middle(height, width, canvas, fill):
    rows, columns, _ = canvas
    rows, columns = rows * CELL, columns * CELL
    marked = torch.full((1, 1, height, width), 0.5)
    placed = place_hint(marked, rows // CELL, columns // CELL, Placing("fit", fill))[0, 0]
    if fill == "edge":
        assert (placed == 0.5).all()
        return
    picture = placed == 0.5
    assert (placed[~picture] == (1.0 if fill == "white" else 0.0)).all()
    ys, xs = (picture.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    assert picture[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1].all()
    assert len(ys) == rows or len(xs) == columns
    for found, length in ((ys, rows), (xs, columns)):
        assert 0 <= (length - 1 - found[-1]) - found[0] <= 1  # an odd rest has its larger half at the end
    scale = min(rows / height, columns / width)
    assert abs(len(ys) - height * scale) <= 1 and abs(len(xs) - width * scale) <= 1


def test_edge_continues_the_outermost_pixels():
    hint = torch.arange(16.0).view(1, 1, 2, 8)
    placed = place_hint(hint, 4, 4, Placing("fit", "edge"))[0, 0]
    assert torch.equal(placed[0], placed[12]) and torch.equal(placed[-1], placed[19])
    assert torch.equal(placed[12, ::4], torch.arange(8.0)) and torch.equal(placed[19, ::4], torch.arange(8.0, 16.0))


@few
@given(st.sampled_from([(8, 5000), (5000, 8), (1, 3000), (3000, 1), (1, 1)]), canvases(), placings)
def test_no_aspect_leaves_nothing(size, canvas, placing):
    rows, columns, area = canvas
    assert place_hint(torch.ones(1, 3, *size), rows, columns, placing, area).shape[2:] == (area[0] * 8, area[1] * 8)
    assert place_mask(torch.ones(1, *size), size, rows, columns, placing, area).shape[2:] == area[:2]


def test_a_size_at_which_the_hosts_own_crop_fails():
    hint = torch.rand(1, 3, 8, 1000)
    with pytest.raises(RuntimeError):
        comfy.utils.common_upscale(hint, 8 * 8, 160 * 8, "nearest-exact", "center")
    assert place_hint(hint, 160, 8, Placing()).shape == (1, 3, 1280, 64)


@few
@given(pixels, pixels, canvases(), placings)
def test_a_mask_of_ones_changes_nothing_and_one_of_zeros_leaves_nothing(height, width, canvas, placing):
    rows, columns, area = canvas
    ones = place_mask(torch.ones(2, height, width), (height, width), rows, columns, placing, area)
    if placing.sizing != "fit":
        assert (ones == 1).all() and ones.shape == (2, 1, *area[:2])
    assert not place_mask(torch.zeros(1, height, width), (height, width), rows, columns, placing, area).any()


@few
@given(pixels, pixels, canvases(), st.sampled_from(["black", "white", "edge"]))
def test_a_mask_is_nothing_beside_the_picture(height, width, canvas, fill):
    """Where the hint's picture is, in the parts of each cell that it covers."""
    rows, columns, _ = canvas
    covered = place_hint(torch.ones(1, 1, height, width), rows, columns, Placing("fit", "black"))
    expected = torch.nn.functional.avg_pool2d(covered, CELL)
    found = place_mask(torch.ones(1, height, width), (height, width), rows, columns, Placing("fit", fill))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@few
@given(st.integers(2, 12), st.integers(2, 12), canvases(), placings, st.integers(1, 4))
def test_the_mask_lies_on_the_hint(height, width, canvas, placing, finer):
    """Blocks of 16 pixels, large enough for the nearest pixel to be right within a fraction: hint and mask of the same drawing agree."""
    rows, columns, area = canvas
    blocks = (noise(height, width, 1, 1) > 0.5).float()
    hint = blocks.repeat_interleave(16, 2).repeat_interleave(16, 3)
    mask = blocks.repeat_interleave(16 * finer, 2).repeat_interleave(16 * finer, 3)[:, 0]
    size = (hint.shape[2], hint.shape[3])
    placed = place_hint(hint, rows, columns, Placing(placing.sizing, "black"), area)
    found = place_mask(mask, size, rows, columns, placing, area)
    expected = torch.nn.functional.avg_pool2d(placed, CELL)
    sharp = torch.nn.functional.max_pool2d(placed, CELL) == -torch.nn.functional.max_pool2d(-placed, CELL)
    small = min(rows, columns) * CELL < 2 * max(size)  # then one nearest pixel stands for many
    tolerance = 0.26 if not small else 1.0
    assert (found - expected).abs().max() <= tolerance
    if not small and sharp.any():
        assert (found - expected)[sharp].abs().max() <= 0.26
    again = place_mask(hint[:, 0], size, rows, columns, placing, area)
    torch.testing.assert_close(again, found, atol=1e-5, rtol=0)  # the same drawing at another number of pixels


@few
@given(pixels, pixels, canvases(), placings, st.floats(0, 1))
def test_placing_a_mask_is_linear(height, width, canvas, placing, factor):
    rows, columns, area = canvas
    a, b = torch.rand(2, 2, height, width, generator=torch.Generator().manual_seed(1))
    kept = a.clone()

    def place(mask):
        return place_mask(mask, (height, width), rows, columns, placing, area)

    blend = place(factor * a + (1 - factor) * b)
    torch.testing.assert_close(blend, factor * place(a) + (1 - factor) * place(b), atol=1e-6, rtol=0)
    assert torch.equal(a, kept)


@pytest.mark.parametrize("size", [(64, 96), (63, 95), (65, 96), (640, 960), (128, 193), (8, 12)])
def test_masks_of_the_hints_aspect(size):
    assert place_mask(torch.ones(1, *size), (64, 96), 8, 12, Placing()).shape == (1, 1, 8, 12)


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (640, 940), (512, 512)])
def test_a_mask_of_another_aspect_is_refused(size):
    with pytest.raises(ControlError) as refused:
        place_mask(torch.ones(1, *size), (64, 96), 8, 12, Placing())
    assert str(refused.value) == (
        f"mask is {size[1]}×{size[0]} pixels, but the hint is 96×64 and a mask of the same aspect was expected, at any size; "
        "make the mask from the hint's picture, or crop both alike."
    )


@pytest.mark.parametrize("area", [(8, 8, 1, 0), (8, 13, 0, 0), (0, 4, 0, 0), (4, 4, -1, 0)])
def test_an_area_beside_the_canvas_is_refused(area):
    h, w, y, x = area
    message = (
        f"area of the conditioning is {w}×{h} latent cells at ({x}, {y}), but it must lie inside of the 12×8 cells of the latent; "
        "correct its size or place."
    )
    for place in (
        lambda: place_hint(torch.ones(1, 3, 64, 96), 8, 12, Placing(), area),
        lambda: place_mask(torch.ones(1, 64, 96), (64, 96), 8, 12, Placing(), area),
    ):
        with pytest.raises(ControlError) as refused:
            place()
        assert str(refused.value) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("middle", "black"), 'sizing is "middle", but one of crop, fit, stretch was expected; choose one of them.'),
        (("fit", "grey"), 'fill is "grey", but one of black, white, edge was expected; choose one of them.'),
    ],
)
def test_an_unknown_placing_is_refused(settings, message):
    with pytest.raises(ControlError) as refused:
        Placing(*settings)
    assert str(refused.value) == message
