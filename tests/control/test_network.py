import copy

import pytest

pytest.importorskip("comfy")

import comfy.cldm.cldm
import comfy.ops
import torch

from control_composer.control import ControlError, EncoderNetwork
from control_composer.control.network import layout_of
from control_composer.tests import narrow
from control_composer.tests.residuals.layouts import SD1, SDXL


def network(module, **arguments):
    return EncoderNetwork.from_module(module, name="test.safetensors", base="SD1", **arguments)


def inputs(kind, height=9, width=13, rows=2):
    config = narrow.CONFIGS[kind].unet_config
    generator = torch.Generator().manual_seed(0)
    return {
        "x": torch.randn(rows, 4, height, width, generator=generator),
        "hint": torch.rand(1, 3, 8 * height, 8 * width, generator=generator),
        "timesteps": torch.tensor([981.0, 3.0])[:rows],
        "context": torch.randn(rows, 7, config["context_dim"], generator=generator),
        "y": torch.randn(rows, 2816, generator=generator) if kind == "sdxl" else None,
    }


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_the_two_steps_equal_the_forward_of_the_host(kind):
    module = narrow.make_module(kind)
    values = inputs(kind)
    with torch.inference_mode():
        expected = module(**values)
        split = network(module)
        found = split.residuals(
            values["x"], split.embed_hint(values["hint"]), values["timesteps"], values["context"], values["y"]
        )
    for place in ("output", "middle"):
        for a, b in zip(found.to_host()[place], expected[place], strict=True):
            assert torch.equal(a, b)
    found.check(split.blocks(9, 13), 2, "test")


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_widths_are_read_from_the_network(kind):
    config = narrow.CONFIGS[kind].unet_config
    found = network(narrow.make_module(kind, hint_channels=5))
    assert (found.hint_channels, found.model_channels) == (5, 32)
    assert (found.context_dim, found.adm_channels) == (config["context_dim"], config["adm_in_channels"])
    assert found.layout == layout_of(narrow.make_model(kind).model.diffusion_model)


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        (
            SD1,
            {"context_dim": 768, "num_heads": 8}
            | {key: narrow.SD1[key] for key in ("transformer_depth", "channel_mult")},
        ),
        (SDXL, {"context_dim": 2048, "transformer_depth": [0, 0, 2, 2, 10, 10], "channel_mult": [1, 2, 4]}),
    ],
)
def test_layout_of_the_real_widths(layout, changes):
    config = copy.deepcopy(narrow.SD1 if layout is SD1 else narrow.SDXL) | changes | {"model_channels": 320}
    module = comfy.cldm.cldm.ControlNet(
        hint_channels=3, device="meta", operations=comfy.ops.disable_weight_init, **config
    )
    assert layout_of(module) == layout


def test_pooling_averages_over_the_area():
    module = narrow.make_module("sd1")
    values = inputs("sd1")
    values.pop("y")
    hint = values.pop("hint")
    with torch.inference_mode():
        plain, pooled = (
            net.residuals(hint_embedding=net.embed_hint(hint), **values)
            for net in (network(module), network(module, pooling=True))
        )
    for (_, _, a), (_, _, b) in zip(plain.items(), pooled.items(), strict=True):
        torch.testing.assert_close(b, a.mean(dim=(2, 3), keepdim=True).expand_as(a))


def test_a_missing_pooled_vector_is_named():
    split = network(narrow.make_module("sdxl"))
    values = inputs("sdxl") | {"y": None}
    embedding = split.embed_hint(values.pop("hint"))
    with pytest.raises(
        ControlError, match=r"reads a pooled vector \(y\), but the conditioning has none; use it with a model"
    ):
        split.residuals(hint_embedding=embedding, **values)


def test_networks_of_one_module_have_one_key_and_a_clone_another():
    module = narrow.make_module("sd1")
    one, other = network(module), EncoderNetwork.from_stock(narrow.make_stock(module))
    assert other is not None and one.key == other.key
    clone = one.clone_to(torch.device("cpu"))
    assert clone.key != one.key and clone.patcher.model is clone.module
