"""People out of OpenPose's maps, against controlnet-aux on the same maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from control_composer.preprocessors.openpose import openpose
from control_composer.preprocessors.openpose_body import bodies, seen_size
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.controlnet_aux_alone import controlnet_aux
from control_composer.tests.preprocessors.openpose_maps import answering, maps_of, without
from control_composer.tests.preprocessors.pictures import as_image, noise
from control_composer.tests.preprocessors.stick_figures import Answers, figure


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
    "one": (Size(184, 190), [figure(90, 50, 20)]),
    "small picture": (Size(150, 201), [figure(90, 40, 18)]),
    "large, wide, odd": (Size(317, 501), [figure(120, 92, 34), figure(380, 105, 31, 0.5)]),
    "tall": (Size(440, 171), [figure(80, 130, 41)]),
    "limbs longer than likely": (Size(184, 560), [figure(120, 92, 60, -1.57)]),
    "crossing": (Size(260, 260), [figure(117, 70, 27, 0.25), figure(143, 70, 27, -0.25)]),
    "missing": (Size(260, 325), [without(figure(80, 70, 27), 1, 4, 9), without(figure(230, 70, 27), 0, 5, 16)]),
    "at borders": (Size(260, 195), [without(figure(6, 26, 26), 2, 3, 4, 8, 9, 10, 14, 16), figure(150, 104, 26)]),
    **{f"crowd {seed}": (Size(256, 427), crowd(seed, Size(256, 427), 3 + 3 * seed)) for seed in (0, 1, 3)},
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


def test_long_limbs_have_to_be_clearer() -> None:
    size = Size(184, 560)
    maps = maps_of([figure(120, 92, 60, -1.57)], size)
    maps[:38] *= 0.3
    (body,) = bodies(torch.zeros(1, 3, *size), answering((maps[None, :38], maps[None, 38:])))[0]
    (expected,) = their_bodies(noise(*size), maps)
    assert np.array_equal(body[:, :2], expected[:, :2])
    # From the neck to the hips it is further than half of the picture's height.
    assert not body[8:14].any() and body[:4, 2].all()


def test_the_picture_that_the_body_network_sees() -> None:
    """Theirs is rounded to 8 bits, blue first, and -0.5..0.5."""
    picture = noise(250, 333)
    size = Size(250, 333)
    maps = maps_of([], size)
    body = controlnet_aux("open_pose.body").Body
    theirs = body.__new__(body)
    theirs.model = Answers((maps[None, :38], maps[None, 38:]))
    theirs(picture[:, :, ::-1].copy())
    ours = answering((maps[None, :38], maps[None, 38:]))
    bodies(as_image(picture).movedim(-1, 1), ours)
    expected, found = theirs.model.seen[0], ours.module.seen[0]  # type: ignore[union-attr,index]
    assert found.shape == expected.shape == (1, 3, 184, 248) and seen_size(size) == (184, 245)
    assert float((found - (expected.flip(1) + 0.5) * 256 / 255).abs().max()) < 0.6 / 255
    assert torch.allclose(found[..., 245:], torch.tensor(128 / 255))


def test_known_figures_are_found_where_they_are() -> None:
    size = Size(400, 500)
    people = [figure(130, 110, 45), figure(360, 120, 40, 0.3)]
    found = bodies(
        torch.zeros(1, 3, *size), answering((maps_of(people, size)[None, :38], maps_of(people, size)[None, 38:]))
    )[0]
    assert len(found) == 2
    for person in people:
        nearest = min(np.abs(one[:, :2] - person).max() for one in found)
        assert nearest < 1.5  # of 17 pixels that a map's cell is wide
    assert all((one[:, 2] > 0.8).all() for one in found)


def test_a_single_row_is_not_blown_up() -> None:
    assert seen_size(Size(100, 3200)) == (184, 5888) and seen_size(Size(1, 3200)) == (1, 5888)
    assert seen_size(Size(3200, 1)) == (184, 1)


def test_nobody() -> None:
    maps = maps_of([], Size(64, 80))
    network = answering((maps[None, :38].repeat(2, 1, 1, 1), maps[None, 38:].repeat(2, 1, 1, 1)))
    hint, poses = openpose(torch.rand(2, 64, 80, 3), networks={"OpenPose-body": network}, hands=False, face=False)
    assert hint.shape == (2, 64, 80, 3) and not hint.any()
    assert [(pose.height, pose.width, pose.people) for pose in poses] == [(64, 80, ())] * 2


def test_three_points_or_a_faint_figure_are_nobody() -> None:
    size = Size(400, 400)
    three = without(figure(200, 120, 42), *range(3, 18))
    assert people_in([three], size) == their_bodies(noise(*size), maps_of([three], size)) == []
    weak = maps_of([figure(200, 120, 42)], size)
    weak[:38] *= 0.1
    weak[38:] *= 0.25
    assert their_bodies(noise(*size), weak) == []
    assert bodies(torch.zeros(1, 3, *size), answering((weak[None, :38], weak[None, 38:])))[0] == []


def people_in(people: list[np.ndarray], size: Size) -> list[np.ndarray]:
    maps = maps_of(people, size)
    return bodies(torch.zeros(1, 3, *size), answering((maps[None, :38], maps[None, 38:])))[0]
