"""Controls whose networks run beside the model, on a device that computes later: the host's sampler gives what it gives in line, bit for bit."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

import comfy.model_management
import torch
from comfy.context_windows import ContextFuseMethods, ContextSchedules
from torch import Tensor

from control_composer.control import Control, ControlError, compose_controls, layer_of
from control_composer.control.record import Record
from control_composer.control.report import report_json, report_text
from control_composer.control.reuse import Reuse
from control_composer.residuals import CurveSchedule, ResolutionWeights
from control_composer.tests import narrow
from control_composer.tests.control.case import IMAGE, SIZE
from control_composer.tests.control.cases import CASES, INSIDE, with_lora
from control_composer.tests.control.late_lane import LateLane, choose

SMALL = (2, 8, 8)
OTHER = narrow.picture(2, 64, 64, seed=8)
BESIDE = ("difference", "Union", "Union, several types", "CtrLoRA")
"""Families whose network is the host's encoder; the others keep the host's own arithmetic, or act inside of the model."""


@pytest.fixture(scope="module")
def model() -> Any:
    return narrow.make_model("sd1")


@pytest.fixture(scope="module")
def modules() -> list[Any]:
    return [narrow.make_module("sd1", seed) for seed in (1, 2)]


@pytest.fixture
def controls(modules: list[Any]) -> list[Any]:
    return [narrow.make_ours(module, "SD1") for module in modules]


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> Iterator[LateLane]:
    made = LateLane()
    choose(monkeypatch, made)
    yield made
    assert made.memory.written == [], "what was made elsewhere stays as it is"


def start() -> Any:
    return narrow.conditioning("sd1", 10), narrow.conditioning("sd1", 11)


def record_of(conds: Any) -> Record:
    found: Record = conds[0][0][1]["control"].record
    return found


def in_line(lane: LateLane, *arguments: Any, **changes: Any) -> Tensor:
    with lane.unused():
        launches = lane.launches
        found = narrow.sample(*arguments, **changes)
        assert lane.launches == launches
    return found


def check_same(lane: LateLane, model: Any, conds: Any, size: Any = SMALL, launches: int = 2, **changes: Any) -> Tensor:
    """One run in line and one beside: every bit is the same, and so many calls were beside."""
    changes = {"steps": 2} | changes
    expected = in_line(lane, model, *conds, size, **changes)
    before = lane.launches
    found = narrow.sample(model, *conds, size, **changes)
    assert torch.equal(found, expected) and torch.isfinite(expected).all()
    assert lane.launches - before == launches
    return found


def test_nobody_can_read_too_early(lane: LateLane, model: Any, controls: list[Any]) -> None:
    """What the tests below rest on: without waiting the picture is lost."""
    conds = compose_controls(*start(), [layer_of(controls[0], IMAGE)])
    spied = model.clone()
    missed = []

    def peek(apply_model: Any, call: dict[str, Any]) -> Any:
        lists = call["c"]["control"]
        missed.extend(bool(x.isnan().all()) for x in list.__iter__(lists["output"]))
        plain = {place: [*list.__iter__(values)] for place, values in lists.items()}
        return apply_model(call["input"], call["timestep"], **call["c"] | {"control": plain})

    spied.set_model_unet_function_wrapper(peek)
    lost = narrow.sample(spied, *conds, SMALL, steps=1)
    assert missed == [True] * 12 and lost.isnan().all()
    assert lane.waits == 0


@pytest.mark.parametrize("name", CASES)
def test_every_family(lane: LateLane, name: str, tmp_path: Path) -> None:
    case = CASES[name](tmp_path)
    conds = case.compose(strength=0.8)
    check_same(lane, case.model, conds, SIZE, launches=2 if name in BESIDE else 0)
    said = report_text(record_of(conds))
    if name in BESIDE:
        assert "Ran beside the model" in said
    else:
        assert "not beside it: layer 1 is a control of another kind" in said


@pytest.mark.parametrize("name", ["LLLite", "ControlNet-XS", "reference"])
def test_with_layers_that_act_inside_of_the_model(lane: LateLane, name: str, tmp_path: Path, modules: Any) -> None:
    """Then all stays where it is."""
    case = INSIDE[name](tmp_path)
    encoder = layer_of(narrow.make_ours(modules[0], "SD1"), IMAGE, 0.5)
    conds = compose_controls(*case.start(), [case.layer(), encoder])
    check_same(lane, case.model, conds, SIZE, launches=0, steps=1)
    assert "not beside it: layer 1 acts inside of the model" in report_text(record_of(conds))


def mask(width: int) -> Tensor:
    return (torch.rand(1, 32, width, generator=torch.Generator().manual_seed(width)) > 0.5).float()


SETTINGS: dict[str, list[dict[str, Any]]] = {
    "one": [{}],
    "one network, two pictures": [{"of": 0}, {"of": 0, "strength": 0.3}],
    "two networks": [{"of": 0}, {"of": 1, "strength": 0.3}],
    "in turn": [{"of": 0}, {"of": 1}, {"of": 0, "strength": 0.4}],
    "cond only": [{"uncond_strength": 0.0}],
    "cond only beside another": [{"of": 0, "uncond_strength": 0.0}, {"of": 1}],
    "masks": [{"of": 0, "mask": mask(64)}, {"of": 1, "mask": mask(32), "uncond_strength": 0.0}],
    "reuse": [{"reuse": Reuse(2)}],
    "reuse beside another": [{"of": 0, "reuse": Reuse(2)}, {"of": 1}],
    "reuse, one network": [{"of": 0, "reuse": Reuse(2)}, {"of": 0, "strength": 0.5}],
    "extrapolated": [{"reuse": Reuse(2, extrapolate=True)}, {"of": 1, "reuse": Reuse(3)}],
    "by ratio": [{"reuse": Reuse(ratio=2.0)}],
    "schedule and weights": [
        {
            "schedule": CurveSchedule(lambda x: 1.0 - x, 0.0, 1.0, "step"),
            "weights": ResolutionWeights("literal", "actual"),
        }
    ],
    "a range": [{"end_percent": 0.5}, {"of": 1, "start_percent": 0.3}],
    "one is off": [{"enabled": False}, {"of": 1}],
}


def layers_of(controls: list[Any], settings: list[dict[str, Any]]) -> list[Any]:
    pictures = (IMAGE, OTHER, narrow.picture(1, 80, 56, seed=9))
    return [
        layer_of(controls[one.get("of", 0)], picture, **{key: value for key, value in one.items() if key != "of"})
        for one, picture in zip(settings, pictures, strict=False)
    ]


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(lane: LateLane, model: Any, controls: list[Any], name: str) -> None:
    conds = compose_controls(*start(), layers_of(controls, SETTINGS[name]))
    check_same(lane, model, conds, launches=5, steps=5)
    assert 0 < lane.waits <= lane.tickets


def test_a_vae_that_takes_the_models_place(lane: LateLane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With little memory the host unloads the model for a hint's VAE and loads it again, its LoRA included, inside of `get_control`."""
    case = CASES["CtrLoRA"](tmp_path)
    comfy.model_management.unload_all_models()  # what earlier tests left
    vae = case.settings["vae"]
    encode = type(vae).encode

    def alone(self: Any, pixels: Tensor) -> Any:
        comfy.model_management.unload_all_models()
        return encode(self, pixels)

    monkeypatch.setattr(type(vae), "encode", alone)
    check_same(lane, with_lora(case.model), case.compose(), SIZE)


