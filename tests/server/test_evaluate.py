"""Control Fidelity and Compare Sets in a real server, and the example workflow with the first of them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.server

GREEN, ORANGE = (0, 158, 115), (213, 94, 0)


@pytest.fixture(scope="module")
def result(server: Any) -> Any:
    """The example with fewer steps and pictures."""
    prompt = copy.deepcopy(server.example("demo_fidelity"))
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 8
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"]["batch_size"] = 2
    return server.run(prompt)


def numbers(text: str) -> list[float]:
    """F1 of each picture, and the mean."""
    return [float(line.split()[1]) for line in text.splitlines()[2:-1]]


def test_the_control_is_obeyed_and_nothing_obeys_without_it(result: Any) -> None:
    without, controlled = (result.texts[f"Numbers {name} the control"] for name in ("without", "with"))
    for text in (without, controlled):
        assert text.startswith("Canny: edge F1 within 2 pixels, higher is better\npicture ")
    *each, mean = numbers(controlled)
    assert len(each) == 2 and mean == pytest.approx(np.mean(each), abs=2e-3)
    assert mean > 0.7 and numbers(without)[-1] < 0.4


def test_half_of_the_evaluations_are_enough_to_obey(result: Any) -> None:
    """The row with a layer whose network runs at every second step."""
    assert "ran at steps 1–8 of 8" in result.texts["Control Report"]
    assert "Used earlier residuals again at steps 2, 4, 6 of 8." in result.texts["Control Report"]
    assert numbers(result.texts["Numbers, half the work"])[-1] > 0.7
    assert (result.pictures["With half the work"] != result.pictures["With control"]).any()


def test_the_numbers_are_opencvs(result: Any, server: Any) -> None:
    """On the saved pictures, with edges and distances by OpenCV."""
    cv2 = pytest.importorskip("cv2")
    hint = result.pictures["Hint"][0, ..., 0] > 0

    def beside(edges: np.ndarray) -> np.ndarray:
        return cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= 2

    for picture, found in zip(
        result.pictures["With control"], numbers(result.texts["Numbers with the control"]), strict=False
    ):
        edges = cv2.Canny(picture, 100, 200) > 0
        precision, recall = (edges & beside(hint)).sum() / edges.sum(), (hint & beside(edges)).sum() / hint.sum()
        assert found == pytest.approx(2 * precision * recall / (precision + recall), abs=0.01)


def test_the_overlay_shows_where(result: Any) -> None:
    def share(title: str, colour: tuple[int, int, int]) -> float:
        shown = result.pictures[title]
        assert shown.shape == (2, 128, 128, 3)
        lines = [(shown == one).all(axis=3).sum() for one in (GREEN, ORANGE)]
        return float((shown == colour).all(axis=3).sum() / sum(lines))

    assert share("Where it obeys with the control", GREEN) > 0.7
    assert share("Where it obeys without the control", ORANGE) > 0.4


def test_another_preprocessor_is_chosen_with_its_settings(server: Any) -> None:
    """A scene and its own hint, through the choice as the page sends it."""
    prompt = {
        "1": {"class_type": "ControlComposerDemoScene", "inputs": {"seed": 3}},
        "2": {"class_type": "ControlComposerColorGrid", "inputs": {"image": ["1", 0], "cell": 32, "resolution": 64}},
        "3": {
            "class_type": "ControlComposerFidelity",
            "inputs": {
                "image": ["1", 0],
                "hint": ["2", 0],
                "preprocessor": "ColorGrid",
                "preprocessor.cell": 32,
            },
        },
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 1]}, "_meta": {"title": "Numbers"}},
    }
    text = server.run(prompt).texts["Numbers"]
    assert text.startswith("Color Grid: colour difference (CIEDE2000), lower is better\npicture  mean ΔE")
    assert numbers(text)[0] < 1


def sets(**inputs: Any) -> dict[str, Any]:
    return {
        "1": {"class_type": "ControlComposerDemoScene", "inputs": {"seed": 3}},
        "2": {
            "class_type": "ControlComposerCompareSets",
            "inputs": {
                "real": ["1", 0],
                "made": ["1", 0],
                "features_name": "weights-inception-2015-12-05-6726825d.pth",
                "features": "64",
                "clip_name": "none",
                "prompts": "",
                **inputs,
            },
        },
    }


def test_a_missing_network_says_where_to_get_it(server: Any) -> None:
    with pytest.raises(server.Failed) as failure:
        server.run(sets())
    text = str(failure.value)
    assert text.startswith(
        "Compare Sets: found no file 'weights-inception-2015-12-05-6726825d.pth' in models/evaluation, but the weights of the network"
    )
    assert (
        f"download https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{sets()['2']['inputs']['features_name']} into "
        in text
    )
    assert str(server.base / "models" / "evaluation") in text


def test_nothing_to_measure_is_said(server: Any) -> None:
    with pytest.raises(server.Failed, match=r"^Compare Sets: found neither a file of features nor a CLIP, but one"):
        server.run(sets(features_name="none"))
