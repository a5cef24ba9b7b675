"""The condition maker in many processes: the same shards however many there are, whenever they end."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from control_composer.preprocessors import CANNY, PreprocessorError
from control_composer.training.dataset import sharded
from control_composer.training.dataset.__main__ import run
from control_composer.training.dataset.dataset import ConditionDataset
from control_composer.training.dataset.hints import Condition
from control_composer.training.dataset.pictures import read_picture
from control_composer.training.dataset.settings import DatasetSettings
from control_composer.training.dataset.shard_config import read_shard_config
from control_composer.training.dataset.sharded import ShardMaker, ShardSettings, share_of_environment
from control_composer.training.dataset.sources import from_folder, from_shards
from control_composer.training.errors import TrainingError
from control_composer.training.stop import StopSignal

ROOT = Path(__file__).resolve().parents[3]
COMMAND = (
    "import sys, types, runpy\n"
    "package = types.ModuleType('control_composer'); package.__path__ = [sys.argv.pop(1)]\n"
    "sys.modules['control_composer'] = package\n"
    "runpy.run_module('control_composer.training.dataset', run_name='__main__', alter_sys=True)"
)


def pictures(folder: Path, count: int = 11, hints: Path | None = None) -> Path:
    """Noisy pictures with captions, of several kinds and sizes; number 4 is broken, 6 has no caption."""
    chance = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        suffix = (".png", ".jpg", ".webp")[number % 3]
        shape = (48 + number, 64, 3)
        path = folder / f"{number:03d}{suffix}"
        Image.fromarray(chance.integers(0, 255, shape, dtype=np.uint8)).save(path)
        path.with_suffix(".txt").write_text("" if number == 6 else f"picture {number}")
        if hints is not None:
            hints.mkdir(exist_ok=True)
            Image.fromarray(chance.integers(0, 255, shape, dtype=np.uint8)).save(hints / f"{number:03d}.png")
    (folder / "004.jpg").write_bytes((folder / "004.jpg").read_bytes()[:300])
    return folder


def inverted(image_bhwc: Tensor) -> Tensor:
    return 1 - image_bhwc


def condition(annotate: Callable[[Tensor], Tensor] = inverted) -> Condition:
    return Condition("Invert", annotate, {"how": "all"})


def maker(folder: Path, target: Path, annotate: Callable[[Tensor], Tensor] = inverted, rows: int = 4) -> ShardMaker:
    return ShardMaker(from_folder(folder), target, condition(annotate), ShardSettings(rows=rows))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("set") / "pictures")


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes without a stop."""
    target = tmp_path_factory.mktemp("whole") / "shards"
    assert maker(folder, target).make()
    return target


def test_a_set_of_shards_is_a_set_to_train_on(folder: Path, whole: Path) -> None:
    found = from_shards(whole)
    assert [one.name for one in found.examples] == [
        f"{n:03d}{('.png', '.jpg', '.webp')[n % 3]}" for n in (0, 1, 2, 3, 5, 7, 8, 9, 10)
    ]
    assert [(one.name, one.what.split(" (")[0]) for one in found.problems] == [
        ("004.jpg", "the picture cannot be read"),
        ("006.png", "has no caption; write one, or allow empty captions"),
    ]
    for example in found.examples:
        path = folder / example.name
        assert example.picture.read() == path.read_bytes()  # type: ignore[union-attr]
        picture, hint = read_picture(example.picture), read_picture(example.hint)  # type: ignore[arg-type]
        assert np.array_equal(np.asarray(hint), 255 - np.asarray(picture))
    dataset = ConditionDataset(found, DatasetSettings(resolution=64))
    assert dataset.problems == found.problems and len(dataset) == 9
    assert dataset.row(3).caption == "picture 3"


