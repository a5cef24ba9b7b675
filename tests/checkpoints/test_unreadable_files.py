"""Files that cannot be read at all, or must not be, are refused in one sentence, and nothing is allocated or executed for them."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from control_composer.checkpoints.errors import CodeInFileError, IncompleteError, UnreadableFileError
from control_composer.tests.checkpoints.refusals import Save, refusal


def test_text_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_text("Put your ControlNets here.\n")
    assert refusal(path, UnreadableFileError) == (
        "'notes.safetensors' is a text file, but a weights file (.safetensors .pth .pt .ckpt .bin) was expected; choose the weights "
        "file that it belongs to."
    )


def test_web_page(tmp_path: Path) -> None:
    path = tmp_path / "control.pth"
    path.write_text("\n<!DOCTYPE html><html>Sign in</html>")
    assert "is a web page, but" in refusal(path, UnreadableFileError)


def test_git_lfs_pointer(tmp_path: Path) -> None:
    path = tmp_path / "control.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1445157124\n")
    assert "is only a Git LFS pointer, but" in refusal(path, UnreadableFileError)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    path.write_bytes(b"")
    assert refusal(path, UnreadableFileError) == (
        "'empty.safetensors' is empty, but a weights file (.safetensors .pth .pt .ckpt .bin) was expected; download it again."
    )


def test_absent_file_and_folder(tmp_path: Path) -> None:
    assert "cannot be opened" in refusal(tmp_path / "none.safetensors", UnreadableFileError)
    assert "is a folder" in refusal(tmp_path, UnreadableFileError)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_cut_off_safetensors(share: float, weights: dict[str, Tensor], save: Save) -> None:
    path = save(weights)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    text = refusal(path, UnreadableFileError)
    assert re.search(r"is cut off (inside its header )?\([\d,]+ of (at least )?[\d,]+ bytes", text)
    assert text.endswith("but a complete safetensors file was expected; download or save it again.")


def test_header_of_absurd_size(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b'{"a":')
    assert "claims a header of 4,611,686,018,427,387,904 bytes" in refusal(path, UnreadableFileError)


def test_tensors_of_absurd_size_allocate_nothing(tmp_path: Path) -> None:
    size = 2**50
    entry = {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}
    header = json.dumps({"zero_convs.0.0.weight": entry, "input_hint_block.0.weight": entry}).encode()
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert "is cut off (0 of 4,503,599,627,370,496 bytes" in refusal(path, UnreadableFileError)


def test_shapes_that_would_make_a_huge_network_are_refused_before_it_is_built(
    weights: dict[str, Tensor], save: Save
) -> None:
    # 2^20 channels in a tensor of 4 MB: the network that follows from it would take terabytes.
    weights["input_blocks.1.0.out_layers.3.weight"] = torch.zeros(2**20, 1, 1, 1)
    refusal(save(weights), IncompleteError)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_carries_code(zipped: bool, tmp_path: Path) -> None:
    trap = tmp_path / "it_ran"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch '{trap}'",)

    path = tmp_path / "trap.pth"
    content = {"state_dict": {"zero_convs.0.0.weight": torch.zeros(1), "epoch": Payload()}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    name = f"{os.system.__module__}.system"
    assert refusal(path, CodeInFileError) == (
        f"'trap.pth' asks to run code ('{name}') when it is opened, and was not opened, but a file of tensors was expected; get a "
        ".safetensors version of it, and trust its source before you open it anywhere else."
    )
    assert not trap.exists()
    # The payload works: an ordinary unpickler would have run it.
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.loads({pickle.dumps(Payload())!r})"], check=True)
    assert trap.exists()


def test_bare_pickle_of_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("ran",)

    path = tmp_path / "trap.ckpt"
    path.write_bytes(pickle.dumps({"a": Payload()}, protocol=2))
    assert "holds objects" in refusal(path, CodeInFileError) or "asks to run code" in refusal(path, CodeInFileError)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_cut_off_torch_file(share: float, weights: dict[str, Tensor], save: Save) -> None:
    path = save(weights, "control.pth")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refusal(path, UnreadableFileError) == (
        "'control.pth' is damaged or cut off, but a file of tensors was expected; download it again, best as .safetensors."
    )


def test_view_that_claims_more_than_it_holds(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "control.pth"
    torch.save({**weights, "zero_convs.0.0.weight": torch.zeros(1).expand(2**20, 2**20)}, path)
    text = refusal(path, UnreadableFileError)
    assert "claims more numbers for the tensor 'zero_convs.0.0.weight' than it holds" in text


def test_torch_file_without_tensors(tmp_path: Path) -> None:
    path = tmp_path / "control.pth"
    torch.save({"state_dict": {"epoch": 3}}, path)
    assert "holds no named tensors" in refusal(path, UnreadableFileError)
