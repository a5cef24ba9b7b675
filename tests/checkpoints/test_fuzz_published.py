"""Damaged headers of the public files of every family, and pickles made to harm: our error or a sound match, within a bounded memory."""

from __future__ import annotations

import json
import pickle
import random
import resource
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from control_composer.checkpoints import CheckpointError, open_control
from control_composer.checkpoints.canonical import canonical
from control_composer.checkpoints.detect import detect
from control_composer.checkpoints.tensors import Checkpoint, TensorInfo

FOLDER = Path(__file__).parent / "published"
FILES = sorted(path.stem for path in FOLDER.glob("*.json"))
MUTATIONS, BYTE_MUTATIONS = 60, 12
SIZES = (0, 1, 2, 3, 5, 7, 64, 320, 321, 768, 2**20, 2**40)
PARTS = (
    "0",
    "00",
    "7",
    "99999",
    "9" * 5000,
    "²",
    "",
    "up",
    "down",
    "weight",
    "body",
    "\0",
    "\ud7ff",
    "transformer_blocks",
)
ROOM = 2**30


@contextmanager
def bounded(room: int = ROOM) -> Iterator[None]:
    """At most this much more memory may be asked for, used or not."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def shapes_of(name: str) -> tuple[dict[str, list[int]], dict[str, Any]]:
    content = json.loads((FOLDER / f"{name}.json").read_text())
    found: dict[str, list[int]] = {}

    def walk(tree: dict[str, Any], prefix: str) -> None:
        for key, inside in tree.items():
            if isinstance(inside, dict):
                walk(inside, f"{prefix}{key}.")
            else:
                found[prefix + key] = inside

    walk(content["tensors"], "")
    return found, content


def nothing(*_: Any) -> Any:
    raise AssertionError("detection reads no weights")


def mutate(shapes: dict[str, list[int]], dice: random.Random) -> None:
    names = list(shapes)
    # What tells hyperparameters stands at the ends, and in few names; chance alone would seldom meet it.
    for name in dice.sample(names, min(len(names), dice.choice((1, 2, 5, 50)))):
        how = dice.choice(("size", "size", "rank", "gone", "name", "more"))
        shape = list(shapes[name])
        if how == "size" and shape:
            shape[dice.randrange(len(shape))] = dice.choice(SIZES)
            shapes[name] = shape
        elif how == "rank":
            shapes[name] = dice.choice(([], shape[:-1], [*shape, 1], [1, *shape], shape * 8))
        elif how == "gone":
            del shapes[name]
        else:
            parts = name.split(".")
            parts[dice.randrange(len(parts))] = dice.choice(PARTS)
            shapes[".".join(parts)] = shape
            if how == "name":
                shapes.pop(name, None)


def refused(checkpoint: Checkpoint) -> bool:
    try:
        detect(canonical(checkpoint))
    except CheckpointError as error:
        assert len(str(error)) < 2000 and "\n" not in str(error)
        return True
    return False


@pytest.mark.parametrize("name", FILES)
def test_other_names_and_shapes(name: str) -> None:
    shapes, content = shapes_of(name)
    dtype, dice, count = getattr(torch, content["dtype"]), random.Random(name), 0
    with bounded():
        for _ in range(MUTATIONS):
            mutated = dict(shapes)
            mutate(mutated, dice)
            tensors = {key: TensorInfo(key, tuple(shape), dtype) for key, shape in mutated.items()}
            count += refused(Checkpoint(Path(content["file"]), tensors, {}, nothing))
    assert count > MUTATIONS / 3


@pytest.mark.parametrize("name", FILES)
def test_damaged_bytes(name: str, tmp_path: Path) -> None:
    """The file has its real size on paper: its data is a hole."""
    shapes, content = shapes_of(name)
    size, place, header = getattr(torch, content["dtype"]).itemsize, 0, {}
    kind = {4: "F32", 2: "F16"}[size]
    for key, shape in shapes.items():
        end = place + size * int(torch.Size(shape).numel())
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    path, dice = tmp_path / "control.safetensors", random.Random(name)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with path.open("r+b") as file, bounded():
        file.truncate(8 + len(text) + place)
        for _ in range(BYTE_MUTATIONS):
            where = dice.choice(
                (dice.randrange(8), 8 + dice.randrange(len(text)), 8 + dice.randrange(min(len(text), 400)))
            )
            file.seek(where)
            before = file.read(1)
            file.seek(where)
            file.write(bytes([dice.randrange(256)]))
            file.flush()
            try:
                open_control(path)
            except CheckpointError as error:
                assert len(str(error)) < 2000
            file.seek(where)
            file.write(before)


def zipped(path: Path, program: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data/0", bytes(64))


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def call(module: str, name: str, arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + arguments + b"R"


LARGE = 2**62
STORAGE = (
    b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + pickle.dumps(LARGE, 2)[2:-1] + b"tQ"
)
REBUILD = b"(" + STORAGE + b"K\x00(" + pickle.dumps(2**40, 2)[2:-1] + b"t(K\x01t\x89ccollections\nOrderedDict\n)Rt"
PROGRAMS = {
    "a text as long as it says": b"\x80\x02\x8d" + struct.pack("<Q", LARGE) + b"x.",
    "bytes as long as they say": b"\x80\x03B" + struct.pack("<I", 2**32 - 1) + b"x.",
    "a number of many bytes": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "a far place of the memo": b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",
    "nested tuples": b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b".",
    "nested lists": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "nothing on the stack": b"\x80\x02" + b"0" * 10 + b".",
    "no end": b"\x80\x02}",
    "a block of memory": b"\x80\x02}" + text("a") + call("builtins", "bytearray", b"(" + pickle.dumps(2**33, 2)[2:-1] + b"t") + b"s.",
    "a storage larger than the file": b"\x80\x02}" + text("a") + call("torch._utils", "_rebuild_tensor_v2", REBUILD) + b"s.",
    "a command": b"\x80\x02}" + text("a") + call("os", "system", b"(" + text("true") + b"t") + b"s.",
    "code": b"\x80\x02}" + text("a") + call("builtins", "eval", b"(" + text("1") + b"t") + b"s.",
}  # fmt: skip


@pytest.mark.parametrize("kind", PROGRAMS)
@pytest.mark.parametrize("container", ["zip", "bare"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pickles_made_to_harm(kind: str, container: str, tmp_path: Path) -> None:
    path = tmp_path / "trap.pth"
    if container == "zip":
        zipped(path, PROGRAMS[kind])
    else:
        path.write_bytes(PROGRAMS[kind])
    with bounded(), pytest.raises(CheckpointError) as caught:
        open_control(path)
    assert len(str(caught.value)) < 2000
    if kind == "a block of memory":  # which would be filled, so that no limit but the machine's end stops it
        assert "asks for a block of memory ('bytearray') when it is opened, and was not opened" in str(caught.value)
