"""The state of a training on disk, and what may happen while it is written."""

import errno
import multiprocessing
import os
import signal
import time

import pytest
import torch

from control_composer.training import checkpoint
from control_composer.training.checkpoint import NAME, State, load, save
from control_composer.training.ema import Average
from control_composer.training.errors import TrainingError

CPU = torch.device("cpu")


def made(step, size=10):
    """A state whose every number is its step."""
    values = torch.full((size,), float(step))
    return State(step, {"w": values}, {"w": values.clone()}, {"state": {0: {"m": values.clone()}}}, {}, values[:1], {})


def whole(state):
    tensors = [state.control["w"], state.average["w"], state.optimiser["state"][0]["m"]]
    return all((tensor == state.step).all() for tensor in tensors)


def test_what_is_saved_is_read_and_replaced(tmp_path):
    assert load(tmp_path / "none", CPU) is None
    for step in (3, 4):
        save(tmp_path / "new", made(step))
        state = load(tmp_path / "new", CPU)
        assert state.step == step and whole(state)
    assert os.listdir(tmp_path / "new") == [NAME]


class FullDisk:
    """A file on a disk that has room for `room` bytes more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 5000])
def test_a_full_disk_is_told_and_leaves_the_last_good_one(tmp_path, monkeypatch, room):
    save(tmp_path, made(1))
    written = checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", lambda file, content: written(FullDisk(file, room), content))
    with pytest.raises(TrainingError) as caught:
        save(tmp_path, made(2, size=10_000))
    text = str(caught.value)
    assert text.startswith(f"The state of the training after step 2 could not be written to '{tmp_path / NAME}' (")
    assert "(the one before is whole and stays); free some room, or choose another folder" in text
    assert os.listdir(tmp_path) == [NAME]
    assert whole(load(tmp_path, CPU)) and load(tmp_path, CPU).step == 1


@pytest.mark.skipif(os.name != "posix" or not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_device_that_is_really_full(tmp_path):
    save(tmp_path, made(1))
    (tmp_path / "training.unfinished").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match="could not be written"):
        save(tmp_path, made(2))
    assert load(tmp_path, CPU).step == 1


def keep_saving(folder, started):
    torch.set_num_threads(1)
    started.set()
    for step in range(1, 10**6):
        save(folder, made(step, size=1_000_000))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_kill_9_while_writing_loses_no_file(tmp_path):
    context = multiprocessing.get_context("fork")
    cut = 0
    for attempt in range(6):
        before = load(tmp_path, CPU)
        started = context.Event()
        process = context.Process(target=keep_saving, args=(tmp_path, started), daemon=True)
        process.start()
        assert started.wait(20)
        unfinished, ends = tmp_path / "training.unfinished", time.monotonic() + 20
        # Somewhere within a write, elsewhere in each attempt.
        while time.monotonic() < ends and (
            load_size(unfinished) <= attempt * 2_000_000 or not (tmp_path / NAME).is_file()
        ):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.join(20)
        cut += unfinished.exists()
        state = load(tmp_path, CPU)
        assert state is not None and whole(state)
        assert before is None or state.step >= 1
    assert cut >= 3


def load_size(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def test_other_files_are_refused(tmp_path):
    (tmp_path / NAME).write_bytes(b"no checkpoint at all")
    with pytest.raises(TrainingError) as caught:
        load(tmp_path, CPU)
    assert "the state of a training was expected; choose an empty folder to begin anew." in str(caught.value)
    torch.save({"step": 1}, tmp_path / NAME)
    with pytest.raises(TrainingError, match="cannot be read"):
        load(tmp_path, CPU)


def test_the_average_follows_and_is_taken_back():
    module = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0.0)
        average = Average(module, keep=0.5)
        module.weight.fill_(1.0)
    average.update(0)
    assert float(average.state()["weight"]) == pytest.approx(0.9)  # the first step keeps a tenth
    average.update(1000)
    assert float(average.state()["weight"]) == pytest.approx(0.95)
    with average.applied():
        assert module.weight.item() == pytest.approx(0.95)
    assert module.weight.item() == 1.0
    follows = Average(module, keep=0.0)
    with torch.no_grad():
        module.weight.fill_(3.0)
    follows.update(0)
    assert float(follows.state()["weight"]) == 3.0
