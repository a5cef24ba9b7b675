"""Every family that the Load node loads, from a file through the host's sampler: as the stock loader's, and with everything that layers do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import comfy.t2i_adapter.adapter
import safetensors.torch
import torch
from torch.nn.functional import adaptive_avg_pool2d

from control_composer.checkpoints import CheckpointError
from control_composer.checkpoints.errors import NoModelError
from control_composer.control import Control, ControlError, compose_controls, layer_of
from control_composer.control.compatibility import unet_layout
from control_composer.nodes.load import load_source
from control_composer.residuals import ListedWeights, ListSchedule
from control_composer.residuals.residuals import Residuals
from control_composer.tests import narrow
from control_composer.tests.control.case import IMAGE, SIZE, Case, made, save
from control_composer.tests.control.cases import (
    CASES,
    WideSD1,
    control_lora,
    difference_file,
    lora_weights,
    union,
    with_lora,
)


@pytest.fixture(scope="module", params=CASES)
def case(request: Any, tmp_path_factory: Any) -> Case:
    return CASES[request.param](tmp_path_factory.mktemp("family"))


def reached(model: Any, conditionings: Any, **changes: Any) -> list[narrow.Call]:
    spy = narrow.Spy(model)
    narrow.sample(spy.model, *conditionings, SIZE, **{"steps": 2} | changes)
    return spy.calls


@pytest.mark.parametrize("changes", [{}, {"sampler_name": "heun", "cfg": 1.0}])
def test_latents_equal_the_stock_loaders(case: Case, changes: dict[str, Any]) -> None:
    if case.stock is None:
        pytest.skip("the stock loader does not know this family")
    expected = narrow.stock_apply(*case.start(), case.stock, IMAGE, 0.7, 0.0, 0.8)
    with_ours = narrow.stock_apply(*case.start(), case.ours, IMAGE, 0.7, 0.0, 0.8)
    composed = case.compose(strength=0.7, end_percent=0.8)
    latents = [narrow.sample(case.model, *conds, SIZE, steps=3, **changes) for conds in (expected, with_ours, composed)]
    assert narrow.relative(latents[1], latents[0]) <= 1e-5
    assert narrow.relative(latents[2], latents[0]) <= 1e-5
    plain = narrow.sample(case.model, *case.start(), SIZE, steps=3, **changes)
    assert narrow.relative(plain, latents[0]) > 1e-2


def test_everything_that_layers_do(case: Case) -> None:
    """Weights, schedule, mask, balance 0 and two hints: the flat residuals times what they say, in the same two calls, and the report of it."""
    flat = reached(case.model, case.compose())[0]
    layout = unet_layout(case.model.model)
    raw = Residuals.from_host(flat.control or {})
    fed = raw.fed(layout)
    weights = tuple(0.3 + 0.1 * number for number in range(len(fed)))
    mask = torch.rand(2, 64, 128, generator=torch.Generator().manual_seed(3))
    found = case.compose(
        strength=0.8,
        uncond_strength=0.0,
        weights=ListedWeights(weights),
        mask=mask,
        schedule=ListSchedule((0.5, 0.0), axis="step"),
    )
    calls = reached(case.model, found)
    assert calls[1].control is None
    shaped = Residuals.from_host(calls[0].control or {})
    by_position = dict(zip(fed, weights, strict=True))
    conditional = torch.tensor([float(kind == 0) for kind in flat.kinds for _ in range(2)]).view(-1, 1, 1, 1)
    assert 0 < float(conditional.sum()) < len(conditional)
    for position, ((place, index, before), (_, _, after)) in enumerate(zip(raw.items(), shaped.items(), strict=True)):
        assert (before is None) == (after is None), (place, index)
        if before is None or after is None:
            continue
        spread = adaptive_avg_pool2d(mask.unsqueeze(1), tuple(before.shape[-2:])).repeat(len(flat.kinds), 1, 1, 1)
        expected = before * spread * conditional * (0.8 * 0.5 * by_position[position])
        assert narrow.relative(after, expected) <= 1e-5, (place, index)
        rows = torch.arange(len(after))[conditional.view(-1) > 0]
        assert not torch.equal(before[rows[0]], before[rows[1]])  # two hints
    record = found[0][0][1]["control"].record
    assert record.layers[0].name == case.ours.network.name
    assert record.layers[0].base == case.ours.network.base != ""
    assert [step.ran for step in record.steps] == [True, False]


def test_a_hint_of_other_channels_is_refused(case: Case) -> None:
    with pytest.raises(ControlError) as refused:
        case.layer(narrow.picture(1, 64, 128, channels=4))
    node, _, rest = str(refused.value).removeprefix("image of ").partition(" has ")
    assert node in ("Control Layer", "Union Control Layer")
    assert rest == (
        f"4 channels, but {case.ours.network.name} reads hints of 3; remove the alpha channel, for example with Split Image with Alpha."
    )


def test_networks_are_known_to_the_hosts_memory_management(case: Case) -> None:
    control = case.compose()[0][0][1]["control"]
    models = control.get_models()
    if isinstance(
        case.stock, comfy.controlnet.ControlLora
    ):  # made for each run, out of the model's weights: the host counts its room
        assert models == [] and control.inference_memory_requirements(torch.float32) >= 4 * 100_000
        return
    assert len(models) == 1 and isinstance(models[0], comfy.model_patcher.ModelPatcher)
    assert models == compose_controls(*case.start(), [case.layer()] * 2)[0][0][1]["control"].get_models()


def test_several_types_of_a_union_run_as_one_batch(tmp_path: Path) -> None:
    """Layers of one network with different types, and the stock node's choice, equal the stock chain; the network is asked once a step."""
    from comfy_extras.nodes_controlnet import SetUnionControlNetType

    case = union(tmp_path)
    images = [narrow.picture(1, 64, 128, seed=seed) for seed in range(4)]
    kinds = {"auto": [], "openpose": [0], "depth": [1], "segment": [5]}
    layers, conds = [], case.start()
    for image, (name, chosen) in zip(images, kinds.items(), strict=True):
        (ours,) = SetUnionControlNetType.execute(case.ours, name).args
        layers.append(layer_of(ours, image, 0.5))
        stock = case.stock.copy()
        stock.set_extra_arg("control_type", chosen)
        conds = narrow.stock_apply(*conds, stock, image, 0.5)
    rows: list[int] = []
    module = case.ours.network.module
    hook = module.middle_block.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    composed = compose_controls(*case.start(), layers)
    found = narrow.sample(case.model, *composed, SIZE, steps=2)
    hook.remove()
    expected = narrow.sample(case.model, *conds, SIZE, steps=2)
    assert narrow.relative(found, expected) <= 1e-5
    assert rows == [4 * 4] * 2  # layers and rows in one batch at each step
    with pytest.raises(ControlError, match="but the type tile was asked for; choose one of its types"):
        layer_of(SetUnionControlNetType.execute(case.ours, "tile").args[0], images[0])


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_a_control_lora_is_a_controlnet_of_the_models_weights_and_the_differences(kind: str, tmp_path: Path) -> None:
    case, weights = control_lora(kind)(tmp_path), lora_weights(kind)
    module = narrow.make_module(kind)
    state = module.state_dict()
    unet = case.model.model.diffusion_model.state_dict()
    for name in state:
        layer = name.removesuffix(".weight")
        if f"{layer}.up" in weights:
            up, down = weights[f"{layer}.up"].flatten(1).double(), weights[f"{layer}.down"].flatten(1).double()
            state[name] = (unet[name] + (up @ down).view(state[name].shape)).float()
        else:
            state[name] = weights[name]
    module.load_state_dict(state)
    expected = narrow.stock_apply(*case.start(), narrow.make_stock(module), IMAGE, 0.8)
    found = case.compose(strength=0.8)
    expected, found = (narrow.sample(case.model, *conds, SIZE, steps=2) for conds in (expected, found))
    assert narrow.relative(found, expected) <= 1e-4


