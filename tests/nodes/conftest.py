"""What several tests of nodes need and takes long to make."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small random networks under the published files' names."""
    from control_composer.tests.preprocessors.annotator_weights import write_all

    folder = tmp_path_factory.mktemp("annotators")
    write_all(folder)
    return folder


@pytest.fixture(scope="session")
def every_node() -> list[Any]:
    """The nodes of all sections that the pack's root lists; it is run here, because as a package it is not."""
    pytest.importorskip("comfy")
    spec = importlib.util.spec_from_file_location(
        "control_composer", ROOT / "__init__.py", submodule_search_locations=[]
    )
    assert spec is not None and spec.loader is not None
    root = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(root)
    return [node for section in root.SECTIONS for node in section.NODES]
