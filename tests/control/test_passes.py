"""Many layers in one control: in how many passes of the networks, of how many rows."""

import pytest

pytest.importorskip("comfy")

import torch

from control_composer.control import compose_controls, layer_of
from control_composer.residuals import Flat, ListedWeights, SoftWeights
from control_composer.residuals.schedules import Keyframe, Keyframes
from control_composer.tests import narrow
from control_composer.tests.control.composed import (
    PICTURES,
    SIZE,
    Work,
    control_of,
    layers_of,
    reached,
    start,
    stock_chain,
    with_hook,
)


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


@pytest.fixture(scope="module")
def modules():
    return [narrow.make_module("sd1", seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def controls(modules):
    return [narrow.make_ours(module, "SD1") for module in modules]


@pytest.fixture
def work(modules):
    work = Work(modules)
    yield work
    for hook in work.hooks:
        hook.remove()


@pytest.fixture
def small_passes(monkeypatch):
    """As if the latents were large: four rows, the UNet's, fill a pass."""
    from control_composer.control import memory

    monkeypatch.setattr(memory, "CELLS_ON_CPU", 4 * SIZE[1] * SIZE[2])


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
    from control_composer.control import memory

    monkeypatch.setattr(memory, "CELLS_ON_CPU", cells * SIZE[1] * SIZE[2])
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
