"""Sums of many controls: the arithmetic of one block after the other to the last bit, in few calls of the device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from control_composer.residuals import Accumulator, Residuals, ResidualShapeError
from control_composer.residuals.rows import picked, runs_of, spread
from control_composer.residuals.shaping import all_shaped, shaped_by
from control_composer.tests.residuals import one_by_one

SHAPES = [(4, 6, 5), (8, 3, 5), (8, 3, 5), (3, 7, 1)]
PLACES = [("output", 0), ("output", 1), ("input", 2), ("middle", 0)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def random(rows: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, *shape, generator=generator).to(dtype) for shape in SHAPES]


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """To the last bit: 0 and -0 differ."""
    return a.dtype == b.dtype and torch.equal(a, b) and torch.equal(a.signbit(), b.signbit())


NOTHING = {"lift_fresh", "_local_scalar_dense"}
"""On the CPU, for numbers that are rounded."""


class Launches(TorchDispatchMode):
    """Names of the operations that compute something; a call for many tensors is one."""

    def __init__(self):
        super().__init__()
        self.names = []

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # or torch imports its compiler

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if not func.is_view and not name.startswith(("empty", "new_empty")) and name not in NOTHING:
            self.names.append(name)
        return func(*args, **kwargs or {})


numbers = st.sampled_from([1.0, 0.7, 0.1, -1.3, 0.0])
subsets = st.sampled_from([(0, 1, 2, 3), (0, 1), (2, 3), (1,), (0, 2, 3), (0, 3)])


@st.composite
def contributions(draw):
    rows = draw(subsets)
    return (
        rows,
        draw(st.sampled_from([1, len(rows)])),
        draw(st.sampled_from([1.0, 0.7])),
        draw(st.sampled_from([[1.0] * 4, [1.0, 0.825, 0.3, 0.1]])),
        draw(st.lists(numbers, min_size=len(rows), max_size=len(rows)) | numbers.map(lambda x: [x] * len(rows))),
        draw(st.sampled_from(DTYPES)),
    )


SINGLE_ROW_OF_A_LESSER_DTYPE = [
    ((0, 1, 2, 3), 1, 1.0, [1.0] * 4, [0.7] * 4, torch.float16),
    ((0, 1), 1, 1.0, [1.0] * 4, [1.0] * 2, torch.float32),
]


@example(False, torch.float32, SINGLE_ROW_OF_A_LESSER_DTYPE)
@given(st.booleans(), st.sampled_from(DTYPES), st.lists(contributions(), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_sums_are_those_of_one_block_after_the_other_to_the_last_bit(chained, dtype, layers):
    before = random(4, dtype, 99) if chained else []
    sums = dict(zip(PLACES, before, strict=False))
    start = Residuals(output=tuple(before[:2]), input=(None, None, before[2]), middle=(before[3],)) if chained else None
    total = Accumulator(start)
    given_to_it = [(tensor, tensor.clone()) for tensor in before]
    for seed, (rows, count, gain, weights, factors, other) in enumerate(layers):
        parts = random(count, other, seed)
        given_to_it += [(tensor, tensor.clone()) for tensor in parts]
        found, made = all_shaped(parts, gain, weights, factors)
        total.add_rows(PLACES, found, rows, 4, made)
        for at, part, weight in zip(PLACES, parts, weights, strict=True):
            one_by_one.add_rows(sums, at, one_by_one.shaped_by(part, gain, weight, factors), rows, 4)
    result = {(place, index): tensor for place, index, tensor in total.total().items() if tensor is not None}
    assert set(result) == set(PLACES)
    assert all(same(result[at].expand_as(sums[at]), sums[at]) for at in PLACES)
    assert all(same(tensor, kept) for tensor, kept in given_to_it), "what it was given stays as it is"


@given(st.sampled_from(DTYPES), numbers, numbers, st.lists(numbers, min_size=3, max_size=3), st.sampled_from([1, 3]))
def test_shaping_rounds_after_each_factor(dtype, gain, weight, factors, rows):
    for residual in random(rows, dtype, 5):
        kept = residual.clone()
        found = shaped_by(residual, gain, weight, factors)
        expected = one_by_one.shaped_by(residual, gain, weight, factors)
        assert same(found.expand_as(expected), expected) and same(residual, kept)


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1), min_size=1))))
def test_rows_are_picked_as_by_an_index(case):
    count, rows = case
    values = torch.randn(count, 3)
    assert torch.equal(picked(values, rows, count), values[rows])
    assert [run.first + step for run in runs_of(rows) for step in range(run.length)] == list(rows)


@pytest.mark.parametrize("rows", [(1, 2), (0, 2)])
def test_other_rows_are_zero(rows):
    residual = torch.randn(2, 4, 3)
    for given_rows in (residual, residual[:1]):
        (found,) = spread([given_rows], rows, 4)
        assert same(found, one_by_one.spread(given_rows, rows, 4))


def operations(steps, start=None):
    """Names of the operations of `steps`, each (rows, gain, weights, factors), over four blocks."""
    total, parts = Accumulator(start), [random(len(rows), torch.float32, seed) for seed, (rows, *_) in enumerate(steps)]
    with Launches() as launches:
        for own, (rows, gain, weights, factors) in zip(parts, steps, strict=True):
            found, made = all_shaped(own, gain, weights, factors)
            total.add_rows(PLACES, found, rows, 4, made)
    return launches.names


ALL, HALF, FLAT, SOFT = (0, 1, 2, 3), (2, 3), [1.0] * 4, [1.0, 0.825, 0.3, 0.1]
BALANCED = [0.5, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([(ALL, 1.0, FLAT, FLAT)], []),
        ([(ALL, 0.7, SOFT, FLAT)], ["_foreach_mul", "_foreach_mul"]),
        ([(ALL, 1.0, FLAT, FLAT)] * 3, ["_foreach_add", "_foreach_add_"]),
        ([(ALL, 0.7, FLAT, FLAT)] * 3, ["_foreach_mul"] + ["_foreach_mul", "_foreach_add_"] * 2),
        ([(ALL, 1.0, FLAT, BALANCED)], ["_foreach_copy_", "_foreach_mul_"]),
        ([(ALL, 0.7, FLAT, BALANCED)], ["_foreach_mul", "_foreach_mul_"]),
        ([(HALF, 1.0, FLAT, [1.0, 1.0])], ["_foreach_zero_", "_foreach_copy_"]),
        ([(HALF, 1.0, FLAT, [0.5, 0.5])], ["_foreach_mul", "_foreach_zero_", "_foreach_copy_"]),
        ([(HALF, 1.0, FLAT, [1.0, 1.0])] * 2, ["_foreach_zero_", "_foreach_copy_", "_foreach_add_"]),
        ([(ALL, 1.0, FLAT, FLAT), (HALF, 1.0, FLAT, [1.0, 1.0])], ["_foreach_copy_", "_foreach_add_"]),
    ],
)
def test_all_blocks_are_one_call(layers, expected):
    assert operations(layers) == expected


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("rows", [ALL, HALF])
def test_what_was_given_unshaped_is_not_added_to(chained, rows):
    first, second = random(4, torch.float32, 1), random(len(rows), torch.float32, 2)
    kept = [tensor.clone() for tensor in first]
    total = Accumulator(
        Residuals(output=tuple(first[:2]), input=(None, None, first[2]), middle=(first[3],)) if chained else None
    )
    if not chained:
        total.add_rows(PLACES, first, ALL, 4)
    for _ in range(2):
        total.add_rows(PLACES, second, rows, 4)
    assert all(same(tensor, before) for tensor, before in zip(first, kept, strict=True))
    assert not any(tensor is before for (_, _, tensor) in total.total().items() for before in first)


def test_a_sum_of_rows_of_another_shape_is_refused():
    total = Accumulator(Residuals(middle=(torch.zeros(4, 4, 2, 2),)))
    with pytest.raises(ResidualShapeError, match="middle 0 residuals of 4 × 4 × 2 × 2 and 4 × 4 × 2 × 3"):
        total.add_rows([("middle", 0)], [torch.ones(1, 4, 2, 3)], (1,), 4)
