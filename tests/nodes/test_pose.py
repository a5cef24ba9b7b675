"""The pose nodes in the host."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("comfy")

import comfy.model_management
import comfy.utils
import folder_paths

from control_composer.nodes import pose, pose_files
from control_composer.nodes.annotator_files import FOLDER
from control_composer.nodes.preprocess import preprocessor_node
from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.dwpose import DWPOSE
from control_composer.preprocessors.pose_drawing import drawn
from control_composer.preprocessors.pose_editing import on_canvas
from control_composer.preprocessors.pose_keypoints import as_keypoints, as_poses
from control_composer.tests.preprocessors.people import assert_same_pose, on, standing
from control_composer.tests.preprocessors.weights_dwpose import WRITTEN

BY_ID: dict[str, Any] = {node.define_schema().node_id: node for node in [*pose.NODES, *pose_files.NODES]}
DRAW = BY_ID["ControlComposerDrawPose"]
EDIT = BY_ID["ControlComposerEditPose"]
SELECT = BY_ID["ControlComposerSelectPerson"]
SAVE = BY_ID["ControlComposerSavePose"]
LOAD = BY_ID["ControlComposerLoadPose"]
TEXT = BY_ID["ControlComposerPoseFromText"]


def two_frames() -> list[dict[str, Any]]:
    return as_keypoints([on(512, 512, standing(), standing(right=200, scale=0.5)), on(512, 512)])


def test_poses_of_a_batch_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: told.append((value, total)))
    (hint,) = DRAW.execute(two_frames()).result
    pose = on(512, 512, standing(), standing(right=200, scale=0.5))
    assert hint.shape == (2, 512, 512, 3)
    assert torch.equal(hint[0].cpu(), drawn(pose))
    # Nobody is there: black, and no error.
    assert not hint[1].any()
    assert told == [(1, 2), (2, 2)]
    (hint,) = DRAW.execute(two_frames(), body=False, face=False, thick_sticks=True).result
    assert torch.equal(hint[0].cpu(), drawn(pose, body=False, face=False))


def test_other_sizes() -> None:
    (hint,) = DRAW.execute(two_frames(), width=256, height=1024, thick_sticks=True).result
    pose = on_canvas(on(512, 512, standing(), standing(right=200, scale=0.5)), 1024, 256)
    assert torch.equal(hint[0].cpu(), drawn(pose, thick_sticks=True))
    assert DRAW.execute(two_frames(), width=256).result[0].shape == (2, 512, 256, 3)
    # Fractions without a canvas have one where both sides are set.
    person = {"pose_keypoints_2d": [0.5, 0.25, 1.0] * 18}
    (hint,) = DRAW.execute([{"people": [person]}], width=80, height=40).result
    assert hint[0, 10, 40].any()
    with pytest.raises(PreprocessorError, match="set width and height of the node"):
        DRAW.execute([{"people": [person]}])


def test_frames_of_several_sizes_make_one_batch() -> None:
    frames = as_keypoints([on(512, 512, standing()), on(256, 256, standing(scale=0.5))])
    (hint,) = DRAW.execute(frames).result
    assert torch.equal(hint[0], hint[1])


def test_low_scores() -> None:
    person = standing()
    person.body[4, 2] = 0.2
    frames = as_keypoints([on(512, 512, person)])
    (hint,) = DRAW.execute(frames).result
    (all_of_it,) = DRAW.execute(frames, least_score=0.1).result
    assert torch.equal(hint[0].cpu(), drawn(on(512, 512, person), least_score=0.3))
    assert torch.equal(all_of_it[0].cpu(), drawn(on(512, 512, person)))
    assert not torch.equal(hint, all_of_it)
    kept, _ = EDIT.execute(frames).result
    assert kept[0]["people"][0]["pose_keypoints_2d"][12:15] == [0, 0, 0]


def test_the_artists_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        DRAW.execute(two_frames())


def test_edited_poses_and_their_hint() -> None:
    pose, hint = EDIT.execute(two_frames(), scale=0.5, about="canvas", right=40, down=-10, hands=False).result
    (found, empty) = as_poses(pose)
    middle = np.array([256, 256])
    assert np.allclose(found.people[0].body[:, :2], (standing().body[:, :2] - middle) * 0.5 + middle + (40, -10))
    assert (found.people[0].left_hand, found.people[0].right_hand) == (None, None)
    assert empty.people == ()
    assert torch.equal(hint, DRAW.execute(pose).result[0])
    unchanged, _ = EDIT.execute(two_frames()).result
    assert unchanged == two_frames()


def test_scores_for_other_packs() -> None:
    person = standing()
    person.body[:, 2] = 0.7
    (frame,), _ = EDIT.execute(as_keypoints([on(512, 512, person)]), whole_scores=True).result
    assert set(frame["people"][0]["pose_keypoints_2d"][2::3]) == {1.0}


def test_one_person() -> None:
    pose, hint = SELECT.execute(two_frames()).result
    (found, empty) = as_poses(pose)
    assert_same_pose(found, on(512, 512, standing()))
    assert empty.people == ()
    assert torch.equal(hint[0].cpu(), drawn(found))
    pose, _ = SELECT.execute(two_frames(), person="by number", number=1).result
    assert_same_pose(as_poses(pose)[0], on(512, 512, standing(right=200, scale=0.5)))
    pose, hint = SELECT.execute(two_frames(), person="by number", number=7).result
    assert as_poses(pose)[0].people == ()
    assert not hint.any()


def test_the_hosts_sdpose_goes_straight_in() -> None:
    from comfy_extras.nodes_sdpose import SDPoseDrawKeypoints, SDPoseKeypointExtractor, _to_openpose_frames

    kinds = {one.io_type for node in pose.NODES for one in node.define_schema().inputs if one.id == "pose"}
    assert kinds == {SDPoseKeypointExtractor.define_schema().outputs[0].io_type}
    assert kinds == {node.define_schema().outputs[0].io_type for node in (EDIT, SELECT)}
    generator = np.random.default_rng(3)
    places, scores = generator.uniform(20, 230, (2, 133, 2)), generator.uniform(0, 1, (2, 133))
    frames = _to_openpose_frames([list(places)], [list(scores)], 256, 256)
    (ours,) = DRAW.execute(frames, hands=False, face=False).result
    settings = {"draw_body": True, "draw_hands": False, "draw_face": False, "draw_feet": False, "draw_head": True}
    (theirs,) = SDPoseDrawKeypoints.execute(
        frames, stick_width=4, face_point_size=3, score_threshold=0.3, **settings
    ).result
    # The host draws limbs as bright as joints, and people in the same order.
    assert torch.equal(ours[0].any(dim=-1), theirs[0].any(dim=-1))
    assert ours.any()


@pytest.fixture
def dwpose_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for identifier, name in (("YOLOX", "yolox_l.torchscript.pt"), ("DWPose", "dw-ll_ucoco_384_bs5.torchscript.pt")):
        WRITTEN[identifier](tmp_path / name)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(tmp_path)], set()))
    return tmp_path


def test_dwpose_in_the_host(dwpose_files: Path) -> None:
    """Its two programs are the host's to place; the pose that comes out draws the same hint."""
    image = torch.full((3, 256, 256, 3), 0.4)
    image[0, 40:220, 30:100] = torch.tensor([1.0, 0.4, 0.4])
    image[0, 100:110, 50:60] = torch.tensor([1.0, 0.0, 0.0])
    image[1, 60:80, 60:80] = torch.tensor([0.0, 1.0, 0.0])
    hint, pose = preprocessor_node(DWPOSE).execute(image).result
    assert [len(one["people"]) for one in pose] == [1, 1, 0]
    assert (hint.shape, pose[0]["canvas_width"]) == ((3, 256, 256, 3), 256)
    assert hint[0].any() and hint[1].any() and not hint[2].any()
    assert torch.equal(hint, DRAW.execute(pose).result[0])
    # Without a search for people, the file for it is not needed.
    (dwpose_files / "yolox_l.torchscript.pt").unlink()
    preprocessor_node(DWPOSE).execute(image, find_people=False)
    with pytest.raises(PreprocessorError, match=r"found no file 'yolox_l\.torchscript\.pt'"):
        preprocessor_node(DWPOSE).execute(image)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's input and output, empty."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    return tmp_path


