"""What the host asks of a control around and during sampling."""

import pytest

pytest.importorskip("comfy")

import comfy.hooks
import comfy.model_management
import comfy.ops
import torch

from control_composer.control import apply_control
from control_composer.tests import narrow

SIZE = (2, 8, 8)
IMAGE = narrow.picture(1, 64, 64)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


def conds():
    return narrow.conditioning("sd1", 10), narrow.conditioning("sd1", 11)


def control_of(conditionings):
    return conditionings[0][0][1]["control"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cast", [None, torch.float32])
def test_half_precision_weights_equal_the_stock_nodes(model, dtype, cast):
    operations = comfy.ops.disable_weight_init if cast is None else comfy.ops.manual_cast
    module = narrow.make_module("sd1", dtype=dtype, operations=operations)
    stock = narrow.make_stock(module, manual_cast_dtype=cast)
    spy = narrow.Spy(model)
    expected = narrow.sample(spy.model, *narrow.stock_apply(*conds(), stock, IMAGE), SIZE, steps=2)
    found = narrow.sample(spy.model, *apply_control(*conds(), stock, IMAGE), SIZE, steps=2)
    assert {call.control["middle"][0].dtype for call in spy.calls} == {cast or dtype}
    assert torch.isfinite(expected).all()
    assert narrow.relative(found, expected) <= 1e-5


def test_float8_weights_with_manual_casting_equal_the_stock_nodes(model):
    module = narrow.make_module("sd1", operations=comfy.ops.manual_cast).to(torch.float8_e4m3fn)
    module.dtype = torch.float8_e4m3fn
    stock = narrow.make_stock(module, manual_cast_dtype=torch.float32)
    expected = narrow.sample(model, *narrow.stock_apply(*conds(), stock, IMAGE), SIZE, steps=2)
    found = narrow.sample(model, *apply_control(*conds(), stock, IMAGE), SIZE, steps=2)
    assert next(module.parameters()).dtype == torch.float8_e4m3fn
    assert torch.isfinite(expected).all()
    assert narrow.relative(found, expected) <= 1e-5


def test_a_compiled_model_gives_the_same_latents(model):
    """The host's torch.compile node with a backend that traces but generates no code; the control ends half way, so its lists go away."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    compiled = model.clone()
    set_torch_compile_wrapper(compiled, backend="eager")
    control = narrow.make_ours(narrow.make_module("sd1"), "SD1")
    conditionings = apply_control(*conds(), control, IMAGE, 1.0, 0.0, 0.5)
    expected, found = (narrow.sample(each, *conditionings, SIZE, steps=3) for each in (model, compiled))
    assert narrow.relative(found, expected) <= 1e-5


def test_global_average_pooling_equals_the_stock_nodes(model):
    stock = narrow.make_stock(narrow.make_module("sd1"), global_average_pooling=True)
    expected = narrow.sample(model, *narrow.stock_apply(*conds(), stock, IMAGE, 0.6), SIZE, steps=2)
    found = narrow.sample(model, *apply_control(*conds(), stock, IMAGE, 0.6), SIZE, steps=2)
    assert narrow.relative(found, expected) <= 1e-5


def test_every_network_is_given_to_the_memory_management_once(model):
    modules = [narrow.make_module("sd1", seed) for seed in (1, 2)]
    ours, stock = narrow.make_ours(modules[0], "SD1"), narrow.make_stock(modules[1])
    conditionings = narrow.stock_apply(*conds(), stock, IMAGE)
    conditionings = apply_control(*apply_control(*conditionings, ours, IMAGE), ours, narrow.picture(1, 64, 64, seed=8))
    control = control_of(conditionings)
    assert len(control.layers) == 2
    assert control.get_models() == [stock.control_model_wrapped, ours.network.patcher]
    assert control.get_models_only_self() == [ours.network.patcher]
    same = apply_control(*narrow.stock_apply(*conds(), stock, IMAGE), stock, IMAGE)
    assert control_of(same).get_models() == [stock.control_model_wrapped]


def test_memory_counts_residuals_embeddings_and_hint():
    """Outside of a run, with the hint's size for that of the latent; more in test_memory.py."""
    controls = [narrow.make_ours(narrow.make_module("sd1", seed), "SD1") for seed in (1, 2)]

    def estimate(*pictures, networks=1):
        conditionings = conds()
        for seed, (batch, height, width) in enumerate(pictures):
            control = controls[seed % networks]
            conditionings = apply_control(*conditionings, control, narrow.picture(batch, height, width, seed=seed))
        return control_of(conditionings).inference_memory_requirements(torch.float32)

    blocks = controls[0].network.blocks(8, 8)
    residuals = 2 * 4 * sum(block.channels * block.height * block.width for block in blocks)
    assert residuals < estimate((1, 64, 64)) < residuals + 2.5 * 16 * 64 * 64 * 4
    assert estimate((2, 64, 64)) == 2 * estimate((1, 64, 64))
    first, both = estimate((1, 64, 64)), estimate((1, 64, 64), (1, 64, 64), networks=2)
    assert (
        both - first == residuals + 32 * 8 * 8 * 4
    )  # the first one's residuals are there while the second runs; its embedding


def test_an_interruption_ends_the_sampling_and_the_next_run_is_as_ever(model):
    module = narrow.make_module("sd1")
    conditionings = apply_control(*conds(), narrow.make_ours(module, "SD1"), IMAGE)
    expected = narrow.sample(model, *conditionings, SIZE, steps=3)
    passes = []

    def interrupt(*_):
        passes.append(1)
        if len(passes) == 2:
            comfy.model_management.interrupt_current_processing()

    hook = module.input_blocks[3].register_forward_hook(interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        narrow.sample(model, *conditionings, SIZE, steps=3)
    hook.remove()
    comfy.model_management.interrupt_current_processing(False)
    assert len(passes) == 2
    assert torch.equal(narrow.sample(model, *conditionings, SIZE, steps=3), expected)


def test_a_run_leaves_nothing_behind(model):
    control = control_of(conditionings := apply_control(*conds(), narrow.make_stock(narrow.make_module("sd1")), IMAGE))
    kept = set(vars(control))
    narrow.sample(model, *conditionings, SIZE, steps=2)
    assert set(vars(control)) == kept
    assert control._run is None and control.timestep_range is None


def test_hooks_of_all_controls_reach_the_host():
    groups = []
    conditionings = conds()
    for seed in (1, 2):
        stock = narrow.make_stock(narrow.make_module("sd1", seed))
        stock.extra_hooks = comfy.hooks.HookGroup()
        stock.extra_hooks.add(comfy.hooks.Hook(hook_type=comfy.hooks.EnumHookType.Weight))
        groups.append(stock.extra_hooks)
        conditionings = apply_control(*conditionings, stock, IMAGE)
    (found,) = control_of(conditionings).get_extra_hooks()
    assert found.hooks == [hook for group in groups for hook in group.hooks]
    assert [len(group) for group in groups] == [1, 1]


def test_a_clone_for_another_device_does_the_same_with_weights_of_its_own(model):
    ours = narrow.make_ours(narrow.make_module("sd1"), "SD1")
    conditionings = apply_control(
        *apply_control(*conds(), ours, IMAGE, 0.4), ours, narrow.picture(1, 64, 64, seed=9), 0.7
    )
    control = control_of(conditionings)
    expected = narrow.sample(model, *conditionings, SIZE, steps=2)
    clone = control.deepclone_multigpu(CPU, autoregister=True)
    assert control.get_instance_for_device(CPU) is clone
    assert control.get_instance_for_device(torch.device("meta")) is control
    (patcher,) = clone.get_models()
    assert patcher is not ours.network.patcher and patcher.model is not ours.network.module
    assert clone.layers[0].source.key == clone.layers[1].source.key
    assert control.get_models() == [patcher, ours.network.patcher]
    cloned = tuple([[entry[0], entry[1] | {"control": clone}] for entry in side] for side in conditionings)
    assert torch.equal(narrow.sample(model, *cloned, SIZE, steps=2), expected)


def test_a_foreign_layer_is_cloned_with_the_rest():
    class Foreign:
        extra_hooks = None

        def __init__(self):
            self.devices = []

        def copy(self):
            return self

        def set_cond_hint(self, *_, **__):
            return self

        def get_control(self, *_):
            return None

        def deepclone_multigpu(self, device):
            self.devices.append(device)
            return self

    foreign = Foreign()
    control_of(apply_control(*conds(), foreign, IMAGE)).deepclone_multigpu(CPU)
    assert foreign.devices == [CPU]


def test_the_lists_are_fresh_at_each_call(model):
    """The UNet empties them."""
    conditionings = apply_control(*conds(), narrow.make_ours(narrow.make_module("sd1"), "SD1"), IMAGE)
    spy = narrow.Spy(model)
    narrow.sample(spy.model, *conditionings, SIZE, steps=3)
    assert [len(call.control["output"]) for call in spy.calls] == [12] * 3
