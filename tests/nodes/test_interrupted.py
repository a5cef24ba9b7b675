"""An interrupted preprocessor leaves nothing behind but networks that the host manages and can put away."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("comfy")

import comfy.model_management
import comfy.utils
import folder_paths
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from control_composer.nodes import preprocess
from control_composer.nodes.annotator_files import FOLDER
from control_composer.nodes.annotators import RECENT
from control_composer.preprocessors import PREPROCESSORS, Preprocessor
from control_composer.preprocessors.annotators import BY_ID
from control_composer.tests.preprocessors.annotator_weights import QUICK, write

NODES: dict[str, Any] = {node.define_schema().node_id: node for node in preprocess.NODES}
FRAMES = 3
KEPT_BY_LIBRARIES = {"OneFormer": 2, "Mask2Former": 2}
"""Tensors: transformers keeps the last sine of positions that it has made, of one level of one picture."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(tmp_path)], set()))
    # So that a chunk is one frame.
    monkeypatch.setattr(preprocess, "FRAMES_PER_CHUNK", 1)
    RECENT.clear()
    yield tmp_path
    RECENT.clear()
    comfy.model_management.unload_all_models()


class Made(TorchDispatchMode):
    """Notes every tensor that is made while it is `on`, without keeping it."""

    def __init__(self) -> None:
        super().__init__()
        self.on = False
        self.made: list[weakref.ref[torch.Tensor]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if self.on:
            self.made += [weakref.ref(part) for part in tree_leaves(found) if isinstance(part, torch.Tensor)]
        return found

    def left(self) -> list[tuple[int, ...]]:
        return [tuple(tensor.shape) for each in self.made if (tensor := each()) is not None]


@pytest.mark.parametrize(
    "preprocessor", [one for one in PREPROCESSORS if not one.needs_all({})], ids=lambda preprocessor: preprocessor.id
)
def test_nothing_is_left(preprocessor: Preprocessor, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = QUICK.get(preprocessor.id, {})
    for identifier in preprocessor.needed(parameters):
        write(BY_ID[identifier], folder)
    made, seen = Made(), list[int]()

    def progress(_: Any, done: int, *__: Any) -> None:
        seen.append(done)
        # Networks are loaded and tables made with the first frame: they may stay.
        made.on = done > 0
        comfy.model_management.interrupt_current_processing(done == 2)

    def interrupted() -> None:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            NODES[f"ControlComposer{preprocessor.id}"].execute(image=torch.rand(FRAMES, 16, 24, 3), **parameters)

    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", progress)
    with made:
        interrupted()
        made.on = False
    assert seen == [0, 1, 2] and made.made
    if made.left():
        gc.collect()
    assert len(made.left()) <= KEPT_BY_LIBRARIES.get(preprocessor.id, 0), made.left()
