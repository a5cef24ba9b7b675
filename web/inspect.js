/** What a run left in the nodes that look at it: the report as a table, and pictures that a click shows large. */

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { chain } from "./chain.js"
import { addPanel, addStyle, brief, make, table } from "./panel.js"
import { fill, words } from "./words.js"

const REPORT = "ControlComposerReport"
const PICTURES = ["ControlComposerHeatmap", "ControlComposerHintOverlay", "ControlComposerFidelity", "ControlComposerTrain"]
const WIDTH = 480
const CORNER = 45 // of the host's own buttons on the picture, on the canvas
const STILL = 4
const shown = new Map()

app.registerExtension({
  name: "controlComposer.inspect",
  nodeCreated(node) {
    const fillIn = node.comfyClass === REPORT ? reportIn(node) : PICTURES.includes(node.comfyClass) ? largeIn(node) : null
    if (!fillIn) return
    chain(node, "onExecuted", fillIn)
    chain(node, "onRemoved", () => shown.delete(node))
    shown.set(node, fillIn)
  },
  /** Outputs come back with a workflow that is opened again from its tab. */
  onNodeOutputsUpdated(outputs) {
    for (const [node, fillIn] of shown) {
      const graph = node.graph
      if (!graph) continue
      const output = outputs[graph === app.rootGraph ? node.id : `${graph.id}:${node.id}`]
      if (output) fillIn(output)
    }
  },
  setup() {
    document.addEventListener("pointerdown", remember, true)
    document.addEventListener("click", clicked, true)
  },
})

// -- The report --------------------------------------------------------------------------------------------------------------------------------

function reportIn(node) {
  const { element, inner } = addPanel(node, "control_composer_report")
  element.hidden = true
  node.setSize([Math.max(node.size[0], WIDTH), node.size[1]])
  return async (output) => {
    if (!output?.control_report) return
    const say = await words()
    const text = (output.text ?? []).join("")
    const copy = make("button", { type: "button" }, say.inspectCopy)
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text).catch(() => copyOld(text))
      copy.textContent = say.inspectCopied
      setTimeout(() => (copy.textContent = say.inspectCopy), 1500)
    })
    const whole = make("pre", { class: "control-composer-panel-scroll control-composer-panel-text", tabindex: 0 }, text)
    inner.replaceChildren(
      ...output.control_report.flatMap((one) => [make("p", {}, one.head), layersOf(one, say)]),
      make("details", {}, make("summary", {}, say.inspectText), whole),
      make("p", {}, copy),
    )
    element.hidden = false
  }
}

function layersOf({ layers, steps }, say) {
  const never = layers.some(({ why }) => why)
  const adds = layers.some(({ adds }) => adds)
  const head = [say.inspectLayer, say.inspectRan, say.inspectStrength, ...(adds ? [say.inspectAdds] : []), say.inspectTime, ...(never ? [say.inspectWhy] : [])]
  const rows = layers.map((layer) => {
    const count = layer.gains.filter((gain) => gain != null).length
    return [
      breaking(layer.name.replace(/\.safetensors$/, "")),
      !count ? say.inspectNever : count === steps ? fill(say.inspectAll, { count }) : `${layer.ran} / ${steps}`,
      bars(layer.gains),
      ...(adds ? [layer.adds] : []),
      layer.time,
      ...(never ? [layer.why] : []),
    ]
  })
  return make("div", { class: "control-composer-panel-scroll control-composer-panel-layers", tabindex: 0 }, table(head, rows, false))
}

/** Names of files may break behind their underscores. */
function breaking(name) {
  return make("span", {}, ...name.split(/(?<=_)/).flatMap((part) => [part, make("wbr")]))
}

/** The strength of each step, small, with the numbers as text. */
function bars(gains) {
  const known = gains.filter((gain) => gain != null)
  if (!known.length) return ""
  const equal = known.every((gain) => Math.abs(gain - known[0]) < 5e-4)
  const range = equal ? brief(known[0], 3) : `${brief(known[0], 3)} → ${brief(known.at(-1), 3)}`
  const high = Math.max(1e-9, ...known.map(Math.abs))
  const [width, height] = [Math.max(40, Math.min(120, 4 * gains.length)), 14]
  const each = width / gains.length
  const drawn = gains.map((gain, number) =>
    gain == null
      ? make("rect", { x: number * each, y: height - 1, width: Math.max(each - 1, 0.5), height: 1, fill: "currentColor", opacity: 0.3 })
      : make("rect", {
          x: number * each,
          y: height - Math.max(1, (height * Math.abs(gain)) / high),
          width: Math.max(each - 1, 0.5),
          height: Math.max(1, (height * Math.abs(gain)) / high),
          fill: "#3b9eff",
        }),
  )
  const told = gains.map((gain, number) => `${number + 1}: ${brief(gain)}`).join(", ")
  const graph = make("svg", { role: "img", "aria-label": told, width, height }, make("title", {}, told), ...drawn)
  return make("div", { class: "control-composer-panel-bars" }, graph, make("span", {}, range))
}

