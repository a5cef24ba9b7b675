"""T2I-Adapters: shapes -> numbers -> the host's network, and the same residuals as diffusers and the stock loader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from control_composer.checkpoints import load_checkpoint, open_control
from control_composer.checkpoints.adapter import AdapterHyperparameters, adapter_shapes
from control_composer.checkpoints.base import ConnectedBase
from control_composer.checkpoints.errors import BaseMismatchError, IncompleteError

Save = Callable[..., Path]
TOLERANCE = 1e-4

FULL = AdapterHyperparameters(light=False, in_channels=192, channels=(32, 64, 128, 128), res_blocks=2)
XL = AdapterHyperparameters(light=False, in_channels=768, channels=(32, 64, 128, 128), res_blocks=2)
LIGHT = AdapterHyperparameters(light=True, in_channels=192, channels=(32, 64, 128, 128), res_blocks=4)
# As the stock loader has them: widths 1, 2, 4, 4; two blocks a level, four in light ones.
STOCK = {
    "full": FULL,
    "gray": AdapterHyperparameters(False, 64, (32, 64, 128, 128), 2),
    "kernel 3": AdapterHyperparameters(False, 192, (32, 64, 128, 128), 2, kernel=3, convolution=True),
    "XL": XL,
    "XL gray": AdapterHyperparameters(False, 256, (32, 64, 128, 128), 2),
}
LIGHT_WIDTHS = (320, 640, 1280, 1280)


def random_adapter(net: AdapterHyperparameters, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator)
        * (0.1 if len(shape) == 1 else torch.tensor(shape[1:]).prod() ** -0.5)
        for name, shape in adapter_shapes(net).items()
    }


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def features(lists: dict[str, list[Tensor | None]]) -> list[Tensor]:
    """The residuals of the host's adapter, finest first."""
    return [x for place in ("input", "middle") for x in reversed(lists.get(place, [])) if x is not None]


@pytest.mark.parametrize("kind", STOCK)
@torch.no_grad()
def test_the_stock_loaders_network(kind: str, save: Save) -> None:
    controlnet = pytest.importorskip("comfy.controlnet")
    path = save(random_adapter(STOCK[kind]), metadata={})
    ours, stock = load_checkpoint(path), controlnet.load_controlnet(str(path))
    theirs = stock.t2i_model
    assert type(ours.built.module) is type(theirs)
    assert stock.channels_in == ours.match.hyperparameters.hint_channels == ours.built.module.input_channels
    hint = torch.rand(2, stock.channels_in, 80, 144, generator=torch.Generator().manual_seed(1))
    mine, other = ours.built.module(hint), theirs(hint)
    assert mine.keys() == other.keys()
    for place, residuals in other.items():
        assert [x is None for x in mine[place]] == [x is None for x in residuals]
        assert all(x is None or torch.equal(x, y) for x, y in zip(mine[place], residuals, strict=True))


@torch.no_grad()
def test_the_stock_loaders_light_network(save: Save) -> None:
    controlnet = pytest.importorskip("comfy.controlnet")
    path = save(random_adapter(AdapterHyperparameters(True, 192, LIGHT_WIDTHS, 4)), metadata={})
    ours, stock = load_checkpoint(path), controlnet.load_controlnet(str(path))
    assert ours.match.base == "SD1 or SD2"
    hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for x, y in zip(features(ours.built.module(hint)), features(stock.t2i_model(hint)), strict=True):
        assert torch.equal(x, y)


