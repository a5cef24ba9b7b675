"""Condition Dataset in a real server: a choice with settings of its own in a node that takes lists, and the host's own dataset nodes before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from control_composer.tests.training.dataset.files import noise, write

pytestmark = pytest.mark.server


def graph(dataset: dict[str, Any], **others: Any) -> dict[str, Any]:
    inputs = {"path": "", "resolution": 64, "crops": 1, "flip": False, "seed": 0, **dataset}
    inputs |= {"widest": 2.0, "empty_captions": False, "read_all": True}
    return {
        "1": {"class_type": "ControlComposerDataset", "inputs": inputs},
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 2], "filename_prefix": "sheet"},
            "_meta": {"title": "Sheet"},
        },
        **others,
    }


def test_a_folder_and_the_host_s_lists_make_the_same_set(server: Any) -> None:
    for number in range(3):
        write(server.base / "input" / "set" / f"{number}.png", noise(70, 90, number), f"thing {number}")
    canny = {"condition": "Canny", "condition.low": 100, "condition.high": 200}
    by_path = server.run(graph(canny | {"path": "set"})).pictures["Sheet"]
    assert by_path.shape[0] == 1 and by_path.std() > 10
    # Hint tiles are black and white; a sheet of pictures alone would have nearly no black.
    assert (by_path == 0).mean() > 0.01

    again = graph(canny | {"path": "set"})
    assert "1" in server.run(again).cached
    (server.base / "input" / "set" / "1.txt").write_text("something else altogether", encoding="utf-8")
    run = server.run(again)
    assert "1" not in run.cached and not np.array_equal(run.pictures["Sheet"], by_path)

    loader = {"class_type": "LoadImageTextDataSetFromFolder", "inputs": {"folder": "set"}}
    lists = canny | {"images": ["3", 0], "texts": ["3", 1]}
    assert server.run(graph(lists, **{"3": loader})).pictures["Sheet"].shape == by_path.shape


def test_errors_reach_the_page(server: Any) -> None:
    with pytest.raises(server.Failed) as failure:
        server.run(graph({"condition": "from folder", "condition.hints_path": "", "condition.hint_kind": "picture"}))
    assert failure.value.node_type == "ControlComposerDataset"
    assert (
        "The input 'path' is empty, but a folder of pictures, a JSONL file or a folder of shards was expected"
        in str(failure.value)
    )
