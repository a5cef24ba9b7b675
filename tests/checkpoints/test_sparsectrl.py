"""SparseCtrl files: names and shapes -> numbers -> the network, in AnimateDiff's and diffusers' layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from control_composer.checkpoints import load_checkpoint, open_control
from control_composer.checkpoints.base import ConnectedBase
from control_composer.checkpoints.encoder import NO_ATTENTION
from control_composer.checkpoints.errors import BaseMismatchError, IncompleteError
from control_composer.checkpoints.sparsectrl import SparseHyperparameters, sparse_shapes

Save = Callable[..., Path]
HEADS = {"num_heads": "8"}


def hyperparameters(**changes: object) -> SparseHyperparameters:
    settings: dict[str, object] = {
        "in_channels": 4,
        "model_channels": 32,
        "hint_channels": 3,
        "num_res_blocks": (1, 2),
        "channel_mult": (1, 2),
        "transformer_depth": (1, NO_ATTENTION, NO_ATTENTION),
        "transformer_depth_middle": 1,
        "context_dim": 24,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "latent_hint": False,
        "motion_depth": 1,
        "frames": 32,
    }
    return SparseHyperparameters(**settings | changes)  # type: ignore[arg-type]


RGB, SCRIBBLE = hyperparameters(latent_hint=True), hyperparameters()
RES_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
DIFFUSERS = {
    "attention_blocks.0.pos_encoder": "pos_embed",
    "attention_blocks.0": "attn1",
    "norms.0": "norm1",
    "ff_norm": "norm3",
}


def stored(name: str, net: SparseHyperparameters, layout: str) -> str:
    """The network's name as AnimateDiff or diffusers stores it."""
    blocks = [(level, place) for level, count in enumerate(net.num_res_blocks) for place in range(count + 1)]
    kind, _, rest = name.partition(".")
    number, _, inside = rest.partition(".")
    if kind == "motion_modules":
        level, place = [block for block in blocks if block[1] < net.num_res_blocks[block[0]]][int(number)]
        if layout == "AnimateDiff":
            return f"down_blocks.{level}.motion_modules.{place}.temporal_transformer.{inside}"
        for ours, theirs in DIFFUSERS.items():
            inside = re.sub(rf"(transformer_blocks\.\d+)\.{re.escape(ours)}\.", rf"\1.{theirs}.", inside)
        return f"down_blocks.{level}.motion_modules.{place}.{inside}"
    if kind == "input_hint_block":
        if net.latent_hint:
            return f"controlnet_cond_embedding.{inside}"
        index = int(number) // 2
        part = "conv_in" if index == 0 else "conv_out" if index == 7 else f"blocks.{index - 1}"
        return f"controlnet_cond_embedding.{part}.{inside}"
    if kind == "zero_convs":
        return f"controlnet_down_blocks.{number}.{inside.removeprefix('0.')}"
    if kind == "middle_block_out":
        return f"controlnet_mid_block.{inside}"
    if kind == "time_embed":
        return f"time_embedding.linear_{1 + int(number) // 2}.{inside}"
    if kind == "middle_block":
        place, block = int(number), "attentions.0" if number == "1" else f"resnets.{int(number) // 2}"
        return f"mid_block.{block}.{res_block(inside)}"
    if number == "0":
        return f"conv_in.{inside.removeprefix('0.')}"
    level, place = blocks[int(number) - 1]
    part, _, inside = inside.partition(".")
    if inside.startswith("op."):
        return f"down_blocks.{level}.downsamplers.0.conv.{inside.removeprefix('op.')}"
    block = "resnets" if part == "0" else "attentions"
    return f"down_blocks.{level}.{block}.{place}.{res_block(inside) if part == '0' else inside}"


def res_block(inside: str) -> str:
    for ours, theirs in RES_BLOCK.items():
        inside = inside.replace(ours + ".", theirs + ".")
    return inside


def random_file(net: SparseHyperparameters, layout: str = "AnimateDiff", encodings: bool = True) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = sparse_shapes(net, encodings)
    return {stored(name, net, layout): torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@st.composite
def architectures(draw: st.DrawFn) -> SparseHyperparameters:
    levels = draw(st.integers(1, 3))
    blocks = tuple(draw(st.integers(1, 2)) for _ in range(levels))
    depth = st.sampled_from([NO_ATTENTION, 1, 2])
    # With another number of channels, hint networks are those of other in_channels.
    return hyperparameters(
        num_res_blocks=blocks,
        channel_mult=(1, *(draw(st.integers(1, 2)) for _ in blocks[1:])),
        transformer_depth=(1, *(draw(depth) for _ in range(sum(blocks) - 1))),
        transformer_depth_middle=draw(st.sampled_from([NO_ATTENTION, 1])),
        context_dim=draw(st.sampled_from([8, 24])),
        latent_hint=draw(st.booleans()),
        motion_depth=draw(st.integers(1, 2)),
        frames=draw(st.sampled_from([24, 32])),
    )


@pytest.mark.parametrize("layout", ["AnimateDiff", "diffusers"])
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(net=architectures())
def test_round_trip(layout: str, net: SparseHyperparameters, tmp_path: Path) -> None:
    path = tmp_path / "any.safetensors"
    weights = random_file(net, layout)
    path.write_bytes(safetensors.torch.save(weights, HEADS))
    match = open_control(path).match
    assert match.hyperparameters == net
    assert match.family.name == f"a SparseCtrl ({'RGB' if net.latent_hint else 'scribble'})"
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith(".pe")}
    assert set(match.names.values()) == set(kept)
    assert match.parameter_count == sum(tensor.numel() for tensor in kept.values())


