/** Block Weights: bars under its text `values`, which stays the one place where the weights are kept. */

import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { ask } from "./ask.js"
import { BlockBars } from "./block_bars.js"
import { chain } from "./chain.js"
import { placesOf, sourceOf, targetsOf, valueOf } from "./graph.js"
import { remount } from "./remount.js"
import { addSheet } from "./sheet.js"
import { words } from "./words.js"

const NODE = "ControlComposerBlockWeights"
const TYPE = "BLOCK_WEIGHTS"
const FILE = "control_net_name"
const KIND = "control_composer_blocks"
const HOLDER = "control-composer-weights-holder"
const HEIGHT = 232
const SOON = 80
const SHORTLY = 20_000
const MOMENT = 2000
const editors = new Set()
let left = null

class Editor {
  constructor(node, values, holder, word) {
    Object.assign(this, { node, values, holder, word, asked: 0, question: "", answer: null })
    this.bars = new BlockBars(word, {
      draw: (weights) => this.set(`[${weights.join(", ")}]`),
      done: () => keep(),
      write: (text) => {
        this.set(text)
        keep()
      },
      choose: (kind) => {
        node.properties[KIND] = kind
        keep()
        this.look()
      },
    })
  }

  set(text) {
    // An answer on its way is about other values by now.
    this.asked++
    this.question = ""
    this.values.value = text // which calls its callback
    this.node.graph?.setDirtyCanvas(true, true)
    this.soon()
  }

  soon() {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.look(), SOON)
  }

  /** Asks the server if the question is another one than before. */
  async look() {
    if (!this.node.graph) return
    const { question, locked } = this.ask()
    const text = JSON.stringify([question, locked])
    if (text === this.question) return
    this.question = text
    const number = ++this.asked
    try {
      const answer = await ask("weights", question)
      if (number === this.asked) this.show(answer, locked)
    } catch (problem) {
      this.question = ""
      if (number === this.asked) this.bars.status.textContent = problem.message
    }
  }

  show(answer, locked) {
    this.answer = answer
    remount(this.node, this.holder, HOLDER)
    this.bars.show(answer, locked)
    if (left?.node === this.node.id) this.regain()
  }

  /** After an undo the page has made the node anew: the focus goes on where it was. */
  regain() {
    if (!left || Date.now() - left.time > SHORTLY || document.activeElement !== document.body) return
    if (!this.bars.element.checkVisibility()) return void requestAnimationFrame(() => this.regain())
    this.bars.focus(left.at)
    left = null
  }

  /** What page/weights.py wants to know. */
  ask() {
    const places = placesOf(this.node)
    const rows = places.map((place) => rowOf(place))
    const controls = rows.map((row) => row.control).filter(Boolean)
    const row = rows.find((each) => each.control) ?? rows[0]
    const place = row?.place ?? { node: this.node, path: [] }
    const own = valueOf(place, this.values.name)
    const question = {
      chain: [...(row?.before ?? []), { type: NODE, values: { values: own.value } }, ...(row?.after ?? [])],
      own: row?.before.length ?? 0,
      control: controls[0] ?? null,
      others: [...new Set(controls.concat(row?.others ?? []).slice(1))].filter((name) => name !== controls[0]),
      blocks: this.node.properties[KIND] ?? null,
    }
    return { question, locked: own.own ? "" : this.word.blockWeightsLinked }
  }
}

/** The weights nodes before and after one in its row, and the files of the controls that they weigh. */
function rowOf(place) {
  const before = []
  for (let at = sourceOf(place, inputOf(place.node)); at && before.length < 50; at = sourceOf(at, inputOf(at.node))) before.unshift(stepOf(at))
  const after = []
  const files = []
  let here = { ...place, slot: 0 }
  while (here && after.length < 50) {
    const targets = targetsOf(here, here.slot)
    for (const target of targets) files.push(...fileOf(target))
    here = targets.map((target) => ({ ...target, slot: outputOf(target.node) })).find((target) => target.slot >= 0)
    if (here) after.push(stepOf(here))
  }
  return { place, before, after, control: files[0], others: files }
}

function stepOf(place) {
  const names = (place.node.widgets ?? []).filter((widget) => widget.serialize !== false).map((widget) => widget.name)
  return { type: place.node.comfyClass ?? place.node.type, values: Object.fromEntries(names.map((name) => [name, valueOf(place, name).value])) }
}

function inputOf(node) {
  return (node.inputs ?? []).findIndex((input) => input.type === TYPE)
}

function outputOf(node) {
  return (node.outputs ?? []).findIndex((output) => output.type === TYPE)
}

/** The control file behind the input control_net of what takes the weights: through any node that passes a control on. */
function fileOf(place, steps = 0) {
  const slot = (place.node.inputs ?? []).findIndex((input) => input.type === "CONTROL_NET")
  const found = slot < 0 || steps > 50 ? null : sourceOf(place, slot)
  if (!found) return []
  if (!found.node.widgets?.some((widget) => widget.name === FILE)) return fileOf(found, steps + 1)
  const { value } = valueOf(found, FILE)
  return typeof value === "string" ? [value] : []
}

/** Makes one step of undo of what was changed. */
function keep() {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker
  ;(tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker)
}

/** What goes to the canvas anyway where nodes are elements of the page. */
function passOn(element) {
  element.addEventListener("wheel", (event) => {
    if (event.defaultPrevented || event.target.closest(".control-composer-weights-status")) return
    event.preventDefault()
    event.stopPropagation()
    app.canvas.processMouseWheel(event)
  })
  for (const [name, handler] of [["pointerdown", "processMouseDown"], ["pointermove", "processMouseMove"], ["pointerup", "processMouseUp"]]) {
    element.addEventListener(name, (event) => {
      if (event.button === 1 || event.buttons & 4) app.canvas[handler](event)
    })
  }
}

async function equip(node) {
  const values = node.widgets?.find((widget) => widget.name === "values")
  if (!values) return
  const holder = document.createElement("div")
  holder.className = HOLDER
  const widget = node.addDOMWidget("bars", "control_composer_bars", holder, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => HEIGHT,
  })
  widget.serialize = false
  // As large as the page makes it when it opens a file; a difference would be a step of undo.
  const [width, height] = node.computeSize()
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)])
  passOn(holder)
  const editor = new Editor(node, values, holder, await words())
  let out = 0
  holder.addEventListener("focusout", () => (out = Date.now()))
  holder.style.minHeight = `${HEIGHT - 2 * 10}px`
  holder.replaceChildren(editor.bars.element)
  chain(values, "callback", () => editor.soon())
  for (const name of ["onConfigure", "onConnectionsChange", "onAdded"]) chain(node, name, () => editor.soon())
  chain(node, "onRemoved", () => {
    // The page takes the element away a moment before.
    if (holder.contains(document.activeElement) || Date.now() - out < MOMENT) left = { node: node.id, at: editor.bars.at, time: Date.now() }
    editor.bars.remove()
    editors.delete(editor)
  })
  editors.add(editor)
  editor.look()
}

app.registerExtension({
  name: "controlComposer.blockWeights",
  setup() {
    addSheet("block_bars.css")
    api.addEventListener("graphChanged", () => editors.forEach((editor) => editor.soon()))
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) equip(node)
  },
})
