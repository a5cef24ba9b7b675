"""Which folder may import which: the way of the data, and ComfyUI only where it is meant to be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "residuals": set(),
    "preprocessors": set(),
    "checkpoints": set(),
    "evaluation": {"preprocessors"},
    "training": {"checkpoints", "residuals", "preprocessors", "evaluation"},
    "control": {"checkpoints", "residuals", "preprocessors"},
    "nodes": {"checkpoints", "control", "demo", "evaluation", "preprocessors", "residuals", "training"},
    "page": {"checkpoints", "control", "nodes", "residuals"},
}
ALSO = {
    # Its command trains on the demo world too, which is trained by the same loop.
    "training/bases.py": {"demo"},
    # The words of all nodes.
    "page/locales.py": {"SECTIONS"},
}
WITH_THE_HOST = {
    # What puts weights into the host's classes and hands.
    "checkpoints": {"build", "networks", "difference", "mapping", "unet_weights"},
    "training": {"attention", "bases", "command", "copy", "encode", "forward", "frozen"},
    "residuals": set(),
    "preprocessors": set(),
    "evaluation": set(),
}
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "execution", "folder_paths", "nodes", "server"}


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, our own by their folders, the host's `nodes` as it is called."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)
        elif isinstance(node, ast.ImportFrom):
            base = ["control_composer", *package[: len(package) - node.level + 1], *filter(None, [node.module])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folders_import_what_comes_before_them(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        parts = [name.split(".") for name in imported(path)]
        ours = {part[1] for part in parts if part[0] == "control_composer" and len(part) > 1}
        assert ours <= MAY_IMPORT[folder] | {folder} | ALSO.get(path.relative_to(ROOT).as_posix(), set()), path


@pytest.mark.parametrize("folder", WITH_THE_HOST)
def test_the_host_is_imported_where_it_is_meant_to_be(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        if HOST & {name.split(".")[0] for name in imported(path)}:
            part = path.relative_to(ROOT / folder).parts[0].removesuffix(".py").split("_")
            assert WITH_THE_HOST[folder] & {part[0], "_".join(part)}, path
