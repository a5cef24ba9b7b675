"""What cannot be meant of a layer, in a sentence each: weights, masks, choices, counts of pictures."""

import pytest

pytest.importorskip("comfy")

import torch

from control_composer.control import ControlError, layer_of
from control_composer.residuals import ImageStrengths, ListedWeights, NamedStrengths
from control_composer.tests import narrow
from control_composer.tests.control.watched import IMAGE, SIZE, apply, soft_mask

NAN = float("nan")


@pytest.fixture(scope="module", params=["sd1"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return narrow.make_model(kind)


@pytest.fixture(scope="module")
def module(kind):
    return narrow.make_module(kind)


@pytest.fixture(scope="module")
def control(module, kind):
    return narrow.make_ours(module, kind.upper())


def refusal(control, image=IMAGE, **settings):
    with pytest.raises(ControlError) as refused:
        layer_of(control, image, **settings)
    return str(refused.value)


def refusal_in_sampling(model, control, image, size, **settings):
    with pytest.raises(ControlError) as refused:
        narrow.sample(model, *apply(control, image, **settings), size, steps=1)
    return str(refused.value)


def test_weights_of_another_count(control):
    assert refusal(control, weights=ListedWeights((1.0,) * 10)) == (
        "The weights do not go with test.safetensors: Block Weights has 10 numbers, but this control has 13 blocks (output 0 to output 11, "
        "middle); write 13 numbers, or a single one for all of them."
    )


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (
            torch.ones(1, 64, 64),
            "mask is 64×64 pixels, but the hint is 128×64 and a mask of the same aspect was expected, at any size; "
            "make the mask from the hint's picture, or crop both alike.",
        ),
        (
            torch.full((1, 64, 128), NAN),
            "Control Layer: mask has pixels that are NaN or infinite, but numbers from 0 to 1 were expected; check the node that makes it.",
        ),
        (
            torch.ones(0, 64, 128),
            "Control Layer: mask is empty (0 × 64 × 128), but at least one pixel was expected; check the node that makes it.",
        ),
        (
            torch.ones(1, 64, 128, 3),
            "Control Layer: mask is a tensor of shape (1, 64, 128, 3), but a batch of masks (masks, height, width) was expected; "
            "connect a MASK output, for a picture through Convert Image to Mask.",
        ),
    ],
)
def test_masks(control, mask, words):
    assert refusal(control, mask=mask) == words


def test_a_feather_that_is_none(control):
    assert refusal(control, mask=soft_mask(), feather_mask=-1.0) == (
        "Control Layer: feather is -1.0, but a number of pixels from 0 was expected; type one, for example 16."
    )


def test_pictures_and_networks_are_named_with_the_layers_node(control):
    assert refusal(control, narrow.picture(1, 64, 64, channels=1)) == (
        "image of Control Layer has 1 channel, but test.safetensors reads hints of 3; turn it into a colour picture, for example with "
        "Convert Mask to Image."
    )
    assert refusal(None) == (
        "control_net of Control Layer is empty, but a control was expected; connect a Load ControlNet node, and if it is connected, "
        "look at what it said about the file."
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sizing": "pad"}, 'sizing is "pad", but one of crop, fit, stretch was expected; choose one of them.'),
        ({"fill": "grey"}, 'fill is "grey", but one of black, white, edge was expected; choose one of them.'),
    ],
)
def test_choices_that_there_are_none(control, settings, words):
    assert refusal(control, **settings) == words


def test_more_hints_than_latents(model, control):
    assert refusal_in_sampling(model, control, narrow.picture(3, 64, 64), (2, 8, 8)) == (
        "The hints for test.safetensors do not go with the batch: there are 3 pictures for 2 latents, but at most one for each was expected; "
        "take 2 of them, or make the latent batch 3 long."
    )


def test_more_masks_than_latents(model, control):
    found = refusal_in_sampling(model, control, narrow.picture(1, 64, 64), (2, 8, 8), mask=soft_mask(3, 1, 64, 64))
    assert found == (
        "The masks for test.safetensors do not go with the batch: there are 3 pictures for 2 latents, but at most one for each was expected; "
        "take 2 of them, or make the latent batch 3 long."
    )


def test_fewer_hints_than_latents_where_that_is_refused(model, control):
    assert refusal_in_sampling(model, control, narrow.picture(2, 64, 64), (3, 8, 8), batch="error") == (
        "The hints for test.safetensors do not go with the batch: there are 2 pictures for 3 latents, but one for each, or a single one, was "
        'expected by the batch policy "error"; give 3 pictures, or choose cycle, repeat, hold last.'
    )


def test_strengths_for_more_pictures_than_there_are(model, control):
    found = refusal_in_sampling(model, control, IMAGE, SIZE, schedule=ImageStrengths((1.0, 0.5, 0.2)))
    assert found == (
        "The schedule of test.safetensors does not go with the batch: Image Strengths has 3 numbers, but the batch has 2 pictures; "
        "write at most 2, or make the batch 3 long."
    )
    assert "names picture 4, but the batch has 2 pictures" in refusal_in_sampling(
        model, control, IMAGE, SIZE, schedule=NamedStrengths(((4, 4, 0.0),))
    )
