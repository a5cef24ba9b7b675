"""Whatever the family: one network in memory for a file that several nodes load, a new one for a file that was replaced."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

from control_composer.nodes.load import NETWORKS, load_source
from control_composer.tests.control.cases import CASES, INSIDE

FAMILIES = {name: make for name, make in (CASES | INSIDE).items() if not name.endswith(" XL")}


@pytest.mark.parametrize("name", FAMILIES)
def test_one_network_for_one_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def recorded(*inputs: Any, **more: Any) -> Any:
        loads.append((inputs, more))
        return load_source(*inputs, **more)

    for module in list(sys.modules.values()):
        if module.__name__.startswith("control_composer.tests.control.case") and hasattr(module, "load_source"):
            monkeypatch.setattr(module, "load_source", recorded)
    gc.collect()
    empty = len(NETWORKS)
    case = FAMILIES[name](tmp_path)
    if not loads:
        pytest.skip("this family has no file")
    inputs, more = loads[-1]
    gc.collect()
    before = len(NETWORKS)
    assert before > empty
    kept = [load_source(*inputs, **more) for _ in range(2)]
    assert len(NETWORKS) == before
    for path in {value for value in (*inputs, *more.values()) if isinstance(value, Path)}:
        twin = path.with_name("twin")
        shutil.copy2(path, twin)
        os.replace(twin, path)
        kept += [load_source(*inputs, **more) for _ in range(2)]
        before += 1
        assert len(NETWORKS) == before, f"{path.name} was replaced"
    assert case.ours is not None  # in use all the time
