"""Heads and pooling that stand beside a file: diffusers' config.json and the .yaml of the original repositories."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from control_composer.checkpoints import open_control
from control_composer.checkpoints.base import ConnectedBase
from control_composer.checkpoints.beside import LONGEST, beside, companions
from control_composer.checkpoints.diffusers_layout import cldm_names
from control_composer.checkpoints.encoder import EncoderHyperparameters
from control_composer.checkpoints.errors import AmbiguousHeadsError
from control_composer.checkpoints.heads import Heads, resolve_heads

Save = Callable[..., Path]
NET = EncoderHyperparameters(4, 320, 3, (2, 2, 2), (1, 2, 4), (-1, -1, 1, 1, 2, 2), 2, 2048, True, 2816)
ODD = replace(NET, context_dim=999)  # nothing that is in use
CONFIG = {"_class_name": "ControlNetModel", "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20]}
MODEL = ConnectedBase("narrow", 320, (1, 2, 4), (2, 2, 2), 999, 2816, -1, 40)


def heads(config: dict[str, Any], metadata: dict[str, str] | None = None, model: ConnectedBase | None = None) -> Heads:
    return resolve_heads(Path("a.safetensors"), ODD, metadata or {}, model, config)


@pytest.mark.parametrize(
    ("changes", "count", "width"),
    [
        ({}, None, 64),
        ({"attention_head_dim": 8}, 8, None),
        ({"attention_head_dim": [8, 8, 8]}, 8, None),
        ({"num_attention_heads": [10, 20, 40]}, None, 32),
        ({"num_attention_heads": 4}, 4, None),
        ({"attention_head_dim": [99, 8, 8]}, 8, None),  # no attention at the first width
        ({"_class_name": "ControlNetUnionModel"}, None, 64),
    ],
)
def test_heads_by_diffusers_config(changes: dict[str, Any], count: int | None, width: int | None) -> None:
    assert heads(CONFIG | changes) == Heads(count, width, "config.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": "UNet2DConditionModel"},
        {"_class_name": None},
        {"block_out_channels": [320, 640, 1280, 1280]},
        {"attention_head_dim": None},
        {"attention_head_dim": [5, 10]},
        {"attention_head_dim": [5, 8, 20]},
        {"attention_head_dim": [5, 10.0, 20]},
        {"attention_head_dim": "8"},
        {"attention_head_dim": True},
        {"attention_head_dim": 0},
        {"attention_head_dim": -8},
        {"attention_head_dim": [7, 7.5, 3]},
    ],
)
def test_a_config_that_is_anothers_or_tells_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(AmbiguousHeadsError, match="into a number of attention heads that its shapes cannot tell"):
        heads(CONFIG | changes)


SD1 = EncoderHyperparameters(4, 320, 3, (2,) * 4, (1, 2, 4, 4), (1,) * 6 + (-1,) * 2, 1, 768, False, None)
SD2_CONFIG = CONFIG | {"block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": [5, 10, 20, 20]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"cross_attention_dim": 1024}, Heads(8, None, "convention")),
        ({"cross_attention_dim": 768}, Heads(None, 64, "config.json")),
        ({}, Heads(None, 64, "config.json")),
    ],
)
def test_the_config_of_another_base_of_the_same_widths(text: dict[str, Any], expected: Heads) -> None:
    """SD1's file in a folder with SD2's config.json: the same widths, other heads."""
    assert resolve_heads(Path("a.safetensors"), SD1, {}, None, SD2_CONFIG | text) == expected


def test_what_stands_above_what() -> None:
    assert heads(CONFIG, {"num_heads": "5"}, MODEL) == Heads(5, None, "metadata")
    assert heads(CONFIG, None, MODEL) == Heads(None, 64, "config.json")
    assert heads({}, None, MODEL) == Heads(None, 40, "model")
    assert resolve_heads(Path("a"), NET, {}, None, CONFIG | {"attention_head_dim": 8}).source == "config.json"
    assert resolve_heads(Path("a"), NET, {}, None, {}).source == "convention"


def test_heads_that_do_not_divide() -> None:
    with pytest.raises(AmbiguousHeadsError) as caught:
        heads(CONFIG | {"attention_head_dim": 7})
    assert str(caught.value) == (
        "'a.safetensors' is said to have 7 heads (source: config.json), into which 640/1280 channels do not divide, but the number must be the one "
        "it was trained with; connect the model that it was trained for, or save it with 'num_head_channels' or 'num_heads' in its safetensors "
        "metadata."
    )


def test_a_file_in_diffusers_layout_with_its_config(save: Save, tmp_path: Path, make_weights: Any) -> None:
    diffusers = pytest.importorskip("diffusers")
    config = {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "cross_attention_dim": 24,
    }
    net = diffusers.ControlNetModel(attention_head_dim=4, **config)  # fmt: skip
    net.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    match = open_control(path).match
    assert match.heads == Heads(4, None, "config.json")
    assert "\nheads: 4, by the config.json beside the file\n" in match.describe()
    (tmp_path / "config.json").unlink()
    with pytest.raises(AmbiguousHeadsError):
        open_control(path)
    # A file in cldm layout is no file of diffusers, whatever lies beside it.
    given = {theirs: ours for ours, theirs in cldm_names(net.state_dict()).items()}
    assert given
    tensors = {ours: net.state_dict()[theirs] for ours, theirs in given.items()}
    other = save(tensors, "cldm.safetensors", {})
    net.save_config(tmp_path)
    with pytest.raises(AmbiguousHeadsError):
        open_control(other)


YAML = "model:\n  target: cldm.cldm.ControlLDM\n  params:\n    linear_start: 0.00085\n    global_average_pooling: {}\n"


@pytest.mark.parametrize(
    ("text", "pooling"),
    [
        (YAML.format("True"), True),
        (YAML.format("False"), False),
        (YAML.format("1"), None),
        ("model:\n  params:\n    control_key: hint\n", None),
        ("global_average_pooling: True\n", None),
        ("- a list", None),
        ("model: [", None),
        ("", None),
        ("a: &a [*a]\nmodel: {params: *a}", None),
        ("!!python/object/apply:os.system ['exit 1']", None),
        ("[" * 5000, None),
    ],
)
def test_pooling_by_yaml(text: str, pooling: bool | None, weights: dict[str, Tensor], save: Save) -> None:
    path = save(weights, "control_v11e_sd15_shuffle.pth.safetensors")
    path.with_name("control_v11e_sd15_shuffle.pth.yaml").write_text(text)
    match = open_control(path).match
    assert match.pooling is pooling
    assert match.pooling_source == "control_v11e_sd15_shuffle.pth.yaml"


def test_metadata_stand_above_the_yaml(weights: dict[str, Tensor], save: Save) -> None:
    path = save(weights, metadata={"num_head_channels": "64", "global_average_pooling": "False"})
    path.with_suffix(".yaml").write_text(YAML.format("True"))
    match = open_control(path).match
    assert (match.pooling, match.pooling_source) == (False, "the file's metadata")


def test_only_small_files_of_the_right_name_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    (tmp_path / "b.yaml").write_text(YAML.format("True"))
    (tmp_path / "config.json").write_text("[1]")
    assert beside(path).pooling is None and beside(path).config == {}
    path.with_suffix(".yaml").write_text(YAML.format("True") + "#" * LONGEST)
    (tmp_path / "config.json").write_bytes(b"\xff" + json.dumps(CONFIG).encode())
    assert beside(path).pooling is None and beside(path).config == {}
    assert companions(path) == (tmp_path / "config.json", path.with_suffix(".yaml"))
    assert companions(tmp_path / "sub" / "b.pth") == ()


def test_the_node_pools_and_says_why(weights: dict[str, Tensor], save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("comfy")
    import folder_paths

    from control_composer.nodes.load import ControlComposerLoad

    path = save(weights)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "controlnet", ([str(path.parent)], {".safetensors"}))
    folder_paths.filename_list_cache.clear()
    mark = ControlComposerLoad.fingerprint_inputs(control_net_name=path.name)
    path.with_suffix(".yaml").write_text(YAML.format("True"))
    control, description = ControlComposerLoad.execute(path.name).args
    assert control.network.pooling
    assert description.endswith("\npooling: on, by control.yaml")
    assert ControlComposerLoad.fingerprint_inputs(control_net_name=path.name) != mark
    control, description = ControlComposerLoad.execute(path.name, pooling="off").args
    assert not control.network.pooling and description.endswith("\npooling: off")
    folder_paths.filename_list_cache.clear()
