"""Every example of the demo world, run by a real server with few steps; the others are accepted up to the files that are not here."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.server

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
RUN_ELSEWHERE = {"demo_composed", "demo_fidelity", "demo_one_control", "demo_training", "demo_two_controls"}
RUN = [name for name in NAMES if name.startswith("demo_") and name not in RUN_ELSEWHERE]
TESTED_BY_ITSELF = {"native_preprocessors", "compare_sets"}
NEEDING = [name for name in NAMES if not name.startswith("demo_") and name not in TESTED_BY_ITSELF]
FILES = {
    ("CheckpointLoaderSimple", "ckpt_name"),
    ("ControlComposerLoad", "control_net_name"),
    ("LoadImage", "image"),
}


@pytest.mark.parametrize("name", RUN)
def test_it_runs(server: Any, name: str) -> None:
    prompt = server.example(name)
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 2
    pictures = server.run(prompt).pictures
    assert pictures
    for title, batch in pictures.items():
        assert all(picture.std() > 5 for picture in batch), f"{title}: a flat picture"


@pytest.mark.parametrize("name", NEEDING)
def test_only_its_files_are_missing(server: Any, name: str) -> None:
    prompt = server.example(name)
    try:
        refused = server.post("/prompt", {"prompt": prompt})["node_errors"]  # what needs no file would run
    except urllib.error.HTTPError as refusal:
        refused = json.loads(refusal.read())["node_errors"]
    complaints = {
        (prompt[number]["class_type"], complaint["extra_info"].get("input_name", "image"))
        for number, found in refused.items()
        for complaint in found["errors"]
    }
    assert complaints
    assert complaints <= FILES


def test_the_comparison_of_sets_runs_until_it_asks_for_its_network(server: Any) -> None:
    prompt = server.example("compare_sets")
    few = {"KSampler": {"steps": 1}, "EmptyLatentImage": {"batch_size": 2}, "ControlComposerDemoScenes": {"count": 2}}
    for node in prompt.values():
        node["inputs"].update(few.get(node["class_type"], {}))
    with pytest.raises(server.Failed, match="models/evaluation") as failure:
        server.run(prompt)
    assert failure.value.node_type == "ControlComposerCompareSets"
