"""ControlNet-LLLite files: names and shapes -> numbers -> modules; what is refused, in which words."""

from __future__ import annotations

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
from control_composer.checkpoints.errors import BaseMismatchError, IncompleteError
from control_composer.checkpoints.families import FAMILIES
from control_composer.checkpoints.lllite import LLLiteHyperparameters, place_of
from control_composer.tests.checkpoints.lllite_reference import module, published, random_lllite

Save = Callable[..., Path]
SD1 = ConnectedBase("SD1", 320, (1, 2, 4, 4), (2, 2, 2, 2), 768, None, 8, -1)
SDXL = ConnectedBase("SDXL", 320, (1, 2, 4), (2, 2, 2), 2048, 2816, -1, 64)
NARROW = ConnectedBase("custom", 32, (1, 2, 4, 4), (2, 2, 2, 2), 24, None, 4, -1)
INPUTS = ("attn1_to_q", "attn1_to_k", "attn1_to_v", "attn2_to_q")


def sdxl(widths: tuple[int, int] = (640, 1280), **sizes: int) -> LLLiteHyperparameters:
    """The modules that kohya-ss/sd-scripts makes for SDXL, in the UNet's order."""
    first, second = widths
    blocks = [(f"input_blocks_{n}", first, 2, 2) for n in (4, 5)]
    blocks += [(f"input_blocks_{n}", second, 3, 10) for n in (7, 8)] + [("middle_block", second, 3, 10)]
    modules = [
        module(block, projection, transformer, **({"width": width, "depth": depth} | sizes))
        for block, width, depth, transformers in blocks
        for transformer in range(transformers)
        for projection in ("attn1_to_k", "attn1_to_q", "attn1_to_v", "attn2_to_q")
    ]
    return LLLiteHyperparameters(tuple(modules))


def small(**sizes: int) -> LLLiteHyperparameters:
    return LLLiteHyperparameters(
        (module("input_blocks_4", **sizes), module("middle_block", **({"width": 128} | sizes)))
    )


PLACES = st.lists(
    st.tuples(
        st.sampled_from(["input_blocks_1", "input_blocks_4", "input_blocks_8", "middle_block", "output_blocks_10"]),
        st.sampled_from(INPUTS),
        st.integers(0, 11),
    ),
    min_size=1,
    max_size=6,
    unique=True,
)
SIZES = st.fixed_dictionaries(
    {
        "width": st.integers(1, 80),
        "depth": st.integers(1, 3),
        "embedding": st.integers(2, 40),
        "bottleneck": st.integers(1, 70),
        "convolution": st.booleans(),
    }
)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=PLACES, sizes=st.lists(SIZES, min_size=6, max_size=6), channels=st.integers(1, 4), half=st.booleans())
def test_round_trip(
    places: list[tuple[str, str, int]], sizes: list[dict[str, int]], channels: int, half: bool, tmp_path: Path
) -> None:
    modules = [module(*place, **size) for place, size in zip(places, sizes, strict=False)]
    net = LLLiteHyperparameters(tuple(sorted(modules, key=lambda one: one.place.order)), channels)
    tensors = {name: tensor.half() if half else tensor for name, tensor in random_lllite(net).items()}
    path = tmp_path / "any.safetensors"
    path.write_bytes(safetensors.torch.save(tensors))
    match = open_control(path).match
    assert match.family.name == "a ControlNet-LLLite"
    assert match.hyperparameters == net
    assert match.hyperparameters.hint_channels == channels
    assert match.parameter_count == sum(tensor.numel() for tensor in tensors.values())
    assert match.dtype == (torch.float16 if half else torch.float32)


def test_order_is_the_unets() -> None:
    names = [
        "input_blocks_4_1_transformer_blocks_1_attn2_to_q",
        "input_blocks_4_1_transformer_blocks_10_attn1_to_q",
        "input_blocks_11_1_transformer_blocks_0_attn1_to_v",
        "middle_block_1_transformer_blocks_0_attn1_to_k",
        "output_blocks_3_1_transformer_blocks_0_attn1_to_q",
    ]
    places = [place_of(f"lllite_unet_{name}") for name in names]
    assert sorted(reversed(places), key=lambda place: place.order) == places


