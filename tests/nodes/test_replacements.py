"""comfyui_controlnet_aux's nodes in the host's own replacement of nodes: ids, settings, values and pictures."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("comfy")

import execution
from app.node_replace_manager import NodeReplaceManager
from comfy_api.latest import io
from comfy_extras.nodes_images import GetImageSize

import nodes as host_nodes
from control_composer.nodes.aux_names import (
    COUNTERPARTS,
    IN_ONE,
    OF_THE_HOST,
    RESOLUTION,
    SIZE_OF_LATENT,
    WITHOUT,
    Counterpart,
)
from control_composer.nodes.replacements import HERE, NODES, OURS, own_id, replacements
from control_composer.preprocessors import PREPROCESSORS
from control_composer.preprocessors.aux_mode import as_controlnet_aux

BY_ID = {one.id: one for one in PREPROCESSORS}
ALL_OURS: dict[str, Any] = OURS | {node.define_schema().node_id: node for node in [*NODES, GetImageSize]}
OLD = {one.old_node_id: one for one in replacements()}
SOCKETS = {
    "image": "IMAGE",
    "hint_image": "IMAGE",
    "original_image": "IMAGE",
    "mask": "MASK",
    "kps": "POSE_KEYPOINT",
    "pose_kps": "POSE_KEYPOINT",
}


class Picture(io.ComfyNode):
    """Something of every type that the old nodes are connected to."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        types = [io.Image, io.Mask, io.Custom("POSE_KEYPOINT")]
        return io.Schema("TestPicture", inputs=[], outputs=[one.Output() for one in types], is_output_node=True)

    @classmethod
    def execute(cls) -> io.NodeOutput:
        raise AssertionError("validated only")


class Sink(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema("TestSink", inputs=[io.AnyType.Input("a")], outputs=[], is_output_node=True)

    @classmethod
    def execute(cls, a: Any) -> io.NodeOutput:
        raise AssertionError("validated only")


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeReplaceManager]:
    """The host's own, with our replacements, and our nodes among its."""
    for node in [*ALL_OURS.values(), Picture, Sink]:
        monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, node.define_schema().node_id, node)
    found = NodeReplaceManager()
    for one in replacements():
        found.register(one)
    yield found


def inputs_of(node: Any) -> dict[str, Any]:
    return {entry.id: entry for entry in node.define_schema().inputs}


def old_prompt(counterpart: Counterpart, **values: Any) -> dict[str, Any]:
    """As the page exports it: all settings, and links."""
    outputs = ["IMAGE", "MASK", "POSE_KEYPOINT"]
    links = {old: ["1", outputs.index(SOCKETS[old])] for old in counterpart.sockets.values()}
    settings = {widget.id: widget.default for widget in counterpart.widgets} | values
    prompt = {
        "1": {"class_type": "TestPicture", "inputs": {}, "_meta": {"title": ""}},
        "2": {"class_type": counterpart.old, "inputs": {**links, **settings}, "_meta": {"title": "old"}},
    }
    if OURS[counterpart.new].define_schema().outputs:
        prompt["3"] = {"class_type": "TestSink", "inputs": {"a": ["2", 0]}, "_meta": {"title": ""}}
    return prompt


def refusals(prompt: dict[str, Any]) -> Any:
    valid, error, _, node_errors = asyncio.run(execution.validate_prompt("test", prompt, None))
    return None if valid and not node_errors else (error, node_errors)


def test_every_counterpart_is_here() -> None:
    assert COUNTERPARTS == HERE
    assert len({one.old for one in COUNTERPARTS}) == len(COUNTERPARTS)


def test_all_nodes_of_that_pack_are_accounted_for() -> None:
    """All 64 of controlnet_aux 1.1.5: those that are replaced, and those that are not with a reason."""
    accounted = {one.old for one in COUNTERPARTS} | {IN_ONE, SIZE_OF_LATENT, *OF_THE_HOST}
    assert accounted - {one.old for one in COUNTERPARTS if one not in HERE} == set(OLD)
    assert not accounted & set(WITHOUT)
    assert len(accounted | set(WITHOUT)) == 64


