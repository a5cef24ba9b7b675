"""CtrLoRA against the published formula: diffusers' encoder fed with the hint's latent, its linear layers plus up(down(x))."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

import comfy.controlnet
import comfy.latent_formats
import folder_paths
import safetensors.torch
import torch
from torch import Tensor

from control_composer.checkpoints.diffusers_layout import cldm_names
from control_composer.checkpoints.errors import PairError
from control_composer.control import Control, ControlError, compose_controls, layer_of
from control_composer.control.ctrlora import CtrLoraNetwork
from control_composer.nodes.load import ControlComposerLoad, load_source
from control_composer.tests import narrow
from control_composer.tests.control.case import IMAGE, SIZE, Case
from control_composer.tests.control.case_ctrlora import base_weights, ctrlora, files, lora_weights, make_vae

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def case(tmp_path_factory: Any) -> Case:
    return ctrlora(tmp_path_factory.mktemp("ctrlora"))


def weights(lora: bool) -> dict[str, Tensor]:
    """The weights of the network by themselves, and of the low-rank layers, in cldm's names."""
    found = base_weights() | (lora_weights() if lora else {})
    return {name.removeprefix("control_model."): x for name, x in found.items()}


@functools.cache
def encoder(lora: bool) -> Any:
    """Diffusers' encoder with low-rank layers beside its linear ones (lora.py, `LoRACompatibleLinear`).

    Its own condition is silenced by the zero weights that it begins with, so its first convolution reads the hint's latent alone.
    """
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        net = diffusers.ControlNetModel(
            block_out_channels=(32, 64, 128, 128), layers_per_block=2, cross_attention_dim=24, attention_head_dim=4
        ).eval()
    state, given = net.state_dict(), weights(lora)
    ours = cldm_names(state)
    silent = "controlnet_cond_embedding."
    net.load_state_dict(
        {
            name: torch.zeros(x.shape) if name.startswith(silent) else given[ours[name]].reshape(x.shape)
            for name, x in state.items()
        },
        assign=True,
    )
    for name, module in net.named_modules():
        trunk = ours.get(f"{name}.weight", "").removesuffix(".weight")
        up, down = (given.get(f"{trunk}.lora_layer.{part}.weight") for part in ("up", "down"))
        if isinstance(module, torch.nn.Linear) and lora:
            assert up is not None and down is not None, name

            def plus(_: Any, inputs: Any, out: Tensor, up: Tensor = up, down: Tensor = down) -> Tensor:
                return out + inputs[0] @ down.T @ up.T

            module.register_forward_hook(plus)
    return net


def published(latent: Tensor, timesteps: Tensor, context: Tensor, lora: bool = True) -> list[Tensor]:
    """The residuals by cldm_ctrlora_inference.py (`ControlNetInference.forward`)."""
    nothing = torch.zeros(len(latent), 3, latent.shape[2] * 8, latent.shape[3] * 8)
    with torch.inference_mode():
        blocks, middle = encoder(lora)(latent, timesteps, context, nothing, return_dict=False)
    return [*blocks, middle]