def test_blocks_have_the_levels_of_their_base() -> None:
    assert sdxl().blocks == (
        ("input", 4, 1, 640),
        ("input", 5, 1, 640),
        ("input", 7, 2, 1280),
        ("input", 8, 2, 1280),
        ("middle", 0, 2, 1280),
    )
    names = [f"input_blocks_{n}" for n in (1, 2, 4, 5, 7, 8)] + ["middle_block"]
    names += [f"output_blocks_{n}" for n in (3, 5, 6, 8, 9, 11)]
    modules = LLLiteHyperparameters(tuple(module(name) for name in names))
    assert [level for _, _, level, _ in modules.blocks] == [0, 0, 1, 1, 2, 2, 3, 2, 2, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("net", "base"),
    [
        (sdxl(), "SDXL"),
        (LLLiteHyperparameters((module("input_blocks_1", width=320, depth=1),)), "SD1 or SD2"),
        (LLLiteHyperparameters((module("output_blocks_1", width=1280, depth=3),)), "SDXL"),
        (LLLiteHyperparameters((module("input_blocks_4", width=640),)), "SD1 or SD2 or SDXL"),
        (small(), "custom (64-128 channels)"),
    ],
)
def test_base(net: LLLiteHyperparameters, base: str, save: Save) -> None:
    path = save({name: tensor.half() for name, tensor in random_lllite(net).items()})
    assert open_control(path).match.base == base
    for connected in (SD1, SDXL, NARROW):
        if connected.name in base.split(" or ") or (connected is NARROW and "64-128" in base):
            open_control(path, connected)
        else:
            with pytest.raises(BaseMismatchError) as caught:
                open_control(path, connected)
            assert str(caught.value) == (
                f"'control.safetensors' is a control for the base {base}, but the connected model is of the base {connected.name}; connect a "
                "model that it was made for, or choose a control made for the connected one."
            )


def test_no_unet_at_all(save: Save) -> None:
    transformer = ConnectedBase("Flux", 0, (), (), None, None, 0, 0)
    with pytest.raises(BaseMismatchError, match="but the connected model is of the base Flux; "):
        open_control(save(random_lllite(small())), transformer)


def test_description(save: Save) -> None:
    tensors = {name: tensor.half() for name, tensor in random_lllite(sdxl(embedding=4, bottleneck=2)).items()}
    assert open_control(save(tensors)).match.describe() == (
        "family: a ControlNet-LLLite\nbase: SDXL\nhint: 3 channels\nmodules: 136, in input 4, 5, 7, 8, middle\nparameters: 849 k\n"
        "weights in the file: float16"
    )


def without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


FIRST = "lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    "name", ["conditioning1.0.weight", "conditioning1.2.weight", "down.0.weight", "mid.0.bias", "up.0.bias"]
)
def test_a_missing_tensor(name: str, save: Save) -> None:
    path = save(without(random_lllite(small()), f"{FIRST}.{name}"))
    with pytest.raises(IncompleteError) as caught:
        open_control(path)
    assert str(caught.value) == (
        f"'control.safetensors' looks like a ControlNet-LLLite and lacks '{FIRST}.{name}', but all tensors of a ControlNet-LLLite were "
        "expected; download it again, or use the node that its author made for it."
    )


def test_a_tensor_too_many(save: Save) -> None:
    with pytest.raises(IncompleteError) as caught:
        open_control(save(random_lllite(small()) | {f"{FIRST}.mid.1.weight": torch.zeros(1)}))
    assert str(caught.value).startswith(
        f"'control.safetensors' is a ControlNet-LLLite with tensors too many, '{FIRST}.mid.1.weight', but "
    )


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("mid.0.weight", (5, 12), [5, 11]),
        ("up.0.weight", (64, 5, 1, 1), [64, 5]),
        ("conditioning1.2.weight", (6, 3, 3, 3), [6, 3, 2, 2]),
        ("conditioning1.0.bias", (4,), [3]),
    ],
)
def test_a_wrong_shape(name: str, shape: tuple[int, ...], expected: list[int], save: Save) -> None:
    with pytest.raises(IncompleteError) as caught:
        open_control(save(random_lllite(small()) | {f"{FIRST}.{name}": torch.zeros(shape)}))
    assert str(caught.value) == (
        f"'control.safetensors' is a ControlNet-LLLite whose tensor '{FIRST}.{name}' has the shape {list(shape)}, but {expected} follows from "
        "its other tensors; download it again, or ask its author for a file of the ordinary architecture."
    )


