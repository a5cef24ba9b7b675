"""The bars of Block Weights, in a browser, on the demo world: in both renderers, one of them in Korean."""

import io
import json
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from control_composer.tests.server.page.browsing import TRACKER

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = json.loads((ROOT / "example_workflows" / "demo_block_weights.json").read_text(encoding="utf-8"))
WORLD, LOADER, WEIGHTS, APPLY, SAVED = 2, 9, 10, 11, 14
ROW = {WORLD, 3, 4, 5, 6, 7, LOADER, WEIGHTS, APPLY, 12, 13, SAVED}
EDITOR = ".control-composer-weights"


def one_row() -> dict[str, Any]:
    """The example's first row: a control at 1 in every block. Small, and of two steps."""
    links = [link for link in EXAMPLE["links"] if {link[1], link[3]} <= ROW]
    kept = {link[0] for link in links}
    found: dict[str, Any] = json.loads(json.dumps({**EXAMPLE, "links": links, "groups": []}))
    found["nodes"] = [node for node in found["nodes"] if node["id"] in ROW]
    for node in found["nodes"]:
        if node["type"] == "KSampler":
            node["widgets_values"][2] = 2
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"] = [64, 64, 1]
        for output in node.get("outputs", ()):
            output["links"] = [link for link in output["links"] or () if link in kept]
    return found


class Editor:
    """The bars of the one Block Weights node that the page shows."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.bars = page.page.locator(f"{EDITOR} [role=slider]")

    def load(self, workflow: dict[str, Any] | None = None, count: int | None = None) -> None:
        self.page.load(workflow or one_row())
        self.show()
        self.wait(count)

    def show(self) -> None:
        self.page.js(
            "kind => { const node = app.canvas.graph.nodes.find(one => one.comfyClass === kind); app.canvas.ds.scale = 1;"
            " app.canvas.ds.offset = [-node.pos[0] + 300, -node.pos[1] + 200]; app.canvas.setDirty(true, true) }",
            "ControlComposerBlockWeights",
        )

    def wait(self, count: int | None = None) -> None:
        """Until the page shows so many bars, and they stay where they are."""
        self.page.until(
            "([editor, count]) => { const found = document.querySelectorAll(`${editor} [role=slider]`).length;"
            " return count === null ? found > 0 : found === count }",
            [EDITOR, count],
        )
        self.page.still(f"{EDITOR} [role=slider]")

    def text(self) -> str:
        found: str = self.page.js(
            "kind => app.canvas.graph.nodes.find(one => one.comfyClass === kind).widgets.find(one => one.name === 'values').value",
            "ControlComposerBlockWeights",
        )
        return found

    def write(self, text: str) -> None:
        """As typed into the node's own field."""
        at = self.page.js(
            "text => [...document.querySelectorAll('textarea')].findIndex(one => one.value === text && one.checkVisibility())",
            self.text(),
        )
        self.page.page.locator("textarea").nth(at).fill(text)

    def shown(self) -> list[float]:
        found: list[float] = self.page.js(
            "editor => [...document.querySelectorAll(`${editor} [role=slider]`)].map(bar => Number(bar.getAttribute('aria-valuenow')))",
            EDITOR,
        )
        return found

    def until_shown(self, weights: list[float]) -> None:
        self.page.until(
            "([editor, weights]) => JSON.stringify([...document.querySelectorAll(`${editor} [role=slider]`)]"
            ".map(bar => Number(bar.getAttribute('aria-valuenow')))) === JSON.stringify(weights)",
            [EDITOR, weights],
        )
        self.page.until(f"() => !{TRACKER}._restoringState")  # or the next step of undo comes into this one

    def said(self) -> str:
        found: str = self.page.page.locator(f"{EDITOR}-status").inner_text()
        return found

    def knows_the_control(self) -> bool:
        return "control_composer_demo_edges" in self.page.page.locator(f"{EDITOR}-control").inner_text()

    def steps(self) -> int:
        found: int = self.page.js(f"() => {{ {TRACKER}.captureCanvasState(); return {TRACKER}.undoQueue.length }}")
        return found

    def key(self, *keys: str) -> None:
        for key in keys:
            self.page.page.keyboard.press(key)

    def draw(self, first: int, start: float, last: int, end: float) -> None:
        """One stroke of the mouse: from a share of the height on one bar to another on another bar."""
        mouse = self.page.page.mouse
        a, b = self.bars.nth(first).bounding_box(), self.bars.nth(last).bounding_box()
        mouse.move(a["x"] + a["width"] / 2, a["y"] + a["height"] / 2)
        mouse.down()
        mouse.move(a["x"] + a["width"] / 2, a["y"] + a["height"] * (1 - start), steps=3)
        if last != first:
            mouse.move(b["x"] + b["width"] / 2, b["y"] + b["height"] * (1 - end))
        mouse.up()


