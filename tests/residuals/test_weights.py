import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_composer.residuals import (
    Flat,
    Layout,
    LevelWeights,
    ListedWeights,
    NamedWeights,
    Product,
    ResolutionWeights,
    SoftWeights,
)
from control_composer.tests.residuals.layouts import SD1, SDXL, layouts

sizes = st.tuples(st.integers(8, 160), st.integers(8, 160))
every_weights = st.builds(
    ResolutionWeights, st.sampled_from(["normalised", "literal"]), st.sampled_from(["actual", "nominal"])
)


def by_level(weights, layout: Layout, height, width):
    """The weight of each level, and that all blocks of a level have it."""
    found: dict[int, float] = {}
    for block, weight in zip(layout.blocks(height, width), weights(layout.blocks(height, width)), strict=True):
        assert found.setdefault(block.level, weight) == weight
    return list(found.values())


@pytest.mark.parametrize(
    ("layout", "side", "form", "size", "expected"),
    [
        (SD1, 64, "normalised", "nominal", [0.125, 0.25, 0.5, 1]),
        (SD1, 64, "literal", "nominal", [1, 2, 4, 8]),
        (SD1, 64, "normalised", "actual", [0.125, 0.25, 0.5, 1]),
        (SD1, 64, "literal", "actual", [1, 2, 4, 8]),
        (SD1, 96, "literal", "actual", [64 / 96, 64 / 48, 64 / 24, 64 / 12]),
        (SDXL, 128, "normalised", "nominal", [0.25, 0.5, 1]),
        (SDXL, 128, "literal", "nominal", [1, 2, 4]),
        (SDXL, 128, "literal", "actual", [0.5, 1, 2]),
    ],
)
def test_weights_of_the_paper(layout, side, form, size, expected):
    assert by_level(ResolutionWeights(form, size), layout, side, side) == expected


def test_the_reference_is_the_numerator_of_literal_weights():
    assert by_level(ResolutionWeights("literal", "actual", 128), SDXL, 128, 128) == [1, 2, 4]
    normalised = ResolutionWeights("normalised", "actual", 128)
    assert by_level(normalised, SDXL, 128, 128) == by_level(ResolutionWeights("normalised", "actual"), SDXL, 128, 128)


@given(layouts(), sizes, every_weights)
def test_any_network_and_latent_get_one_positive_weight_per_block(layout, size, weights):
    found = weights(layout.blocks(*size))
    assert len(found) == layout.connections
    assert all(math.isfinite(weight) and weight > 0 for weight in found)
    if weights.form == "normalised":
        assert max(found) == 1
    assert found == weights(layout.blocks(*size[::-1]))  # turned by a quarter


@given(layouts(), sizes, st.lists(every_weights | st.builds(Flat, st.floats(-4, 4)), min_size=1, max_size=4))
def test_products_multiply_block_by_block(layout, size, parts):
    blocks = layout.blocks(*size)
    product = parts[0]
    for part in parts[1:]:
        product = product * part
    for index, weight in enumerate(product(blocks)):
        assert weight == pytest.approx(math.prod(part(blocks)[index] for part in parts), rel=1e-12)
    assert (parts[0] * Flat())(blocks) == parts[0](blocks)


def test_products_of_products_stay_flat_numbers():
    assert Product((Flat(2), Product((Flat(3), Flat(4)))))(SD1.blocks(8, 8)) == (24.0,) * 13


def test_no_blocks_no_weights():
    assert ResolutionWeights()(()) == ()


@pytest.mark.parametrize("reference", [0, -1, float("nan"), float("inf")])
def test_a_reference_that_cannot_divide_is_refused(reference):
    with pytest.raises(ValueError, match=r"reference .* must be a positive number; use 64"):
        ResolutionWeights(reference=reference)


def test_unknown_words_are_refused():
    with pytest.raises(
        ValueError, match=r"form 'hard' and size 'nominal', but form is one of \('normalised', 'literal'\)"
    ):
        ResolutionWeights("hard")  # type: ignore[arg-type]


def test_weights_are_written_for_people():
    assert str(Flat(0.5) * SoftWeights()) == "flat 0.5 × soft 0.825"
    assert str(SoftWeights(ladder="logspace")) == "soft logspace"
    assert str(ResolutionWeights("literal", "actual")) == "64/h, literal, actual size"
    assert str(LevelWeights((1.0, 0.5), 0.0)) == "levels 1, 0.5, middle 0"
    assert str(ListedWeights((1.0, 0.25))) == "1, 0.25"
    assert str(NamedWeights((("output 3", 0.0), ("output", (1.0, 2.0))))) == "output 3: 0, output: 1 2"