def test_layers_of_one_control_lora_share_its_network(tmp_path: Path) -> None:
    """Made once for a run and counted once, with other hints and settings in each layer."""
    case = control_lora("sd1")(tmp_path)
    images = [narrow.picture(1, 64, 128, seed=seed) for seed in (1, 2)]
    layers = [layer_of(case.ours, image, strength) for image, strength in zip(images, (0.5, 0.9), strict=True)]
    composed = compose_controls(*case.start(), layers)
    control = composed[0][0][1]["control"]
    alone = compose_controls(*case.start(), layers[:1])[0][0][1]["control"]
    assert control.inference_memory_requirements(torch.float32) == alone.inference_memory_requirements(torch.float32)
    networks = set()

    def seen(apply_model: Any, call: dict[str, Any]) -> Any:
        networks.update(id(layer.source.control.control_model) for layer in control.layers)
        return apply_model(call["input"], call["timestep"], **call["c"])

    watched = case.model.clone()
    watched.set_model_unet_function_wrapper(seen)
    found = narrow.sample(watched, *composed, SIZE, steps=2)
    assert len(networks) == 1
    conds = case.start()
    for image, strength in zip(images, (0.5, 0.9), strict=True):
        conds = narrow.stock_apply(*conds, case.stock, image, strength)
    assert narrow.relative(found, narrow.sample(case.model, *conds, SIZE, steps=2)) <= 1e-5
    assert all(layer.source.control.control_model is None for layer in control.layers)  # nothing is kept after the run


