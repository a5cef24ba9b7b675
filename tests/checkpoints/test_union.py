"""Union networks: shapes -> numbers -> the host's network, and the same residuals as diffusers' and the host's classes for every type."""

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
from control_composer.checkpoints.diffusers_layout import cldm_names
from control_composer.checkpoints.encoder import NO_ATTENTION
from control_composer.checkpoints.errors import IncompleteError, RefusedFamilyError, UnionTypeError
from control_composer.checkpoints.families import FAMILIES
from control_composer.checkpoints.families.union import UNION_TYPES, UnionHyperparameters, UnionLoader

Save = Callable[..., Path]
TOLERANCE = 1e-4
NET = UnionHyperparameters(
    in_channels=4,
    model_channels=320,
    hint_channels=3,
    num_res_blocks=(1, 1),
    channel_mult=(1, 1),
    transformer_depth=(NO_ATTENTION, 1),
    transformer_depth_middle=1,
    context_dim=48,
    use_linear_in_transformer=True,
    adm_in_channels=40 + 6 * 8,
    control_types=6,
)
LOADER = next(family.loader for family in FAMILIES if family.name == "a Union ControlNet (cldm layout)")
assert isinstance(LOADER, UnionLoader)


def zeros(net: UnionHyperparameters) -> dict[str, Tensor]:
    return {name: torch.zeros(shape, dtype=torch.float16) for name, shape in LOADER.shapes(net).items()}


def reference(types: int, hint_widths: tuple[int, ...] = (16, 32, 96, 256)) -> Any:
    """Diffusers' model with every weight random."""
    diffusers = pytest.importorskip("diffusers")
    net = diffusers.ControlNetUnionModel(
        block_out_channels=(320, 320),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1),
        attention_head_dim=(5, 5),  # numbers of heads
        conditioning_embedding_out_channels=hint_widths,
        cross_attention_dim=48,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=40 + 6 * 256,
        num_control_type=types,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            scale = 0.1 if parameter.ndim == 1 or name == "task_embedding" else parameter[0].numel() ** -0.5
            noise = torch.randn(parameter.shape, generator=generator) * scale
            parameter.copy_(noise + float(parameter.ndim == 1 and "norm" in name))
    return net.eval()


@pytest.mark.parametrize("types", [6, 8])
@torch.no_grad()
def test_residuals_equal_both_classes(types: int, save: Save) -> None:
    """One picture at a time: diffusers' small transformer takes the rows of a batch for the tokens of one sequence."""
    pytest.importorskip("comfy")
    from control_composer.control import EncoderNetwork

    net = reference(types)
    loaded = load_checkpoint(save(dict(net.state_dict()), metadata={"num_head_channels": "64"}))
    assert loaded.match.family.name == "a Union ControlNet (diffusers layout)"
    assert loaded.match.hyperparameters.control_types == types
    assert loaded.match.parameter_count == sum(parameter.numel() for parameter in net.parameters())
    network = EncoderNetwork.from_module(loaded.built.module, name="union", base="custom")
    assert network.control_types == types

    generator = torch.Generator().manual_seed(2)
    x, hint = torch.randn(1, 4, 8, 16, generator=generator), torch.rand(1, 3, 64, 128, generator=generator)
    time, context = torch.tensor([501.0]), torch.randn(1, 7, 48, generator=generator)
    added = {
        "text_embeds": torch.randn(1, 40, generator=generator),
        "time_ids": torch.tensor([[64.0, 128, 0, 8, 64, 128]]),
    }
    y = torch.cat([added["text_embeds"], net.add_time_proj(added["time_ids"].flatten()).reshape(1, -1)], dim=1)
    seen = []
    for number in range(types):
        chosen = torch.nn.functional.one_hot(torch.tensor([number]), types).float()
        down, middle = net(x, time, context, [hint], chosen, [number], added_cond_kwargs=added, return_dict=False)
        host = loaded.built.module(x, hint, time, context, y=y, control_type=[number])
        of_type = network.with_type(number)
        ours = of_type.residuals(x, of_type.embed_hint(hint), time, context, y)
        found = [*ours.output, *ours.middle]
        for mine, hosts, theirs in zip(found, [*host["output"], *host["middle"]], [*down, middle], strict=True):
            assert mine is not None and mine.shape == theirs.shape
            assert float((mine - hosts).abs().max() / hosts.abs().max()) <= 1e-5
            assert float((mine - theirs).abs().max() / theirs.abs().max()) <= TOLERANCE
        seen.append(found[-1])
    assert all(float((seen[0] - other).abs().max()) > 1e-3 for other in seen[1:])  # types differ

    # Rows of different types in one batch, one of them of none.
    untyped = network.residuals(x, network.embed_hint(hint), time, context, y)
    expected = loaded.built.module(x, hint, time, context, y=y, control_type=[])
    assert float((untyped.output[0] - expected["output"][0]).abs().max()) <= 1e-4  # type: ignore[operator]
    three = [network.with_type(number) for number in (2, None, 5)]
    hints = torch.cat([one.embed_hint(hint) for one in three])
    rows = network.residuals(
        x.repeat(3, 1, 1, 1), hints, time.repeat(3), context.repeat(3, 1, 1), y.repeat(3, 1), [(2,), (), (5,)]
    )
    for row, alone in enumerate((seen[2], untyped.middle[0], seen[5])):
        assert float((rows.middle[0][row] - alone[0]).abs().max() / alone.abs().max()) <= 1e-5  # type: ignore[index]


