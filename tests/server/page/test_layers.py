"""The list of layers on Compose Controls, in a browser, on the demo world."""

import io
import json
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from control_composer.tests.server.page.browsing import TRACKER

EXAMPLE = Path(__file__).resolve().parents[3] / "example_workflows" / "demo_composed.json"
COMPOSE, EDGES, COLOURS, SAVED = 17, 13, 16, 24
PANEL = ".control-composer-layers"


class Panel:
    """The list of layers of the example's Compose Controls."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def load(self, workflow: dict[str, Any] | None = None) -> None:
        self.page.load(workflow or json.loads(EXAMPLE.read_text(encoding="utf-8")))
        self.look()
        # The page measures its nodes after it has opened a graph, and takes new heights for a change.
        steps = -1
        while steps != self.page.steps():
            steps = self.page.steps()
            self.page.still(f"{PANEL}-row")
            self.page.js(f"() => {TRACKER}.captureCanvasState()")

    def look(self) -> None:
        """Brings the node into view, with both layers in its list."""
        row = self.page.page.locator(f"{PANEL}-row").nth(1)
        for _ in range(10):  # the page may be about to move its view itself
            self.page.js(
                "id => { const node = app.graph.getNodeById(id); app.canvas.ds.scale = 1;"
                " app.canvas.ds.offset = [-node.pos[0] + 300, -node.pos[1] + 200]; app.canvas.setDirty(true, true) }",
                COMPOSE,
            )
            row.wait_for(state="attached")
            self.page.still(f"{PANEL}-row")
            if row.is_visible():
                return
        row.wait_for(timeout=1000)

    def part(self, row: int, name: str) -> Any:
        return self.page.page.locator(f"{PANEL}-row").nth(row).locator(f"{PANEL}-{name}").first

    def titles(self) -> list[str]:
        found: list[str] = self.page.page.locator(f"{PANEL}-title").all_inner_texts()
        return found

    def widget(self, node: int, name: str) -> Any:
        return self.page.js(
            "([id, name]) => app.graph.getNodeById(id).widgets.find(one => one.name === name).value", [node, name]
        )

    def inputs(self) -> dict[str, Any]:
        """What Compose Controls would be queued with."""
        found: dict[str, Any] = self.page.prompt()[str(COMPOSE)]["inputs"]
        return found

    def lists(self, *titles: str) -> None:
        """Waits until these layers are listed, in this order."""
        self.page.comes_to(self.titles, list(titles))

    def pictures(self) -> list[str]:
        """Waits for a picture in each of the two rows: their addresses."""
        self.page.until(
            "name => [...document.querySelectorAll(name)].filter(one => one.naturalWidth > 0).length === 2",
            f"{PANEL}-picture",
        )
        return [self.part(row, "picture").get_attribute("src") for row in (0, 1)]

    def picture(self, entry: dict[str, Any]) -> np.ndarray:
        (saved, *_) = entry["outputs"][str(SAVED)]["images"]
        return np.asarray(Image.open(io.BytesIO(self.page.server.get("/view?" + urllib.parse.urlencode(saved)))))


@pytest.fixture(scope="module", params=["canvas", "nodes"])
def opened(request: pytest.FixtureRequest, open_page: Any) -> Any:
    with open_page(renderer=request.param) as page:
        yield page


@pytest.fixture
def panel(opened: Any) -> Any:
    found = Panel(opened)
    found.load()
    yield found
    assert opened.errors == []


def test_every_connected_layer_is_listed(panel: Panel) -> None:
    assert panel.titles() == ["Layer: edges", "Layer: colours"]
    assert [panel.part(row, "number").inner_text() for row in (0, 1)] == ["1", "2"]
    assert panel.page.page.locator(f"{PANEL}-count").inner_text() == "2 of 2 act"
    assert panel.part(1, "detail").locator("[role=img]").get_attribute("title") == "with a schedule"
    assert panel.page.page.get_by_role("list", name="Layers").get_by_role("listitem").count() == 2
    # The list is no value of the node: neither a saved file nor a prompt knows it.
    assert panel.page.js("id => app.graph.getNodeById(id).serialize().widgets_values", COMPOSE) == [1, "sum", True, ""]
    assert set(panel.inputs()) == {
        *("positive", "negative", "layers.layer0", "layers.layer1", "strength", "overlap", "inspect", "solo")
    }


def test_off_writes_the_layers_own_widget_and_is_one_step_of_undo(panel: Panel) -> None:
    eye = panel.part(0, "eye")
    assert (eye.get_attribute("aria-pressed"), eye.get_attribute("aria-label")) == ("true", "Layer: edges: on")
    steps = panel.page.steps()
    eye.click()
    assert eye.get_attribute("aria-pressed") == "false"
    assert panel.widget(EDGES, "enabled") is False
    assert panel.page.prompt()[str(EDGES)]["inputs"]["enabled"] is False
    assert panel.part(0, "why").inner_text() == "off"
    assert panel.part(0, "acts").inner_text() == "acts 0"
    assert panel.page.page.locator(f"{PANEL}-live").inner_text() == "Layer: edges is off"
    assert panel.page.steps() == steps + 1
    panel.page.undo()
    assert panel.widget(EDGES, "enabled") is True
    panel.page.comes_to(lambda: panel.part(0, "eye").get_attribute("aria-pressed"), "true")


def test_strength_writes_the_layers_own_widget_and_shows_what_acts(panel: Panel) -> None:
    steps = panel.page.steps()
    strength = panel.part(1, "strength")
    strength.fill("0.5")
    strength.press("Enter")
    assert panel.widget(COLOURS, "strength") == 0.5
    assert panel.part(1, "acts").inner_text() == "acts 0.5"
    assert panel.page.steps() == steps + 1
    # A change made elsewhere shows as soon as the page has noted it.
    panel.page.js(
        "id => { app.canvas.emitBeforeChange();"
        " app.graph.getNodeById(id).widgets.find(one => one.name === 'strength').value = 0.5; app.canvas.emitAfterChange() }",
        COMPOSE,
    )
    assert panel.part(1, "acts").inner_text() == "acts 0.25"
    strength.fill("0")
    strength.press("Enter")
    assert panel.part(1, "why").inner_text() == "strength 0"


def test_a_layer_that_is_dragged_takes_its_link_and_its_solo_along(panel: Panel) -> None:
    page = panel.page.page
    before = panel.inputs()
    panel.part(1, "solo").click()
    assert panel.inputs()["solo"] == "2"
    assert panel.part(0, "why").inner_text() == "not soloed"
    steps = panel.page.steps()
    panel.page.still(f"{PANEL}-row")
    grip, target = panel.part(1, "grip").bounding_box(), panel.part(0, "thumbnail").bounding_box()
    page.mouse.move(grip["x"] + 5, grip["y"] + 10)
    page.mouse.down()
    page.mouse.move(grip["x"] + 5, target["y"] + 10, steps=4)
    page.mouse.up()
    panel.lists("Layer: colours", "Layer: edges")
    after = panel.inputs()
    assert after["layers.layer0"] == before["layers.layer1"] and after["layers.layer1"] == before["layers.layer0"]
    assert after["solo"] == "1"
    assert panel.page.steps() == steps + 1
    panel.page.undo()
    panel.lists("Layer: edges", "Layer: colours")
    assert panel.inputs()["solo"] == "2"
    assert panel.inputs()["layers.layer0"] == before["layers.layer0"]


def test_the_keyboard_moves_a_layer_and_stays_with_it(panel: Panel) -> None:
    page = panel.page.page
    panel.part(0, "grip").focus()
    page.keyboard.press("ArrowDown")
    assert panel.titles() == ["Layer: colours", "Layer: edges"]
    assert page.locator(f"{PANEL}-live").inner_text() == "Layer: edges is now layer 2 of 2"
    focused = "() => document.activeElement.getAttribute('aria-label')"
    assert panel.page.js(focused) == "Move Layer: edges: drag, or arrow keys"
    panel.part(1, "strength").focus()
    page.keyboard.press("Alt+ArrowUp")
    assert panel.titles() == ["Layer: edges", "Layer: colours"]
    assert panel.page.js(focused) == "Strength of Layer: edges"
    panel.part(1, "up").focus()
    page.keyboard.press("Enter")
    assert panel.titles() == ["Layer: colours", "Layer: edges"]
    # The button cannot move it further, so the focus goes to the grip of the same row.
    assert panel.page.js(focused) == "Move Layer: colours: drag, or arrow keys"


def test_what_was_set_is_saved_and_opened_again(panel: Panel) -> None:
    panel.part(0, "down").click()
    panel.part(0, "eye").click()
    panel.part(1, "solo").click()
    size = panel.page.js("id => [...app.graph.getNodeById(id).size]", COMPOSE)
    saved = panel.page.workflow()
    panel.load(saved)
    assert panel.titles() == ["Layer: colours", "Layer: edges"]
    assert panel.part(0, "eye").get_attribute("aria-pressed") == "false"
    assert panel.part(1, "solo").get_attribute("aria-pressed") == "true"
    assert panel.inputs()["solo"] == "2"
    assert panel.page.js("id => [...app.graph.getNodeById(id).size]", COMPOSE) == pytest.approx(size, abs=2)


def test_a_layer_inside_of_a_subgraph_is_listed_and_set(panel: Panel) -> None:
    panel.page.js(
        "id => { const { node } = app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)])); window.subgraphNode = node }",
        EDGES,
    )
    # The host loses the link while it closes the gap between the growing inputs.
    panel.lists("Layer: colours")
    panel.page.js(
        "id => { const to = app.graph.getNodeById(id); subgraphNode.connect(0, to, to.inputs.findIndex(one => one.name === 'layers.layer1')) }",
        COMPOSE,
    )
    panel.lists("Layer: colours", "Layer: edges")
    panel.part(1, "eye").click()
    assert (
        panel.page.js("() => subgraphNode.subgraph.nodes[0].widgets.find(one => one.name === 'enabled').value") is False
    )
    layers = [node for node in panel.page.prompt().values() if node["class_type"] == "ControlComposerLayer"]
    assert sorted(node["inputs"]["enabled"] for node in layers) == [False, True]


def test_a_layer_behind_a_reroute_is_listed_and_one_that_is_bypassed_says_so(panel: Panel) -> None:
    panel.page.js(
        "([compose, edges]) => { const reroute = LiteGraph.createNode('Reroute'); app.graph.add(reroute);"
        " app.graph.getNodeById(edges).connect(0, reroute, 0); reroute.connect(0, app.graph.getNodeById(compose), 2) }",
        [COMPOSE, EDGES],
    )
    panel.lists("Layer: edges", "Layer: colours")
    panel.page.js(
        "id => { app.canvas.emitBeforeChange(); app.graph.getNodeById(id).mode = 4; app.canvas.emitAfterChange() }",
        COLOURS,
    )
    panel.page.comes_to(lambda: panel.part(1, "why").inner_text(), "node muted or bypassed")


def test_a_pasted_node_has_a_list_of_its_own(panel: Panel) -> None:
    panel.page.js(
        "id => { app.canvas.selectNode(app.graph.getNodeById(id)); app.canvas.copyToClipboard(); app.canvas.pasteFromClipboard();"
        " const [x, y] = app.graph.getNodeById(id).pos; app.graph.nodes.at(-1).setPos(x + 400, y) }",
        COMPOSE,
    )
    panel.page.page.locator(f"{PANEL}-empty:visible").wait_for()
    assert panel.page.page.locator(PANEL).count() == 2
    assert panel.titles() == ["Layer: edges", "Layer: colours"]


def test_a_layer_that_is_disconnected_leaves_the_list_and_solo(panel: Panel) -> None:
    panel.part(1, "solo").click()
    panel.page.js("id => app.graph.getNodeById(id).disconnectInput(2)", COMPOSE)
    panel.lists("Layer: colours")
    panel.page.comes_to(lambda: panel.inputs()["solo"], "1")


def test_a_soloed_run_gives_the_picture_of_the_other_layer_off_and_shows_the_hints(panel: Panel) -> None:
    # Another strength in each renderer: the host tells nothing anew of a node whose result it has already.
    panel.page.js(
        "() => { const set = (id, name, value) => { app.graph.getNodeById(id).widgets.find(one => one.name === name).value = value };"
        " for (const side of ['width', 'height']) set(6, side, 64);"
        " set(6, 'batch_size', 1); set(18, 'steps', 2); set(17, 'strength', LiteGraph.vueNodesMode ? 1.1 : 1.2) }"
    )
    panel.part(0, "solo").click()
    soloed = panel.picture(panel.page.queue())
    assert all("type=temp" in source for source in panel.pictures())
    panel.part(0, "solo").click()
    panel.part(1, "eye").click()
    assert panel.inputs()["solo"] == ""
    assert np.array_equal(panel.picture(panel.page.queue()), soloed)
    panel.part(1, "eye").click()
    assert not np.array_equal(panel.picture(panel.page.queue()), soloed)
    panel.part(1, "up").evaluate("button => button.click()")  # wherever the run has left the view
    panel.lists("Layer: colours", "Layer: edges")
    shown = panel.pictures()
    assert len(set(shown)) == 2
    first = panel.page.server.get(shown[0].removeprefix("/api"))
    assert np.asarray(Image.open(io.BytesIO(first)).convert("RGB")).std(-1).max() > 5  # colours; edges are grey
    # Opened again, the list has the pictures of that run.
    panel.load(panel.page.workflow())
    assert len(set(panel.pictures())) == 2
