"""Overlays: numbers for each mode, sizes, batches and refusals."""

import pytest

pytest.importorskip("comfy")

import torch

from control_composer.control.errors import ControlError
from control_composer.control.overlay import COLOURS, FOLLOWED, MISSED, MODES, OWN, overlay
from control_composer.tests import narrow


def square(left, size=40, batch=1, value=1.0):
    """A filled square, whose edges Canny finds."""
    picture = torch.zeros(batch, size, size, 3)
    picture[:, 10:30, left : left + 16] = value
    return picture


def outline(left, size=40):
    picture = torch.zeros(1, size, size, 3)
    picture[:, 10:30, left : left + 16] = 1.0
    picture[:, 11:29, left + 1 : left + 15] = 0.0
    return picture


def test_lines_over_draws_the_bright_parts_and_leaves_the_rest():
    image, hint = narrow.picture(1, 40, 40), outline(12)
    found = overlay(image, hint, opacity=0.75, colour="green")
    dark = hint.amax(-1) == 0
    assert torch.equal(found[dark], image[dark])
    expected = 0.25 * image[~dark] + 0.75 * torch.tensor(COLOURS["green"])
    torch.testing.assert_close(found[~dark], expected)


def test_a_grey_line_covers_by_its_brightness():
    image, hint = torch.full((1, 16, 16, 3), 0.5), torch.full((1, 16, 16, 3), 0.4)
    found = overlay(image, hint, opacity=0.5, colour="white")
    torch.testing.assert_close(found, torch.full_like(image, 0.5 * (1 - 0.2) + 0.2))


def test_as_it_is_keeps_the_hints_colours():
    image = torch.full((1, 16, 16, 3), 0.5)
    hint = torch.zeros(1, 16, 16, 3)
    hint[..., 0] = 1.0
    assert overlay(image, hint, opacity=1.0, colour="as it is")[0, 0, 0].tolist() == [1.0, 0.0, 0.0]


def test_blend_mixes_everywhere():
    image, hint = narrow.picture(1, 16, 24), narrow.picture(1, 16, 24, seed=9)
    found = overlay(image, hint, mode="blend", opacity=0.3, colour="as it is")
    torch.testing.assert_close(found, 0.7 * image + 0.3 * hint)


def test_compare_edges_tells_followed_missed_and_own():
    hint = outline(12)
    line = hint.amax(-1) > 0

    def share(found, colour):
        return (found[line] == torch.tensor(colour)).all(-1).float().mean()

    obeyed = overlay(square(12), hint, mode="compare edges", opacity=1.0)
    assert share(obeyed, FOLLOWED) == 1
    ignored = overlay(torch.full((1, 40, 40, 3), 0.5), hint, mode="compare edges", opacity=1.0)
    assert share(ignored, MISSED) == 1
    torch.testing.assert_close(ignored[~line], torch.full((int((~line).sum()), 3), 0.175))
    moved = overlay(square(1), hint, mode="compare edges", opacity=1.0)
    assert share(moved, MISSED) > 0.3
    assert int((moved == torch.tensor(OWN)).all(-1).sum()) > 30
    assert int((obeyed == torch.tensor(OWN)).all(-1).sum()) == 0


@pytest.mark.parametrize("mode", MODES)
def test_opacity_zero_is_the_picture_and_the_inputs_stay(mode):
    image, hint = narrow.picture(2, 40, 32), outline(12)
    kept = image.clone(), hint.clone()
    found = overlay(image, hint, mode=mode, opacity=0.0)
    overlay(image, hint, mode=mode, opacity=1.0)
    assert torch.equal(image, kept[0]) and torch.equal(hint, kept[1])
    if mode != "compare edges":
        assert torch.equal(found, image)


def test_the_hint_is_laid_as_its_sizing_says():
    """A white hint of 40 × 20 on a square picture: cropped and stretched it covers all, fitted the middle half."""
    image, hint = torch.zeros(1, 64, 64, 3), torch.ones(1, 20, 40, 3)
    covered = {
        sizing: overlay(image, hint, sizing=sizing, colour="white", opacity=1.0)[0, ..., 0]
        for sizing in ("crop", "stretch", "fit")
    }
    assert covered["crop"].min() == covered["stretch"].min() == 1
    assert covered["fit"][16:48].min() == 1 and covered["fit"][:16].max() == covered["fit"][48:].max() == 0
    hint[:, :, :10] = 0  # the left quarter: off the picture when cropped, a quarter of it when stretched
    assert overlay(image, hint, sizing="crop", colour="white", opacity=1.0).min() == 1
    stretched = overlay(image, hint, sizing="stretch", colour="white", opacity=1.0)[0, ..., 0]
    assert stretched[:, :16].max() == 0 and stretched[:, 16:].min() == 1


