"""Hyperparameters -> state dict -> safetensors bytes -> the same hyperparameters, for architectures nobody has made yet."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_composer.checkpoints import open_control
from control_composer.checkpoints.encoder import NO_ATTENTION, EncoderHyperparameters, expected_shapes


@st.composite
def architectures(draw: st.DrawFn) -> EncoderHyperparameters:
    levels = draw(st.integers(1, 4))
    res_blocks = tuple(draw(st.integers(1, 3)) for _ in range(levels))
    depths = tuple(draw(st.integers(NO_ATTENTION, 3)) for _ in range(sum(res_blocks)))
    middle = draw(st.integers(NO_ATTENTION, 3))
    reads_text = max(*depths, middle) > 0
    return EncoderHyperparameters(
        in_channels=draw(st.integers(1, 9)),
        model_channels=32,
        hint_channels=draw(st.integers(1, 9)),
        num_res_blocks=res_blocks,
        channel_mult=tuple(draw(st.integers(1, 3)) for _ in range(levels)),
        transformer_depth=depths,
        transformer_depth_middle=middle,
        context_dim=draw(st.integers(1, 99)) if reads_text else None,
        use_linear_in_transformer=draw(st.booleans()) if max(*depths, middle) >= 0 else True,
        adm_in_channels=draw(st.none() | st.integers(1, 99)),
    )


def write(path: Path, net: EncoderHyperparameters, prefix: str = "") -> Path:
    tensors = {prefix + name: torch.zeros(shape, dtype=torch.float16) for name, shape in expected_shapes(net).items()}
    path.write_bytes(safetensors.torch.save(tensors, {"num_head_channels": "16"}))
    return path


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(net=architectures(), prefix=st.sampled_from(["", "control_model.", "module.control_model."]))
def test_any_architecture(net: EncoderHyperparameters, prefix: str, tmp_path: Path) -> None:
    match = open_control(write(tmp_path / "any.safetensors", net, prefix)).match
    assert match.hyperparameters == net
    assert all(match.names[name] == prefix + name for name in expected_shapes(net))


@settings(max_examples=25, deadline=None)
@given(net=architectures())
def test_expected_shapes_are_those_of_the_hosts_network(net: EncoderHyperparameters) -> None:
    pytest.importorskip("comfy")
    from control_composer.checkpoints.build import build_encoder
    from control_composer.checkpoints.families import CONTROLNET_CLDM
    from control_composer.checkpoints.family import Match
    from control_composer.checkpoints.heads import Heads

    tensors = {name: torch.zeros(shape) for name, shape in expected_shapes(net).items()}
    match = Match(
        family=CONTROLNET_CLDM,
        base="test",
        hyperparameters=net,
        heads=Heads(count=None, width=32, source="metadata"),
        names={},
        parameter_count=0,
        dtype=torch.float32,
        pooling=None,
    )
    # load_state_dict is strict: a name or shape that differs raises.
    module = build_encoder(match, tensors, diffusers=False).module
    assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == expected_shapes(net)
