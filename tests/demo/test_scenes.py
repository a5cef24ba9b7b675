"""The generator: reproducible, in range, and drawn as its captions say."""

import pytest
import torch

from control_composer.demo.scenes import COLOURS, GROUNDS, MOST_SHAPES, SHAPES, SIZE, render, sample_scenes
from control_composer.demo.words import LENGTH, VOCABULARY, token_batch, tokens


def test_a_seed_gives_the_same_scenes_and_another_seed_others():
    first, again, other = sample_scenes(20, 7), sample_scenes(20, 7), sample_scenes(20, 8)
    assert first.captions() == again.captions() != other.captions()
    assert torch.equal(render(first), render(again))


def test_pictures_are_rgb_in_range():
    pictures = render(sample_scenes(12, 0))
    assert pictures.shape == (12, SIZE, SIZE, 3)
    assert pictures.dtype == torch.float32
    assert pictures.min() >= 0 and pictures.max() <= 1


def test_every_shape_stands_in_the_colour_that_the_caption_names():
    """At the centre of a filled shape, or on the band of a ring, lies its colour, but for shading and tint."""
    scenes = sample_scenes(200, 3)
    pictures, palette = render(scenes), torch.tensor(list(COLOURS.values()))
    seen = set()
    for row in range(len(scenes)):
        if scenes.count[row] != 1:  # of several, one may cover another
            continue
        kind = int(scenes.shape[row, 0])
        x, y = scenes.centre[row, 0].tolist()
        if SHAPES[kind] == "ring":
            x += 0.74 * float(scenes.radius[row, 0])
        colour = palette[scenes.colour[row, 0]]
        assert (pictures[row, int(y), int(x)] - colour).abs().max() < 0.3, scenes.captions()[row]
        seen.add(kind)
    assert seen == set(range(len(SHAPES)))


def test_shapes_stay_inside_the_picture():
    scenes = sample_scenes(500, 4)
    present = torch.arange(MOST_SHAPES) < scenes.count[:, None]
    room = torch.minimum(scenes.centre, SIZE - scenes.centre).min(dim=-1).values - scenes.radius
    assert room[present].min() > 0


def test_all_counts_kinds_colours_and_grounds_occur():
    scenes = sample_scenes(500, 5)
    assert set(scenes.count.tolist()) == {1, 2, 3}
    assert set(scenes.ground.tolist()) == set(range(len(GROUNDS)))
    assert set(scenes.colour.flatten().tolist()) == set(range(len(COLOURS)))


def test_no_colour_occurs_twice_in_a_scene():
    scenes = sample_scenes(300, 6)
    for row in range(len(scenes)):
        used = [int(scenes.ground_colour[row]), *scenes.colour[row, : int(scenes.count[row])].tolist()]
        assert len(set(used)) == len(used)


def test_every_caption_is_a_prompt_that_the_world_reads():
    captions = sample_scenes(1000, 2).captions()
    batch = token_batch(captions)
    assert batch.shape == (1000, LENGTH)
    assert (batch > 0).sum(dim=1).max() <= 19


def test_tokens_are_words_in_order_padded_with_zero():
    found = tokens("A red circle, on a blue ground.")
    words = ["a", "red", "circle", ",", "on", "a", "blue", "ground"]
    assert found == [VOCABULARY.index(word) for word in words] + [0] * (LENGTH - len(words))
    assert tokens("") == [0] * LENGTH


def test_an_unknown_word_is_refused_with_all_known_ones():
    with pytest.raises(ValueError) as error:
        tokens("a red dragon on a green ground")
    assert str(error.value) == (
        "Demo Prompt: the prompt 'a red dragon on a green ground' has 'dragon', but the demo world only knows "
        + ", ".join(repr(word) for word in VOCABULARY if word)
        + '; write a prompt such as "a red circle and a blue star on a green ground".'
    )


def test_too_long_a_prompt_is_refused():
    with pytest.raises(ValueError, match="has 40 words, but the demo world reads at most 24; name up to three shapes"):
        tokens("a red circle and " * 10)
