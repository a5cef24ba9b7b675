"""The file of a training: what it may say, and what is said of mistakes in it."""

import json
import os
import signal

import pytest

from control_composer.training.config import CopyConfig, ValidationConfig, read_config
from control_composer.training.dataset.settings import DatasetSettings
from control_composer.training.errors import TrainingError
from control_composer.training.settings import Settings
from control_composer.training.stop import SIGNALS, StopSignal

LEAST = {"base": "demo", "cache": "cache", "folder": "run", "settings": {"steps": 10, "batch": 4}}


def written(at, /, **changes):
    path = at / "training.json"
    path.write_text(json.dumps(LEAST | changes), encoding="utf-8")
    return path


def test_the_least_that_has_to_be_said(tmp_path):
    config = read_config(written(tmp_path))
    assert config.base == "demo"
    assert (config.cache, config.folder, config.save) == (tmp_path / "cache", tmp_path / "run", None)
    assert config.settings == Settings(steps=10, batch=4)
    assert (config.copy, config.validation, config.dataset) == (CopyConfig(), ValidationConfig(), None)
    assert (config.layout, config.dtype, config.about) == ("cldm", "fp16", {})


def test_everything_that_can_be_said(tmp_path):
    (tmp_path / "jobs").mkdir()
    path = written(
        tmp_path / "jobs",
        base="../models/base.safetensors",
        folder=str(tmp_path / "elsewhere"),
        settings={"steps": 3, "batch": 2, "betas": [0.8, 0.9], "min_snr": None, "precision": "bf16"},
        copy={"hint_channels": 4, "start": "gaussian", "form": "copy", "seed": 5},
        dataset={"path": "shards", "hints": "hints", "resolution": 256, "flip": True, "crops": 2},
        validation={
            "rows": 0,
            "seed": 1,
            "steps": 5,
            "guidance": 1.5,
            "condition": "HED",
            "parameters": {"safe": True},
            "annotators": "models",
        },
        save="control.safetensors",
        layout="diffusers",
        dtype="fp32",
        about={"licence": "CC0", "version": 2},
    )
    config = read_config(path)
    assert config.base == str(tmp_path / "models" / "base.safetensors")
    assert config.folder == tmp_path / "elsewhere"
    assert config.settings.betas == (0.8, 0.9)
    assert config.copy == CopyConfig(4, "gaussian", "copy", 5)
    assert config.dataset.path == tmp_path / "jobs" / "shards"
    assert config.dataset.hints == tmp_path / "jobs" / "hints"
    assert config.dataset.settings == DatasetSettings(resolution=256, flip=True, crops=2)
    models = tmp_path / "jobs" / "models"
    assert config.validation == ValidationConfig(0, 1, 5, 1.5, "HED", {"safe": True}, models)
    assert config.save == tmp_path / "jobs" / "control.safetensors"
    assert (config.layout, config.dtype, config.about) == ("diffusers", "fp32", {"licence": "CC0", "version": "2"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"setings": {}}, "has the unknown key 'setings', but only 'base', 'cache', 'folder', "),
        ({"setings": {}}, " were expected there; call it 'settings'."),
        ({"settings": {"steps": 1, "batch": 1, "rat": 1}}, "has the unknown key 'rat' in 'settings'"),
        ({"settings": {"steps": 1}}, "has no 'batch' in 'settings', but one was expected; add it."),
        ({"dataset": {"path": "x", "size": 3}}, "the unknown key 'size' in 'dataset', but only 'path', 'resolution'"),
        ({"dataset": {"resolution": 64}}, "has no 'path' in 'dataset', but one was expected; add it."),
        ({"settings": {"steps": 1, "batch": 1, "rate": "high"}}, "has a value of the wrong kind in 'settings' ("),
        ({"settings": 3}, "has int 3 in 'settings', but an object of keys and values was expected; write it in braces."),
        ({"folder": 3}, "has 'folder' 3, but a path was expected; write one in quotes."),
        ({"layout": "a1111"}, "has 'layout' 'a1111', but cldm or diffusers was expected; change it."),
        ({"copy": {"start": "one"}}, "has 'start' 'one', but zero or gaussian was expected; change it."),
        ({"validation": {"rows": -1}}, "has 'rows' -1, but a whole number from 0 was expected; change it."),
        ({"validation": {"steps": True}}, "has 'steps' True, but a whole number from 1 was expected; change it."),
        (
            {"copy": {"form": "lite"}, "save": "x.safetensors"},
            "has 'save' beside the form 'lite', but a copy of an encoder was expected, since no other program reads a lite control; remove 'save' "
            "or use the form 'copy'.",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path, changes, message):
    path = written(tmp_path, **changes)
    with pytest.raises(TrainingError) as raised:
        read_config(path)
    assert str(raised.value).startswith(f"The file '{path}' has ")
    assert message in str(raised.value)


def test_values_that_cannot_be_are_named(tmp_path):
    with pytest.raises(TrainingError, match=r"^The setting 'steps' is 0, but a whole number from 1 was expected"):
        read_config(written(tmp_path, settings={"steps": 0, "batch": 1}))


def test_a_file_that_is_none_is_said(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(
        TrainingError, match=r"cannot be read \(.*No such file.*\), but a JSON file was expected; correct it\.$"
    ):
        read_config(path)
    path.write_text("{")
    with pytest.raises(TrainingError, match=r"cannot be read \(.+\), but a JSON file was expected; correct it\.$"):
        read_config(path)
    path.write_text("[]")
    with pytest.raises(TrainingError, match=r"has list \[\] as a whole, but an object of keys and values was expected"):
        read_config(path)


def test_the_first_signal_asks_and_the_second_does_what_it_did_before():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append("the one before"))
    try:
        stop = StopSignal()
        stop.listen()
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop() and stop.status == 128 + signal.SIGTERM and not heard
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ["the one before"]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
