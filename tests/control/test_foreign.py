"""Controls of another kind as layers: a T2I-Adapter, a ControlNet with the host's own strength ladder, and a Flux ControlNet with its transformer.

Nothing is a stand-in: all are the host's classes with random weights, and the references are the stock nodes.
"""

import copy

import pytest

pytest.importorskip("comfy")

import comfy.controlnet
import comfy.ldm.flux.controlnet
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import comfy.t2i_adapter.adapter
import torch
from comfy.context_windows import ContextFuseMethods, ContextSchedules
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pad

from control_composer.control import ControlError, compose_controls, layer_of
from control_composer.residuals import ImageStrengths, ListedWeights, ListSchedule, ScheduleError
from control_composer.tests import narrow

SIZE = (2, 8, 16)
IMAGE = narrow.picture(1, 64, 128)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


@pytest.fixture(scope="module")
def module():
    return narrow.make_module("sd1")


def adapter():
    """The host's control for a T2I-Adapter of the narrow model's widths; its residuals depend on the hint alone."""
    network = comfy.t2i_adapter.adapter.Adapter(
        channels=[32, 64, 128, 128], nums_rb=2, cin=192, ksize=1, sk=True, use_conv=False, xl=False
    )
    narrow.fill(network, 4)
    return comfy.controlnet.T2IAdapter(network, 3, 8, "nearest-exact")


def ladder(module):
    """A ControlNet whose strength the host raises to the power of the block: the arithmetic must stay the host's."""
    return narrow.make_stock(module, strength_type=comfy.controlnet.StrengthType.LINEAR_UP)


def start():
    return narrow.conditioning("sd1", 10), narrow.conditioning("sd1", 11)


def reached(model, conditionings, size=SIZE, **changes):
    """The calls of the UNet with what reached it."""
    spy = narrow.Spy(model)
    narrow.sample(spy.model, *conditionings, size, **{"steps": 1} | changes)
    return spy.calls


def compose(*layers, strength=1.0):
    return compose_controls(*start(), layers, strength)


def by_row(kinds, latents, uncond=1.0):
    """A factor per row from one per latent."""
    return torch.tensor([s * (1.0 if kind == 0 else uncond) for kind in kinds for s in latents])


# -- flat ------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["atl", "lat", "tal"])
def test_layers_of_all_kinds_equal_the_stock_chain(model, module, order):
    """a: adapter, t: ours, l: the host's ladder."""
    images = {kind: narrow.picture(2, 64, 128, seed=seed) for seed, kind in enumerate("atl")}
    layers, conds = [], start()
    for kind in order:
        control = {"a": adapter, "t": lambda: narrow.make_ours(module, "SD1"), "l": lambda: ladder(module)}[kind]()
        stock = narrow.make_stock(module) if kind == "t" else control
        layers.append(layer_of(control, images[kind], 0.7, 0.0, 0.8))
        conds = narrow.stock_apply(*conds, stock, images[kind], 0.7, 0.0, 0.8)
    expected = narrow.sample(model, *conds, SIZE, steps=3)
    assert narrow.relative(narrow.sample(model, *compose(*layers), SIZE, steps=3), expected) <= 1e-5


# -- shaped ----------------------------------------------------------------------------------------------------------------------------------


def test_weights_schedule_mask_balance_and_strengths_multiply(model):
    control, weights = adapter(), (0.3, 0.5, 0.7, 1.1)
    mask = torch.rand(2, 64, 128, generator=torch.Generator().manual_seed(3))
    schedule = ListSchedule((1.0, 0.4), axis="step") * ImageStrengths((0.6, 1.2))
    layer = layer_of(
        control, IMAGE, 0.8, uncond_strength=0.5, weights=ListedWeights(weights), mask=mask, schedule=schedule
    )
    calls = reached(model, compose(layer, strength=1.5), steps=2)
    with torch.inference_mode():
        raw = control.t2i_model(IMAGE.movedim(-1, 1))["input"]
    for call, over_time in zip(calls, (1.0, 0.4), strict=True):
        factors = by_row(call.kinds, (0.6, 1.2), 0.5).view(-1, 1, 1, 1) * (0.8 * 1.5 * over_time)
        finest_first = iter(weights)
        for block, whole in reversed(list(zip(call.control["input"], raw, strict=True))):
            if whole is None:
                assert block is None
                continue
            spread = adaptive_avg_pool2d(mask.unsqueeze(1), tuple(whole.shape[-2:])).repeat(2, 1, 1, 1)
            assert narrow.relative(block, whole * spread * factors * next(finest_first)) <= 1e-5
        assert list(finest_first) == []


