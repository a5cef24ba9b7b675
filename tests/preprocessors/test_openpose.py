"""OpenPose's networks, and all of it together, against controlnet-aux on the same weights and the same maps."""

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
from control_composer.preprocessors.pose_drawing import drawn
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.controlnet_aux_alone import controlnet_aux
from control_composer.tests.preprocessors.openpose_maps import CPU, answering, maps_of, without
from control_composer.tests.preprocessors.pictures import as_image
from control_composer.tests.preprocessors.stick_figures import Answers, figure
from control_composer.tests.preprocessors.weights_openpose import NARROW, random_openpose

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