@pytest.mark.parametrize("one", replacements(), ids=lambda one: one.old_node_id)
def test_what_is_mapped_exists_and_fits(one: io.NodeReplace) -> None:
    entries = inputs_of(ALL_OURS[one.new_node_id])
    mapped = {entry["new_id"]: entry for entry in one.input_mapping or ()}
    assert set(mapped) <= set(entries)
    assert {name for name, entry in entries.items() if not entry.optional} <= set(mapped)
    for name, entry in mapped.items():
        if "set_value" in entry:
            shown, value = entries[name], entry["set_value"]
            assert isinstance(value, type(shown.default))
            assert value in shown.options if isinstance(shown, io.Combo.Input) else True
    assert len(one.output_mapping or ()) <= len(ALL_OURS[one.new_node_id].define_schema().outputs)


@pytest.mark.parametrize("counterpart", HERE, ids=lambda one: one.old)
def test_the_values_of_old_settings_are_ours(counterpart: Counterpart) -> None:
    """The range of the old setting lies in that of ours, its default is kept, and its choices are choices of ours."""
    ours = inputs_of(OURS[counterpart.new])
    assert set(counterpart.sockets) <= set(ours)
    for widget in counterpart.widgets:
        if not widget.ours:
            continue
        entry = ours[widget.ours]
        for value in (widget.default, *widget.values):
            new = widget.as_ours(value)
            assert isinstance(new, type(entry.default)) or (isinstance(new, int) and isinstance(entry.default, float))
            if isinstance(entry, io.Combo.Input):
                assert new in entry.options
        if widget.low is not None and widget.goes_over:
            # Seeds beyond 2^53 are exact neither in the page nor in JSON.
            assert entry.min <= widget.low and min(widget.high, 2**53 - 1) <= entry.max + 1e-9, widget


@pytest.mark.parametrize("counterpart", HERE, ids=lambda one: one.old)
def test_an_old_prompt_becomes_a_valid_one(counterpart: Counterpart, manager: NodeReplaceManager) -> None:
    """Through the host's own replacement and its own validation, with each of the choices."""
    choices = [{widget.id: value} for widget in counterpart.widgets for value in widget.values]
    for values in choices or [{}]:
        prompt = old_prompt(counterpart, **values)
        manager.apply_replacements(prompt)
        assert prompt["2"]["class_type"] == OLD[counterpart.old].new_node_id
        assert refusals(prompt) is None, values


def test_nodes_that_are_installed_stay(manager: NodeReplaceManager, monkeypatch: pytest.MonkeyPatch) -> None:
    for counterpart in HERE:
        monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, counterpart.old, Picture)
        prompt = old_prompt(counterpart)
        before = copy.deepcopy(prompt)
        manager.apply_replacements(prompt)
        assert prompt == before


EXACT = [one for one in HERE if one.is_preprocessor and not BY_ID[one.node].annotators]
OTHER_VALUES: dict[str, dict[str, Any]] = {
    "CannyEdgePreprocessor": {"low_threshold": 50, "high_threshold": 90},
    "PyraCannyPreprocessor": {"low_threshold": 20, "high_threshold": 60},
    "BinaryPreprocessor": {"bin_threshold": 0},
    "Scribble_XDoG_Preprocessor": {"threshold": 8},
    "LineartStandardPreprocessor": {"guassian_sigma": 2.0, "intensity_threshold": 3},
    "ShufflePreprocessor": {"seed": 5},
    "TilePreprocessor": {"pyrUp_iters": 2},
    "TTPlanet_TileGF_Preprocessor": {"scale_factor": 2.0, "blur_strength": 4.0, "radius": 3, "eps": 0.05},
    "TTPlanet_TileSimple_Preprocessor": {"scale_factor": 2.0, "blur_strength": 4.0},
    "ImageLuminanceDetector": {"gamma_correction": 0.5},
    "ImageIntensityDetector": {"gamma_correction": 1.5},
}