def test_conditional_only_evaluates_the_conditional_chunks_and_equals_all_with_the_others_at_zero(model, module):
    rows = []
    hook = module.middle_block.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    image = narrow.picture(2, 64, 128)
    (whole,) = reached(model, compose(layer_of(ladder(module), image, 0.9)))
    (found,) = reached(model, compose(layer_of(ladder(module), image, 0.9, uncond_strength=0.0)))
    hook.remove()
    assert rows == [4, 2]
    conditional = by_row(found.kinds, (1.0, 1.0), 0.0).view(-1, 1, 1, 1)
    for place in ("output", "middle"):
        for block, both in zip(found.control[place], whole.control[place], strict=True):
            assert narrow.relative(block, both * conditional) <= 1e-5


def test_a_strength_of_zero_for_one_picture_leaves_the_others_their_own(model, module):
    image = narrow.picture(2, 64, 128)
    (whole,) = reached(model, compose(layer_of(ladder(module), image, 0.9)))
    (found,) = reached(model, compose(layer_of(ladder(module), image, 0.9, schedule=ImageStrengths((0.0, 0.5)))))
    factors = by_row(found.kinds, (0.0, 0.5)).view(-1, 1, 1, 1)
    for block, both in zip(found.control["output"], whole.control["output"], strict=True):
        assert narrow.relative(block, both * factors) <= 1e-5


def test_an_uneven_batch_of_several_conditionings_does_too(model, module):
    """Text lengths that cannot be put into one batch: the host asks for one chunk and for two, and an adapter keeps what it computed."""
    image = narrow.picture(2, 64, 128)

    def conds(apply):
        positive = narrow.conditioning("sd1", 10) + narrow.conditioning("sd1", 12, tokens=11)
        return apply(positive, narrow.conditioning("sd1", 11))

    found = conds(lambda *both: compose_controls(*both, [layer_of(adapter(), image, 0.8)]))
    calls = reached(model, found, steps=2)
    assert {len(call.kinds) for call in calls} == {1, 2}
    for call in calls:
        for block in call.control["input"]:
            assert block is None or len(block) == 2 * len(call.kinds)
    one = adapter()
    with torch.inference_mode():
        raw = one.t2i_model(image.movedim(-1, 1))["input"]
    for call in calls:
        for block, whole in zip(call.control["input"], raw, strict=True):
            assert whole is None or narrow.relative(block, 0.8 * whole.repeat(len(call.kinds), 1, 1, 1)) <= 1e-5


def test_a_foreign_control_out_of_range_or_at_schedule_zero_is_not_asked(model, module):
    passes = []
    hook = module.middle_block.register_forward_hook(lambda *_: passes.append(1))
    for settings in (
        {"start_percent": 0.2, "end_percent": 0.5},
        {"schedule": ListSchedule((0.0,))},
        {"mask": torch.zeros(1, 64, 128)},
    ):
        calls = reached(model, compose(layer_of(ladder(module), IMAGE, **settings)), steps=2)
        assert [call.control for call in calls] == [None] * 2
    hook.remove()
    assert passes == []


# -- placed ----------------------------------------------------------------------------------------------------------------------------------


def placed_by_hand(image, sizing, fill):
    """A square picture on a canvas of 64 × 128 pixels."""
    planes = image.movedim(-1, 1)
    if sizing == "stretch":
        return interpolate(planes, size=(64, 128), mode="nearest-exact").movedim(1, -1)
    small = interpolate(planes, size=(64, 64), mode="nearest-exact")
    around = {"mode": "replicate"} if fill == "edge" else {"value": float(fill == "white")}
    return pad(small, (32, 32, 0, 0), **around).movedim(1, -1)


