"""Layers that use residuals of an earlier step again: when the network runs, and what reaches the UNet when it does not."""

import math

import pytest

pytest.importorskip("comfy")

import torch

from control_composer.control import Control, ControlError, ForeignControl, compose_controls, layer_of
from control_composer.control.report import report_json, report_text
from control_composer.control.reuse import Reuse
from control_composer.residuals import CurveSchedule
from control_composer.tests import narrow

SIZE = (2, 8, 16)
IMAGE = narrow.picture(1, 64, 128)
STEPS = 8


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


@pytest.fixture(scope="module")
def module():
    return narrow.make_module("sd1")


@pytest.fixture(scope="module")
def control(module):
    return narrow.make_ours(module, "SD1")


def start():
    return narrow.conditioning("sd1", 10), narrow.conditioning("sd1", 11)


def run(model, layers, **changes):
    """The latents, what reached the UNet in each of its calls, and the control's record."""
    conditionings = compose_controls(*start(), layers)
    spy = narrow.Spy(model)
    samples = narrow.sample(spy.model, *conditionings, SIZE, steps=STEPS, **changes)
    return samples, spy.calls, conditionings[0][0][1]["control"].record


def computed(record, layer=1):
    """Steps, from 1, at which the network of a layer ran."""
    numbers = record.step_numbers()
    return [
        numbers[entry.call] for entry in record.steps if entry.layer == layer and entry.ran and entry.held_from is None
    ]


def outputs(call):
    return call.control["output"] + call.control["middle"]


def test_as_it_comes_nothing_is_reused_and_no_bit_changes(model, control):
    plain, _, record = run(model, [layer_of(control, IMAGE)])
    assert computed(record) == list(range(1, STEPS + 1))
    assert torch.equal(run(model, [layer_of(control, IMAGE, reuse=Reuse())])[0], plain)


@pytest.mark.parametrize(
    ("every", "expected"), [(2, [1, 3, 5, 7, 8]), (3, [1, 4, 7, 8]), (4, [1, 5, 8]), (100, [1, 8])]
)
def test_every_counts_the_samplers_steps_and_keeps_the_first_and_the_last(model, module, control, every, expected):
    ran = []
    hook = module.middle_block_out.register_forward_hook(lambda *_: ran.append(1))
    _, calls, record = run(model, [layer_of(control, IMAGE, reuse=Reuse(every))])
    hook.remove()
    assert computed(record) == expected and len(ran) == len(expected)
    for number, call in enumerate(calls, 1):
        source = max(step for step in expected if step <= number)
        assert all(torch.equal(a, b) for a, b in zip(outputs(call), outputs(calls[source - 1]), strict=True)), number
    assert not torch.equal(outputs(calls[expected[1] - 1])[0], outputs(calls[0])[0])


def test_the_ratio_compares_the_noise(model, control):
    _, _, record = run(model, [layer_of(control, IMAGE, reuse=Reuse(ratio=2.0))])
    sigmas = [entry.sigma for entry in record.steps]
    expected, last = [], math.inf
    for number, sigma in enumerate(sigmas, 1):
        if last / sigma >= 2.0 or number == len(sigmas):
            expected.append(number)
            last = sigma
    assert 2 < len(expected) < STEPS and computed(record) == expected


def test_the_last_step_of_a_range_is_evaluated(model, control):
    layer = layer_of(control, IMAGE, end_percent=0.6, reuse=Reuse(100))
    _, calls, record = run(model, [layer])
    acting = [number for number, call in enumerate(calls, 1) if call.control is not None]
    assert 2 < len(acting) < STEPS and computed(record) == [acting[0], acting[-1]]


def test_schedule_weights_and_balance_act_on_what_is_reused(model, control):
    fading = CurveSchedule(lambda x: 1.0 - x, 0.0, 1.0, "step")
    _, calls, record = run(model, [layer_of(control, IMAGE, schedule=fading, uncond_strength=0.5, reuse=Reuse(2))])
    assert computed(record) == [1, 3, 5, 7, 8]
    first, second = outputs(calls[0]), outputs(calls[1])
    for a, b in zip(first, second, strict=True):
        assert narrow.relative(b, a * (1 - 1 / STEPS)) <= 1e-6
    cond, uncond = (calls[1].kinds.index(kind) * SIZE[0] for kind in (0, 1))
    raw = outputs(run(model, [layer_of(control, IMAGE)])[1][0])
    factor = 1 - 1 / STEPS
    for block, plain in zip(second, raw, strict=True):
        assert narrow.relative(block[cond], plain[cond] * factor) <= 1e-5
        assert narrow.relative(block[uncond], plain[uncond] * factor / 2) <= 1e-5


def test_layers_of_one_network_reuse_each_by_its_own_choice(model, control):
    other = narrow.picture(1, 64, 128, seed=6)
    layers = [layer_of(control, IMAGE, reuse=Reuse(2)), layer_of(control, other, strength=0.5)]
    _, calls, record = run(model, layers)
    assert computed(record, 1) == [1, 3, 5, 7, 8] and computed(record, 2) == list(range(1, STEPS + 1))
    alone = [run(model, [layer])[1] for layer in layers]
    both = [outputs(calls[0]), outputs(alone[0][0]), outputs(alone[1][0])]
    for together, a, b in zip(*both, strict=True):
        assert narrow.relative(together, a + b) <= 1e-5