@pytest.mark.parametrize(
    "place",
    [
        "input_blocks_4_1_transformer_blocks_0_attn2_to_k",  # reads the text, which is no picture
        "input_blocks_4_1_transformer_blocks_0_attn1_to_out_0",
        "input_blocks_4_1_transformer_blocks_0_ff_net_2",
        "input_blocks_4_0_in_layers_2",
        "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
        "input_blocks_04_1_transformer_blocks_0_attn1_to_q",
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q\n",
    ],
)
def test_a_place_that_cannot_be_reached(place: str, save: Save) -> None:
    tensors = random_lllite(small())
    tensors |= {
        name.replace(FIRST, f"lllite_unet_{place}"): tensor.clone() for name, tensor in tensors.items() if FIRST in name
    }
    with pytest.raises(IncompleteError) as caught:
        open_control(save(tensors))
    assert str(caught.value) == (
        f"'control.safetensors' is a ControlNet-LLLite with a module for '{place.replace(chr(10), '?')}', but modules for q, k and v of "
        "self-attention and q of cross-attention in the UNet's own names were expected, and the host gives no way to any other place; use the "
        "node that its author made for it."
    )


def test_animas_is_another_family() -> None:
    names = ("lllite_conditioning1.conv1.weight", "lllite_dit_blocks_0_self_attn_q_proj.down.weight")
    anima = dict.fromkeys(names)
    assert [family.name for family in FAMILIES if family.condition.holds(anima)] == ["an Anima ControlNet-LLLite"]


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("convolution", [False, True])
@torch.no_grad()
def test_modules_compute_what_the_published_ones_do(depth: int, convolution: bool, save: Save) -> None:
    pytest.importorskip("comfy")
    net = small(depth=depth, convolution=convolution)
    tensors = random_lllite(net)
    loaded = load_checkpoint(save(tensors))
    generator = torch.Generator().manual_seed(1)
    hint = torch.rand(2, 3, 64, 96, generator=generator)
    embeddings = loaded.built.module.embed(hint)
    for one, place, embedding in zip(net.modules, loaded.built.module.places.values(), embeddings, strict=True):
        stride = 4 * 2**depth
        assert embedding.shape == (2, 64 // stride, 96 // stride, one.bottleneck)
        tokens = torch.randn(4, 64 * 96 // stride**2, one.width, generator=generator)
        ours = place(tokens, embedding.flatten(1, 2).repeat(2, 1, 1))
        theirs = published(tensors, one.name, tokens, hint)
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="maps are listed on Linux")
@pytest.mark.parametrize("convolution", [False, True])
def test_weights_stay_in_the_file(convolution: bool, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but `mid`, which is taken apart; it is small."""
    pytest.importorskip("comfy")
    from control_composer.checkpoints import mapping
    from control_composer.tests.checkpoints.test_mapping import is_mapped

    monkeypatch.setattr(mapping, "file_system", lambda path: "ext4")
    tensors = random_lllite(small(convolution=convolution))
    path = save(tensors)
    state = load_checkpoint(path).built.module.state_dict()
    assert all(
        is_mapped(tensor, path)
        for name, tensor in state.items()
        if not name.endswith(("mid.weight", "mid_hint.weight"))
    )
    mid = tensors[f"{FIRST}.mid.0.weight"].flatten(1)
    assert torch.equal(state[f"places.{FIRST}.mid_hint.weight"], mid[:, :6])
    assert torch.equal(state[f"places.{FIRST}.mid.weight"], mid[:, 6:])
