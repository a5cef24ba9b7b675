"""Presets in the page: chosen on a layer, exported to a file, imported into another graph, and told when they cannot be read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from control_composer.residuals.layer_preset import Settings, parse_preset
from control_composer.residuals.weights import SoftWeights

RENDERERS = ["canvas", "nodes"]
EXAMPLE = Path(__file__).resolve().parents[3] / "example_workflows" / "demo_one_control.json"
WITHOUT = (11, 12, 13)
"""The example's other branch: pictures without a control."""

PREPARE = """
() => {
  window.first = (type) => app.graph.nodes.find((node) => node.type === type)
  window.widget = (node, name) => node.widgets.find((each) => each.name === name)
  window.choose = (node, name, value) => widget(node, name).setValue(value, { e: {}, node, canvas: app.canvas })
  window.lines = (node) => widget(node, "preset_lines").element.textContent
  window.panel = (node) => widget(node, "preset_panel").element
  window.menu = (node, begin) => app.canvas.getNodeMenuOptions(node).find((item) => item?.content?.startsWith(begin)).callback()
  window.kept = () => app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
}
"""
SCRIBBLE = "krita: scribble, SDXL"
SAID = "preset: strength 0.7, from 0 to 0.7, both branches\nsource: krita-ai-diffusion, presets/control.json"


