"""What a call makes is freed when it ends, without Python's search for cycles, and what a run makes when the run ends, however it ends."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

import comfy.model_management
import torch

from control_composer.control import apply_control, compose_controls
from control_composer.tests import narrow
from control_composer.tests.control.case import IMAGE, SIZE, Case
from control_composer.tests.control.cases import CASES, INSIDE

ONE_OF_EACH_KIND = ("LLLite", "ControlNeXt", "ControlNet-XS", "reference", "Control-LoRA")


@pytest.fixture(scope="module", params=ONE_OF_EACH_KIND)
def case(request: Any, tmp_path_factory: Any) -> Case:
    return (CASES | INSIDE)[request.param](tmp_path_factory.mktemp("family"))


def bytes_alive() -> int:
    return sum(value.nbytes for value in gc.get_objects() if type(value) is torch.Tensor)


def test_a_call_leaves_nothing(case: Case) -> None:
    """But for its sigma, one number, which the record reads at the end of the run."""
    conds, alive = case.compose(), []
    model, control = case.model.clone(), conds[0][0][1]["control"]

    def watch(apply_model: Any, call: dict[str, Any]) -> Any:
        unread = control.record.unread.values()
        assert all(sigma.shape == (1,) for sigma in unread)
        alive.append(bytes_alive() - sum(sigma.nbytes for sigma in unread))
        return apply_model(call["input"], call["timestep"], **call["c"])

    model.set_model_unet_function_wrapper(watch)
    gc.collect()
    gc.disable()
    try:
        narrow.sample(model, *conds, SIZE, steps=4)
    finally:
        gc.enable()
    # The first call still makes what the run keeps.
    assert len(set(alive[1:])) == 1


@pytest.mark.parametrize("inside", [False, True])
def test_an_interrupted_run_leaves_nothing(case: Case, inside: bool) -> None:
    """Between two calls, where the host's callback interrupts, or in one; the next run is as if there had been none."""
    conds = case.compose()
    whole = narrow.sample(case.model, *conds, SIZE, steps=2)
    control = conds[0][0][1]["control"]
    model, calls = case.model.clone(), []

    def watch(apply_model: Any, call: dict[str, Any]) -> Any:
        calls.append(control._run)
        if inside and len(calls) == 2:
            comfy.model_management.interrupt_current_processing()
        return apply_model(call["input"], call["timestep"], **call["c"])

    def stop(args: Any) -> Any:
        if not inside and len(calls) == 2:
            raise comfy.model_management.InterruptProcessingException
        return args["denoised"]

    model.set_model_unet_function_wrapper(watch)
    model.set_model_sampler_post_cfg_function(stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        narrow.sample(model, *conds, SIZE, steps=2)
    assert len(calls) == 2 and calls[0] is not None
    assert control._run is None
    assert torch.equal(narrow.sample(case.model, *conds, SIZE, steps=2), whole)


@pytest.mark.parametrize("other", ["LLLite"])
def test_a_reference_sees_the_model_without_controls_before_it(other: str, tmp_path: Path) -> None:
    """A stock control between them keeps two of ours apart; strength 0 lets it do nothing."""
    before, reference = INSIDE[other](tmp_path), INSIDE["reference"](tmp_path)
    stock = narrow.make_stock(narrow.make_module("sd1"))
    together = compose_controls(*before.start(), [before.layer(), reference.layer(uncond_strength=0.0)])
    apart = apply_control(*before.start(), before.ours, IMAGE)
    apart = narrow.stock_apply(*apart, stock, IMAGE, 1e-9)
    apart = compose_controls(*apart, [reference.layer(uncond_strength=0.0)])
    expected = narrow.sample(before.model, *together, SIZE, steps=1)
    assert narrow.relative(narrow.sample(before.model, *apart, SIZE, steps=1), expected) < 2e-5
