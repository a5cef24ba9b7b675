"""No node's title is cut off when it is placed."""

from typing import Any

CUT = """() => {
  const context = document.createElement("canvas").getContext("2d");
  const nodes = Object.keys(LiteGraph.registered_node_types).filter(type => type.startsWith("ControlComposer")).map(type => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    return node;
  });
  return new Promise(done => setTimeout(() => done([nodes.length, nodes.filter(node => {
    context.font = node.titleFontStyle;
    return context.measureText(node.title).width > node.size[0] - 2 * LiteGraph.NODE_TITLE_HEIGHT;
  }).map(node => node.title)]), 1500));
}"""


def test_titles_are_read_in_full_on_the_canvas(open_page: Any) -> None:
    with open_page(renderer="canvas") as page:
        count, cut = page.js(CUT)
        assert count > 100
        assert cut == []
        page.js("() => app.graph.clear()")
        assert page.errors == []
