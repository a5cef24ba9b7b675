"""Control Fidelity in the host: every preprocessor, sizes, batches, poses, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("comfy")

import comfy.model_management
import comfy.utils
import folder_paths

from control_composer.evaluation.errors import EvaluationError
from control_composer.evaluation.fidelity import MEASURES, UNMEASURED
from control_composer.evaluation.measures import POSES
from control_composer.nodes import evaluate
from control_composer.nodes.annotator_files import FOLDER
from control_composer.nodes.evaluate import ControlComposerFidelity
from control_composer.nodes.preprocess import preprocess
from control_composer.preprocessors import PREPROCESSORS, PreprocessorError
from control_composer.preprocessors.pose import Pose
from control_composer.preprocessors.pose_drawing import drawn
from control_composer.preprocessors.pose_editing import moved
from control_composer.preprocessors.pose_keypoints import as_keypoints
from control_composer.tests.preprocessors.people import on, standing

BY_ID = {one.id: one for one in PREPROCESSORS}
CANNY = {"preprocessor": "Canny", "low": 100, "high": 200}
WITHOUT_NETWORKS = [one.id for one in PREPROCESSORS if one.id in MEASURES and not one.annotators]
TILE = {"preprocessor": "TileSimple", "scale": 1.0, "blur": 2.0}


@pytest.fixture(autouse=True)
def annotator_files(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(written)], set()))


def frames(count: int = 1, height: int = 40, width: int = 56, seed: int = 0, side: int = 8) -> torch.Tensor:
    """Blocks of `side` × `side` pixels in one colour each, with a little noise, in 8-bit steps."""
    random = torch.Generator().manual_seed(seed)
    blocks = torch.rand((count, -(-height // side), -(-width // side), 3), generator=random)
    whole = blocks.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)[:, :height, :width]
    return ((whole * 0.9 + 0.1 * torch.rand((count, height, width, 3), generator=random)) * 255).round() / 255


def defaults(identifier: str) -> dict[str, Any]:
    return {one.id: one.default for one in BY_ID[identifier].parameters}


def run(image: torch.Tensor, hint: torch.Tensor, preprocessor: dict[str, Any], **inputs: Any) -> Any:
    with torch.inference_mode():
        return ControlComposerFidelity.execute(image, hint, preprocessor, **inputs).result


def test_every_measured_preprocessor_can_be_chosen_with_its_settings() -> None:
    choice = next(one for one in ControlComposerFidelity.define_schema().inputs if one.id == "preprocessor")
    assert [option.key for option in choice.options] == [one.id for one in PREPROCESSORS if one.id not in UNMEASURED]
    assert choice.options[0].key == "Canny"
    for option in choice.options:
        assert {one.id: one.default for one in option.inputs} == defaults(option.key)


@pytest.mark.parametrize("identifier", MEASURES)
def test_a_picture_obeys_its_own_hint(identifier: str) -> None:
    image = frames(1, 21, 30)
    hint, poses = preprocess(BY_ID[identifier], image, 0, **defaults(identifier))
    pose = as_keypoints(poses) if MEASURES[identifier] is POSES else None
    score, numbers, shown = run(image, hint, {"preprocessor": identifier, **defaults(identifier)}, pose=pose)
    assert score == pytest.approx(1 if MEASURES[identifier].higher_is_better else 0, abs=1e-5)
    assert numbers.startswith(f"{BY_ID[identifier].name}: {MEASURES[identifier].name}, ")
    assert shown.shape == hint.shape == image.shape and shown.min() >= 0 and shown.max() <= 1


@pytest.mark.parametrize("identifier", WITHOUT_NETWORKS)
def test_a_smaller_hint_is_obeyed_and_another_picture_does_not(identifier: str) -> None:
    """The picture comes to the hint's size before it is looked at, as the preprocessor looked at it."""
    image, stranger = frames(1, 80, 112, side=20), frames(1, 80, 112, seed=1, side=20).roll((9, 9), (1, 2))
    hint, _ = preprocess(BY_ID[identifier], image, 40, **defaults(identifier))
    chosen = {"preprocessor": identifier, **defaults(identifier)}
    own, other = run(image, hint, chosen)[0], run(stranger, hint, chosen)[0]
    assert hint.shape == (1, 40, 56, 3)
    if MEASURES[identifier].higher_is_better:
        assert own > 0.97 > 0.9 > other
    else:
        assert own < 0.2 < 0.5 < other