def test_many_rows_in_several_passes(lane: LateLane, model: Any, controls: list[Any], monkeypatch: Any) -> None:
    """Two networks, each in passes of three rows."""
    from control_composer.control.step import Step

    monkeypatch.setattr(Step, "rows_per_pass", lambda *_: 3)
    conds = compose_controls(*start(), layers_of(controls, SETTINGS["in turn"]))
    check_same(lane, model, conds)
    assert lane.passes == 2 * (3 + 2)  # eight rows of the one network and four of the other


@pytest.mark.parametrize(
    ("order", "early"), [("so", False), ("os", True), ("sos", True), ("oso", True), ("oo", False), ("o-s", False)]
)
def test_chains(lane: LateLane, model: Any, modules: Any, controls: list[Any], order: str, early: bool) -> None:
    """o: ours, s: a stock control, -: its range is over before the run begins. One behind ours reads its lists, and the report says so."""
    conds, ours, resting = start(), iter(controls), False
    for number, kind in enumerate(order):
        image = narrow.picture(1, 64, 64, seed=number)
        if kind == "o":
            conds = compose_controls(*conds, [layer_of(next(ours), image, 0.7)])
        elif kind == "s":
            between = (0.4, 0.6) if resting else (0.0, 1.0)
            conds = narrow.stock_apply(*conds, narrow.make_stock(modules[1]), image, 0.5, *between)
        resting = kind == "-"
    check_same(lane, model, conds, launches=2 * (1 if order == "oo" else order.count("o")))
    records, control = [], conds[0][0][1]["control"]
    while control is not None:
        records += [control.record] if isinstance(control, Control) else []
        control = control.previous_controlnet
    said = [report_text(record) for record in records]
    assert any("Waited for before the model" in text for text in said) == early, said
    assert any('"waited_early": true' in report_json(record) for record in records) == early


