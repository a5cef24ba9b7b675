/** Presets in the page: what the chosen one says below its layer, files of presets out and in. */

import { app } from "../../scripts/app.js"
import { ask } from "./ask.js"
import { chain } from "./chain.js"
import { placesOf } from "./graph.js"
import { words } from "./words.js"

const LAYERS = ["ControlComposerApply", "ControlComposerLayer", "ControlComposerUnionLayer"]
const PRESET = "ControlComposerLayerPreset"
const INPUT = "own_preset"
const WAIT = 300
const LARGEST = 1_000_000
const LINES = 86
const SIZE = [420, 440]
const GAP = 60
const BOX = "font: 11px sans-serif; line-height: 1.3; color: var(--input-text); overflow: auto; white-space: pre-wrap;"
const BUTTON =
  "flex: 1; padding: 3px 8px; font: 12px sans-serif; cursor: pointer; color: var(--input-text); " +
  "background: var(--comfy-input-bg); border: 1px solid var(--border-color); border-radius: 4px;"

let text = {}
let shipped

const isLayer = (node) => LAYERS.includes(node?.comfyClass)
const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)

/** @returns {Promise<Record<string, {words: string}>>} the presets of the pack by their names; asked for once. */
function shippedPresets() {
  shipped ??= ask("presets", {}).then(
    (answer) => answer.presets,
    (problem) => {
      shipped = undefined
      throw problem
    },
  )
  return shipped
}

function made(tag, style, given = {}) {
  const element = Object.assign(document.createElement(tag), given)
  element.style.cssText = style
  return element
}

/** A part of the node that neither its file nor the prompt holds. */
function addPart(node, name, element, height) {
  const options = { serialize: false, getMinHeight: height, getMaxHeight: height, margin: 6, hideOnZoom: false }
  const widget = node.addDOMWidget(name, "control-composer", element, options)
  widget.serialize = false
  return widget
}

/** Below a layer: the numbers and the source of the preset that is chosen on it. */
function addLines(node) {
  const combo = widgetOf(node, "preset")
  if (!combo) return
  const lines = made("div", BOX, { className: "control-composer-preset-lines", tabIndex: -1 })
  lines.setAttribute("role", "status")
  addPart(node, "preset_lines", lines, () => (lines.textContent ? LINES : 0))
  const show = async () => {
    const found = combo.value === "none" ? null : (await shippedPresets().catch(() => ({})))[combo.value]
    const said = found ? `${combo.label ?? combo.name}: ${found.words.split("\n").slice(1).join("\n")}` : ""
    if (said === lines.textContent) return
    const tight = node.size[1] <= node.computeSize()[1] + 1
    lines.textContent = said
    lines.title = found?.words ?? ""
    lines.tabIndex = said ? 0 : -1
    lines.style.minHeight = said ? `${LINES - 12}px` : "0"
    if (!LiteGraph.vueNodesMode) {
      const least = node.computeSize()[1]
      node.setSize([node.size[0], tight ? least : Math.max(least, node.size[1])])
    }
    node.setDirtyCanvas?.(true, true)
  }
  chain(combo, "callback", show)
  chain(node, "onConfigure", () => queueMicrotask(show))
}

/** Below Layer Preset: what its text says, or what is wrong with it, and the way to and from files. */
function addPanel(node) {
  const typed = widgetOf(node, "preset")
  if (!typed) return
  const panel = made("div", "display: flex; flex-direction: column; gap: 4px;", { className: "control-composer-preset" })
  const lines = made("div", `${BOX} flex: 0 1 auto; min-height: 60px;`, { className: "control-composer-preset-lines", tabIndex: 0 })
  lines.setAttribute("role", "status")
  const row = made("div", "display: flex; gap: 4px;")
  const importing = made("button", BUTTON, { type: "button", onclick: () => importInto(node) })
  const exporting = made("button", BUTTON, { type: "button", onclick: () => exportText(typed.value) })
  row.append(importing, exporting)
  panel.append(lines, row)
  addPart(node, "preset_panel", panel, () => 110)
  node.setSize([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])])
  words().then((found) => {
    importing.textContent = found.presetImportShort
    exporting.textContent = found.presetExportShort
  })
  let timer
  let asked = 0
  const show = () => {
    clearTimeout(timer)
    timer = setTimeout(async () => {
      const mine = ++asked
      const { said, wrong } = await ask("read_preset", { text: String(typed.value) }).then(
        (found) => ({ said: found.words, wrong: false }),
        (problem) => ({ said: problem.message, wrong: true }),
      )
      if (mine !== asked) return
      lines.textContent = said
      lines.style.color = wrong ? "var(--error-text)" : "var(--input-text)"
      lines.setAttribute("aria-invalid", String(wrong))
    }, WAIT)
  }
  chain(typed, "callback", show)
  chain(node, "onConfigure", show)
  show()
}

