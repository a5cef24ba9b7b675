"""Random networks of any architecture, as files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from control_composer.checkpoints.encoder import NO_ATTENTION, EncoderHyperparameters, expected_shapes

SaveFile = Callable[..., Path]

# The demo's own control: 64 channels, four levels, attention from the third on, text of 64.
NARROW = EncoderHyperparameters(
    in_channels=4,
    model_channels=64,
    hint_channels=3,
    num_res_blocks=(1, 1, 1),
    channel_mult=(1, 1, 2),
    transformer_depth=(NO_ATTENTION, 1, 2),
    transformer_depth_middle=1,
    context_dim=64,
    use_linear_in_transformer=False,
    adm_in_channels=None,
)


def random_tensor(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Values of a size that keeps activations near one through any depth: norms about 1, the rest by fan-in."""
    values = torch.randn(shape, generator=generator)
    return 1 + 0.1 * values if len(shape) == 1 else values / math.sqrt(math.prod(shape[1:]))


def random_weights(net: EncoderHyperparameters, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: random_tensor(shape, generator) for name, shape in expected_shapes(net).items()}


@pytest.fixture
def narrow() -> EncoderHyperparameters:
    return NARROW


@pytest.fixture
def weights(narrow: EncoderHyperparameters) -> dict[str, Tensor]:
    return random_weights(narrow)


@pytest.fixture
def make_weights() -> Callable[..., dict[str, Tensor]]:
    return random_weights


@pytest.fixture
def save(tmp_path: Path) -> SaveFile:
    """Saves tensors as `name` (safetensors or torch by its ending), with metadata that tell the heads unless told otherwise."""

    def save_file(
        tensors: Mapping[str, Tensor], name: str = "control.safetensors", metadata: dict[str, str] | None = None
    ) -> Path:
        path = tmp_path / name
        if name.endswith(".safetensors"):
            metadata = {"num_head_channels": "64"} if metadata is None else metadata
            safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
        else:
            torch.save(dict(tensors), path)
        return path

    return save_file
