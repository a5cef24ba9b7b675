"""ControlNet-XS files: what is known of them, what loads them, and what is refused, in the layouts of three programs."""

from __future__ import annotations

import json
import re
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

from control_composer.checkpoints.base import ConnectedBase
from control_composer.checkpoints.encoder import NO_ATTENTION
from control_composer.checkpoints.errors import (
    AmbiguousHeadsError,
    BaseMismatchError,
    IncompleteError,
    RefusedFamilyError,
)
from control_composer.checkpoints.families.xs import XSMatch
from control_composer.checkpoints.load import load_checkpoint, open_control
from control_composer.checkpoints.xs import XSHyperparameters, xs_shapes
from control_composer.checkpoints.xs_settings import XSSettings
from control_composer.tests.checkpoints.conftest import random_tensor
from control_composer.tests.checkpoints.xs_names import model_modules, named, original_modules

Save = Callable[..., Path]

NARROW = XSHyperparameters(
    in_channels=4,
    hint_channels=3,
    hint_widths=(4, 6, 8, 10),
    channels=(4, 8, 8),
    base_channels=(32, 32, 64),
    depth=(NO_ATTENTION, NO_ATTENTION, 1, 2, 1, 1),
    depth_middle=2,
    inner=(4, 8, 8),
    context_dim=24,
    linear=True,
    own_time=False,
)
OWN_TIME = replace(NARROW, own_time=True)
HEADS = {"num_attention_heads": "[1, 2, 4]"}