function tell(problem) {
  app.extensionManager.toast.add({ severity: "error", summary: text.presetRefused, detail: problem.message, life: 15000 })
}

function save({ file, text: content }) {
  const link = made("a", "", { href: URL.createObjectURL(new Blob([content], { type: "application/json" })), download: file })
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10000)
}

async function exportText(content) {
  try {
    save(await ask("read_preset", { text: String(content) }))
  } catch (problem) {
    tell(problem)
  }
}

/** The layer's own settings, what is connected to it and its presets, as one preset in a file. */
async function exportLayer(node) {
  try {
    const prompt = (await app.graphToPrompt()).output
    const ids = placesOf(node).map(({ path }) => [...path, node].map((each) => each.id).join(":"))
    const id = ids.find((each) => each in prompt) ?? String(node.id)
    save(await ask("layer_preset", { prompt, node: id, name: node.title }))
  } catch (problem) {
    tell(problem)
  }
}

/** @returns {Promise<string | null>} the content of a file that the person chooses; null for none. */
function chosenFile() {
  return new Promise((resolve) => {
    const input = made("input", "", { type: "file", accept: ".json,application/json" })
    input.oncancel = () => resolve(null)
    input.onchange = () => resolve(input.files[0]?.slice(0, LARGEST).text() ?? null)
    input.click()
  })
}

/** A file's preset into a Layer Preset: the node itself, or the one that is connected to the layer, or a new one beside it. */
async function importInto(node) {
  try {
    const content = await chosenFile()
    if (content === null) return
    const found = await ask("read_preset", { text: content })
    app.canvas.emitBeforeChange()
    try {
      const target = isLayer(node) ? presetOf(node) : node
      const typed = widgetOf(target, "preset")
      typed.value = found.text
      typed.callback?.(found.text)
      target.setDirtyCanvas?.(true, true)
    } finally {
      app.canvas.emitAfterChange()
    }
  } catch (problem) {
    tell(problem)
  }
}

function presetOf(layer) {
  const slot = layer.inputs.findIndex((input) => input.name === INPUT)
  const linked = layer.getInputNode(slot)
  if (linked?.comfyClass === PRESET) return linked
  const node = LiteGraph.createNode(PRESET)
  layer.graph.add(node)
  const left = layer.pos[0] - node.size[0] - GAP
  const beside = layer.graph.nodes.filter(
    (each) => each !== node && each.pos[0] < left + node.size[0] && each.pos[0] + each.size[0] > left,
  )
  let top = layer.pos[1]
  const taken = () => beside.find((each) => each.pos[1] < top + node.size[1] + GAP && each.pos[1] + each.size[1] + GAP > top)
  for (let found = taken(); found; found = taken()) top = found.pos[1] + found.size[1] + GAP
  node.pos = [left, top]
  node.connect(0, layer, slot)
  return node
}

/** For a command, which acts on what is selected. */
function onSelected(act) {
  const layers = Object.values(app.canvas.selected_nodes ?? {}).filter(isLayer)
  if (layers.length === 1) return act(layers[0])
  tell(new Error(text.presetSelect))
}

app.registerExtension({
  name: "controlComposer.preset",
  commands: [
    {
      id: "ControlComposer.ExportPreset",
      label: "Control Composer: export the layer's settings as a preset",
      icon: "pi pi-upload",
      function: () => onSelected(exportLayer),
    },
    {
      id: "ControlComposer.ImportPreset",
      label: "Control Composer: import a preset for the layer",
      icon: "pi pi-download",
      function: () => onSelected(importInto),
    },
  ],
  async setup() {
    text = await words()
  },
  nodeCreated(node) {
    if (isLayer(node)) addLines(node)
    if (node.comfyClass === PRESET) addPanel(node)
  },
  getNodeMenuItems(node) {
    if (!isLayer(node)) return []
    return [
      { content: text.presetExport, callback: () => exportLayer(node) },
      { content: text.presetImport, callback: () => importInto(node) },
    ]
  },
})
