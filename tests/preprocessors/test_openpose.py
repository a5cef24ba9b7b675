"""OpenPose's networks and what is made of their maps, against controlnet-aux on the same weights and the same maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.networks.network import Network
from control_composer.preprocessors.networks.openpose import build_body, build_face, build_hand
from control_composer.preprocessors.openpose import OPENPOSE, openpose
from control_composer.preprocessors.openpose_body import bodies, padded_size, seen_size
from control_composer.preprocessors.openpose_crops import Box
from control_composer.preprocessors.openpose_face import face_box, faces_in
from control_composer.preprocessors.openpose_hands import ARMS, SIDES, hand_box, hands_in
from control_composer.preprocessors.pose_drawing import drawn
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
    with torch.device("meta"):
        theirs = {
            "body": lambda: model.bodypose_model(),
            "hand": lambda: model.handpose_model(),
            "face": lambda: controlnet_aux("open_pose.face").FaceNet(),
        }[name]()
    theirs.load_state_dict(weights if name == "face" else util.transfer(theirs, weights), assign=True)
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


# --- hands and faces ---


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


# --- whole ---


class Brightness(nn.Module):
    """In the place of the networks of hands and faces: every map is where the picture is bright."""

    def __init__(self, maps: int, theirs: bool = False):
        super().__init__()
        self.maps, self.theirs = maps, theirs
        self.device_of_it = nn.Parameter(torch.zeros(1))

    def forward(self, picture: Tensor) -> tuple[Tensor, ...] | Tensor:
        red = picture[:, 2] + 0.5 if self.theirs else picture[:, 0] * 255 / 256
        found = avg_pool2d(red[:, None], 8).sub(0.5).clamp(min=0).repeat(1, self.maps, 1, 1)
        return found if self.theirs and self.maps == 22 else (found,)


def test_everybody_has_their_own_hands_and_face() -> None:
    size = Size(260, 390)
    crowds = [
        [without(figure(100, 72, 26), 7), without(figure(270, 85, 25), 7)],
        [without(figure(195, 78, 27), 4)],
    ]
    pictures = [np.full((*size, 3), 20, np.uint8) for _ in crowds]
    for picture, people in zip(pictures, crowds, strict=True):
        for person in people:
            for joint, elbow in ((4, 3), (7, 6), (0, 1)):
                place = person[joint] + (0.3 * (person[joint] - person[elbow]) if joint else 0)
                if not np.isnan(place).any():
                    light_up(picture, place)
    maps = torch.stack([maps_of(people, size) for people in crowds])
    networks = {
        "OpenPose-body": answering((maps[:, :38], maps[:, 38:])),
        "OpenPose-hand": Network(Brightness(22), CPU, torch.float32),
        "OpenPose-face": Network(Brightness(71), CPU, torch.float32),
    }
    hint, poses = openpose(as_image(*pictures), networks=networks)
    assert hint.shape == (2, *size, 3) and bool(hint.any(dim=(1, 2, 3)).all())
    for picture, of_frame, pose in zip(pictures, maps, poses, strict=True):
        expected = their_poses(picture, of_frame)
        assert len(pose.people) == len(expected)
        for person, (_, left, right, face) in zip(pose.people, expected, strict=True):
            for ours, theirs in ((person.left_hand, left), (person.right_hand, right), (person.face, face)):
                assert (ours is None) == (theirs is None)
                if ours is not None and theirs is not None:
                    points = np.array([(point.x * size.width, point.y * size.height) for point in theirs])
                    # Their picture is rounded to 8 bits, so a flat peak's highest place may be the next one.
                    assert np.abs(ours[:, :2] - points[: len(ours)]).max() < 2.5
    assert [(person.left_hand is None, person.right_hand is None) for pose in poses for person in pose.people] == [
        *[(True, False)] * 2,
        (False, True),
    ]


def light_up(picture: np.ndarray, place: np.ndarray) -> None:
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    light = 235 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 4**2))
    picture[..., 0] = np.maximum(picture[..., 0], light)


def their_poses(picture: np.ndarray, maps: Tensor) -> list[Any]:
    pose, parts = controlnet_aux("open_pose"), []
    for name, module in (
        ("Body", Answers((maps[None, :38], maps[None, 38:]))),
        ("Hand", Brightness(22, theirs=True)),
        ("Face", Brightness(71, theirs=True)),
    ):
        part = getattr(pose, name).__new__(getattr(pose, name))
        part.model = module
        parts.append(part)
    found: list[Any] = pose.OpenposeDetector(*parts).detect_poses(picture, include_hand=True, include_face=True)
    return found


def test_networks_that_are_not_asked_for_are_not_needed() -> None:
    assert OPENPOSE.needed({}) == ("OpenPose-body", "OpenPose-hand", "OpenPose-face")
    assert OPENPOSE.needed({"hands": False}) == ("OpenPose-body", "OpenPose-face")
    assert OPENPOSE.needed({"hands": False, "face": False, "body": False}) == ("OpenPose-body",)
    assert OPENPOSE.network_size(Size(512, 768), 0, {}) == (736, 736)
    assert OPENPOSE.network_size(Size(512, 768), 0, {"hands": False}) == (384, 384)
    assert OPENPOSE.network_size(Size(512, 768), 0, {"hands": False, "face": False}) == (184, 280)


def test_parts_are_drawn_as_asked() -> None:
    size = Size(400, 300)
    maps = maps_of([figure(150, 110, 40)], size)[None]
    networks = {
        "OpenPose-body": answering((maps[:, :38], maps[:, 38:])),
        "OpenPose-hand": Network(Brightness(22), CPU, torch.float32),
        "OpenPose-face": Network(Brightness(71), CPU, torch.float32),
    }
    image = torch.ones(1, *size, 3)
    whole, poses = openpose(image, networks=networks)
    alone = [
        openpose(image, networks=networks, **{"body": False, "hands": False, "face": False, part: True})[0]
        for part in ("body", "hands", "face")
    ]
    assert torch.equal(whole, drawn(poses[0])[None])
    assert all(0 < int((one != 0).sum()) < int((whole != 0).sum()) for one in alone)
    thick = openpose(image, networks=networks, hands=False, face=False, thick_sticks=True)[0]
    assert torch.equal(thick, drawn(poses[0], hands=False, face=False, thick_sticks=True)[None])


def test_other_files_are_refused() -> None:
    weights = random_openpose("hand", NARROW)
    weights["Mconv7_stage6.bias"] = torch.zeros(21)
    with pytest.raises(PreprocessorError) as refused:
        build_hand(weights, file="hand_pose_model.pth")
    assert str(refused.value) == (
        "'hand_pose_model.pth': found 'Mconv7_stage6.bias' of shape (21,) in place of (22,), but the 104 tensors of OpenPose's hand network were "
        "expected; put the published file there, under its own name."
    )


def test_names_with_the_blocks_of_the_port() -> None:
    weights = random_openpose("body", NARROW)
    inside = {
        ("model0." if "stage" not in name and "CPM_L" not in name else "model6_2.") + name: w
        for name, w in weights.items()
    }
    picture = torch.rand(1, 3, 8, 8)
    assert torch.equal(build_body(inside)(picture)[0], build_body(weights)(picture)[0])
