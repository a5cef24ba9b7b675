"""The example with layers, run by a real server: growing inputs, schedules and the nodes that look at a run."""

import copy
import json
from typing import Any

import pytest

pytestmark = pytest.mark.server

STEPS = 5


@pytest.fixture(scope="module")
def prompt(server: Any) -> dict[str, Any]:
    found: dict[str, Any] = copy.deepcopy(server.example("demo_composed"))
    for node in found.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = STEPS
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"]["batch_size"] = 2
    return found


def of_type(prompt: dict[str, Any], kind: str) -> list[tuple[str, dict[str, Any]]]:
    return [(number, node["inputs"]) for number, node in prompt.items() if node["class_type"] == kind]


def outputs(server: Any) -> dict[str, Any]:
    """What the last prompt showed, by node."""
    history = json.loads(server.get("/history?max_items=1"))
    found: dict[str, Any] = next(iter(history.values()))["outputs"]
    return found


def test_the_layers_are_evaluated_and_the_report_says_how(server: Any, prompt: dict[str, Any]) -> None:
    pictures = server.run(prompt).pictures
    assert pictures["With both layers"].shape == (2, 128, 128, 3)
    assert all(picture.std() > 10 for picture in pictures["With both layers"])

    shown = outputs(server)
    ((report, _),) = of_type(prompt, "ControlComposerReport")
    (text,) = shown[report]["text"]
    head, edges, colours = text.split("\n\n")
    assert head.startswith("2 layers")
    assert f"ran at steps 1–{STEPS} of {STEPS}" in edges
    # "1@0, 0@0.7 ease" on the step axis: step 5 begins at 0.8.
    assert "ran at steps 1–4 of 5" in colours
    assert "Did not run at step 5 of 5: the schedule is 0 here." in colours
    ((heatmap, _),) = of_type(prompt, "ControlComposerHeatmap")
    (picture,) = [server.picture(saved) for saved in shown[heatmap]["images"]]
    assert picture.std() > 10


def test_a_layer_that_is_off_changes_the_picture_and_is_reported(server: Any, prompt: dict[str, Any]) -> None:
    before = server.run(prompt).pictures["With both layers"]
    off = copy.deepcopy(prompt)
    of_type(off, "ControlComposerLayer")[0][1]["enabled"] = False
    after = server.run(off).pictures["With both layers"]
    assert (before != after).any()
    ((report, _),) = of_type(prompt, "ControlComposerReport")
    (text,) = outputs(server)[report]["text"]
    assert "never ran" in text.split("\n\n")[1]


def test_a_typo_in_keyframes_is_told_before_anything_runs(server: Any, prompt: dict[str, Any]) -> None:
    wrong = copy.deepcopy(prompt)
    ((_, inputs),) = of_type(wrong, "ControlComposerStrengthKeyframes")
    inputs["keyframes"] = "1@0, 0@0.7 eaze"
    with pytest.raises(server.Refused, match="eaze"):
        server.run(wrong)
