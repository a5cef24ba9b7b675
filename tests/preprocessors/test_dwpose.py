"""DWPose around its networks: pictures in, points out, against the published steps written anew with OpenCV and numpy, and on programs whose findings
are known."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.dwpose import DWPOSE, dwpose
from control_composer.preprocessors.networks.network import Network
from control_composer.preprocessors.people_boxes import decoded, letterboxed, most_likely, people_boxes
from control_composer.preprocessors.pose_drawing import drawn
from control_composer.preprocessors.sizing import Size
from control_composer.preprocessors.whole_body import (
    areas_of,
    as_person,
    crop,
    in_picture,
    normalised,
    points_in_crops,
    whole_bodies,
)
from control_composer.tests.preprocessors.annotator_weights import random_network
from control_composer.tests.preprocessors.people import assert_same_pose
from control_composer.tests.preprocessors.pictures import as_image, noise
from control_composer.tests.preprocessors.weights_dwpose import DEVIATION, MEAN, scores


def networks() -> dict[str, Network]:
    return {name: random_network(name) for name in ("YOLOX", "DWPose")}


def network(module: nn.Module) -> Network:
    return Network(module, torch.device("cpu"), torch.float32)


def chw(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).float().permute(2, 0, 1)


# ---- Where people are ----


@pytest.mark.parametrize("size", [(480, 640), (1000, 700), (333, 517), (64, 64), (2000, 30), (1, 1)])
def test_letterbox(size: tuple[int, int]) -> None:
    picture = noise(*size)
    ratio = min(640 / size[0], 640 / size[1])
    expected = np.full((640, 640, 3), 114, np.uint8)
    high, wide = int(size[0] * ratio), int(size[1] * ratio)
    expected[:high, :wide] = cv2.resize(picture, (wide, high), interpolation=cv2.INTER_LINEAR)
    square, found = letterboxed(chw(picture))
    assert found == (high, wide)
    # OpenCV rounds to whole numbers, from weights in steps of 1 / 2048.
    assert np.abs(square.permute(1, 2, 0).numpy() - expected).max() < 0.8


def published_boxes(cells: np.ndarray) -> np.ndarray:
    """As YOLOX's demonstration decodes and DWPose chooses: all of a class over 0.1, without overlaps, then people over 0.3."""
    grids, strides = [], []
    for stride in (8, 16, 32):
        x, y = np.meshgrid(np.arange(640 // stride), np.arange(640 // stride))
        grids.append(np.stack((x, y), 2).reshape(-1, 2))
        strides.append(np.full((len(grids[-1]), 1), stride))
    centres = (cells[:, :2] + np.concatenate(grids)) * np.concatenate(strides)
    sizes = np.exp(cells[:, 2:4]) * np.concatenate(strides)
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)
    score = cells[:, 4] * cells[:, 5]
    order = [index for index in np.argsort(-score) if score[index] > 0.1]
    kept: list[int] = []
    for index in order:
        overlaps = [overlap(boxes[index], boxes[other]) for other in kept]
        if not any(value > 0.45 for value in overlaps):
            kept.append(index)
    return boxes[[index for index in kept if score[index] > 0.3]]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    shared = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = np.prod(np.maximum(shared, 0))
    return float(common / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common))


def random_cells(seed: int) -> np.ndarray:
    """A few dozen cells near each other that say something, of people and others."""
    generator = np.random.default_rng(seed)
    cells = np.zeros((8400, 85), np.float32)
    near = np.concatenate([generator.integers(0, 1600, 30), 6400 + generator.integers(0, 400, 20), [8000, 8399]])
    cells[near, :2] = generator.normal(0, 1, (len(near), 2))
    cells[near, 2:4] = generator.normal(2.2, 0.5, (len(near), 2))
    cells[near, 4] = generator.uniform(0.2, 1, len(near))
    cells[near, 5:7] = generator.uniform(0, 1, (len(near), 2))
    return cells


@pytest.mark.parametrize("seed", range(6))
def test_boxes_are_those_of_the_published_steps(seed: int) -> None:
    cells = random_cells(seed)
    expected = published_boxes(cells.astype(np.float64))
    found = most_likely(*decoded(torch.from_numpy(cells)))
    assert 3 < len(expected) < 40
    assert np.allclose(found.numpy(), expected, atol=1e-2)


def test_boxes_that_are_no_numbers_are_no_people() -> None:
    cells = torch.zeros(8400, 85)
    cells[:, 4:6] = 1
    cells[:, 2] = 500
    assert len(most_likely(*decoded(cells))) == 0