@pytest.fixture(scope="module", params=[("canvas", "en"), ("nodes", "ko")], ids=["canvas", "nodes in Korean"])
def opened(request: pytest.FixtureRequest, open_page: Any) -> Any:
    renderer, locale = request.param
    with open_page(renderer=renderer, locale=locale) as page:
        page.korean = locale == "ko"
        yield page


@pytest.fixture
def editor(opened: Any) -> Any:
    found = Editor(opened)
    found.load()
    yield found
    assert opened.errors == []


@pytest.fixture
def count(editor: Editor) -> int:
    """As many as the server says that the demo's control has."""
    question = {
        "chain": [{"type": "ControlComposerBlockWeights", "values": {"values": "1"}}],
        "control": "control_composer_demo_edges.safetensors",
    }
    answer = editor.page.server.post("/control_composer/weights", question)
    assert answer["kind"] == "file"
    editor.page.comes_to(editor.bars.count, len(answer["blocks"]))
    return len(answer["blocks"])


def test_a_stroke_over_several_bars_is_one_step_of_undo(editor: Editor, count: int) -> None:
    assert editor.text() == "1"
    editor.until_shown([1] * count)
    steps = editor.steps()
    editor.draw(0, 0.25, 4, 0.75)
    drawn = json.loads(editor.text())
    assert drawn == [0.5, 0.75, 1, 1.25, 1.5] + [1] * (count - 5)
    assert editor.shown() == drawn
    assert editor.steps() == steps + 1
    editor.key("Control+z")
    editor.until_shown([1] * count)
    assert editor.text() == "1"
    editor.key("Control+y")
    editor.until_shown(drawn)
    assert json.loads(editor.text()) == drawn


def test_a_click_alone_changes_nothing(editor: Editor) -> None:
    editor.bars.nth(2).click()
    assert editor.text() == "1"
    assert editor.page.js("() => document.activeElement.dataset.index") == "2"


def test_numbers_are_typed_over_a_bar(editor: Editor, count: int) -> None:
    steps = editor.steps()
    editor.bars.nth(1).dblclick()
    field = editor.page.page.locator(f"{EDITOR} input")
    field.fill("much")
    field.press("Enter")
    assert field.get_attribute("aria-invalid") == "true"
    field.fill("2,75")
    field.press("Enter")
    assert json.loads(editor.text()) == [1, 2.75] + [1] * (count - 2)
    assert editor.bars.nth(1).get_attribute("aria-valuemax") == "4"
    assert editor.steps() == steps + 1
    editor.key("Enter")
    field.press("5")
    field.press("Escape")
    assert json.loads(editor.text())[1] == 2.75
    assert editor.page.js("() => document.activeElement.dataset.index") == "1"


def test_keys_step_and_move_and_delete_nothing(editor: Editor, count: int) -> None:
    editor.bars.nth(0).focus()
    steps = editor.steps()
    editor.key("ArrowRight", "ArrowUp")
    assert json.loads(editor.text())[:3] == [1, 1.05, 1]
    editor.key("Shift+ArrowDown", "ArrowRight", "PageDown", "ArrowRight", "Home", "ArrowRight", "End", "ArrowLeft")
    assert json.loads(editor.text()) == [1, 1.04, 0.75, 0, 2] + [1] * (count - 5)
    assert editor.steps() == steps + 5
    editor.key("Delete", "Backspace")
    assert editor.page.js("id => Boolean(app.graph.getNodeById(id))", WEIGHTS)
    bars = [editor.bars.nth(at) for at in range(count)]
    assert [bar.get_attribute("tabindex") for bar in bars].count("0") == 1
    editor.key("Control+z")
    editor.until_shown([1, 1.04, 0.75, 0, 1] + [1] * (count - 5))
    editor.page.until("() => document.activeElement.dataset.index === '3'")  # the page has made the node anew


