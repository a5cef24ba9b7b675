import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from control_composer.residuals import Accumulator, Layout, Residuals, ResidualShapeError
from control_composer.residuals.rows import spread
from control_composer.tests.residuals.layouts import SD1, layouts

sizes = st.tuples(st.integers(8, 24), st.integers(8, 24))


def made(layout: Layout, height: int, width: int, rows: int = 2, seed: int = 0) -> Residuals:
    generator = torch.Generator().manual_seed(seed)
    tensors = [
        torch.randn(rows, block.channels, block.height, block.width, generator=generator)
        for block in layout.blocks(height, width)
    ]
    return Residuals(output=tuple(tensors[:-1]), middle=(tensors[-1],))


def tensors(residuals):
    return [tensor for _, _, tensor in residuals.items()]


@given(layouts(), sizes, st.floats(-8, 8, width=32), st.floats(-8, 8, width=32))
@settings(max_examples=30)
def test_scaling_is_linear_keeps_its_input_and_is_the_identity_at_one(layout, size, a, b):
    residuals = made(layout, *size)
    before = [tensor.clone() for tensor in tensors(residuals)]
    n = layout.connections
    both = zip(tensors(residuals.scaled([a] * n)), tensors(residuals.scaled([b] * n)), strict=True)
    for (x, y), together, original in zip(both, tensors(residuals.scaled([a + b] * n)), before, strict=True):
        torch.testing.assert_close(x + y, together, rtol=1e-5, atol=1e-5)
        assert torch.equal(x, original * a)
    assert all(torch.equal(x, y) for x, y in zip(tensors(residuals.scaled([1.0] * n)), before, strict=True))
    assert not any(tensor.any() for tensor in tensors(residuals.scaled([0.0] * n)))
    assert all(torch.equal(x, y) for x, y in zip(tensors(residuals), before, strict=True))


@given(layouts(), sizes)
@settings(max_examples=30)
def test_a_sum_is_the_sum_block_by_block_whatever_the_order(layout, size):
    parts = [made(layout, *size, seed=seed) for seed in range(3)]
    before = [[tensor.clone() for tensor in tensors(part)] for part in parts]
    sums = []
    for order in ((0, 1, 2), (2, 0, 1)):
        total = Accumulator(parts[order[0]])
        for number in order[1:]:
            for place, index, tensor in parts[number].items():
                total.add(place, index, tensor)
        sums.append(tensors(total.total()))
    for one, other, *three in zip(*sums, *before, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one, sum(three))
    assert all(
        torch.equal(a, b)
        for part, kept in zip(parts, before, strict=True)
        for a, b in zip(tensors(part), kept, strict=True)
    )


@given(layouts(), sizes)
@settings(max_examples=30)
def test_own_residuals_fit_their_own_blocks(layout, size):
    residuals = made(layout, *size)
    blocks = residuals.blocks(layout, *size)
    assert blocks == layout.blocks(*size)
    residuals.check(blocks, 2, "test")


def test_blocks_without_a_layout_are_read_from_the_residuals():
    residuals = made(SD1, 24, 16)
    assert residuals.blocks(None, 24, 16) == SD1.blocks(24, 16)
    tokens = Residuals(output=(torch.zeros(1, 96, 12),))
    assert [block.level for block in tokens.blocks(None, 24, 16)] == [0]


def test_input_residuals_belong_to_the_blocks_that_take_them_from_the_end():
    residuals = Residuals(input=(None, torch.zeros(1, 640, 4, 4), None, None, torch.zeros(1, 320, 8, 8), None, None))
    levels = {block.index: (block.level, block.channels) for block in residuals.blocks(SD1, 8, 8)}
    assert levels[4] == (0, 320)  # third from the end: encoder block 2
    assert levels[1] == (1, 640)  # encoder block 5
    residuals.check(residuals.blocks(SD1, 8, 8), 2, "test")


def test_what_a_control_feeds_is_in_the_order_of_the_model():
    """A UNet takes "input" from the end of the list, transformers from its beginning; gaps do not count."""
    picture, tokens = torch.zeros(1, 4, 2, 2), torch.zeros(1, 6, 4)
    unet = Residuals(input=(picture, None, picture, None), output=(None, picture), middle=(picture,))
    positions = {item[:2]: position for position, item in enumerate(unet.items())}
    expected = [positions[at] for at in (("input", 2), ("input", 0), ("output", 1), ("middle", 0))]
    assert unet.fed(SD1) == unet.fed(None) == expected
    assert Residuals(input=(tokens, None, tokens), output=(tokens,)).fed(None) == [0, 2, 3]
    assert made(SD1, 8, 8).fed(SD1) == list(range(13))


@pytest.mark.parametrize("shape", [(2, 320, 7, 8), (2, 319, 8, 8), (3, 320, 8, 8), (2, 320, 64)])
def test_a_residual_that_does_not_fit_is_named(shape):
    residuals = made(SD1, 8, 8)
    wrong = Residuals(output=(torch.zeros(shape), *residuals.output[1:]), middle=residuals.middle)
    with pytest.raises(ResidualShapeError) as error:
        wrong.check(wrong.blocks(SD1, 8, 8), 2, "odd.safetensors")
    found = " × ".join(map(str, shape))
    assert str(error.value) == (
        f"odd.safetensors gave output 0 a residual of {found}, but that block of the model takes 2 × 320 × 8 × 8 (pictures, channels, height, "
        "width); use a control that was made for this model, or remove the node that changes the sizes inside the model."
    )


def test_more_residuals_than_blocks_are_refused():
    with pytest.raises(
        ResidualShapeError, match="13 output residuals, but the model has 12 encoder blocks; use a control that"
    ):
        Residuals(output=(None,) * 13).blocks(SD1, 8, 8)


def test_an_input_entry_that_no_block_takes_may_be_empty_but_nothing_else():
    rest = (None,) * 12
    assert len(Residuals(input=(None, *rest)).blocks(SD1, 8, 8)) == 13
    with pytest.raises(ResidualShapeError, match="13 input residuals, but the model has 12 encoder blocks"):
        Residuals(input=(torch.zeros(1, 320, 8, 8), *rest)).blocks(SD1, 8, 8)


def test_two_controls_of_different_shapes_are_refused():
    total = Accumulator(Residuals(middle=(torch.zeros(1, 4, 2, 2),)))
    with pytest.raises(
        ResidualShapeError,
        match=r"middle 0 residuals of 1 × 4 × 2 × 2 and 1 × 4 × 2 × 3, but .* one shape; use controls",
    ):
        total.add("middle", 0, torch.zeros(1, 4, 2, 3))


def test_rows_are_put_in_their_places():
    residual = torch.randn(2, 3, 4, 4)
    (full,) = spread([residual], [1, 3], 4)
    assert torch.equal(full[[1, 3]], residual)
    assert not full[[0, 2]].any()


def test_host_lists_are_fresh():
    residuals = made(SD1, 8, 8)
    lists = residuals.to_host()
    lists["output"].pop()
    assert len(residuals.output) == len(residuals.to_host()["output"]) == 12
    assert tensors(Residuals.from_host(residuals.to_host())) == tensors(residuals)
