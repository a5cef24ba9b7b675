"""The host's own templates that use controls open beside this pack as they open without it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from control_composer.tests.server.page.browsing import Page

PACKAGE = "comfyui_workflow_templates_json"
ASKED = re.compile(r"/(object_info|extensions|node_replacements)(\?.*)?$")


def templates() -> dict[str, dict[str, Any]]:
    """Those that have a node with ControlNet in its name, in subgraphs too."""
    package = pytest.importorskip(PACKAGE)
    found = {}
    for path in sorted(Path(package.__path__[0]).rglob("*.json")):
        text = path.read_text(encoding="utf-8")
        if "controlnet" not in text.lower():
            continue
        workflow = json.loads(text)
        if isinstance(workflow, dict) and any("controlnet" in kind.lower() for kind in kinds(workflow)):
            found[path.stem] = workflow
    return found


def kinds(workflow: dict[str, Any]) -> list[str]:
    subgraphs = (workflow.get("definitions") or {}).get("subgraphs") or []
    return [node["type"] for graph in (workflow, *subgraphs) for node in graph.get("nodes", ())]


def without_ours(name: str, answer: Any) -> Any:
    """What the server would say without this pack."""
    if name == "object_info":
        return {kind: node for kind, node in answer.items() if not kind.startswith("ControlComposer")}
    if name == "extensions":
        return [path for path in answer if "control-composer" not in path]
    ours = {old for old, new in answer.items() if new[0]["new_node_id"].startswith("ControlComposer")}
    return {old: new for old, new in answer.items() if old not in ours}


def without_this_pack(context: Any) -> None:
    """The page of a host that has not this pack."""

    def answer(route: Any) -> None:
        response = route.fetch()
        name = ASKED.search(route.request.url)[1]  # type: ignore[index]
        route.fulfill(response=response, json=without_ours(name, response.json()))

    context.route(ASKED, answer)


def loaded(page: Page, workflow: dict[str, Any]) -> dict[str, Any]:
    """What the page makes of a workflow: each node with its widgets, sockets and links."""
    page.load(workflow)
    saved = page.workflow()
    graphs = [saved, *(saved.get("definitions") or {}).get("subgraphs", ())]
    kept = ("id", "type", "mode", "widgets_values")

    def told(node: dict[str, Any]) -> dict[str, Any]:
        slots = {
            side: [(slot["name"], slot["type"], slot.get("link"), slot.get("links")) for slot in node.get(side) or ()]
            for side in ("inputs", "outputs")
        }
        return {name: node.get(name) for name in kept} | slots

    return {
        "nodes": [
            sorted((told(node) for node in graph["nodes"]), key=lambda node: str(node["id"])) for graph in graphs
        ],
        "links": [graph["links"] for graph in graphs],
        "missing": sorted(page.missing()),
    }


def test_every_template_with_controls_opens_as_without_this_pack(open_page: Callable[..., Any]) -> None:
    found = templates()
    assert len(found) >= 6
    with open_page() as page, open_page(before=without_this_pack, ready="KSampler") as plain:
        assert (
            plain.js(
                "() => Object.keys(LiteGraph.registered_node_types).filter(name => name.startsWith('ControlComposer'))"
            )
            == []
        )
        for name, workflow in found.items():
            with_ours = loaded(page, workflow)
            assert with_ours == loaded(plain, workflow), name
            assert not any(node["type"].startswith("ControlComposer") for graph in with_ours["nodes"] for node in graph)
            assert sorted(node["type"] for node in with_ours["nodes"][0]) == sorted(
                node["type"] for node in workflow["nodes"]
            ), name
        assert page.errors == []
