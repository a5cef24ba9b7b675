"""The algebra of schedules: pure functions of the moment, linear in strength, products."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from control_composer.residuals.moments import Moment
from control_composer.residuals.schedule_images import ImageStrengths, NamedStrengths, described
from control_composer.residuals.schedules import (
    EASINGS,
    TOLERANCE,
    CurveSchedule,
    Keyframe,
    Keyframes,
    ListSchedule,
    Product,
    ScheduleError,
    table,
)

few = settings(max_examples=40, derandomize=True)
places = st.floats(0, 1)
strengths = st.floats(-10, 10).map(lambda value: round(value, 3))
axes = st.sampled_from(["percent", "step"])
moments = st.builds(Moment, places, places)
one_of_each = st.builds(lambda values, axis: ListSchedule(tuple(values), axis), st.lists(strengths, min_size=1), axes)


@st.composite
def keyframes(draw):
    positions = sorted(draw(st.lists(places.map(lambda place: round(place, 3)), min_size=1, max_size=6)))
    frames = tuple(Keyframe(at, draw(strengths), draw(st.sampled_from(list(EASINGS)))) for at in positions)
    return Keyframes(frames, draw(axes))


curves = st.builds(CurveSchedule, st.sampled_from([lambda x: x, lambda x: 1 - x * x]), strengths, strengths, axes)
over_time = st.one_of(keyframes(), one_of_each, curves)
over_pictures = st.one_of(
    st.builds(
        ImageStrengths, st.tuples(strengths, strengths), st.sampled_from(["cycle", "repeat", "hold last", "spread"])
    ),
    st.builds(lambda value: NamedStrengths(((0, 1, value),)), strengths),
)
schedules = st.one_of(over_time, over_pictures)
ONE = Keyframes((Keyframe(0, 1),))


def at(place):
    return Moment(place, place)


@few
@given(schedules, schedules, schedules, moments)
def test_products_are_associative_and_commutative_and_one_changes_nothing(a, b, c, moment):
    def both(schedule):
        return (schedule(moment), *schedule.pictures(5))

    assert both((a * b) * c) == pytest.approx(both(a * (b * c)), rel=1e-12, abs=1e-12)
    assert both(a * b) == both(b * a) == tuple(x * y for x, y in zip(both(a), both(b), strict=True))
    assert both(a * ONE) == both(ONE * a) == both(a)
    assert isinstance(a * b, Product)


@few
@given(keyframes(), moments, st.floats(-4, 4))
def test_keyframes_are_linear_in_strength(schedule, moment, factor):
    scaled = Keyframes(
        tuple(Keyframe(f.position, factor * f.strength, f.easing) for f in schedule.frames), schedule.axis
    )
    assert scaled(moment) == pytest.approx(factor * schedule(moment), rel=1e-9, abs=1e-9)
    raised = Keyframes(tuple(Keyframe(f.position, 1 + f.strength, f.easing) for f in schedule.frames), schedule.axis)
    assert raised(moment) == pytest.approx(1 + schedule(moment), rel=1e-9, abs=1e-9)


@few
@given(keyframes(), moments)
def test_keyframes_stay_between_their_strengths_with_any_easing(schedule, moment):
    values = [frame.strength for frame in schedule.frames]
    assert min(values) - 1e-9 <= schedule(moment) <= max(values) + 1e-9


@few
@given(st.lists(strengths, min_size=1, max_size=9), st.sampled_from(["hold", "linear"]), axes, moments)
def test_lists_stay_between_their_numbers(values, between, axis, moment):
    assert min(values) - 1e-9 <= ListSchedule(tuple(values), axis, between)(moment) <= max(values) + 1e-9


@few
@given(over_time, st.lists(moments, min_size=1, max_size=8), st.randoms())
def test_the_same_moment_has_the_same_value_in_any_order_of_calls(schedule, asked, random):
    expected = {moment: schedule(moment) for moment in asked}
    random.shuffle(asked)
    assert all(schedule(moment) == expected[moment] for moment in asked + asked)
    assert all(math.isfinite(value) for value in expected.values())


@few
@given(over_time, moments, places)
def test_a_schedule_sees_its_own_axis_only(schedule, moment, other):
    elsewhere = Moment(moment.percent, other) if schedule.axis == "percent" else Moment(other, moment.step)
    assert schedule(elsewhere) == schedule(moment)


@few
@given(over_time, st.integers(1, 9))
def test_a_schedule_over_time_leaves_pictures_alone_and_the_other_way_round(schedule, count):
    assert schedule.pictures(count) == (1.0,) * count
    assert ImageStrengths((0.5,))(at(0.3)) == NamedStrengths(((0, 0, 0.5),))(at(0.3)) == 1.0


@pytest.mark.parametrize(
    ("easing", "formula"),
    [
        ("linear", lambda s: s),
        ("ease", lambda s: 3 * s**2 - 2 * s**3),
        ("ease-in", lambda s: s**2),
        ("ease-out", lambda s: 1 - (1 - s) ** 2),
        ("hold", lambda s: 0),
    ],
)
def test_between_two_keyframes_the_easing_of_the_second_is_the_way(easing, formula):
    """strength = a + (b - a) · easing((p - p_a) / (p_b - p_a))"""
    schedule = Keyframes((Keyframe(0.2, -1.0), Keyframe(0.6, 3.0, easing)))
    for share in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9):
        assert schedule(at(0.2 + 0.4 * share)) == pytest.approx(-1 + 4 * formula(share))
    assert [schedule(at(place)) for place in (0.0, 0.1, 0.2)] == [-1, -1, -1]
    assert [schedule(at(place)) for place in (0.6, 0.8, 1.0)] == [3, 3, 3]


def test_the_example_of_the_text_form():
    schedule = Keyframes((Keyframe(0, 0.2), Keyframe(0.4, 0.8, "ease"), Keyframe(0.9, 0)))
    assert [schedule(at(place)) for place in (0, 0.1, 0.2, 0.4, 0.65, 0.9, 1)] == pytest.approx(
        [0.2, 0.2 + 0.6 * 0.15625, 0.5, 0.8, 0.4, 0, 0]
    )


def test_two_keyframes_at_one_position_are_a_jump():
    schedule = Keyframes((Keyframe(0, 0), Keyframe(0.5, 1), Keyframe(0.5, 0.25), Keyframe(1, 0.75)))
    assert [schedule(at(place)) for place in (0.25, 0.499, 0.5, 0.75)] == pytest.approx([0.5, 0.998, 0.25, 0.5])
    first = Keyframes((Keyframe(0, 9), Keyframe(0, 1), Keyframe(1, 1), Keyframe(1, 2)))
    assert [first(at(place)) for place in (0, 0.5, 1)] == [1, 1, 2]


def test_a_place_that_rounding_keeps_just_short_of_a_keyframe_counts_as_reached():
    schedule = Keyframes((Keyframe(0, 0), Keyframe(0.667, 1, "hold")))
    assert schedule(at(2 / 3)) == 1, "0.667 stands for step 2 of 3"
    assert schedule(at(0.667 - TOLERANCE * 1.1)) == 0
    assert ListSchedule((0, 1, 2))(at(2 / 3 - 1e-7)) == 2


@few
@given(st.integers(1, 2000))
@example(3000)
def test_with_as_many_numbers_as_steps_each_acts_at_its_step(steps):
    schedule = ListSchedule(tuple(range(steps)), "step")
    assert [schedule(Moment(0.5, step / steps)) for step in range(steps)] == list(range(steps))
    assert [schedule(Moment(0.5, step / steps - 1e-8)) for step in range(1, steps)] == list(range(1, steps))
    assert schedule(Moment(0.5, 1.0)) == steps - 1


def test_a_list_held_and_a_list_joined_by_lines():
    held, joined = ListSchedule((1, 0.5, 0)), ListSchedule((1, 0.5, 0), between="linear")
    assert [held(at(place)) for place in (0, 0.33, 0.34, 0.66, 0.67, 1)] == [1, 1, 0.5, 0.5, 0, 0]
    assert [joined(at(place)) for place in (0, 0.25, 0.5, 0.75, 1)] == [1, 0.75, 0.5, 0.25, 0]
    assert ListSchedule((0.7,), between="linear")(at(0.4)) == ListSchedule((0.7,))(at(1)) == 0.7


def test_a_curve_runs_from_low_to_high():
    schedule = CurveSchedule(lambda x: x * x, -1.0, 3.0)
    assert [schedule(at(place)) for place in (0, 0.5, 1)] == [-1, 0, 3]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("cycle", (1, 0.5, 0, 1, 0.5)),
        ("repeat", (1, 1, 0.5, 0.5, 0)),
        ("hold last", (1, 0.5, 0, 0, 0)),
        ("spread", (1, 0.75, 0.5, 0.25, 0)),
    ],
)
def test_a_list_shorter_than_the_batch(policy, expected):
    assert ImageStrengths((1, 0.5, 0), policy).pictures(5) == expected
    assert ImageStrengths((1, 0.5, 0), policy).pictures(3) == (1, 0.5, 0)
    assert ImageStrengths((0.5,), policy).pictures(4) == (0.5,) * 4


def test_one_number_is_for_all_and_the_right_count_is_right_under_error_too():
    assert ImageStrengths((0.5,), "error").pictures(4) == (0.5,) * 4
    assert ImageStrengths((0.5, 1), "error").pictures(2) == (0.5, 1)


@few
@given(
    st.lists(strengths, min_size=1, max_size=6),
    st.sampled_from(["cycle", "repeat", "hold last", "spread"]),
    st.integers(0, 9),
)
def test_every_policy_gives_one_factor_per_picture_and_begins_with_the_first(values, policy, more):
    factors = ImageStrengths(tuple(values), policy).pictures(len(values) + more)
    assert len(factors) == len(values) + more and factors[0] == values[0]
    assert min(values) - 1e-9 <= min(factors) and max(factors) <= max(values) + 1e-9
    if policy == "spread" and len(values) > 1:
        assert factors[-1] == values[-1]


def test_pictures_that_are_not_named_keep_one():
    assert NamedStrengths(((0, 1, 0.5), (3, 3, -1))).pictures(5) == (0.5, 0.5, 1, -1, 1)
    assert NamedStrengths(()).pictures(2) == (1, 1)


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Keyframes(()), "Strength Keyframes has no keyframe, but at least one was expected; add one, such as 1 at position 0."),
        (lambda: Keyframes((Keyframe(0, NAN),)), "Strength Keyframes has nan as the strength of keyframe 1, but a finite number was expected; write one, such as 1."),
        (lambda: Keyframes((Keyframe(0, 1), Keyframe(1.4, 1))), "Strength Keyframes has the position 1.4 for keyframe 2, but positions run from 0, the beginning of the sampling, to 1, its end; choose one between them."),
        (lambda: Keyframes((Keyframe(NAN, 1),)), "Strength Keyframes has the position nan for keyframe 1, but positions run from 0, the beginning of the sampling, to 1, its end; choose one between them."),
        (lambda: Keyframes((Keyframe(0, 1), Keyframe(1, 1, "eaze"))), 'Strength Keyframes has the easing "eaze" for keyframe 2, but linear, ease, ease-in, ease-out, hold are known; use "ease".'),
        (lambda: Keyframes((Keyframe(0.5, 1), Keyframe(0.2, 1))), "Strength Keyframes has keyframe 2 at 0.2, after the one at 0.5, but positions must not go backwards; put the keyframes in the order of their positions."),
        (lambda: Keyframes((Keyframe(0, 1),), "steps"), 'Strength Keyframes got the axis "steps", but it is one of percent, step; choose from these.'),
        (lambda: CurveSchedule(abs, 0.0, INF), "Strength Curve has inf as its strength at height 1, but a finite number was expected; write one, such as 1."),
        (lambda: CurveSchedule(abs, NAN, 1.0), "Strength Curve has nan as its strength at height 0, but a finite number was expected; write one, such as 1."),
        (lambda: CurveSchedule(abs, axis="time"), 'Strength Curve got the axis "time", but it is one of percent, step; choose from these.'),
        (lambda: ListSchedule(()), "the list of strengths is empty, but at least one number was expected; write one, such as 1."),
        (lambda: ListSchedule((1, -INF)), "the list of strengths has -inf in place 2, but a finite number was expected; write one, such as 1."),
        (lambda: ListSchedule((1,), "x"), 'the list of strengths got the axis "x", but it is one of percent, step; choose from these.'),
        (lambda: ListSchedule((1,), between="lines"), 'the list of strengths got "lines" for what is between its numbers, but it is one of hold, linear; choose from these.'),
        (lambda: ImageStrengths(()), "Image Strengths has no number, but at least one was expected; write one, such as 1."),
        (lambda: ImageStrengths((NAN,)), "Image Strengths has nan in place 1, but a finite number was expected; write one, such as 1."),
        (lambda: ImageStrengths((1,), "last"), 'Image Strengths got the policy "last", but it is one of cycle, repeat, hold last, spread, error; choose from these.'),
        (lambda: ImageStrengths((1, 0.5, 0)).pictures(2), "Image Strengths has 3 numbers, but the batch has 2 pictures; write at most 2, or make the batch 3 long."),
        (lambda: ImageStrengths((1, 0), "spread").pictures(1), "Image Strengths has 2 numbers, but the batch has 1 picture; write at most 1, or make the batch 2 long."),
        (lambda: ImageStrengths((1, 0), "error").pictures(4), 'Image Strengths has 2 numbers, but the batch has 4 pictures and the policy "error" wants one for each; write 4, or a single one, or choose cycle, repeat, hold last, spread.'),
        (lambda: NamedStrengths(((0, 3, 1), (2, 5, 0))), "Image Strengths names picture 2 twice, but one strength for each was expected; remove one of them."),
        (lambda: NamedStrengths(((3, 1, 1),)), "Image Strengths has the pictures 3 to 1, but the first picture is 0 and ranges go upwards; write the smaller number first."),
        (lambda: NamedStrengths(((0, 1, INF),)), "Image Strengths has inf for picture 0, but a finite number was expected; write one, such as 1."),
        (lambda: NamedStrengths(((0, 4, 1),)).pictures(4), "Image Strengths names picture 4, but the batch has 4 pictures, counted from 0; name pictures up to 3, or make the batch 5 long."),
        (lambda: (NamedStrengths(((0, 4, 1),)) * ONE).pictures(4), "Image Strengths names picture 4, but the batch has 4 pictures, counted from 0; name pictures up to 3, or make the batch 5 long."),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_a_sentence(make, sentence):
    with pytest.raises(ScheduleError) as error:
        make()
    assert str(error.value) == sentence


def test_tables_for_a_person():
    assert table(Keyframes((Keyframe(0, 1), Keyframe(1, 0))), "percent", 4) == (
        "percent of the sampling: strength\n0 %: 1\n25 %: 0.75\n50 %: 0.5\n75 %: 0.25\n100 %: 0"
    )
    assert table(ListSchedule((1, 0.5), "step"), "step", 4) == (
        "step, in a run of 4 steps: strength\n0: 1\n1: 1\n2: 0.5\n3: 0.5"
    )
    assert described(ImageStrengths((1, 0.5))) == "in a batch of 4 pictures: 1, 0.5, 0.5, 0.5"
    assert described(ImageStrengths((1, 0.5), "error")) == "in a batch of 2 pictures: 1, 0.5"
    assert (
        described(NamedStrengths(((4, 4, 1), (0, 3, 1 / 3)))) == "pictures 0 to 3: 0.3333\npicture 4: 1\nall others: 1"
    )


def test_schedules_are_written_for_people():
    frames = Keyframes((Keyframe(0, 0.2), Keyframe(0.4, 0.8, "ease")), "step")
    assert str(frames) == "0.2@0, 0.8@0.4 ease (step)"
    assert str(frames * ListSchedule((1.0, 0.5))) == "0.2@0, 0.8@0.4 ease (step) × 1, 0.5 (hold, percent)"
    assert str(CurveSchedule(lambda x: x, high=2.0)) == "curve from 0 to 2 (percent)"
    assert str(ImageStrengths((1.0, 0.25))) == "by picture 1, 0.25 (hold last)"
    assert str(NamedStrengths(((4, 4, 1.0), (0, 3, 0.5)))) == "by picture 0-3: 0.5, 4: 1"
