"""A workflow as the page saves it -> the prompt that the server executes. The page's own conversion is JavaScript."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Json = Mapping[str, Any]

WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "CURVE"})
# These exist in the page only; the server has never heard of them.
NOTES = frozenset({"Note", "MarkdownNote"})
MUTED, BYPASSED = 2, 4
GROWING = "COMFY_AUTOGROW_V3"
CHANGING = "COMFY_DYNAMICCOMBO_V3"


class GraphError(ValueError):
    """A workflow that cannot become a prompt: says which node, what was found, what was expected, what to do."""


def prompt_from_workflow(workflow: Json, object_info: Json) -> dict[str, dict[str, Any]]:
    """The API prompt of a workflow in the page's format (version 0.4).

    object_info: the server's answer to GET /object_info. Returns {node id: {"class_type", "inputs", "_meta"}} with
    links as [node id, output index], as POST /prompt takes it. Notes and muted nodes are left out; links through
    bypassed nodes and reroutes lead to what lies before them. Raises GraphError where a node is unknown, where its
    saved widgets do not fit the node that the server has, for subgraphs, and for dynamic inputs that neither grow
    nor change with a choice: those it cannot do.
    """
    if (workflow.get("definitions") or {}).get("subgraphs"):
        raise GraphError(
            "workflow: found subgraphs, but plain nodes were expected; unpack them in the page and save it again."
        )
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: link for link in workflow["links"]}
    return {
        str(node["id"]): {
            "class_type": node["type"],
            "inputs": _inputs(node, nodes, links, object_info),
            "_meta": {"title": title(node, object_info)},
        }
        for node in workflow["nodes"]
        if _runs(node)
    }


def title(node: Json, object_info: Json) -> str:
    """The title that the page shows above the node."""
    info = object_info.get(node["type"], {})
    return str(node.get("title") or info.get("display_name") or node["type"])


def _runs(node: Json) -> bool:
    return node["type"] not in NOTES | {"Reroute", "PrimitiveNode"} and node.get("mode", 0) not in (MUTED, BYPASSED)


def _inputs(node: Json, nodes: Mapping[int, Json], links: Mapping[int, list[Any]], object_info: Json) -> dict[str, Any]:
    name = f'node {node["id"]} "{node.get("title") or node["type"]}"'
    if node["type"] not in object_info:
        raise GraphError(
            f"{name}: found the node type {node['type']}, but a node that the server has was expected; "
            "install or update the pack it comes from."
        )
    inputs = _widget_values(node, name, object_info[node["type"]])
    for socket in node.get("inputs") or ():
        if socket.get("link") is None:
            continue
        source = _source(links[socket["link"]], nodes, links, object_info)
        if source is not None:
            inputs[socket["name"]] = source
    return inputs


def _widget_values(node: Json, name: str, info: Json) -> dict[str, Any]:
    values = node.get("widgets_values") or []
    if isinstance(values, Mapping):
        return dict(values)
    inputs: dict[str, Any] = {}
    position = 0
    waiting = _widgets(name, info["input"], info.get("input_order", {}))
    while waiting:
        widget, width, optional, choices = waiting.pop(0)
        if position >= len(values):
            if optional:
                break  # came to the node after the workflow was saved: the server has its default, as the page has
            raise GraphError(
                f"{name}: found {len(values)} saved widget values, but one for {widget} was expected too; "
                "the node has changed since the workflow was saved: open it in the page and save it again."
            )
        value = values[position]
        # The server would take a bare list for a link.
        inputs[widget] = {"__value__": value} if isinstance(value, list) else value
        position += width
        if choices is not None:
            waiting = [*_widgets(name, _chosen(name, widget, value, choices)["inputs"], {}, f"{widget}."), *waiting]
    if position < len(values):
        raise GraphError(
            f"{name}: found {len(values)} saved widget values, but {position} were expected; "
            "the node has changed since the workflow was saved: open it in the page and save it again."
        )
    return inputs


class _Widget(NamedTuple):
    name: str
    width: int
    """How many saved values it takes."""
    optional: bool
    choices: list[Any] | None
    """Of a choice with inputs of its own, which come right after it."""


def _widgets(name: str, sections: Json, order: Json, prefix: str = "") -> list[_Widget]:
    """Each widget of a node, or of what was chosen in one, in the order of the page."""
    widgets = []
    for section in ("required", "optional"):
        specifications = sections.get(section) or {}
        for widget in order.get(section) or specifications:
            kind, options = _kind_and_options(specifications[widget])
            if kind == GROWING:
                continue  # sockets only, which the page saves under the names that the server reads
            if kind == CHANGING:
                widgets.append(_Widget(prefix + widget, 1, section == "optional", options["options"]))
                continue
            if kind.startswith("COMFY_") and kind.endswith("_V3"):
                raise GraphError(
                    f"{name}: found the dynamic input {widget} ({kind}), but plain inputs were expected; "
                    "use a node without it in a workflow that is run from the command line."
                )
            if kind not in WIDGET_TYPES or options.get("forceInput"):
                continue
            chosen_after = options.get("control_after_generate")
            if chosen_after is None:
                chosen_after = kind == "INT" and widget in ("seed", "noise_seed")
            upload = any(options.get(key) for key in ("image_upload", "video_upload", "animated_image_upload"))
            width = 1 + bool(chosen_after) + bool(upload)
            widgets.append(_Widget(prefix + widget, width, section == "optional", None))
    return widgets


def _chosen(name: str, widget: str, value: Any, choices: list[Any]) -> Json:
    for choice in choices:
        if choice["key"] == value:
            return dict(choice)
    raise GraphError(
        f"{name}: found the choice {value!r} for {widget}, but one of {', '.join(choice['key'] for choice in choices)} was expected; "
        "the node has changed since the workflow was saved: open it in the page and choose anew."
    )


def _kind_and_options(specification: Any) -> tuple[str, Json]:
    kind = specification[0]
    options: Json = specification[1] if len(specification) > 1 else {}
    return ("COMBO" if isinstance(kind, list) else str(options.get("widgetType", kind))), options


def _source(link: list[Any], nodes: Mapping[int, Json], links: Mapping[int, list[Any]], object_info: Json) -> Any:
    """What a link brings: [node id, output index], the value of a primitive node, or None from a muted node."""
    _, origin_id, origin_slot, _, _, kind = link[:6]
    node = nodes[origin_id]
    if node.get("mode", 0) == MUTED:
        return None
    if node["type"] == "PrimitiveNode":
        return (node.get("widgets_values") or [None])[0]
    if node["type"] == "Reroute" or node.get("mode", 0) == BYPASSED:
        passed = _passed_through(node, origin_slot, kind)
        return None if passed is None else _source(links[passed], nodes, links, object_info)
    return [str(origin_id), origin_slot]


def _passed_through(node: Json, output: int, kind: str) -> int | None:
    """The link that a node hands on: of the input at the same place if its type fits, else of the first that fits."""
    sockets = node.get("inputs") or []
    if node["type"] == "Reroute":
        return sockets[0].get("link") if sockets else None
    candidates = [*sockets[output : output + 1], *sockets]
    chosen = next((socket for socket in candidates if socket["type"] in (kind, "*")), None)
    return None if chosen is None else chosen.get("link")