@pytest.mark.parametrize("kind", ["adapter", "ladder"])
@pytest.mark.parametrize(("sizing", "fill"), [("stretch", "black"), ("fit", "white")])
def test_sizing_equals_the_stock_nodes_with_a_hint_that_was_placed_by_hand(model, module, kind, sizing, fill):
    image = narrow.picture(2, 96, 96)
    control = adapter() if kind == "adapter" else ladder(module)
    expected = narrow.stock_apply(*start(), control, placed_by_hand(image, sizing, fill))
    found = compose(layer_of(control, image, sizing=sizing, fill=fill))
    expected, found = (narrow.sample(model, *conds, SIZE, steps=2) for conds in (expected, found))
    assert narrow.relative(found, expected) <= 1e-5


@pytest.mark.parametrize("kind", ["adapter", "ladder"])
def test_policies_equal_the_stock_nodes_with_hints_in_that_order(model, module, kind):
    image = narrow.picture(2, 64, 128)
    control = adapter() if kind == "adapter" else ladder(module)
    expected = narrow.stock_apply(*start(), control, image[[0, 0, 1, 1]])
    found = compose(layer_of(control, image, batch="repeat"))
    expected, found = (narrow.sample(model, *conds, (4, 8, 16), steps=2) for conds in (expected, found))
    assert narrow.relative(found, expected) <= 1e-5


def test_an_area_gets_its_part_of_the_hint(model, module):
    import nodes

    control = ladder(module)

    def in_area(conditioning):
        return nodes.ConditioningSetArea().append(conditioning, 64, 64, 48, 0, 1.0)[0]

    part = narrow.stock_apply(*start(), control, IMAGE[:, :, 48:112])
    expected = narrow.sample(model, in_area(part[0]), start()[1], SIZE, steps=2)
    whole = compose(layer_of(control, IMAGE))
    found = narrow.sample(model, in_area(whole[0]), start()[1], SIZE, steps=2)
    assert narrow.relative(found, expected) <= 1e-5


@pytest.mark.parametrize("kind", ["ladder", "adapter"])
def test_two_areas_of_one_size_in_one_batch_get_each_its_part(model, module, kind):
    """The stock reference: a control of its own for each area, with the hint cut by hand."""
    import nodes

    control = adapter() if kind == "adapter" else ladder(module)

    def in_area(conditioning, x):
        return nodes.ConditioningSetArea().append(conditioning, 64, 64, x, 0, 1.0)[0]

    (plain, negative), right = start(), narrow.conditioning("sd1", 12)
    expected = [
        in_area(narrow.stock_apply(words, [], control, IMAGE[:, :, x : x + 64])[0], x)
        for words, x in ((plain, 0), (right, 64))
    ]
    layer = layer_of(control, IMAGE)
    whole, _ = compose_controls(plain + right, [], [layer])
    found = in_area(whole[:1], 0) + in_area(whole[1:], 64)
    expected, found = (
        narrow.sample(model, positive, negative, SIZE, steps=2) for positive in (expected[0] + expected[1], found)
    )
    assert narrow.relative(found, expected) <= 1e-5
    assert layer.source.control.cond_hint_original is layer.hint_bchw  # as it was before the run


def windowed(model):
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    return ContextWindowsManualNode.execute(
        model,
        3,
        0,
        ContextSchedules.STATIC_STANDARD,
        1,
        False,
        ContextFuseMethods.PYRAMID,
        0,
        False,
        causal_window_fix=False,
    ).result[0]


def frames_in_windows(model, layer, image, control, size):
    """Per call of a window of three frames: what reached, and what the adapter gives their hints."""
    calls = reached(windowed(model), compose(layer), size)
    with torch.inference_mode():
        raw = control.t2i_model(image.movedim(-1, 1))["input"]
    return [(call, [x if x is None else x[3 * n : 3 * n + 3] for x in raw]) for n, call in enumerate(calls)]


def test_hints_stay_with_their_frames_and_the_next_run_has_its_own(model):
    image, control = narrow.picture(6, 64, 64), adapter()
    layer = layer_of(control, image)
    for _ in range(2):
        pairs = frames_in_windows(model, layer, image, control, (6, 8, 8))
        assert len(pairs) == 2
        for call, raw in pairs:
            for block, whole in zip(call.control["input"], raw, strict=True):
                assert whole is None or narrow.relative(block, whole.repeat(2, 1, 1, 1)) <= 1e-5
    expected = narrow.sample(model, *narrow.stock_apply(*start(), control, image), (6, 8, 8), steps=1)
    assert narrow.relative(narrow.sample(model, *compose(layer), (6, 8, 8), steps=1), expected) <= 1e-5


