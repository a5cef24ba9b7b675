"""Prompts in API format with other packs' nodes: our replacements, also where the prompt leaves out what was optional.

The host's own replacing takes every input that a replacement names, and a title, for given; prompts of 2023 have neither. This comes before it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from comfy_api.latest import io

Prompt = dict[str, Any]


def replaced(prompt: Prompt, ours: Mapping[str, io.NodeReplace], known: Container[str]) -> Prompt:
    """A prompt with our nodes in place of those of `ours` that nobody `known` has. Outputs keep their places: all of our replacements do."""
    return {
        key: with_our_node(node, ours[node["class_type"]]) if is_old(node, ours, known) else node
        for key, node in prompt.items()
    }


def is_old(node: Any, ours: Mapping[str, io.NodeReplace], known: Container[str]) -> bool:
    if not (isinstance(node, dict) and isinstance(node.get("inputs"), dict)):
        return False
    kind = node.get("class_type")
    return isinstance(kind, str) and kind in ours and kind not in known and ours[kind].new_node_id in known


def with_our_node(node: dict[str, Any], replacement: io.NodeReplace) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for entry in replacement.input_mapping or ():
        if "set_value" in entry:
            inputs[entry["new_id"]] = entry["set_value"]
        elif entry["old_id"] in node["inputs"]:
            inputs[entry["new_id"]] = node["inputs"][entry["old_id"]]
    return {**node, "class_type": replacement.new_node_id, "inputs": inputs}


def handler(replacements: Sequence[io.NodeReplace]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """For the host's list of those that see each prompt before it does."""
    from server import PromptServer  # here, because only a running host has a server

    import nodes  # the host's, which knows the packs that are loaded only after ours

    manager = PromptServer.instance.node_replace_manager

    def handle(data: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(data.get("prompt"), dict):
            return data
        # Another pack may have told the host of the same node before us, and the host takes the first.
        ours = {
            one.old_node_id: one
            for one in replacements
            if (manager.get_replacement(one.old_node_id) or [one])[0].new_node_id == one.new_node_id
        }
        return {**data, "prompt": replaced(data["prompt"], ours, nodes.NODE_CLASS_MAPPINGS)}

    return handle


def register(replacements: Sequence[io.NodeReplace]) -> None:
    """Tell the running server; does nothing where none runs."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.add_on_prompt_handler(handler(replacements))
