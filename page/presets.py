"""What the page asks about presets: those that come with the pack, one that was pasted or imported, and the settings of a layer as one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from comfy_api.latest import io

from ..nodes import apply, preset, schedule, union, weight
from ..nodes.preset_inputs import CURVES, ControlPreset, settings_under, shipped
from ..nodes.schedule import StrengthSchedule
from ..nodes.weight import Weights
from ..residuals.layer_preset import ANY, LONGEST_WORDS, LayerPreset, described, parse_preset, preset_text
from ..residuals.preset_error import PresetError, number_of
from ..residuals.schedules import Schedule
from ..residuals.shipped_presets import SHIPPED
from ..residuals.weights import BlockWeights

LAYERS = {
    node.define_schema().node_id: node
    for node in (apply.ControlComposerApply, apply.ControlComposerLayer, union.ControlComposerUnionLayer)
}
PURE: list[type[io.ComfyNode]] = [*weight.NODES, *schedule.NODES, preset.ControlComposerLayerPreset]
COMPUTED = {node.define_schema().node_id: node for node in PURE}
"""Nodes that are functions of what is typed into them, so that their outputs are known before anything runs."""

NUMBERS = ("strength", "start_percent", "end_percent", "uncond_strength")
SETTINGS = (*NUMBERS, "weights", "schedule", "preset", "own_preset")
DEEPEST = 100
KINDS: dict[str, tuple[type, str]] = {
    io.String.io_type: (str, "a text"),
    io.Combo.io_type: (str, "the text of one of its choices"),
    Weights.io_type: (BlockWeights, "a link from a node of block weights"),
    StrengthSchedule.io_type: (Schedule, "a link from a node of schedules"),
    ControlPreset.io_type: (LayerPreset, "a link from Layer Preset"),
}
"""Type of an input -> what its value is, and the same in words. Only a text is never left out; numbers are looked at where they are used."""


@cache
def listed() -> dict[str, dict[str, str]]:
    return {found.name: told(found) for found in SHIPPED}


def told(found: LayerPreset) -> dict[str, str]:
    """`file` is a name for its file."""
    plain = re.sub(r"[^\w.-]+", "_", found.name).strip("_.") or "preset"
    return {"name": found.name, "text": preset_text(found, CURVES), "words": described(found), "file": f"{plain}.json"}


def presets(question: dict[str, Any]) -> dict[str, Any]:
    """-> `presets`: name -> {name, text, words, file} of those that come with the pack."""
    return {"presets": listed()}


def read_preset(question: dict[str, Any]) -> dict[str, Any]:
    """`text`: a preset as JSON -> {name, text, words, file}. Raises PresetError."""
    text = question.get("text")
    return told(parse_preset(text if isinstance(text, str) else "", CURVES))


def layer_preset(question: dict[str, Any]) -> dict[str, Any]:
    """`prompt`: the graph as it would be queued; `node`: the id of a layer in it; `name` of the preset -> {name, text, words, file}.

    The layer's own settings, what is connected to it, and its presets, multiplied as in a run. Raises ValueError, one sentence.
    """
    found, key = question.get("prompt"), str(question.get("node"))
    prompt: dict[str, Any] = found if isinstance(found, dict) else {}
    entry = prompt.get(key)
    node = LAYERS.get(str(entry.get("class_type"))) if isinstance(entry, dict) else None
    if node is None:
        raise PresetError(
            "The settings of this node cannot be exported, since it is switched off or no layer; switch it on, or choose a Control Layer."
        )
    given = inputs_of(prompt, key, node, SETTINGS, 0)
    given |= {name: number_of(given[name], f"{name} of the layer") for name in NUMBERS}
    settings = settings_under(**given)
    used = [found for found in (shipped(given["preset"]), given["own_preset"]) if found is not None]
    name = str(question.get("name") or node.define_schema().display_name).strip()[: LONGEST_WORDS["name"]]
    source = "; ".join(f"{found.name}: {found.source}" if found.source else found.name for found in used)
    return told(
        LayerPreset(
            name or "layer",
            settings,
            agreed({found.condition for found in used}),
            agreed({found.base for found in used}),
            source[: LONGEST_WORDS["source"]].strip(),
        )
    )


def agreed(words: set[str]) -> str:
    """The word that all presets with one have in common."""
    said = words - {ANY}
    return said.pop() if len(said) == 1 else ANY


def inputs_of(
    prompt: Mapping[str, Any], key: str, node: type[io.ComfyNode], names: tuple[str, ...] | None, depth: int
) -> dict[str, Any]:
    """A node's inputs, of `names` only where these are given, as a run would hand them over. Raises PresetError."""
    schema = node.define_schema()
    found: dict[str, Any] = {}
    given = prompt[key].get("inputs", {})
    if not isinstance(given, dict):
        raise PresetError(
            f"The inputs of {schema.display_name} ({key}) are no object of names and values, but one was expected; queue the graph once, which tells "
            "what else is wrong with it."
        )
    for item in schema.inputs:
        if names is not None and item.id not in names:
            continue
        value = given.get(item.id, getattr(item, "default", None))
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
            value = output_of(prompt, value[0], value[1], f"{item.id} of {schema.display_name}", depth + 1)
        elif isinstance(value, dict) and "__value__" in value:  # how the page marks a list that is no link
            value = value["__value__"]
        kind, words = KINDS.get(item.get_io_type(), (object, ""))
        if not isinstance(value, kind) and (value is not None or kind is str):
            raise PresetError(
                f"{item.id} of {schema.display_name} is {str(value)[:40]}, but {words} was expected; set it in the graph."
            )
        found[item.id] = value
    return found


def output_of(prompt: Mapping[str, Any], key: str, slot: int, what: str, depth: int) -> Any:
    """What a node that needs no run gives. Raises PresetError."""
    entry = prompt.get(key)
    kind = entry.get("class_type") if isinstance(entry, dict) else None
    node = COMPUTED.get(kind) if isinstance(kind, str) else None
    if node is None or depth > DEEPEST:
        raise PresetError(
            f"{what} comes from {kind or 'nothing'}, whose output is known only when it has run, but an export takes what is written in the graph; "
            "type it into the node, or let Save Preset write the preset in a run."
        )
    given = inputs_of(prompt, key, node, None, depth)
    try:
        return node.execute(**given).args[slot]
    except (ArithmeticError, AttributeError, LookupError, TypeError) as problem:
        raise PresetError(
            f"{what} comes from {kind}, which cannot do with what is written in it ({problem!r}), but settings were expected; correct them there."
        ) from None
