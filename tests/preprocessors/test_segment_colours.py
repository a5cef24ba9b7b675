"""Colours of areas without names."""

from __future__ import annotations

import pytest
import torch

from control_composer.preprocessors.segment_colours import seeded_colours


@pytest.mark.parametrize("count", [0, 1, 40, 3000])
def test_eight_bit_colours_of_which_no_two_are_alike(count: int) -> None:
    colours = seeded_colours(count, 7)
    assert colours.shape == (count, 3) and colours.dtype == torch.float32
    assert torch.equal((colours * 255).round() / 255, colours)
    assert len({tuple(colour) for colour in colours.tolist()}) == count
    assert all(max(colour) >= 0.59 and max(colour) - min(colour) > 0.25 for colour in colours.tolist())


def test_a_seed_gives_the_same_colours_everywhere() -> None:
    assert torch.equal(seeded_colours(50, 3)[:20], seeded_colours(20, 3))
    assert not torch.equal(seeded_colours(20, 3), seeded_colours(20, 4))
    # Frozen: pictures that artists made yesterday keep their colours.
    assert (seeded_colours(3, 0) * 255).round().int().tolist() == FIRST


def test_neighbours_in_order_of_size_look_different() -> None:
    colours = seeded_colours(30, 1)
    assert float((colours[1:] - colours[:-1]).abs().amax(1).min()) > 0.3


FIRST = [[104, 157, 57], [236, 116, 207], [9, 215, 204]]