def test_areas(lane: LateLane, model: Any, controls: list[Any]) -> None:
    """The parts of one canvas are calls of their own at each step."""
    positive, negative = start()
    part = [[positive[0][0].flip(1), {"area": (8, 8, 0, 4), "strength": 1.0, "set_area_to_bounds": False}]]
    conds = compose_controls(positive + part, negative, layers_of(controls, SETTINGS["two networks"]))
    check_same(lane, model, conds, (2, 8, 16), launches=4)


def test_branches_one_by_one(lane: LateLane, model: Any, controls: list[Any]) -> None:
    conds = narrow.conditioning("sd1", 10, tokens=7), narrow.conditioning("sd1", 11, tokens=9)
    conds = compose_controls(*conds, layers_of(controls, SETTINGS["reuse beside another"]))
    check_same(lane, model, conds, launches=6, steps=3)


def test_windows(lane: LateLane, model: Any, controls: list[Any]) -> None:
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    windowed = ContextWindowsManualNode.execute(
        model,
        context_length=3,
        context_overlap=1,
        context_schedule=ContextSchedules.STATIC_STANDARD,
        context_stride=1,
        closed_loop=False,
        fuse_method=ContextFuseMethods.PYRAMID,
        dim=0,
        freenoise=False,
        causal_window_fix=False,
    ).result[0]
    hints = narrow.picture(5, 64, 64, seed=4)
    conds = compose_controls(*start(), [layer_of(controls[0], hints), layer_of(controls[1], OTHER, reuse=Reuse(2))])
    check_same(lane, windowed, conds, (5, 8, 8), launches=4)


def test_another_order_and_a_second_order_sampler(lane: LateLane, controls: list[Any]) -> None:
    """SDXL, with its pooled vector, and Heun, which calls twice in a step."""
    model, module = narrow.make_model("sdxl"), narrow.make_module("sdxl")
    conds = narrow.conditioning("sdxl", 10), narrow.conditioning("sdxl", 11)
    conds = compose_controls(*conds, [layer_of(narrow.make_ours(module, "SDXL"), IMAGE)])
    check_same(lane, model, conds, launches=3, sampler_name="heun")


def bytes_alive() -> int:
    return sum(value.nbytes for value in gc.get_objects() if type(value) is Tensor)


def test_a_model_that_is_skipped_takes_nothing(lane: LateLane, model: Any, controls: list[Any]) -> None:
    """EasyCache skips the UNet after the control was asked: nobody pops. The next call, the end and the next run are as ever."""
    from comfy_extras.nodes_easycache import EasyCacheNode

    skipping = EasyCacheNode.execute(model, 3.0, 0.0, 0.95, False).result[0]
    conds = compose_controls(*start(), layers_of(controls, SETTINGS["reuse beside another"]))
    expected = in_line(lane, skipping, *conds, SMALL, steps=6)
    alive = []

    def watch(args: Any) -> Any:
        alive.append(bytes_alive())
        return args["denoised"]

    skipping.set_model_sampler_post_cfg_function(watch)
    gc.collect()
    before = bytes_alive()
    gc.disable()
    try:
        found = narrow.sample(skipping, *conds, SMALL, steps=6)
    finally:
        gc.enable()
    assert torch.equal(found, expected)
    assert lane.waits < lane.launches == 6, "some steps were skipped"
    assert max(alive[2:]) - min(alive[2:]) < 100  # the record keeps a sigma for each call
    assert lane.memory.alive() == []
    assert bytes_alive() - before == found.nbytes
    check_same(lane, model, conds, steps=3, launches=3)


def test_a_compiled_model(lane: LateLane, model: Any, controls: list[Any]) -> None:
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    compiled = model.clone()
    set_torch_compile_wrapper(compiled, backend="eager")
    conds = compose_controls(*start(), [layer_of(controls[0], IMAGE)])
    found = narrow.sample(compiled, *conds, SMALL, steps=1)
    assert narrow.relative(found, in_line(lane, model, *conds, SMALL, steps=1)) <= 1e-5
    narrow.sample(compiled, *conds, SMALL, steps=1)
    assert lane.launches == 0
    assert "not beside it: the model is compiled" in report_text(record_of(conds))


