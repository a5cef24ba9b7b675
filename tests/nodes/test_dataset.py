"""Condition Dataset in the host: its lists, its folders, its networks, its interruption."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy_api")
pytest.importorskip("comfy")

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import ui

from control_composer.nodes.annotator_files import FOLDER
from control_composer.nodes.dataset import FROM_FOLDER, NODES, ControlComposerDataset, condition_of
from control_composer.preprocessors import PREPROCESSORS, canny
from control_composer.preprocessors.annotators import BY_ID
from control_composer.tests.preprocessors.annotator_weights import write as write_annotator
from control_composer.tests.training.dataset.files import noise, write
from control_composer.training.dataset.dataset import ConditionDataset
from control_composer.training.errors import TrainingError

CANNY = {"condition": ["Canny"], "low": [100], "high": [200]}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The host's folders, and the pictures that are previewed."""
    shown: list[torch.Tensor] = []
    monkeypatch.setattr(ui, "PreviewImage", lambda image, cls: shown.append(image) or {"images": []})
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    for number in range(3):
        write(tmp_path / "input" / "set" / f"{number}.png", noise(140, 130, number), f"thing {number}")
    return shown


def given(hints_path: str = "", hint_kind: str = "picture") -> dict[str, list[Any]]:
    return {"condition": [FROM_FOLDER], "hints_path": [hints_path], "hint_kind": [hint_kind]}


def run(path: str = "", condition: dict[str, Any] = CANNY, **inputs: Any) -> tuple[ConditionDataset, str, torch.Tensor]:
    """As the host calls a node that takes lists."""
    values = {"resolution": 128, "crops": 1, "flip": False, "seed": 0, "widest": 2.0, "empty_captions": False}
    lists = {name: [value] for name, value in (values | inputs).items() if not isinstance(value, list)}
    whole = {name: value for name, value in inputs.items() if isinstance(value, list)}
    dataset, report, sheet = ControlComposerDataset.execute(path=[path], condition=condition, **lists, **whole).result
    return dataset, report, sheet


def test_the_node_says_what_it_is() -> None:
    (node,) = NODES
    schema = node.define_schema()
    assert schema.category == "Control Composer/train" and schema.is_input_list
    assert schema.description and schema.search_aliases
    choice = next(entry for entry in schema.inputs if entry.id == "condition")
    nested = [entry for option in choice.options for entry in option.inputs]
    assert all(entry.tooltip for entry in [*schema.inputs, *schema.outputs, *nested])
    assert [option.key for option in choice.options] == [FROM_FOLDER, *(one.id for one in PREPROCESSORS)]


def test_a_folder_in_the_input_folder(tmp_path: Path, folders: list[torch.Tensor]) -> None:
    dataset, report, sheet = run("set")
    assert [example.name for example in dataset.examples] == ["0.png", "1.png", "2.png"]
    assert dataset.condition == "Canny" and dataset.parameters == {"low": 100, "high": 200}
    assert report == dataset.report() and report.startswith(
        "3 rows of 3 pictures\nhints: made by Canny (low 100, high 200)"
    )
    assert sheet.shape[0] == 1 and torch.equal(folders[0], sheet)
    row = dataset.row(0)
    assert torch.equal(row.hint, (canny(row.picture[None].float() / 255)[0] * 255).byte())
    (kept,) = (tmp_path / "output" / "control_composer" / "hints").iterdir()
    assert len(list(kept.rglob("*.png"))) == 3


def test_paths_as_people_paste_them(tmp_path: Path) -> None:
    for path in (f' "{tmp_path / "input" / "set"}" ', f"'{tmp_path / 'input' / 'set'}'\n", "./set"):
        assert len(run(path)[0]) == 3


def test_a_jsonl_file_with_hints(tmp_path: Path) -> None:
    write(tmp_path / "input" / "hints" / "0.png", noise(140, 130), None)
    lines = [{"target": "set/0.png", "source": "hints/0.png", "prompt": "x"}, {"target": "set/1.png", "prompt": "y"}]
    (tmp_path / "input" / "prompt.json").write_text("\n".join(map(json.dumps, lines)))
    dataset, report, _ = run("prompt.json", given())
    assert dataset.condition == "" and len(dataset) == 1
    assert "set/1.png: has no hint; give it one, or choose a preprocessor" in report
    assert len(run("prompt.json")[0]) == 2