def test_a_clone_made_after_windows_has_the_whole_hint_and_weights_of_its_own(model):
    image, control = narrow.picture(6, 64, 64), adapter()
    layer = layer_of(control, image)
    reached(windowed(model), compose(layer), (6, 8, 8))
    conds = compose(layer)
    clone = conds[0][0][1]["control"].deepclone_multigpu(CPU)
    twin = clone.layers[0].source.control
    assert twin.t2i_model is not layer.source.control.t2i_model
    cloned = tuple([[entry[0], entry[1] | {"control": clone}] for entry in side] for side in conds)
    expected = narrow.sample(model, *narrow.stock_apply(*start(), control, image), (6, 8, 8), steps=1)
    assert narrow.relative(narrow.sample(model, *cloned, (6, 8, 8), steps=1), expected) <= 1e-5


# -- transformers ----------------------------------------------------------------------------------------------------------------------------

FLUX = {
    "image_model": "flux",
    "guidance_embed": False,
    "in_channels": 16,
    "vec_in_dim": 32,
    "context_in_dim": 24,
    "hidden_size": 64,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 3,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "txt_ids_dims": [],
}
FLUX_SIZE = (2, 8, 12)


class NarrowFlux(comfy.supported_models.Flux):
    unet_config = FLUX | {"out_channels": 16}


@pytest.fixture(scope="module")
def flux():
    config = NarrowFlux(copy.deepcopy(NarrowFlux.unet_config))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    narrow.fill(model.diffusion_model, 1)
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def flux_control():
    """As the host builds XLabs' ControlNet for Flux: one residual of tokens per transformer block, repeated to 19 and 38."""
    network = comfy.ldm.flux.controlnet.ControlNetFlux(
        dtype=torch.float32, operations=comfy.ops.disable_weight_init, **FLUX, out_channels=16
    )
    narrow.fill(network, 5)
    return comfy.controlnet.ControlNet(network, load_device=CPU, extra_conds=["y", "guidance"])


def flux_start():
    def conditioning(seed):
        generator = torch.Generator().manual_seed(seed)
        pooled = torch.randn(1, 32, generator=generator)
        return [[torch.randn(1, 7, 24, generator=generator), {"pooled_output": pooled, "guidance": None}]]

    return conditioning(1), conditioning(2)


def test_a_flux_control_equals_the_stock_nodes(flux):
    image, control = narrow.picture(2, 64, 96), flux_control()
    expected = narrow.stock_apply(*flux_start(), control, image, 0.7, 0.0, 0.8)
    found = compose_controls(*flux_start(), [layer_of(control, image, 0.7, 0.0, 0.8)])
    expected, found, plain = (
        narrow.sample(flux, *conds, FLUX_SIZE, steps=3) for conds in (expected, found, flux_start())
    )
    assert narrow.relative(found, expected) <= 1e-5
    assert narrow.relative(plain, expected) > 1e-3


def test_the_tokens_of_a_flux_control_are_weighted_masked_scheduled_and_balanced(flux):
    image, control = narrow.picture(1, 64, 96), flux_control()
    mask = torch.rand(1, 64, 96, generator=torch.Generator().manual_seed(6))
    weights = tuple(0.5 + 0.01 * index for index in range(57))
    layer = layer_of(
        control,
        image,
        0.7,
        weights=ListedWeights(weights),
        mask=mask,
        schedule=ListSchedule((0.5,)),
        uncond_strength=0.3,
    )
    (flat,) = reached(flux, narrow.stock_apply(*flux_start(), control, image), FLUX_SIZE)
    (found,) = reached(flux, compose_controls(*flux_start(), [layer]), FLUX_SIZE)
    tokens = adaptive_avg_pool2d(mask.unsqueeze(1), (4, 6)).flatten().view(1, 24, 1)  # 2 × 2 cells each
    factor = 0.7 * 0.5 * tokens * by_row(found.kinds, (1.0, 1.0), 0.3).view(-1, 1, 1)
    position = iter(weights)  # transformers count from the beginning: input, then output
    for place, count in (("input", 19), ("output", 38)):
        assert len(found.control[place]) == len(flat.control[place]) == count
        for block, whole in zip(found.control[place], flat.control[place], strict=True):
            assert block.shape == whole.shape == (4, 24, 64)
            assert narrow.relative(block, whole * factor * next(position)) <= 1e-5


