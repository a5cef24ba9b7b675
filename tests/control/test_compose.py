"""Many layers in one control: against a chain of stock nodes, what is computed for them, and what the host asks of the whole."""

import gc
import weakref

import pytest

pytest.importorskip("comfy")

import comfy.hooks
import comfy.model_management
import comfy.ops
import torch

from control_composer.control import Control, ControlError, apply_control, compose_controls, layer_of
from control_composer.residuals import Flat, ListedWeights, SoftWeights
from control_composer.residuals.schedules import Keyframe, Keyframes
from control_composer.tests import narrow

SIZE = (2, 8, 12)
PICTURES = (narrow.picture(1, 64, 96, seed=1), narrow.picture(2, 70, 50, seed=2), narrow.picture(1, 96, 96, seed=3))
SETTINGS = ((0.8, 0.0, 1.0), (0.5, 0.2, 0.9), (1.3, 0.0, 0.6))
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


def start(kind="sd1"):
    return narrow.conditioning(kind, 10), narrow.conditioning(kind, 11)


def stock_chain(conds, controls, pictures=PICTURES, settings=SETTINGS):
    for control, image, values in zip(controls, pictures, settings, strict=False):
        conds = narrow.stock_apply(*conds, control, image, *values)
    return conds


def layers_of(controls, pictures=PICTURES, settings=SETTINGS, **changes):
    return [
        layer_of(control, image, *values, **changes)
        for control, image, values in zip(controls, pictures, settings, strict=False)
    ]


def control_of(conditionings):
    return conditionings[0][0][1]["control"]


class Work:
    """Rows of each pass of some networks and of each of their embeddings, in order."""

    def __init__(self, modules):
        self.passes, self.embeddings = [], []
        self.hooks = []
        for module in modules:
            self.hooks += [
                module.middle_block.register_forward_hook(lambda _, given, __: self.passes.append(len(given[0]))),
                module.input_hint_block.register_forward_hook(
                    lambda _, given, __: self.embeddings.append(len(given[0]))
                ),
            ]


@pytest.fixture
def work(modules):
    work = Work(modules)
    yield work
    for hook in work.hooks:
        hook.remove()


# -- equal to stock nodes in a chain ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@pytest.mark.parametrize("networks", [(1, 2, 3), (1, 1, 1)])
def test_flat_layers_equal_as_many_stock_nodes(kind, networks):
    model, made = narrow.make_model(kind), {seed: narrow.make_module(kind, seed) for seed in set(networks)}
    expected = stock_chain(start(kind), [narrow.make_stock(made[seed]) for seed in networks])
    ours = {seed: narrow.make_ours(module, kind.upper()) for seed, module in made.items()}
    found = compose_controls(*start(kind), layers_of([ours[seed] for seed in networks]))
    expected, found = (narrow.sample(model, *conds, SIZE, steps=3) for conds in (expected, found))
    assert narrow.relative(found, expected) <= 1e-5
    assert narrow.relative(narrow.sample(model, *start(kind), SIZE, steps=3), expected) > 1e-2


@pytest.mark.parametrize("sampler", ["dpm_2_ancestral"])
def test_they_do_with_every_sampler(model, modules, controls, sampler):
    changes = {"steps": 2, "sampler_name": sampler, "scheduler": "karras", "denoise": 0.7}
    expected = narrow.sample(model, *stock_chain(start(), map(narrow.make_stock, modules)), SIZE, **changes)
    found = narrow.sample(model, *compose_controls(*start(), layers_of(controls)), SIZE, **changes)
    assert narrow.relative(found, expected) <= 1e-5


@pytest.mark.parametrize("order", ["after", "both"])
def test_with_stock_controls_before_and_after(model, modules, controls, order):
    stock = [narrow.make_stock(module) for module in modules]
    others = stock[:1] if order == "both" else [], stock[2:]
    settings = {"pictures": PICTURES[2:], "settings": SETTINGS[2:]}

    def around(conds, between):
        return stock_chain(between(stock_chain(conds, others[0], **settings)), others[1], **settings)

    expected = around(start(), lambda conds: stock_chain(conds, stock[:2]))
    found = around(start(), lambda conds: compose_controls(*conds, layers_of(controls[:2])))
    expected, found = (narrow.sample(model, *conds, SIZE, steps=3) for conds in (expected, found))
    assert narrow.relative(found, expected) <= 1e-5


