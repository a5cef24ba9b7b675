"""Many layers in one control: what the host asks of the whole, from hooks to clones and interruptions."""

import gc
import weakref

import pytest

pytest.importorskip("comfy")

import comfy.hooks
import comfy.model_management
import comfy.ops
import torch

from control_composer.control import apply_control, compose_controls, layer_of
from control_composer.tests import narrow
from control_composer.tests.control.composed import (
    PICTURES,
    SIZE,
    control_of,
    group_of,
    layers_of,
    reached,
    start,
    stock_chain,
    with_hook,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


@pytest.fixture(scope="module")
def modules():
    return [narrow.make_module("sd1", seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def controls(modules):
    return [narrow.make_ours(module, "SD1") for module in modules]


def test_hooks_of_every_layer_and_of_controls_before_survive(modules, controls):
    hooked, stock = with_hook(controls[0]), narrow.make_stock(modules[1])
    stock.extra_hooks = group_of(comfy.hooks.Hook(hook_type=comfy.hooks.EnumHookType.Weight))
    conds = apply_control(*narrow.stock_apply(*start(), stock, PICTURES[0]), hooked, PICTURES[0])
    conds = compose_controls(*conds, layers_of([with_hook(controls[2]), controls[1]]))
    found = [hook for group in control_of(conds).get_extra_hooks() for hook in group.hooks]
    assert len(found) == 3
    assert hooked.own_hooks.hooks[0] in found and stock.extra_hooks.hooks[0] in found


def test_a_lora_hook_on_a_control_acts_on_the_model_while_it_samples(model, controls):
    """The host's own weight hook, held by a control: as the same hook held by the conditioning of a plain chain."""
    name = "diffusion_model.input_blocks.1.0.in_layers.2.weight"
    weight = model.model.get_parameter(name)
    patch = {name: ("diff", (torch.full_like(weight, 0.05),))}

    def hook():
        made = comfy.hooks.WeightHook()
        made.weights, made.need_weight_init = patch, False
        return group_of(made)

    hooked = controls[0].copy()
    hooked.extra_hooks = hook()
    found = compose_controls(*start(), layers_of([hooked]))
    expected = narrow.make_stock(controls[0].network.module)
    expected.extra_hooks = hook()
    expected = stock_chain(start(), [expected])
    plain = compose_controls(*start(), layers_of(controls[:1]))
    expected, found, plain = (narrow.sample(model, *conds, (1, 8, 8), steps=1) for conds in (expected, found, plain))
    assert narrow.relative(found, expected) <= 1e-5
    assert narrow.relative(plain, expected) > 1e-4


def test_a_clone_for_another_device_shares_no_weights_and_does_the_same(model, modules, controls):
    stock = narrow.make_stock(modules[1])
    layers = [
        layer_of(controls[0], PICTURES[0], 0.4),
        layer_of(controls[0], PICTURES[1], 0.7, uncond_strength=0.0),
        layer_of(controls[2], PICTURES[2], mask=torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(1))),
        layer_of(controls[1], PICTURES[2], enabled=False),
    ]
    conds = compose_controls(*narrow.stock_apply(*start(), stock, PICTURES[0]), layers)
    expected = narrow.sample(model, *conds, SIZE, steps=2)
    control = control_of(conds)
    clone = control.deepclone_multigpu(CPU)
    clone.set_previous_controlnet(control.previous_controlnet.deepclone_multigpu(CPU))
    own = {id(parameter) for module in modules for parameter in module.parameters()}
    cloned = [patcher.model for patcher in clone.get_models()]
    assert len(cloned) == 3 and own.isdisjoint(id(parameter) for module in cloned for parameter in module.parameters())
    replaced = tuple([[entry[0], entry[1] | {"control": clone}] for entry in side] for side in conds)
    assert torch.equal(narrow.sample(model, *replaced, SIZE, steps=2), expected)


def test_the_lists_have_one_length_at_every_step(model, controls):
    """What TorchCompileModel traces: plain lists of tensors or None, never longer or shorter; a changing mask changes no shape."""
    layers = layers_of(controls, settings=[(1.0,), (0.5,)], uncond_strength=0.3, mask=None)
    spy = narrow.Spy(model)
    narrow.sample(spy.model, *compose_controls(*start(), layers), SIZE, steps=3)
    forms = {
        tuple(
            (place, tuple(None if x is None else tuple(x.shape) for x in rows)) for place, rows in call.control.items()
        )
        for call in spy.calls
    }
    assert len(forms) == 1
    for call in spy.calls:
        assert [type(rows) for rows in call.control.values()] == [list] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_with_manual_casting_stay_near_the_stock_nodes_in_full(model, dtype):
    """The weights alone are rounded, so a few of their units in the last place are allowed."""
    modules = [narrow.make_module("sd1", seed, dtype=dtype, operations=comfy.ops.manual_cast) for seed in (1, 2)]
    stock = [narrow.make_stock(module, manual_cast_dtype=torch.float32) for module in modules]
    full = [narrow.make_stock(narrow.make_module("sd1", seed)) for seed in (1, 2)]
    found = reached(model, compose_controls(*start(), layers_of(stock)))[0]
    same, expected = (reached(model, stock_chain(start(), controls))[0] for controls in (stock, full))
    for a, b, c in zip(found, same, expected, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert narrow.relative(a, b) <= 1e-5
        assert narrow.relative(a, c) <= 20 * torch.finfo(dtype).eps


def test_an_interruption_between_layers_stops_and_the_next_run_is_right(model, modules, controls):
    conds = compose_controls(*start(), layers_of(controls))
    expected = narrow.sample(model, *conds, SIZE, steps=2)
    seen = []

    def interrupt(*_):
        seen.append(1)
        comfy.model_management.interrupt_current_processing()

    hooks = [module.middle_block_out.register_forward_hook(interrupt) for module in modules]
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            narrow.sample(model, *conds, SIZE, steps=2)
    finally:
        for hook in hooks:
            hook.remove()
        comfy.model_management.interrupt_current_processing(False)
    assert len(seen) == 1
    assert torch.equal(narrow.sample(model, *conds, SIZE, steps=2), expected)


def test_a_run_leaves_no_tensors_behind(model, modules, controls):
    kept = []
    hooks = [
        module.zero_convs[0].register_forward_hook(lambda _, __, out: kept.append(weakref.ref(out)))
        for module in modules
    ]
    hooks += [
        module.input_hint_block.register_forward_hook(lambda _, __, out: kept.append(weakref.ref(out)))
        for module in modules
    ]
    layers = layers_of(controls, [narrow.picture(1, 64, 96)] * 3, [(1.0,)] * 3, mask=torch.rand(1, 64, 96))
    conds = compose_controls(*start(), layers)
    before = kept_tensors(control_of(conds))
    narrow.sample(model, *conds, SIZE, steps=2)
    for hook in hooks:
        hook.remove()
    gc.collect()
    assert len(kept) >= 9 and [ref() for ref in kept if ref() is not None] == []
    assert kept_tensors(control_of(conds)) == before
    assert control_of(conds).record.steps


def kept_tensors(control):
    """Ids of all tensors that can be reached from a control without going into networks."""
    found, seen, waiting = set(), set(), [vars(control)]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, torch.nn.Module | type):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            found.add(id(thing))
        elif isinstance(thing, dict):
            waiting += list(thing.values())
        elif isinstance(thing, list | tuple | set):
            waiting += list(thing)
        elif type(thing).__module__.startswith("control_composer"):
            waiting += [vars(thing)] if hasattr(thing, "__dict__") else []
    return found
