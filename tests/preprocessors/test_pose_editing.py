"""Edits of poses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.pose import Person, Pose
from control_composer.preprocessors.pose_drawing import drawn
from control_composer.preprocessors.pose_editing import certain, chosen, cropped, extent, moved, on_canvas, without
from control_composer.tests.preprocessors.people import PARTS, assert_same_pose, on, points, standing

NOBODY = np.zeros((18, 3), dtype=np.float32)


def test_a_canvas_of_another_size_stretches_people() -> None:
    pose = on_canvas(on(512, 512, standing()), 256, 1024)
    assert (pose.height, pose.width) == (256, 1024)
    assert np.allclose(pose.people[0].body, standing().body * (2, 0.5, 1))
    assert np.allclose(pose.people[0].face, standing().face * (2, 0.5, 1))
    assert_same_pose(on_canvas(on(512, 512, standing()), 0, 512), on(512, 512, standing()))
    assert on_canvas(on(512, 256, standing()), height=1024).width == 256


def test_sticks_stay_as_wide_when_the_canvas_grows() -> None:
    arm = NOBODY.copy()
    arm[[2, 3]] = (10, 30, 1), (90, 30, 1)
    pose = on(60, 100, Person(arm))
    for factor in (1, 2, 4):
        picture = drawn(on_canvas(pose, 60 * factor, 100 * factor))
        # Away from the joints, which are as high.
        assert picture[:, 50 * factor].any(dim=1).sum() == 9


def test_people_grow_about_their_middle() -> None:
    pose = on(512, 512, standing(), standing(right=30, scale=0.5))
    grown = moved(pose, scale=2.0)
    for person, other in zip(pose.people, grown.people, strict=True):
        (low, high), (new_low, new_high) = extent(person), extent(other)
        assert np.allclose(low + high, new_low + new_high)
        assert np.allclose(new_high - new_low, 2 * (high - low), rtol=1e-5)
    assert np.array_equal(grown.people[0].left_hand[:, 2], pose.people[0].left_hand[:, 2])


def test_people_grow_about_the_middle_of_the_canvas() -> None:
    grown = moved(on(512, 400, standing()), scale=0.5, about="canvas", right=10, down=-20)
    middle = np.array([200, 256])
    expected = (standing().body[:, :2] - middle) * 0.5 + middle + (10, -20)
    assert np.allclose(grown.people[0].body[:, :2], expected)


def test_of_a_part_of_the_canvas_only_the_points_in_it_are_left() -> None:
    whole = on(512, 512, standing())
    part = cropped(whole, 100, 200, 200, 112)
    assert (part.height, part.width) == (200, 112)
    before, after = whole.people[0].body, part.people[0].body
    inside = (before[:, 0] >= 200) & (before[:, 0] < 312) & (before[:, 1] >= 100) & (before[:, 1] < 300)
    assert 3 < inside.sum() < 10
    assert np.array_equal(after[inside], before[inside] - (200, 100, 0)) and not after[~inside].any()
    assert not part.people[0].left_hand.any()  # all of it beyond the right side
    assert cropped(whole, 0, 0, 512, 512) is whole


def test_what_was_not_seen_stays_so() -> None:
    person = standing()
    person.body[4] = 0
    for pose in (
        moved(on(512, 512, person), right=50),
        moved(on(512, 512, person), scale=3, about="canvas"),
        on_canvas(on(512, 512, person), 99, 99),
    ):
        assert not pose.people[0].body[4].any()
    # Nor does it say where the middle of a person is.
    low, high = extent(Person(points(np.array([(0, 0), (4, 6), (8, 2)])) * np.array([[0], [1], [1]])))
    assert (tuple(low), tuple(high)) == ((4, 2), (8, 6))


def test_no_edit_changes_no_bit() -> None:
    generator = np.random.default_rng(0)
    body = points(generator.uniform(0, 4000, (18, 2)))
    pose = on(3000, 4000, Person(body))
    for same in (
        moved(pose),
        moved(pose, about="canvas"),
        certain(pose, 0.0),
        without(pose),
        chosen(pose, "everybody"),
    ):
        assert_same_pose(same, pose)


def test_one_person_of_many() -> None:
    small, large, other = standing(right=300, scale=0.25), standing(right=80), standing(right=5, scale=0.5)
    pose = on(512, 768, small, large, other)
    assert chosen(pose, "everybody").people == pose.people
    assert chosen(pose, "largest").people == (large,)
    assert chosen(pose, "leftmost").people == (other,)
    assert chosen(pose, "rightmost").people == (small,)
    assert chosen(pose, "by number", 2).people == (other,)
    assert chosen(pose, "by number", 3).people == ()
    assert chosen(pose, "by number", 0).people == (small,)


@pytest.mark.parametrize("who", ["everybody", "largest", "leftmost", "rightmost", "by number"])
def test_nobody_to_choose_from(who: str) -> None:
    assert chosen(on(8, 8), who).people == ()
    empty = on(8, 8, Person(NOBODY))
    assert not drawn(chosen(empty, who)).any()
    assert chosen(on(512, 512, Person(NOBODY), standing()), "leftmost").people[0].face is not None


def test_parts_are_left_out() -> None:
    pose = on(512, 512, standing())
    kept = without(pose, hands=True).people[0]
    assert (kept.left_hand, kept.right_hand) == (None, None)
    assert np.array_equal(kept.face, pose.people[0].face)
    assert without(pose, face=True).people[0].face is None
    for part in ("body", "hands", "face"):
        settings = {"body": True, "hands": True, "face": True}
        assert torch.equal(drawn(without(pose, **{part: True})), drawn(pose, **(settings | {part: False})))


def test_uncertain_points_are_left_out() -> None:
    person = standing()
    for part in PARTS:
        values = getattr(person, part)
        values[:, 2] = np.linspace(0, 1, len(values))
    kept = certain(on(512, 512, person), 0.5).people[0]
    for part in PARTS:
        before, after = getattr(person, part), getattr(kept, part)
        sure = before[:, 2] >= 0.5
        assert np.array_equal(after[sure], before[sure])
        assert not after[~sure].any()
        assert sure.any()


def test_edits_leave_what_they_were_given() -> None:
    pose = on(512, 512, standing())
    moved(pose, scale=2, right=5)
    certain(pose, 2.0)
    without(pose, body=True)
    on_canvas(pose, 10, 10)
    assert_same_pose(pose, on(512, 512, standing()))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda pose: moved(pose, scale=0),
            "scale: found 0, but a factor over 0 was expected; 1 keeps people as large as they are.",
        ),
        (
            lambda pose: moved(pose, about="sun"),
            "about: found 'sun', but one of each person, canvas was expected; choose one of them.",
        ),
        (
            lambda pose: chosen(pose, "me"),
            "person: found 'me', but one of everybody, largest, leftmost, rightmost, by number was expected; choose one of them.",
        ),
    ],
)
def test_refusals(change: object, sentence: str) -> None:
    with pytest.raises(PreprocessorError) as error:
        change(on(8, 8))  # type: ignore[operator]
    assert str(error.value) == sentence


def test_a_pose_is_a_value() -> None:
    assert Pose(4, 5).people == ()
