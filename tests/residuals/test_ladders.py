"""Soft Weights, Level Weights and presets against the formulas of the programs that artists know."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from control_composer.residuals import (
    PRESETS,
    Block,
    BlockWeightsError,
    Flat,
    Layout,
    LevelWeights,
    ResolutionWeights,
    SoftWeights,
)
from control_composer.tests.residuals.layouts import SD1, SDXL, layouts

bases = st.floats(0, 1)


def test_soft_weights_are_the_guess_mode_of_the_original():
    """lllyasviel/ControlNet: control_scales = strength * 0.825 ** (12 - i) for i in range(13)."""
    assert SoftWeights()(SD1.blocks(64, 64)) == tuple(0.825 ** float(12 - i) for i in range(13))


def test_my_prompt_is_more_important():
    """sd-webui-controlnet: weight * 0.825 ** (12 - i). It cuts the ladder for SDXL out of this; corrected it is 0.825 ** (9 - i)."""
    mode = PRESETS["My prompt is more important"]
    assert mode.uncond_strength == 1.0
    assert mode.weights(SD1.blocks(64, 64)) == tuple(0.825 ** float(12 - i) for i in range(13))
    assert mode.weights(SDXL.blocks(128, 128)) == tuple(0.825 ** float(9 - i) for i in range(10))
    assert [round(weight, 4) for weight in mode.weights(SDXL.blocks(128, 128))] == [
        *(0.1770, 0.2146, 0.2601, 0.3153, 0.3822, 0.4633, 0.5615, 0.6806, 0.8250, 1.0)
    ]


@pytest.mark.parametrize(("name", "balance"), [("Balanced", 1.0), ("ControlNet is more important", 0.0)])
@pytest.mark.parametrize("layout", [SD1, SDXL])
def test_the_flat_modes_differ_in_balance_only(name, balance, layout):
    assert PRESETS[name].weights(layout.blocks(64, 64)) == (1.0,) * layout.connections
    assert PRESETS[name].uncond_strength == balance


def test_cfg_resolution_weighting_is_conditional_only_and_by_resolution():
    mode = PRESETS["CFG resolution weighting"]
    assert mode.uncond_strength == 0.0
    assert mode.weights(SD1.blocks(64, 64)) == (*[0.125] * 3, *[0.25] * 3, *[0.5] * 3, *[1.0] * 4)
    assert mode.weights(SDXL.blocks(128, 128)) == (*[0.25] * 3, *[0.5] * 3, *[1.0] * 4)


@given(st.integers(1, 40), bases)
def test_scaled_soft_of_advanced_controlnet(outputs, base):
    """Output i of n gets base ** (n - i), the middle 1: it reads n from the control, so that SDXL has its own ladder."""
    layout = Layout(((0, 4),) * outputs, (0, 4))
    assert SoftWeights(base)(layout.blocks(8, 8)) == (*(base ** float(outputs - i) for i in range(outputs)), 1.0)


@given(st.integers(1, 40), bases)
def test_logspace_is_the_guess_mode_of_diffusers(count, base):
    """diffusers: scales = torch.logspace(-1, 0, len(down_block_res_samples) + 1), the base is not in it."""
    blocks = Layout(((0, 4),) * (count - 1), (0, 4)).blocks(8, 8)
    found = SoftWeights(base, "logspace")(blocks)
    assert found == tuple(np.logspace(-1, 0, count))
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64), torch.logspace(-1, 0, count, dtype=torch.float64)
    )


@pytest.mark.parametrize(("layout", "second"), [(SD1, 0.1212), (SDXL, 0.1292)])
def test_logspace_on_real_bases(layout, second):
    found = SoftWeights(ladder="logspace")(layout.blocks(64, 64))
    assert [round(found[i], 4) for i in (0, 1, -1)] == [0.1, second, 1.0]


def adapter_blocks():
    return [Block("input", 9 - 3 * level, level, 320, 64 >> level, 64 >> level) for level in range(4)]


def test_the_ladder_of_a_t2i_adapter_counts_its_own_four_places():
    assert SoftWeights()(adapter_blocks()) == (0.825**3, 0.825**2, 0.825, 1.0)
    assert SoftWeights(ladder="logspace")(adapter_blocks()) == tuple(np.logspace(-1, 0, 4))


@given(layouts(), bases, bases)
def test_ladders_compose_by_product(layout, a, b):
    """base^(n-i) · other^(n-i) = (base · other)^(n-i), and 1 is the identity."""
    blocks = layout.blocks(16, 16)
    for one, other in zip((SoftWeights(a) * SoftWeights(b))(blocks), SoftWeights(a * b)(blocks), strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-300)
    assert SoftWeights(1.0)(blocks) == (1.0,) * layout.connections
    assert (SoftWeights(a) * SoftWeights(1.0))(blocks) == SoftWeights(a)(blocks)


@given(layouts(), bases, st.sampled_from(["power", "logspace"]))
def test_a_ladder_rises_to_one_whatever_the_number_of_blocks(layout, base, ladder):
    found = SoftWeights(base, ladder)(layout.blocks(16, 16))
    assert len(found) == layout.connections and found[-1] == 1
    assert list(found) == sorted(found)


def test_no_blocks_no_ladder():
    assert SoftWeights()(()) == SoftWeights(ladder="logspace")(()) == LevelWeights(())(()) == ()


levels = st.lists(st.floats(-8, 8), min_size=5, max_size=5).map(tuple)


@given(layouts(), levels, st.floats(-8, 8))
def test_each_block_gets_the_number_of_its_level_and_the_middle_its_own(layout, numbers, middle):
    blocks = layout.blocks(40, 24)
    assert LevelWeights(numbers, middle)(blocks) == (*(numbers[level] for level, _ in layout.encoder), middle)
    assert LevelWeights((1.0,) * 5)(blocks) == (1.0,) * layout.connections


@given(layouts(), levels, levels, st.floats(-8, 8), st.floats(-8, 8))
def test_levels_compose_by_product_in_any_grouping(layout, a, b, x, y):
    blocks = layout.blocks(40, 24)
    one, other, third = LevelWeights(a, x), LevelWeights(b, y), ResolutionWeights()
    together = LevelWeights(tuple(p * q for p, q in zip(a, b, strict=True)), x * y)
    assert (one * other)(blocks) == together(blocks) == (other * one)(blocks)
    for left, right in zip(((one * other) * third)(blocks), (one * (other * third))(blocks), strict=True):
        assert left == pytest.approx(right, rel=1e-12)
    assert (one * Flat())(blocks) == one(blocks)


def test_numbers_for_levels_that_a_control_lacks_have_no_effect():
    assert LevelWeights((2, 3, 4, 5), 6)(SDXL.blocks(8, 8)) == (2,) * 3 + (3,) * 3 + (4,) * 3 + (6,)
    assert LevelWeights((2, 3, 4, 5), 6)(adapter_blocks()) == (2, 3, 4, 5)


def test_a_level_without_a_number_is_refused():
    with pytest.raises(BlockWeightsError) as error:
        LevelWeights((1, 1, 1))(SD1.blocks(8, 8))
    assert str(error.value) == (
        "Level Weights has numbers for 3 levels, but this control has blocks on 4; use Block Weights, which takes one number per block."
    )


@pytest.mark.parametrize("base", [-0.1, math.nan, math.inf])
def test_a_base_that_is_no_weight_is_refused(base):
    with pytest.raises(ValueError, match=r"base .* must be a number of at least 0; use 0.825\."):
        SoftWeights(base)


def test_unknown_ladders_are_refused():
    with pytest.raises(
        ValueError, match=r"ladder 'steep', but it is one of \('power', 'logspace'\); choose from these\."
    ):
        SoftWeights(ladder="steep")  # type: ignore[arg-type]


@pytest.mark.parametrize(("numbers", "middle", "name"), [((1, math.nan), 1, "level 1"), ((1,), math.inf, "middle")])
def test_level_weights_that_are_no_numbers_are_refused(numbers, middle, name):
    with pytest.raises(
        ValueError, match=rf"Level Weights got (nan|inf) for {name}, but a finite number was expected; type"
    ):
        LevelWeights(numbers, middle)
