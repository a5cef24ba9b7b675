"""Numbers that decide what comes out stay as they are between runs: the page draws another where an input called seed says nothing of it."""

from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("comfy_api")
pytest.importorskip("comfy")

from comfy_api.latest import io

from control_composer.nodes import compare_sets, convert, dataset, demo, preprocess, train


@pytest.mark.parametrize("section", [compare_sets, convert, dataset, demo, preprocess, train])
def test_the_page_leaves_seeds_alone(section: ModuleType) -> None:
    inputs: list[Any] = [item for node in section.NODES for item in node.define_schema().inputs]
    seeds = [item for item in inputs if item.id in ("seed", "noise_seed")]
    assert seeds
    assert all(item.control_after_generate == io.ControlAfterGenerate.fixed for item in seeds)
