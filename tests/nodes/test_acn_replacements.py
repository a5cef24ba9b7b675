"""Advanced-ControlNet's nodes in prompts and in the host's list of replacements: ids, inputs and what is left out."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("comfy")

from comfy_api.latest import io

from control_composer.nodes import (
    acn_apply,
    acn_keyframes,
    acn_latents,
    acn_load,
    acn_reference,
    acn_weights,
    load,
)
from control_composer.nodes.acn_names import NODES as OLD
from control_composer.nodes.acn_names import WITHOUT
from control_composer.nodes.acn_replacements import replacements
from control_composer.nodes.old_prompts import replaced

SECTIONS = (acn_load, acn_reference, acn_apply, acn_weights, acn_keyframes, acn_latents)
OWN = {node.define_schema().node_id: node for section in SECTIONS for node in section.NODES}
OURS: dict[str, Any] = OWN | {node.define_schema().node_id: node for node in load.NODES}
TOLD = {one.old_node_id: one for one in replacements()}


def test_all_nodes_of_that_pack_are_accounted_for() -> None:
    """All 46 of Advanced-ControlNet 1.5.8: those that are replaced, and those that are not with a reason."""
    assert len(TOLD) == len(OLD) and not set(TOLD) & set(WITHOUT)
    assert len(TOLD) + len(WITHOUT) == 46


def test_each_of_our_nodes_is_in_the_place_of_one() -> None:
    assert set(OWN) == {one.new for one in OLD} - {"ControlComposerLoad"}
    assert all(node.define_schema().is_deprecated for node in OWN.values())


@pytest.mark.parametrize("one", replacements(), ids=lambda one: one.old_node_id)
def test_what_is_mapped_exists_and_what_must_be_is_mapped(one: io.NodeReplace) -> None:
    schema = OURS[one.new_node_id].define_schema()
    entries = {entry.id: entry for entry in schema.inputs}
    mapped = [entry["new_id"] for entry in one.input_mapping or ()]
    assert set(mapped) <= set(entries)
    assert {name for name, entry in entries.items() if not entry.optional} <= set(mapped)
    assert len(one.output_mapping or ()) <= len(schema.outputs)
    # The host sets outputs in place, one after the other: only the same places are safe.
    assert all(entry["new_idx"] == entry["old_idx"] for entry in one.output_mapping or ())


def test_what_one_version_called_differently_is_read() -> None:
    prompt = {
        "1": {
            "class_type": "ControlNetLoaderAdvanced",
            "inputs": {"control_net_name": "x", "timestep_keyframe": ["2", 0]},
        },
        "2": {
            "class_type": "TimestepKeyframe",
            "inputs": {"start_percent": 0.1, "control_net_weights": ["3", 0], "prev_timestep_keyframe": ["4", 0]},
        },
        "3": {
            "class_type": "SoftControlNetWeights",
            "inputs": {"weight_00": 0.5, "weight_12": 1.0, "flip_weights": True},
            "_meta": {"title": "soft"},
        },
        "5": {"class_type": "KSampler", "inputs": {"seed": 1}},
        "6": {"class_type": "ACN_SparseCtrlMergedLoaderAdvanced", "inputs": {}},
        "7": "no node",
    }
    found = replaced(prompt, TOLD, set(OURS))
    assert found["1"] == {
        "class_type": "ControlComposerAcnLoader",
        "inputs": {"control_net_name": "x", "timestep_kf": ["2", 0]},
    }
    assert found["2"]["inputs"] == {"start_percent": 0.1, "cn_weights": ["3", 0], "prev_timestep_kf": ["4", 0]}
    assert found["3"] == {
        "class_type": "ControlComposerAcnSoftControlNetWeights",
        "inputs": {"output_0": 0.5, "middle_0": 1.0, "flip_weights": True},
        "_meta": {"title": "soft"},
    }
    assert {key: found[key] for key in "567"} == {key: prompt[key] for key in "567"}
    # Where somebody has that pack, its nodes stay.
    assert replaced(prompt, TOLD, {*OURS, *TOLD}) == prompt


def test_flipped_numbers_are_turned_round() -> None:
    numbers = {f"output_{index}": float(index) for index in range(12)} | {"middle_0": 12.0}
    node = OWN["ControlComposerAcnCustomControlNetWeights"]
    weights, shortcut = node.execute(**numbers, flip_weights=True).args
    assert weights.blocks.outputs == tuple(range(12, 0, -1)) and weights.blocks.middle == 0
    assert shortcut[0].weights is weights and shortcut[0].guarantee_steps == 1
    assert node.execute(**numbers).args[0].blocks.outputs == tuple(range(12))


def test_a_list_of_strengths_may_be_one_number() -> None:
    node = OWN["ControlComposerAcnTimestepList"]
    found = node.execute([1.0, 0.5], 0.2, 0.8).args[0]
    assert [(frame.start_percent, frame.strength, frame.guarantee_steps) for frame in found] == [
        (0.0, 1.0, 0),
        (0.2, 1.0, 1),
        (0.8, 0.5, 0),
    ]
    assert [frame.strength for frame in node.execute(0.3, 0.2, 0.8).args[0]] == [1.0, 0.3]
    with pytest.raises(ValueError, match="float_strengths of Timestep Keyframe From List got"):
        node.execute(["much"], 0.2, 0.8)


def test_what_comes_before_wins_in_a_group_and_the_node_wins_alone() -> None:
    alone, group = OWN["ControlComposerAcnLatentKeyframe"], OWN["ControlComposerAcnLatentGroup"]
    first = alone.execute(1, 0.5).args[0]
    assert alone.execute(1, 0.7, first).args[0].entries == ((1, 0.7),)
    assert group.execute("1=0.7, 2", first).args[0].entries == ((1, 0.5), (2, 1.0))
    with pytest.raises(ValueError, match="pictures rise and count from one side only"):
        OWN["ControlComposerAcnLatentInterpolation"].execute(-1, 2, 0.0, 1.0, "linear")


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        (
            "SparseLoader",
            ("x", True, 0.5, 1.0),
            r"has motion_strength 0\.5, but this pack runs a SparseCtrl as it was trained",
        ),
        ("SparseLoader", ("x", False, 1.0, 1.0), "has use_motion off"),
        ("SparseSpread", ("center",), "is center, but this pack knows uniform only"),
        ("ReferenceFinetune", (0.5, 1.0, 0.5, 0.5, 1.0, 1.0), "has strengths other than 0 and 1 or two different"),
        ("ReferenceFinetune", (0.5, 1.0, 1.0, 0.7, 1.0, 1.0), "has strengths other than 0 and 1 or two different"),
    ],
)
def test_what_is_not_here_is_refused(name: str, values: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        OWN[f"ControlComposerAcn{name}"].execute(*values)


def test_a_reference_with_one_part_only_leaves_the_other_out() -> None:
    node = OWN["ControlComposerAcnReferenceFinetune"]
    assert node.execute(0.5, 1.0, 1.0, 0.7, 1.0, 0.0).args[0].mode == "attention"
    found = node.execute(0.5, 1.0, 0.0, 0.7, 0.8, 1.0).args[0]
    assert (found.mode, found.style_fidelity, found.adain_weight) == ("adain", 0.7, 0.8)