def test_a_folder_of_hints_and_their_kind(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "input" / "hints" / f"{number}.png", noise(140, 130, number + 9), None)
    pictures = run("set", given("hints"), flip=True)[0]
    normals = run("set", given("hints", "normals"), flip=True)[0]
    assert not torch.equal(pictures.row(1).hint, normals.row(1).hint)
    with pytest.raises(TrainingError, match=r"^The setting 'flip' is on for hints that show poses"):
        run("set", given("hints", "pose"), flip=True)


def test_lists_of_the_host(tmp_path: Path) -> None:
    images = [torch.rand(2, 128, 128, 3), torch.rand(1, 132, 130, 4).half()]
    dataset, _, _ = run(images=images, texts=["a", "b", "c"])
    assert [example.caption for example in dataset.examples] == ["a", "b", "c"]
    with_hints, _, _ = run(condition=given(), images=images, texts=["a"], hints=[torch.rand(3, 128, 128, 3)])
    assert len(with_hints) == 3
    with pytest.raises(
        TrainingError, match=r"^The set of pictures has none that can be used: 'picture 1' has no caption"
    ):
        run(images=images)
    assert len(run(images=images, empty_captions=True)[0]) == 3


def test_inputs_that_contradict(tmp_path: Path) -> None:
    images = [torch.rand(1, 128, 128, 3)]
    expected = {
        "The input 'path' is empty, but a folder of pictures, a JSONL file or a folder of shards was expected; "
        "fill it in, or connect images.": {},
        "The input 'path' is 'set', but nothing was expected there, since images are connected; "
        "empty it, or disconnect the images.": {"path": "set", "images": images},
        "The input 'hints_path' is 'set', but nothing was expected there, since images are connected; "
        "empty it, or disconnect the images.": {"condition": given("set"), "images": images},
        "The input 'texts' is connected, but it was expected to be so only where images are; "
        "connect images too, or disconnect it.": {"path": "set", "texts": ["a"]},
        f"The folder of hints '{tmp_path / 'input' / 'set'}' is given beside '{tmp_path / 'input' / 'a.jsonl'}', but none was "
        "expected, since that says itself where its hints are; leave it out.": {
            "path": "a.jsonl",
            "condition": given("set"),
        },
    }
    (tmp_path / "input" / "a.jsonl").write_text('{"image": "set/0.png", "text": "x"}')
    for said, inputs in expected.items():
        with pytest.raises(TrainingError) as error:
            run(**inputs)
        assert str(error.value) == said


def test_networks_are_the_host_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "annotators").mkdir()
    write_annotator(BY_ID["HED"], tmp_path / "annotators")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(tmp_path / "annotators")], set()))
    hed = next(one for one in PREPROCESSORS if one.id == "HED")
    condition = condition_of(hed, {})
    hint = condition.annotate(torch.rand(1, 128, 192, 3))
    assert hint.shape == (1, 128, 192, 3) and float(hint.std()) > 0
    # Settings that are left out are the defaults.
    defaults = {parameter.id: parameter.default for parameter in hed.parameters}
    assert condition.key == condition_of(hed, defaults).key


def test_an_interruption_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def interrupt_after_the_first(value: int, *_: Any, **__: Any) -> None:
        seen.append(value)
        comfy.model_management.interrupt_current_processing(len(seen) == 1)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", interrupt_after_the_first)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run("set")
    assert seen == [0]
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, *_, **__: seen.append(value))
    run("set")
    assert seen[1] == 0 and seen[-1] == 3


def test_a_changed_file_makes_the_set_anew(tmp_path: Path) -> None:
    def told(path: str = "set", condition: dict[str, Any] = CANNY) -> str:
        return ControlComposerDataset.fingerprint_inputs(path=[path], condition=condition, resolution=[128])

    before = told()
    assert told() == before
    (tmp_path / "input" / "set" / "0.txt").write_text("other words")
    assert told() != before
    write(tmp_path / "input" / "hints" / "0.png", noise(140, 130), None)
    before = told(condition=given("hints"))
    write(tmp_path / "input" / "hints" / "1.png", noise(140, 130), None)
    assert told(condition=given("hints")) != before
    assert told("") == ""
    assert math.isnan(ControlComposerDataset.fingerprint_inputs(path=(None,), condition=CANNY))
