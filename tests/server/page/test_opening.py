"""The page opens with our scripts, in both renderers, nobody complains, and no node's title is cut off when it is placed."""

from typing import Any

import pytest

CUT = """async () => {
  const context = document.createElement("canvas").getContext("2d");
  return app.graph.nodes.filter(node => {
    context.font = node.titleFontStyle;
    return context.measureText(node.title).width > node.size[0] - 2 * LiteGraph.NODE_TITLE_HEIGHT;
  }).map(node => node.title);
}"""
PLACED = """() => {
  for (const type of Object.keys(LiteGraph.registered_node_types)) {
    if (type.startsWith("ControlComposer")) app.graph.add(LiteGraph.createNode(type));
  }
  return app.graph.nodes.length;
}"""


@pytest.mark.parametrize("renderer", ["nodes", "canvas"])
def test_the_page_opens_without_a_complaint(open_page: Any, renderer: str) -> None:
    with open_page(renderer=renderer, fresh=renderer == "nodes") as page:
        assert page.js("() => app.extensionManager.setting.get('Comfy.VueNodes.Enabled')") == (renderer == "nodes")
        assert page.errors == []


def test_titles_are_read_in_full_on_the_canvas(open_page: Any) -> None:
    with open_page(renderer="canvas") as page:
        assert page.js(PLACED) > 100
        page.steady("() => app.graph.nodes.map(node => [...node.size])")
        assert page.js(CUT) == []
        assert page.errors == []
