"""Control-LoRAs: differences of low rank -> the encoder that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from control_composer.checkpoints import open_control
from control_composer.checkpoints.base import ConnectedBase
from control_composer.checkpoints.encoder import EncoderHyperparameters, expected_shapes
from control_composer.checkpoints.errors import BaseMismatchError, IncompleteError

Save = Callable[..., Path]
SD1 = EncoderHyperparameters(4, 32, 3, (2, 2, 2, 2), (1, 2, 4, 4), (1,) * 6 + (-1, -1), 1, 24, False, None)
SDXL = EncoderHyperparameters(4, 32, 3, (2, 2, 2), (1, 2, 4), (-1, -1, 2, 2, 10, 10), 10, 48, True, 88)


def control_lora(net: EncoderHyperparameters, rank: int = 4, norms: bool = True) -> dict[str, Tensor]:
    tensors = {"lora_controlnet": torch.zeros(1)}
    for name, shape in expected_shapes(net).items():
        if len(shape) == 1:
            if norms or not name.startswith(("input_blocks", "middle_block.")):
                tensors[name] = torch.zeros(shape, dtype=torch.float16)
        elif name.startswith(("zero_convs", "input_hint_block", "middle_block_out")):
            tensors[name] = torch.zeros(shape, dtype=torch.float16)
        else:
            module = name.removesuffix(".weight")
            tensors[f"{module}.down"] = torch.zeros(rank, *shape[1:], dtype=torch.float16)
            tensors[f"{module}.up"] = torch.zeros(shape[0], rank, *([1] * (len(shape) - 2)), dtype=torch.float16)
    return tensors


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(net=st.sampled_from([SD1, SDXL]), rank=st.integers(1, 64), hint=st.integers(1, 9), norms=st.booleans())
def test_round_trip(net: EncoderHyperparameters, rank: int, hint: int, norms: bool, tmp_path: Path) -> None:
    net = EncoderHyperparameters(**{**vars(net), "hint_channels": hint})
    path = tmp_path / "any.safetensors"
    path.write_bytes(safetensors.torch.save(control_lora(net, rank, norms)))
    match = open_control(path).match
    assert match.family.name == "a Control-LoRA"
    assert match.hyperparameters == net
    assert match.notes[0] == f"rank: {rank}"
    assert match.parameter_count == sum(tensor.numel() for tensor in control_lora(net, rank, norms).values()) - 1


def test_description(save: Save) -> None:
    tensors = control_lora(SD1)
    tensors["time_embed.0.down"], tensors["time_embed.0.up"] = torch.zeros(8, 32), torch.zeros(128, 8)
    assert open_control(save(tensors)).match.describe() == (
        "family: a Control-LoRA\nbase: custom (32 channels x 1-2-4-4, text of 24)\nhint: 3 channels\nranks: 4 to 8\n"
        "weights and dtype: those of the model that it steers\nparameters: 728 k\nweights in the file: float16"
    )


def test_base(save: Save) -> None:
    path = save(control_lora(SD1))
    open_control(path, ConnectedBase("narrow", 32, (1, 2, 4, 4), (2, 2, 2, 2), 24, None, 4, -1))
    with pytest.raises(BaseMismatchError, match="but the connected model is of the base SDXL; "):
        open_control(path, ConnectedBase("SDXL", 320, (1, 2, 4), (2, 2, 2), 2048, 2816, -1, 64))


def test_full_tensors_instead_of_differences(save: Save) -> None:
    tensors = control_lora(SD1)
    del tensors["input_blocks.0.0.up"], tensors["input_blocks.0.0.down"]
    tensors["input_blocks.0.0.weight"] = torch.zeros(32, 4, 3, 3)
    assert open_control(save(tensors)).match.hyperparameters == SD1


@pytest.mark.parametrize("gone", ["up", "down"])
def test_half_a_difference(gone: str, save: Save) -> None:
    tensors = control_lora(SD1)
    del tensors[f"middle_block.0.in_layers.2.{gone}"]
    with pytest.raises(
        IncompleteError, match=f"looks like a Control-LoRA and lacks 'middle_block.0.in_layers.2.{gone}'"
    ):
        open_control(save(tensors))


def test_ranks_that_differ(save: Save) -> None:
    tensors = control_lora(SD1) | {"time_embed.0.down": torch.zeros(8, 32)}
    with pytest.raises(IncompleteError) as caught:
        open_control(save(tensors))
    assert str(caught.value) == (
        "'control.safetensors' is a Control-LoRA whose tensors 'time_embed.0.up' and 'time_embed.0.down' have the shapes [128, 4] and "
        "[8, 32], but the same rank in both was expected; download it again, or ask its author for a file of the ordinary architecture."
    )


def test_what_the_model_cannot_give(save: Save) -> None:
    tensors = control_lora(SD1)
    del tensors["zero_convs.3.0.weight"]
    with pytest.raises(IncompleteError, match=r"lacks 'zero_convs.3.0.weight'"):
        open_control(save(tensors))
    with pytest.raises(IncompleteError, match=r"with tensors too many, 'input_blocks.1.2.extra.weight'"):
        open_control(save(control_lora(SD1) | {"input_blocks.1.2.extra.weight": torch.zeros(1)}))
