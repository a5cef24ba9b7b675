"""Timestep keyframes, against the original's loop over a run written anew here with its state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from control_composer.residuals import Block, Layout, Moment, Moments
from control_composer.residuals.interpolation import between
from control_composer.residuals.keyframe_weights import (
    FeatureWeights,
    KeyframeWeights,
    MiddleTimes,
    NumberedWeights,
    ScaledSoft,
)
from control_composer.residuals.latent_text import parse_latents
from control_composer.residuals.schedules import ScheduleError
from control_composer.residuals.timestep_keyframes import (
    KeyframeSchedule,
    LatentStrengths,
    TimestepKeyframe,
    keyframes_of_steps,
    parts_of,
    settings_of,
    with_keyframes,
)
from control_composer.residuals.weights import BlockWeightsError

SD1 = Layout(tuple((index // 3, 320) for index in range(12)), (3, 1280))
SDXL = Layout(tuple((index // 3, 320) for index in range(9)), (2, 1280))
T2I = tuple(Block("input", index, index, 320, 64 >> index, 64 >> index) for index in range(4))
A, B = KeyframeWeights(ScaledSoft(0.5)), KeyframeWeights(ScaledSoft(0.7))


def cursor(starts, guaranteed, sigmas):
    """The way of the pack itself: a cursor that moves on when the sampler asks, in sigmas (here 1 - percent; 0 percent is beyond all)."""
    begin_of = [1e9 if start == 0 else 1 - start for start in starts]
    current, used, found = None, 0, []
    for sigma in sigmas:

        def owes(index):
            return 0 if begin_of[index] > max(sigmas) else guaranteed[index]

        if current is None or used >= owes(current):
            following = 0 if current is None else current + 1
            while following < len(starts) and begin_of[following] >= sigma:
                current, used = following, 0
                if owes(current) > 0:
                    break
                following += 1
        used += 1
        found.append(current)
    return found


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), min_size=0, max_size=6),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.25, 0.6]),
)
def test_the_same_keyframe_acts_in_each_step_as_in_the_original(frames, steps, first):
    frames = sorted([(0, 0), *frames], key=lambda frame: frame[0])
    starts = tuple(
        start and start / 20 + 0.001 for start, _ in frames
    )  # next to the steps, where rounding decides nothing
    guaranteed = tuple(guarantee for _, guarantee in frames)
    begins = tuple(first + (1 - first) * step / steps for step in range(steps))
    assert list(keyframes_of_steps(starts, guaranteed, begins)) == cursor(
        starts, guaranteed, [1 - begin for begin in begins]
    )


def test_keyframes_between_two_steps_are_each_sure_of_their_steps():
    starts = (0.0, 0.1, 0.11, 0.12)
    begins = (0.0, 0.25, 0.5, 0.75)
    assert keyframes_of_steps(starts, (0, 1, 1, 1), begins) == (0, 1, 2, 3)
    assert keyframes_of_steps(starts, (0, 0, 0, 0), begins) == (0, 3, 3, 3)
    assert keyframes_of_steps(starts, (0, 2, 0, 1), begins) == (0, 1, 1, 3)
    assert keyframes_of_steps((0.0, 0.5), (0, 1), (0.0, 0.5)) == (0, 1)
    # An image-to-image run that begins at half: what starts before owes nothing.
    assert keyframes_of_steps(starts, (0, 1, 1, 1), (0.5, 0.75)) == (3, 3)


def test_a_schedule_asks_the_run_for_its_steps():
    sigmas = [1.0, 0.75, 0.5, 0.25, 0.0]
    run = Moments(lambda percent: 1 - percent, sigmas)
    assert run.begins == pytest.approx((0, 0.25, 0.5, 0.75), abs=2e-6)
    schedule = KeyframeSchedule((0.0, 0.1, 0.12), (0, 1, 1), (1.0, 2.0, 3.0))
    assert [schedule(run.at(sigma)) for sigma in (1.0, 0.75, 0.5, 0.25)] == [1, 2, 3, 3]
    assert schedule(run.at(0.6)) == 2  # between its steps, as a sampler of second order asks
    assert schedule(run.at(1.0)) == 1  # and back
    # Without a run the starts alone count.
    assert [schedule(Moment(percent, percent)) for percent in (0.0, 0.11, 0.5)] == [1, 2, 3]


def test_what_a_keyframe_lacks_it_takes_from_the_one_before_unless_it_says_no():
    mask = torch.ones(1, 2, 2)
    some = LatentStrengths(((0, 1.0),))
    timeline = with_keyframes(
        None,
        [
            TimestepKeyframe(0.2, weights=A, latents=some, mask=mask, null_latent_strength=0.3),
            TimestepKeyframe(0.4, 0.5),
            TimestepKeyframe(0.6, inherit_missing=False),
            TimestepKeyframe(0.8, weights=B),
        ],
    )
    first, second, third, fourth, fifth = settings_of(timeline)
    assert (first.weights.blocks, first.latents, first.mask) == (KeyframeWeights().blocks, None, None)
    assert (second.weights, second.latents, second.null_latent_strength, second.mask) == (A, some, 0.3, mask)
    assert (third.weights, third.latents, third.mask) == (A, some, mask)
    assert third.null_latent_strength == 0  # each keyframe has its own
    assert (fourth.weights, fourth.latents, fourth.mask) == (first.weights, None, None)
    assert fifth.weights is B
    over = LatentStrengths()
    assert {one.weights for one in settings_of(timeline, B, over)} == {B}
    assert all(one.latents is over for one in settings_of(timeline, B, over))


def test_parts_are_one_for_each_settings_and_none_for_what_never_acts():
    assert [part.schedule for part in parts_of(None)] == [None]
    shortcut = (TimestepKeyframe(weights=A),)
    (part,) = parts_of(shortcut)
    assert part.settings.weights is A and part.schedule is None
    # The plain keyframe under one that starts at 0 is gone; strengths of one settings are one schedule.
    timeline = with_keyframes(None, [TimestepKeyframe(0.0, 1.0, weights=A), TimestepKeyframe(0.5, 0.4)])
    (part,) = parts_of(timeline)
    assert part.schedule is not None and part.schedule.strengths == (1.0, 0.4)
    assert str(part.schedule) == "1@0 hold, 0.4@0.5 hold"
    timeline = with_keyframes(timeline, [TimestepKeyframe(0.75, 2.0, weights=B)])
    one, other = parts_of(timeline)
    assert (one.schedule.strengths, other.schedule.strengths) == ((1.0, 0.4, 0.0), (0.0, 0.0, 2.0))
    for percent in (0.0, 0.3, 0.6, 0.9):
        assert sum(part.schedule(Moment(percent, percent)) > 0 for part in (one, other)) == 1
    with pytest.raises(ScheduleError, match=r"starts at 1\.5, but starts run from 0"):
        parts_of(with_keyframes(None, [TimestepKeyframe(1.5, 0.5)]))


def test_strengths_of_pictures():
    some = LatentStrengths(((-1, 0.5), (1, 2.0), (9, 7.0)))
    assert some.pictures(4, 0.25) == (0.25, 2.0, 0.25, 0.5)
    assert LatentStrengths(((-1, 0.5), (3, 0.75))).pictures(4, 0) == (0, 0, 0, 0.75)  # the later place wins
    assert LatentStrengths(((1, 3.0),)).over(some).entries == ((-1, 0.5), (1, 3.0), (9, 7.0))
    (part,) = parts_of(None, latents=LatentStrengths(((0, 1.0),)))
    assert part.schedule is not None and part.schedule.pictures(3) == (1, 0, 0)


def test_latents_as_they_are_written():
    assert parse_latents("0, 4=0.5, 8:10=0.2") == ((0, 1.0), (4, 0.5), (8, 0.2), (9, 0.2))
    assert parse_latents("-1=0.5, 1:-1, ", 4) == ((1, 1.0), (2, 1.0), (3, 0.5))
    assert parse_latents("") == ()
    for text, count, words in (
        ("x", None, '"x" in it, but places are whole numbers'),
        ("-1", None, "without latent_optional places count from 0"),
        ("4", 4, "the batch has 4"),
        ("1=-2", None, "a strength is a number from 0"),
        ("1=much", None, "a strength is a number"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_latents(text, count)


def test_rows_of_numbers():
    assert between(0, 1, 5) == pytest.approx((0, 0.25, 0.5, 0.75, 1))
    assert between(1, 3, 3, "ease-in") == pytest.approx((1, 1.5, 3))
    assert between(1, 3, 3, "ease-out") == pytest.approx((1, 2.5, 3))
    assert between(0, 2, 3, "ease-in-out") == pytest.approx((0, 1, 2))
    assert between(4, 9, 1) == (4,)


def blocks_of(layout: Layout):
    return layout.blocks(64, 64)


def test_ladders_know_their_blocks():
    soft = ScaledSoft(0.825)
    assert soft(blocks_of(SD1)) == pytest.approx([0.825 ** (12 - i) for i in range(12)] + [1])
    assert soft(blocks_of(SDXL)) == pytest.approx([0.825 ** (9 - i) for i in range(9)] + [1])
    assert ScaledSoft(0.825, flip=True)(blocks_of(SD1)) == pytest.approx([0.825**i for i in range(13)])
    assert soft(T2I) == pytest.approx([0.825**7, 0.825**2, 0.825, 1])


def test_numbers_for_other_counts_of_blocks():
    weights = NumberedWeights(tuple(range(12)), 99.0)
    assert weights(blocks_of(SD1)) == (*range(12), 99)
    assert weights(blocks_of(SDXL)) == (*range(9), 99)
    assert (weights * MiddleTimes(0.5))(blocks_of(SDXL)) == (*range(9), 49.5)
    assert FeatureWeights((1, 2, 3, 4))(T2I) == (1, 2, 3, 4)
    with pytest.raises(BlockWeightsError, match="this control is a T2I-Adapter"):
        weights(T2I)
    with pytest.raises(BlockWeightsError, match="this control has 13 blocks"):
        FeatureWeights((1, 2, 3, 4))(blocks_of(SD1))
