"""A broken input: our sentence reaches the page, and the node is marked, in both renderers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RENDERERS = ["canvas", "nodes"]
EXAMPLES = Path(__file__).resolve().parents[3] / "example_workflows"
MADE = """
() => {
  const first = (type) => app.graph.nodes.find((node) => node.type === type)
  Object.assign(window, { apply: first("ControlComposerApply"), prompt_node: first("ControlComposerDemoPrompt"), file: first("ControlComposerLoad") })
  window.put = (type, output, values) => {
    const node = LiteGraph.createNode(type)
    node.pos = [apply.pos[0] - 420, apply.pos[1] + 420]
    app.graph.add(node)
    for (const [name, value] of Object.entries(values)) node.widgets.find((widget) => widget.name === name).value = value
    node.connect(0, apply, apply.inputs.findIndex(({ name }) => name === output))
    return node
  }
  // What the page draws a node's border by: what it may not queue, and what failed in a run.
  const bad = (node) => node.has_errors || String(app.lastExecutionError?.node_id) === String(node.id)
  window.marked = () => app.graph.nodes.filter(bad).map((node) => node.type)
  window.marked_id = () => String(app.graph.nodes.find(bad).id)
  window.shows = (words) => words.every((word) => document.body.textContent.includes(word))
  window.more = () => document.querySelector("[data-testid='error-overlay-see-errors']")
}
"""


@pytest.fixture(scope="module", params=RENDERERS)
def page(open_page: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    with open_page(renderer=request.param) as opened:
        opened.renderer = request.param
        yield opened


def broken(page: Any, change: str) -> None:
    """The smallest example with something wrong in it, queued."""
    workflow = json.loads((EXAMPLES / "demo_one_control.json").read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        if node["type"] == "KSampler":
            node["widgets_values"][2] = 1
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"] = [64, 64, 1]
    page.load(workflow)
    page.js(MADE)
    page.js(change)
    page.js("async () => { await app.queuePrompt(0, 1) }")


CASES = {
    "a wrong count of weights": (
        "() => { put('ControlComposerBlockWeights', 'weights', { values: '1, 2, 3' }) }",
        "ControlComposerApply",
        ["Block Weights has 3 numbers, but this control has 13 blocks"],
    ),
    "an unknown word": (
        "() => { prompt_node.widgets[0].value = 'a zebra' }",
        "ControlComposerDemoPrompt",
        ["Demo Prompt: the prompt 'a zebra' has 'zebra', but the demo world only knows"],
    ),
    "a typo in keyframes": (
        "() => { put('ControlComposerStrengthKeyframes', 'schedule', { keyframes: '1@0, 0@1 eese' }) }",
        "ControlComposerStrengthKeyframes",
        ['has the easing "eese" in place 2'],
    ),
    "a missing file": (
        "() => { file.widgets[0].value = 'gone.safetensors' }",
        "ControlComposerLoad",
        ["gone.safetensors"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_our_sentence_is_on_the_page_and_the_node_is_marked(page: Any, case: str) -> None:
    change, node, words = CASES[case]
    broken(page, change)
    page.until("() => marked().length", seconds=120)
    assert page.js("() => marked()") == [node]
    # The overlay is short; its button opens the panel with all of it, which then stays open.
    page.until("words => more() || shows(words)", words)
    page.js("() => more()?.click()")
    page.until("words => shows(words)", words, 30)
    if page.renderer == "nodes":
        identifier = page.js("() => marked_id()")
        page.until(
            "id => document.querySelector(`[data-node-id='${id}'] .ring-destructive-background`) !== null",
            identifier,
        )