def test_what_was_left_out_is_listed(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "problems.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["004.jpg", "006.png"]
    told = json.loads((whole / "set.json").read_text())
    assert (told["condition"], told["parameters"]) == ("Invert", {"how": "all"})
    assert (told["examples"], told["shards"], told["rows"]) == (11, 3, 4)


@pytest.mark.parametrize("count", [2, 5])
def test_many_processes_make_what_one_makes(count: int, folder: Path, whole: Path, tmp_path: Path) -> None:
    for index in reversed(range(count)):
        own = maker(folder, tmp_path)
        before = set(content(tmp_path))
        assert own.make((index, count)) and own.missing((index, count)) == []
        made = {name for name in set(content(tmp_path)) - before if name.endswith(".tar")}
        assert made == {f"shard-{n:06d}.tar" for n in range(index, 3, count)}
        assert ("problems.jsonl" in content(tmp_path)) == (index == 0)
    assert content(tmp_path) == content(whole)


def test_one_that_is_asked_to_stop_goes_on_later(folder: Path, whole: Path, tmp_path: Path) -> None:
    made = []

    def slow(image_bhwc: Tensor) -> Tensor:
        made.append(1)
        return inverted(image_bhwc)

    assert not maker(folder, tmp_path, slow).make(should_stop=lambda: len(made) >= 5)
    assert sorted(content(tmp_path)) == ["set.json", "shard-000000.json", "shard-000000.tar"]
    assert len(made) == 5
    assert maker(folder, tmp_path, slow).make()
    # The second shard's two again, and the rest; two of the eleven give no hint.
    assert len(made) == 5 + 9 - 4
    assert content(tmp_path) == content(whole)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process that is killed is made by a fork")
def test_kill_at_any_moment_loses_no_shard(folder: Path, whole: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    expected = content(whole)

    def slow(image_bhwc: Tensor) -> Tensor:
        time.sleep(0.003)
        return inverted(image_bhwc)

    kept: set[str] = set()
    for _ in range(8):
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            maker(folder, tmp_path, slow, rows=4).make()
            os._exit(0)
        time.sleep(chance.uniform(0.01, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        there = content(tmp_path)
        assert kept <= set(there)
        for name in there:
            assert name.endswith(".unfinished") or there[name] == expected[name]
            if name.endswith(".json") and name.startswith("shard"):
                assert name.replace(".json", ".tar") in there
                kept |= {name}
    assert maker(folder, tmp_path).make()
    assert content(tmp_path) == expected


def config(folder: Path, target: Path, **changes: object) -> Path:
    path = target.parent / "config.json"
    told = {"pictures": str(folder), "shards": target.name, "condition": "Canny", "rows": 4} | changes
    path.write_text(json.dumps(told))
    return path


def test_the_command_goes_on_after_a_kill(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first of two processes, killed after its first shard."""
    target = tmp_path / "shards"
    path = config(folder, target, parameters={"low": 50}, resolution=32, rows=2)
    variables = os.environ | {"RANK": "0", "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(ROOT), str(path)], env=variables, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert "process 1 of 2: 3 of 6 shards to make, 11 examples in all" in first.stdout.readline()
        assert "shard 0: 2 examples, 0 left out" in first.stdout.readline()
        first.kill()
    with caplog.at_level("INFO"):
        for index in (1, 0):
            assert run(read_shard_config(path), (index, 2), StopSignal())
    assert "all 6 shards are there; what was left out is listed in" in caplog.messages[-1]
    assert "process 2 of 2: 3 of 6 shards to make" in caplog.messages[0]
    found = from_shards(target)
    assert len(found.examples) == 9 and len(found.problems) == 2
    for example in found.examples:
        image = np.array(Image.open(folder / example.name).convert("RGB"))
        expected = CANNY(torch.from_numpy(image)[None].float() / 255, 32, low=50)[0]
        hint = read_picture(example.hint)  # type: ignore[arg-type]
        assert min(hint.size) == 32
        assert np.array_equal(np.asarray(hint), (expected * 255).byte().numpy())


def test_what_no_shard_could_hold_is_told_too(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures", 7)
    (folder / "000.webp").write_bytes((folder / "002.webp").read_bytes())
    own = maker(folder, tmp_path / "shards")
    assert own.make() and len(own.found.problems) == 2
    told = from_shards(tmp_path / "shards").problems
    assert told[:2] == own.found.problems
    listed = (tmp_path / "shards" / "problems.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in listed] == [problem.name for problem in told]
    assert [problem.name for problem in told[2:]] == ["004.jpg", "006.png"]


def test_hints_that_came_with_the_pictures_are_copied(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures", 7, tmp_path / "hints")
    Image.new("RGB", (10, 100)).save(tmp_path / "hints" / "005.png")
    (tmp_path / "hints" / "003.png").write_bytes(b"no picture")
    own = ShardMaker(from_folder(folder, tmp_path / "hints"), tmp_path / "shards", None)
    assert own.make()
    found = from_shards(tmp_path / "shards")
    assert [example.name for example in found.examples] == ["000.png", "001.jpg", "002.webp"]
    for example in found.examples:
        assert example.hint.read() == (tmp_path / "hints" / example.name).with_suffix(".png").read_bytes()  # type: ignore[union-attr]
    whats = {problem.name: problem.what for problem in found.problems}
    assert whats["005.webp"].startswith("the hint has 10 x 100 pixels, another shape than the picture's 64 x 53")
    assert whats["003.png"] == "the hint is no picture file that can be read"
    # And shards become other shards.
    again = ShardMaker(from_shards(tmp_path / "shards"), tmp_path / "again", condition())
    assert again.make()
    assert [one.name for one in from_shards(tmp_path / "again").examples] == ["000.png", "001.jpg", "002.webp"]


def test_a_picture_that_a_preprocessor_refuses_is_left_out(folder: Path, tmp_path: Path) -> None:
    def picky(image_bhwc: Tensor) -> Tensor:
        if image_bhwc.shape[1] == 50:
            raise PreprocessorError("found no face;\n take another")
        if image_bhwc.shape[1] == 51:
            raise RuntimeError("Kernel size can't be greater than actual input size")
        return image_bhwc.mean(3, keepdim=True)

    assert maker(folder, tmp_path, picky).make()
    whats = {problem.name: problem.what for problem in from_shards(tmp_path).problems}
    assert whats["002.webp"] == "gave no hint (found no face; take another)"
    assert whats["003.png"].startswith("gave no hint (Kernel size")
    for example in from_shards(tmp_path).examples:
        assert Image.open(io.BytesIO(example.hint.read())).mode == "L"  # type: ignore[union-attr]


def test_what_no_other_picture_would_mend_ends_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(image_bhwc: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        maker(folder, tmp_path / "one", full).make()

    def never(image_bhwc: Tensor) -> Tensor:
        raise PreprocessorError("no")

    monkeypatch.setattr(sharded, "HOPELESS", 4)
    with pytest.raises(
        TrainingError, match=r"Shard 0 would hold none of its 4 pictures \(the first: '000.png' gave no hint"
    ):
        maker(folder, tmp_path / "two", never).make()
    assert sorted(content(tmp_path / "two")) == ["set.json"]
    # Fewer than that may all be broken.
    monkeypatch.setattr(sharded, "HOPELESS", 5)
    assert maker(folder, tmp_path / "three", never).make()
    assert len(from_shards(tmp_path / "three").problems) == 11


def test_a_folder_belongs_to_one_set(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    maker(folder, target)
    for other in (
        lambda: maker(folder, target, rows=5),
        lambda: ShardMaker(from_folder(folder), target, None, ShardSettings(rows=4)),
        lambda: ShardMaker(from_folder(folder), target, Condition("Invert", inverted), ShardSettings(rows=4)),
    ):
        with pytest.raises(
            TrainingError,
            match="was begun with other pictures or settings, but the same were expected; choose an empty",
        ):
            other()
    assert maker(folder, target).count == 3
    (target / "set.json").write_text("[]")
    with pytest.raises(TrainingError, match=r"cannot be used .*; choose another, or mend"):
        maker(folder, target)


def test_a_changed_picture_is_another_set(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures")
    maker(folder, tmp_path / "shards")
    os.utime(folder / "001.jpg", (1, 1))
    with pytest.raises(TrainingError, match="was begun with other pictures"):
        maker(folder, tmp_path / "shards")


@pytest.mark.parametrize("changes", [{"rows": 0}, {"rows": 1.5}, {"resolution": -1}, {"rows": True}])
def test_settings_that_cannot_be(changes: dict[str, int]) -> None:
    with pytest.raises(TrainingError, match=r"The setting '\w+' is .*, but a whole number from \d to \d+ was expected"):
        ShardSettings(**changes)


def test_the_launcher_tells_the_share() -> None:
    assert share_of_environment({}) == (0, 1)
    assert share_of_environment({"RANK": "3", "WORLD_SIZE": "8"}) == (3, 8)
    assert share_of_environment({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}) == (1, 2)
    assert share_of_environment({"RANK": "3"}) == (0, 1)
