"""Hands and faces out of OpenPose's maps, against controlnet-aux on the same maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from control_composer.preprocessors.openpose_crops import Box
from control_composer.preprocessors.openpose_face import face_box, faces_in
from control_composer.preprocessors.openpose_hands import ARMS, SIDES, hand_box, hands_in
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.controlnet_aux_alone import controlnet_aux
from control_composer.tests.preprocessors.openpose_maps import answering
from control_composer.tests.preprocessors.pictures import as_image, noise
from control_composer.tests.preprocessors.stick_figures import Answers, figure


def their_body(points: np.ndarray) -> Any:
    body = controlnet_aux("open_pose.body")
    return body.BodyResult([body.Keypoint(x, y) if score else None for x, y, score in points], 1.0, 18)


def random_body(generator: np.random.Generator, size: Size) -> np.ndarray:
    points = figure(
        *generator.uniform(0, 1, 2) * size[::-1], size.height * generator.uniform(0.03, 0.3), generator.uniform(-3, 3)
    )
    points = np.column_stack([points.clip(0, np.array(size[::-1]) - 1), np.ones(18)]).round()
    points[generator.random(18) < 0.1] = 0
    return points


def test_boxes_of_hands_and_faces() -> None:
    util, generator, size = controlnet_aux("open_pose.util"), np.random.default_rng(0), Size(300, 400)
    picture, found_hands, found_faces = np.zeros((*size, 3), np.uint8), 0, 0
    for _ in range(300):
        points = random_body(generator, size)
        theirs = {is_left: (x, y, width) for x, y, width, is_left in util.handDetect(their_body(points), picture)}
        for arm, is_left in zip(ARMS, (True, False), strict=True):
            box = hand_box(points, arm, 0, size)
            assert (box and box[1:]) == (theirs.get(is_left) and (*theirs[is_left], theirs[is_left][2]))
            found_hands += box is not None
        face = util.faceDetect(their_body(points), picture)
        box = face_box(points, 0, size)
        if face is None:
            assert box is None
        else:
            x, y, width = face
            height, width = picture[y : y + width, x : x + width].shape[:2]
            assert box == (0, x, y, width, height)
            found_faces += 1
    assert found_hands > 200 and 100 < found_faces < 300


def scattered(count: int, side: int) -> Tensor:
    """(1, count, side, side) maps with a peak each, from none to 1, and a lower one elsewhere: the same at every side."""
    y, x = np.mgrid[:side, :side] / side
    places, generator = np.random.default_rng(3).uniform(0, 1, (count, 2, 2)), np.random.default_rng(4)
    maps = generator.uniform(0, 0.01, (count, side, side))
    for map_, strength, blobs in zip(maps, np.linspace(0, 1, count), places, strict=True):
        # The lower one is wider: there is more of it in all.
        for part, spread, (px, py) in zip((1.0, 0.6), (0.03, 0.07), blobs, strict=True):
            map_ += part * strength * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * spread**2))
    return torch.from_numpy(maps[None]).float()


@pytest.mark.parametrize("width", [57, 300])
def test_hands_as_controlnet_aux_finds_them(width: int) -> None:
    answers = [scattered(22, side // 8) for side in SIDES]
    picture = noise(400, 500)
    hand = controlnet_aux("open_pose.hand").Hand
    theirs = hand.__new__(hand)
    theirs.model = Answers(*[(answer,) for answer in answers], single=True)
    expected = theirs(picture[30 : 30 + width, 40 : 40 + width, ::-1].copy())
    ours = answering(*[(answer,) for answer in answers])
    (found,) = hands_in(as_image(picture).movedim(-1, 1), [Box(0, 40, 30, width, width)], ours, 1)
    assert found is not None
    seen = found[:, 2] > 0
    assert np.array_equal(seen, expected.any(1)) and 3 < seen.sum() < 21
    assert np.array_equal(found[seen, :2], expected[seen] + np.array([40, 30]))
    assert found[20, 2] > 0.5
    for theirs_saw, we_saw in zip(theirs.model.seen, ours.module.seen, strict=True):  # type: ignore[union-attr,arg-type]
        apart = (we_saw - (theirs_saw.flip(1) + 0.5) * 256 / 255).abs()
        # Theirs is rounded to 8 bits after each of two steps.
        assert float(apart.max()) < 2 / 255 and float(apart.mean()) < 0.4 / 255


@pytest.mark.parametrize(("width", "height"), [(64, 64), (150, 97), (500, 500)])
def test_faces_as_controlnet_aux_finds_them(width: int, height: int) -> None:
    maps = scattered(71, 48)
    picture = noise(520, 530)
    face = controlnet_aux("open_pose.face").Face
    theirs = face.__new__(face)
    theirs.model = Answers((maps,))
    heat = theirs(picture[10 : 10 + height, 20 : 20 + width, ::-1].copy())
    ours = answering((maps,))
    (found,) = faces_in(as_image(picture).movedim(-1, 1), [Box(0, 20, 10, width, height)], ours, 1)
    assert found is not None and found.shape == (70, 3)
    seen = found[:, 2] > 0
    expected = theirs.compute_peaks_from_heatmaps(heat[:70])
    assert 50 < seen.sum() == len(expected) < 70
    assert np.array_equal(found[seen, :2], expected + np.array([20, 10]))
    if width == height:
        # Elsewhere a side grows and the other shrinks, where OpenCV's area averaging is not one.
        we_saw, they_saw = ours.module.seen[0], theirs.model.seen[0]  # type: ignore[union-attr,index]
        assert float((we_saw - (they_saw.flip(1) + 0.5) * 256 / 255).abs().max()) < 1.2 / 255
