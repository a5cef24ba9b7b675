"""CtrLoRA files: the base, the LoRA file, both together, and what is said where one of them is missing or does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from control_composer.checkpoints import open_control
from control_composer.checkpoints.base import ConnectedBase
from control_composer.checkpoints.ctrlora import DOWN, UP, base_shapes, lora_shapes, merged_weights
from control_composer.checkpoints.encoder import EncoderHyperparameters
from control_composer.checkpoints.errors import BaseMismatchError, IncompleteError, PairError
from control_composer.checkpoints.pair import check_alone, paired

Save = Callable[..., Path]
SD1 = EncoderHyperparameters(4, 32, 3, (2, 2, 2, 2), (1, 2, 4, 4), (1,) * 6 + (-1, -1), 1, 24, False, None)
NETS = [
    SD1,
    replace(SD1, model_channels=64, num_res_blocks=(1, 2), channel_mult=(1, 3), transformer_depth=(1, 2, -1)),
    replace(SD1, use_linear_in_transformer=True, context_dim=16, transformer_depth_middle=3),
]


def zeros(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {f"control_model.{name}": torch.zeros(shape, dtype=dtype) for name, shape in shapes.items()}


def base(net: EncoderHyperparameters = SD1, rank: int = 4) -> dict[str, Tensor]:
    return zeros(base_shapes(net) | (lora_shapes(net, rank) if rank else {}))


def lora(net: EncoderHyperparameters = SD1, rank: int = 4) -> dict[str, Tensor]:
    return zeros(lora_shapes(net, rank))


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(net=st.sampled_from(NETS), rank=st.integers(1, 64), of_base=st.integers(0, 9))
def test_round_trip(net: EncoderHyperparameters, rank: int, of_base: int, tmp_path: Path) -> None:
    for tensors, name, expected in (
        (base(net, of_base), "a CtrLoRA base", of_base),
        (lora(net, rank), "a LoRA file of CtrLoRA", rank),
    ):
        path = tmp_path / f"{expected}.safetensors"
        path.write_bytes(safetensors.torch.save(tensors, {"num_heads": "4"}))
        match = open_control(path).match
        assert match.family.name == name
        assert match.hyperparameters.encoder == net
        assert match.hyperparameters.rank == expected
    both = paired(open_control(tmp_path / f"{rank}.safetensors"), open_base(base(net, of_base), tmp_path))
    assert (both.hyperparameters.encoder, both.hyperparameters.rank) == (net, rank)
    assert both.heads.count == 4


def open_base(tensors: dict[str, Tensor], folder: Path, name: str = "the_base.safetensors") -> Any:
    path = folder / name
    path.write_bytes(safetensors.torch.save(tensors, {"num_heads": "4"}))
    return open_control(path)


def test_what_a_lora_file_holds() -> None:
    """As scripts/tool_extract_weights.py of the repository picks it."""
    shapes = base_shapes(SD1)
    for name, shape in lora_shapes(SD1, 4).items():
        if "lora_layer" not in name:
            assert shapes[name] == shape and ("zero_convs" in name or "middle_block_out" in name or "norm" in name)
    linear = [name for name, shape in shapes.items() if len(shape) == 2]
    assert {name.removesuffix(".weight") + UP for name in linear} == {
        name for name in lora_shapes(SD1, 4) if name.endswith(UP)
    }
    assert "time_embed.0" + DOWN in lora_shapes(SD1, 4)
    assert "input_blocks.1.0.in_layers.0.weight" not in lora_shapes(SD1, 4)  # a norm without the word in its name


def test_description(tmp_path: Path) -> None:
    assert open_base(base(), tmp_path).match.describe() == (
        "family: a CtrLoRA base\nbase: custom (32 channels x 1-2-4-4, text of 24)\nhint: 3 channels\n"
        "the hint goes through the VAE: connect it to the Apply or Layer node\n"
        "LoRA: none (that in the file, of rank 4, is left over from training); choose a LoRA file, and this one as its base_name\n"
        "parameters: 3.56 M\nweights in the file: float32"
    )
    assert open_base(base(rank=0), tmp_path).match.notes[1] == (
        "LoRA: none; choose a LoRA file, and this one as its base_name, for what LoRA files were trained for"
    )
    match = paired(open_base(lora(rank=7), tmp_path, "canny.safetensors"), open_base(base(), tmp_path))
    assert match.notes[1] == "LoRA: 'canny.safetensors', rank 7, on 'the_base.safetensors'"


def test_a_whole_checkpoint_of_one_condition_keeps_its_lora(tmp_path: Path) -> None:
    """Made by the repository's tool_combine_weights.py: model, base and LoRA in one file."""
    match = open_base(base() | {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}, tmp_path).match
    assert "time_embed.0" + UP in match.names
    assert match.notes[1] == "LoRA: that of the file, rank 4"
    assert "time_embed.0" + UP not in open_base(base(), tmp_path).match.names


def test_merging() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, up, down = (torch.randn(shape, generator=generator) for shape in ((6, 5), (6, 2), (2, 5)))
    given = {"a.weight": weight.half(), "a" + UP: up, "a" + DOWN: down, "b.weight": weight}
    merged = merged_weights(given)
    assert set(merged) == {"a.weight", "b.weight"}
    torch.testing.assert_close(merged["a.weight"], weight.half().float() + torch.einsum("or,ri->oi", up, down))
    assert merged["b.weight"] is weight
    assert torch.equal(given["a.weight"], weight.half())


