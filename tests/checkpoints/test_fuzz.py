"""Damaged files: our error or a sound match, never another exception, never what the header claims."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from control_composer.checkpoints import CheckpointError, Opened, open_control
from control_composer.checkpoints.load import read_weights

MUTATIONS = 400
STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, 1e300, "", "F32", "Q4", [], [1], [0, 2**62], [2**40, 2**40], {}, {"a": 1}, "x" * 5000,
)  # fmt: skip


def try_to_load(path: Path) -> Opened | None:
    try:
        opened = open_control(path)
        read_weights(opened.checkpoint, opened.match)
    except CheckpointError as error:
        assert len(str(error)) < 2000
        return None
    return opened


@pytest.fixture
def content(weights: dict[str, Tensor], save: Callable[..., Path]) -> bytes:
    return save({name: tensor.half() for name, tensor in weights.items()}).read_bytes()


def test_random_bytes_of_the_header(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fuzzed.safetensors"
    dice = random.Random(0)
    header_end = 8 + struct.unpack("<Q", content[:8])[0]
    refused = 0
    for _ in range(MUTATIONS):
        mutated = bytearray(content)
        for _ in range(dice.choice((1, 1, 2, 8))):
            mutated[dice.randrange(header_end)] = dice.randrange(256)
        path.write_bytes(mutated)
        refused += try_to_load(path) is None
    assert refused > MUTATIONS / 2


def test_strange_values_in_the_header(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fuzzed.safetensors"
    dice = random.Random(1)
    header_end = 8 + struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8:header_end]), content[header_end:]
    for _ in range(MUTATIONS):
        mutated = json.loads(json.dumps(header))
        for name in dice.sample(sorted(mutated), dice.choice((1, 1, 3))):
            where = dice.choice(("entry", "dtype", "shape", "data_offsets", "element", "name", "gone"))
            value = dice.choice(STRANGE)
            if where == "entry":
                mutated[name] = value
            elif where == "name":
                mutated[str(value)] = mutated.pop(name)
            elif where == "gone" or name == "__metadata__":
                del mutated[name]
            elif where == "element":
                mutated[name]["shape"][dice.randrange(len(mutated[name]["shape"]))] = value
            else:
                mutated[name][where] = value
        text = json.dumps(mutated).encode()
        if text == json.dumps(header).encode():
            continue
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)
        assert try_to_load(path) is None, mutated


def test_deeply_nested_header(tmp_path: Path) -> None:
    path = tmp_path / "nested.safetensors"
    text = b'{"a":' * 100_000
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    assert try_to_load(path) is None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_bytes_of_a_torch_file(weights: dict[str, Tensor], save: Callable[..., Path]) -> None:
    small = {name: tensor for name, tensor in weights.items() if tensor.ndim == 1}
    path = save(small, "fuzzed.pth")
    content = path.read_bytes()
    dice = random.Random(2)
    for _ in range(MUTATIONS):
        mutated = bytearray(content)
        # Names and structure stand at both ends of the archive.
        for _ in range(dice.choice((1, 4))):
            place = dice.choice((dice.randrange(min(len(content), 20_000)), -1 - dice.randrange(20_000)))
            mutated[place] = dice.randrange(256)
        path.write_bytes(mutated)
        assert try_to_load(path) is None
