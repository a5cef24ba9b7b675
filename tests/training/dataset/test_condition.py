"""Preprocessors by name, their networks from a folder, and the file that tells of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from control_composer.preprocessors import CANNY, PreprocessorError
from control_composer.preprocessors.annotators import BY_ID
from control_composer.preprocessors.hed import HED
from control_composer.preprocessors.networks.hed import HED as HedNetwork
from control_composer.preprocessors.networks.network import Network
from control_composer.training.dataset.annotator_folder import located, networks_from
from control_composer.training.dataset.condition import condition_from
from control_composer.training.dataset.shard_config import read_shard_config
from control_composer.training.dataset.sharded import ShardSettings
from control_composer.training.errors import TrainingError

CPU = torch.device("cpu")
PICTURE = torch.rand((1, 80, 96, 3), generator=torch.Generator().manual_seed(1))


def narrow_hed(seed: int = 0) -> HedNetwork:
    torch.manual_seed(seed)
    network = HedNetwork((2, 3, 4, 5, 6))
    return network.eval()


def test_the_condition_is_the_preprocessor() -> None:
    condition = condition_from("Canny", {"low": 50}, resolution=64, device=CPU)
    assert (condition.id, condition.parameters) == ("Canny", {"low": 50, "high": 200})
    assert torch.equal(condition.annotate(PICTURE), CANNY(PICTURE, 64, low=50))
    # What a default is told or not told makes no other condition.
    assert condition.key == condition_from("Canny", {"low": 50, "high": 200}, resolution=64, device=CPU).key


def test_networks_come_from_the_folder(tmp_path: Path) -> None:
    network = narrow_hed()
    save_file(network.state_dict(), tmp_path / "ControlNetHED.safetensors")
    condition = condition_from("HED", {}, annotators=tmp_path, device=CPU)
    expected = HED(PICTURE, 0, {"HED": Network(network, CPU, torch.float32)})
    assert torch.equal(condition.annotate(PICTURE), expected)


@pytest.mark.parametrize(("half", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_half_precision_only_where_it_does_no_harm(
    half: bool, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(narrow_hed().state_dict(), tmp_path / "ControlNetHED.safetensors")
    monkeypatch.setitem(BY_ID, "HED", replace(BY_ID["HED"], half=half))
    held = networks_from(tmp_path, ["HED"], CPU, torch.bfloat16)["HED"]
    assert held.dtype == dtype == next(held.module.parameters()).dtype


def test_where_files_lie(tmp_path: Path) -> None:
    hed, depth = BY_ID["HED"], next(one for one in BY_ID.values() if one.folder)
    assert located(hed, tmp_path) is None
    for name in ("ControlNetHED.pth", "ControlNetHED.safetensors"):
        (tmp_path / name).touch()
        assert located(hed, tmp_path) == tmp_path / name
    for folder in (tmp_path / depth.folder.split("/")[1], tmp_path / depth.folder):
        folder.mkdir(parents=True)
        for file in depth.files:
            assert located(depth, tmp_path) != folder
            (folder / file.name).touch()
        assert located(depth, tmp_path) == folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Cany", {}), "The condition is 'Cany', but one of Canny, PyramidCanny, "),
        (("Cany", {}), "; did you mean 'Canny'?"),
        (
            ("Canny", {"lo": 1}),
            "The parameter of Canny 'lo' is none, but one of low, high was expected; did you mean 'low'?",
        ),
        (
            ("Canny", {"low": 1.5}),
            "The parameter 'low' of Canny is 1.5, but a whole number from 0 to 255 was expected; change",
        ),
        (("Canny", {"low": 256}), "is 256, but a whole number from 0 to 255"),
        (("Canny", {"low": True}), "is True, but a whole number"),
        (("HED", {}), "The key 'annotators' is not told, but the weights of HED were expected"),
    ],
)
def test_what_cannot_be_is_told(arguments: tuple[str, dict[str, Any]], said: str) -> None:
    with pytest.raises(TrainingError) as caught:
        condition_from(*arguments, device=CPU)
    assert said in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError,
        match=r"The folder of annotators '.*' lacks 'ControlNetHED.pth', but the weights of HED were expected .*; fetch them with `python host.py "
        r"annotators download HED`, and name their folder",
    ):
        condition_from("HED", {}, annotators=tmp_path, device=CPU)


def test_what_the_preprocessor_refuses_is_known_at_once() -> None:
    with pytest.raises(PreprocessorError, match="resolution: found -1"):
        condition_from("Canny", {}, resolution=-1, device=CPU)


def told(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    content = {"pictures": "set", "shards": "out"} | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    return path


def test_the_file(tmp_path: Path) -> None:
    config = read_shard_config(
        told(tmp_path, condition="HED", annotators="/a", rows=7, resolution=512, device="cuda:1")
    )
    assert (config.pictures, config.shards) == (tmp_path / "set", tmp_path / "out")
    assert config.annotators == Path("/a") and config.hints is None
    assert config.settings == ShardSettings(rows=7, resolution=512)
    assert (config.condition, config.parameters, config.device, config.dtype) == ("HED", {}, "cuda:1", "fp32")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"picture": "x"}, "has the unknown key 'picture', but only pictures, shards, hints, condition, "),
        ({"picture": "x"}, "; did you mean 'pictures'?"),
        ({"shards": ...}, "has no 'shards', but one was expected; add it."),
        ({"hints": 5}, "has 'hints' 5, but a path in quotes was expected; change it."),
        ({"parameters": []}, "has 'parameters' [], but an object of names and values was expected"),
        ({"dtype": "fp8"}, "has 'dtype' \"fp8\", but fp32 or bf16 or fp16 was expected"),
        ({"device": "gpu"}, "has 'device' \"gpu\", but auto, cpu, cuda or cuda with a number was expected"),
        ({"device": "cpu:1"}, "has 'device'"),
        ({"empty_captions": 1}, "has 'empty_captions' 1, but true or false was expected"),
        ({"rows": 0}, "The setting 'rows' is 0, but a whole number from 1 to"),
    ],
)
def test_files_that_tell_nonsense(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        read_shard_config(told(tmp_path, **changes))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"), [("{", "cannot be read ("), ("[]", "holds no object, but keys and values in braces")]
)
def test_files_that_are_none(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(TrainingError) as caught:
        read_shard_config(tmp_path / "config.json")
    assert said in str(caught.value)
