"""Inpaint hints against the recipe, and through the node."""

from __future__ import annotations

import pytest
import torch

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.inpaint import inpaint


def picture(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 24, 40, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("masked", "value"), [("-1", -1.0), ("black", 0.0)])
@pytest.mark.parametrize("masks", [1, 2])
def test_masked_pixels_are_marked(masked: str, value: float, masks: int) -> None:
    image, mask = picture(), torch.zeros(masks, 12, 20)
    mask[:, 3:6, 4:9] = 1.0
    mask[-1, 9:, :] = 1.0
    hint = inpaint(image, mask, masked=masked)
    for frame in range(2):
        sized = torch.nn.functional.interpolate(mask[frame % masks][None, None], (24, 40), mode="bilinear")[0, 0]
        for channel in range(3):
            expected = torch.where(sized > 0.5, torch.tensor(value), image[frame, ..., channel])
            assert torch.equal(hint[frame, ..., channel], expected)
    assert 0.05 < float((hint == value).float().mean()) < 0.6


def test_an_empty_mask_leaves_the_picture() -> None:
    assert torch.equal(inpaint(picture(), torch.zeros(24, 40)), picture())


def test_masks_that_do_not_go_with_the_pictures() -> None:
    with pytest.raises(PreprocessorError) as refused:
        inpaint(picture(), torch.zeros(3, 24, 40))
    assert str(refused.value) == (
        "mask: found a tensor of shape (3, 24, 40), but one mask for all or one for each of the 2 pictures was expected; "
        "connect a MASK output of as many masks."
    )
    with pytest.raises(PreprocessorError, match=r'masked: found "white", but one of -1, black was expected'):
        inpaint(picture(), torch.zeros(1, 24, 40), masked="white")