/** For pages without a secure address, where the clipboard is closed to scripts. */
function copyOld(text) {
  const field = make("textarea", { style: "position: fixed; opacity: 0" })
  field.value = text
  document.body.append(field)
  field.select()
  document.execCommand("copy")
  field.remove()
}

// -- Pictures ----------------------------------------------------------------------------------------------------------------------------------

const pictures = new WeakMap()

function largeIn(node) {
  const { element, inner } = addPanel(node, "control_composer_large", 0)
  element.hidden = true
  return async (output) => {
    if (!output?.images?.length) return
    const say = await words()
    pictures.set(node, output.images.map(addressOf))
    const button = make("button", { type: "button", "aria-haspopup": "dialog" }, `⤢ ${say.inspectLarge}`)
    button.addEventListener("click", () => open(node, node.imageIndex ?? 0))
    inner.replaceChildren(button)
    inner.classList.add("control-composer-panel-bare")
    element.hidden = false
    node.setDirtyCanvas?.(true, true)
  }
}

const addressOf = ({ filename, subfolder = "", type = "temp" }) => api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`)

async function open(node, number) {
  addStyle()
  const say = await words()
  const all = pictures.get(node)
  const image = make("img", { alt: node.title })
  const told = make("p", { role: "status" })
  const close = make("button", { type: "button", autofocus: "" }, say.inspectClose)
  const dialog = make("dialog", { class: "control-composer-panel control-composer-panel-large", "aria-label": node.title }, image, told, close)
  let current = 0
  const turn = (to) => {
    current = (to + all.length) % all.length
    image.src = all[current]
    told.textContent = all.length > 1 ? fill(say.inspectPicture, { number: current + 1, count: all.length }) : ""
  }
  turn(number)
  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation() // Else the graph behind hears the keys.
    if (event.key === "ArrowRight") turn(current + 1)
    if (event.key === "ArrowLeft") turn(current - 1)
  })
  dialog.addEventListener("click", () => dialog.close())
  dialog.addEventListener("close", () => dialog.remove())
  document.body.append(dialog)
  dialog.showModal()
}

let pressed = null

function remember({ clientX, clientY }) {
  pressed = [clientX, clientY]
}

/** A click on the one picture that a node shows. In a sheet of several the host's own click chooses one first. */
function clicked(event) {
  if (!pressed || Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > STILL) return
  const node = event.target === app.canvas?.canvas ? onCanvas() : onElement(event.target)
  if (node && pictures.has(node)) open(node, node.imageIndex ?? 0)
}

function onElement(target) {
  if (!target.closest?.(".image-preview") || target.closest("button")) return null
  const preview = target.closest(".image-preview")
  const image = preview.querySelector('img[data-testid="main-image"]')
  const id = target.closest("[data-node-id]")?.dataset.nodeId
  const node = image && id != null ? app.canvas.graph.getNodeById(id) : null
  if (node && pictures.has(node)) {
    const name = new URL(image.src).searchParams.get("filename")
    const number = pictures.get(node).findIndex((address) => new URL(address, location.href).searchParams.get("filename") === name)
    node.imageIndex = Math.max(number, 0)
  }
  return node
}

function onCanvas() {
  const [x, y] = app.canvas.graph_mouse
  const node = app.canvas.graph.getNodeOnPos(x, y)
  if (!node || !pictures.has(node) || node.imageIndex == null || node.flags?.collapsed) return null
  const part = node.widgets?.find(({ name }) => name === "$$canvas-image-preview")
  if (!part) return null
  const [across, down] = [x - node.pos[0], y - node.pos[1] - part.y]
  if (down < 0 || down > part.computedHeight) return null
  const corner = across > node.size[0] - CORNER && (down < CORNER || down > part.computedHeight - CORNER)
  return corner && node.imgs?.length > 1 ? null : node
}
