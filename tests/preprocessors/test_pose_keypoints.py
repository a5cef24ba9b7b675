"""POSE_KEYPOINT as other packs and the host write it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.pose import Person
from control_composer.preprocessors.pose_keypoints import BODY_25, as_keypoints, as_poses
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.people import assert_same_pose, hand, on, points, standing

NOBODY = np.zeros((18, 3), dtype=np.float32)


def flat(part: np.ndarray | None) -> list[float] | None:
    """As comfyui_controlnet_aux writes a part: scores are 1 for what was seen, and parts of which nothing was are None."""
    if part is None:
        return None
    return [float(value) for x, y, score in part for value in ((x, y, 1.0) if score > 0 else (0.0, 0.0, 0.0))]


def frame(people: list[Any], height: int = 512, width: int = 512, **more: Any) -> dict[str, Any]:
    return {"people": people, "canvas_height": height, "canvas_width": width, **more}


def as_aux(person: Person, **parts: Any) -> dict[str, Any]:
    return {
        "pose_keypoints_2d": flat(person.body),
        "face_keypoints_2d": flat(person.face),
        "hand_left_keypoints_2d": flat(person.left_hand),
        "hand_right_keypoints_2d": flat(person.right_hand),
    } | parts


def in_fractions(person: Person, height: int, width: int) -> Person:
    def divided(part: np.ndarray | None) -> np.ndarray | None:
        return None if part is None else part / np.array([width, height, 1])

    return Person(*(divided(getattr(person, part)) for part in ("body", "left_hand", "right_hand", "face")))


def test_pixels_as_the_dwpose_node_writes_them() -> None:
    body = standing().body.copy()
    body[[4, 9]] = 0
    person = replace(standing(), body=body, right_hand=None)
    (pose,) = as_poses([frame([as_aux(person)], 512, 768)])
    assert_same_pose(pose, on(512, 768, person))


def test_fractions_as_the_openpose_node_writes_them() -> None:
    """Of hands and faces it writes -1 / side, certain as can be, for what it did not find."""
    person = standing()
    person.left_hand[3:6, :2] = -1
    # What it finds on the edge of the crop that it looks at is marked in that direction alone.
    person.face[7, 0] = -1
    expected = standing()
    expected.left_hand[3:6] = 0
    expected.face[7] = 0
    (pose,) = as_poses([frame([as_aux(in_fractions(person, 512, 768))], 512, 768)])
    assert_same_pose(pose, on(512, 768, expected), tolerance=1e-4)


def test_fractions_of_people_who_stand_partly_outside() -> None:
    person = standing(right=400, down=-100)
    (pose,) = as_poses([frame([as_aux(in_fractions(person, 512, 512))])])
    assert_same_pose(pose, on(512, 512, person), tolerance=1e-4)


def test_both_habits_in_one_list() -> None:
    person = standing()
    poses = as_poses([frame([as_aux(in_fractions(person, 512, 512))]), frame([as_aux(person)])])
    for pose in poses:
        assert_same_pose(pose, on(512, 512, person), tolerance=1e-4)


def test_real_scores_are_kept() -> None:
    person = standing()
    person.body[:, 2] = np.linspace(0.05, 1.3, 18)
    values = person.body.reshape(-1).tolist()
    (pose,) = as_poses([frame([as_aux(person, pose_keypoints_2d=values)])])
    assert np.array_equal(pose.people[0].body, person.body)


def test_the_hosts_sdpose() -> None:
    """It has feet too, and -1 for what its network is silent about."""
    pytest.importorskip("comfy")
    from comfy_extras.nodes_sdpose import _to_openpose_frames

    generator = np.random.default_rng(0)
    places, scores = generator.uniform(10, 400, (133, 2)), generator.uniform(0.4, 1, 133)
    places[30], scores[30] = -1, 0.02
    scores[40] = -0.01
    (pose,) = as_poses(_to_openpose_frames([[places]], [[scores]], 500, 700))
    (person,) = pose.people
    assert (pose.height, pose.width) == (500, 700)
    neck = (places[5] + places[6]) / 2
    order = [0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
    expected = np.insert(
        np.concatenate([places, scores[:, None]], axis=1)[order], 1, [*neck, scores[5:7].min()], axis=0
    )
    assert np.abs(person.body - expected).max() < 1e-4
    assert person.face.shape == (70, 3)
    assert not person.face[30 - 23].any()
    assert not person.face[40 - 23].any()
    assert np.allclose(person.face[0, :2], places[23])
    assert np.allclose(person.face[68:], person.body[14:16])
    # Its right hand is what COCO-WholeBody calls the left one; the names are kept.
    assert np.allclose(person.right_hand[:, :2], places[91:112])
    assert np.allclose(person.left_hand[:, :2], places[112:])


def test_openposes_own_files() -> None:
    """25 points and no canvas, which becomes one that holds them."""
    body = np.concatenate([standing().body[:8], points(np.array([[256, 290]])), standing().body[8:], np.ones((6, 3))])
    people = [{"pose_keypoints_2d": body.reshape(-1).tolist(), "face_keypoints_2d": [], "hand_left_keypoints_2d": []}]
    (pose,) = as_poses({"version": 1.3, "people": people})
    assert_same_pose(pose, on(512, 384, Person(standing().body)))
    assert BODY_25[8:] == (9, 10, 11, 12, 13, 14, 15, 16, 17, 18)


def test_frames_without_a_canvas_take_a_known_one() -> None:
    person = as_aux(in_fractions(standing(), 512, 512))
    sized, unsized = frame([person]), {"people": [person]}
    poses = as_poses([unsized, sized])
    assert_same_pose(poses[0], poses[1])
    (pose,) = as_poses([unsized], Size(512, 512))
    assert_same_pose(pose, poses[1])
    with pytest.raises(PreprocessorError) as error:
        as_poses([unsized])
    assert str(error.value) == (
        "pose, frame 0: found points in fractions of a canvas of unknown size, but canvas_width and canvas_height were expected beside them; "
        "set width and height of the node, or write them into the file."
    )


def test_people_without_parts() -> None:
    parts = ("pose", "face", "hand_left", "hand_right")
    nothing = {f"{part}_keypoints_2d": None for part in parts}
    empty = {f"{part}_keypoints_2d": [] for part in parts}
    unseen = as_aux(Person(NOBODY, np.zeros((21, 3)), np.zeros((21, 3)), np.zeros((68, 3))))
    (pose,) = as_poses([frame([None, nothing, empty, unseen, {}])])
    assert_same_pose(pose, on(512, 512, *[Person(NOBODY)] * 4))
    assert_same_pose(as_poses([frame([], 64, 32)])[0], on(64, 32))
    assert_same_pose(as_poses([{"people": None}])[0], on(64, 64))


def test_faces_of_68_points() -> None:
    face = standing().face[:68]
    (pose,) = as_poses([frame([{"face_keypoints_2d": flat(face)}])])
    assert_same_pose(pose, on(512, 512, Person(NOBODY, face=face)))
    (written,) = as_keypoints([pose])
    assert len(written["people"][0]["face_keypoints_2d"]) == 70 * 3
    assert written["people"][0]["face_keypoints_2d"][68 * 3 :] == [0] * 6


def test_what_is_written() -> None:
    person = replace(standing(), right_hand=None, face=None)
    person.body[2, 2] = 0.5
    person.body[3] = (7, 8, 0)
    frames = json.loads(json.dumps(as_keypoints([on(512, 768, person), on(30, 40)])))
    assert frames[1] == {"people": [], "canvas_height": 30, "canvas_width": 40}
    assert (frames[0]["canvas_height"], frames[0]["canvas_width"]) == (512, 768)
    (written,) = frames[0]["people"]
    assert written["pose_keypoints_2d"][:6] == [256, 80, 1, 256, 140, 1]
    assert written["pose_keypoints_2d"][6:12] == [206, 142, 0.5, 0, 0, 0]
    # Readers want lists of the full length, or None; the host's SDPose only the former.
    assert written["face_keypoints_2d"] == [0] * 210
    assert written["hand_right_keypoints_2d"] == [0] * 63
    whole = as_keypoints([on(512, 768, person)], whole_scores=True)[0]["people"][0]["pose_keypoints_2d"]
    assert whole[6:12] == [206, 142, 1, 0, 0, 0]


def test_the_host_draws_what_is_written() -> None:
    pytest.importorskip("comfy")
    from comfy_extras.nodes_sdpose import SDPoseDrawKeypoints, SDPoseFaceBBoxes

    frames = as_keypoints([on(512, 512, standing(), replace(standing(), face=None)), on(512, 512)])
    settings = {"draw_body": True, "draw_hands": True, "draw_face": True, "draw_feet": False, "draw_head": True}
    (pictures,) = SDPoseDrawKeypoints.execute(
        frames, stick_width=4, face_point_size=3, score_threshold=0.3, **settings
    ).result
    assert pictures[0].any()
    assert not pictures[1].any()
    ((box,), nobodys) = SDPoseFaceBBoxes.execute(frames, scale=1.0, force_square=False).result[0]
    assert nobodys == []
    assert abs(box["x"] + box["width"] / 2 - 256) < 5
    assert abs(box["y"] + box["height"] / 2 - 74) < 5


coordinate = st.floats(-2000, 2000, width=32)


@st.composite
def poses(draw: st.DrawFn) -> Any:
    def part(count: int) -> np.ndarray | None:
        seed = draw(st.integers(0, 2**32 - 1))
        generator = np.random.default_rng(seed)
        rows = generator.uniform(-1500, 1500, (count, 3)).astype(np.float32)
        rows[:, 2] = generator.choice([0, 0.2, 0.7, 1, 1.3], count)
        rows[rows[:, 2] == 0] = 0
        return rows if draw(st.booleans()) and rows.any() else None

    def person() -> Person:
        body = part(18)
        return Person(NOBODY if body is None else body, part(21), part(21), part(70))

    size = draw(st.tuples(st.integers(3, 4000), st.integers(3, 4000)))
    return on(*size, *(person() for _ in range(draw(st.integers(0, 3)))))


@settings(max_examples=50, deadline=None)
@given(st.lists(poses(), min_size=1, max_size=3))
def test_round_trip(given_poses: list[Any]) -> None:
    written = json.loads(json.dumps(as_keypoints(given_poses)))
    for found, expected in zip(as_poses(written), given_poses, strict=True):
        assert_same_pose(found, expected)
    assert as_keypoints(as_poses(written)) == written


def broken(change: dict[str, Any]) -> Any:
    return [frame([as_aux(standing(), **change)])]


SENTENCES = [
    (
        [],
        "pose: found a list of 0, but a list with a pose for each frame was expected; connect a POSE_KEYPOINT output.",
    ),
    (
        "x",
        "pose: found a value of type str, but a list with a pose for each frame was expected; connect a POSE_KEYPOINT output.",
    ),
    (None, "pose: found nothing, but a list with a pose for each frame was expected; connect a POSE_KEYPOINT output."),
    (
        [[1]],
        "pose, frame 0: found a list of 1 (int first), but a dictionary with 'people' was expected; connect a POSE_KEYPOINT output.",
    ),
    (
        [{}],
        "pose, frame 0: found no 'people', but a list of them, which may be empty, was expected; connect a POSE_KEYPOINT output.",
    ),
    (
        [{"people": 3}],
        "pose, frame 0: found a value of type int as 'people', but a list was expected; connect a POSE_KEYPOINT output.",
    ),
    (
        [frame([]), frame([7])],
        "pose, frame 1, person 0: found a value of type int, but a dictionary with 'pose_keypoints_2d' was expected; "
        "connect a POSE_KEYPOINT output.",
    ),
    (
        [{"version": "ap10k", "animals": [[0.0] * 51], "canvas_height": 5, "canvas_width": 5}],
        "pose, frame 0: found the 17 points of animals (AP-10K), but people were expected; "
        "use the picture that the animal pose node makes as the hint.",
    ),
    (
        [frame([], height=-4)],
        "pose, frame 0: found a canvas of width 512 and height -4, but whole numbers of pixels up to 16384 were expected; "
        "correct them in the node or file that the pose comes from.",
    ),
    (
        broken({"pose_keypoints_2d": [1.0] * 51}),
        "pose, frame 0, person 0: found 51 numbers in 'pose_keypoints_2d', but the 18 or 25 points of a body as numbers x, y, score were "
        "expected; take the pose from a node that writes points as OpenPose does.",
    ),
    (
        broken({"hand_left_keypoints_2d": ["1"] * 63}),
        "pose, frame 0, person 0: found a list of 63 (str first) as 'hand_left_keypoints_2d', but the 21 points of a left hand as numbers x, y, "
        "score were expected; look for the node or file that wrote it.",
    ),
    (
        broken({"face_keypoints_2d": [float("nan")] * 210}),
        "pose, frame 0, person 0: found a number that is NaN or infinite in 'face_keypoints_2d', but the 68 or 70 points of a face as numbers x, "
        "y, score were expected; look for the node or file that wrote it.",
    ),
    (
        broken({"face_keypoints_2d": [10**400] * 204}),
        "pose, frame 0, person 0: found a number that is NaN or infinite in 'face_keypoints_2d', but the 68 or 70 points of a face as numbers x, "
        "y, score were expected; look for the node or file that wrote it.",
    ),
    (
        [frame([], width=float("inf"))],
        "pose, frame 0: found a canvas of width inf and height 512, but whole numbers of pixels up to 16384 were expected; "
        "correct them in the node or file that the pose comes from.",
    ),
    (
        broken({"hand_right_keypoints_2d": [3e6] * 63}),
        "pose, frame 0: found a point 3e+06 pixels away, but points within 1000000 pixels were expected; "
        "look for the node or file that wrote it.",
    ),
]


@pytest.mark.parametrize(("keypoints", "sentence"), SENTENCES)
def test_refusals(keypoints: Any, sentence: str) -> None:
    with pytest.raises(PreprocessorError) as error:
        as_poses(keypoints)
    assert str(error.value) == sentence


@pytest.mark.parametrize("size", [(1, 1), (2, 2)])
def test_a_tiny_canvas_is_in_pixels(size: tuple[int, int]) -> None:
    person = Person(points(np.full((18, 2), 0.75)))
    assert_same_pose(as_poses(as_keypoints([on(*size, person)]))[0], on(*size, person))


def test_nothing_that_was_given_is_changed() -> None:
    given_frames = [frame([as_aux(in_fractions(standing(), 512, 512))])]
    before = json.dumps(given_frames)
    as_poses(given_frames)
    assert json.dumps(given_frames) == before
    person = standing()
    person.body[0, 2] = 0.4
    as_keypoints([on(512, 512, person)], whole_scores=True)
    assert person.body[0, 2] == np.float32(0.4)
    assert hand(0, 0).shape == (21, 3)