def with_boxes(height: int, width: int, *areas: tuple[int, int, int, int], colour: Any = (255, 30, 30)) -> np.ndarray:
    picture = np.full((height, width, 3), 110, np.uint8)
    for left, top, right, bottom in areas:
        picture[top:bottom, left:right] = colour
    return picture


@pytest.mark.parametrize(
    ("size", "left", "right"),
    [
        ((640, 640), (40, 60, 200, 500), (400, 100, 600, 620)),
        ((480, 800), (20, 30, 300, 460), (500, 10, 780, 300)),
        ((1300, 900), (100, 200, 400, 1200), (700, 300, 880, 900)),
    ],
)
def test_boxes_come_back_where_they_are(size: tuple[int, int], left: Any, right: Any) -> None:
    scale = min(640 / size[0], 640 / size[1])
    # What is left and right of the middle of the square.
    assert right[0] * scale > 320 > left[2] * scale
    found = people_boxes(chw(with_boxes(*size, left, right)), networks()["YOLOX"])
    # To half a pixel of the square: the red ends within one. Two cells saw the left one.
    assert found.shape == (2, 4)
    assert (found - torch.tensor([left, right])).abs().max() < 1 / scale + 0.1


def test_blue_is_nobody() -> None:
    """Of the second class; and red and blue are not exchanged on the way to the network."""
    blue = chw(with_boxes(640, 640, (40, 60, 200, 500), colour=(30, 30, 255)))
    assert people_boxes(blue, networks()["YOLOX"]).shape == (0, 4)


# ---- What is seen of each ----


