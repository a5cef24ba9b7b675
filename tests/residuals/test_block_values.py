"""Block weights written as text and JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_composer.residuals import (
    Block,
    BlockWeightsError,
    Flat,
    ListedWeights,
    NamedWeights,
    parse_block_values,
)
from control_composer.tests.residuals.layouts import SD1, SDXL, layouts

finite = st.floats(-1e6, 1e6)
ADAPTER = [Block("input", 9 - 3 * level, level, 320, 64 >> level, 64 >> level) for level in range(4)]
THIRTEEN = "13 blocks (output 0 to output 11, middle)"


@given(layouts(), st.data(), st.sampled_from([",", ", ", " ", "\n", "; ", " ,\n"]))
def test_what_is_written_is_what_each_block_gets(layout, data, separator):
    n = layout.connections
    blocks = layout.blocks(16, 16)
    values = data.draw(st.lists(finite, min_size=n, max_size=n))
    expected = tuple(values)
    assert parse_block_values(separator.join(map(str, values)))(blocks) == expected
    assert parse_block_values(f" {', '.join(map(str, values))},\n")(blocks) == expected
    assert parse_block_values(json.dumps(values))(blocks) == expected
    by_place = {"middle": values[-1], "output": values[:-1]}
    assert parse_block_values(json.dumps(by_place))(blocks) == expected
    by_name = {"middle_0": values[-1]} | {f"output_{i}": value for i, value in enumerate(values[:-1])}
    assert parse_block_values(json.dumps(by_name))(blocks) == expected


@given(layouts(), finite)
def test_a_single_number_is_for_all_blocks(layout, value):
    for text in (str(value), f"  {value},\n"):
        assert parse_block_values(text)(layout.blocks(8, 8)) == (value,) * layout.connections
    assert parse_block_values("1") == Flat()


@given(layouts(), st.data())
def test_listed_weights_compose_by_product(layout, data):
    n, blocks = layout.connections, layout.blocks(8, 8)
    a, b = (ListedWeights(tuple(data.draw(st.lists(finite, min_size=n, max_size=n)))) for _ in range(2))
    assert (a * b)(blocks) == tuple(x * y for x, y in zip(a.values, b.values, strict=True)) == (b * a)(blocks)
    assert (a * ListedWeights((1.0,) * n))(blocks) == a(blocks)


@given(layouts(), st.integers(0, 30))
def test_any_other_count_is_refused(layout, count):
    if count == layout.connections:
        assert len(ListedWeights((0.5,) * count)(layout.blocks(8, 8))) == count
        return
    with pytest.raises(
        BlockWeightsError, match=rf"Block Weights has {count} numbers?, but this control has {layout.connections} "
    ):
        ListedWeights((0.5,) * count)(layout.blocks(8, 8))


def test_what_is_not_named_keeps_one_and_a_single_block_wins_over_its_place():
    weights = parse_block_values('{"output 3": 0, "output": 0.5}')
    assert weights(SD1.blocks(8, 8)) == (0.5, 0.5, 0.5, 0, *[0.5] * 8, 1)
    assert weights(SDXL.blocks(8, 8)) == (0.5, 0.5, 0.5, 0, *[0.5] * 5, 1)
    assert parse_block_values("{}")(SD1.blocks(8, 8)) == (1,) * 13
    assert parse_block_values('{"middle": 0.25}')(SD1.blocks(8, 8)) == (*[1] * 12, 0.25)


def test_the_places_of_a_t2i_adapter():
    """Advanced-ControlNet's soft T2I-Adapter: of the eight steps 0.825^7 … 0.825^0 the powers 7, 2, 1 and 0, from fine to coarse.
    sd-webui-controlnet's: 0.25, 0.62, 0.825, 1."""
    scaled = tuple(0.825**power for power in (7, 2, 1, 0))
    assert [round(weight, 3) for weight in scaled] == [0.260, 0.681, 0.825, 1.0]
    assert parse_block_values(", ".join(map(str, scaled)))(ADAPTER) == scaled
    assert parse_block_values("0.25 0.62 0.825 1")(ADAPTER) == (0.25, 0.62, 0.825, 1)
    assert parse_block_values('{"input_0": 0.25, "input": [1, 0.62, 0.825, 1]}')(ADAPTER) == (0.25, 0.62, 0.825, 1)