@pytest.fixture(scope="module", params=RENDERERS)
def page(open_page: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    with open_page(renderer=request.param) as opened:
        opened.js(PREPARE)
        yield opened
        assert opened.errors == []


def example() -> dict[str, Any]:
    """The smallest example, of two steps and one picture, without the branch that has no control."""
    workflow: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        if node["type"] == "KSampler":
            node["widgets_values"][2] = 2
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"] = [64, 64, 1]
        if node["id"] in WITHOUT:
            node["mode"] = 2
    return workflow


def opened(page: Any) -> None:
    page.load(example())
    page.js("() => { window.layer = first('ControlComposerApply'); kept() }")


def pictures(page: Any) -> list[bytes]:
    """The pixels of what a run saved."""
    entry = page.queue()
    assert entry["status"]["status_str"] == "success"
    found = [
        file for output in entry["outputs"].values() for file in output.get("images", []) if file["type"] == "output"
    ]
    read = "async file => [...new Uint8Array(await (await fetch('/view?' + new URLSearchParams(file))).arrayBuffer())]"
    return [Image.open(io.BytesIO(bytes(page.js(read, file)))).tobytes() for file in found]


def exported(page: Any, code: str) -> tuple[str, str]:
    with page.page.expect_download() as download:
        page.js(code)
    return download.value.suggested_filename, Path(download.value.path()).read_text(encoding="utf-8")


def imported(page: Any, code: str, content: str) -> None:
    with page.page.expect_file_chooser() as chooser:
        page.js(code)
    chooser.value.set_files({"name": "preset.json", "mimeType": "application/json", "buffer": content.encode()})


def test_a_preset_is_chosen_on_the_layer_and_says_what_it_is(page: Any) -> None:
    opened(page)
    assert page.js("() => lines(layer)") == ""
    page.js("name => choose(layer, 'preset', name)", SCRIBBLE)
    page.until("said => lines(layer).startsWith(said)", SAID)
    prompt = page.prompt()
    (asked,) = (entry["inputs"] for entry in prompt.values() if entry["class_type"] == "ControlComposerApply")
    assert asked["preset"] == SCRIBBLE and "preset_lines" not in asked and "own_preset" not in asked
    (saved,) = (node for node in page.workflow()["nodes"] if node["type"] == "ControlComposerApply")
    assert saved["widgets_values"] == [1, 0, 1, 1, SCRIBBLE]
    page.load(page.workflow())
    page.until("said => lines(first('ControlComposerApply')).startsWith(said)", SAID)
    assert page.prompt() == prompt
    page.js("() => choose(first('ControlComposerApply'), 'preset', 'none')")
    page.until("() => lines(first('ControlComposerApply')) === ''")


def test_an_exported_preset_draws_the_same_picture_in_another_graph(page: Any) -> None:
    opened(page)
    page.js("name => choose(layer, 'preset', name)", SCRIBBLE)
    page.js(
        """() => {
          choose(layer, "strength", 0.8)
          const weights = LiteGraph.createNode("ControlComposerSoftWeights")
          app.graph.add(weights)
          weights.connect(0, layer, layer.inputs.findIndex(({ name }) => name === "weights"))
          layer.title = "Edges, soft"
        }"""
    )
    drawn = pictures(page)
    assert len(drawn) == 2
    name, text = exported(page, "() => menu(layer, 'Export settings')")
    found = parse_preset(text)
    assert (name, found.name, found.condition) == ("Edges_soft.json", "Edges, soft", "scribble")
    assert found.settings == Settings(0.8 * 0.7, 0.0, 0.7, weights=SoftWeights())
    opened(page)
    imported(page, "() => { menu(layer, 'Import a preset') }", text)
    page.until("() => first('ControlComposerLayerPreset')?.outputs[0].links?.length")
    page.until(
        "said => panel(first('ControlComposerLayerPreset')).textContent.startsWith(said)",
        "Edges, soft (for scribble, SDXL)",
    )
    assert pictures(page) == drawn
    (made,) = (
        entry["inputs"] for entry in page.prompt().values() if entry["class_type"] == "ControlComposerLayerPreset"
    )
    assert made == {"preset": text}
    assert exported(page, "() => panel(first('ControlComposerLayerPreset')).querySelectorAll('button')[1].click()") == (
        name,
        text,
    )
    imported(page, "() => { menu(first('ControlComposerApply'), 'Import a preset') }", text.replace("0.7", "0.6"))
    page.until("() => widget(first('ControlComposerLayerPreset'), 'preset').value.includes('0.6')")
    assert page.js("() => app.graph.nodes.filter((node) => node.type === 'ControlComposerLayerPreset').length") == 1


def test_an_import_is_one_step_to_undo(page: Any) -> None:
    opened(page)
    before = page.prompt()
    imported(
        page, "() => { menu(layer, 'Import a preset') }", '{"control_composer_preset": 1, "name": "n", "strength": 0.4}'
    )
    page.until("() => first('ControlComposerLayerPreset')?.outputs[0].links?.length")
    page.js("() => document.activeElement?.blur()")
    page.page.keyboard.press("Control+z")
    page.until("() => !first('ControlComposerLayerPreset')")
    assert page.prompt() == before


def test_a_text_that_is_no_preset_is_told_while_typing_at_import_and_before_a_run(page: Any) -> None:
    opened(page)
    wrong = '{"control_composer_preset": 1, "name": "n", "strenght": 0.4}'
    sentence = 'The preset has "strenght", but only control_composer_preset, name, '
    imported(page, "() => { menu(layer, 'Import a preset') }", wrong)
    page.until("said => document.body.textContent.includes(said)", sentence)
    assert page.js("() => !first('ControlComposerLayerPreset')")
    page.js(
        """wrong => {
          const node = LiteGraph.createNode("ControlComposerLayerPreset")
          app.graph.add(node)
          node.connect(0, layer, layer.inputs.findIndex(({ name }) => name === "own_preset"))
          const typed = widget(node, "preset")
          typed.value = wrong
          typed.callback?.(wrong)
        }""",
        wrong,
    )
    page.until("said => panel(first('ControlComposerLayerPreset')).textContent.startsWith(said)", sentence)
    assert page.js("() => panel(first('ControlComposerLayerPreset')).firstChild.getAttribute('aria-invalid')") == "true"
    page.js("async () => { await app.queuePrompt(0, 1) }")
    told = page.js("() => Object.values(app.lastNodeErrors).flatMap((node) => node.errors.map((each) => each.details))")
    assert any(sentence in detail for detail in told)


def test_the_keyboard_reaches_the_buttons_and_the_commands(page: Any) -> None:
    opened(page)
    page.js(
        "() => { const node = LiteGraph.createNode('ControlComposerLayerPreset'); app.graph.add(node); node.pos = [...layer.pos] }"
    )
    page.centre()
    page.until(
        "() => panel(first('ControlComposerLayerPreset')).querySelectorAll('button')[1]?.textContent === 'Export JSON'"
    )
    page.js("() => panel(first('ControlComposerLayerPreset')).querySelectorAll('button')[0].focus()")
    page.page.keyboard.press("Tab")
    with page.page.expect_download() as download:
        page.page.keyboard.press("Enter")
    assert download.value.suggested_filename == "loose_scribble.json"
    page.js("() => app.canvas.selectItems([layer])")
    name, text = exported(page, "() => app.extensionManager.command.execute('ControlComposer.ExportPreset')")
    assert name == "Apply_Control.json" and parse_preset(text).settings == Settings()