@pytest.mark.parametrize("counterpart", EXACT, ids=lambda one: one.old)
def test_the_pictures_are_those_of_that_pack(counterpart: Counterpart, manager: NodeReplaceManager) -> None:
    image = (
        torch.nn.functional.interpolate(
            torch.rand((1, 3, 9, 13), generator=torch.Generator().manual_seed(0)), (72, 104), mode="bicubic"
        )
        .clamp(0, 1)
        .movedim(1, -1)
    )
    values = OTHER_VALUES.get(counterpart.old, {})
    resolution = {"resolution": 96} if RESOLUTION in counterpart.widgets else {}
    prompt = old_prompt(counterpart, **values, **resolution)
    manager.apply_replacements(prompt)
    assert refusals(prompt) is None
    settings = {name: value for name, value in prompt["2"]["inputs"].items() if name != "image"}
    found = ALL_OURS[prompt["2"]["class_type"]].execute(image=image, **settings).result[0]
    names = {widget.id: widget.ours for widget in counterpart.widgets}
    wanted, _ = as_controlnet_aux(
        BY_ID[counterpart.node], image, 96, **{names[name]: value for name, value in values.items()}
    )
    assert torch.equal(found, wanted)
    if values:
        assert not torch.equal(found, as_controlnet_aux(BY_ID[counterpart.node], image, 96)[0])


def test_all_in_one_has_that_packs_names(manager: NodeReplaceManager) -> None:
    image = torch.rand((1, 40, 64, 3), generator=torch.Generator().manual_seed(0))
    node = ALL_OURS[own_id(IN_ONE)]
    (same,) = node.execute(image, "none", 64).result
    assert same is image
    for old, ours in (
        ("CannyEdgePreprocessor", "Canny"),
        ("ScribblePreprocessor", "Scribble"),
        ("TilePreprocessor", "Tile"),
    ):
        (found,) = node.execute(image, old, 80).result
        assert torch.equal(found, as_controlnet_aux(BY_ID[ours], image, 80)[0])
    prompt = {
        "1": {"class_type": "TestPicture", "inputs": {}, "_meta": {}},
        "2": {
            "class_type": IN_ONE,
            "inputs": {"image": ["1", 0], "preprocessor": "CannyEdgePreprocessor", "resolution": 64},
            "_meta": {},
        },
        "3": {"class_type": "TestSink", "inputs": {"a": ["2", 0]}, "_meta": {}},
    }
    manager.apply_replacements(prompt)
    assert prompt["2"]["class_type"] == own_id(IN_ONE) and refusals(prompt) is None
    options = inputs_of(node)["preprocessor"].options
    assert {one.old for one in HERE if one.is_preprocessor} == set(options) - {"none"}


def test_sizes(manager: NodeReplaceManager) -> None:
    latent = {"samples": torch.zeros(1, 4, 16, 24)}
    assert ALL_OURS[own_id(SIZE_OF_LATENT)].execute(latent).result == (192, 128)
    outputs = [[one.display_name for one in ALL_OURS[new].define_schema().outputs] for new in OF_THE_HOST.values()]
    assert all(names[:2] == ["width", "height"] for names in outputs)


def on_the_page(one: io.NodeReplace, widgets_values: list[Any]) -> dict[str, Any]:
    """What the page (frontend 1.47) puts into the new node's widgets: by position, and never into nested ones."""
    found: dict[str, Any] = {}
    for entry in one.input_mapping or ():
        if "." in entry["new_id"]:
            continue
        if "set_value" in entry:
            found[entry["new_id"]] = entry["set_value"]
        elif entry["old_id"] in (one.old_widget_ids or ()):
            place = one.old_widget_ids.index(entry["old_id"])
            if place < len(widgets_values):
                found[entry["new_id"]] = widgets_values[place]
    return found