def test_connected_model(tmp_path: Path) -> None:
    fitting = ConnectedBase("narrow", 32, (1, 2, 4, 4), (2, 2, 2, 2), 24, None, 4, -1)
    xl = ConnectedBase("SDXL", 320, (1, 2, 4), (2, 2, 2), 2048, 2816, -1, 64)
    for tensors in (base(), lora()):
        path = open_base(tensors, tmp_path).checkpoint.path
        open_control(path, fitting)
        with pytest.raises(BaseMismatchError, match="but the connected model is of the base SDXL; "):
            open_control(path, xl)


def test_a_lora_file_is_built_with_its_base_only(tmp_path: Path) -> None:
    with pytest.raises(PairError, match="'a LoRA file of CtrLoRA' is half of a network, but the tensors of its base"):
        open_base(lora(), tmp_path).load()


def refusal(error: type[Exception], act: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        act()
    return str(caught.value)


def test_halves_that_are_no_pair(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    half, whole = open_base(lora(), tmp_path, "canny.safetensors"), open_base(base(), tmp_path)
    plain = open_base(weights, tmp_path, "plain.safetensors")
    check_alone(whole.checkpoint.path, whole.match)
    assert refusal(PairError, lambda: check_alone(half.checkpoint.path, half.match)) == (
        "'canny.safetensors' is a LoRA file of CtrLoRA, half of a network, but base_name is none; set base_name to the file of the base that it "
        "was trained on (the published ones: ctrlora_sd15_basecn700k)."
    )
    assert refusal(PairError, lambda: paired(whole, half)) == (
        "'the_base.safetensors' is a CtrLoRA base, which needs no second file, but base_name is 'canny.safetensors'; exchange the two files."
    )
    assert refusal(PairError, lambda: paired(whole, whole)) == (
        "'the_base.safetensors' is a CtrLoRA base, which needs no second file, but base_name is 'the_base.safetensors'; set base_name to none, "
        "or choose a LoRA of CtrLoRA in place of this file."
    )
    assert refusal(PairError, lambda: paired(plain, whole)) == (
        "'plain.safetensors' is a ControlNet (cldm layout), which needs no second file, but base_name is 'the_base.safetensors'; set base_name "
        "to none, or choose a LoRA of CtrLoRA."
    )
    assert refusal(PairError, lambda: paired(half, plain)) == (
        "'plain.safetensors' is a ControlNet (cldm layout), but base_name must be the CtrLoRA base that 'canny.safetensors' was trained on; "
        "choose that file (the published ones: ctrlora_sd15_basecn700k)."
    )
    assert refusal(PairError, lambda: paired(half, half)).startswith(
        "'canny.safetensors' is a LoRA file of CtrLoRA, but base_name must be"
    )
    other = open_base(base(NETS[1]), tmp_path, "other.safetensors")
    assert refusal(PairError, lambda: paired(half, other)) == (
        "'canny.safetensors' is a LoRA file of CtrLoRA for a base of custom (32 channels x 1-2-4-4, text of 24), but base_name "
        "'other.safetensors' is one of custom (64 channels x 1-3, text of 24) with other blocks or widths; choose the base that it was trained on."
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time_embed.0" + UP: None}, "looks like a LoRA file of CtrLoRA and lacks 'time_embed.0.lora_layer.up.weight'"),
        ({"zero_convs.0.0.weight": None}, "lacks 'zero_convs.0.0.weight'"),
        ({"zero_convs.11.0.weight": None}, "with tensors too many, 'input_blocks.11.0.emb_layers.1.lora_layer"),
        ({"middle_block_out.0.bias": None}, "lacks 'middle_block_out.0.bias'"),
        ({"middle_block.1.norm.weight": None}, "lacks 'middle_block.1.norm.weight'"),
        ({"zero_convs.0.0.weight": (32,)}, "lacks 'zero_convs.0.0.weight'"),
        ({"time_embed.2" + DOWN: (3, 128)}, r"'time_embed.2.lora_layer.down.weight' has the shape \[3, 128\], but \[4, 128\] follows"),
        ({"loras_dict.canny.0.up.weight": (1,)}, "with tensors too many, 'loras_dict.canny.0.up.weight'"),
        ({"input_blocks.1.0.in_layers.2.weight": (32, 32, 3, 3)}, "with tensors too many"),
    ],
)  # fmt: skip
def test_broken_lora_files(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    shapes = {name: change.get(name, shape) for name, shape in (lora_shapes(SD1, 4) | change).items()}
    tensors = zeros({name: shape for name, shape in shapes.items() if shape is not None})
    with pytest.raises(IncompleteError, match=words):
        open_base(tensors, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_blocks.4.0.skip_connection.bias": None}, "looks like a CtrLoRA base and lacks 'input_blocks.4.0.skip_connection.bias'"),
        ({"label_emb.0.0.weight": (128, 8)}, "is a CtrLoRA base with tensors too many, 'label_emb.0.0.weight'"),
        ({"time_embed.0" + UP: None}, "lacks 'time_embed.0.lora_layer.up.weight'"),
        ({"middle_block.0.in_layers.2.weight": (1, 2, 3, 3)}, r"'middle_block.0.in_layers.2.weight' has the shape \[1, 2, 3, 3\]"),
    ],
)  # fmt: skip
def test_broken_bases(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    shapes = base_shapes(SD1) | lora_shapes(SD1, 4) | change
    with pytest.raises(IncompleteError, match=words):
        open_base(zeros({name: shape for name, shape in shapes.items() if shape is not None}), tmp_path)
