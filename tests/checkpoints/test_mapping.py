"""Weights stay in the file where they may: what that must not break."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("comfy")

import comfy.cli_args
import comfy.memory_management

from control_composer.checkpoints import CheckpointError, load_checkpoint, mapping, open_control

Save = Callable[..., Path]
NAME = "middle_block.0.in_layers.2.weight"


def is_mapped(tensor: Tensor, path: Path) -> bool:
    """Whether the tensor's memory is a map of the file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return line.endswith(str(path))
    return False


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever holds the temporary files counts as a file system of this machine."""
    monkeypatch.setattr(mapping, "file_system", lambda path: "ext4")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="maps are listed on Linux")
@pytest.mark.parametrize("where", ["here", "told not to", "over a network"])
def test_mapped_where_it_may(
    where: str, weights: dict[str, Tensor], save: Save, local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy.cli_args.args, "disable_mmap", where == "told not to")
    if where == "over a network":
        monkeypatch.setattr(mapping, "file_system", lambda path: "nfs4")
    path = save(weights)
    state = load_checkpoint(path).built.module.state_dict()
    assert is_mapped(state[NAME], path) == (where == "here")
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())


def test_writing_to_a_weight_leaves_the_file_and_other_networks(
    weights: dict[str, Tensor], save: Save, local: None
) -> None:
    """As the host does for hooks that patch weights in place."""
    path = save(weights)
    content = path.read_bytes()
    opened = open_control(path)
    first, second = opened.load().built.module, opened.load().built.module
    first.get_parameter(NAME).data.copy_(torch.zeros(weights[NAME].shape))
    assert not first.get_parameter(NAME).any()
    assert torch.equal(second.get_parameter(NAME), weights[NAME])
    assert path.read_bytes() == content


def test_a_file_replaced_or_deleted_while_its_network_lives(
    weights: dict[str, Tensor], save: Save, local: None
) -> None:
    path = save(weights)
    module = load_checkpoint(path).built.module
    os.replace(save({name: tensor + 1 for name, tensor in weights.items()}, "new.safetensors"), path)
    assert torch.equal(module.get_parameter(NAME), weights[NAME])
    assert torch.equal(load_checkpoint(path).built.module.get_parameter(NAME), weights[NAME] + 1)
    path.unlink()
    assert torch.equal(module.get_parameter(NAME), weights[NAME])


def test_a_file_changed_between_its_header_and_its_data(weights: dict[str, Tensor], save: Save) -> None:
    path = save(weights)
    opened = open_control(path)
    os.replace(save(weights, "new.safetensors"), path)
    with pytest.raises(CheckpointError, match=r"was changed while it was read.*complete safetensors file was expected"):
        opened.load()


def test_host_that_makes_its_weights_late(
    weights: dict[str, Tensor], save: Save, local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's dynamic memory leaves linear layers without weights until they are loaded."""
    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
    state: dict[str, Any] = load_checkpoint(save(weights)).built.module.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())