def test_a_flux_control_on_conditional_rows_alone_with_the_chain_before_it(flux):
    image, first, second = narrow.picture(2, 64, 96), flux_control(), flux_control()
    rows = []
    hook = second.control_model.img_in.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    before = narrow.stock_apply(*flux_start(), first, image, 0.5)
    (alone,) = reached(flux, before, FLUX_SIZE)
    (both,) = reached(flux, narrow.stock_apply(*before, second, image, 0.8), FLUX_SIZE)
    layer = layer_of(second, image, 0.8, uncond_strength=0.0)
    (found,) = reached(flux, compose_controls(*before, [layer]), FLUX_SIZE)
    hook.remove()
    assert rows == [4, 2]
    conditional = by_row(found.kinds, (1.0, 1.0), 0.0).view(-1, 1, 1)
    for place in ("input", "output"):
        for block, a, b in zip(found.control[place], alone.control[place], both.control[place], strict=True):
            assert narrow.relative(block, a + (b - a) * conditional) <= 1e-5


def test_a_mask_on_a_flux_control_of_an_odd_size(flux):
    """The host pads the latent: the last tokens cover cells that are half outside, and have the mean of those inside."""
    image, control = narrow.picture(1, 72, 88), flux_control()
    control.control_model.input_hint_block[-1].register_forward_hook(lambda _, __, out: pad(out, (0, 1, 0, 1)))
    mask = torch.zeros(1, 72, 88)
    mask[:, 64:], mask[:, :, 80:] = 1.0, 1.0
    (found,) = reached(flux, compose_controls(*flux_start(), [layer_of(control, image, mask=mask)]), (1, 9, 11))
    kept = found.control["input"][0].abs().sum((0, 2)).view(5, 6) > 0
    assert kept[4].all() and kept[:, 5].all() and not kept[:4, :5].any()


# -- what cannot be meant --------------------------------------------------------------------------------------------------------------------


class Other(comfy.controlnet.ControlBase):
    """A control of another pack, which sizes its hint itself."""

    def copy(self):
        twin = Other()
        self.copy_to(twin)
        return twin

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        return self.control_merge({"input": [torch.ones(len(x_noisy), 32, *x_noisy.shape[-2:])]}, None, x_noisy.dtype)


def test_a_control_of_another_pack_is_shaped_as_it_comes(model):
    mask = torch.zeros(1, 64, 128)
    mask[:, :, 64:] = 1
    (call,) = reached(model, compose(layer_of(Other(), IMAGE, 0.6, mask=mask, uncond_strength=0.5), strength=2.0))
    (block,) = call.control["input"]
    assert not block[..., :8].any()
    expected = by_row(call.kinds, (1.0, 1.0), 0.5).view(-1, 1, 1, 1) * 1.2
    assert torch.allclose(block[..., 8:], expected.expand(4, 32, 8, 8))


def test_it_is_not_sized_by_us(model):
    with pytest.raises(ControlError) as refused:
        reached(model, compose(layer_of(Other(), IMAGE, sizing="fit")))
    assert str(refused.value) == (
        "the connected control_net (Other) sizes its hint itself, but a placing other than the host's was expected of it (sizing, batch policy, "
        "area or context window); leave sizing at crop and batch at cycle, and use it without areas and context windows."
    )


def test_weights_of_another_count_are_refused(model):
    with pytest.raises(
        ControlError, match=r"Block Weights has 13 numbers, but this control has 4 blocks \(input 0 to input 3\)"
    ):
        reached(model, compose(layer_of(adapter(), IMAGE, weights=ListedWeights((0.5,) * 13))))


def test_more_hints_than_latents_are_refused(model):
    with pytest.raises(
        ControlError, match="there are 3 pictures for 2 latents, but at most one for each was expected; take 2"
    ):
        reached(model, compose(layer_of(adapter(), narrow.picture(3, 64, 128))))


def test_strengths_for_more_pictures_than_there_are(model):
    with pytest.raises(
        (ControlError, ScheduleError), match="has 3 numbers, but the batch has 2 pictures; write at most 2"
    ):
        reached(model, compose(layer_of(adapter(), IMAGE, schedule=ImageStrengths((1.0, 0.5, 0.2)))))
