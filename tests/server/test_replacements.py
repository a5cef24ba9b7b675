"""Prompts with comfyui_controlnet_aux's ids in a real server, which has not that pack; and resolutions that come through a link."""

import json
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.server


def saved(source: str, title: str) -> dict[str, Any]:
    inputs = {"images": [source, 0], "filename_prefix": "hint"}
    return {"class_type": "SaveImage", "inputs": inputs, "_meta": {"title": title}}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": class_type}}


def test_old_prompts_give_the_pictures_of_ours(server: Any) -> None:
    picture: list[Any] = ["1", 0]
    run = server.run(
        {
            "1": node("ControlComposerDemoScene", seed=3),
            "2": node("CannyEdgePreprocessor", image=picture, low_threshold=60, high_threshold=90, resolution=192),
            "3": node("ControlComposerCanny", image=picture, low=60, high=90, resolution=192, as_controlnet_aux=True),
            "4": node("AIO_Preprocessor", image=picture, preprocessor="ScribblePreprocessor", resolution=192),
            "5": node("ControlComposerScribble", image=picture, resolution=192, as_controlnet_aux=True),
            "6": node(
                "HintImageEnchance",
                hint_image=["2", 0],
                image_gen_width=104,
                image_gen_height=64,
                resize_mode="Resize and Fill",
            ),
            "7": node("ControlComposerResizeHint", hint=["3", 0], width=104, height=64, mode="fit"),
            **{f"{source}0": saved(source, f"from {source}") for source in "234567"},
        }
    ).pictures
    for old, ours in ("23", "45", "67"):
        assert np.array_equal(run[f"from {old}"], run[f"from {ours}"])
    assert set(np.unique(run["from 2"])) == {0, 255} and run["from 6"].shape == (1, 64, 104, 3)


def test_a_resolution_comes_through_a_link(server: Any) -> None:
    """Of one preprocessor and of all behind one choice."""
    run = server.run(
        {
            "1": node("ControlComposerDemoScene", seed=3),
            "2": node("EmptyLatentImage", width=256, height=192, batch_size=1),
            "3": node("ControlComposerHintSize", image=["1", 0], mode="crop", width=8, height=8, latent=["2", 0]),
            "4": node("ControlComposerCanny", image=["1", 0], low=60, high=90, resolution=["3", 0]),
            "5": node(
                "ControlComposerPreprocess",
                image=["1", 0],
                preprocessor="Canny",
                resolution=["3", 0],
                **{"preprocessor.low": 60, "preprocessor.high": 90},
            ),
            "40": saved("4", "one"),
            "50": saved("5", "all"),
        }
    ).pictures
    assert run["one"].shape == (1, 256, 256, 3) and np.array_equal(run["one"], run["all"])


def test_the_page_is_told(server: Any) -> None:
    told = json.loads(server.get("/node_replacements"))
    (canny,) = told["CannyEdgePreprocessor"]
    assert canny["new_node_id"] == "ControlComposerCanny"
    assert canny["old_widget_ids"] == ["low_threshold", "high_threshold", "resolution"]
    info = server.object_info()
    ours = {old: entries for old, entries in told.items() if entries[0]["new_node_id"].startswith("ControlComposer")}
    assert len(ours) > 30 and all(entries[0]["new_node_id"] in info for entries in ours.values())
    assert info["ControlComposerAuxHEDPreprocessor"]["deprecated"]