def diffusers_adapter(**config: Any) -> Any:
    diffusers = pytest.importorskip("diffusers")
    net = diffusers.T2IAdapter(**config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            scale = 0.1 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return net.eval()


DIFFUSERS = {
    "full": ({"channels": [32, 64, 128, 128]}, FULL),
    "full, gray, three blocks": (
        {"channels": [32, 64, 96, 96], "in_channels": 1, "num_res_blocks": 3},
        AdapterHyperparameters(False, 64, (32, 64, 96, 96), 3),
    ),
    "XL": ({"channels": [32, 64, 128, 128], "adapter_type": "full_adapter_xl", "downscale_factor": 16}, XL),
    "light": ({"channels": [32, 64, 128], "adapter_type": "light_adapter", "num_res_blocks": 4}, LIGHT),
}


@pytest.mark.parametrize("kind", DIFFUSERS)
@torch.no_grad()
def test_diffusers_network_in_its_own_layout(kind: str, save: Save) -> None:
    pytest.importorskip("comfy")
    config, expected = DIFFUSERS[kind]
    net = diffusers_adapter(**config)
    loaded = load_checkpoint(save(dict(net.state_dict()), metadata={}))
    assert loaded.match.family.name == "a T2I-Adapter (diffusers layout)"
    assert loaded.match.hyperparameters == expected
    hint = torch.rand(2, expected.hint_channels, 64, 128, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(features(loaded.built.module(hint)), net(hint), strict=True):
        assert relative(ours, theirs) <= TOLERANCE


@st.composite
def architectures(draw: st.DrawFn) -> AdapterHyperparameters:
    light = draw(st.booleans())
    return AdapterHyperparameters(
        light=light,
        in_channels=draw(st.sampled_from([64, 128, 192, 576] if light else [64, 192, 256, 768])),
        channels=tuple(4 * draw(st.integers(1, 9)) for _ in range(4)),
        res_blocks=draw(st.integers(1, 5)),
        kernel=1 if light else draw(st.sampled_from([1, 3])),
        convolution=False if light else draw(st.booleans()),
    )


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(net=architectures())
def test_round_trip(net: AdapterHyperparameters, tmp_path: Path) -> None:
    path = tmp_path / "any.safetensors"
    path.write_bytes(safetensors.torch.save(random_adapter(net)))
    match = open_control(path).match
    assert match.hyperparameters == net
    assert match.family.name == f"a T2I-Adapter ({'light' if net.light else 'full'})"
    assert match.parameter_count == sum(tensor.numel() for tensor in random_adapter(net).values())


def model(channels: int, *mult: int) -> ConnectedBase:
    return ConnectedBase("the other", channels, mult, (2,) * len(mult), 768, None, 8, -1)


def test_base(save: Save) -> None:
    full, xl = save(random_adapter(FULL), "full.safetensors"), save(random_adapter(XL), "xl.safetensors")
    open_control(full, model(32, 1, 2, 4, 4))
    open_control(xl, model(32, 1, 2, 4))
    with pytest.raises(BaseMismatchError) as caught:
        open_control(xl, model(32, 1, 2, 4, 4))
    assert str(caught.value) == (
        "'xl.safetensors' is a control for the base custom (32-64-128-128 channels, as SDXL), but the connected model is of the base the "
        "other; connect a model that it was made for, or choose a control made for the connected one."
    )
    with pytest.raises(BaseMismatchError):
        open_control(full, model(32, 1, 2, 4))


def test_description(save: Save) -> None:
    match = open_control(save({name: x.half() for name, x in random_adapter(STOCK["gray"]).items()})).match
    assert match.describe() == (
        "family: a T2I-Adapter (full)\nbase: custom (32-64-128-128 channels)\nhint: 1 channel\nparameters: 788 k\n"
        "weights in the file: float16"
    )


def test_nearly_an_adapter(save: Save) -> None:
    weights = random_adapter(FULL)
    weights["body.1.block2.weight"] = torch.zeros(32, 32, 3, 3)
    with pytest.raises(IncompleteError, match=r"whose tensor 'body.1.block2.weight' has the shape \[32, 32, 3, 3\]"):
        open_control(save(weights))
    weights = random_adapter(AdapterHyperparameters(False, 100, (32, 64, 128, 128), 2))
    with pytest.raises(IncompleteError) as caught:
        open_control(save(weights))
    assert str(caught.value) == (
        "'control.safetensors' is a T2I-Adapter (full) whose first convolution reads 100 channels, but a multiple of 64 or 256 was "
        "expected, the pixels of a square; use the node that its author made for it."
    )
    del weights["body.0.block1.weight"]
    with pytest.raises(IncompleteError, match=r"looks like a T2I-Adapter \(full\) and lacks 'body.0.block1.weight'"):
        open_control(save(weights))