@pytest.mark.parametrize(
    ("policy", "expected"), [("cycle", [0, 1, 0, 1, 0]), ("repeat", [0, 0, 0, 1, 1]), ("hold last", [0, 1, 1, 1, 1])]
)
def test_short_batches_of_hints(policy, expected):
    hints = torch.stack([torch.zeros(16, 16, 3), torch.ones(16, 16, 3)])
    found = overlay(torch.zeros(5, 16, 16, 3), hints, colour="white", opacity=1.0, policy=policy)
    assert found.mean(dim=(1, 2, 3)).tolist() == expected


def test_alpha_grey_half_precision_and_values_beyond_one():
    image = torch.cat([torch.full((1, 16, 16, 3), 1.5), torch.zeros(1, 16, 16, 1)], -1).half()
    found = overlay(image, torch.zeros(1, 8, 8, 1))
    assert found.shape == (1, 16, 16, 3) and found.dtype == torch.float32
    assert found.min() == found.max() == 1.0


IMAGE = torch.zeros(2, 16, 16, 3)
NAN = torch.full((1, 8, 8, 3), float("nan"))


@pytest.mark.parametrize(
    ("image", "hint", "changes", "sentence"),
    [
        (
            None,
            IMAGE,
            {},
            "image of Hint Overlay is NoneType, but a batch of pictures (pictures, height, width, channels) was expected; "
            "connect an IMAGE output.",
        ),
        (
            IMAGE,
            IMAGE[0],
            {},
            "hint of Hint Overlay is a tensor of shape (16, 16, 3), but a batch of pictures (pictures, height, width, channels) was "
            "expected; connect an IMAGE output.",
        ),
        (
            IMAGE,
            IMAGE[..., :2],
            {},
            "hint of Hint Overlay is 2 × 16 × 16 × 2 (pictures, height, width, channels), but at least one picture with 1, 3 or 4 channels "
            "was expected; check the node that makes it.",
        ),
        (
            IMAGE[:0],
            IMAGE,
            {},
            "image of Hint Overlay is 0 × 16 × 16 × 3 (pictures, height, width, channels), but at least one picture with 1, 3 or 4 channels "
            "was expected; check the node that makes it.",
        ),
        (
            IMAGE,
            NAN,
            {},
            "hint of Hint Overlay has pixels that are NaN or infinite, but numbers from 0 to 1 were expected; "
            "check the node that makes the picture.",
        ),
        (
            IMAGE[:1],
            IMAGE,
            {},
            "hint of Hint Overlay has 2 pictures, but at most 1 were expected, one for each of image; "
            "connect the hints of these pictures only.",
        ),
        (
            torch.zeros(3, 16, 16, 3),
            IMAGE,
            {"policy": "error"},
            'hint of Hint Overlay has 2 pictures for 3 of image, but with the policy "error" one for each, or a single one, was expected; '
            "choose another policy, or give one hint for each picture.",
        ),
        (
            IMAGE,
            IMAGE,
            {"mode": "lines"},
            'mode of Hint Overlay is "lines", but one of lines over, blend, compare edges was expected; choose one of them.',
        ),
        (
            IMAGE,
            IMAGE,
            {"colour": "pink"},
            'colour of Hint Overlay is "pink", but one of magenta, red, yellow, green, cyan, white, as it is was expected; '
            "choose one of them.",
        ),
        (
            IMAGE,
            IMAGE,
            {"opacity": 1.5},
            "opacity of Hint Overlay is 1.5, but a number from 0, only the picture, to 1 was expected; type one, for example 0.8.",
        ),
    ],
)
def test_refusals(image, hint, changes, sentence):
    with pytest.raises(ControlError) as refusal:
        overlay(image, hint, **changes)
    assert str(refusal.value) == sentence
