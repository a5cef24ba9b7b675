"""Report, heatmap and overlay show what a run left in the node itself, large on click, in both renderers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RENDERERS = ["canvas", "nodes"]
EXAMPLES = Path(__file__).resolve().parents[3] / "example_workflows"
STEPS = 3
SEES = """
() => {
  const first = (type) => app.graph.nodes.find((node) => node.type === type)
  Object.assign(window, {
    report: first("ControlComposerReport"), heatmap: first("ControlComposerHeatmap"), overlay: first("ControlComposerHintOverlay"),
    sampler: first("KSampler"),
  })
  window.part = (node, name) => node.widgets.find((widget) => widget.name === name).element
  window.dialog = () => document.querySelector("dialog[open].control-composer-panel-large")
  window.progress = new Set()
  setInterval(() => sampler.progress != null && progress.add(sampler.progress), 5)
}
"""


def small() -> dict[str, Any]:
    """The example with layers, with few steps and one picture."""
    workflow: dict[str, Any] = json.loads((EXAMPLES / "demo_composed.json").read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        if node["type"] == "KSampler":
            node["widgets_values"][2] = STEPS
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"] = [64, 64, 1]
    return workflow


@pytest.fixture(scope="module", params=RENDERERS)
def page(open_page: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    with open_page(renderer=request.param) as opened:
        opened.renderer = request.param
        opened.load(small())
        opened.js(SEES)
        if request.param == "canvas":
            opened.js("() => { sampler.widgets.find(({ name }) => name === 'seed').value = 4242 }")
        opened.entry = opened.queue()
        yield opened
        assert opened.errors == []


def show(page: Any, name: str) -> None:
    """Brings a node into the middle, so that its parts are on the page."""
    page.js(
        f"() => {{ const node = {name}; app.canvas.ds.scale = 1; app.canvas.ds.offset = [-node.pos[0] + 300, -node.pos[1] + 200];"
        " app.canvas.setDirty(true, true) }"
    )


def test_every_node_ran_once(page: Any) -> None:
    assert page.entry["status"]["status_str"] == "success"
    assert {page.js(f"() => String({name}.id)") for name in ("report", "heatmap", "overlay")} <= set(
        page.entry["outputs"]
    )


def test_progress_is_seen_while_it_samples(page: Any) -> None:
    if page.renderer == "nodes":
        pytest.skip("the run of the second renderer is the first one's, which the server has kept")
    assert {round(value * STEPS) for value in page.js("() => [...progress]")} & {1, 2}


def test_the_report_is_a_table_with_the_whole_text_behind_it(page: Any) -> None:
    show(page, "report")
    page.until("() => part(report, 'control_composer_report').querySelectorAll('tbody tr').length === 2")
    rows = page.js(
        "() => [...part(report, 'control_composer_report').querySelectorAll('tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    assert [row[0] for row in rows] == ["1. control_composer_demo_edges", "2. control_composer_demo_colour"]
    assert rows[0][1] == f"all {STEPS}"
    assert float(rows[0][3].split()[0]) > 1 and rows[0][3].endswith(" %")
    numbers = page.js(
        "() => [...part(report, 'control_composer_report').querySelectorAll('tbody svg')].map((svg) => svg.getAttribute('aria-label'))"
    )
    # 1@0, 0@0.7 ease over three steps: at 0, 1/3 and 2/3 of the run.
    assert numbers == ["1: 1, 2: 1, 3: 1", "1: 1, 2: 0.5357, 3: 0.006587"]
    text = page.js("() => part(report, 'control_composer_report').querySelector('pre').textContent")
    assert "strength 1: ran at steps 1–3 of 3" in text and "Multipliers" in text
    page.js("() => part(report, 'control_composer_report').querySelector('button').click()")
    page.until("() => part(report, 'control_composer_report').querySelector('button').textContent === 'Copied'")
    assert len(page.workflow()["nodes"][0].get("widgets_values", [])) < 2
    saved = next(node for node in page.workflow()["nodes"] if node["type"] == "ControlComposerReport")
    assert not saved.get("widgets_values")


@pytest.mark.parametrize("name", ["heatmap", "overlay"])
def test_a_click_shows_the_picture_large(page: Any, name: str) -> None:
    show(page, name)
    if page.renderer == "nodes":
        picture = page.page.locator(f"[data-node-id='{page.js(f'() => {name}.id')}'] .image-preview [role=region]")
        picture.click(position={"x": 60, "y": 60})
    else:
        page.until(f"() => {name}.imgs?.length === 1 && {name}.imageIndex === 0")
        page.page.mouse.click(
            *page.steady(
                f"() => {{ const node = {name}; const part = node.widgets.find(({{ name }}) => name === '$$canvas-image-preview');"
                " const { scale, offset } = app.canvas.ds; const { left, top } = app.canvas.canvas.getBoundingClientRect();"
                " return [left + (node.pos[0] + node.size[0] / 2 + offset[0]) * scale,"
                " top + (node.pos[1] + part.y + part.computedHeight / 2 + offset[1]) * scale] }"
            )
        )
    page.until("() => dialog()?.querySelector('img').naturalWidth > 0")
    shown = page.js("() => dialog().querySelector('img').getBoundingClientRect().height")
    assert shown > 700
    page.page.keyboard.press("Escape")
    page.until("() => !dialog()")


def test_the_keyboard_opens_it_too(page: Any) -> None:
    show(page, "heatmap")
    page.until("() => part(heatmap, 'control_composer_large').querySelector('button')?.offsetParent")
    page.js("() => part(heatmap, 'control_composer_large').querySelector('button').focus()")
    page.page.keyboard.press("Enter")
    page.until("() => dialog() && dialog().contains(document.activeElement)")
    assert page.js("() => dialog().getAttribute('aria-label')") == page.js("() => heatmap.title")
    page.page.keyboard.press("Enter")
    page.until("() => !dialog()")
