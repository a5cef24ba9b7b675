"""What a control tells the host that it needs, against what torch's allocator gives it in whole runs of narrow models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("comfy")

import comfy.ldm.modules.attention as attention  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.patcher_extension  # noqa: E402

from control_composer.benchmarks import control_memory  # noqa: E402
from control_composer.benchmarks.control_memory import CASES, LONG, Used, measured, used  # noqa: E402
from control_composer.benchmarks.widths import WIDTHS, Networks, Width  # noqa: E402
from control_composer.control import compose_controls, layer_of, needs  # noqa: E402
from control_composer.control.expected import RUN, Chunk, Expected, Told, expected_for, told  # noqa: E402
from control_composer.control.held import Held, rows_of  # noqa: E402
from control_composer.control.memory import (  # noqa: E402
    LARGE_WORKSPACE,
    WORKSPACE,
    activation_bytes,
    embedding_bytes,
    hint_bytes,
    model_bytes,
    residual_bytes,
    rows_per_pass,
    workspace_bytes,
)
from control_composer.control.reuse import Reuse  # noqa: E402
from control_composer.control.union_layer import TypedPicture, union_layer_of  # noqa: E402
from control_composer.residuals.residuals import Residuals  # noqa: E402
from control_composer.tests import narrow  # noqa: E402
from control_composer.tests.control import cases  # noqa: E402

if comfy.model_management.get_torch_device().type != "cpu":
    pytest.skip("measures by the allocator of the CPU", allow_module_level=True)

BOTH = (Chunk(8, 8), Chunk(8, 8, False))
REUSING = ("extrapolated", "every-2-own", "one-of-two-reused")
OTHERS = ("one", "three-shared", "three-own", "cond-only", "masked", "long", "large-hint", "after-stock")
AT_MOST = {"extrapolated": 1.65, "long": 1.65}
"""Where more than half as much again is told as is needed, and how much: the first step, in which a narrow model's hint network needs most, has nothing to
reuse yet. At real widths hint networks need less than the model.
"""
SMALL = 4096
"""Bytes of what has a few numbers: indices, sigmas."""
SIZE = 128
"""Pixels: at 64 a library of the CPU takes more for the first convolutions of hints than the rest of the network, also for the stock control."""


@pytest.fixture(scope="module")
def without_scores() -> Iterator[None]:
    """Attention as the host has it on a GPU. That of a CPU keeps as many scores as free memory allows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.model_management, "ENABLE_PYTORCH_ATTENTION", True)
        for name in ("optimized_attention", "optimized_attention_masked"):
            patch.setattr(attention, name, attention.attention_pytorch)
        yield


@pytest.fixture(scope="module")
def found(without_scores: None) -> dict[str, tuple[Used, Used]]:
    networks, found = Networks(WIDTHS["narrow"], torch.float32), {}
    for names, steps in ((REUSING, 4), (OTHERS, 1)):
        found |= measured(networks, SIZE, steps, {name: CASES[name] for name in names})
    return found


@pytest.mark.parametrize("name", REUSING + OTHERS)
def test_what_is_told_covers_what_is_needed_and_little_more(name: str, found: dict[str, tuple[Used, Used]]) -> None:
    one, plain = found[name]
    need = one.needed(plain)
    if name == "after-stock":
        need -= 3 * SIZE * SIZE * 4  # the stock control keeps its hint and tells nobody
    assert 0 < need <= one.told + SMALL
    assert one.told <= AT_MOST.get(name, 1.5) * need


def test_a_union_of_several_hints_is_told_too(tmp_path: Path) -> None:
    case = cases.union(tmp_path)
    pictures = [
        TypedPicture(narrow.picture(1, 64, 64, seed=seed), kind) for seed, kind in enumerate(("depth", "openpose"))
    ]
    layer = union_layer_of(case.ours, pictures, 0.8, node="test")
    latents = torch.zeros(1, 4, 8, 8)
    plain = used(case.model, case.start(), latents, 1)
    one = used(case.model, compose_controls(*case.start(), [layer]), latents, 1)
    assert one.waiting(plain) <= one.told + SMALL
    assert one.told <= 1.5 * one.waiting(plain)


@pytest.mark.parametrize(
    ("width", "cells"), [(WIDTHS["sd15"], 64), (Width(narrow.SDXL, narrow.NarrowSDXL), 32)], ids=["sd15", "narrow sdxl"]
)
def test_layers_need_what_is_told(width: Width, cells: int) -> None:
    """Counted on their tensors, without weights; SDXL's widths have no transformers on the first level."""
    found = control_memory.layers_of(width, cells)
    assert found.told == pytest.approx(found.network, rel=0.01)
    assert found.told_hint == pytest.approx(found.hint, rel=0.01)
    assert found.told < found.unet < 1.2 * found.told