def test_saved_poses_come_back(folders: Path) -> None:
    saved = [SAVE.execute(two_frames(), "mine/pose").ui for _ in range(2)]
    assert saved[1] == {"poses": [{"filename": "pose_00002_.json", "subfolder": "mine", "type": "output"}]}
    written = folders / "output" / "mine" / "pose_00002_.json"
    assert json.loads(written.read_text()) == two_frames()
    written.rename(folders / "input" / "some.json")
    assert LOAD.define_schema().inputs[0].options == ["some.json"]
    assert LOAD.validate_inputs("some.json") is True
    assert LOAD.execute("some.json").result == (two_frames(),)
    before = LOAD.fingerprint_inputs("some.json", width=0, height=0)
    os.utime(folders / "input" / "some.json", (1, 1))
    assert LOAD.fingerprint_inputs("some.json", width=0, height=0) != before


@pytest.mark.parametrize("outside", ["../pose", "/pose", "a/../../pose"])
def test_nothing_is_saved_outside_of_the_output_folder(folders: Path, outside: str) -> None:
    with pytest.raises(Exception, match="outside the output folder"):
        SAVE.execute(two_frames(), outside)
    assert not [*folders.glob("*.json"), *folders.glob("*/*.json")]


def test_nothing_is_loaded_from_outside_of_the_input_folder(folders: Path) -> None:
    (folders / "pose.json").write_text("[]")
    assert LOAD.validate_inputs("../pose.json") == (
        "file: found no '../pose.json' in the input folder, but a pose as JSON was expected there; put one there or choose another."
    )
    with pytest.raises(ValueError, match="Invalid file path"):
        LOAD.execute("../pose.json")


def test_poses_as_text() -> None:
    assert TEXT.execute(json.dumps(two_frames())).result == (two_frames(),)
    fractions = json.dumps({"people": [{"pose_keypoints_2d": [0.5, 0.25, 1] * 18}]})
    ((frame,),) = TEXT.execute(fractions, width=80, height=40).result
    assert (frame["canvas_width"], frame["canvas_height"]) == (80, 40)
    assert frame["people"][0]["pose_keypoints_2d"][:3] == [40, 10, 1]


@pytest.mark.parametrize(
    ("text", "found"),
    [("", "Expecting value: line 1 column 1 (char 0)"), ("[" * 100_000, "maximum recursion depth exceeded")],
)
def test_what_is_no_json(text: str, found: str) -> None:
    with pytest.raises(PreprocessorError) as error:
        TEXT.execute(text)
    assert str(error.value).startswith(f"text: found no JSON ({found}")
    assert str(error.value).endswith(
        "), but the points of people as OpenPose writes them were expected; "
        "take a text that Save Pose or another pack's node has written."
    )