def test_an_inspected_run(lane: LateLane, model: Any, controls: list[Any]) -> None:
    conds = compose_controls(*start(), [layer_of(controls[0], IMAGE)], inspect=True)
    check_same(lane, model, conds, launches=0)
    narrow.sample(model, *conds, SMALL, steps=1)
    assert "not beside it: the run is inspected" in report_text(record_of(conds))


@pytest.mark.parametrize("choice", ["auto", "on", "off"])
def test_the_switch(lane: LateLane, model: Any, controls: list[Any], choice: Any) -> None:
    """One layer that is off keeps all in line."""
    layers = [layer_of(controls[0], IMAGE, beside=choice), layer_of(controls[1], OTHER)]
    conds = compose_controls(*start(), layers)
    check_same(lane, model, conds, launches=0 if choice == "off" else 2)
    said = report_text(record_of(conds))
    if choice == "off":
        assert said.count("not beside it: layer 1 has beside_model off.") == 2
    else:
        assert said.count("Ran beside the model") == 2 and "not beside" not in said


def test_a_device_that_was_not_measured(lane: LateLane, model: Any, controls: list[Any], monkeypatch: Any) -> None:
    from control_composer.control import lanes

    monkeypatch.setattr(lanes, "MEASURED", ())
    layers = [layer_of(controls[0], IMAGE), layer_of(controls[1], OTHER, beside="on")]
    check_same(lane, model, conds := compose_controls(*start(), layers[:1]), launches=0)
    narrow.sample(model, *conds, SMALL, steps=1)
    assert "of compute capability 0.0 that was not measured yet" in report_text(record_of(conds))
    check_same(lane, model, compose_controls(*start(), layers))


# -- what goes wrong ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ticket", [1, 2])
def test_an_interruption_while_waiting(lane: LateLane, model: Any, controls: list[Any], ticket: int) -> None:
    """It ends the run as the host expects, and the next run is as ever."""
    conds = compose_controls(*start(), layers_of(controls, SETTINGS["reuse beside another"]))
    expected = in_line(lane, model, *conds, SMALL, steps=3)
    lane.fail_waiting(comfy.model_management.InterruptProcessingException(), ticket)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        narrow.sample(model, *conds, SMALL, steps=3)
    assert lane.launches == ticket
    assert conds[0][0][1]["control"]._run is None
    assert torch.equal(narrow.sample(model, *conds, SMALL, steps=3), expected)


@pytest.mark.parametrize("operation", [1, 40])
def test_an_interruption_inside_of_the_work(lane: LateLane, model: Any, controls: list[Any], operation: int) -> None:
    conds = compose_controls(*start(), layers_of(controls, SETTINGS["reuse beside another"]))
    expected = in_line(lane, model, *conds, SMALL, steps=3)
    lane.fail(comfy.model_management.InterruptProcessingException(), 2, operation)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        narrow.sample(model, *conds, SMALL, steps=3)
    assert (lane.launches, lane.given_up) == (2, 0)
    assert torch.equal(narrow.sample(model, *conds, SMALL, steps=3), expected)


def test_an_error_inside_of_the_work_keeps_its_words(lane: LateLane, model: Any, controls: list[Any]) -> None:
    conds = compose_controls(*start(), [layer_of(controls[0], IMAGE)])
    expected = in_line(lane, model, *conds, SMALL, steps=2)
    problem = ControlError("What was found, what was expected, what to do.")
    lane.fail(problem, 2, 30)
    with pytest.raises(ControlError) as caught:
        narrow.sample(model, *conds, SMALL, steps=2)
    assert caught.value is problem
    assert torch.equal(narrow.sample(model, *conds, SMALL, steps=2), expected)


def test_hints_that_do_not_go_with_the_batch(lane: LateLane, model: Any, controls: list[Any]) -> None:
    """An error of ours, with the words that it has in line."""
    said = []
    conds = compose_controls(
        *start(), [layer_of(controls[0], narrow.picture(3, 64, 64, seed=1), batch="strict", strength=0.5)]
    )
    for act in (in_line, lambda _, *given, **more: narrow.sample(*given, **more)):
        with pytest.raises(ControlError) as caught:
            act(lane, model, *conds, SMALL, steps=1)
        said.append(str(caught.value))
    assert said[0] == said[1] and "do not go with the batch" in said[0]