def test_a_chain_of_compose_nodes_is_one_control(model, modules, controls):
    layers = layers_of(controls)
    conds = compose_controls(*compose_controls(*start(), layers[:1], 0.5), layers[1:], 2.0)
    control = control_of(conds)
    assert control.previous_controlnet is None and len(control.layers) == 3
    strengths = [(0.4, 0.0, 1.0), (1.0, 0.2, 0.9), (2.6, 0.0, 0.6)]
    expected = stock_chain(start(), map(narrow.make_stock, modules), settings=strengths)
    expected, found = (narrow.sample(model, *both, SIZE, steps=3) for both in (expected, conds))
    assert narrow.relative(found, expected) <= 1e-5


def test_the_order_of_layers_only_rounds(model, controls):
    layers = layers_of(controls)
    first = narrow.sample(model, *compose_controls(*start(), layers), SIZE, steps=3)
    for order in ((2, 1, 0), (1, 2, 0)):
        found = narrow.sample(model, *compose_controls(*start(), [layers[i] for i in order]), SIZE, steps=3)
        assert narrow.relative(found, first) <= 1e-5


def reached(model, conditionings, steps=1, size=SIZE, **changes):
    """The residuals that reach the UNet at each of its calls."""
    spy = narrow.Spy(model)
    narrow.sample(spy.model, *conditionings, size, steps=steps, **changes)
    return [None if call.control is None else call.control["output"] + call.control["middle"] for call in spy.calls]


def test_the_master_strength_is_linear(model, controls):
    layers = layers_of(controls)
    flat, double, negative = (
        reached(model, compose_controls(*start(), layers, strength))[0] for strength in (1.0, 2.0, -0.3)
    )
    for a, b, c in zip(flat, double, negative, strict=True):
        assert torch.equal(b, 2 * a)  # a power of two: to the last bit
        assert narrow.relative(c, -0.3 * a) <= 1e-6


def test_both_branches_share_the_control_and_layers_are_left_as_they_were(controls):
    layers = layers_of(controls)
    positive, negative = compose_controls(*start(), layers, 0.5, "normalised")
    assert positive[0][1]["control"] is negative[0][1]["control"]
    assert [layer.master for layer in layers] == [1.0] * 3
    assert [layer.master for layer in control_of((positive, negative)).layers] == [0.5] * 3


# -- what is computed ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_passes(monkeypatch):
    """As if the latents were large: four rows, the UNet's, fill a pass."""
    from control_composer.control import step

    monkeypatch.setattr(step, "CELLS_ON_CPU", 4 * SIZE[1] * SIZE[2])


def test_layers_that_share_a_network_run_as_one_batch(model, controls, work):
    pictures = [narrow.picture(1, 64, 96, seed=seed) for seed in range(3)]
    conds = compose_controls(*start(), layers_of([controls[0]] * 3, pictures, [(1.0,)] * 3))
    found = reached(model, conds)[0]
    assert (work.passes, work.embeddings) == ([12], [1, 1, 1])  # two latents, two branches, three pictures
    chain = stock_chain(start(), [narrow.make_stock(controls[0].network.module)] * 3, pictures, [(1.0,)] * 3)
    for a, b in zip(found, reached(model, chain)[0], strict=True):
        assert narrow.relative(a, b) <= 1e-5


@pytest.mark.parametrize(("cells", "passes"), [(1, [1] * 12), (2, [2] * 6), (5, [5, 5, 2])])
def test_large_latents_share_a_pass_by_few_rows(model, controls, work, monkeypatch, cells, passes):
    from control_composer.control import step

    monkeypatch.setattr(step, "CELLS_ON_CPU", cells * SIZE[1] * SIZE[2])
    pictures = [narrow.picture(1, 64, 96, seed=seed) for seed in range(3)]
    layers = layers_of([controls[0]] * 3, pictures, [(1.0,)] * 3)
    found = reached(model, compose_controls(*start(), layers))[0]
    assert work.passes == passes
    singles = [reached(model, compose_controls(*start(), [layer]))[0] for layer in layers]
    assert work.passes[len(passes) :] == [4] * 3  # a layer alone has the UNet's rows
    for block, parts in zip(found, zip(*singles, strict=True), strict=True):
        assert narrow.relative(block, sum(parts)) <= 1e-5