def test_a_screen_reader_is_told_block_resolution_and_weight(editor: Editor, count: int) -> None:
    last = editor.bars.nth(count - 1)
    resolution = editor.page.page.locator(f"{EDITOR}-label").all_inner_texts()
    assert editor.bars.first.get_attribute("aria-label") == (
        "output 0, 해상도 64" if editor.page.korean else "output 0, resolution 64"
    )
    assert last.get_attribute("aria-label").startswith("middle, ")
    assert resolution[0] == "64"
    assert resolution[-1] == ("중간" if editor.page.korean else "mid")
    assert (
        editor.page.page.get_by_role("group", name="블록 가중치" if editor.page.korean else "Block weights").count()
        == 1
    )
    assert {last.get_attribute(f"aria-{name}") for name in ("valuemin", "valuenow", "valuetext")} == {"0", "1"}
    assert last.get_attribute("aria-orientation") == "vertical"


def test_presets_are_the_servers(editor: Editor, count: int) -> None:
    steps = editor.steps()
    name = "부드럽게" if editor.page.korean else "Soft"
    editor.page.page.get_by_role("button", name=name, exact=True).click()
    soft = [round(0.825 ** (count - 1 - at), 3) for at in range(count)]
    assert json.loads(editor.text()) == soft
    editor.until_shown(soft)
    assert editor.steps() == steps + 1
    editor.page.page.locator(f"{EDITOR} [data-preset=inverted]").click()
    editor.until_shown([round(1 + soft[0] - weight, 3) for weight in soft])
    editor.page.page.locator(f"{EDITOR} [data-preset=reset]").click()
    editor.until_shown([1] * count)
    assert editor.text() == "1"


def test_what_is_typed_as_text_shows_and_what_cannot_be_read_is_kept(editor: Editor, count: int) -> None:
    editor.write('{"output 1": 0.25, "middle": 0}')
    editor.until_shown([1, 0.25] + [1] * (count - 3) + [0])
    editor.write("1, x")
    editor.page.until(
        "editor => document.querySelector(`${editor}-status`).innerText.includes('\"x\" in place 2')", EDITOR
    )
    editor.bars.nth(1).focus()
    editor.key("ArrowUp")
    editor.draw(0, 0.25, 2, 0.75)
    assert editor.text() == "1, x"
    assert editor.bars.first.get_attribute("aria-disabled") == "true"


def test_another_count_is_offered_to_be_fitted(editor: Editor, count: int) -> None:
    editor.write(json.dumps([1, 0.5, 0.25, 0]))
    editor.wait(4)
    assert f"this control has {count} blocks" in editor.said()
    assert editor.text() == json.dumps([1, 0.5, 0.25, 0])
    editor.page.page.locator(f"{EDITOR}-fit").click()
    editor.wait(count)
    fitted = json.loads(editor.text())
    assert (len(fitted), fitted[0], fitted[-1]) == (count, 1, 0)


def test_marks_show_the_product_of_the_row(editor: Editor, count: int) -> None:
    marks = editor.page.page.locator(f"{EDITOR}-mark:not([hidden])")
    assert marks.count() == 0
    editor.page.js(
        "id => { const soft = LiteGraph.createNode('ControlComposerSoftWeights'); soft.pos = [0, -400]; app.graph.add(soft);"
        f" soft.connect(0, app.graph.getNodeById(id), 0); {TRACKER}.captureCanvasState() }}",
        WEIGHTS,
    )
    marks.nth(count - 1).wait_for(state="attached")
    first = editor.bars.first.get_attribute("aria-valuetext")
    assert str(round(0.825 ** (count - 1), 3)) in first
    editor.draw(0, 1, 0, 1)
    editor.page.until(
        "([editor, text]) => document.querySelector(`${editor} [role=slider]`).getAttribute('aria-valuetext').includes(text)",
        [EDITOR, str(round(2 * 0.825 ** (count - 1), 3))],
    )


