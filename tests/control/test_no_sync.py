"""From its second call in a run on, a control asks the device for nothing: no wait but for a number that decides what is computed."""

import json
import warnings
from collections import Counter

import pytest

pytest.importorskip("comfy")

import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

from control_composer.control import Control, apply_control, compose_controls, layer_of
from control_composer.control.record import Record
from control_composer.control.report import report_json
from control_composer.control.step import Run
from control_composer.control.upload import pinnable, uploaded
from control_composer.residuals import CurveSchedule, SoftWeights
from control_composer.residuals.schedule_images import ImageStrengths
from control_composer.tests import narrow
from control_composer.tests.control.cases import CASES

SIZE = (2, 8, 8)
IMAGE = narrow.picture(2, 64, 64)
MASK = torch.linspace(0, 1, 64).expand(2, 64, 64)

READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "item"}
MADE = {"lift_fresh", "lift_fresh_copy", "index", "index_put", "index_put_"}
"""Of Python's numbers; the latter only where they are used as an index."""
METHODS = {"tolist", "cpu", "numpy", "item", "__bool__", "__float__", "__int__", "__index__"}
FUNCTIONS = {"torch.tensor", "torch.as_tensor", "torch.from_numpy"}


class Watched(TorchDispatchMode):
    """Counts what would make Python wait on CUDA, of what a CPU can show."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # or torch imports its compiler

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in READS | MADE:
            self.seen[name] += 1
        return func(*args, **kwargs or {})


class Named(TorchFunctionMode):
    """What the other one does not see: lists made of tensors, and tensors of lists."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = resolve_name(func) or ""
        if name in FUNCTIONS or (name.startswith("torch.Tensor.") and name.removeprefix("torch.Tensor.") in METHODS):
            self.seen[name] += 1
        return func(*args, **kwargs or {})


@pytest.fixture
def waits(monkeypatch):
    """What was counted in each call of `get_control`; None for the first, which may wait."""
    calls, get_control = [], Control.get_control

    def watched(self, *arguments):
        calls.append(Counter() if calls else None)
        if calls[-1] is None:
            return get_control(self, *arguments)
        with Named(calls[-1]), Watched(calls[-1]):
            return get_control(self, *arguments)

    monkeypatch.setattr(Control, "get_control", watched)
    return calls


@pytest.fixture(scope="module")
def models():
    return {kind: narrow.make_model(kind) for kind in ("sd1", "sdxl")}


@pytest.fixture(scope="module")
def controls():
    seeds = {"sd1": (1, 2), "sdxl": (1,)}
    return {kind: [narrow.make_ours(narrow.make_module(kind, seed), kind) for seed in seeds[kind]] for kind in seeds}


def start(kind):
    return narrow.conditioning(kind, 10), narrow.conditioning(kind, 11)


def run(model, kind, layers, steps=2):
    conditionings = compose_controls(*start(kind), layers)
    narrow.sample(model, *conditionings, SIZE, steps=steps)
    return conditionings[0][0][1]["control"].record