def test_layers_that_share_a_network_run_in_passes_of_the_size_of_the_batch(model, controls, work, small_passes):
    pictures = [narrow.picture(1, 64, 96, seed=seed) for seed in range(3)]
    conds = compose_controls(*start(), layers_of([controls[0]] * 3, pictures, [(1.0,)] * 3))
    narrow.sample(model, *conds, SIZE, steps=2)
    assert (work.passes, work.embeddings) == ([4, 4, 4] * 2, [1, 1, 1])  # two latents, two branches; once a run


def test_half_batches_of_one_network_fill_a_pass_together(model, modules, controls, work, small_passes):
    """Three conditional-only layers of two rows: six rows in passes of four and two, and what the sum of them is."""
    pictures = [narrow.picture(1, 64, 96, seed=seed) for seed in range(3)]
    layers = layers_of([controls[0]] * 3, pictures, [(1.0,), (0.5,), (0.25,)], uncond_strength=0.0)
    found = reached(model, compose_controls(*start(), layers))[0]
    assert (work.passes, work.embeddings) == ([4, 2], [1, 1, 1])
    singles = [reached(model, compose_controls(*start(), [layer]))[0] for layer in layers]
    for block, parts in zip(found, zip(*singles, strict=True), strict=True):
        assert narrow.relative(block, sum(parts)) <= 1e-5


def test_a_pass_that_holds_parts_of_two_layers_gives_each_its_rows(model, controls, work, small_passes):
    layers = [
        layer_of(controls[0], PICTURES[0], uncond_strength=0.0),
        layer_of(controls[0], PICTURES[1], 0.7, uncond_strength=0.4),
        layer_of(controls[0], PICTURES[2], 0.3, uncond_strength=0.0, weights=SoftWeights()),
    ]
    found = reached(model, compose_controls(*start(), layers))[0]
    assert work.passes == [4, 4]  # 2 + 2 of 4, the other 2 + 2
    singles = [reached(model, compose_controls(*start(), [layer]))[0] for layer in layers]
    for block, parts in zip(found, zip(*singles, strict=True), strict=True):
        assert narrow.relative(block, sum(parts)) <= 1e-5


def test_the_same_picture_is_evaluated_once_for_all_rows_that_somebody_needs(model, controls, work):
    layers = [
        layer_of(controls[0], PICTURES[0], 0.5, uncond_strength=0.0, weights=SoftWeights()),
        layer_of(controls[0], PICTURES[0], 0.25),
        layer_of(controls[0], PICTURES[0], 2.0, 0.9, 1.0),
    ]
    found = reached(model, compose_controls(*start(), layers))[0]
    assert (work.passes, work.embeddings) == ([4], [1])
    singles = [reached(model, compose_controls(*start(), [layer]))[0] for layer in layers[:2]]
    for block, parts in zip(found, zip(*singles, strict=True), strict=True):
        assert narrow.relative(block, sum(parts)) <= 1e-5


def test_another_placing_of_the_picture_is_another_evaluation(model, controls, work, small_passes):
    layers = [layer_of(controls[0], PICTURES[1], sizing=sizing) for sizing in ("crop", "stretch")]
    narrow.sample(model, *compose_controls(*start(), layers), SIZE, steps=1)
    assert (work.passes, work.embeddings) == ([4, 4], [2, 2])


NEVER = {
    "off": {"enabled": False},
    "strength 0": {"strength": 0.0},
    "empty mask": {"mask": torch.zeros(1, 64, 96)},
    "schedule 0": {"schedule": Keyframes((Keyframe(0.0, 0.0),))},
    "weights 0": {"weights": Flat(0.0)},
    "listed weights 0": {"weights": ListedWeights((0.0,) * 13)},
}