def published_area(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centre, size = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * 1.25
    width, height = size
    return centre, np.array([width, width / 0.75]) if width > height * 0.75 else np.array([height * 0.75, height])


def published_crop(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    centre, size = published_area(box)
    corners = np.array([(0, 0), (0, -0.5), (-0.5, -0.5)]) * size[0] + centre
    source = np.float32(corners)
    target = np.float32([(144, 192), (144, 192 - 144), (0, 192 - 144)])
    return cv2.warpAffine(picture, cv2.getAffineTransform(source, target), (288, 384), flags=cv2.INTER_LINEAR)


BOXES = [(100, 40, 300, 500), (0, 0, 640, 480), (-50, -80, 200, 100), (500.3, 300.7, 700.1, 560.9), (10, 10, 12, 30)]


@pytest.mark.parametrize("box", BOXES)
def test_crops_are_those_of_opencv(box: Any) -> None:
    picture = cv2.GaussianBlur(noise(480, 640), (0, 0), 4)
    expected = published_crop(picture.astype(np.float32), np.array(box, dtype=np.float64))
    (area,) = areas_of(torch.tensor([box], dtype=torch.float32))
    found = crop(chw(picture), area).permute(1, 2, 0).numpy()
    inside = cv2.erode(
        (published_crop(np.ones_like(picture), np.array(box, dtype=np.float64)) > 0).astype(np.uint8), np.ones((7, 7))
    )
    # OpenCV's places are in steps of 1 / 32 pixel, which is seen where the black outside begins.
    assert np.abs(found - expected)[inside > 0].max() < 0.6
    assert np.abs(found - expected).mean() < 0.3
    mean, deviation = np.array(MEAN), np.array(DEVIATION)
    normal = normalised(torch.from_numpy(found).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    assert np.allclose(normal, (found - mean) / deviation, atol=1e-4)


def test_points_are_those_of_the_published_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, 133, count, generator=generator) * 0.3 for count in (576, 768))
    x[0, 5] = -1
    boxes = torch.tensor(BOXES[:3], dtype=torch.float32)
    found = in_picture(points_in_crops((x, y)), areas_of(boxes)).numpy()
    for person, box in enumerate(BOXES[:3]):
        centre, size = published_area(np.array(box, dtype=np.float64))
        peaks = np.stack([x[person].numpy().argmax(1), y[person].numpy().argmax(1)], axis=1)
        expected = peaks / 2 / (288, 384) * size + centre - size / 2
        score = np.minimum(x[person].numpy().max(1), y[person].numpy().max(1))
        seen = score > 0
        assert np.allclose(found[person, seen, :2], expected[seen], atol=1e-3)
        assert np.array_equal(found[person, seen, 2], score[seen])
        assert not found[person, ~seen, 2].any()
    assert found[0, 5, 2] == 0


def test_points_in_the_order_of_openpose() -> None:
    """The host's SDPose, another reader of COCO-WholeBody, orders them so."""
    pytest.importorskip("comfy")
    from comfy_extras.nodes_sdpose import _to_openpose_frames

    generator = np.random.default_rng(1)
    points = np.concatenate([generator.uniform(0, 500, (133, 2)), generator.uniform(0.31, 1, (133, 1))], axis=1)
    points = points.astype(np.float32)
    (frame,) = _to_openpose_frames([[points[:, :2]]], [[points[:, 2]]], 500, 500)
    (expected,) = frame["people"]
    person = as_person(points)
    assert person is not None
    assert np.allclose(person.body.reshape(-1), expected["pose_keypoints_2d"])
    assert np.allclose(person.face.reshape(-1), expected["face_keypoints_2d"])
    # It takes the left hand for the right one: COCO-WholeBody has the left one first, 91 to 111.
    assert np.allclose(person.left_hand.reshape(-1), expected["hand_right_keypoints_2d"])
    assert np.allclose(person.right_hand.reshape(-1), expected["hand_left_keypoints_2d"])
    assert np.array_equal(person.left_hand, points[91:112])


def test_uncertain_points_are_not_seen() -> None:
    points = np.ones((133, 3), np.float32)
    points[[0, 91], 2] = 0.29
    points[6, 2] = 0.3
    person = as_person(points)
    assert person is not None
    assert not person.body[0].any()
    assert not person.left_hand[0].any()
    # A shoulder at 0.3 is seen, and too uncertain for a neck.
    assert person.body[2, 2] == np.float32(0.3)
    assert not person.body[1].any()
    points[:, 2] = 0.2
    assert as_person(points) is None
    points[91:112, 2] = 0.9
    person = as_person(points)
    assert person is not None
    assert (person.right_hand, person.face) == (None, None)
    assert not person.body.any()


# ---- All of it ----

CHANNELS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
ORDER = (0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)


def with_people(height: int, width: int, *people: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """People as reddish boxes with a red, a green and a blue dot each, and where those are, (people, 3, 2)."""
    picture = with_boxes(height, width, *people, colour=(255, 110, 110))
    places = []
    for left, top, right, bottom in people:
        radius = max(2, (bottom - top) // 24)
        dots = [
            (left + (right - left) * (2 + place) // 7, top + (bottom - top) * (1 + 2 * place) // 7)
            for place in range(3)
        ]
        for dot, colour in zip(dots, CHANNELS, strict=True):
            cv2.circle(picture, dot, radius, colour, -1)
        places.append(dots)
    return picture, np.array(places)


def expected_body(dots: np.ndarray) -> np.ndarray:
    """Point k of 133 is the dot of channel k % 3."""
    values = scores().numpy()
    rows = np.array([(*dots[index % 3], values[index]) if values[index] >= 0.3 else (0, 0, 0) for index in ORDER])
    neck = (*(dots[6 % 3] + dots[5 % 3]) / 2, min(values[5], values[6]))
    return np.insert(rows, 1, neck, axis=0)


SCENES = [
    ((640, 640), ((40, 60, 240, 500), (400, 100, 600, 620))),
    ((480, 800), ((20, 30, 300, 460), (500, 10, 780, 300))),
    ((1300, 900), ((100, 200, 400, 1200), (700, 300, 880, 900))),
    ((300, 300), ((20, 40, 110, 260),)),
]


@pytest.mark.parametrize(("size", "people"), SCENES)
def test_people_come_back_where_they_are(size: tuple[int, int], people: Any) -> None:
    picture, places = with_people(*size, *people)
    _, (pose,) = dwpose(as_image(picture), networks=networks())
    assert (pose.height, pose.width) == size
    assert len(pose.people) == len(people)
    for person, dots, box in zip(pose.people, places, people, strict=True):
        expected = expected_body(dots)
        # Half a place of the network, of which there are two for each pixel of the crop, and what is lost at the edges of the dots.
        step = max((box[3] - box[1]) * 1.25 / 384, (box[2] - box[0]) * 1.25 / 288)
        assert np.abs(person.body[:, :2] - expected[:, :2]).max() < max(1.0, 0.5 * step)
        assert np.allclose(person.body[:, 2], expected[:, 2])
        assert np.abs(person.left_hand[:, :2] - dots[(91 + np.arange(21)) % 3]).max() < max(1.0, 0.5 * step)
        assert np.abs(person.face[:68, :2] - dots[(23 + np.arange(68)) % 3]).max() < max(1.0, 0.5 * step)


class Counting(nn.Module):
    def __init__(self, module: Any):
        super().__init__()
        self.module = module
        self.calls = 0
        self.last: Tensor | None = None

    def forward(self, *tensors: Tensor) -> Any:
        self.calls += 1
        self.last = tensors[0]
        return self.module(*tensors)


def test_people_of_all_frames_go_through_in_fives() -> None:
    frames = [with_people(640, 640, *SCENES[0][1][: 1 + number % 2])[0] for number in range(5)]
    counting = Counting(random_network("DWPose").module)
    both = networks() | {"DWPose": network(counting)}
    hint, poses = dwpose(as_image(*frames), networks=both)
    assert [len(pose.people) for pose in poses] == [1, 2, 1, 2, 1]
    assert counting.calls == 2
    assert counting.last is not None
    assert counting.last[1].any() and not counting.last[2:].any()
    for frame, pose, picture in zip(frames, poses, hint, strict=True):
        alone, (pose_alone,) = dwpose(as_image(frame), networks=networks())
        assert_same_pose(pose, pose_alone, tolerance=1e-3)
        assert torch.equal(picture, alone[0])


def test_the_whole_picture_where_nobody_is_found() -> None:
    """A green and a blue dot, and nothing that the first network would take for a person."""
    picture = np.full((384, 288, 3), 110, np.uint8)
    cv2.circle(picture, (100, 150), 10, CHANNELS[1], -1)
    cv2.circle(picture, (180, 90), 10, CHANNELS[2], -1)
    image = as_image(picture)
    hint, (pose,) = dwpose(image, networks=networks(), or_whole_picture=False)
    assert pose.people == ()
    assert hint.shape == (1, 384, 288, 3)
    assert not hint.any()
    hint, (pose,) = dwpose(image, networks=networks())
    (person,) = pose.people
    # The crop of 1.25 times the picture is as exact as its pixels.
    assert np.abs(person.body[2, :2] - 0).max() == 0
    assert np.abs(person.body[5, :2] - (180, 90)).max() < 1
    assert np.abs(person.body[6, :2] - (100, 150)).max() < 1
    assert hint.any()
    # Without looking for people, their network is not asked for.
    only = {"DWPose": random_network("DWPose")}
    other, (same,) = dwpose(image, networks=only, find_people=False, or_whole_picture=False)
    assert_same_pose(same, pose)
    assert torch.equal(other, hint)
    assert DWPOSE.needed({"find_people": False}) == ("DWPose",)
    assert DWPOSE.needed({}) == ("YOLOX", "DWPose")


def test_lines_are_drawn_at_the_size_of_the_hint() -> None:
    picture, _ = with_people(640, 640, *SCENES[0][1])
    image = as_image(picture)
    _, (native,) = dwpose(image, networks=networks())
    for resolution, parts in (
        (320, {}),
        (1280, {"hands": False, "face": False}),
        (640, {"body": False, "thick_sticks": True}),
    ):
        hint, (pose,) = dwpose(image, networks=networks(), resolution=resolution, **parts)
        assert (pose.height, pose.width) == (resolution, resolution)
        assert np.allclose(pose.people[0].body[:, :2], native.people[0].body[:, :2] * (resolution / 640), atol=1e-3)
        assert torch.equal(hint[0], drawn(pose, **parts))
    assert DWPOSE.network_size(Size(2000, 3000), 512, {}) == (640, 640)


def test_networks_that_are_others() -> None:
    picture = torch.zeros(3, 64, 64)

    class Says(nn.Module):
        def __init__(self, output: Any):
            super().__init__()
            self.output = output

        def forward(self, _: Tensor) -> Any:
            return self.output

    for output, found in ((torch.zeros(1, 100, 85), "(1, 100, 85)"), ("x", "str"), ((torch.zeros(1),), "(1,)")):
        with pytest.raises(PreprocessorError) as error:
            people_boxes(picture, network(Says(output)))
        assert str(error.value) == (
            f"YOLOX: found an output of {found} for one picture, but (1, 8400, 85) was expected; put the published yolox_l.torchscript.pt there."
        )
    for output, found in (
        (torch.zeros(5), "Tensor"),
        ((torch.zeros(5, 17, 4), torch.zeros(5, 17, 4)), "[(17, 4), (17, 4)]"),
    ):
        with pytest.raises(PreprocessorError) as error:
            whole_bodies(picture[None], [torch.tensor([[0, 0, 64, 64]])], network(Says(output)))
        assert str(error.value) == (
            f"DWPose: found an output of {found} for each person, but (133, 576) and (133, 768) were expected; "
            "put the published dw-ll_ucoco_384_bs5.torchscript.pt there."
        )