@pytest.mark.parametrize("lora", [True, False])
def test_residuals_are_the_published_ones(lora: bool, case: Case, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    image = torch.rand(2, 3, 64, 128, generator=generator)
    context, timesteps = torch.randn(2, 7, 24, generator=generator), torch.tensor([13.0, 977.0])
    path, base = files(tmp_path)
    source, _ = (load_source(path, None, "auto", base=base) if lora else load_source(base, None, "auto"))  # fmt: skip
    assert isinstance(source, CtrLoraNetwork)
    vae = case.settings["vae"]
    network = source.with_vae(vae)
    with torch.inference_mode():
        # api.py: the picture in 0..1 goes into the encoder as it is; config: scale_factor 0.18215.
        latent = vae.first_stage_model.encode(image) * 0.18215
        found = network.residuals(torch.full((2, 4, 8, 16), 7.0), network.embed_hint(image), timesteps, context)
    expected = published(latent, timesteps, context, lora)
    residuals = [*found.output, *found.middle]
    assert len(residuals) == len(expected) == 13
    for ours, theirs in zip(residuals, expected, strict=True):
        assert narrow.relative(ours, theirs) <= TOLERANCE


class Network(torch.nn.Module):
    """The published network as the host's ControlNet calls one."""

    dtype = torch.float32

    def forward(self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor, **_: Any) -> dict[str, list[Tensor]]:
        *blocks, middle = published(hint, timesteps, context)
        return {"output": blocks, "middle": [middle]}


class Reference(comfy.controlnet.ControlNet):
    """The host's way of encoding a hint by a VAE, around the published network."""

    def __init__(self, vae: Any) -> None:
        super().__init__(
            Network(),
            compression_ratio=1,
            latent_format=comfy.latent_formats.SD15(),
            preprocess_image=lambda x: (x + 1) / 2,
        )
        self.given = vae

    def copy(self) -> Reference:
        twin = Reference(self.given)
        self.copy_to(twin)
        twin.vae = self.given
        return twin

    def set_cond_hint(self, *args: Any, **kwargs: Any) -> Any:
        return super().set_cond_hint(*args, **{**kwargs, "vae": self.given})


def test_latents_through_the_hosts_sampler(case: Case) -> None:
    """At a size of latents that the hint does not have, with both branches, two hints and a range."""
    image = narrow.picture(2, 80, 200)
    expected = narrow.stock_apply(*case.start(), Reference(case.settings["vae"]), image, 0.7, 0.0, 0.8)
    layers = [layer_of(case.ours, image, 0.7, 0.0, 0.8, **case.settings)]
    composed = compose_controls(*case.start(), layers)
    plain = narrow.sample(case.model, *case.start(), SIZE, steps=3)
    expected, found = (narrow.sample(case.model, *conds, SIZE, steps=3) for conds in (expected, composed))
    assert narrow.relative(found, expected) <= TOLERANCE
    assert narrow.relative(found, plain) > 1e-2


def test_the_stock_apply_node_gives_its_vae(case: Case) -> None:
    import nodes  # ComfyUI's

    node = nodes.ControlNetApplyAdvanced()
    conds = node.apply_controlnet(*case.start(), case.ours, IMAGE, 0.7, 0.0, 1.0, vae=case.settings["vae"])
    found = narrow.sample(case.model, *conds, SIZE, steps=1)
    assert torch.equal(found, narrow.sample(case.model, *case.compose(strength=0.7), SIZE, steps=1))


def test_pictures_are_encoded_once_for_a_run(case: Case) -> None:
    """Whatever the number of layers and steps."""
    layers = [layer_of(case.ours, IMAGE, strength, **case.settings) for strength in (0.3, 0.5)]
    autoencoder, seen = case.settings["vae"].first_stage_model, []
    hook = autoencoder.encoder.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    narrow.sample(case.model, *compose_controls(*case.start(), layers), SIZE, steps=3)
    hook.remove()
    assert sum(seen) == len(IMAGE)


def refused(act: Any) -> str:
    with pytest.raises(ControlError) as caught:
        act()
    return str(caught.value)


def test_without_a_fitting_vae(case: Case) -> None:
    words = (
        "No vae is connected for canny.safetensors, but it is a CtrLoRA, which reads its hint through the VAE; connect the VAE of a model of base "
        "custom (32 channels x 1-2-4-4, text of 24) to the vae input of the Apply or Layer node."
    )
    assert refused(lambda: layer_of(case.ours, IMAGE)) == words
    assert refused(lambda: case.ours.copy().set_cond_hint(IMAGE.movedim(-1, 1))) == words
    assert refused(lambda: layer_of(case.ours, IMAGE, vae=make_vae(channels=16))) == (
        "The vae connected for canny.safetensors makes latents of 16 channels, one cell for 8 pixels, but 4 channels and 8 pixels were expected; "
        "connect the VAE of a model of base custom (32 channels x 1-2-4-4, text of 24)."
    )
    assert "image of Apply Control has 4 channels, but canny.safetensors reads hints of 3" in refused(
        lambda: layer_of(case.ours, narrow.picture(1, 64, 64, channels=4), **case.settings, node="Apply Control")
    )


def test_one_network_for_a_pair_of_files(tmp_path: Path) -> None:
    lora, base = files(tmp_path)
    stored = {path: safetensors.torch.load_file(path) for path in (lora, base)}
    first, second = (load_source(lora, None, "auto", base=base)[0] for _ in range(2))
    alone, _ = load_source(base, None, "auto")
    assert isinstance(first, CtrLoraNetwork) and isinstance(second, CtrLoraNetwork)
    assert isinstance(alone, CtrLoraNetwork)
    assert first.module is second.module is not alone.module
    other = tmp_path / "other.safetensors"
    other.write_bytes(base.read_bytes())
    third, _ = load_source(lora, None, "auto", base=other)
    assert isinstance(third, CtrLoraNetwork) and third.module is not first.module
    # Nothing that was read has changed.
    for path, tensors in stored.items():
        assert all(torch.equal(x, tensors[name]) for name, x in safetensors.torch.load_file(path).items())


def test_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora, base = files(tmp_path)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "controlnet", ([str(tmp_path)], {".safetensors"}))
    folder_paths.filename_list_cache.clear()
    inputs = {item.id: item for item in ControlComposerLoad.define_schema().inputs}
    assert inputs["base_name"].options == ["none", base.name, lora.name]
    assert (inputs["base_name"].default, inputs["base_name"].optional) == ("none", True)
    control, description = ControlComposerLoad.execute(lora.name, base_name=base.name).args
    assert isinstance(control, Control)
    assert description == (
        "family: a CtrLoRA base\nbase: custom (32 channels x 1-2-4-4, text of 24)\nhint: 3 channels\n"
        "the hint goes through the VAE: connect it to the Apply or Layer node\n"
        "LoRA: 'canny.safetensors', rank 4, on 'base.safetensors'\n"
        "parameters: 3.56 M\nweights in the file: float32\ncomputes in: float32\npooling: off"
    )
    with pytest.raises(PairError, match=r"'canny.safetensors' is a LoRA file of CtrLoRA, half of a network, but"):
        ControlComposerLoad.execute(lora.name)
    mark = ControlComposerLoad.fingerprint_inputs(control_net_name=lora.name, base_name=base.name)
    assert mark != ControlComposerLoad.fingerprint_inputs(control_net_name=lora.name)
    base.write_bytes(base.read_bytes())
    assert mark != ControlComposerLoad.fingerprint_inputs(control_net_name=lora.name, base_name=base.name)
    folder_paths.filename_list_cache.clear()
