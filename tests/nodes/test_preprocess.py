"""The preprocessor nodes in the host: its progress bar, its interruption, its choice of where pictures live."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("comfy")

import comfy.model_management
import comfy.utils
import folder_paths

from control_composer.nodes.annotator_files import FOLDER
from control_composer.nodes.preprocess import FRAMES_PER_CHUNK, NODES
from control_composer.preprocessors import PREPROCESSORS, Preprocessor, canny

BY_ID: dict[str, Any] = {node.define_schema().node_id: node for node in NODES}
CANNY_NODE = BY_ID["ControlComposerCanny"]


@pytest.fixture(autouse=True)
def annotator_files(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(written)], set()))


def frames(count: int) -> torch.Tensor:
    return torch.rand((count, 20, 28, 3), generator=torch.Generator().manual_seed(0))


def test_every_preprocessor_has_its_node_and_its_parameters() -> None:
    nodes = {node.define_schema().node_id: node for node in NODES}
    others = {"ControlComposerPreprocess", "ControlComposerInpaint"}
    assert set(nodes) == others | {f"ControlComposer{preprocessor.id}" for preprocessor in PREPROCESSORS}
    for preprocessor in PREPROCESSORS:
        inputs = {entry.id: entry for entry in nodes[f"ControlComposer{preprocessor.id}"].define_schema().inputs}
        assert set(inputs) == {
            "image",
            "resolution",
            "as_controlnet_aux",
            *(parameter.id for parameter in preprocessor.parameters),
        }
        for parameter in preprocessor.parameters:
            shown = inputs[parameter.id]
            assert shown.default == parameter.default
            if parameter.options:
                assert shown.options == list(parameter.options)
            elif not isinstance(parameter.default, bool):
                assert (shown.min, shown.max) == (parameter.minimum, parameter.maximum)


def test_canny_of_a_long_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: told.append((value, total)))
    image = frames(2 * FRAMES_PER_CHUNK + 1)
    (hint,) = CANNY_NODE.execute(image, low=100, high=200, resolution=32).result
    assert torch.equal(hint, canny(image, resolution=32))
    assert told[0] == (0, len(image))
    assert told[-1] == (len(image), len(image))


def test_an_interruption_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def interrupt_after_the_first_chunk(value: int, *_: Any, **__: Any) -> None:
        seen.append(value)
        comfy.model_management.interrupt_current_processing(len(seen) == 1)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", interrupt_after_the_first_chunk)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        CANNY_NODE.execute(frames(5 * FRAMES_PER_CHUNK), low=100, high=200, resolution=0)
    assert seen == [0]


def test_pictures_are_where_and_what_the_host_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfy.model_management, "intermediate_dtype", lambda: torch.float16)
    (hint,) = CANNY_NODE.execute(frames(1), low=100, high=200, resolution=0).result
    assert hint.dtype == torch.float16
    assert torch.equal(hint.float(), canny(frames(1)))


@pytest.mark.parametrize("preprocessor", PREPROCESSORS, ids=lambda preprocessor: preprocessor.id)
def test_all_behind_one_choice(preprocessor: Preprocessor) -> None:
    """Preprocess gives what the node of the chosen one gives, with the settings of its own."""
    choices = {option.key: option for option in choice_input().options}
    settings = {entry.id: entry.default for entry in choices[preprocessor.id].inputs}
    assert settings == {parameter.id: parameter.default for parameter in preprocessor.parameters}
    image = frames(2)
    (one,) = BY_ID["ControlComposerPreprocess"].execute(image, {"preprocessor": preprocessor.id, **settings}, 16).result
    other, *_ = BY_ID[f"ControlComposer{preprocessor.id}"].execute(image=image, resolution=16, **settings).result
    assert torch.equal(one, other)


def choice_input() -> Any:
    schema = BY_ID["ControlComposerPreprocess"].define_schema()
    return next(entry for entry in schema.inputs if entry.id == "preprocessor")


def test_the_inpaint_node() -> None:
    mask = torch.zeros(1, 20, 28)
    mask[:, 5:] = 1.0
    (hint,) = BY_ID["ControlComposerInpaint"].execute(frames(2), mask).result
    assert float(hint.min()) == -1.0 and torch.equal(hint[:, :5], frames(2)[:, :5])
