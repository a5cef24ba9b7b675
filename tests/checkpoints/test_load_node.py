"""The node on a real host: what it lists, shows, caches and refuses."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("comfy")

import comfy.model_patcher
import comfy.supported_models_base
import folder_paths
import safetensors.torch
from comfy.t2i_adapter.adapter import Adapter

from control_composer.checkpoints.errors import BadWeightsError, BaseMismatchError, PoolingError, UnionTypeError
from control_composer.nodes.load import NETWORKS, ControlComposerLoad, resolve_pooling
from control_composer.tests.checkpoints.lllite_reference import random_lllite
from control_composer.tests.control.case_lllite import modules

Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def controlnet_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The host lists this test's folder, and only it."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "controlnet", ([str(tmp_path)], {".safetensors", ".pth"}))
    folder_paths.filename_list_cache.clear()
    yield
    folder_paths.filename_list_cache.clear()


def model_of(**changes: Any) -> Any:
    """A MODEL of the host with random weights, whose encoder is that of the control in these tests unless changed."""
    unet_config = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 64,
        "channel_mult": [1, 1, 2],
        "num_res_blocks": [1, 1, 1],
        "transformer_depth": [0, 1, 2],
        "transformer_depth_output": [0, 0, 1, 1, 2, 2],
        "transformer_depth_middle": 1,
        "context_dim": 64,
        "adm_in_channels": None,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "legacy": False,
    }
    config = comfy.supported_models_base.BASE(unet_config | changes)
    config.unet_config |= changes
    device = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(config.get_model({}, device=device), device, device)


def execute(name: str, **inputs: Any) -> tuple[Any, str]:
    output = ControlComposerLoad.execute(name, **inputs)
    control, description = output.args
    return control, description


def test_lists_the_hosts_files(weights: dict[str, Tensor], save: Save) -> None:
    save(weights, "one.safetensors")
    save(weights, "two.pth")
    schema = ControlComposerLoad.define_schema()
    assert schema.inputs[0].options == ["one.safetensors", "two.pth"]


def test_shows_what_the_file_is(weights: dict[str, Tensor], save: Save) -> None:
    save({name: tensor.half() for name, tensor in weights.items()})
    control, description = execute("control.safetensors")
    assert description == (
        "family: a ControlNet (cldm layout)\nbase: custom (64 channels x 1-1-2, text of 64)\nhint: 3 channels\nparameters: 2.91 M\n"
        "weights in the file: float16\ncomputes in: float32\npooling: off"
    )
    assert control.network.hint_channels == 3
    assert control.network.context_dim == 64
    assert control.network.name == "control.safetensors"


def test_one_network_for_one_file(weights: dict[str, Tensor], save: Save) -> None:
    save(weights)
    first, _ = execute("control.safetensors")
    second, _ = execute("control.safetensors")
    pooled, description = execute("control.safetensors", pooling="on")
    assert first is not second
    assert first.network.module is second.network.module is pooled.network.module
    assert first.network.patcher is second.network.patcher is pooled.network.patcher
    assert (first.network.pooling, pooled.network.pooling) == (False, True)
    assert description.endswith("\npooling: on")
    gc.collect()  # of other tests
    before = len(NETWORKS)
    del first, second, pooled
    gc.collect()
    assert len(NETWORKS) == before - 1


def test_a_replaced_file_is_loaded_anew(weights: dict[str, Tensor], save: Save) -> None:
    path = save(weights)
    first, _ = execute("control.safetensors")
    mark = ControlComposerLoad.fingerprint_inputs(control_net_name="control.safetensors")
    assert ControlComposerLoad.fingerprint_inputs(control_net_name="control.safetensors") == mark
    save({name: tensor + 1 for name, tensor in weights.items()})
    os.utime(path, ns=(1, 1))
    assert ControlComposerLoad.fingerprint_inputs(control_net_name="control.safetensors") != mark
    second, _ = execute("control.safetensors")
    name = "zero_convs.0.0.weight"
    assert torch.equal(second.network.module.state_dict()[name], first.network.module.state_dict()[name] + 1)


def test_fingerprint_of_an_absent_file() -> None:
    assert ControlComposerLoad.fingerprint_inputs(control_net_name="gone.safetensors") == ("gone.safetensors",)


def test_heads_of_the_connected_model(weights: dict[str, Tensor], save: Save) -> None:
    save(weights, metadata={})
    control, _ = execute("control.safetensors", model=model_of(num_head_channels=32))
    attention = control.network.module.middle_block[1].transformer_blocks[0].attn1
    assert (attention.heads, attention.dim_head) == (4, 32)
    # The same file for a model of other heads is another network.
    other, _ = execute("control.safetensors", model=model_of(num_head_channels=-1, num_heads=8))
    assert other.network.module.middle_block[1].transformer_blocks[0].attn1.heads == 8


def test_model_of_another_base(weights: dict[str, Tensor], save: Save) -> None:
    save(weights)
    execute("control.safetensors", model=model_of())
    # What it does not read cannot be the wrong one.
    execute("control.safetensors", model=model_of(num_classes="sequential", adm_in_channels=2816))
    for change in (
        {"model_channels": 96, "num_head_channels": 32},
        {"context_dim": 768},
        {
            "num_res_blocks": [2, 1, 1],
            "transformer_depth": [0, 0, 1, 2],
            "transformer_depth_output": [0, 0, 0, 1, 1, 2, 2],
        },
    ):
        with pytest.raises(BaseMismatchError):
            execute("control.safetensors", model=model_of(**change))


def test_nan_weights(weights: dict[str, Tensor], save: Save) -> None:
    weights["zero_convs.1.0.bias"][0] = float("nan")
    save(weights)
    with pytest.raises(BadWeightsError, match="holds NaN"):
        execute("control.safetensors")


@pytest.mark.parametrize(
    ("choice", "metadata", "name", "pooled", "words"),
    [
        ("auto", None, "canny.safetensors", False, "off"),
        (
            "auto",
            None,
            "control_v11e_sd15_shuffle.pth",
            False,
            "off; the name suggests a shuffle model, which wants pooling on",
        ),
        ("auto", True, "canny.safetensors", True, "on, by the file's metadata"),
        ("auto", False, "x_shuffle.safetensors", False, "off, by the file's metadata"),
        ("on", False, "canny.safetensors", True, "on"),
        ("off", True, "x_shuffle.safetensors", False, "off"),
    ],
)
def test_pooling(choice: str, metadata: bool | None, name: str, pooled: bool, words: str) -> None:
    assert resolve_pooling(choice, metadata, name) == (pooled, words)


def test_one_adapter_for_one_file(save: Save) -> None:
    network = Adapter(channels=[32, 64, 128, 128], nums_rb=2, cin=192, ksize=1, sk=True, use_conv=False, xl=False)
    save(dict(network.state_dict()), "adapter.safetensors")
    first, description = execute("adapter.safetensors")
    second, _ = execute("adapter.safetensors")
    assert first.network.control.patcher is second.network.control.patcher
    assert description == (
        "family: a T2I-Adapter (full)\nbase: custom (32-64-128-128 channels)\nhint: 3 channels\nparameters: 825 k\n"
        "weights in the file: float32\ncomputes in: float32\npooling: off"
    )


def test_a_type_for_a_file_without_types(weights: dict[str, Tensor], save: Save) -> None:
    save(weights)
    with pytest.raises(
        UnionTypeError, match="which has no types, but union_type depth was asked for; set union_type to auto"
    ):
        execute("control.safetensors", union_type="depth")


def test_pooling_of_what_gives_no_residuals(tmp_path: Path) -> None:
    path = tmp_path / "lllite.safetensors"
    safetensors.torch.save_file(random_lllite(modules("sdxl")), path)
    for choice in ("auto", "off"):
        assert "\npooling: off" in execute(path.name, pooling=choice)[1]
    with pytest.raises(PoolingError) as caught:
        execute(path.name, pooling="on")
    assert str(caught.value) == (
        "'lllite.safetensors' is a ControlNet-LLLite, which has no residuals to average, but pooling is on; set pooling to auto or off."
    )