def test_the_settings_are_those_of_the_choice() -> None:
    image = frames()
    hint, _ = preprocess(BY_ID["Canny"], image, 0, low=20, high=40)
    assert run(image, hint, CANNY | {"low": 20, "high": 40})[0] == 1
    assert run(image, hint, CANNY | {"low": 250, "high": 255})[0] < 0.9


def test_one_hint_is_for_all_and_fewer_take_turns() -> None:
    images = frames(3)
    hints, _ = preprocess(BY_ID["TileSimple"], images, 0)
    alone = [run(images[n : n + 1], hints[:1], TILE)[0] for n in range(3)]
    score, numbers, shown = run(images, hints[:1], TILE)
    assert score == pytest.approx(np.mean(alone), rel=1e-4) and alone[0] < 0.5 < 10 < alone[1]
    assert [line.split()[0] for line in numbers.splitlines()[1:6]] == ["picture", "1", "2", "3", "mean"]
    assert [float(line.split()[1]) for line in numbers.splitlines()[2:5]] == pytest.approx(alone, abs=0.01)
    assert shown.shape == images.shape
    turns = run(images[[0, 1, 0]], hints[:2], TILE)[0]
    assert turns < 0.5
    assert run(images[[0, 1, 1]], hints[:2], TILE)[0] > 5
    assert run(images[[0, 1, 1]], hints[:2], TILE, batch="hold last")[0] < 0.5
    with pytest.raises(EvaluationError) as refusal:
        run(images[:2], hints, TILE)
    assert str(refusal.value) == (
        "Control Fidelity: found 3 hints for 2 pictures, but at most one for each was expected; "
        "give those that the pictures were made with."
    )


def test_only_what_lies_on_the_picture_counts() -> None:
    """A hint of another aspect, as it was laid on the picture."""
    wide = frames(height=48, width=96)
    hint, _ = preprocess(BY_ID["TileSimple"], wide, 0)
    middle = wide[:, :, 24:72]
    score, _, shown = run(middle, hint, TILE)
    assert shown.shape == (1, 48, 48, 3)
    # Blurred, the middle's borders know nothing of what is beyond them.
    assert score < 2.5
    padded = torch.zeros(1, 96, 96, 3)
    padded[:, 24:72] = wide
    score, _, shown = run(padded, hint, TILE, sizing="fit")
    assert score < 0.1 and shown.shape == hint.shape
    assert run(padded, hint, TILE)[0] > 5
    tall = wide.repeat_interleave(2, dim=1)
    assert run(tall, hint, TILE, sizing="stretch")[0] < 0.5


def test_alpha_grey_halves_and_odd_sizes() -> None:
    image = frames(height=37, width=51)
    hint, _ = preprocess(BY_ID["Canny"], image, 0)
    opaque = torch.cat([image, torch.ones_like(image[..., :1])], dim=3)
    assert run(opaque, hint[..., :1], CANNY)[0] == 1
    score, _, shown = run(image.half(), hint.half(), CANNY)
    assert score > 0.98 and shown.dtype == torch.float32
    with pytest.raises(PreprocessorError, match=r"^hint: found pixels that are NaN or infinite, but"):
        run(image, hint * math.nan, CANNY)
    with pytest.raises(PreprocessorError, match=r"^image: found an empty batch of shape"):
        run(image[:0], hint, CANNY)


def test_the_inputs_stay_as_they_are() -> None:
    image = frames(2)
    hint, _ = preprocess(BY_ID["Canny"], image, 0)
    before = image.clone(), hint.clone()
    run(image, hint, CANNY)
    assert torch.equal(image, before[0]) and torch.equal(hint, before[1])


def test_nothing_to_compare_is_no_number() -> None:
    grey = torch.full((1, 40, 56, 3), 0.5)
    score, numbers, _ = run(frames(), grey, {"preprocessor": "NormalFromDepth", **defaults("NormalFromDepth")})
    assert math.isnan(score) and "-: nothing could be compared" in numbers


