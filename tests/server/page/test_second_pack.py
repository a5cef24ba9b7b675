"""Beside another pack that uses the same hooks: all of its hooks are called, its node stays as it is, and nothing global is changed by us."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

OURS = "/extensions/control-composer/"
THEIRS = "/extensions/second-pack/second.js"
SCRIPT = """
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
const heard = (window.secondPack = { hooks: {}, executed: [], connections: 0, values: [] })
const count = (name) => (heard.hooks[name] = (heard.hooks[name] ?? 0) + 1)
app.registerExtension({
  name: "secondPack",
  init: () => count("init"),
  setup: () => count("setup"),
  addCustomNodeDefs(defs) {
    count("addCustomNodeDefs")
    defs.SecondPackNode = {
      name: "SecondPackNode", display_name: "Second Pack", category: "second", description: "", python_module: "custom_nodes.second-pack",
      input: { required: { amount: ["SECOND_NUMBER", {}], values: ["STRING", { default: "theirs", multiline: true }] },
        optional: { weights: ["BLOCK_WEIGHTS", {}] } },
      output: ["BLOCK_WEIGHTS"], output_name: ["weights"], output_is_list: [false], output_node: false }
  },
  getCustomWidgets() {
    count("getCustomWidgets")
    return { SECOND_NUMBER: (node, name) => ({ widget: node.addWidget("number", name, 7, () => {}, {}) }) }
  },
  beforeRegisterNodeDef(type, data) {
    count("beforeRegisterNodeDef")
    if (data.name !== "ControlComposerBlockWeights") return
    const made = type.prototype.onNodeCreated
    type.prototype.onNodeCreated = function (...given) { count("onNodeCreated"); return made?.apply(this, given) }
    const configured = type.prototype.onConfigure
    type.prototype.onConfigure = function (...given) { count("onConfigure"); return configured?.apply(this, given) }
  },
  nodeCreated(node) {
    count("nodeCreated")
    if (node.comfyClass === "SecondPackNode") {
      const element = document.createElement("div")
      element.className = "second-pack"
      element.textContent = "second"
      node.addDOMWidget("second", "second", element, { serialize: false })
    }
    if (!node.comfyClass?.startsWith("ControlComposer")) return
    const { onExecuted, onConnectionsChange } = node
    node.onExecuted = function (...given) { heard.executed.push(node.comfyClass); return onExecuted?.apply(this, given) }
    node.onConnectionsChange = function (...given) { heard.connections++; return onConnectionsChange?.apply(this, given) }
    const values = node.widgets?.find((widget) => widget.name === "values")
    if (values && node.comfyClass === "ControlComposerBlockWeights") {
      const before = values.callback
      values.callback = function (value, ...rest) { heard.values.push(value); return before?.call(this, value, ...rest) }
    }
  },
  afterConfigureGraph: () => count("afterConfigureGraph"),
})
"""
# Every function that all packs share, by its text: whoever wraps one changes it.
FINGERPRINT = """() => {
  const found = {}
  const put = (name, thing) => {
    for (let at = thing, depth = 0; at && at !== Object.prototype && at !== Function.prototype && depth < 6; at = Object.getPrototypeOf(at), depth++)
      for (const [key, own] of Object.entries(Object.getOwnPropertyDescriptors(at)))
        for (const part of ["value", "get", "set"])
          if (typeof own[part] === "function") found[`${name} ${depth} ${key} ${part}`] = String(own[part])
  }
  const { LiteGraph, LGraph, LGraphNode, LGraphCanvas, LGraphGroup, LLink } = window
  put("LiteGraph", LiteGraph)
  for (const type of [LGraph, LGraphNode, LGraphCanvas, LGraphGroup, LLink, LiteGraph.ContextMenu]) {
    put(`${type.name} class`, type)
    put(type.name, type.prototype)
  }
  put("app", app)
  put("api", window.comfyAPI.api.api)
  put("ComfyApp", app.constructor)
  put("widgets", app.widgets)
  put("canvas", app.canvas)
  put("graph", app.graph)
  for (const name of ["Array", "Object", "Element", "HTMLElement", "Node", "EventTarget", "Promise", "String", "JSON", "WebSocket"])
    put(`window ${name}`, window[name].prototype ?? window[name])
  for (const name of ["fetch", "addEventListener", "requestAnimationFrame", "setTimeout", "alert"]) found[name] = String(window[name])
  return found
}"""


def with_second_pack(ours: bool) -> Any:
    """The browser gets one script more than the server has, and ours or not."""

    def before(context: Any) -> None:
        def listed(route: Any) -> None:
            response = route.fetch()
            names = [name for name in response.json() if ours or not name.startswith(OURS)]
            route.fulfill(response=response, body=json.dumps([*names, THEIRS]))

        context.route("**/extensions", listed)
        context.route(f"**{THEIRS}", lambda route: route.fulfill(body=SCRIPT, content_type="text/javascript"))

    return before


@pytest.fixture(scope="module")
def pages(open_page: Any) -> Iterator[dict[bool, Any]]:
    """The page without our scripts, and with them."""
    with open_page(before=with_second_pack(False)) as without, open_page(before=with_second_pack(True)) as beside:
        yield {False: without, True: beside}


def settled(page: Any, ours: bool) -> None:
    """Until both packs show what they have to show, and nothing moves."""
    page.until(
        "ours => document.querySelector('.second-pack') && Boolean(document.querySelector('.control-composer-weights')) === ours",
        ours,
    )
    page.steady("() => app.graph.nodes.map(node => [...node.size])")


def look(page: Any, ours: bool) -> dict[str, Any]:
    """What the second pack saw, and its node, after work with a node of ours."""
    page.js(
        """() => {
          const heard = window.secondPack
          for (const name of Object.keys(heard.hooks)) heard.hooks[name] = 0
          heard.executed.length = heard.values.length = heard.connections = 0
          app.graph.clear()
          const make = (type, x) => { const node = LiteGraph.createNode(type); node.pos = [x, 100]; app.graph.add(node); return node }
          const theirs = make("SecondPackNode", 0)
          const weights = make("ControlComposerBlockWeights", 500)
          const apply = make("ControlComposerApply", 1000)
          theirs.connect(0, weights, 0)
          weights.connect(0, apply, "weights")
          weights.onExecuted?.({})
          apply.onExecuted?.({})
          const values = weights.widgets.find(widget => widget.name === "values")
          values.value = "0.5"
        }"""
    )
    settled(page, ours)
    page.js("async () => { await app.loadGraphData(app.graph.serialize()) }")
    settled(page, ours)
    found: dict[str, Any] = page.js(
        """() => {
          const node = app.graph.nodes.find(one => one.type === "SecondPackNode")
          const { hooks, executed, connections, values } = window.secondPack
          return { hooks, executed, connections: connections > 0, values,
            node: { size: [...node.size], widgets: node.widgets.map(({ name, type, value, hidden, serialize }) => [name, type, value, hidden, serialize]),
              inputs: node.inputs.map(({ name, type }) => [name, type]), saved: node.serialize().widgets_values,
              keys: Object.keys(node).sort(), properties: node.properties } }
        }"""
    )
    return found


@pytest.mark.parametrize("renderer", ["canvas", "nodes"])
def test_beside_a_second_pack(pages: dict[bool, Any], renderer: str) -> None:
    seen = {}
    for ours, page in pages.items():
        page.draw_with(renderer)
        assert page.js("() => app.extensions.some(one => one.name === 'controlComposer.blockWeights')") == ours
        seen[ours] = look(page, ours)
        assert page.page.locator(".second-pack").count() == 1
        assert page.errors == []
    # After work with our node. The page sets some functions of its own a while after its start.
    functions: dict[bool, dict[str, str]] = {}

    def changed() -> list[str]:
        functions.update({ours: page.js(FINGERPRINT) for ours, page in pages.items()})
        without, beside = functions[False], functions[True]
        return [name for name in without | beside if without.get(name) != beside.get(name)]

    pages[True].comes_to(changed, [])
    assert len(functions[True]) > 1000
    assert seen[True] == seen[False]
    hooks = seen[True]["hooks"]
    assert {"init", "setup", "addCustomNodeDefs", "getCustomWidgets", "nodeCreated", "afterConfigureGraph"} <= set(
        hooks
    )
    assert (hooks["onNodeCreated"], hooks["onConfigure"]) == (2, 1)
    assert seen[True]["executed"] == ["ControlComposerBlockWeights", "ControlComposerApply"]
    assert set(seen[True]["values"]) == {"0.5"}
    assert seen[True]["node"]["saved"][:2] == [7, "theirs"]