@pytest.mark.parametrize("net", [RGB, SCRIBBLE], ids=["RGB", "scribble"])
def test_the_network_has_the_files_weights(net: SparseHyperparameters, save: Save) -> None:
    pytest.importorskip("comfy")
    weights = random_file(net, encodings=False)
    loaded = load_checkpoint(
        save({"epoch": 3, "controlnet": {"animatediff_config": "", **weights}}, "sparse.ckpt"), sd1()
    )
    module = loaded.built.module
    assert set(module.state_dict()) == set(sparse_shapes(net))
    assert all(torch.equal(x, weights[stored(name, net, "AnimateDiff")]) for name, x in module.state_dict().items())
    assert (module.frames, module.latent_hint) == (32, net.latent_hint)
    assert [motion.transformer_blocks[0].attention_blocks[0].heads for motion in module.motion_modules] == [8, 8, 8]


def sd1(**changes: object) -> ConnectedBase:
    settings: dict[str, object] = {
        "name": "the other",
        "model_channels": 32,
        "channel_mult": (1, 2),
        "num_res_blocks": (1, 2),
        "context_dim": 24,
        "adm_in_channels": None,
        "num_heads": 8,
        "num_head_channels": -1,
    }
    return ConnectedBase(**settings | changes)  # type: ignore[arg-type]


def test_description(save: Save) -> None:
    assert open_control(save(random_file(RGB), metadata=HEADS)).match.describe() == (
        "family: a SparseCtrl (RGB)\nbase: custom (32 channels x 1-2, text of 24)\nhint: 3 channels\n"
        "pictures: for some frames of a video, as latents (connect a VAE to the Apply node)\n"
        "motion modules: 8 heads, up to 32 frames at a time\nparameters: 662 k\nweights in the file: float32"
    )
    scribble = open_control(save(random_file(hyperparameters(frames=24)), metadata=HEADS)).match
    assert scribble.notes == (
        "pictures: for some frames of a video",
        "motion modules: 8 heads, up to 24 frames at a time",
    )


def test_another_base(save: Save) -> None:
    path = save(random_file(SCRIBBLE), metadata=HEADS)
    open_control(path, sd1())
    with pytest.raises(BaseMismatchError) as caught:
        open_control(path, sd1(context_dim=40))
    assert str(caught.value) == (
        "'control.safetensors' is a control for the base custom (32 channels x 1-2, text of 24), but the connected model is of the base the other; "
        "connect a model that it was made for, or choose a control made for the connected one."
    )


def refused(save: Save, weights: dict[str, Tensor]) -> str:
    with pytest.raises(IncompleteError) as caught:
        open_control(save(weights, metadata=HEADS))
    return str(caught.value)


def test_nearly_a_sparsectrl(save: Save) -> None:
    base = "down_blocks.1.motion_modules.1.temporal_transformer"
    weights = random_file(SCRIBBLE)
    del weights[f"{base}.norm.weight"]
    assert refused(save, weights) == (
        f"'control.safetensors' looks like a SparseCtrl (scribble) and lacks '{base}.norm.weight', but all tensors of a SparseCtrl "
        "(scribble) were expected; download it again, or use the node that its author made for it."
    )
    weights = random_file(RGB) | {f"{base}.norm.scale": torch.zeros(1)}
    assert refused(save, weights) == (
        f"'control.safetensors' is a SparseCtrl (RGB) with tensors too many, '{base}.norm.scale', but exactly the tensors of such a "
        "network were expected, since the others would change the picture; use the node that its author made for it."
    )
    weights = random_file(RGB) | {"controlnet_cond_embedding.weight": torch.zeros(32, 4, 3, 3)}
    assert "'controlnet_cond_embedding.weight' has the shape [32, 4, 3, 3], but [32, 5, 3, 3] follows" in refused(
        save, weights
    )
    weights = random_file(SCRIBBLE) | {"controlnet_cond_embedding.conv_in.weight": torch.zeros(16, 3, 3, 3)}
    assert (
        "'controlnet_cond_embedding.conv_in.weight' has the shape [16, 3, 3, 3], but [16, 4, 3, 3] follows"
        in refused(save, weights)
    )
    encoding = f"{base}.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
    assert f"'{encoding}' has the shape [1, 16, 64]" in refused(
        save, random_file(SCRIBBLE) | {encoding: torch.zeros(1, 16, 64)}
    )
    weights = {name: x for name, x in random_file(SCRIBBLE).items() if name != encoding}
    assert f"lacks '{encoding}'" in refused(save, weights)
    weights = {name: x for name, x in random_file(SCRIBBLE).items() if "down_blocks.1.motion_modules.1" not in name}
    assert "lacks 'motion_modules.2.proj_in.weight'" in refused(save, weights)


def test_motion_modules_of_odd_widths(save: Save) -> None:
    assert refused(save, random_file(hyperparameters(model_channels=36))) == (
        "'control.safetensors' is a SparseCtrl (scribble) with a motion module of 36 channels, but a multiple of 8 was expected, the number of its "
        "attention heads; use the node that its author made for it."
    )


def test_motion_modules_alone(save: Save) -> None:
    weights = {name: x for name, x in random_file(RGB).items() if "controlnet" not in name}
    with pytest.raises(ValueError, match="is an AnimateDiff motion module"):
        open_control(save(weights))
    weights = {name: x for name, x in random_file(RGB).items() if "controlnet_cond" not in name}
    assert refused(save, weights) == (
        "'control.safetensors' looks like a SparseCtrl (scribble) and lacks 'input_hint_block.0.weight', but all tensors of a SparseCtrl (scribble) "
        "were expected; download it again, or use the node that its author made for it."
    )
