"""What reaches the UNet: weights, strength, balance, range; and what is computed for it."""

import pytest

pytest.importorskip("comfy")

import torch

from control_composer.control import apply_control
from control_composer.residuals import ResolutionWeights
from control_composer.tests import narrow

SIZE = (2, 9, 13)
IMAGE = narrow.picture(2, 72, 104)


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return narrow.make_model(kind)


@pytest.fixture(scope="module")
def module(kind):
    return narrow.make_module(kind)


@pytest.fixture(scope="module")
def control(module, kind):
    return narrow.make_ours(module, kind)


def conds(kind):
    return narrow.conditioning(kind, 10), narrow.conditioning(kind, 11)


def reached(model, conditionings, size=SIZE, steps=1):
    """The first residuals that reach the UNet, as a list of blocks with the middle last, and its rows' kinds."""
    spy = narrow.Spy(model)
    narrow.sample(spy.model, *conditionings, size, steps=steps)
    assert spy.calls[0].control is not None
    return spy.calls[0].control["output"] + spy.calls[0].control["middle"], spy.calls[0].kinds


@pytest.mark.parametrize("strength", [1.0, 0.7])
@pytest.mark.parametrize(("form", "size"), [("literal", "actual"), ("normalised", "actual"), ("normalised", "nominal")])
def test_each_block_gets_the_flat_residual_times_its_weight_to_the_last_bit(model, control, kind, strength, form, size):
    flat, _ = reached(model, apply_control(*conds(kind), control, IMAGE, strength))
    weighted, _ = reached(
        model, apply_control(*conds(kind), control, IMAGE, strength, weights=ResolutionWeights(form, size))
    )
    assert len(flat) == len(weighted) == {"sd1": 13, "sdxl": 10}[kind]
    for index, (a, b) in enumerate(zip(flat, weighted, strict=True)):
        h = (a.shape[2] * a.shape[3]) ** 0.5 if size == "actual" else 64 / 2 ** min(index // 3, len(flat) // 3 - 1)
        smallest = (
            (flat[-1].shape[2] * flat[-1].shape[3]) ** 0.5 if size == "actual" else 64 / 2 ** (len(flat) // 3 - 1)
        )
        assert torch.equal(b, a * ((64 if form == "literal" else smallest) / h))


def test_strength_multiplies(model, control, kind):
    flat, _ = reached(model, apply_control(*conds(kind), control, IMAGE))
    strong, _ = reached(model, apply_control(*conds(kind), control, IMAGE, 1.7))
    assert all(torch.equal(b, a * 1.7) for a, b in zip(flat, strong, strict=True))


@pytest.mark.parametrize("uncond_strength", [0.0, 0.3])
def test_balance_multiplies_the_rows_of_the_unconditional_branch(model, control, kind, uncond_strength):
    both, kinds = reached(model, apply_control(*conds(kind), control, IMAGE))
    found, _ = reached(model, apply_control(*conds(kind), control, IMAGE, uncond_strength=uncond_strength))
    assert sorted(kinds) == [0, 1]
    conditional = torch.tensor([kind == 0 for kind in kinds for _ in range(SIZE[0])])
    for a, b in zip(both, found, strict=True):
        assert narrow.relative(b[conditional], a[conditional]) <= 1e-5
        expected = a[~conditional] * uncond_strength
        assert (
            torch.equal(b[~conditional], expected)
            if uncond_strength == 0
            else narrow.relative(b[~conditional], expected) <= 1e-6
        )


def test_conditional_only_equals_the_full_evaluation_with_the_other_rows_set_to_zero(model, control, kind):
    """The reference evaluates everything and masks what reaches the UNet; several conditionings make the rows uneven."""

    def conditionings(**balance):
        positive, negative = conds(kind)
        return apply_control(positive + narrow.conditioning(kind, 12), negative, control, IMAGE, **balance)

    def masked(apply_model, call):
        rows = torch.tensor([float(kind == 0) for kind in call["cond_or_uncond"] for _ in range(SIZE[0])]).view(
            -1, 1, 1, 1
        )
        control = {place: [x * rows for x in residuals] for place, residuals in call["c"]["control"].items()}
        return apply_model(call["input"], call["timestep"], **(call["c"] | {"control": control}))

    reference = model.clone()
    reference.set_model_unet_function_wrapper(masked)
    expected = narrow.sample(reference, *conditionings(), SIZE, sampler_name="heun")
    found = narrow.sample(model, *conditionings(uncond_strength=0.0), SIZE, sampler_name="heun")
    assert narrow.relative(found, expected) <= 1e-5
    assert narrow.relative(narrow.sample(model, *conditionings(), SIZE, sampler_name="heun"), expected) > 1e-2


@pytest.fixture
def work(module):
    """Rows of each pass of the network and of each embedding."""
    passes, embeddings = [], []
    hooks = [
        module.middle_block.register_forward_hook(lambda _, arguments, __: passes.append(len(arguments[0]))),
        module.input_hint_block.register_forward_hook(lambda _, arguments, __: embeddings.append(len(arguments[0]))),
    ]
    yield passes, embeddings
    for hook in hooks:
        hook.remove()


def test_a_hint_is_embedded_once_a_run(model, control, kind, work):
    passes, embeddings = work
    conditionings = apply_control(*conds(kind), control, IMAGE)
    narrow.sample(model, *conditionings, SIZE)
    assert (passes, embeddings) == ([4] * 8, [2])
    narrow.sample(model, *conditionings, SIZE, steps=2)
    assert (passes, embeddings) == ([4] * 10, [2, 2])
    assert conditionings[0][0][1]["control"]._run is None


def test_conditional_only_evaluates_half_of_the_rows(model, control, kind, work):
    narrow.sample(model, *apply_control(*conds(kind), control, IMAGE, uncond_strength=0.0), SIZE, steps=3)
    assert work[0] == [2, 2, 2]


def test_steps_outside_the_range_compute_nothing(model, control, kind, work):
    narrow.sample(model, *apply_control(*conds(kind), control, IMAGE, 1.0, 0.5, 0.8), SIZE)
    ours = len(work[0])
    narrow.sample(
        model, *narrow.stock_apply(*conds(kind), narrow.make_stock(control.network.module), IMAGE, 1.0, 0.5, 0.8), SIZE
    )
    assert 0 < ours < 8
    assert len(work[0]) == 2 * ours


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.25, 0.75), (0.5, 0.5)])
def test_both_ends_of_the_range_belong_to_it_as_in_the_stock_nodes(model, control, kind, start, end):
    sampling = model.model.model_sampling
    stock = narrow.make_stock(control.network.module).set_cond_hint(IMAGE[:1].movedim(-1, 1), 1.0, (start, end))
    ours = control.copy().set_cond_hint(IMAGE[:1].movedim(-1, 1), 1.0, (start, end))
    for each in (stock, ours):
        each.pre_run(model.model, sampling.percent_to_sigma)
    context = narrow.conditioning(kind, 1)[0][0]
    cond = {"c_crossattn": context} | ({"y": torch.zeros(1, 2816)} if kind == "sdxl" else {})
    acts = []
    for percent in (start, end):
        at = torch.tensor([sampling.percent_to_sigma(percent)]).clamp(max=14.0)
        below = torch.nextafter(at, at - 1).clamp(min=0.0)  # no sampler asks below 0
        for sigma in (at, torch.nextafter(at, at + 1), below):
            with torch.inference_mode():
                expected, found = (
                    each.get_control(torch.zeros(1, 4, 9, 13), sigma, cond, 1, {}) for each in (stock, ours)
                )
            assert (found is None) == (expected is None), (percent, sigma)
            acts.append(found is not None)
    if (start, end) == (0.25, 0.75):
        assert acts == [True, False, True, True, True, False]