def test_a_control_lora_with_flat_projections(tmp_path: Path) -> None:
    """Extracted files may hold the 1×1 convolutions of the attention as matrices."""
    weights = {
        name: weight.flatten(1)
        if name.endswith(("proj_in.up", "proj_in.down", "proj_out.up", "proj_out.down"))
        else weight
        for name, weight in lora_weights("sd1").items()
    }
    path, model = save(tmp_path, weights, "lora.safetensors"), narrow.make_model("sd1")
    source, _ = load_source(path, model, "auto")
    conds = narrow.conditioning("sd1", 10), narrow.conditioning("sd1", 11)
    found = compose_controls(*conds, [layer_of(Control.unbound(source), IMAGE)])
    expected = narrow.stock_apply(*conds, comfy.controlnet.load_controlnet(str(path)), IMAGE)
    found, expected = (narrow.sample(model, *both, SIZE, steps=1) for both in (found, expected))
    assert narrow.relative(found, expected) <= 1e-5


def test_a_control_lora_follows_the_model(tmp_path: Path) -> None:
    """One and the same control with two models, and a model of another base is refused before anything is sampled."""
    case = control_lora("sd1")(tmp_path)
    other = narrow.make_model("sd1", seed=5)
    for model in (other, case.model):
        expected = narrow.stock_apply(*case.start(), case.stock, IMAGE)
        latents = [narrow.sample(model, *conds, SIZE, steps=1) for conds in (expected, case.compose())]
        assert narrow.relative(latents[1], latents[0]) <= 1e-5
    xl = compose_controls(narrow.conditioning("sdxl", 1), narrow.conditioning("sdxl", 2), [layer_of(case.ours, IMAGE)])
    with pytest.raises(ControlError) as refused:
        narrow.sample(narrow.make_model("sdxl"), *xl, SIZE, steps=1)
    assert re.fullmatch(
        r"lora.safetensors is an custom \(32 channels x 1-2-4-4, text of 24\) control with a difference of [\d ×]+ for '[\w.]+', but the model "
        r"is NarrowSDXL, which has [\w\d ×]+; use a control made for NarrowSDXL, or a model of base custom \(.*\)\.",
        str(refused.value),
    )


def test_a_difference_is_added_to_the_model_as_it_is_now(tmp_path: Path) -> None:
    path, model = difference_file(tmp_path), made(WideSD1)
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    stored = safetensors.torch.load_file(path)
    patched, name = with_lora(model), "input_blocks.1.0.in_layers.2.weight"
    networks = [load_source(path, one, "auto")[0] for one in (model, patched, patched.clone(), model)]
    assert networks[0].module is networks[3].module is not networks[1].module
    assert networks[1].module is networks[2].module  # a clone with the same patches
    states = [network.module.state_dict() for network in networks]
    for key, weight in states[0].items():
        expected = stored[f"control_model.{key}"] + before.get(f"diffusion_model.{key}", 0)
        assert narrow.relative(weight, expected) <= 1e-6, key
        assert torch.equal(states[1][key], weight) == (key != name), key
    assert (
        narrow.relative(states[1][name], states[0][name] + 0.5 * patched.patches[f"diffusion_model.{name}"][0][1][0])
        <= 1e-6
    )
    # Nothing that was given has changed, and it can be read again.
    assert all(torch.equal(weight, before[key]) for key, weight in model.model.state_dict().items())
    assert all(torch.equal(weight, stored[key]) for key, weight in safetensors.torch.load_file(path).items())


def test_a_difference_without_its_model(tmp_path: Path) -> None:
    path = difference_file(tmp_path)
    with pytest.raises(CheckpointError) as refused:
        load_source(path, None, "auto")
    assert str(refused.value) == (
        "'difference.safetensors' splits 64/128 channels into a number of attention heads that its shapes cannot tell, but the number must be "
        "the one it was trained with; connect the model that it was trained for, or save it with 'num_head_channels' or 'num_heads' in its "
        "safetensors metadata."
    )
    save(tmp_path, safetensors.torch.load_file(path), path.name, {"num_head_channels": "64"})
    with pytest.raises(NoModelError) as refused:
        load_source(path, None, "auto")
    assert str(refused.value) == (
        "'difference.safetensors' is a difference ControlNet, which is added to its model, but no model is connected; connect the model that "
        "it is to steer, with its LoRAs."
    )
    for_another = made(WideSD1)
    for_another.model.diffusion_model.input_blocks[0][0].weight = torch.nn.Parameter(torch.zeros(64, 9, 3, 3))
    with pytest.raises(CheckpointError) as refused:
        load_source(path, for_another, "auto")
    assert str(refused.value) == (
        "'difference.safetensors' adds [64, 4, 3, 3] to the weight 'input_blocks.0.0.weight', but that of the connected model is "
        "[64, 9, 3, 3]; connect a model that it was made for, or choose a control made for the connected one."
    )
