"""How files wrap a control: dictionaries around it, prefixes before it, and whole checkpoints beside it, of which nothing is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from control_composer.checkpoints import open_control
from control_composer.checkpoints.adapter import AdapterHyperparameters, adapter_shapes
from control_composer.checkpoints.base import ConnectedBase
from control_composer.checkpoints.canonical import canonical
from control_composer.checkpoints.detect import detect
from control_composer.checkpoints.errors import IncompleteError
from control_composer.checkpoints.load import read_weights
from control_composer.checkpoints.tensors import Checkpoint
from control_composer.tests.checkpoints.test_published import EXPECTED, published

MODEL = ConnectedBase("narrow", 64, (1, 1, 2), (1, 1, 1), 64, None, -1, 64)
Wrap = Callable[[dict[str, Tensor]], Any]

WRAPS: dict[str, Wrap] = {
    "plain": lambda tensors: tensors,
    "state_dict": lambda tensors: {"state_dict": tensors, "epoch": 3, "hyper_parameters": {"a": [1]}},
    "model": lambda tensors: {"model": tensors, "step": torch.tensor(7)},
    "module": lambda tensors: {"module": tensors},
    "both": lambda tensors: {"model": {"state_dict": tensors}},
    "one of any name": lambda tensors: {"ema_weights_of_something": tensors},
}


@pytest.mark.parametrize("ending", ["pth", "bin", "ckpt", "pt"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_dictionaries_around_a_control(wrap: str, ending: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"control.{ending}"
    torch.save(WRAPS[wrap](weights), path)
    opened = open_control(path, MODEL)
    assert opened.match.family.name == "a ControlNet (cldm layout)"
    read = read_weights(opened.checkpoint, opened.match)
    assert all(torch.equal(read[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("wrap", [lambda x: {"adapter": x}, lambda x: {"state_dict": {"adapter": x}}])
def test_dictionaries_around_an_adapter(wrap: Wrap, tmp_path: Path) -> None:
    shapes = adapter_shapes(AdapterHyperparameters(False, 192, (32, 64, 128, 128), 2))
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    path = tmp_path / "t2iadapter.pth"
    torch.save(wrap(tensors), path)
    opened = open_control(path)
    assert opened.match.family.name == "a T2I-Adapter (full)"
    assert set(read_weights(opened.checkpoint, opened.match)) == set(shapes)


@pytest.mark.parametrize(
    "prefix",
    [
        "control_model.",
        "module.",
        "module.control_model.",
        "_orig_mod.",
        "controlnet.",
        "module._orig_mod.controlnet.",
        "_forward_module.control_model.",
        # Of names that are nowhere known.
        "net.",
        "model.control_model.",
        "base_model.model.",
    ],
)
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_prefixes(prefix: str, name: str, weights: dict[str, Tensor], save: Callable[..., Path]) -> None:
    opened = open_control(save({prefix + key: tensor for key, tensor in weights.items()}, name), MODEL)
    read = read_weights(opened.checkpoint, opened.match)
    assert all(torch.equal(read[key], tensor) for key, tensor in weights.items())


def test_a_wrapper_hides_no_family() -> None:
    """Families that are known by parts of their names, in a wrapper of any name."""
    for name, expected in EXPECTED.items():
        checkpoint, _ = published(name)
        inside = {f"net.{key}": info for key, info in checkpoint.tensors.items()}
        file = canonical(Checkpoint(checkpoint.path, inside, checkpoint.metadata, checkpoint.fetch))
        assert detect(file).family.name == expected[0]


@pytest.mark.parametrize("prefix", ["", "control_model."])
def test_counters_of_the_training_are_left_out(
    prefix: str, weights: dict[str, Tensor], save: Callable[..., Path]
) -> None:
    counters = {
        "global_step": torch.tensor(7),
        "model_ema.decay": torch.tensor(0.999),
        "model_ema.num_updates": torch.tensor(3, dtype=torch.int32),
        "input_hint_block.1.num_batches_tracked": torch.tensor(3),
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "logit_scale": torch.tensor(4.6),
    }
    opened = open_control(save({prefix + key: x for key, x in (weights | counters).items()}), MODEL)
    assert set(opened.match.names) == set(weights)
    # A tensor of such a name that might be a weight is not passed over.
    for name in ("decay", "input_blocks.1.0.logit_scale"):
        with pytest.raises(IncompleteError, match="tensors too many"):
            open_control(save({prefix + key: x for key, x in (weights | {name: torch.ones(4)}).items()}), MODEL)


@pytest.mark.parametrize("name", ["temporalnetversion2.safetensors", "control_sd15_canny.pth"])
@pytest.mark.parametrize("hint_channels", [3, 6])
def test_nothing_but_the_control_is_read_of_a_whole_checkpoint(
    name: str, hint_channels: int, weights: dict[str, Tensor], save: Callable[..., Path]
) -> None:
    """What stands beside the control may be broken: NaN in the model, integers, the model's own encoder under the control's names."""
    first = weights["input_hint_block.0.weight"]
    weights["input_hint_block.0.weight"] = first[:, :1].repeat(1, hint_channels, 1, 1)
    others = {f"model.diffusion_model.{key}": torch.full_like(x, float("nan")) for key, x in weights.items()}
    others |= {
        "first_stage_model.encoder.conv_in.weight": torch.full((4, 3, 3, 3), float("inf")),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77),
        "model_ema.num_updates": torch.tensor(9),
        "logvar": torch.zeros(1000),
    }
    opened = open_control(save(others | {f"control_model.{key}": x for key, x in weights.items()}, name), MODEL)
    match = opened.match
    assert match.family.name == "a ControlNet (cldm layout)"
    assert match.hyperparameters.hint_channels == hint_channels
    assert match.parameter_count == sum(x.numel() for x in weights.values())

    asked: list[str] = []
    fetch = opened.checkpoint.fetch

    def watched(names: Any, mapped: bool = True) -> dict[str, Tensor]:
        asked.extend(names := list(names))
        return fetch(names, mapped)

    object.__setattr__(opened.checkpoint, "fetch", watched)
    read = read_weights(opened.checkpoint, match)
    assert sorted(asked) == sorted(f"control_model.{key}" for key in weights)
    assert all(torch.equal(read[key], tensor) for key, tensor in weights.items())
