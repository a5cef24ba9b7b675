"""The OpenPose picture against the published table and controlnet_aux's own drawing."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from control_composer.preprocessors.pose import BODY, Person, Pose
from control_composer.preprocessors.pose_drawing import BONES, COLOURS, LIMBS, drawn, stick_scale
from control_composer.tests.preprocessors.people import face, hand, on, points, standing

cv2 = pytest.importorskip("cv2")

# From the OpenPose ControlNet's training pictures, points counted from 1.
TABLE_OF_LIMBS = [
    *((2, 3), (2, 6), (3, 4), (4, 5), (6, 7), (7, 8), (2, 9), (9, 10), (10, 11), (2, 12), (12, 13), (13, 14)),
    *((2, 1), (1, 15), (15, 17), (1, 16), (16, 18)),
]
TABLE_OF_COLOURS = [
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0)),
    *((0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255)),
    *((170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
]
TABLE_OF_BONES = [(0 if place % 4 == 0 else place, place + 1) for place in range(20)]
NOBODY = np.zeros((18, 3), dtype=np.float32)


def test_limbs_and_colours_are_the_published_ones() -> None:
    assert [(BODY.index(start) + 1, BODY.index(end) + 1) for start, end in LIMBS] == TABLE_OF_LIMBS
    assert list(COLOURS) == TABLE_OF_COLOURS
    assert list(BONES) == TABLE_OF_BONES
    # The host's table, which is another independent one.
    pytest.importorskip("comfy")
    from comfy_extras.nodes_sdpose import KeypointDraw

    host = KeypointDraw()
    assert [tuple(limb) for limb in host.body_limbSeq + host.head_edges] == TABLE_OF_LIMBS
    assert [tuple(colour) for colour in host.colors] == TABLE_OF_COLOURS
    assert [tuple(edge) for edge in host.hand_edges] == list(BONES)


def hsv_to_rgb(hsv: list[float]) -> np.ndarray:
    """Of saturated colours, as matplotlib computes it: 76.5 of 255 is rounded one way, a bit more another."""
    hue, saturation, value = hsv
    assert saturation == value == 1
    sector = int(hue * 6)
    rest = hue * 6 - sector
    rising, falling = 1 - (1 - rest), 1 - rest
    red = (1.0, falling, 0.0, 0.0, rising, 1.0)[sector]
    green = (rising, 1.0, 1.0, falling, 0.0, 0.0)[sector]
    blue = (0.0, 0.0, rising, 1.0, 1.0, falling)[sector]
    return np.array([red, green, blue])


@pytest.fixture
def hfaux(monkeypatch: pytest.MonkeyPatch) -> Any:
    """controlnet_aux imports matplotlib for the colours of hands, and does not ask for it."""
    if importlib.util.find_spec("matplotlib") is None:
        stand_in = SimpleNamespace(colors=SimpleNamespace(hsv_to_rgb=hsv_to_rgb))
        monkeypatch.setitem(sys.modules, "matplotlib", stand_in)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("controlnet_aux.open_pose")


def as_hfaux(hfaux: Any, pose: Pose) -> list[Any]:
    """Its people have fractions of the canvas; bodies None for what was not seen, hands and faces -1 pixel."""

    def keypoints(part: np.ndarray | None, missing: Any) -> Any:
        if part is None:
            return None
        return [
            hfaux.Keypoint(float(x) / pose.width, float(y) / pose.height) if score > 0 else missing
            for x, y, score in part
        ]

    outside = hfaux.Keypoint(-1 / pose.width, -1 / pose.height)
    return [
        hfaux.PoseResult(
            hfaux.BodyResult(keypoints(person.body, None), 1.0, 18),
            *(keypoints(part, outside) for part in (person.left_hand, person.right_hand, person.face)),
        )
        for person in pose.people
    ]


def scattered(seed: int, height: int, width: int, reach: float = 1.0) -> Person:
    """Anywhere on the canvas or, where `reach` is more, around it; a third of the points not seen. In quarters of a pixel, which fractions keep."""
    generator = np.random.default_rng(seed)

    def part(count: int) -> np.ndarray:
        places = generator.uniform((1 - reach) / 2, (1 + reach) / 2, (count, 2)) * (width, height)
        rows = points(np.floor(places) + 0.25)
        rows[generator.random(count) < 0.3] = 0
        return rows

    return Person(part(18), part(21), part(21), part(70))


POSES = [
    on(512, 512, standing()),
    on(512, 768, standing(right=130.5, down=3.25), standing(right=-40.25, down=60.5, scale=0.5)),
    on(333, 517, *(scattered(seed, 333, 517) for seed in range(4))),
    on(200, 100, *(scattered(seed, 200, 100, reach=2.5) for seed in range(4))),
    on(64, 64, Person(NOBODY, face=face(32, 32, 68)), Person(NOBODY, left_hand=hand(20, 20))),
    on(7, 5, scattered(1, 7, 5)),
    on(1, 1, scattered(2, 1, 1)),
    on(40, 30),
]


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize(
    "parts", [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]
)
def test_pixels_are_those_of_controlnet_aux(hfaux: Any, pose: Pose, parts: tuple[bool, bool, bool]) -> None:
    body, hands, faces = parts
    expected = hfaux.draw_poses(as_hfaux(hfaux, pose), pose.height, pose.width, body, hands, faces)
    picture = drawn(pose, body=body, hands=hands, face=faces)
    assert picture.dtype == torch.float32
    assert np.array_equal(picture.numpy(), expected.astype(np.float32) / 255)
    assert picture.any() == expected.any()


def test_whole_pixels_that_fractions_lose() -> None:
    """29 / 50 * 50 is less than 29 and truncates to 28, where controlnet_aux draws; here points stay where they are."""
    assert int(29 / 50 * 50) == 28
    pose = on(50, 50, Person(NOBODY, face=points(np.full((70, 2), 29))))
    rows, columns = drawn(pose)[..., 0].nonzero().unbind(1)
    assert (rows.float().mean(), columns.float().mean()) == (29, 29)


def test_joints_lie_on_limbs_and_people_on_those_before() -> None:
    picture = drawn(on(512, 512, standing())) * 255
    for place, (x, y, _) in enumerate(standing().body.astype(int)):
        if place not in (0, 4, 7, 14, 15, 16, 17):  # Those are under hands and faces.
            assert tuple(picture[y, x].tolist()) == TABLE_OF_COLOURS[place]
    # Half way along the right upper arm, in its colour at 0.6.
    assert tuple(picture[176, 193].tolist()) == (153, 153, 0) or tuple(picture[176, 193].tolist()) == (153, 102, 0)


def test_points_of_a_low_score_are_left_out() -> None:
    person = standing()
    person.body[4, 2] = 0.2
    person.left_hand[:, 2] = 0.2
    person.face[:, 2] = 0.2
    without = Person(person.body.copy(), None, person.right_hand)
    without.body[4] = 0
    assert torch.equal(drawn(on(512, 512, person), least_score=0.3), drawn(on(512, 512, without)))
    assert torch.equal(drawn(on(512, 512, person), least_score=0.2), drawn(on(512, 512, standing())))
    person.body[4, 2] = 0
    assert not torch.equal(drawn(on(512, 512, person)), drawn(on(512, 512, standing())))


@pytest.mark.parametrize(
    ("side", "scale"), [(499, 1), (500, 2), (999, 2), (1000, 3), (2048, 4), (4000, 6), (5000, 7), (9000, 7)]
)
def test_thick_sticks(side: int, scale: int) -> None:
    """The table of xinsir/controlnet-openpose-sdxl-1.0."""
    assert stick_scale(side, 20) == stick_scale(20, side) == scale


def test_only_limbs_are_thicker() -> None:
    arm = np.zeros((18, 3), dtype=np.float32)
    arm[[2, 3]] = (100, 300, 1), (500, 300, 1)
    pose = on(600, 1200, Person(arm, left_hand=hand(900, 300)))
    thin, thick = drawn(pose), drawn(pose, thick_sticks=True)
    # An ellipse is as wide in its middle as twice its half width and a pixel.
    assert thin[:, 300].any(dim=1).sum() == 2 * 4 + 1
    assert thick[:, 300].any(dim=1).sum() == 2 * 4 * 3 + 1
    assert torch.equal(thin[:, 600:], thick[:, 600:])
    assert torch.equal(thick[296:305, 100] > 0, thin[296:305, 100] > 0)


def test_points_far_away_do_no_harm() -> None:
    person = Person(points(np.full((18, 2), 1e6) * np.where(np.arange(18) % 2, 1, -1)[:, None]))
    assert drawn(on(64, 64, person)).shape == (64, 64, 3)
