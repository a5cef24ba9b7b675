"""What the study's prompts say, and what its recogniser makes of pictures and captions."""

import pytest
import torch

from control_composer.demo.scenes import SHAPES, render, sample_scenes
from control_composer.demo.study import recogniser as module
from control_composer.demo.study.prompts import SETTINGS, prompts
from control_composer.demo.study.recogniser import (
    GROUND_PAIRS,
    PAIRS,
    Named,
    Recogniser,
    Seen,
    caption_accuracy,
    recogniser,
    shape_accuracy,
)
from control_composer.demo.words import tokens


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(64, 9)


def test_each_setting_says_what_it_should(scenes):
    said = {setting: prompts(scenes, setting) for setting in SETTINGS}
    for told in said.values():
        assert len(told) == 64
        assert all(tokens(prompt) is not None for prompt in told)  # words that the world knows, and not too many
    assert said["none"] == [""] * 64
    assert said["perfect"] == scenes.captions()
    for row, prompt in enumerate(said["insufficient"]):
        named, truth = Named.by(prompt), Named.by(said["perfect"][row])
        assert named.ground is None
        assert named.pairs == tuple(("", shape) for _, shape in truth.pairs)
        assert "small" not in prompt and "large" not in prompt


def test_nothing_that_a_conflicting_prompt_names_is_true(scenes):
    said, captions = prompts(scenes, "conflicting"), scenes.captions()
    for prompt, caption in zip(said, captions, strict=True):
        named, truth = Named.by(prompt), Named.by(caption)
        assert len(named.pairs) == len(truth.pairs)
        assert not {shape for _, shape in named.pairs} & {shape for _, shape in truth.pairs}
        assert named.ground[1] != truth.ground[1]
    truth = Seen.of_scenes(scenes)
    assert caption_accuracy(truth, said).max() == shape_accuracy(truth, said).max() == 0
    assert len(set(said)) > 48
    assert prompts(scenes, "conflicting") == said
    # A scene's prompt does not depend on how many stand beside it.
    assert prompts(scenes[slice(0, 8)], "conflicting") == said[:8]


def test_a_prompt_is_read():
    named = Named.by("a large red circle, an orange ring and a small blue star on a striped green ground")
    assert named.pairs == (("red", "circle"), ("orange", "ring"), ("blue", "star"))
    assert named.ground == ("striped", "green")
    assert Named.by("a star on a red ground").ground == ("flat", "red")
    assert Named.by("a striped star on a red ground").ground == ("flat", "red")
    assert Named.by("") == Named((), None)


def test_the_truth_meets_every_caption(scenes):
    truth = Seen.of_scenes(scenes)
    assert truth.pairs.sum() == scenes.count.sum()  # no colour twice
    assert caption_accuracy(truth, scenes.captions()).min() == 1
    assert shape_accuracy(truth, scenes.captions()).min() == 1


def test_accuracy_is_the_share_of_what_is_named():
    pairs = torch.zeros(4, len(PAIRS), dtype=torch.bool)
    pairs[:, PAIRS.index(("red", "circle"))] = True
    ground = torch.full((4,), GROUND_PAIRS.index(("striped", "blue")))
    told = [
        "a red circle on a striped blue ground",
        "a red circle and a red star on a blue ground",
        "a blue circle and a circle",
        "",
    ]
    found = caption_accuracy(Seen(pairs, ground), told)
    torch.testing.assert_close(found[:3], torch.tensor([1.0, 1 / 3, 0.0]))
    assert found[3].isnan()
    shapes = shape_accuracy(Seen(pairs, ground), told)
    torch.testing.assert_close(shapes[:3], torch.tensor([1.0, 0.5, 1.0]))
    assert shapes[3].isnan()


def test_the_recogniser_is_trained_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 8)
    first = recogniser(tmp_path, steps=6)
    monkeypatch.setattr(module, "_train", lambda *_: pytest.fail("it was there"))
    again = recogniser(tmp_path, steps=6)
    pictures = render(sample_scenes(5, 9))
    torch.testing.assert_close(again.features(pictures), first.features(pictures), rtol=0, atol=0)
    seen = again.see(pictures, batch=2)
    assert seen.pairs.shape == (5, 48) and seen.ground.shape == (5,)
    assert again.features(pictures, batch=2).shape == (5, 64)
    assert not torch.equal(first.pairs.weight, Recogniser().pairs.weight)


def test_the_recogniser_learns(monkeypatch):
    """A few scenes by heart."""
    torch.manual_seed(0)
    network, few = Recogniser(), sample_scenes(8, 9)
    monkeypatch.setattr(module, "SCENES", 8)
    monkeypatch.setattr(module, "BATCH", 8)
    monkeypatch.setattr(module, "SEED", 9)
    monkeypatch.setattr(module, "_worn", lambda pictures, random: pictures)
    module._train(network, 60)
    seen = network.see(render(few))
    assert caption_accuracy(seen, few.captions()).mean() > 0.6
    assert caption_accuracy(seen, prompts(few, "conflicting")).mean() < 0.3


def test_what_is_asked_of_a_picture_has_an_order():
    assert PAIRS[7] == ("orange", SHAPES[1]) and GROUND_PAIRS[9] == ("graded", "orange")