@pytest.mark.parametrize("name", ["one", "in turn", "extrapolated", "masks"])
@pytest.mark.parametrize(("launch", "operation"), [(1, 1), (3, 60), (3, 400)])
def test_memory_that_does_not_suffice(
    lane: LateLane, model: Any, controls: list[Any], name: str, launch: int, operation: int
) -> None:
    """From that step on all is in line: the same picture, nothing told twice, and the report says so."""
    conds = compose_controls(*start(), layers_of(controls, SETTINGS[name]))
    expected = in_line(lane, model, *conds, SMALL, steps=5)
    told = [replace(entry, stopwatch=None, lane="", beside=False) for entry in record_of(conds).steps]
    embeddings = record_of(conds).embedding_bytes
    lane.fail(torch.OutOfMemoryError("out of memory"), launch, operation)
    found = narrow.sample(model, *conds, SMALL, steps=5)
    failed = lane.given_up == 1
    assert failed or operation == 400, "some calls are shorter"
    assert lane.launches == (launch if failed else 5)
    assert torch.equal(found, expected)
    record = record_of(conds)
    assert [replace(entry, stopwatch=None, lane="", beside=False) for entry in record.steps] == told
    assert record.embedding_bytes.keys() == embeddings.keys()
    said = report_text(record)
    assert ("not beside it: memory did not suffice beside the model." in said) == failed
    assert ("Ran beside the model" in said) == (launch > 1)
    check_same(lane, model, conds, launches=5, steps=5)


def test_memory_that_suffices_nowhere(lane: LateLane, model: Any, modules: Any, controls: list[Any]) -> None:
    """In line too: the host's exception, as without all this."""
    conds = compose_controls(*start(), [layer_of(controls[0], IMAGE)])

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    hook = modules[0].middle_block.register_forward_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        narrow.sample(model, *conds, SMALL, steps=2)
    hook.remove()
    assert (lane.launches, lane.given_up) == (1, 1)
    check_same(lane, model, conds)


# -- what it rests on --------------------------------------------------------------------------------------------------------------------


def test_clones_for_other_devices_have_lanes_of_their_own(
    model: Any, controls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conditional branch by the control, the other one by its clone, in turn."""
    lanes = LateLane(), LateLane()
    choose(monkeypatch, *lanes)
    conds = compose_controls(*start(), layers_of(controls, SETTINGS["reuse beside another"]))
    clone = conds[0][0][1]["control"].deepclone_multigpu(torch.device("cpu"))
    both = conds[0], [[text, values | {"control": clone}] for text, values in conds[1]]
    with lanes[0].unused(), lanes[1].unused():
        expected = narrow.sample(model, *both, SMALL, steps=3)
    assert torch.equal(narrow.sample(model, *both, SMALL, steps=3), expected)
    assert [lane.launches for lane in lanes] == [3, 3]


def test_what_is_read_from_elsewhere_is_told_to_the_lane(lane: LateLane, model: Any, modules: Any) -> None:
    """A device that computes later must know what it reads, or the memory is used again too soon. Weights, hints and masks stay for the whole run."""
    control = narrow.make_ours(modules[0], "SD1")
    layers = [layer_of(control, IMAGE, mask=mask(64)), layer_of(control, OTHER, reuse=Reuse(2), uncond_strength=0.5)]
    conds = narrow.stock_apply(*start(), narrow.make_stock(modules[1]), IMAGE)
    conds = compose_controls(*conds, layers)
    given: set[int] = set()
    work = lane.work

    def noted(inputs: Any) -> Any:
        given.update(tensor.untyped_storage()._cdata for tensor in inputs)
        return work(inputs)

    lane.work = noted  # type: ignore[method-assign]
    narrow.sample(model, *conds, SMALL, steps=3)
    stay = [*modules[0].parameters(), *modules[0].buffers(), *model.model.parameters(), *model.model.buffers()]
    stay += [hint for layer in layers for hint in (layer.hint_bchw, layer.mask) if hint is not None]
    kept = given | {tensor.untyped_storage()._cdata for tensor in stay}
    waits = "aten.resolve_conj.default"  # of tolist(), for the run's sigmas: it returns when it has read
    others = [read[1:] for key, read in lane.memory.read.items() if key not in kept]
    assert [(how, shape) for how, shape in others if how != waits and shape != ()] == []
    assert given & lane.memory.read.keys()