@pytest.mark.parametrize("reason", NEVER)
def test_a_layer_that_cannot_act_computes_nothing_and_changes_no_bit(model, controls, work, reason):
    layer = layer_of(controls[0], PICTURES[0], **NEVER[reason])
    plain = narrow.sample(model, *start(), SIZE, steps=2)
    assert torch.equal(narrow.sample(model, *compose_controls(*start(), [layer]), SIZE, steps=2), plain)
    assert (work.passes, work.embeddings) == ([], [])
    other = layer_of(controls[1], PICTURES[1])
    with_other = narrow.sample(model, *compose_controls(*start(), [other]), SIZE, steps=2)
    assert torch.equal(narrow.sample(model, *compose_controls(*start(), [layer, other]), SIZE, steps=2), with_other)
    if reason != "schedule 0":  # what follows from the layer alone is not even loaded
        assert control_of(compose_controls(*start(), [layer])).get_models() == []


def test_a_master_strength_of_zero_is_no_control_at_all(model, controls, work):
    plain = narrow.sample(model, *start(), SIZE, steps=2)
    assert torch.equal(
        narrow.sample(model, *compose_controls(*start(), layers_of(controls), 0.0), SIZE, steps=2), plain
    )
    assert (work.passes, work.embeddings) == ([], [])


def test_steps_out_of_range_are_bit_identical_to_no_control(model, controls, work):
    layers = layers_of(controls, settings=[(1.0, 0.9, 1.0)] * 3)
    plain, found = (reached(model, conds, steps=4) for conds in (start(), compose_controls(*start(), layers)))
    assert plain == [None] * 4 and found[:3] == [None] * 3 and found[3] is not None
    assert len(work.passes) == 3


def test_a_layer_that_is_off_lends_the_model_no_hooks(controls):
    """A LoRA that hangs on a control acts on the model: off must mean off."""
    (layer,) = layers_of([with_hook(controls[0])], enabled=False)
    assert control_of(compose_controls(*start(), [layer])).get_extra_hooks() == []


# -- what the host asks of it ----------------------------------------------------------------------------------------------------------------


def with_hook(control):
    control = control.copy()
    control.extra_hooks = comfy.hooks.HookGroup()
    control.extra_hooks = group_of(comfy.hooks.Hook(hook_type=comfy.hooks.EnumHookType.Weight))
    return control


def group_of(hook):
    group = comfy.hooks.HookGroup()
    group.add(hook)
    return group


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


# -- what cannot be meant --------------------------------------------------------------------------------------------------------------------


def test_no_layers():
    with pytest.raises(ControlError) as refused:
        compose_controls(*start(), [])
    assert str(refused.value) == (
        "Compose Controls has no layers, but at least one was expected; connect Control Layer nodes to it, or take it out."
    )


def test_an_overlap_that_there_is_none(controls):
    with pytest.raises(ControlError) as refused:
        compose_controls(*start(), layers_of(controls), overlap="most")
    assert str(refused.value) == (
        "overlap of Compose Controls is 'most', but one of ('sum', 'normalised') was expected; choose one."
    )


def test_a_strength_that_is_no_number(controls):
    with pytest.raises(ControlError) as refused:
        compose_controls(*start(), layers_of(controls[:1]), float("nan"))
    assert str(refused.value) == (
        "the strength of the whole of test.safetensors is nan, but a finite number was expected; type one, for example 1.0."
    )


def test_a_layer_for_another_base_is_refused_before_sampling(model, controls):
    other = narrow.make_ours(narrow.make_module("sdxl"), "SDXL")
    layers = [layer_of(controls[0], PICTURES[0]), layer_of(other, PICTURES[0])]
    spy = narrow.Spy(model)
    with pytest.raises(ControlError) as refused:
        narrow.sample(spy.model, *compose_controls(*start(), layers), SIZE)
    assert str(refused.value) == (
        "test.safetensors is an SDXL control (10 connections, context 40, 32 to 128 channels, pooled vector 2816), but the model is NarrowSD1 "
        "(13 connections, context 24, 32 to 128 channels); use a control made for NarrowSD1, or a model of base SDXL."
    )
    assert spy.calls == []
    off = [layers[0], layer_of(other, PICTURES[0], enabled=False)]  # what is off is in nobody's way
    narrow.sample(spy.model, *compose_controls(*start(), off), SIZE, steps=1)


def test_a_composed_control_is_no_network_for_a_layer(controls):
    bound = control_of(compose_controls(*start(), layers_of(controls[:1])))
    assert isinstance(bound, Control)
    with pytest.raises(
        ControlError,
        match="control_net of Control Layer has its layers already, but one fresh from a Load node was expected",
    ):
        layer_of(bound, PICTURES[0])