def test_without_a_control_a_kind_is_chosen_and_kept(editor: Editor, count: int) -> None:
    editor.page.js(
        f"id => {{ app.graph.getNodeById(id).disconnectInput('control_net'); {TRACKER}.captureCanvasState() }}", APPLY
    )
    editor.page.page.locator(f"{EDITOR}-kind").select_option("sdxl")
    editor.wait(10)
    editor.load(editor.page.workflow(), 10)
    assert editor.page.page.locator(f"{EDITOR}-kind").input_value() == "sdxl"


def test_saved_reloaded_and_copied_it_is_the_same(editor: Editor, count: int) -> None:
    editor.draw(0, 0.25, 4, 0.75)
    drawn = editor.text()
    saved = editor.page.workflow()
    assert next(node for node in saved["nodes"] if node["id"] == WEIGHTS)["widgets_values"] == [drawn]
    assert editor.page.prompt()[str(WEIGHTS)]["inputs"] == {"values": drawn}
    editor.load(saved)
    editor.until_shown(json.loads(drawn))
    editor.page.js(
        "id => { app.canvas.selectItems([app.graph.getNodeById(id)]); app.canvas.copyToClipboard(); app.canvas.pasteFromClipboard() }",
        WEIGHTS,
    )
    editor.page.until("editor => document.querySelectorAll(editor).length === 2", EDITOR)
    copies = "kind => app.graph.nodes.filter(one => one.comfyClass === kind).map(one => one.widgets[0].value)"
    assert editor.page.js(copies, "ControlComposerBlockWeights") == [drawn, drawn]


def test_inside_of_a_subgraph_the_control_outside_is_known(editor: Editor, count: int) -> None:
    editor.draw(0, 0.25, 0, 0.25)
    drawn = editor.text()
    editor.page.js(
        "id => { const { subgraph } = app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)])); app.canvas.setGraph(subgraph) }",
        WEIGHTS,
    )
    editor.page.until("() => app.canvas.graph !== app.rootGraph")
    editor.show()
    editor.wait(count)
    assert editor.text() == drawn
    editor.page.comes_to(editor.knows_the_control, True)
    editor.page.js("() => app.canvas.setGraph(app.rootGraph)")
    (inside,) = [node for node in editor.page.prompt().values() if node["class_type"] == "ControlComposerBlockWeights"]
    assert inside["inputs"] == {"values": drawn}


def test_a_bypassed_node_and_a_reroute_lie_on_the_way(editor: Editor, count: int) -> None:
    editor.page.js(
        "([loader, apply]) => { const reroute = LiteGraph.createNode('Reroute'); app.graph.add(reroute);"
        " const type = LiteGraph.createNode('SetUnionControlNetType'); app.graph.add(type); type.mode = 4;"
        " app.graph.getNodeById(loader).connect(0, type, 'control_net'); type.connect(0, reroute, 0);"
        f" reroute.connect(0, app.graph.getNodeById(apply), 'control_net'); {TRACKER}.captureCanvasState() }}",
        [LOADER, APPLY],
    )
    editor.write("0.5")
    editor.until_shown([0.5] * count)  # the answer to a question about the graph as it is now
    assert editor.knows_the_control()


# Once: what is queued does not depend on the renderer, and runs take their time.
@pytest.mark.parametrize("opened", [("canvas", "en")], indirect=True)
def test_the_drawn_weights_act_on_the_picture(editor: Editor, count: int) -> None:
    def picture() -> np.ndarray:
        entry = editor.page.queue()
        assert entry["prompt"][2][str(WEIGHTS)]["inputs"]["values"] == editor.text()
        (saved, *_) = entry["outputs"][str(SAVED)]["images"]
        return np.asarray(Image.open(io.BytesIO(editor.page.server.get("/view?" + urllib.parse.urlencode(saved)))))

    flat = picture()
    editor.draw(0, 0, count - 1, 0)
    assert json.loads(editor.text()) == [0] * count
    without = picture()
    assert not np.array_equal(flat, without)
