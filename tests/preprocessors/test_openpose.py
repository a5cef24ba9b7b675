"""OpenPose's networks and what is made of their maps, against controlnet-aux on the same weights and the same maps."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.networks.network import Network
from control_composer.preprocessors.networks.openpose import build_body, build_face, build_hand
from control_composer.preprocessors.openpose_body import bodies, padded_size, seen_size
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.controlnet_aux_alone import controlnet_aux
from control_composer.tests.preprocessors.pictures import as_image, noise
from control_composer.tests.preprocessors.stick_figures import Answers, figure, perfect_maps
from control_composer.tests.preprocessors.weights_openpose import NARROW, random_openpose

CPU = torch.device("cpu")


def answering(*answers: tuple[Tensor, ...]) -> Network:
    return Network(Answers(*answers), CPU, torch.float32)


# --- networks ---


def their_maps(name: str, weights: dict[str, Tensor], picture: Tensor) -> tuple[Tensor, ...]:
    model, util = controlnet_aux("open_pose.model"), controlnet_aux("open_pose.util")
    theirs = {
        "body": lambda: model.bodypose_model(),
        "hand": lambda: model.handpose_model(),
        "face": lambda: controlnet_aux("open_pose.face").FaceNet(),
    }[name]()
    theirs.load_state_dict(weights if name == "face" else util.transfer(theirs, weights))
    with torch.no_grad():
        found = theirs(picture.flip(1) * 255 / 256 - 0.5)
    return found if name == "body" else (found[-1],) if name == "face" else (found,)


@pytest.mark.parametrize(("name", "build"), [("body", build_body), ("hand", build_hand), ("face", build_face)])
def test_published_widths(name: str, build: Any) -> None:
    weights, picture = random_openpose(name), torch.rand(2, 3, 16, 24)
    expected = their_maps(name, weights, picture)
    found = Network(build(weights), CPU, torch.float32)(picture)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape and float(theirs.std()) > 0.02
        assert float((ours - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())


# --- bodies ---


def their_bodies(picture: np.ndarray, maps: Tensor) -> list[np.ndarray]:
    """The people of one RGB picture by controlnet-aux, of maps (57, h, w)."""
    body = controlnet_aux("open_pose.body").Body
    theirs = body.__new__(body)
    theirs.model = Answers((maps[None, :38], maps[None, 38:]))
    candidates, subset = theirs(picture[:, :, ::-1].copy())
    found = []
    for one in body.format_body_result(candidates, subset):
        points = [(0, 0, 0) if point is None else (point.x, point.y, point.score) for point in one.keypoints]
        found.append(np.array(points))
    return found


def maps_of(people: list[np.ndarray], size: Size) -> Tensor:
    padded = padded_size(size)
    scale = 184 / size.height / 8
    return perfect_maps(people, padded.height // 8, padded.width // 8, scale)


def without(person: np.ndarray, *points: int) -> np.ndarray:
    return np.where(np.isin(np.arange(18), points)[:, None], np.nan, person)


def crowd(seed: int, size: Size, count: int) -> list[np.ndarray]:
    """People anywhere, also half beyond the borders, in front of each other."""
    generator = np.random.default_rng(seed)
    people = []
    for _ in range(count):
        head = size.height * generator.uniform(0.06, 0.13)
        x, y = generator.uniform(0, size.width), generator.uniform(0.1, 0.7) * size.height
        person = figure(x, y, head, generator.uniform(-0.8, 0.8))
        outside = (person < 0).any(1) | (person[:, 0] > size.width - 1) | (person[:, 1] > size.height - 1)
        people.append(without(person, *np.flatnonzero(outside), *generator.choice(18, 2)))
    return people


CASES = {
    "one": (Size(368, 368), [figure(180, 100, 40)]),
    "small picture": (Size(150, 201), [figure(90, 40, 18)]),
    "large, wide, odd": (Size(517, 801), [figure(200, 150, 55), figure(600, 170, 50, 0.5)]),
    "tall": (Size(640, 301), [figure(150, 200, 60)]),
    "crossing": (Size(400, 400), [figure(180, 110, 42, 0.25), figure(220, 110, 42, -0.25)]),
    "missing": (Size(400, 500), [without(figure(120, 110, 42), 1, 4, 9), without(figure(350, 110, 42), 0, 5, 16)]),
    "at borders": (Size(400, 300), [without(figure(10, 40, 40), 2, 3, 4, 8, 9, 10, 14, 16), figure(230, 160, 40)]),
    **{f"crowd {seed}": (Size(384, 640), crowd(seed, Size(384, 640), 2 + 2 * seed)) for seed in range(5)},
}


@pytest.mark.parametrize("case", CASES)
def test_people_as_controlnet_aux_finds_them(case: str) -> None:
    size, people = CASES[case]
    maps, picture = maps_of(people, size), noise(*size)
    expected = their_bodies(picture, maps)
    assert expected
    found = bodies(as_image(picture).movedim(-1, 1), answering((maps[None, :38], maps[None, 38:])))[0]
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours[:, :2], theirs[:, :2])
        assert np.abs(ours[:, 2] - theirs[:, 2]).max() < 1e-4
