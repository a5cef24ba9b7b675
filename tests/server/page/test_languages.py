"""The page in Korean, Chinese and Japanese shows our nodes' words, letter by letter as their files have them."""

from collections.abc import Iterator
from typing import Any

import pytest

from control_composer.page.locales import CATEGORIES, read

ENTRIES = """() => Object.fromEntries(Object.entries(LiteGraph.registered_node_types)
  .filter(([id]) => id.startsWith('ControlComposer'))
  .map(([id, node]) => [id, [node.title, node.nodeData.description, node.category]]))"""
ADDED = """([ids]) => { app.graph.clear(); ids.forEach((id, place) => {
    const node = LiteGraph.createNode(id); node.pos = [420 * place, 0]; app.graph.add(node) }) }"""
NAMES = """() => app.graph.nodes.map(node => [node.type,
  Object.fromEntries(node.inputs.map(input => [input.name, input.localized_name])),
  Object.fromEntries((node.widgets ?? []).map(widget => [widget.name, widget.label])),
  node.outputs.map(output => output.localized_name)])"""
WIDGET = """name => { const node = app.graph.nodes[0]; const widget = node.widgets.find(widget => widget.name === name);
  const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + 60, node.pos[1] + widget.y + 10]);
  const area = app.canvas.canvas.getBoundingClientRect(); return [x + area.left, y + area.top] }"""
NODES = [
    "ControlComposerBlockWeights",
    "ControlComposerStrengthKeyframes",
    "ControlComposerPreprocess",
    "ControlComposerDrawPose",
]
LANGUAGES = {"ko": "nodes", "zh": "canvas", "ja": "canvas"}


@pytest.fixture(scope="module", params=LANGUAGES)
def opened(open_page: Any, request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    with open_page(renderer=LANGUAGES[request.param], locale=request.param) as page:
        yield page, request.param


@pytest.fixture(scope="module")
def words(opened: tuple[Any, str]) -> dict[Any, str]:
    return read(opened[1])


def test_the_menu_and_the_nodes_speak_the_language(opened: tuple[Any, str], words: dict[Any, str]) -> None:
    page, _ = opened
    english = read("en")
    menu = {words.get(key, part) for key, part in english.items() if key[0] == CATEGORIES}
    translated = 0
    for node, (title, description, category) in page.js(ENTRIES).items():
        for shown, name in ((title, "display_name"), (description, "description")):
            if (node, name) in words:
                assert shown == words[node, name], node
                translated += words[node, name] != english[node, name]
        assert set(category.split("/")) <= menu, node
    assert translated > 150


def test_inputs_and_outputs_have_names_in_the_language(opened: tuple[Any, str], words: dict[Any, str]) -> None:
    page, _ = opened
    page.js(ADDED, [NODES])
    found = page.steady(NAMES)
    for node, inputs, widgets, outputs in found:
        for name, shown in [*inputs.items(), *widgets.items()]:
            said = words.get((node, "inputs", name.replace(".", "_"), "name"))
            if said:  # what our scripts add has no name in the schema
                assert shown == said, (node, name)
        for place, shown in enumerate(outputs):
            assert shown == words[node, "outputs", str(place), "name"], node
    inputs = dict(found[2][1])
    # Those of a choice come with it.
    assert (
        inputs["preprocessor.low"] == words["ControlComposerPreprocess", "inputs", "preprocessor_low", "name"] != "low"
    )


TOOLTIPS = {
    # Widgets that are elements of the page have tooltips in the newer renderer only.
    "nodes": [
        ("ControlComposerLayerPreset", "preset", '{"soft": 0.825}'),
        ("ControlComposerStrengthKeyframes", "keyframes", "0.2@0"),
    ],
    "canvas": [("ControlComposerSavePose", "filename_prefix", "%width%")],
}


def test_a_tooltip_shows_braces_and_signs_as_they_are(opened: tuple[Any, str], words: dict[Any, str]) -> None:
    page, language = opened
    for node, name, holds in TOOLTIPS[LANGUAGES[language]]:
        page.js(ADDED, [[node]])
        page.centre()
        on_canvas = LANGUAGES[language] == "canvas"
        tooltip = page.page.locator(".node-tooltip" if on_canvas else ".p-tooltip-text")
        for _ in range(5):  # a page that is busy forgets where the mouse is
            page.page.mouse.move(5, 500)
            if on_canvas:
                page.page.mouse.move(*page.js(WIDGET, name), steps=3)
            else:
                page.page.locator("[data-testid=node-widget] textarea").first.hover()
            if page.appears(tooltip.first, 5):
                break
        said = words[node, "inputs", name, "tooltip"]
        assert holds in said
        assert tooltip.first.inner_text().strip() == said
    assert page.errors == []
