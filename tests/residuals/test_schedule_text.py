"""Schedules written as text, and what is said about typos."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_composer.residuals.moments import Moment
from control_composer.residuals.schedule_images import ImageStrengths, NamedStrengths
from control_composer.residuals.schedule_text import parse_schedule, parse_strengths
from control_composer.residuals.schedules import EASINGS, Keyframe, Keyframes, ListSchedule

few = settings(max_examples=60, derandomize=True)
strengths = st.floats(-10, 10).map(lambda value: round(value, 4))
positions = st.floats(0, 1).map(lambda value: round(value, 4))
EXAMPLE = (Keyframe(0, 0.2), Keyframe(0.4, 0.8, "ease"), Keyframe(0.9, 0))


@pytest.mark.parametrize(
    "text",
    [
        "0.2@0.0, 0.8@0.4 ease, 0@0.9",
        "0.2@0,.8@.4 EASE,0@9e-1",
        " 0.2 @ 0 ; 0.8 @ 40% ease ; 0 @ 90 % ; ",
        "0.2@0\n0.8@40%ease\r\n\n0@0.9\n",
        "0.2@0,\n\t0.8@0.4\tease,\n0@0.9,",
    ],
)
@pytest.mark.parametrize("axis", ["percent", "step"])
def test_the_example_in_its_spellings(text, axis):
    assert parse_schedule(text, axis) == Keyframes(EXAMPLE, axis)


@few
@given(
    st.lists(st.tuples(positions, strengths, st.sampled_from(list(EASINGS))), min_size=1, max_size=6),
    st.sampled_from([",", ", ", ";", "\n", ",\n"]),
)
def test_what_is_written_is_what_is_read(frames, separator):
    frames = [(at, value, easing if number else "linear") for number, (at, value, easing) in enumerate(sorted(frames))]
    text = separator.join(
        f"{value}@{at} {easing if number else ''}" for number, (at, value, easing) in enumerate(frames)
    )
    assert parse_schedule(text) == Keyframes(tuple(Keyframe(*frame) for frame in frames))


@pytest.mark.parametrize("written", ["ease-in", "ease in", "ease_in", "Ease-In", "ease  in"])
def test_easings_may_be_spelt_loosely(written):
    assert parse_schedule(f"0@0, 1@1 {written}").frames[1] == Keyframe(1, 1, "ease-in")


@pytest.mark.parametrize("text", ["1, 0.5, 0", "1 0.5 0", "1;0.5;0;", "1\n0.5\n0\n", " 1 , .5 ,\t0 ,"])
def test_a_plain_list_is_spread_over_the_axis(text):
    assert parse_schedule(text, "step", "linear") == ListSchedule((1.0, 0.5, 0.0), "step", "linear")
    assert parse_schedule(text) == ListSchedule((1.0, 0.5, 0.0), "percent", "hold")


def test_one_number_is_a_constant():
    assert [parse_schedule(text)(Moment(0.3, 0.9)) for text in ("0.7", "0.7@0.5", "-1")] == [0.7, 0.7, -1]


ADVICE = (
    'write strength@position with commas between them, such as "0.2@0, 0.8@0.4 ease, 0@0.9", or a plain list of strengths, such as '
    '"1, 0.5, 0".'
)
RANGE = "but positions run from 0, the beginning of the sampling, to 1, its end;"
KNOWN = "but linear, ease, ease-in, ease-out, hold are known;"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", f"is empty, but keyframes were expected; {ADVICE}"),
        (" \n,", f"is empty, but keyframes were expected; {ADVICE}"),
        ("0.2@0, 0.2@@0.4", 'has "0.2@@0.4" in place 2 (character 8), but one "@" between strength and position was expected; write "0.2@0.4".'),
        ("0.2@0.1@0.4", f'has "0.2@0.1@0.4" in place 1 (character 1), but one "@" between strength and position was expected; {ADVICE}'),
        ("0.8@1.4", f'has the position "1.4" in place 1 (character 1), {RANGE} write 1, or another number between 0 and 1.'),
        ("1@0, 0.8@40", f'has the position "40" in place 2 (character 6), {RANGE} write "40%", or another number between 0 and 1.'),
        ("1@0, 0.8@140%", f'has the position "140%" in place 2 (character 6), {RANGE} write 1, or another number between 0 and 1.'),
        ("0.8@-0.1", f'has the position "-0.1" in place 1 (character 1), {RANGE} write 0, or another number between 0 and 1.'),
        ("0.2@0, 0.8@0.4 eaze", f'has the easing "eaze" in place 2 (character 8), {KNOWN} write "ease".'),
        ("0.2@0, 0.8@0.4 easein", f'has the easing "easein" in place 2 (character 8), {KNOWN} write "ease-in".'),
        ("0.2@0, 0.8@0.4 quickly", f'has the easing "quickly" in place 2 (character 8), {KNOWN} use one of these, or none for linear.'),
        ("0.2@0 ease, 0.8@0.4", 'has the easing "ease" in place 1 (character 1), but an easing is the way from the keyframe before, and the first has none; write it behind the second keyframe.'),
        ("0,5@0,2", 'has "0,5@0,2" with a comma inside a number (the first at character 2), but decimals are written with a point, as commas stand between keyframes; write "0.5@0.2".'),
        ("1@0\n0,5@0,2", 'has "1@0\n0,5@0,2" with a comma inside a number (the first at line 2, character 2), but decimals are written with a point, as commas stand between keyframes; write "1@0\n0.5@0.2".'),
        ("1@0; 1@0,5", 'has "1@0; 1@0,5" with a comma inside a number (the first at character 9), but decimals are written with a point, as commas stand between keyframes; write "1@0; 1@0.5".'),
        ("0.2@0 0.8@0.4 ease", 'has "0.2@0 0.8@0.4 ease" in place 1 (character 1), but a comma was expected between two keyframes; write "0.2@0, 0.8@0.4 ease".'),
        ("1@0, 1@0.2 hold 0.8@0.4", 'has "1@0.2 hold 0.8@0.4" in place 2 (character 6), but a comma was expected between two keyframes; write "1@0.2 hold, 0.8@0.4".'),
        ("1@0,, 0@1", f"has nothing between two separators in place 2 (character 5), but a keyframe was expected; remove one, or {ADVICE}"),
        ("1@0, 0.5", 'has "0.5" in place 2 (character 6) without a position, but every keyframe of this text needs one; write "0.5@" with a number from 0 to 1 behind it, or remove the others\' "@" for a plain list.'),
        ("@0.4", 'has no strength before "@0.4" in place 1 (character 1), but strength@position was expected; write "1@0.4".'),
        ("0.4@", 'has no position behind "0.4@" in place 1 (character 1), but strength@position was expected; write "0.4@0.5".'),
        ("@", 'has no position behind "@" in place 1 (character 1), but strength@position was expected; write "1@0.5".'),
        ("o.5@0.2", f'has "o.5" as a strength in place 1 (character 1), but a finite number was expected; {ADVICE}'),
        ("1e999@0", f'has "1e999" as a strength in place 1 (character 1), but a finite number was expected; {ADVICE}'),
        ("nan@0", f'has "nan" as a strength in place 1 (character 1), but a finite number was expected; {ADVICE}'),
        ("1@o.2", f'has "o.2" as a position in place 1 (character 1), but a number from 0 to 1 was expected; {ADVICE}'),
        ("1@%", f'has "%" as a position in place 1 (character 1), but a number from 0 to 1 was expected; {ADVICE}'),
        ("1@0\n\n0:1@0.5", f'has "0:1" as a strength in place 2 (line 3, character 1), but a finite number was expected; {ADVICE}'),
        ("1@0, 0@0.5, 1@0.2", "has position 0.2 after 0.5 in place 3 (character 13), but positions must not go backwards; correct it, or move this keyframe to place 2."),
        ("1, half, 0", f'has "half" in place 2 (character 4), but a finite number was expected; {ADVICE}'),
        ("1,, 0", f"has nothing in place 2 (character 3), but a finite number was expected; {ADVICE}"),
        ("1, 0.5 ease", f'has "ease" in place 3 (character 8), but a finite number was expected; {ADVICE}'),
        ("0:(1.0), 20:(0.5)", f'has "0:(1.0)" in place 1 (character 1), but a finite number was expected; {ADVICE}'),
        (f"1, {'9' * 400}", f'has "{"9" * 39}…" in place 2 (character 4), but a finite number was expected; {ADVICE}'),
    ],
)  # fmt: skip
def test_a_typo_is_told_with_its_place_and_what_to_write_instead(text, found):
    with pytest.raises(ValueError) as error:
        parse_schedule(text)
    assert str(error.value) == f"keyframes of Strength Keyframes {found}"


@pytest.mark.parametrize(
    ("text", "typo", "written"),
    [("0.2@@0.4", 'write "', "0.2@0.4"), ("0,5@0,2", 'write "', "0.5@0.2"), ("1@0 0@1", 'write "', "1@0, 0@1")],
)
def test_what_is_advised_can_be_read(text, typo, written):
    with pytest.raises(ValueError) as error:
        parse_schedule(text)
    advised = str(error.value).rsplit(typo, 1)[1].removesuffix('".')
    assert advised == written and isinstance(parse_schedule(advised), Keyframes)


@few
@given(st.text(alphabet="0123456789.,;@% \n-easlinhodut:x\u00b2", max_size=30))
def test_no_text_does_anything_but_give_a_schedule_or_a_sentence(text):
    try:
        schedule = parse_schedule(text)
    except ValueError as refusal:
        assert str(refusal).startswith("keyframes of Strength Keyframes ") and str(refusal).endswith(".")
    else:
        assert isinstance(schedule, (Keyframes, ListSchedule))
    try:
        strengths = parse_strengths(text)
    except ValueError as refusal:
        assert "Image Strengths" in str(refusal) and str(refusal).endswith(".")
    else:
        assert isinstance(strengths, (ImageStrengths, NamedStrengths))


def test_long_text_is_read_in_time_that_grows_with_its_length():
    text = ", ".join(f"{number % 3}@{number / 20000}" for number in range(20000))
    assert len(parse_schedule(text).frames) == 20000
    with pytest.raises(ValueError, match="is empty"):
        parse_schedule(" " * 200_000)
    with pytest.raises(ValueError, match="as a strength in place 1"):
        parse_schedule("a " * 20_000 + "b@0")


@pytest.mark.parametrize("text", ["1, 0.5, 0", "1 .5 0", "1\n0.5\n0,"])
def test_strengths_of_pictures_as_a_list(text):
    assert parse_strengths(text, "cycle") == ImageStrengths((1.0, 0.5, 0.0), "cycle")


@pytest.mark.parametrize("text", ["0-3: 0.5, 4: 1", "0 - 3:0.5; 4 :1,", "0-3: .5\n4: 1\n"])
def test_strengths_of_named_pictures(text):
    assert parse_strengths(text) == NamedStrengths(((0, 3, 0.5), (4, 4, 1.0)))
    assert parse_strengths(text).pictures(6) == (0.5, 0.5, 0.5, 0.5, 1.0, 1.0)


PICTURES = 'write numbers with commas between them, such as "1, 0.5, 0", or name pictures, counted from 0, such as "0-3: 0.5, 4: 1".'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", f"is empty, but strengths were expected; {PICTURES}"),
        ("1, half", f'has "half" in place 2 (character 4), but a finite number was expected; {PICTURES}'),
        ("0-3: 0.5, 4", f'has "4" in place 2 (character 11), but pictures and their strength were expected, such as 4: 1; {PICTURES}'),
        ("0-3: 0.5,, 4: 1", f"has nothing in place 2 (character 10), but pictures and their strength were expected, such as 4: 1; {PICTURES}"),
        ("first: 1", f'has "first: 1" in place 1 (character 1), but pictures and their strength were expected, such as 4: 1; {PICTURES}'),
        ("-1: 1", f'has "-1: 1" in place 1 (character 1), but pictures and their strength were expected, such as 4: 1; {PICTURES}'),
        ("0: 1\n1: o", f'has "o" as a strength in place 2 (line 2, character 1), but a finite number was expected; {PICTURES}'),
        ("0: 1e999", f'has "1e999" as a strength in place 1 (character 1), but a finite number was expected; {PICTURES}'),
        ("3-1: 1", "has the pictures 3-1 in place 1 (character 1), but ranges go upwards; write 1-3."),
    ],
)  # fmt: skip
def test_a_typo_in_strengths_is_told(text, found):
    with pytest.raises(ValueError) as error:
        parse_strengths(text)
    assert str(error.value) == f"strengths of Image Strengths {found}"


def test_a_picture_named_twice_is_refused():
    with pytest.raises(
        ValueError, match="Image Strengths names picture 2 twice, but one strength for each was expected"
    ):
        parse_strengths("0-2: 1, 2-4: 0.5")