@pytest.mark.parametrize("layout", ["diffusers", "cldm"])
@torch.no_grad()
def test_a_wide_hint_network(layout: str, save: Save) -> None:
    """Files in ldm naming with 48 to 384 channels, which the host's class has no argument for, embed a hint as diffusers' class does."""
    pytest.importorskip("comfy")
    from control_composer.control import EncoderNetwork

    net = reference(6, (48, 96, 192, 384))
    tensors = dict(net.state_dict())
    if layout == "cldm":
        tensors = {"control_model." + cldm_names(tensors)[name]: tensor for name, tensor in tensors.items()}
    loaded = load_checkpoint(save(tensors, metadata={"num_head_channels": "64"}))
    assert loaded.match.family.name == f"a Union ControlNet ({layout} layout)"
    assert loaded.match.hyperparameters.hint_widths == (48, 96, 192, 384)
    network = EncoderNetwork.from_module(loaded.built.module, name="union", base="custom")
    assert network.hint_channels == 3
    hint = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(2))
    expected = net.controlnet_cond_embedding(hint)
    assert float((network.embed_hint(hint) - expected).abs().max() / expected.abs().max()) <= TOLERANCE


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    types=st.integers(1, 11),
    hint=st.integers(1, 5),
    widths=st.sampled_from([(16, 32, 96, 256), (48, 96, 192, 384), (8, 8, 8, 8)]),
    prefix=st.sampled_from(["", "control_model."]),
)
def test_round_trip(types: int, hint: int, widths: tuple[int, ...], prefix: str, tmp_path: Path) -> None:
    net = UnionHyperparameters(**{**vars(NET), "control_types": types, "hint_channels": hint, "hint_widths": widths})
    path = tmp_path / "any.safetensors"
    tensors = {prefix + name: tensor for name, tensor in zeros(net).items()}
    path.write_bytes(safetensors.torch.save(tensors, {"num_head_channels": "64"}))
    match = open_control(path).match
    assert match.hyperparameters == net
    assert match.family.name == "a Union ControlNet (cldm layout)"


def test_the_names_of_types_are_the_hosts() -> None:
    types = pytest.importorskip("comfy.cldm.control_types")
    assert {name: number for number, name in enumerate(UNION_TYPES)} == types.UNION_CONTROLNET_TYPES


def test_description_lists_the_types(save: Save) -> None:
    text = open_control(save(zeros(NET), metadata={"num_head_channels": "64"})).match.describe()
    assert (
        "\ntypes: openpose, depth, hed/pidi/scribble/ted, canny/lineart/anime_lineart/mlsd, normal, segment\n" in text
    )


def test_a_type_that_the_file_lacks(save: Save, weights: dict[str, Tensor]) -> None:
    pytest.importorskip("comfy")
    from control_composer.control import ControlError, EncoderNetwork
    from control_composer.nodes.load import load_source

    path = save(zeros(NET), metadata={"num_head_channels": "64"})
    with pytest.raises(UnionTypeError) as caught:
        load_source(path, None, "auto", "tile")
    assert str(caught.value) == (
        "'control.safetensors' has the types openpose, depth, hed/pidi/scribble/ted, canny/lineart/anime_lineart/mlsd, normal, segment, "
        "but union_type tile was asked for; choose one of its types, auto, or another file."
    )
    network, description = load_source(path, None, "auto", "depth")
    assert isinstance(network, EncoderNetwork) and network.union_type == 1
    assert description.endswith("\npooling: off\ntype: depth")
    with pytest.raises(ControlError) as refused:
        network.with_type(7)
    assert str(refused.value) == (
        "control.safetensors is a union ControlNet of the types openpose, depth, hed/pidi/scribble/ted, canny/lineart/anime_lineart/mlsd, "
        "normal, segment, but the type repaint was asked for; choose one of its types, or another file."
    )
    plain = save(weights, "plain.safetensors")
    with pytest.raises(UnionTypeError) as caught:
        load_source(plain, None, "auto", "tile")
    assert str(caught.value) == (
        "'plain.safetensors' is a ControlNet (cldm layout), which has no types, but union_type tile was asked for; set union_type to auto."
    )


def test_nearly_a_union(save: Save) -> None:
    tensors = zeros(NET)
    del tensors["spatial_ch_projs.bias"]
    with pytest.raises(
        IncompleteError, match=r"looks like a Union ControlNet \(cldm layout\) and lacks 'spatial_ch_projs.bias'"
    ):
        open_control(save(tensors))
    narrow = UnionHyperparameters(**{**vars(NET), "model_channels": 64})
    with pytest.raises(IncompleteError) as caught:
        open_control(save(zeros(narrow)))
    assert str(caught.value) == (
        "'control.safetensors' is a Union ControlNet (cldm layout) of 64 channels, but 320 were expected, the width of its type embeddings "
        "in every network that computes it; use the node that its author made for it."
    )
    tensors = zeros(NET) | {"input_hint_block.4.weight": torch.zeros(48, 16, 3, 3)}
    with pytest.raises(IncompleteError) as caught:
        open_control(save(tensors))
    assert str(caught.value) == (
        "'control.safetensors' is a Union ControlNet (cldm layout) whose tensor 'input_hint_block.4.bias' has the shape [32], but [48] follows "
        "from its other tensors; download it again, or ask its author for a file of the ordinary architecture."
    )
    tensors = zeros(NET) | {"task_embedding": torch.zeros(0, 320)}
    with pytest.raises(IncompleteError, match="lacks 'task_embedding'"):
        open_control(save(tensors))


def test_a_fuser_of_adapters_is_no_union(save: Save) -> None:
    with pytest.raises(RefusedFamilyError, match="is a CoAdapter fuser"):
        open_control(save({"task_embedding": torch.zeros(16, 768), "positional_embedding": torch.zeros(1)}))
