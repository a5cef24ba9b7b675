"""Validation pictures, their scores, and what is kept of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("comfy")
from control_composer.evaluation.fidelity import fidelity
from control_composer.preprocessors import PREPROCESSORS
from control_composer.training import validation
from control_composer.training.objective import Schedule
from control_composer.training.picture import charts, live, read_losses, running_mean, thinned, validation_strip
from control_composer.training.sampling import sample
from control_composer.training.validation import Validation, latest, picture_path, read_rows, read_scores, spread

from .bases import SMALL, make_unet
from .rows import Rows

SCHEDULE = Schedule(torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0), "eps")
CANNY = next(one for one in PREPROCESSORS if one.id == "Canny")


@pytest.fixture(scope="module")
def unet():
    return make_unet("sd1", **SMALL)


def decode(latents):
    """Eight pixels for each cell, with edges."""
    picture = torch.sigmoid(3 * latents[:, :3]).round()
    return picture.repeat_interleave(8, 2).repeat_interleave(8, 3).permute(0, 2, 3, 1)


@pytest.fixture
def make(unet, tmp_path):
    def make(data=None, rows=(0, 2), condition="Canny", annotate=lambda picture: CANNY(picture), **changes):
        plain = {"steps": 2, "guidance": 2.0}
        return Validation(
            data or Rows(4, 24), rows, unet, SCHEDULE, decode, tmp_path, condition, annotate, **(plain | changes)
        )

    return make


def test_pictures_and_scores_are_those_of_the_sampler_and_the_measure(make, unet, tmp_path):
    judge = make(seed=5)
    drawn = judge(3, None)
    assert drawn.step == 3 and drawn.measure == "edge F1 within 2 pixels"
    scores = []
    for number, row in enumerate((0, 2)):
        batch = judge.data.batch(torch.tensor([row]))
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5 + number))
        hint = batch.hint.float() / 255
        latents = sample(unet, None, SCHEDULE, noise, hint, batch.context, judge.data.empty, steps=2, guidance=2.0)
        picture = decode(latents)
        assert torch.equal(drawn.pictures[number], picture[0])
        assert torch.equal(drawn.hints[number], hint[0].permute(1, 2, 0))
        scores.append(float(fidelity("Canny", hint.permute(0, 2, 3, 1), CANNY(picture)).score))
    assert drawn.score == pytest.approx(sum(scores) / 2)
    row = read_rows(tmp_path)[0]
    assert (row.step, row.pictures, row.measure) == (3, 2, drawn.measure)
    assert row.scores == pytest.approx(scores, rel=1e-5)
    again = judge(4, None)
    assert torch.equal(again.pictures, drawn.pictures)


def test_what_is_kept_can_be_read_again(make, tmp_path):
    drawn = make(Rows(4, 24, sizes=(8, 4)), rows=(0, 1))(7, None)
    # The smaller one has white beside and below.
    assert drawn.pictures.shape == (2, 64, 64, 3)
    assert (drawn.pictures[1, 32:] == 1).all() and (drawn.pictures[1, :, 32:] == 1).all()
    kept = latest(tmp_path)
    assert kept.step == 7 and kept.score == pytest.approx(drawn.score, rel=1e-5) and kept.measure == drawn.measure
    for now, before in ((kept.hints, drawn.hints), (kept.pictures, drawn.pictures)):
        assert now.shape == before.shape and (now - before).abs().max() <= 0.5 / 255 + 1e-6
    with Image.open(picture_path(tmp_path, 7)) as image:
        assert image.size == (128, 128)


def test_a_run_that_was_cut_off_writes_its_rows_once(make, tmp_path):
    judge = make(rows=(1,))
    for step in (0, 2, 4, 6, 4):
        judge(step, None)
    steps, scores = read_scores(tmp_path)
    assert steps == [0, 2, 4] and len(set(scores)) == 1
    assert not list(tmp_path.rglob("*.unfinished"))


@pytest.mark.parametrize(
    ("condition", "annotate"), [("", None), ("Scribble", CANNY), ("OpenPose", CANNY), ("?", CANNY)]
)
def test_without_a_measure_there_are_pictures_only(make, tmp_path, condition, annotate):
    drawn = make(condition=condition, annotate=annotate, rows=(0,))(1, None)
    assert drawn.score is None and drawn.measure == ""
    assert read_scores(tmp_path) == ([], []) and latest(tmp_path).pictures.shape == (1, 64, 64, 3)


def test_what_cannot_be_compared_does_not_count(make, tmp_path, monkeypatch):
    found = iter([float("nan"), 0.25])
    monkeypatch.setattr(validation, "fidelity", lambda *_: SimpleNamespace(score=torch.tensor([next(found)])))
    assert make()(1, None).score == 0.25
    first, second = read_rows(tmp_path)[0].scores
    assert np.isnan(first) and second == 0.25


def test_a_hint_of_another_size_is_brought_to_the_hints(make):
    drawn = make(annotate=lambda picture: torch.zeros(1, 32, 32, 3), rows=(0,))(1, None)
    assert drawn.score == 0.0


def test_stopped_it_writes_nothing(make, tmp_path):
    asked = []
    judge = make(should_stop=lambda: asked.append(1) or len(asked) == 2)
    assert judge(1, None) is None
    assert len(asked) == 2 and list(tmp_path.iterdir()) == []


def test_rows_are_spread_evenly():
    assert spread(100, 4) == [12, 37, 62, 87]
    assert spread(2, 4) == [0, 1]
    assert spread(1, 1) == [0]


def test_the_live_picture_shows_losses_scores_and_pictures(make, tmp_path):
    head = "step,loss,rate,gradient\n"
    (tmp_path / "losses.csv").write_text(head + "".join(f"{step},{1 / step},1e-5,1\n" for step in range(1, 31)))
    assert read_losses(tmp_path) == (list(range(1, 31)), [1 / step for step in range(1, 31)])
    without = live(tmp_path, "t", "step 30", None)
    drawn = make()(30, None)
    whole = live(tmp_path, "t", "step 30", drawn)
    assert without.width == whole.width == 640 and whole.height > without.height + 400
    alone = charts(tmp_path, "t")
    status = whole.height - alone.height - validation_strip(drawn).height
    part = whole.crop((0, status, 640, status + alone.height))
    assert 0 < status < 40 and (np.asarray(part) == np.asarray(alone)).all()
    strip = np.asarray(validation_strip(drawn))
    assert strip.shape[1] == 640 and strip.std() > 20
    wide = validation_strip(type(drawn)(1, torch.ones(16, 512, 768, 3), torch.zeros(16, 512, 768, 3), None, ""))
    assert wide.width == 640 and wide.height < 120


def test_long_curves_are_thinned_without_moving():
    steps, values = thinned(list(range(1000)), [float(step) for step in range(1000)])
    assert len(steps) == 200 and steps == values and steps[0] == 2.0 and steps[-1] == 997.0
    assert running_mean([1.0] * 19 + [21.0] + [1.0] * 20)[18:41:20] == [1.0, 2.0]
    assert running_mean([2.0, 4.0]) == [2.0, 3.0]