def test_attention_with_scores_needs_what_the_host_says() -> None:
    (control,) = networks_of(1)
    assert not comfy.model_management.xformers_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.model_management, "ENABLE_PYTORCH_ATTENTION", False)
        with_scores = activation_bytes(control.network, 2, 8, 8)
        patch.setattr(comfy.model_management, "ENABLE_PYTORCH_ATTENTION", True)
        assert activation_bytes(control.network, 2, 8, 8) < 0.3 * with_scores
    assert with_scores == pytest.approx(2 * 64 * 0.15 * 2**20 * 32 / 320)


def test_the_latents_size_counts_and_not_the_hints(found: dict[str, tuple[Used, Used]]) -> None:
    told_of = {name: one.told for name, (one, _) in found.items()}
    assert told_of["one"] == told_of["large-hint"]
    (control,) = networks_of(1)
    assert told_of["long"] > LONG * residual_bytes(control.network, 2, SIZE // 8, SIZE // 8)


def test_outside_of_a_run_the_largest_hint_stands_for_the_latent() -> None:
    assert RUN.get() is None
    hints = [torch.zeros(1, 3, 64, 64), torch.zeros(2, 3, 60, 120), torch.zeros(1, 3, 80, 80)]
    assert expected_for(object(), hints) == Expected(2, (Chunk(8, 15), Chunk(8, 15, False)))


class Chained:
    def __init__(self, previous: Chained | None = None) -> None:
        self.previous_controlnet = previous


def test_a_run_tells_each_control_of_a_chain_its_conditionings() -> None:
    first, alone = Chained(), Chained()
    last = Chained(first)
    conds = {
        "positive": [
            {"control": last, "area": (4, 6, 0, 2)},
            {"control": last, "area": ("percentage", 0.5, 2.0, 0.0, 0.0)},
            {"control": alone, "control_apply_to_uncond": True},
            {},
        ],
        "negative": [{"control": last}],
        "middle": None,
    }
    run = told((3, 4, 8, 12), conds)
    assert run is not None and (run.latents, run.canvas) == (3, (8, 12))
    expected = [Chunk(4, 6), Chunk(4, 12), Chunk(8, 12, False)]
    assert run.chunks == {id(last): expected, id(first): expected, id(alone): [Chunk(8, 12), Chunk(8, 12, False)]}
    assert told((2, 16, 5, 8, 12), conds).latents == 10  # type: ignore[union-attr]
    assert told((1, 1, 4000), conds) is None  # packed: nobody knows of what


def test_only_chunks_of_one_size_are_a_batch_and_no_more_than_the_host_counts() -> None:
    small, large = Chunk(4, 4), Chunk(8, 8)
    uncond = Chunk(8, 8, False)
    expected = Expected(2, (small, uncond, large, large))
    assert expected.calls() == [(small,), (large, large)]
    assert (expected.rows, expected.largest, expected.sizes) == (4, (8, 8), {(4, 4), (8, 8)})


def networks_of(count: int) -> list[Any]:
    return [narrow.make_ours(narrow.make_module("sd1", seed), "SD1") for seed in range(1, count + 1)]


def layers_of(controls: Sequence[Any], **settings: Any) -> list[Any]:
    return [
        layer_of(control, narrow.picture(1, 64, 64, seed=seed), **settings) for seed, control in enumerate(controls)
    ]


def test_conditional_rows_alone_are_half_of_what_reuse_keeps() -> None:
    (control,) = networks_of(1)
    expected = Expected(1, BOTH)
    one_row = residual_bytes(control.network, 1, 8, 8)

    def kept(**settings: Any) -> int:
        return needs.residuals_kept(layers_of([control], **settings), expected)

    assert kept() == 0
    assert kept(reuse=Reuse(2)) == 2 * one_row
    assert kept(reuse=Reuse(2), uncond_strength=0.0) == one_row
    assert kept(reuse=Reuse(2, extrapolate=True)) == 4 * one_row
    areas = Expected(
        1, (Chunk(4, 8), Chunk(4, 8), Chunk(8, 8, False))
    )  # all of them are kept, though no two are in one batch
    assert needs.residuals_kept(layers_of([control], reuse=Reuse(2)), areas) == one_row + 2 * residual_bytes(
        control.network, 1, 4, 8
    )


def test_a_picture_of_several_layers_is_kept_once() -> None:
    first, second = networks_of(2)
    image = narrow.picture(3, 64, 64)
    one = 3 * 32 * 8 * 8 * 4
    expected = Expected(3, BOTH)
    assert needs.embeddings_kept([layer_of(first, image)] * 2, expected) == one
    assert needs.embeddings_kept([layer_of(first, image), layer_of(second, image)], expected) == 2 * one
    assert needs.embeddings_kept([layer_of(first, image), layer_of(first, image, sizing="fit")], expected) == 2 * one


def test_networks_run_one_after_the_other_before_the_model_and_all_at_once_beside_it(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    controls = networks_of(3)
    network, expected = controls[0].network, Expected(1, BOTH)
    total = residual_bytes(network, 2, 8, 8)
    before = [needs.needed(layers_of(controls[:count]), expected) for count in (1, 3)]
    beside = [needs.needed(layers_of(controls[:count]), expected, beside=True) for count in (1, 3)]
    embedding = embedding_bytes(network, 1, 8, 8)
    hint = hint_bytes(network, 1, 8, 8) - model_bytes(network, 2, 8, 8)  # narrow hint networks are as wide as real ones
    assert hint > 0
    assert before[0] == embedding + max(total, hint)
    assert before[1] == 3 * embedding + total + hint
    each = beside[1] - beside[0]
    assert each == pytest.approx(2 * (beside[0] - total))
    assert beside[0] - before[0] > activation_bytes(network, 2, 8, 8) + 2 * total + WORKSPACE


def test_after_another_control_its_sum_is_there_too() -> None:
    (control,) = networks_of(1)
    expected = Expected(1, BOTH)
    assert needs.needed(layers_of([control] * 3), expected, previous=True) == needs.needed(
        layers_of([control] * 3), expected
    ) + residual_bytes(control.network, 2, 8, 8)


def test_more_rows_than_the_models_need_room_for_their_layers() -> None:
    assert rows_per_pass(2, 2, 64, on_cpu=True) == 2
    assert rows_per_pass(6, 2, 64, on_cpu=True) == 128
    assert rows_per_pass(6, 2, 4096, on_cpu=True) == 2
    assert rows_per_pass(6, 2, 128 * 128, on_cpu=True) == 1
    assert rows_per_pass(6, 2, 4096, on_cpu=False) == 8
    assert rows_per_pass(6, 2, 128 * 128, on_cpu=False) == 2
    assert rows_per_pass(60, 32, 4096, on_cpu=False) == 32


@pytest.mark.parametrize(
    ("major", "size"), [(7, WORKSPACE), (8, WORKSPACE), (9, LARGE_WORKSPACE), (12, LARGE_WORKSPACE)]
)
def test_a_stream_has_a_workspace_of_the_librarys(monkeypatch, major: int, size: int) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    assert workspace_bytes(torch.device("cuda")) == size


def parts_of(value: float) -> list[Any]:
    return [((0,), Residuals(output=(torch.full((1, 2, 2, 2), value),)))]


@pytest.mark.parametrize(("extrapolate", "left"), [(False, 0), (True, 1)])
def test_an_evaluation_is_not_made_beside_those_that_it_replaces(extrapolate: bool, left: int) -> None:
    held, reuse = Held(), Reuse(2, extrapolate=extrapolate)
    for number in range(3):
        held.make_room("a", reuse)
        assert len(held._evaluated.get("a", [])) == min(number, left)
        held.keep("a", reuse, 3.0 - number, None, parts_of(number))
    assert len(held._evaluated["a"]) == left + 1
    assert float(held._evaluated["a"][-1].parts[0][1].output[0][0, 0, 0, 0]) == 2.0  # type: ignore[index]


def test_rows_that_are_kept_do_not_keep_the_others() -> None:
    whole = Residuals(output=(torch.arange(6.0).view(3, 2, 1, 1), torch.ones(1, 2, 1, 1)))
    some = rows_of(whole, 1, 2)
    kept, single = some.output
    assert kept is not None and kept.untyped_storage().nbytes() == kept.nbytes == 16
    assert torch.equal(kept, whole.output[0][1:3])  # type: ignore[index]
    assert single is whole.output[1] and rows_of(whole, 0, 3).output[0] is whole.output[0]


def test_what_is_expected_is_told_for_the_time_of_the_question_alone() -> None:
    seen = []

    def executor(model: Any, noise_shape: Any, conds: Any, **more: Any) -> str:
        seen.append((RUN.get(), more))
        raise RuntimeError("no memory")

    from control_composer.control.areas import WATCH
    from control_composer.control.expected import expect

    with pytest.raises(RuntimeError):
        expect(executor, None, (1, 4, 8, 8), {"positive": []}, model_options={})
    assert seen == [(Told(1, (8, 8), {}), {"model_options": {}})]
    assert RUN.get() is None
    wrappers = WATCH.transformers_dict["wrappers"]
    assert [expect] in wrappers[comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING].values()