@pytest.mark.parametrize(
    ("text", "blocks", "sentence"),
    [
        ("1, 1, 0.5", SD1.blocks(8, 8), f"Block Weights has 3 numbers, but this control has {THIRTEEN}; write 13 numbers, or a single one for all of them."),
        ("[1]", SD1.blocks(8, 8), f"Block Weights has 1 number, but this control has {THIRTEEN}; write 13 numbers, or a single one for all of them."),
        ("1 " * 13, SDXL.blocks(8, 8), "Block Weights has 13 numbers, but this control has 10 blocks (output 0 to output 8, middle); write 10 numbers, or a single one for all of them."),
        ("1 " * 13, ADAPTER, "Block Weights has 13 numbers, but this control has 4 blocks (input 0 to input 3); write 4 numbers, or a single one for all of them."),
        ('{"output": [1, 1]}', SD1.blocks(8, 8), f'Block Weights has 2 numbers for "output", but this control has {THIRTEEN}; write 12 numbers, or a single one for all of them.'),
        ('{"output_12": 1}', SD1.blocks(8, 8), f'Block Weights names "output 12", but this control has {THIRTEEN}; use the names of these.'),
        ('{"input": 0.5}', SD1.blocks(8, 8), f'Block Weights names "input", but this control has {THIRTEEN}; use the names of these.'),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_say_how_many_blocks_there_are(text, blocks, sentence):
    with pytest.raises(BlockWeightsError) as error:
        parse_block_values(text)(blocks)
    assert str(error.value) == sentence


ADVICE = 'write numbers with commas between them, such as "1, 0.5, 0", or JSON, such as {"output": 0.5, "middle": 1}.'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "is empty, but numbers were expected"),
        (" \n", "is empty, but numbers were expected"),
        ("1, half, 0", 'has "half" in place 2, but a number was expected'),
        ("1,, 2", "has nothing in place 2, but a number was expected"),
        ("1, nan", 'has "nan" in place 2, but a number was expected'),
        ("1e999", 'has "1e999" in place 1, but a number was expected'),
        ("1_0 2", 'has "1_0" in place 1, but a number was expected'),
        ("[1, true]", "has true in place 2, but a number was expected"),
        ("[1, NaN]", "has NaN in place 2, but a number was expected"),
        ("[1, [2]]", "has [2] in place 2, but a number was expected"),
        ('[{"middle": 1}]', "has an object in place 1, but a number was expected"),
        (f"[1{'0' * 400}]", f"has 1{'0' * 39} in place 1, but a number was expected"),
        ('{"middle": "high"}', 'has "high" for "middle", but a number was expected'),
        ('{"output": [1, null]}', 'has null in place 2 of "output", but a number was expected'),
        (
            "[1, 2",
            "begins as JSON but cannot be read to its end: Expecting ',' delimiter: line 1 column 6 (char 5), but a whole list or object was expected",
        ),
        ("[" * 100_000, "begins as JSON but cannot be read to its end, but a whole list or object was expected"),
    ],
)
def test_text_that_cannot_be_read_is_refused_with_what_to_write_instead(text, found):
    with pytest.raises(ValueError) as error:
        parse_block_values(text)
    assert str(error.value) == f"values of Block Weights {found}; {ADVICE}"


def test_misspelt_and_repeated_names_are_refused():
    with pytest.raises(ValueError) as error:
        parse_block_values('{"outptu 3": 1}')
    assert str(error.value) == (
        'values of Block Weights names "outptu 3", but names are input, output and middle, alone or with a number such as "output 3"; '
        "correct the name."
    )
    with pytest.raises(
        ValueError, match='names "middle" twice, but one weight per name was expected; remove one of them'
    ):
        parse_block_values('{"middle": 1, "middle_0": 0.5}')


@given(st.text(max_size=40))
def test_no_text_does_anything_but_give_weights_or_a_sentence(text):
    try:
        weights = parse_block_values(text)
    except ValueError as refusal:
        assert str(refusal).startswith("values of Block Weights ")
    else:
        assert isinstance(weights, (Flat, ListedWeights, NamedWeights))
