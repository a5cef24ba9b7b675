"""Files of float8: kept as they are where the host keeps them, the stock loader's residuals, and NaN and infinity found by their bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("comfy")

import comfy.controlnet

from control_composer.checkpoints import load_checkpoint, open_control
from control_composer.checkpoints.errors import BadWeightsError
from control_composer.checkpoints.load import first_bad, read_weights

Save = Callable[..., Path]
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
NAME = "input_blocks.1.0.in_layers.2.weight"


@pytest.mark.parametrize("dtype", FLOAT8)
@torch.no_grad()
def test_residuals_of_the_stock_loader(dtype: torch.dtype, weights: dict[str, Tensor], save: Save) -> None:
    path = save({name: tensor.to(dtype) for name, tensor in weights.items()})
    loaded, stock = load_checkpoint(path), comfy.controlnet.load_controlnet(str(path))
    assert loaded.built.dtype == stock.control_model.dtype == dtype
    assert loaded.built.manual_cast_dtype == stock.manual_cast_dtype == torch.float32
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "x": torch.randn(1, 4, 8, 8, generator=generator),
        "hint": torch.rand(1, 3, 64, 64, generator=generator),
        "timesteps": torch.tensor([400.0]),
        "context": torch.randn(1, 7, 64, generator=generator),
    }
    ours, theirs = loaded.built.module(**inputs), stock.control_model(**inputs)
    for place in ("output", "middle"):
        for mine, other in zip(ours[place], theirs[place], strict=True):
            assert torch.equal(mine, other) and float(mine.abs().max()) > 0


@pytest.mark.parametrize("dtype", FLOAT8)
def test_every_byte_is_judged_as_torch_judges_it(dtype: torch.dtype) -> None:
    for byte in range(256):
        tensor = torch.zeros(70, dtype=torch.uint8)
        tensor[69] = byte
        number = tensor.view(dtype)[69].float()
        what = "NaN (not a number)" if number.isnan() else "infinity" if number.isinf() else None
        assert first_bad({"a": tensor.view(dtype)}) == (what and ("a", what)), byte


@pytest.mark.parametrize("dtype", FLOAT8)
def test_a_bad_number_at_the_end_of_a_large_tensor(dtype: torch.dtype, weights: dict[str, Tensor], save: Save) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in weights.items()}
    tensors[NAME].view(-1)[-1] = float("nan")
    opened = open_control(save(tensors))
    with pytest.raises(BadWeightsError, match=rf"holds NaN \(not a number\) in its tensor '{NAME}'"):
        read_weights(opened.checkpoint, opened.match)
