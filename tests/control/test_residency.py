"""When a network's weights lie still on the device, and how that is told without asking the device."""

import gc
import weakref

import pytest

pytest.importorskip("comfy")

import comfy.controlnet
import comfy.ldm.modules.attention
import comfy.model_management
import torch

from control_composer.control import residency
from control_composer.control.residency import Watch, why_not_resident
from control_composer.tests import narrow
from control_composer.tests.control.encoders import NETWORKS, put, small, small_module

CPU = torch.device("cpu")


def why(network, device=CPU):
    return why_not_resident(network.patcher, network.module, device)


@pytest.fixture
def network():
    return small()


@pytest.mark.parametrize("name", ["sdxl", "union", "lite"])
def test_what_the_host_has_loaded_is_resident(name):
    loaded = NETWORKS[name]()
    assert why(loaded) == ""
    loaded.patcher.detach()
    assert why(loaded) == residency.NOT_LOADED


def test_what_is_loaded_elsewhere_is_not(network):
    assert why(network, torch.device("cuda", 0)) == residency.NOT_LOADED


def test_a_network_of_which_the_host_unloads_a_part_is_not(network):
    network.patcher.partially_unload(CPU, 1)
    assert why(network) == residency.OFFLOADED


@pytest.mark.parametrize("name", ["weight", "buffer"])
def test_a_single_tensor_on_another_device_is_enough(network, name):
    """As a union network's task_embedding, or buffers, after a load that was not of the whole."""
    if name == "weight":
        network.module.time_embed[0].weight = torch.nn.Parameter(torch.empty(128, 32, device="meta"))
    else:
        network.module.middle_block.register_buffer("table", torch.empty(3, device="meta"))
    assert why(network) == residency.OFFLOADED


def test_dynamic_weights_are_said_to_move(network, monkeypatch):
    monkeypatch.setattr(type(network.patcher), "is_dynamic", lambda self: True)
    assert why(network) == residency.MOVED_BY_HOST
    monkeypatch.undo()
    network.module.time_embed[0]._v = ("vbar", 0, 0)
    assert why(network) == residency.MOVED_BY_HOST


@pytest.mark.parametrize("name", residency.FUNCTIONS)
def test_weights_that_are_patched_when_they_are_used_are_said_to_be(network, name):
    setattr(network.module.middle_block_out[0], name, [lambda weight: 2 * weight])
    assert why(network) == residency.PATCHED


def test_a_control_lora_is_made_of_the_model(network):
    network.module.middle_block.append(comfy.controlnet.ControlLoraOps.Linear(2, 2))
    assert why(network) == residency.MODELS_OWN


def test_quantised_weights_are_said_to_be(network):
    class Quantised(torch.nn.Parameter):
        pass

    network.module.time_embed[0].weight = Quantised(torch.zeros(128, 32), requires_grad=False)
    assert why(network) == residency.QUANTISED


def hook(module):
    module.middle_block.register_forward_hook(lambda *_: None)


def pre_hook(module):
    module.input_blocks[1].register_forward_pre_hook(lambda *_: None)


def other_forward(module):
    module.middle_block_out.forward = lambda x, *_: x


@pytest.mark.parametrize("change", [hook, pre_hook, other_forward])
def test_changed_modules_are_said_to_be(network, change):
    change(network.module)
    assert why(network) == residency.CHANGED


# -- watches --------------------------------------------------------------------------------------------------------------------------


def replaced(module):
    weight = module.time_embed[0].weight
    module.time_embed[0].weight = torch.nn.Parameter(weight.clone(), requires_grad=False)


def moved(module):
    module.input_blocks[1][0].in_layers[2].weight.data = module.input_blocks[1][0].in_layers[2].weight.data.clone()


def channels_last(module):
    weight = module.input_blocks[1][0].in_layers[2].weight
    weight.data = weight.data.as_strided(weight.shape, (weight[0].numel(), 1, 3 * weight.shape[1], weight.shape[1]))


def narrower(module):
    module.half()


def fewer_rows(module):
    weight = module.time_embed[0].weight
    weight.data = weight.data[:64]


def gone(module):
    module.time_embed[0].bias = None


def another_part(module):
    module.middle_block_out[0] = torch.nn.Identity()


def buffer(module):
    module.middle_block.table = torch.zeros(3)


def patches(module):
    module.current_weight_patches_uuid = "others"


def function(module):
    module.middle_block_out[0].weight_function = [lambda weight: weight]


def bias_function(module):
    module.middle_block_out[0].bias_function = [lambda weight: weight]


CHANGES = [
    replaced,
    moved,
    channels_last,
    narrower,
    fewer_rows,
    gone,
    another_part,
    buffer,
    patches,
    function,
    bias_function,
    hook,
    pre_hook,
    other_forward,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_watch_sees(network, change):
    network.module.middle_block.register_buffer("table", torch.zeros(3))
    watch = Watch(network.module)
    assert watch.unchanged() and watch.unchanged()
    with torch.no_grad():
        change(network.module)
    assert not watch.unchanged()


def test_other_numbers_in_the_same_place_change_nothing(network):
    """What is read through an address is what is there."""
    watch = Watch(network.module)
    narrow.fill(network.module, seed=9)
    assert watch.unchanged()


def test_a_run_that_loads_the_same_again_changes_nothing_and_patches_do(network):
    watch = Watch(network.module)
    comfy.model_management.load_models_gpu([network.patcher])
    assert watch.unchanged()
    difference = torch.ones_like(network.module.time_embed[0].weight)
    network.patcher.add_patches({"time_embed.0.weight": (difference,)})
    comfy.model_management.load_models_gpu([network.patcher])
    assert not watch.unchanged()
    assert why(network) == ""


def test_a_watch_holds_no_module(network):
    gc.collect()
    gc.disable()
    try:
        module = small_module()
        watch, alive = Watch(module), weakref.ref(module)
        del module
        assert alive() is None
        assert watch.unchanged()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("name", "recordable"),
    [("attention_pytorch", True), ("attention_split", False), ("attention_sub_quad", False), ("patched", False)],
)
def test_the_hosts_attention_is_known_by_its_name(monkeypatch, name, recordable):
    module = comfy.ldm.modules.attention
    chosen = getattr(module, name, None) or (lambda *_: None)
    monkeypatch.setattr(module, "optimized_attention", chosen)
    assert (residency.attention_name() in residency.RECORDABLE_ATTENTION) == recordable


def test_an_attention_without_a_name_is_not_recordable(monkeypatch):
    class Chosen:
        def __call__(self, *_):
            raise AssertionError

    monkeypatch.setattr(comfy.ldm.modules.attention, "optimized_attention", Chosen())
    assert residency.attention_name() == "Chosen"


def test_what_was_not_put_into_the_hosts_hands_is_not_loaded():
    module = small_module()
    network = put(module)
    network.patcher.detach()
    module.to(CPU)
    assert why(network) == residency.NOT_LOADED