def random_xs(net: XSHyperparameters, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: random_tensor(shape, generator) for name, shape in xs_shapes(net).items()}


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "a ControlNet-XS (diffusers layout)": dict,
    "a ControlNet-XS (layout of diffusers 0.25 to 0.27)": lambda tensors: named(tensors, model_modules(3)),
    "a ControlNet-XS (vislearn layout)": lambda tensors: (
        named(tensors, original_modules(3)) | {"scale_list": torch.ones(19)}
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_layouts(layout: str, wrapper: str, save: Save) -> None:
    tensors = random_xs(OWN_TIME)
    file = {f"{wrapper}{name}": tensor for name, tensor in LAYOUTS[layout](tensors).items()}
    match = open_control(save(file, metadata=HEADS | {"time_embedding_mix": "0.9"})).match
    assert match.family.name == layout
    norms = "adapter" if layout == "a ControlNet-XS (diffusers layout)" else "original"
    net = replace(OWN_TIME, norms=norms)
    assert match.hyperparameters == XSMatch(net, XSSettings((1, 2, 4), 0.9))
    assert set(match.names) == set(tensors)
    assert all(
        file[theirs] is not None and torch.equal(file[theirs], tensors[ours]) for ours, theirs in match.names.items()
    )
    assert match.parameter_count == sum(tensor.numel() for tensor in tensors.values())


def test_what_the_original_does_not_use(save: Save) -> None:
    """The annotator of its depth networks, and the embedding of the pooled vector, which it takes from the model."""
    unused = {"hint_model.model.weight": torch.ones(2), "control_model.label_emb.0.0.weight": torch.ones(2, 2)}
    file = named(random_xs(NARROW), original_modules(3)) | unused
    assert not set(unused) & set(open_control(save(file, metadata=HEADS)).match.names.values())


@st.composite
def architectures(draw: st.DrawFn) -> XSHyperparameters:
    levels = draw(st.integers(1, 4))
    widths = st.tuples(*(st.integers(1, 6).map(lambda n: 4 * n) for _ in range(levels)))
    channels, base = draw(widths), draw(widths)
    linear, context = draw(st.booleans()), draw(st.integers(1, 40))
    attends = [draw(st.booleans()) for _ in range(levels - 1)] + [True]
    depth = tuple(draw(st.integers(1, 2)) if there else NO_ATTENTION for there in attends for _ in range(2))
    return XSHyperparameters(
        in_channels=draw(st.sampled_from([4, 9])),
        hint_channels=draw(st.integers(1, 6)),
        hint_widths=tuple(draw(st.integers(1, 9)) for _ in range(4)),
        channels=channels,
        base_channels=base,
        depth=depth,
        depth_middle=draw(st.integers(1, 2)),
        inner=channels,
        context_dim=context,
        linear=linear,
        own_time=draw(st.booleans()),
    )


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(net=architectures())
def test_round_trip(net: XSHyperparameters, tmp_path: Path) -> None:
    path = tmp_path / "any.safetensors"
    told = {"num_head_channels": "4", "time_embedding_mix": "0.5"}
    path.write_bytes(safetensors.torch.save(random_xs(net), told))
    match = open_control(path).match
    heads = tuple(channels // 4 for channels in net.channels)
    assert match.hyperparameters == XSMatch(net, XSSettings(heads, 0.5 if net.own_time else None))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_network(dtype: torch.dtype, save: Save) -> None:
    """Its weights are the file's, and its parts go together."""
    pytest.importorskip("comfy")
    tensors = {name: tensor.to(dtype) for name, tensor in random_xs(OWN_TIME).items()}
    module = load_checkpoint(save(tensors, metadata=HEADS | {"time_embedding_mix": "1"})).built.module
    assert {name: tuple(x.shape) for name, x in module.state_dict().items()} == xs_shapes(OWN_TIME)
    assert all(torch.equal(x.to(dtype), tensors[name]) for name, x in module.state_dict().items())
    assert len(list(module.to_base())) == 9 + 1 + 9
    hint = torch.rand(2, 3, 64, 128, dtype=module.conv_in.weight.dtype)
    assert module.controlnet_cond_embedding(hint).shape == (2, 4, 8, 16)


SD2 = ConnectedBase("SD2", 320, (1, 2, 4, 4), (2, 2, 2, 2), 1024, None, -1, 64)
OTHER = ConnectedBase("the other", 32, (1, 1, 2), (2, 2, 2), 24, None, 4, -1)


def test_base(save: Save) -> None:
    path = save(random_xs(NARROW), metadata=HEADS)
    open_control(path, OTHER)
    for wrong in (
        SD2,
        replace(OTHER, channel_mult=(1, 2, 2)),
        replace(OTHER, num_res_blocks=(1, 1, 1)),
        replace(OTHER, context_dim=25),
    ):
        with pytest.raises(BaseMismatchError) as caught:
            open_control(path, wrong)
        assert str(caught.value) == (
            f"'control.safetensors' is a control for the base custom (32-32-64 channels, text of 24), but the connected model is of the base "
            f"{wrong.name}; connect a model that it was made for, or choose a control made for the connected one."
        )


def settings_of(path: Path, connected: ConnectedBase | None = None) -> XSSettings:
    found: XSSettings = open_control(path, connected).match.hyperparameters.settings
    return found


def test_heads_by_the_metadata(save: Save) -> None:
    tensors = random_xs(NARROW)
    for told, heads in (
        ({"num_attention_heads": "[1, 2, 4]"}, (1, 2, 4)),
        ({"num_attention_heads": "4,2,1"}, (4, 2, 1)),
        ({"num_attention_heads": "2"}, (2, 2, 2)),
        ({"num_heads": "4"}, (4, 4, 4)),
        ({"num_head_channels": "8"}, (1, 1, 1)),
        ({"attention_head_dim": "[1,1,2]"}, (1, 1, 2)),
    ):
        found = settings_of(save(tensors, metadata=told), OTHER)
        assert (found.heads, found.source) == (heads, "metadata")


def test_heads_by_the_model(save: Save) -> None:
    """As diffusers' from_unet takes them over: the model's own numbers, level by level."""
    path = save(random_xs(NARROW), metadata={})
    assert settings_of(path, OTHER) == XSSettings((4, 4, 4), None)
    assert settings_of(path, OTHER).source == "model"
    width = replace(OTHER, num_heads=-1, num_head_channels=16)
    assert settings_of(path, width) == XSSettings((2, 2, 4), None)
    # Two networks, not one, though the file is the same.
    assert open_control(path, OTHER).match.key != open_control(path, width).match.key


@pytest.mark.parametrize("told", [{}, {"num_attention_heads": "many"}, {"num_heads": "0"}, {"num_heads": "9" * 5000}])
def test_heads_are_not_guessed(told: dict[str, str], save: Save) -> None:
    with pytest.raises(AmbiguousHeadsError) as caught:
        open_control(save(random_xs(NARROW), metadata=told))
    assert str(caught.value) == (
        "'control.safetensors' splits a control stream of 4-8-8 channels into numbers of attention heads that its shapes cannot tell, but they "
        "must be those it was trained with; put the config.json that diffusers saved with it beside it, or save it with 'num_attention_heads' in "
        "its safetensors metadata."
    )


def test_heads_that_do_not_fit(save: Save) -> None:
    for told, said in (("3", "3-3-3"), ("[2, 2]", "2-2"), ("[1, 1, 16]", "1-1-16")):
        with pytest.raises(AmbiguousHeadsError, match=re.escape(f"attention heads said to be {said} (metadata), but")):
            open_control(save(random_xs(NARROW), metadata={"num_attention_heads": told}))
    # The first level has no attention.
    assert settings_of(save(random_xs(NARROW), metadata={"num_attention_heads": "[5, 2, 2]"})).heads == (5, 2, 2)


def test_attention_a_little_narrower_than_its_level(save: Save) -> None:
    """Where heads do not divide the channels, diffusers rounds the width of each down."""
    net = replace(NARROW, inner=(4, 6, 8))
    assert settings_of(save(random_xs(net), metadata={"num_attention_heads": "[1, 3, 4]"})).heads == (1, 3, 4)
    with pytest.raises(AmbiguousHeadsError, match=r"1-2-4 \(metadata\)"):
        open_control(save(random_xs(net), metadata={"num_attention_heads": "[1, 2, 4]"}))


def test_time_embedding(save: Save) -> None:
    tensors = random_xs(OWN_TIME)
    assert settings_of(save(tensors, metadata=HEADS | {"time_embedding_mix": "0.95"})).time_share == 0.95**0.3
    assert settings_of(save(tensors, metadata=HEADS | {"learn_time_embedding": "false"})).time_mix is None
    assert settings_of(save(random_xs(NARROW), metadata=HEADS | {"time_embedding_mix": "0.5"})).time_share == 0
    with pytest.raises(AmbiguousHeadsError) as caught:
        open_control(save(tensors, metadata=HEADS))
    assert str(caught.value) == (
        "'control.safetensors' has a time embedding of its own, whose share in the model's its shapes cannot tell, but it must be the one it was "
        "trained with; put the config.json that diffusers saved with it beside it, or save it with 'time_embedding_mix' in its safetensors metadata."
    )
    for wrong in ("1.5", "-0.1", "NaN", "Infinity"):
        with pytest.raises(AmbiguousHeadsError, match="but a number from 0 to 1 was expected"):
            open_control(save(tensors, metadata=HEADS | {"time_embedding_mix": wrong}))


def test_config_beside_the_file(save: Save) -> None:
    path = save(random_xs(OWN_TIME), metadata={})
    config: dict[str, Any] = {
        "_class_name": "ControlNetXSAdapter",
        "block_out_channels": [4, 8, 8],
        "num_attention_heads": [1, 2, 2],
        "time_embedding_mix": 0.25,
        "conditioning_channel_order": "bgr",
    }
    beside = path.parent / "config.json"
    beside.write_text(json.dumps(config))
    assert settings_of(path) == XSSettings((1, 2, 2), 0.25, bgr=True)
    assert settings_of(path).source == "config.json"
    # The file's own metadata come first.
    path = save(random_xs(OWN_TIME), metadata=HEADS)
    assert settings_of(path).heads == (1, 2, 4)
    # That of another network, or none at all.
    for other in (
        config | {"_class_name": "ControlNetModel"},
        config | {"block_out_channels": [4, 8, 16]},
        [config],
    ):
        beside.write_text(json.dumps(other))
        with pytest.raises(AmbiguousHeadsError):
            open_control(path)
    for broken in ("{", "[" * 100_000, "\0"):
        beside.write_text(broken)
        with pytest.raises(AmbiguousHeadsError):
            open_control(path)


def test_description(save: Save) -> None:
    told = HEADS | {"time_embedding_mix": "0.95", "conditioning_channel_order": "bgr"}
    match = open_control(save({name: x.half() for name, x in random_xs(OWN_TIME).items()}, metadata=told)).match
    assert match.describe() == (
        "family: a ControlNet-XS (diffusers layout)\nbase: custom (32-32-64 channels, text of 24)\nhint: 3 channels\n"
        "control stream: 4-8-8 channels; heads 1-2-4 (metadata)\ntime embedding: its own, mix 0.95\nhint channels: blue, green, red\n"
        f"parameters: {match.parameter_count / 1000:.3g} k\nweights in the file: float16"
    )
    assert "time embedding: the model's" in open_control(save(random_xs(NARROW), metadata=HEADS)).match.describe()


def test_nearly_an_xs(save: Save) -> None:
    tensors = random_xs(NARROW)
    lost = {name: x for name, x in tensors.items() if name != "mid_block.ctrl_to_base.bias"}
    with pytest.raises(
        IncompleteError, match=r"looks like a ControlNet-XS .* and lacks 'mid_block.ctrl_to_base.bias', but"
    ):
        open_control(save(lost, metadata=HEADS))
    with pytest.raises(IncompleteError, match=r"with tensors too many, 'motion.weight', but exactly the tensors"):
        open_control(save(tensors | {"motion.weight": torch.ones(1)}, metadata=HEADS))
    wrong = tensors | {"down_blocks.1.resnets.0.norm1.weight": torch.ones(7)}
    with pytest.raises(
        IncompleteError, match=r"'down_blocks.1.resnets.0.norm1.weight' has the shape \[7\], but \[36\] follows"
    ):
        open_control(save(wrong, metadata=HEADS))
    with pytest.raises(IncompleteError, match=r"and lacks 'conv_in.weight'"):
        open_control(save({name: x for name, x in tensors.items() if not name.startswith("conv_in")}, metadata=HEADS))
    lost = {
        name: x
        for name, x in named(tensors, original_modules(3)).items()
        if name != "control_model.input_blocks.0.0.weight"
    }
    with pytest.raises(IncompleteError, match=r"\(vislearn layout\) and lacks 'control_model.input_blocks.0.0.weight'"):
        open_control(save(lost, metadata=HEADS))


def test_other_kinds_of_the_original(save: Save) -> None:
    """One whose stream does not add to the model's encoder, and one whose stream goes on through the decoder."""
    tensors = named(random_xs(NARROW), original_modules(3))
    one_way = {name: x for name, x in tensors.items() if not name.startswith("enc_zero_convs_out.")}
    with pytest.raises(IncompleteError, match=r"looks like a ControlNet-XS \(vislearn layout\) and lacks "):
        open_control(save(one_way, metadata=HEADS))
    through = tensors | {"control_model.output_blocks.0.0.in_layers.0.weight": torch.ones(8)}
    with pytest.raises(
        IncompleteError, match=r"with tensors too many, 'control_model.output_blocks.0.0.in_layers.0.weight'"
    ):
        open_control(save(through, metadata=HEADS))


def test_a_hint_network_of_another_size(save: Save) -> None:
    with pytest.raises(IncompleteError) as caught:
        open_control(save(random_xs(replace(NARROW, hint_widths=(4, 8))), metadata=HEADS))
    assert str(caught.value) == (
        "'control.safetensors' is a ControlNet-XS (diffusers layout) whose hint network halves the picture 1 times, but 3 times were expected, down "
        "to the size of the latent; use the node that its author made for it."
    )


def test_merged_with_its_model(save: Save) -> None:
    names = ("base_conv_in.weight", "down_blocks.0.ctrl_resnets.0.conv1.weight", "control_to_base_for_conv_in.weight")
    with pytest.raises(RefusedFamilyError) as caught:
        open_control(save({name: torch.ones(1) for name in names}, metadata={}))
    assert str(caught.value) == (
        "'control.safetensors' is a ControlNet-XS merged with its model (it has the key 'down_blocks.0.ctrl_resnets.0.conv1.weight'), but a "
        "ControlNet was expected; save diffusers' ControlNetXSAdapter instead of its UNetControlNetXSModel, and choose that file here."
    )
