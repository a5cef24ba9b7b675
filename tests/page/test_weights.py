"""What the block-weight editor is told: the blocks of every family's files, the weights of each node in a row, and their product."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

import folder_paths
import torch

from control_composer.checkpoints import connected_base, open_control
from control_composer.page.blocks import blocks_of, blocks_of_kind
from control_composer.page.weights import fitted, weights
from control_composer.residuals.block_values import names_of, parse_block_values
from control_composer.residuals.blocks import Block
from control_composer.residuals.weights import BlockWeights, SoftWeights
from control_composer.tests import narrow
from control_composer.tests.control.case import SIZE, save
from control_composer.tests.control.cases import CASES, INSIDE

BLOCK_WEIGHTS = "ControlComposerBlockWeights"
FILES = {name: case for name, case in (CASES | INSIDE).items() if not name.startswith("reference")}


class Seen(BlockWeights):
    """Remembers the blocks that a run weighs."""

    blocks: tuple[Block, ...] = ()

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        self.blocks = tuple(blocks)
        return (1.0,) * len(blocks)


@pytest.mark.parametrize("name", FILES)
def test_blocks_are_those_of_a_run(name: str, tmp_path: Path) -> None:
    case = FILES[name](tmp_path)
    seen = Seen()
    positive, negative = case.compose(weights=seen)
    narrow.sample(case.model, positive, negative, SIZE, steps=1)
    # Of a control in two files the smaller one is chosen in the loader.
    path = min(tmp_path.rglob("*.safetensors"), key=lambda file: file.stat().st_size)
    found = blocks_of(open_control(path, connected_base(case.model)).match, *SIZE[1:])
    assert found is not None
    assert told(found) == told(seen.blocks)


def told(blocks: Sequence[Block]) -> list[tuple[str, int, int, int]]:
    return [
        (name, block.level, block.height, block.width) for name, block in zip(names_of(blocks), blocks, strict=True)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "controlnet", ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def node(values: Any, kind: str = BLOCK_WEIGHTS) -> dict[str, Any]:
    return {"type": kind, "values": values if isinstance(values, dict) else {"values": values}}


def asked(*chain: dict[str, Any], **question: Any) -> dict[str, Any]:
    answer = weights({"chain": list(chain), **question})
    json.dumps(answer, allow_nan=False)
    return answer


def numbers(answer: dict[str, Any], name: str = "weight") -> list[Any]:
    return [block[name] for block in answer["blocks"]]


@pytest.mark.parametrize(
    ("kind", "cells"),
    [
        ("sd1", ["64"] * 3 + ["32"] * 3 + ["16"] * 3 + ["8"] * 4),
        ("sdxl", ["64"] * 3 + ["32"] * 3 + ["16"] * 4),
        ("t2i", ["64", "32", "16", "8"]),
    ],
)
def test_without_a_control_the_chosen_kind_is_shown(kind: str, cells: list[str]) -> None:
    answer = asked(node("0.5"), blocks=kind)
    assert answer["kind"] == kind
    assert numbers(answer, "cells") == cells
    assert numbers(answer) == [0.5] * len(cells)
    assert [block["middle"] for block in answer["blocks"]].count(True) == (kind != "t2i")
    assert answer["control"] is answer["error"] is answer["fit"] is None
    assert answer["notes"] == []


@pytest.mark.parametrize(("count", "kind"), [(13, "sd1"), (10, "sdxl"), (4, "t2i"), (7, "count")])
def test_without_a_choice_the_count_of_values_tells(count: int, kind: str) -> None:
    answer = asked(node(json.dumps([1] * count)))
    assert (answer["kind"], len(answer["blocks"])) == (kind, count)
    assert (answer["blocks"][0]["level"] is None) == (kind == "count")
    assert asked(node('{"input": 0.5}'))["kind"] == "t2i"


def test_the_size_of_the_picture_gives_the_resolution() -> None:
    answer = asked(node("1"), blocks="sdxl", height=1024, width=1536)
    assert [block["cells"] for block in answer["blocks"]][::3] == ["128×192", "64×96", "32×48", "32×48"]


def test_a_control_is_known_by_its_file(folder: Path) -> None:
    save(folder, dict(narrow.make_module("sdxl").state_dict()), "depth.safetensors", {"num_head_channels": "32"})
    save(folder, dict(narrow.make_module("sd1").state_dict()), "canny.safetensors", {"num_heads": "4"})
    answer = asked(node("1"), control="depth.safetensors", blocks="sd1", others=["canny.safetensors"])
    assert answer["kind"] == "file"
    assert [block["name"] for block in answer["blocks"]] == [*(f"output {n}" for n in range(9)), "middle"]
    assert answer["control"]["name"] == "depth.safetensors"
    assert answer["control"]["family"].startswith("ControlNet")
    assert answer["notes"] == ["These weights go to 'canny.safetensors' too, which has 13 blocks and not 10."]


def test_another_count_is_shown_as_it_is_and_can_be_fitted(folder: Path) -> None:
    save(folder, dict(narrow.make_module("sdxl").state_dict()), "depth.safetensors", {"num_head_channels": "32"})
    mine = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 0]
    answer = asked(node(json.dumps(mine)), control="depth.safetensors")
    assert numbers(answer) == mine
    assert answer["error"] == (
        "Block Weights has 13 numbers, but this control has 10 blocks (output 0 to output 8, middle); write 10 numbers, or a single one for "
        "all of them."
    )
    assert answer["fit"]["count"] == 10
    again = asked(node(answer["fit"]["values"]), control="depth.safetensors")
    assert again["error"] is again["fit"] is None
    assert (numbers(again)[0], numbers(again)[-2:]) == (0.1, [1.2, 0])
    assert numbers(again)[:-1] == sorted(numbers(again)[:-1])


def test_fitting_keeps_the_course() -> None:
    assert fitted([0.5], blocks_of_kind("sdxl", 64, 64)) == [0.5] * 10
    assert fitted([0, 1, 2, 3], blocks_of_kind("t2i", 64, 64)) == [0, 1, 2, 3]
    assert fitted([1] * 12 + [0], blocks_of_kind("t2i", 64, 64)) == [1, 1, 1, 0]
    assert fitted([0, 1, 2, 3], blocks_of_kind("sdxl", 64, 64))[::9] == [0, 3]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (
            "1, x",
            'values of Block Weights has "x" in place 2, but a number was expected; write numbers with commas between them, such as '
            '"1, 0.5, 0", or JSON, such as {"output": 0.5, "middle": 1}.',
        ),
        (
            '{"input 1": 0}',
            'Block Weights names "input 1", but this control has 13 blocks (output 0 to output 11, middle); use the names of these.',
        ),
    ],
)
def test_what_cannot_be_read_is_said(values: str, error: str) -> None:
    answer = asked(node(values), blocks="sd1")
    assert answer["error"] == error
    assert numbers(answer) == numbers(answer, "product") == [None] * 13
    assert answer["presets"]["flat"] == json.dumps([1] * 13)


def test_the_product_is_that_of_the_nodes() -> None:
    soft = node({"base": 0.5, "ladder": "power"}, "ControlComposerSoftWeights")
    levels = node({"level_0": 0.5, "middle": 2}, "ControlComposerLevelWeights")  # what is left out keeps its default
    preset = node({"preset": "CFG resolution weighting"}, "ControlComposerWeightPreset")
    resolution = node({"form": "literal"}, "ControlComposerResolutionWeights")
    mine = '{"output 3": 0.25}'
    answer = asked(soft, node(mine), levels, preset, resolution, own=1, blocks="sdxl")
    blocks = blocks_of_kind("sdxl", 64, 64)
    own = list(parse_block_values(mine)(blocks))
    assert numbers(answer) == own
    by_level = {0: 0.5, 1: 1.0, 2: 1.0}
    rest = [
        (2.0 if block.place == "middle" else by_level[block.level])
        * {0: 0.25, 1: 0.5, 2: 1}[block.level]
        * 2**block.level
        for block in blocks
    ]
    expected = [a * b * c for a, b, c in zip(own, SoftWeights(0.5)(blocks), rest, strict=True)]
    assert numbers(answer, "product") == pytest.approx(expected)
    assert answer["chained"]
    assert not asked(node("1"))["chained"]


def test_what_only_a_run_knows_has_no_product() -> None:
    answer = asked(node({"base": None}, "ControlComposerSoftWeights"), node("1"))
    assert numbers(answer) == [1] * 13
    assert numbers(answer, "product") == [None] * 13
    assert answer["notes"] == ["base of Soft Weights comes from another node, so it is known only when that has run."]
    answer = asked(node({}, "OtherWeights"), node("1"))
    assert answer["notes"] == [
        "OtherWeights is no weights node of this pack, so the product is known only when it has run."
    ]
    answer = asked(node(None), blocks="sd1")
    assert numbers(answer) == [None] * 13
    huge = asked(node("1e308"), node("1e308"))
    assert numbers(huge, "product") == [None] * 13


def test_another_node_of_the_row_may_be_wrong() -> None:
    answer = asked(node("[1, 2]"), node("1"), blocks="sdxl")
    assert answer["error"] is None
    assert numbers(answer) == [1] * 10
    assert answer["notes"] == [
        "Block Weights has 2 numbers, but this control has 10 blocks (output 0 to output 8, middle); write 10 numbers, or a single one for "
        "all of them."
    ]


def test_presets() -> None:
    presets = {name: json.loads(text) for name, text in asked(node("[1, 0.5, 0.25, 0]"))["presets"].items()}
    assert presets == {
        "flat": [1, 1, 1, 1],
        "resolution": [0.125, 0.25, 0.5, 1],
        "soft": [0.562, 0.681, 0.825, 1],
        "coarse": [0, 0, 1, 1],
        "fine": [1, 1, 0, 0],
        "inverted": [0, 0.5, 0.75, 1],
        "reset": 1,
    }
    sdxl = asked(node("1"), blocks="sdxl")["presets"]
    assert json.loads(sdxl["coarse"]) == [0] * 6 + [1] * 4
    assert json.loads(sdxl["fine"]) == [1] * 6 + [0] * 4


def test_a_missing_or_wrong_file_is_said(folder: Path) -> None:
    answer = asked(node("1"), control="gone.safetensors")
    assert answer["notes"] == [
        "'gone.safetensors' is in none of the controlnet folders, so its blocks are not known; choose a file that is there."
    ]
    assert answer["control"] is None
    assert len(answer["blocks"]) == 13
    (folder / "text.safetensors").write_text("no weights")
    assert asked(node("1"), control="text.safetensors")["notes"][0].startswith("'text.safetensors' ")


def test_a_control_that_only_the_host_knows(folder: Path) -> None:
    save(folder, {"after_proj_list.18.bias": torch.zeros(4)}, "dit.safetensors")
    answer = asked(node("1, 2, 3"), control="dit.safetensors")
    assert answer["notes"] == [
        "'dit.safetensors' is a control for HunyuanDiT, whose blocks are known only when it is loaded; write one number per block."
    ]
    assert (answer["kind"], numbers(answer)) == ("count", [1, 2, 3])


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({}, "chain of the question about weights has no nodes in it"),
        ({"chain": [node("1")], "own": 3}, "own of the question about weights is 3"),
        ({"chain": [node("1")], "height": -8}, "height of the question about weights is -8"),
        ({"chain": [node("1")], "blocks": "sd9"}, "blocks is 'sd9', but one of sd1, sd2, sdxl, t2i was expected"),
    ],
)
def test_what_is_no_question_is_refused(question: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="expected") as refusal:
        weights(question)
    assert str(refusal.value).startswith(said)
