/** The list of layers on Compose Controls: on and off, solo, strength and order of each, with a picture of its hint after a run. */

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { chain } from "./chain.js"
import { carrySolo, layersOf, linksOf, move, remember, setEnabled, setSolo, setStrength, slotsOf, soloEditable } from "./layer_rows.js"
import { heightOf, LayersPanel } from "./layers_panel.js"
import { remount } from "./remount.js"
import { addSheet } from "./sheet.js"
import { words } from "./words.js"

const TYPE = "ControlComposerCompose"
const MARGIN = 10
/** What shows the list of each node anew. */
const panels = new Map()
let spoken = {}

function addPanel(node) {
  const panel = new LayersPanel({
    enable: (row, value) => after(() => setEnabled(row, value)),
    strength: (row, value) => after(() => setStrength(row, value)),
    solo: (row) => {
      const others = panel.rows.filter((each) => each.solo && each !== row).map((each) => each.number)
      after(() => setSolo(node, row.solo ? others : [...others, row.number]))
    },
    all: () => after(() => setSolo(node, [])),
    move: (from, to) => after(() => move(node, from, to)),
    show: (row) => showNode(row.source.node),
  })
  let links = null

  const refresh = () => {
    if (!node.graph) return
    links = linksOf(node)
    remount(node, panel.element, "control-composer-layers")
    panel.show(layersOf(node), soloEditable(node), spoken)
    node.setDirtyCanvas?.(true, true)
  }
  const after = (change) => {
    change()
    refreshAll()
  }

  // Zooming goes on over the list; in the newer nodes the page sees to it.
  panel.element.addEventListener("wheel", (event) => {
    if (LiteGraph.vueNodesMode) return
    event.preventDefault()
    app.canvas.processMouseWheel(event)
  })

  const widget = node.addDOMWidget("layer_list", "CONTROL_COMPOSER_LAYERS", panel.element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => heightOf(slotsOf(node).length) + 2 * MARGIN,
    margin: MARGIN,
  })
  widget.serialize = false

  chain(node, "onConnectionsChange", () => {
    const loading = app.configuringGraph
    // In the next frame, because the host closes gaps between growing inputs there.
    requestAnimationFrame(() => {
      if (links && !loading && node.graph) carrySolo(node, links)
      refresh()
    })
  })
  chain(node, "onConfigure", (saved) => fit(node, saved))
  chain(node, "onExecuted", refresh)
  chain(node, "onAdded", () => panels.set(node, refresh))
  chain(node, "onRemoved", () => panels.delete(node))
  if (node.graph) panels.set(node, refresh)
  requestAnimationFrame(refresh)
}

/** The saved height, or what the list needs. The host adds inputs while it opens a graph and takes them away again, but keeps the height for them. */
function fit(node, saved) {
  if (LiteGraph.vueNodesMode || !node.graph || !saved?.size) return
  node.size[1] = saved.size[1]
  node._setConcreteSlots?.()
  node.arrange?.()
}

function showNode(node) {
  if (app.canvas.graph !== node.graph) app.canvas.setGraph(node.graph)
  app.canvas.selectNode(node)
  app.canvas.animateToBounds?.(node.boundingRect)
}

function refreshAll() {
  for (const refresh of panels.values()) refresh()
}

app.registerExtension({
  name: "controlComposer.layers",
  async setup() {
    addSheet("layers.css")
    // Whenever the page has noted a change of the graph, whoever made it: titles, widgets, undo.
    api.addEventListener("graphChanged", refreshAll)
    spoken = await words()
    refreshAll()
  },
  nodeCreated(node) {
    if (node.comfyClass === TYPE) addPanel(node)
  },
  async afterConfigureGraph() {
    requestAnimationFrame(refreshAll)
    await remember([...panels.keys()])
    refreshAll()
  },
  onNodeOutputsUpdated: refreshAll,
})
