"""Preprocessors in a real server: all behind one choice, each with its own settings, and the error where a network's file is missing."""

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.server


def graph(chosen: str, **settings: Any) -> dict[str, Any]:
    """A demo scene through Preprocess."""
    nested = {f"preprocessor.{name}": value for name, value in settings.items()}
    return {
        "1": {"class_type": "ControlComposerDemoScene", "inputs": {"seed": 3}},
        "2": {
            "class_type": "ControlComposerPreprocess",
            "inputs": {"image": ["1", 0], "preprocessor": chosen, **nested, "resolution": 0},
        },
        "3": {
            "class_type": "SaveImage",
            "inputs": {"images": ["2", 0], "filename_prefix": "hint"},
            "_meta": {"title": "Hint"},
        },
    }


def test_each_choice_has_its_own_settings(server: Any) -> None:
    edges = server.run(graph("Canny", low=100, high=200)).pictures["Hint"]
    assert set(np.unique(edges)) == {0, 255}
    grid = server.run(graph("ColorGrid", cell=32)).pictures["Hint"]
    assert grid.shape == edges.shape and len(np.unique(grid.reshape(-1, 3), axis=0)) <= 16
    with pytest.raises(server.Refused, match=r"preprocessor\.low"):
        server.run(graph("Canny", low=999, high=200))


def test_a_network_without_its_file_says_where_to_get_it(server: Any) -> None:
    info = server.object_info()["ControlComposerHED"]["input"]
    settings = {name: spec[1]["default"] for part in info.values() for name, spec in part.items() if name != "image"}
    settings.pop("resolution")
    with pytest.raises(server.Failed) as failure:
        server.run(graph("HED", **settings))
    assert failure.value.node_type == "ControlComposerPreprocess"
    text = str(failure.value)
    assert text.startswith("HED: found no file 'ControlNetHED.pth' in models/annotators, but the network's weights")
    assert "download https://huggingface.co/lllyasviel/Annotators/resolve/main/ControlNetHED.pth into " in text