@pytest.mark.parametrize(
    ("old", "widgets_values", "wanted"),
    [
        (
            "CannyEdgePreprocessor",
            [50, 90, 1024],
            {"low": 50, "high": 90, "resolution": 1024, "as_controlnet_aux": True},
        ),
        # The page adds what happens to the seed.
        ("ShufflePreprocessor", [768, 5, "randomize"], {"seed": 5, "resolution": 768, "as_controlnet_aux": True}),
        ("HEDPreprocessor", ["disable", 640], {"safe": "disable", "resolution": 640}),
        (IN_ONE, ["HEDPreprocessor", 640], {"preprocessor": "HEDPreprocessor", "resolution": 640}),
        (
            "PixelPerfectResolution",
            [768, 512, "Resize and Fill"],
            {"image_gen_width": 768, "image_gen_height": 512, "resize_mode": "Resize and Fill"},
        ),
        # An older version of that pack had no third setting.
        (
            "OpenposePreprocessor",
            ["enable", "disable", "enable", 512],
            {"detect_hand": "enable", "detect_body": "disable", "detect_face": "enable", "resolution": 512},
        ),
    ],
)
def test_workflows_of_the_page(old: str, widgets_values: list[Any], wanted: dict[str, Any]) -> None:
    assert on_the_page(OLD[old], widgets_values) == wanted


def test_settings_that_only_that_pack_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the nodes with old settings hand to ours."""
    told: dict[str, Any] = {}

    def fed(old: str, **values: Any) -> dict[str, Any]:
        counterpart = next(one for one in HERE if one.old == old)
        node = OURS[counterpart.new]
        monkeypatch.setattr(node, "execute", classmethod(lambda cls, **found: told.update(found)))
        told.clear()
        ALL_OURS[own_id(old)].execute(**values)
        return dict(told)

    aux = {"as_controlnet_aux": True}
    assert fed("HEDPreprocessor", image=1, safe="disable") == {"image": 1, "safe": False, "resolution": 512, **aux}
    assert fed("PiDiNetPreprocessor", image=1, safe="enable", resolution=64) == {
        "image": 1,
        "safe": True,
        "resolution": 64,
        **aux,
    }
    assert fed("LineArtPreprocessor", image=1, coarse="enable")["network"] == "Lineart-coarse"
    assert fed("DepthAnythingV2Preprocessor", image=1)["network"] == "Depth-Anything-V2-Large"
    assert fed("DepthAnythingPreprocessor", image=1, ckpt_name="depth_anything_vits14.pth")["network"] == (
        "Depth-Anything-V1-Small"
    )
    assert fed("AnyLineArtPreprocessor_aux", image=1, object_min_size=37) == {
        "image": 1,
        "resolution": 1280,
        "lower": 0.0,
        "upper": 1.0,
        "smallest": 13,
        **aux,
    }
    assert fed("DWPreprocessor", image=1, detect_hand="disable", bbox_detector="None") == {
        "image": 1,
        "hands": False,
        "body": True,
        "face": True,
        "resolution": 512,
        "find_people": False,
        "thick_sticks": False,
        **aux,
    }
    assert fed("OpenposePreprocessor", image=1, scale_stick_for_xinsr_cn="enable")["thick_sticks"] is True
    assert fed("InpaintPreprocessor", image=1, mask=2, black_pixel_for_xinsir_cn=True) == {
        "image": 1,
        "mask": 2,
        "masked": "black",
    }
    assert fed("PixelPerfectResolution", original_image=1, image_gen_width=8, resize_mode="Resize and Fill") == {
        "image": 1,
        "width": 8,
        "height": 512,
        "mode": "fit",
    }
    assert fed("HintImageEnchance", hint_image=1) == {"hint": 1, "width": 512, "height": 512, "mode": "stretch"}
