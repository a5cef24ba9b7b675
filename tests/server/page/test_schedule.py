"""What schedule nodes show in the page before anything runs, in both renderers, and the host's curve editor with our node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

RENDERERS = ["canvas", "nodes"]

BUILD = """
() => {
  const add = (type, pos) => {
    const node = LiteGraph.createNode(type)
    node.pos = pos
    app.graph.add(node)
    return node
  }
  const join = (from, to, input) => from.connect(0, to, to.inputs.findIndex(({ name }) => name === input))
  const keyframes = add("ControlComposerStrengthKeyframes", [0, 0])
  const layer = add("ControlComposerLayer", [600, 500])
  const compose = add("ControlComposerCompose", [1000, 500])
  const sampler = add("KSampler", [1400, 500])
  const latent = add("EmptyLatentImage", [1000, 900])
  const strengths = add("ControlComposerImageStrengths", [500, 0])
  join(keyframes, layer, "schedule")
  join(layer, compose, "layers.layer0")
  join(compose, sampler, "positive")
  join(latent, sampler, "latent_image")
  latent.widgets.find(({ name }) => name === "batch_size").value = 3
  const set = (node, values) => {
    for (const [name, value] of Object.entries(values)) {
      const widget = node.widgets.find((one) => one.name === name)
      widget.value = value
      widget.callback?.(value)
    }
  }
  set(sampler, { steps: 4, scheduler: "normal" })
  set(keyframes, { keyframes: "1@0, 0@1", axis: "step" })
  Object.assign(window, { keyframes, layer, compose, sampler, strengths, add, join, set })
  window.panel = (node) => node.widgets.find(({ name }) => name === "control_composer_schedule").element
  window.told = (node) => panel(node).querySelector("svg")?.getAttribute("aria-label") ?? ""
  window.rows = (node) => [...panel(node).querySelectorAll("tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent))
  window.kept = () => app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
  kept()
}
"""


@pytest.fixture(scope="module", params=RENDERERS)
def page(open_page: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    with open_page(renderer=request.param) as opened:
        opened.renderer = request.param
        yield opened
        assert opened.errors == []


@pytest.fixture
def built(page: Any) -> Any:
    page.until("() => app.extensionManager.workflow.activeWorkflow")  # of which the page keeps what can be undone
    page.js("() => app.graph.clear()")
    page.js(BUILD)
    page.centre()
    page.until("() => rows(keyframes).length === 4 && told(keyframes)")
    return page


def test_the_values_at_the_sampler_s_steps_are_there_before_a_run(built: Any) -> None:
    page = built
    assert [row[2] for row in page.js("() => rows(keyframes)")] == ["1", "0.75", "0.5", "0.25"]
    assert page.js("() => told(keyframes)") == (
        "Strength over the sampling. Strength from 1 at the beginning to 0 at the end, lowest 0, highest 1. At the steps: 1, 0.75, 0.5, 0.25."
    )
    assert page.js("() => panel(keyframes).querySelector('svg').getAttribute('role')") == "img"
    assert page.js("() => panel(keyframes).textContent").count("(assumed)") == 1
    # One diamond for each keyframe, one dot for each step.
    assert page.js("() => panel(keyframes).querySelectorAll('svg rect').length") == 2
    assert page.js("() => panel(keyframes).querySelectorAll('svg circle').length") == 4
    page.js("() => { set(sampler, { steps: 3, scheduler: 'karras' }); kept() }")
    page.until("() => rows(keyframes).length === 3")
    page.js("() => set(keyframes, { axis: 'percent' })")
    page.until("() => rows(keyframes)[1] && Math.abs(rows(keyframes)[1][2] - 2 / 3) > 0.01")
    for _, percent, strength in page.js("() => rows(keyframes)"):
        assert float(strength) == pytest.approx(1 - float(percent.split()[0]) / 100, abs=1e-3)
    page.js("() => { layer.disconnectInput(layer.inputs.findIndex(({ name }) => name === 'schedule')); kept() }")
    page.until("() => panel(keyframes).textContent.includes('Feeds no sampler yet')")
    assert page.js("() => rows(keyframes)") == []


def test_an_error_is_told_while_typing_and_destroys_nothing(built: Any) -> None:
    page = built
    field = (
        page.page.locator("[data-node-id] textarea").first
        if page.renderer == "nodes"
        else page.page.locator("textarea.comfy-multiline-input").first
    )
    field.fill("1@0, 0@1 eese")
    page.until("() => panel(keyframes).querySelector('[role=status]').textContent")
    sentence = page.js("() => panel(keyframes).querySelector('[role=status]').textContent")
    assert sentence.startswith('keyframes of Strength Keyframes has the easing "eese" in place 2 (character 6)')
    assert page.js("() => [rows(keyframes).length, keyframes.widgets[0].value]") == [4, "1@0, 0@1 eese"]
    field.fill("1@0, 0@1 ease")
    page.until(
        "() => !panel(keyframes).querySelector('[role=status]').textContent && rows(keyframes)[1]?.[2] === '0.8438'"
    )
    field.blur()


def test_nodes_in_a_row_show_their_product_and_pictures_their_factors(built: Any) -> None:
    page = built
    page.js(
        """() => {
          const before = add("ControlComposerStrengthKeyframes", [0, 500])
          set(before, { keyframes: "0.5@0", axis: "step" })
          join(before, keyframes, "schedule")
          join(strengths, before, "schedule")
          set(strengths, { strengths: "1, 0.5", policy: "hold last" })
          kept()
        }"""
    )
    page.until("() => rows(keyframes)[0]?.length === 4 && rows(strengths).length === 3")
    assert [row[2:] for row in page.js("() => rows(keyframes)")] == [
        ["1", "0.5"],
        ["0.75", "0.375"],
        ["0.5", "0.25"],
        ["0.25", "0.125"],
    ]
    assert page.js("() => rows(strengths)") == [["0", "1"], ["1", "0.5"], ["2", "0.5"]]
    page.js("() => set(strengths, { strengths: '1, 0.5, 0.2, 0.1' })")
    page.until("() => panel(strengths).querySelector('[role=status]').textContent.includes('has 4 numbers')")


def test_nothing_of_it_is_saved_or_queued(built: Any) -> None:
    page = built
    saved = page.workflow()
    (node,) = [one for one in saved["nodes"] if one["type"] == "ControlComposerStrengthKeyframes"]
    assert node["widgets_values"] == ["1@0, 0@1", "step", "hold"]
    queued = next(one for one in page.prompt().values() if one["class_type"] == "ControlComposerStrengthKeyframes")
    assert sorted(queued["inputs"]) == ["axis", "between", "keyframes"]
    page.load(saved)
    page.js(
        "() => { window.keyframes = app.graph.nodes.find(({ type }) => type === 'ControlComposerStrengthKeyframes') }"
    )
    page.centre()
    page.until("() => rows(keyframes).length === 4")


def test_the_host_s_curve_editor_draws_undoes_and_reloads(built: Any) -> None:
    page = built
    page.js(
        """() => {
          for (const node of [keyframes, strengths]) app.graph.remove(node)
          window.curve = add("ControlComposerStrengthCurve", [0, 0])
          join(curve, layer, "schedule")
          set(curve, { axis: "step" })
          kept()
        }"""
    )
    page.centre()
    page.until("() => rows(curve).length === 4 && told(curve)")
    assert [row[2] for row in page.js("() => rows(curve)")] == ["1", "0.75", "0.5", "0.25"]
    if page.renderer == "canvas":
        return  # The host draws curves in its newer nodes only, and says so in place of the editor.
    page.still("[data-testid=curve-editor]")
    box = page.page.get_by_test_id("curve-editor").bounding_box()
    # In the middle of the editor's width, at a tenth of its height.
    page.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + (0.04 + 0.1) / 1.08 * box["height"])
    page.until("() => Number(rows(curve)[2]?.[2]) > 0.85")
    points = page.js("() => curve.widgets[0].value.points")
    assert len(points) == 3 and points[1] == pytest.approx([0.5, 0.9], abs=0.02)
    saved = page.workflow()
    page.js("() => document.activeElement?.blur()")
    page.page.keyboard.press("Control+z")
    page.js(
        "() => { window.again = () => app.graph.nodes.find(({ type }) => type === 'ControlComposerStrengthCurve') }"
    )
    page.until("() => again()?.widgets[0].value.points.length === 2 && rows(again())[2]?.[2] === '0.5'")
    page.load(saved)
    page.until("() => again()?.widgets[0].value.points.length === 3 && Number(rows(again())[2]?.[2]) > 0.85")