# ---- people ----


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> list[Pose]:
    """In place of DWPose: what it finds in the pictures, one pose for each."""
    found: list[Pose] = []

    def instead(preprocessor: Any, image: torch.Tensor, resolution: int, **_: Any) -> tuple[torch.Tensor, list[Pose]]:
        assert preprocessor.id == "DWPose" and resolution == 0
        assert {(one.height, one.width) for one in found} == {tuple(image.shape[1:3])}
        return torch.stack([drawn(one) for one in found]), found

    monkeypatch.setattr(evaluate, "preprocess", instead)
    return found


DWPOSE = {"preprocessor": "DWPose", **defaults("DWPose")}


def test_people_are_compared_by_their_points(people: list[Pose]) -> None:
    wanted = on(128, 128, standing(scale=0.25))
    hint = drawn(wanted)[None]
    people[:] = [wanted, moved(wanted, right=8), on(128, 128)]
    score, numbers, shown = run(frames(3, 128, 128), hint, DWPOSE, pose=as_keypoints([wanted]))
    rows = [line.split() for line in numbers.splitlines()]
    assert rows[1] == ["picture", "F1", "of", "similarities", "precision", "recall"]
    found = [float(row[1]) for row in rows[2:5]]
    assert found[0] == 1 and 0.1 < found[1] < 0.95 and found[2] == 0
    assert score == pytest.approx(np.mean(found), abs=1e-3)
    green, orange = torch.tensor([0, 158, 115]) / 255, torch.tensor([213, 94, 0]) / 255
    assert (shown[0] == green).all(dim=2).sum() > 500 < (shown[2] == orange).all(dim=2).sum()


def test_people_beside_the_picture_are_not_asked_for(people: list[Pose]) -> None:
    """Of a wide hint the middle lies on a square picture: who stands beside it is not missed."""
    wanted = on(128, 256, standing(right=64, scale=0.25), standing(right=-45, scale=0.25))
    hint = drawn(wanted)[None]
    people[:] = [on(128, 128, standing(scale=0.25))]
    score, numbers, _ = run(frames(1, 128, 128), hint, DWPOSE, pose=as_keypoints([wanted]))
    assert score == 1, numbers


def test_people_need_the_hints_points(people: list[Pose]) -> None:
    nobody = on(16, 16)
    hint = drawn(nobody)[None].repeat(2, 1, 1, 1)
    people[:] = [nobody, nobody]
    with pytest.raises(EvaluationError) as refusal:
        run(frames(2, 16, 16), hint, DWPOSE)
    assert str(refusal.value) == (
        "Control Fidelity: found nothing at the input pose, but the people of the hint were expected for DWPose, which are compared by their "
        "points; connect the POSE_KEYPOINT output of the node that made the hint."
    )
    with pytest.raises(EvaluationError) as refusal:
        run(frames(2, 16, 16), hint, DWPOSE, pose=as_keypoints([nobody]))
    assert str(refusal.value) == (
        "Control Fidelity: found 1 pose for 2 hints, but one of each was expected; connect hint and pose of one node."
    )
    assert run(frames(2, 16, 16), hint, DWPOSE, pose=as_keypoints([nobody, nobody]))[0] == 1


# ---- the host ----


def test_it_tells_its_progress_and_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: told.append((value, total)))
    images = frames(4)
    hint, _ = preprocess(BY_ID["Canny"], images[:1], 0)
    run(images, hint, CANNY)
    # The host leaves out what follows too fast.
    assert (1, 4) in told and told[-1] == (4, 4)
    measured = []

    def one(*arguments: Any) -> Any:
        measured.append(arguments)
        comfy.model_management.interrupt_current_processing()
        return real(*arguments)

    real = evaluate.fidelity
    monkeypatch.setattr(evaluate, "fidelity", one)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(images, hint, CANNY)
    assert len(measured) == 1


def test_the_overlay_is_where_and_what_the_host_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfy.model_management, "intermediate_dtype", lambda: torch.float16)
    hint, _ = preprocess(BY_ID["Canny"], frames(), 0)
    score, _, shown = run(frames(), hint, CANNY)
    assert score == 1 and shown.dtype == torch.float16


def test_what_cannot_be_measured_is_said_in_the_menu() -> None:
    description = ControlComposerFidelity.define_schema().description
    assert all(identifier in description for identifier in UNMEASURED)