def test_zero_strength_is_no_control_at_all(model, control, kind, work):
    positive, negative = conds(kind)
    out = apply_control(positive, negative, control, IMAGE, 0.0)
    assert out[0] is positive and out[1] is negative
    assert torch.equal(
        narrow.sample(model, *out, SIZE, steps=2), narrow.sample(model, positive, negative, SIZE, steps=2)
    )
    assert work == ([], [])


def test_the_same_graph_and_seed_twice_give_the_same_latents(model, control, kind):
    image = IMAGE.clone()
    first, second = (
        narrow.sample(model, *apply_control(*conds(kind), control, image), SIZE, steps=3) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(image, IMAGE)


def test_an_area_gets_its_part_of_the_hint(model, control, kind):
    """What the stock nodes give when the area's conditioning has the hint cut to it by hand; they would squeeze the whole hint into it."""
    import nodes

    def with_area(conditioning, image):
        apply = narrow.make_stock(control.network.module)
        return narrow.stock_apply(conditioning, [], apply, image)[0]

    positive, negative = conds(kind)
    (part,) = nodes.ConditioningSetArea().append(positive, 64, 48, 8, 0, 1.0)
    expected = with_area(part, IMAGE[:, 0:48, 8:72]) + with_area(positive, IMAGE), with_area(negative, IMAGE)
    steered, unwanted = apply_control(positive, negative, control, IMAGE)
    found = nodes.ConditioningSetArea().append(steered, 64, 48, 8, 0, 1.0)[0] + steered, unwanted
    expected, found = (narrow.sample(model, *both, SIZE, steps=3) for both in (expected, found))
    assert narrow.relative(found, expected) <= 1e-5