def test_branches_that_the_host_asks_for_one_by_one_keep_their_own(model, control):
    """Conditionings of different length are not batched: two calls at each step."""
    positive, negative = narrow.conditioning("sd1", 10, tokens=7), narrow.conditioning("sd1", 11, tokens=9)
    conditionings = compose_controls(positive, negative, [layer_of(control, IMAGE, reuse=Reuse(3))])
    spy = narrow.Spy(model)
    narrow.sample(spy.model, *conditionings, SIZE, steps=STEPS)
    kinds = [tuple(call.kinds) for call in spy.calls]
    assert set(kinds) == {(0,), (1,)}
    for kind in (0, 1):
        mine = [outputs(call)[0] for call in spy.calls if call.kinds == [kind]]
        assert torch.equal(mine[1], mine[0]) and not torch.equal(mine[3], mine[0])
    assert computed(conditionings[0][0][1]["control"].record) == [n for n in (1, 4, 7, 8) for _ in (0, 1)]


def test_two_calls_of_a_second_order_sampler_in_a_step(model, control):
    _, calls, record = run(model, [layer_of(control, IMAGE, reuse=Reuse(2))], sampler_name="heun")
    assert len(calls) == 2 * STEPS - 1
    ran = [entry.held_from is None for entry in record.steps]
    sigmas = [entry.sigma for entry in record.steps]
    assert ran[0] and not ran[1] and sum(ran) < len(ran)
    again, _, _ = run(model, [layer_of(control, IMAGE, reuse=Reuse(2))], sampler_name="heun")
    assert torch.equal(again, run(model, [layer_of(control, IMAGE, reuse=Reuse(2))], sampler_name="heun")[0])
    assert ran[sigmas.index(min(sigmas))], "the last step"


def test_extrapolation_goes_on_along_log_sigma(model, control):
    _, calls, record = run(model, [layer_of(control, IMAGE, reuse=Reuse(2, extrapolate=True))])
    assert computed(record) == [1, 3, 5, 7, 8]
    sigmas = [entry.sigma for entry in record.steps]
    # Step 4 of steps 1 and 3; the second step has one evaluation behind it only.
    share = math.log(sigmas[2] / sigmas[3]) / math.log(sigmas[0] / sigmas[2])
    for old, new, shown in zip(*(outputs(calls[step]) for step in (0, 2, 3)), strict=True):
        assert narrow.relative(shown, new + share * (new - old)) <= 1e-5
    assert torch.equal(outputs(calls[1])[0], outputs(calls[0])[0])


def test_less_reuse_is_nearer_to_the_exact_picture(model, control):
    exact = run(model, [layer_of(control, IMAGE, strength=2.0)])[0]
    off = [
        narrow.relative(run(model, [layer_of(control, IMAGE, strength=2.0, reuse=Reuse(k))])[0], exact) for k in (2, 8)
    ]
    assert 0 < off[0] < off[1]


def test_a_control_of_the_hosts_is_reused_too(model, module):
    stock = narrow.make_stock(module)
    layer = layer_of(Control.unbound(ForeignControl(stock, "stock", "SD1")), IMAGE, reuse=Reuse(2))
    _, calls, record = run(model, [layer])
    assert computed(record) == [1, 3, 5, 7, 8]
    assert torch.equal(outputs(calls[1])[0], outputs(calls[0])[0])
    assert not torch.equal(outputs(calls[2])[0], outputs(calls[0])[0])


def test_a_run_begins_with_nothing_held(model, control):
    layer = layer_of(control, IMAGE, reuse=Reuse(100))
    conditionings = compose_controls(*start(), [layer])
    first = narrow.sample(model, *conditionings, SIZE, steps=4)
    assert not torch.equal(narrow.sample(model, *conditionings, SIZE, steps=4, seed=9), first)
    assert torch.equal(narrow.sample(model, *conditionings, SIZE, steps=4), first)


def test_the_report_says_what_was_reused(model, control):
    _, _, record = run(model, [layer_of(control, IMAGE, reuse=Reuse(2))])
    text = report_text(record)
    assert "5 evaluations" in text
    assert "Used earlier residuals again at steps 2, 4, 6 of 8." in text
    assert "reuse: every 2 steps" in text
    assert '"reused_steps": [' in report_json(record)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"every": 0}, r"every is 0, but a number of steps from 1 was expected; 1 evaluates at each step\."),
        ({"ratio": 0.5}, r"sigma_ratio is 0\.5, but a factor from 1 was expected; 1 evaluates at each step\."),
        ({"ratio": float("nan")}, "sigma_ratio is nan"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings, words):
    with pytest.raises(ControlError, match=words):
        Reuse(**settings)


def test_what_acts_inside_of_the_model_cannot_be_reused(tmp_path):
    from control_composer.tests.control.cases import INSIDE

    case = INSIDE["reference"](tmp_path)
    layer_of(case.ours, IMAGE, **case.settings)
    with pytest.raises(ControlError, match=r"acts inside of the model, .*set every and sigma_ratio to 1\."):
        layer_of(case.ours, IMAGE, **case.settings, reuse=Reuse(2))
