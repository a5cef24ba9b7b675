"""A ControlNet for the demo world, trained, saved, loaded and stopped through the queue of a real server."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import numpy as np
import pytest

from control_composer.demo.scenes import render, sample_scenes
from control_composer.tests.training.dataset.files import write

pytestmark = pytest.mark.server

TRAINED, LOADED = ["4", 0], ["8", 0]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


@pytest.fixture(scope="module")
def training(server: Any) -> dict[str, Any]:
    """World, copy, data set, six steps, file."""
    scenes = sample_scenes(4, 3)
    pictures = (render(scenes).numpy() * 255).round().astype(np.uint8)
    for number, (picture, caption) in enumerate(zip(pictures, scenes.captions(), strict=True)):
        write(server.base / "input" / "scenes" / f"{number}.png", picture, caption)
    canny = {"condition": "Canny", "condition.low": 100, "condition.high": 200}
    dataset = {"path": "scenes", "resolution": 64, "crops": 1, "flip": False, "seed": 0, **canny}
    dataset |= {"widest": 2.0, "empty_captions": False, "read_all": True}
    settings = {"name": "in the server", "steps": 6, "batch": 2, "rate": 1e-3, "seed": 0, "warm_up": 0, "log_every": 1}
    validation = {"validate_every": 0, "validation_pictures": 2, "validation_steps": 2}
    train = {"copy": ["2", 0], "dataset": ["3", 0], "vae": ["1", 1], "world": ["1", 2], **settings, **validation}
    saved = {"filename": "trained/edges", "layout": "cldm", "dtype": "fp32", "overwrite": True}
    return {
        "1": node("ControlComposerDemoWorld"),
        "2": node("ControlComposerTrainableCopy", model=["1", 0]),
        "3": node("ControlComposerDataset", **dataset),
        "4": node("ControlComposerTrain", **train),
        "5": node("ControlComposerSave", control_net=["4", 0], **saved),
        "6": node("SaveImage", images=["4", 2], filename_prefix="train") | {"_meta": {"title": "Validation"}},
    }


def drawn_with(control: list[Any]) -> dict[str, Any]:
    """A picture of the demo world steered by this control."""
    sampling = {"seed": 1, "steps": 3, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    words = {"world": ["1", 2], "text": "a red circle on a blue ground"}
    how = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "uncond_strength": 1.0}
    both = {"positive": ["20", 0], "negative": ["20", 0]}
    return {
        "1": node("ControlComposerDemoWorld"),
        "20": node("ControlComposerDemoPrompt", **words),
        "21": node("ControlComposerDemoScene", seed=4),
        "22": node("ControlComposerApply", **both, control_net=control, image=["21", 0], **how)
        | {"_meta": {"title": ""}},
        "23": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "24": node(
            "KSampler", model=["1", 0], positive=["22", 0], negative=["22", 1], latent_image=["23", 0], **sampling
        ),
        "25": node("VAEDecode", samples=["24", 0], vae=["1", 1]),
        "26": node("SaveImage", images=["25", 0], filename_prefix="drawn") | {"_meta": {"title": "Drawn"}},
    }


def test_a_control_is_trained_saved_loaded_and_given_again(server: Any, training: dict[str, Any]) -> None:
    whole = training | drawn_with(TRAINED)
    first = server.run(whole).pictures
    assert first["Validation"].shape == (2, 64, 64, 3)
    assert (server.base / "models" / "controlnet" / "trained" / "edges.safetensors").is_file()

    load = node("ControlComposerLoad", control_net_name="trained/edges.safetensors", pooling="auto", union_type="auto")
    loaded = server.run(drawn_with(LOADED) | {"8": load}).pictures
    assert np.array_equal(loaded["Drawn"], first["Drawn"])
    without = copy.deepcopy(whole)
    without["22"]["inputs"]["strength"] = 0.0
    assert not np.array_equal(server.run(without).pictures["Drawn"], first["Drawn"])

    server.forget()
    again = server.run(whole)
    assert "4" not in again.cached
    for title, batch in first.items():
        assert np.array_equal(batch, again.pictures[title]), title
    folder = server.base / "output" / "control_composer" / "training" / "in the server"
    assert (folder / "losses.csv").read_text().count("\n") == 7


def test_stopped_from_the_page_it_keeps_its_state(server: Any, training: dict[str, Any]) -> None:
    stopped = copy.deepcopy({number: training[number] for number in "1234"})
    stopped["4"]["inputs"] |= {"name": "stopped", "steps": 100_000}
    folder = server.base / "output" / "control_composer" / "training" / "stopped"
    prompt_id = server.post("/prompt", {"prompt": stopped})["prompt_id"]
    wait(lambda: (folder / "losses.csv").is_file() and (folder / "losses.csv").read_text().count("\n") > 2)
    server.post("/interrupt", {})
    history: dict[str, Any] = {}
    wait(lambda: history.update(json.loads(server.get(f"/history/{prompt_id}"))) or prompt_id in history)
    assert "execution_interrupted" in dict(history[prompt_id]["status"]["messages"])
    record = json.loads((folder / "run.json").read_text())
    assert 0 < record["step"] < 100_000 and (folder / "training.pt").is_file()

    stopped["4"]["inputs"]["steps"] = record["step"] + 1
    server.run(stopped)
    assert json.loads((folder / "run.json").read_text())["step"] == record["step"] + 1


def test_the_example_trains_on_lists_and_uses_what_it_trained(server: Any) -> None:
    """Cut short: a few scenes, two steps."""
    prompt = copy.deepcopy(server.example("demo_training"))
    shorter = {
        "ControlComposerDemoScenes": {"count": 6},
        "ControlComposerTrain": {"steps": 2, "batch": 2, "validate_every": 0, "validation_steps": 2},
        "KSampler": {"steps": 3},
        "EmptyLatentImage": {"batch_size": 2},
    }
    for one in prompt.values():
        one["inputs"] |= shorter.get(one["class_type"], {})
    result = server.run(prompt)
    assert result.pictures["With the new control"].shape == (2, 128, 128, 3)
    assert "learned from: 6 pictures, hints by Canny" in result.texts["What was learned"]
    assert (server.base / "models" / "controlnet" / "demo_edges_of_my_own.safetensors").is_file()


def wait(until: Any) -> None:
    end = time.monotonic() + 200
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)