SETTINGS = {
    "exact": {},
    "strength": {"strength": 0.7},
    "conditional only": {"uncond_strength": 0.0},
    "balance": {"uncond_strength": 0.5},
    "soft weights": {"strength": 0.7, "weights": SoftWeights()},
    "mask": {"mask": MASK, "uncond_strength": 0.5},
    "one mask": {"mask": MASK[:1], "uncond_strength": 0.0},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_one_layer(models, controls, waits, settings):
    run(models["sd1"], "sd1", [layer_of(controls["sd1"][0], IMAGE, **settings)])
    assert waits == [None, Counter()]


@pytest.mark.parametrize("settings", [{}, {"uncond_strength": 0.0}])
def test_a_network_that_reads_a_pooled_vector(models, controls, waits, settings):
    run(models["sdxl"], "sdxl", [layer_of(controls["sdxl"][0], IMAGE, **settings)])
    assert waits == [None, Counter()]


def test_three_layers_of_two_networks(models, controls, waits):
    first, second = controls["sd1"]
    layers = [
        layer_of(first, IMAGE, uncond_strength=0.5),
        layer_of(first, narrow.picture(1, 96, 96), weights=SoftWeights(), uncond_strength=0.0),
        layer_of(second, IMAGE, strength=0.3, mask=MASK),
    ]
    run(models["sd1"], "sd1", layers)
    assert waits == [None, Counter()]


def test_a_union_network(waits, tmp_path):
    case = CASES["Union, several types"](tmp_path)
    narrow.sample(case.model, *case.compose(uncond_strength=0.5), SIZE, steps=2)
    assert waits == [None, Counter()]


def test_a_strength_for_each_picture(models, controls, waits):
    schedule = ImageStrengths((1.0, 0.4))
    run(models["sd1"], "sd1", [layer_of(controls["sd1"][0], IMAGE, schedule=schedule)])
    assert waits == [None, Counter()]


@pytest.mark.parametrize(
    "settings", [{"end_percent": 0.9}, {"schedule": CurveSchedule(lambda x: 1.0 - x, 0.0, 1.0, "percent")}]
)
def test_sigma_is_fetched_once_for_all_layers_that_must_know_it(models, controls, waits, settings):
    """Also what shows that the counting counts."""
    run(models["sd1"], "sd1", [layer_of(control, IMAGE, **settings) for control in controls["sd1"]])
    assert waits[1]["torch.Tensor.cpu"] == 1


def test_counting_sees_what_it_looks_for():
    seen = Counter()
    values = torch.arange(4.0)
    with Named(seen), Watched(seen):
        torch.tensor([1, 2])
        values[[0, 2]]
        values.tolist()
        bool(values[0] > 1)
        values[values > 1]
    assert {"torch.tensor", "lift_fresh", "index", "torch.Tensor.tolist", "_local_scalar_dense"} <= set(seen)


def test_the_record_knows_sigmas_and_steps_after_the_run(models, controls):
    """Nobody read them on the way."""
    conditionings = apply_control(*start("sd1"), controls["sd1"][0], IMAGE)
    found = []

    def spy(apply_model, call):
        record = conditionings[0][0][1]["control"].record
        assert all(entry.sigma != entry.sigma for entry in record.steps if entry.call == record.calls - 1)
        found.append(float(call["timestep"][0]))
        return apply_model(call["input"], call["timestep"], **call["c"])

    model = models["sd1"].clone()
    model.set_model_unet_function_wrapper(spy)
    narrow.sample(model, *conditionings, SIZE, steps=4)
    record = conditionings[0][0][1]["control"].record
    assert [entry.sigma for entry in record.steps] == found and len(set(found)) == 4
    assert [entry.step for entry in record.steps] == [0.0, 0.25, 0.5, 0.75]
    assert record.step_numbers() == {0: 1, 1: 2, 2: 3, 3: 4} and not record.unread
    told = json.loads(report_json(record))["evaluations"]
    assert [entry["sigma"] for entry in told] == found and [entry["step"] for entry in told] == [1, 2, 3, 4]


def test_a_record_that_is_read_in_the_middle_of_a_run_reads_the_device(models, controls):
    conditionings = apply_control(*start("sd1"), controls["sd1"][0], IMAGE)
    numbers = []

    def spy(apply_model, call):
        numbers.append(conditionings[0][0][1]["control"].record.step_numbers())
        return apply_model(call["input"], call["timestep"], **call["c"])

    model = models["sd1"].clone()
    model.set_model_unet_function_wrapper(spy)
    narrow.sample(model, *conditionings, SIZE, steps=3)
    assert numbers == [{0: 1}, {0: 1, 1: 2}, {0: 1, 1: 2, 2: 3}]


def test_on_a_cpu_nothing_is_pinned():
    values = torch.rand(2, 3)
    assert not pinnable(values, torch.device("cpu"))
    assert uploaded(values, torch.device("cpu"), torch.float32) is values
    assert torch.equal(uploaded(values, torch.device("cpu"), torch.float16), values.half())


def test_the_hosts_switch_against_pinned_memory_holds(monkeypatch):
    import comfy.cli_args

    values, cuda = torch.rand(2, 3), torch.device("cuda")
    monkeypatch.setattr(comfy.cli_args.args, "disable_pinned_memory", False)
    assert pinnable(values, cuda)
    monkeypatch.setattr(comfy.cli_args.args, "disable_pinned_memory", True)
    assert not pinnable(values, cuda)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_on_cuda_no_call_but_the_first_waits(controls, monkeypatch, settings):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    calls, get_control = [], Control.get_control

    def strict(self, *arguments):
        calls.append(1)
        if len(calls) == 1:
            return get_control(self, *arguments)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return get_control(self, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Control, "get_control", strict)
    layers = [layer_of(control, IMAGE, **settings) for control in controls["sd1"]]
    run(narrow.make_model("sd1"), "sd1", layers, steps=3)
    assert len(calls) == 3


@pytest.mark.gpu
def test_on_cuda_a_schedule_waits_for_the_sigma_and_for_nothing_else(controls, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    calls, get_control = [], Control.get_control

    def watched(self, *arguments):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                return get_control(self, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            calls.append(sum("synchroniz" in str(warning.message) for warning in told))

    monkeypatch.setattr(Control, "get_control", watched)
    fading = CurveSchedule(lambda x: 1.0 - x / 2, 0.0, 1.0, "percent")
    layers = [layer_of(control, IMAGE, schedule=fading, end_percent=0.95) for control in controls["sd1"]]
    run(narrow.make_model("sd1"), "sd1", layers, steps=3)
    assert calls[1:] == [1, 1]


class Elsewhere(torch.nn.Module):
    """A model's sampling on another device, for which a CPU has only one without values."""

    def __init__(self, copied):
        super().__init__()
        self.register_buffer("sigmas", torch.empty(3, device="meta"))
        self.copied = [copied]  # in a list, or it were a part of this one

    def __deepcopy__(self, _):
        if self.copied[0] is None:
            raise TypeError("cannot be copied")
        return self.copied[0]

    def percent_to_sigma(self, percent):
        raise AssertionError("it was asked itself")


def test_percents_are_asked_of_a_copy_on_the_cpu_where_the_model_is_elsewhere(models):
    here = models["sd1"].model.model_sampling
    for sampling, expected in ((here, here), (Elsewhere(here), here)):
        found = Run(sampling, None, sampling.percent_to_sigma, (), Record()).sigma_at
        assert found == expected.percent_to_sigma
    alone = Elsewhere(None)
    assert Run(alone, None, alone.percent_to_sigma, (), Record()).sigma_at == alone.percent_to_sigma


@pytest.mark.gpu
def test_an_upload_from_pinned_memory_waits_for_nothing_and_changes_no_bit():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cuda, values = torch.device("cuda"), torch.rand(4, 3, 512, 512)
    expected = {dtype: values.to(device=cuda, dtype=dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)}
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = {dtype: uploaded(values, cuda, dtype) for dtype in expected}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(found[dtype], expected[dtype]) for dtype in expected)
