"""The same questions to every preprocessor."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("cv2")

from control_composer.preprocessors import PREPROCESSORS, Preprocessor, PreprocessorError
from control_composer.preprocessors.batches import in_chunks
from control_composer.tests.preprocessors.annotator_weights import QUICK, with_networks
from control_composer.tests.preprocessors.pictures import as_image, noise

BY_PREPROCESSOR = {preprocessor.id: preprocessor for preprocessor in PREPROCESSORS}

pytestmark = pytest.mark.parametrize(
    "preprocessor", [with_networks(one) for one in PREPROCESSORS], ids=lambda preprocessor: preprocessor.id
)


@pytest.mark.parametrize("size", [(48, 64), (1, 1), (7, 5), (2000, 30)])
def test_dtype_range_shape_and_channels(preprocessor: Preprocessor, size: tuple[int, int]) -> None:
    hint = preprocessor(as_image(noise(*size)))
    assert hint.dtype == torch.float32 and hint.shape == (1, *size, 3)
    assert float(hint.min()) >= 0 and float(hint.max()) <= 1 and bool(torch.isfinite(hint).all())


def test_the_shorter_side_is_the_resolution(preprocessor: Preprocessor) -> None:
    assert preprocessor(as_image(noise(60, 90)), resolution=32).shape == (1, 32, 48, 3)
    assert preprocessor(as_image(noise(60, 90)), resolution=100).shape == (1, 100, 150, 3)


def test_a_batch_is_the_stack_of_singles_and_the_same_again(preprocessor: Preprocessor) -> None:
    image = as_image(*(noise(40, 56, seed) for seed in range(5)))
    batch = preprocessor(image)
    singles, chunks = torch.cat([preprocessor(frame[None]) for frame in image]), in_chunks(preprocessor, image, 2)
    if BY_PREPROCESSOR[preprocessor.id].annotators:
        # Libraries add up the products of a network in an order that depends on how many there are.
        assert torch.allclose(batch, singles, atol=1e-5) and torch.allclose(batch, chunks, atol=1e-5)
    else:
        assert torch.equal(batch, singles) and torch.equal(batch, chunks)
    assert torch.equal(batch, preprocessor(image))
    assert len({frame.sum().item() for frame in batch}) > 1


def test_it_leaves_what_it_gets(preprocessor: Preprocessor) -> None:
    image = as_image(noise(40, 56))
    turned, before = image.transpose(1, 2), image.clone()
    assert torch.equal(preprocessor(turned), preprocessor(turned.contiguous()))
    assert torch.equal(image, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(preprocessor: Preprocessor, dtype: torch.dtype) -> None:
    image = as_image(noise(40, 40)).to(dtype)
    assert torch.allclose(preprocessor(image), preprocessor(image.float()), atol=1e-6)


def test_gray_and_alpha(preprocessor: Preprocessor) -> None:
    """Gray is as gray in colour; what is transparent is white."""
    image = as_image(noise(40, 56))
    gray = image[..., :1]
    assert torch.equal(preprocessor(gray), preprocessor(gray.repeat(1, 1, 1, 3)))
    alpha = torch.ones(1, 40, 56, 1)
    assert torch.equal(preprocessor(torch.cat([image, alpha], 3)), preprocessor(image))
    alpha[:, :, 28:] = 0
    on_white = image.clone()
    on_white[:, :, 28:] = 1
    assert torch.equal(preprocessor(torch.cat([image, alpha], 3)), preprocessor(on_white))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers(preprocessor: Preprocessor, value: float) -> None:
    image = as_image(noise(16, 16))
    image[0, 3, 4, 1] = value
    with pytest.raises(PreprocessorError) as refused:
        preprocessor(image)
    assert str(refused.value) == (
        "image: found pixels that are NaN or infinite, but numbers from 0 to 1 were expected; "
        "look for the node that made them (often a VAE in fp16: decode in fp32)."
    )


def test_what_is_no_picture(preprocessor: Preprocessor) -> None:
    for image in (
        torch.zeros(1, 8, 8, 2),
        torch.zeros(0, 8, 8, 3),
        torch.zeros(8, 8, 3),
        torch.zeros(1, 8, 8, 3, dtype=torch.int64),
    ):
        with pytest.raises(PreprocessorError, match="image: found"):
            preprocessor(image)
    with pytest.raises(PreprocessorError, match="resolution: found -1"):
        preprocessor(as_image(noise(8, 8)), resolution=-1)


def test_what_people_have_to_know(preprocessor: Preprocessor) -> None:
    assert preprocessor.name and preprocessor.output and preprocessor.description.endswith(".") and preprocessor.aliases
    assert len({other.id for other in PREPROCESSORS}) == len(PREPROCESSORS)
    # The defaults shown to the artist are those of the function.
    defaults = {parameter.id: parameter.default for parameter in preprocessor.parameters}
    defaults |= QUICK.get(preprocessor.id, {})
    picture = as_image(noise(31, 44))
    found = preprocessor.function(picture)
    assert torch.equal(preprocessor(picture, **defaults), found[0] if preprocessor.data else found)
    for parameter in preprocessor.parameters:
        assert parameter.tooltip.endswith(".")
        if isinstance(parameter.default, bool):
            continue
        if isinstance(parameter.default, str):
            assert parameter.default in parameter.options
        else:
            assert parameter.minimum <= parameter.default <= parameter.maximum  # type: ignore[operator]
