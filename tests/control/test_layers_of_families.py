"""Everything that layers do, for every family: what the model gives under one setting is what it gives under another that must mean the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("comfy")

import torch
from torch import Tensor

from control_composer.control import compose_controls
from control_composer.control.patch_network import PatchNetwork
from control_composer.control.report import report_text
from control_composer.residuals import ListedWeights, ListSchedule
from control_composer.tests import narrow
from control_composer.tests.control.case import IMAGE, SIZE, Case
from control_composer.tests.control.cases import CASES, INSIDE

EQUAL = 2e-5
MATTERS = 1e-3


@pytest.fixture(scope="module", params=CASES | INSIDE)
def case(request: Any, tmp_path_factory: Any) -> Case:
    return (CASES | INSIDE)[request.param](tmp_path_factory.mktemp("family"))


@dataclass
class Given:
    """What the UNet gave in one call, by branch: (2, 4, h, w) each."""

    cond: Tensor
    uncond: Tensor


def given(case: Case, conditionings: Any, steps: int = 1) -> list[Given]:
    calls: list[Given] = []

    def watch(apply_model: Any, call: dict[str, Any]) -> Tensor:
        out: Tensor = apply_model(call["input"], call["timestep"], **call["c"])
        branches = dict(zip(call["cond_or_uncond"], out.chunk(len(call["cond_or_uncond"])), strict=True))
        calls.append(Given(branches[0].clone(), branches[1].clone()))
        return out

    model = case.model.clone()
    model.set_model_unet_function_wrapper(watch)
    narrow.sample(model, *conditionings, SIZE, steps=steps)
    return calls


def first(case: Case, **settings: Any) -> Given:
    return given(case, case.compose(**settings))[0]


def number_of_blocks(case: Case) -> int:
    conds = case.compose()
    given(case, conds)
    return len(conds[0][0][1]["control"].record.steps[0].blocks)


def same(a: Given, b: Given) -> bool:
    return narrow.relative(a.cond, b.cond) <= EQUAL and narrow.relative(a.uncond, b.uncond) <= EQUAL


@pytest.fixture(scope="module")
def plain(case: Case) -> Given:
    return given(case, case.start())[0]


@pytest.fixture(scope="module")
def flat(case: Case) -> Given:
    return first(case)


def test_it_acts_on_both_branches(plain: Given, flat: Given) -> None:
    assert narrow.relative(flat.cond, plain.cond) > MATTERS
    assert narrow.relative(flat.uncond, plain.uncond) > MATTERS


def test_factors_multiply(case: Case, flat: Given) -> None:
    """Strength, schedule, weights, mask and the strength of the whole are one product."""
    small = first(case, strength=0.05)
    assert not same(small, flat)
    weights = ListedWeights((0.25,) * number_of_blocks(case))
    mask = torch.full((1, 64, 128), 0.8)
    layer = case.compose(strength=0.5, schedule=ListSchedule((0.5,), axis="step"), weights=weights, mask=mask)
    assert same(given(case, layer)[0], small)
    assert same(first(case, strength=0.2, weights=weights), small)


def test_balance(case: Case, plain: Given, flat: Given) -> None:
    conditional = first(case, uncond_strength=0.0)
    assert narrow.relative(conditional.cond, flat.cond) <= EQUAL
    assert torch.equal(conditional.uncond, plain.uncond) or narrow.relative(conditional.uncond, plain.uncond) <= 1e-6
    half = first(case, uncond_strength=0.5)
    assert narrow.relative(half.uncond, first(case, strength=0.5).uncond) <= EQUAL
    assert narrow.relative(half.cond, flat.cond) <= EQUAL


def test_masks(case: Case, plain: Given, flat: Given) -> None:
    """A mask for each latent: the first is left alone, the second controlled. Half a mask is neither."""
    masks = torch.stack([torch.zeros(64, 128), torch.ones(64, 128)])
    found = first(case, mask=masks)
    assert narrow.relative(found.cond[:1], plain.cond[:1]) <= EQUAL
    assert narrow.relative(found.cond[1:], flat.cond[1:]) <= EQUAL
    left = torch.ones(1, 64, 128)
    left[..., 64:] = 0
    halved = first(case, mask=left)
    assert narrow.relative(halved.cond, flat.cond) > MATTERS
    assert narrow.relative(halved.cond, plain.cond) > MATTERS


def test_hints_of_a_batch(case: Case, flat: Given) -> None:
    """Each latent has its own hint."""
    if not case.hint_for_each_latent:
        pytest.skip("a picture acts on all latents of the batch")
    for row in range(2):
        alone = first(case, image=IMAGE[row : row + 1])
        assert narrow.relative(alone.cond[row], flat.cond[row]) <= EQUAL
        assert narrow.relative(alone.cond[1 - row], flat.cond[1 - row]) > MATTERS


def test_block_weights(case: Case, plain: Given, flat: Given) -> None:
    """Every block can be left out, and what is left out matters."""
    count = number_of_blocks(case)
    assert same(first(case, weights=ListedWeights((1.0,) * count)), flat)
    for position in sorted({0, count // 2, count - 1}):
        only = tuple(float(place == position) for place in range(count))
        found = first(case, weights=ListedWeights(only))
        assert not same(found, plain)
        assert count == 1 or not same(found, flat)


def test_schedule_and_report(case: Case, plain: Given) -> None:
    """Nothing is done at a step at which the schedule is 0, and the report tells what was done."""
    conds = case.compose(strength=0.8, schedule=ListSchedule((0.5, 0.0), axis="step"))
    calls = given(case, conds, steps=2)
    assert same(calls[0], given(case, case.compose(strength=0.4), steps=2)[0])
    assert not same(calls[0], plain)
    record = conds[0][0][1]["control"].record
    assert record.layers[0].name == case.ours.network.name
    assert record.layers[0].base == case.ours.network.base != ""
    assert [step.ran for step in record.steps] == [True, False]
    assert {round(multiplier, 6) for _, multiplier in record.steps[0].blocks} == {0.4}
    assert not isinstance(case.ours.network, PatchNetwork) or record.embedding_bytes[1] > 0
    text = report_text(record)
    assert "ran at step 1 of 2" in text and "Did not run at step 2 of 2: the schedule is 0 here." in text


def test_layers_are_added_in_any_number(case: Case, plain: Given) -> None:
    """Two layers of half the strength; one that is off does nothing. Inside of the model the second layer sees what the first one did."""
    layers = [case.layer(strength=0.5) for _ in range(2)]
    off = case.layer(narrow.picture(2, 64, 128, seed=9), enabled=False)
    twice = given(case, compose_controls(*case.start(), [*layers, off]))[0]
    tolerance = 0.5 if isinstance(case.ours.network, PatchNetwork) else EQUAL
    assert narrow.relative(twice.cond - plain.cond, first(case).cond - plain.cond) <= tolerance


def test_norms_for_the_heatmap(case: Case) -> None:
    conds = compose_controls(*case.start(), [case.layer()], inspect=True)
    given(case, conds)
    record = conds[0][0][1]["control"].record
    blocks = {name for name, _ in record.steps[0].blocks}
    assert {block for _, layer, block in record.residual_norms if layer == 1} == blocks
    assert all(bool((norms > 0).all()) for norms in record.residual_norms.values())
    assert {block for _, block in record.feature_norms} >= blocks
