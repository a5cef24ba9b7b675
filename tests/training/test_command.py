"""The command of a training, started as accelerate starts its processes: on the demo world, from a folder of pictures to a file."""

import json
import os
import signal
import socket
import time
from dataclasses import replace

import pytest

pytest.importorskip("comfy")
pytest.importorskip("accelerate")
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from control_composer.demo.scenes import render, sample_scenes
from control_composer.evaluation.fidelity import MEASURES
from control_composer.preprocessors.canny import canny
from control_composer.tests import narrow
from control_composer.training.bases import load_base
from control_composer.training.cache import Cache
from control_composer.training.command import check
from control_composer.training.config import CopyConfig, read_config
from control_composer.training.errors import TrainingError
from control_composer.training.validation import read_scores

from .launched import launch


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Seven scenes of two shapes, their edges as hints, and an eighth that is broken."""
    folder = tmp_path_factory.mktemp("pictures")
    scenes = sample_scenes(7, 1)
    drawn = render(scenes)[:, ::2, ::2]
    hints = canny(drawn, low=50)
    for part in ("images", "hints"):
        (folder / part).mkdir()
    for number, caption in enumerate(scenes.captions()):
        for part, shown in (("images", drawn), ("hints", hints)):
            picture = (shown[number] * 255).round().byte().numpy()
            # Lower ones are cropped at the sides.
            picture = picture[8:-8] if number % 3 == 0 else picture
            Image.fromarray(picture).save(folder / part / f"{number}.png")
        (folder / "images" / f"{number}.txt").write_text(caption)
    (folder / "images" / "7.png").write_bytes(b"no picture")
    (folder / "images" / "7.txt").write_text("a red circle")
    (folder / "hints" / "7.png").write_bytes((folder / "hints" / "6.png").read_bytes())
    return folder


def told(folder, pictures, name, **settings):
    """Writes the file; its path."""
    config = {
        "base": "demo",
        "dataset": {"path": str(pictures / "images"), "hints": str(pictures / "hints"), "resolution": 64},
        "cache": f"{name} cache",
        "folder": name,
        "settings": {"steps": 4, "batch": 4, "rate": 1e-4, "warm_up": 0, "log_every": 1, "validate_every": 3}
        | settings,
        "copy": {"start": "gaussian"},
        "validation": {"rows": 1, "steps": 1, "condition": "Canny", "parameters": {"low": 50}},
        "save": f"{name}.safetensors",
        "dtype": "fp32",
        "about": {"licence": "CC0"},
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return path


def start(config, count=1):
    """`count` processes, each told what `accelerate launch` tells."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    main = "control_composer.training.__main__:main"
    return [launch(main, config, port=port, rank=rank, count=count) for rank in range(count)]


def ended(started):
    """Their exit codes."""
    return [process.wait(300) for process in started]


def losses(folder):
    return [float(line.split(",")[1]) for line in (folder / "losses.csv").read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, pictures):
    """A finished training in one process."""
    folder = tmp_path_factory.mktemp("alone")
    assert ended(start(told(folder, pictures, "one"))) == [0]
    return folder


def test_a_folder_of_pictures_becomes_a_control(alone):
    assert len(losses(alone / "one")) == 4
    with safe_open(alone / "one.safetensors", "pt") as file:
        about = file.metadata()
        assert about["base"] == "the demo world" and about["steps"] == "4" and about["licence"] == "CC0"
        assert about["condition"] == "Canny"
    weights = load_file(alone / "one.safetensors")
    assert weights["zero_convs.0.0.weight"].dtype == torch.float32
    steps, scores = read_scores(alone / "one")
    assert steps == [0, 3, 4] and all(0 <= score <= 1 for score in scores)
    assert MEASURES["Canny"].name in (alone / "one" / "validation.csv").read_text()
    assert len(list((alone / "one" / "validation").glob("*.png"))) == 3
    index = json.loads((alone / "one cache" / "index.json").read_text())
    assert sum(len(shard["rows"]) for shard in index["shards"]) == 7


def test_two_processes_prepare_and_learn_what_one_does(alone, pictures, tmp_path):
    assert ended(start(told(tmp_path, pictures, "two"), 2)) == [0, 0]
    shards = {path.name[:9] for path in (tmp_path / "two cache").glob("rows-*")}
    assert shards == {"rows-0000", "rows-0001"}
    assert losses(tmp_path / "two") == pytest.approx(losses(alone / "one"), rel=1e-5)
    assert len(losses(tmp_path / "two")) == 4
    one, two = load_file(alone / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    torch.testing.assert_close(one, two, rtol=0, atol=2e-5)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_a_stop_by_signal_goes_on_as_if_there_had_been_none(alone, pictures, tmp_path, capfd):
    config = told(tmp_path, pictures, "long", steps=200, save_every=1000, validate_every=0)
    started = start(config)
    table = tmp_path / "long" / "losses.csv"
    until = time.monotonic() + 120
    while not (table.is_file() and len(losses(table.parent)) >= 2):
        assert time.monotonic() < until
        time.sleep(0.05)
    started[0].send_signal(signal.SIGTERM)
    assert ended(started) == [128 + signal.SIGTERM]
    said = capfd.readouterr().out
    assert " of 200 steps; the same command goes on from there" in said
    assert "left out: '7.png' the picture" in said
    done = len(losses(table.parent))
    assert 2 <= done < 200 and not (tmp_path / "long.safetensors").exists()
    # Steps do not depend on how many are to come.
    assert ended(start(told(tmp_path, pictures, "long", steps=done + 2, validate_every=0))) == [0]
    assert len(losses(table.parent)) == done + 2
    assert losses(table.parent)[:4] == pytest.approx(losses(alone / "one")[: done + 2][:4], rel=1e-7)
    assert (tmp_path / "long.safetensors").is_file()


def test_a_mistake_is_said_in_one_sentence(pictures, tmp_path, capfd):
    path = told(tmp_path, pictures, "one")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base": "gone.safetensors"}))
    assert ended(start(path)) == [1]
    said = capfd.readouterr().err
    assert said.endswith(
        f"The base '{tmp_path / 'gone.safetensors'}' is not there, but 'demo' or the path of a checkpoint file was expected; correct 'base'.\n"
    )
    assert "Traceback" not in said


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "text.safetensors"
    path.write_text("no tensors")
    with pytest.raises(TrainingError) as raised:
        load_base(str(path))
    assert str(raised.value).startswith(f"The base '{path}' cannot be read (")
    assert str(raised.value).endswith(
        "), but a checkpoint file of Stable Diffusion 1, 2 or XL was expected; choose another file."
    )


def test_a_cache_of_another_base_or_another_hint_is_refused(alone, pictures, tmp_path):
    config = read_config(told(alone, pictures, "one"))
    data = Cache.open(config.cache)
    unet = narrow.make_model("sd1").model.diffusion_model
    with pytest.raises(TrainingError) as raised:
        check(data, unet, config)
    assert str(raised.value) == (
        f"The cache '{config.cache}' has texts of width 64, but 24 was expected, which the base reads; prepare it for this base, in another folder."
    )
    demo = load_base("demo").model.model.diffusion_model
    check(data, demo, config)
    with pytest.raises(TrainingError) as raised:
        check(data, demo, replace(config, copy=CopyConfig(hint_channels=4)))
    assert str(raised.value) == (
        f"The cache '{config.cache}' has hints of 3 channels, but 4 were expected, as 'hint_channels' says; set 'hint_channels' to 3."
    )
