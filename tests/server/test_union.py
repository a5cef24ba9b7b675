"""The union nodes in a real server: growing hints, and what a control without types is told."""

import copy
from typing import Any

import pytest

pytestmark = pytest.mark.server


def test_a_control_without_types_is_refused_by_name(server: Any) -> None:
    prompt: dict[str, Any] = copy.deepcopy(server.example("demo_composed"))
    layer = next(node for node in prompt.values() if node["class_type"] == "ControlComposerLayer")
    image = layer["inputs"].pop("image")
    for number, union_type in enumerate(("canny/lineart/anime_lineart/mlsd", "depth")):
        prompt[f"10{number}"] = {
            "class_type": "ControlComposerUnionHint",
            "inputs": {"image": image, "union_type": union_type, "strength": 0.5},
        }
        layer["inputs"][f"hints.hint{number}"] = [f"10{number}", 0]
    layer["class_type"] = "ControlComposerUnionLayer"
    with pytest.raises(server.Failed) as failure:
        server.run(prompt)
    assert failure.value.node_type == "ControlComposerUnionLayer"
    assert str(failure.value).strip() == (
        "control_net of Union Control Layer is control_composer_demo_edges.safetensors, which has no types of hint, but a ControlNet Union or "
        "ProMax was expected; connect one, or take Control Layer for a control of one kind of hint."
    )
    # A chosen type that no file has does not reach the node.
    prompt["100"]["inputs"]["union_type"] = "pose"
    with pytest.raises(server.Refused, match="pose"):
        server.run(prompt)
