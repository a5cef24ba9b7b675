/** A part of a node that shows things: the same element in both renderers, as high as what is in it, nothing of it saved or queued. */

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { chain } from "./chain.js"
import { remount } from "./remount.js"

const MARGIN = 10
const STYLE = "control-composer-panel-style"

const CSS = `
.control-composer-panel { box-sizing: border-box; overflow: hidden; color: var(--input-text); font-size: 12px; line-height: 1.35; }
.control-composer-panel-inner { background: var(--comfy-input-bg); border-radius: 6px; padding: 6px 8px; }
.lg-node .control-composer-panel-inner, .lg-node .control-composer-panel thead th
  { background: var(--component-node-widget-background, var(--comfy-input-bg)); }
.control-composer-panel p { margin: 4px 0 0; overflow-wrap: anywhere; }
.control-composer-panel p:empty { display: none; }
.control-composer-panel svg { display: block; overflow: visible; }
.control-composer-panel summary { cursor: pointer; margin-top: 4px; width: max-content; }
.control-composer-panel summary:focus-visible, .control-composer-panel button:focus-visible, .control-composer-panel [tabindex]:focus-visible
  { outline: 2px solid currentColor; outline-offset: 1px; }
.control-composer-panel-scroll { max-height: 180px; overflow: auto; margin-top: 4px; }
.control-composer-panel table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.control-composer-panel th { font-weight: 600; text-align: start; }
.control-composer-panel th, .control-composer-panel td { padding: 1px 8px 1px 0; vertical-align: top; }
.control-composer-panel-scroll thead th { position: sticky; top: 0; background: var(--comfy-input-bg); }
.control-composer-panel-numbers td, .control-composer-panel-numbers th { text-align: end; }
.control-composer-panel button, .control-composer-panel select
  { font: inherit; color: inherit; background: transparent; border: 1px solid currentColor; border-radius: 4px; padding: 1px 8px; cursor: pointer; }
.control-composer-panel select option { color: var(--input-text); background: var(--comfy-input-bg); }
.control-composer-panel-error { border-inline-start: 3px solid #e5484d; padding-inline-start: 6px; }
.control-composer-panel-stale { opacity: 0.4; }
.control-composer-panel-bare, .lg-node .control-composer-panel-bare { background: none; padding: 0; text-align: end; }
.control-composer-panel-bars { display: flex; gap: 6px; align-items: end; white-space: nowrap; }
.control-composer-panel-layers td { white-space: nowrap; }
.control-composer-panel-layers td:nth-child(6) { white-space: normal; }
.control-composer-panel-layers tbody th { overflow-wrap: anywhere; min-width: 90px; }
.control-composer-panel-text { white-space: pre-wrap; font: 11px/1.4 monospace; user-select: text; }
.control-composer-panel-large { margin: auto; padding: 10px; border: 1px solid var(--border-color); border-radius: 8px; background: var(--comfy-menu-bg); }
.control-composer-panel-large::backdrop { background: rgb(0 0 0 / 0.6); }
.control-composer-panel-large img { display: block; width: 90vw; height: 82vh; object-fit: contain; margin-bottom: 8px; cursor: zoom-out; }
`

/**
 * Adds the part at the end of a node.
 * @returns {{element: HTMLElement, inner: HTMLElement, widget: object}} `inner` is what to fill.
 */
export function addPanel(node, name, least = 40) {
  addStyle()
  const inner = make("div", { class: "control-composer-panel-inner" })
  const element = make("div", { class: `control-composer-panel ${name}` }, inner)
  const height = () => (element.hidden ? 0 : Math.max(least, inner.offsetHeight) + 2 * MARGIN)
  const widget = node.addDOMWidget(name, "control-composer-panel", element, {
    serialize: false, // not queued …
    hideOnZoom: false,
    margin: MARGIN,
  })
  widget.serialize = false // … and not saved
  // As high as what is in it, and no higher: room to spare is for texts and pictures.
  widget.computeSize = (width) => [width, height()]
  widget.computeLayoutSize = undefined
  // The newer nodes are as high as what is in them; on the canvas a node has to be told.
  const watch = new ResizeObserver(() => {
    if (!inner.offsetHeight || !element.closest(".dom-widget")) return
    const needed = node.computeSize()[1]
    if (!node.flags?.collapsed && node.size[1] < needed) node.setSize([node.size[0], needed])
    node.setDirtyCanvas?.(true, true)
  })
  watch.observe(inner)
  const back = () => remount(node, element, name)
  api.addEventListener("graphChanged", back)
  chain(node, "onRemoved", () => {
    watch.disconnect()
    api.removeEventListener("graphChanged", back)
  })
  // Zooming goes on over the part, but not over what scrolls or while the newer nodes do it themselves.
  element.addEventListener("wheel", (event) => {
    if (!element.closest(".dom-widget") || event.target.closest(".control-composer-panel-scroll")) return
    event.preventDefault()
    app.canvas.processMouseWheel(event)
  })
  return { element, inner, widget }
}

/** An element of the page; `attributes` by name, `content` elements or text. */
export function make(name, attributes = {}, ...content) {
  const svg = /^(svg|path|circle|line|rect|text|g|title)$/.test(name)
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) if (value != null) made.setAttribute(key, value)
  made.append(...content)
  return made
}

/** @returns {HTMLElement} a table with a head; the first cell of each row names it. */
export function table(head, rows, numbers = true) {
  const cell = (what, ...content) => make(what, what === "td" ? {} : { scope: "col" }, ...content)
  return make(
    "table",
    numbers ? { class: "control-composer-panel-numbers" } : {},
    make("thead", {}, make("tr", {}, ...head.map((one) => cell("th", one)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, make("th", { scope: "row" }, row[0]), ...row.slice(1).map((one) => cell("td", one))))),
  )
}

/** Few digits, no zeros at the end; a dash for what is not known. */
export function brief(number, digits = 4) {
  return number == null ? "–" : String(Number(Number(number).toPrecision(digits)))
}

export function addStyle() {
  if (document.getElementById(STYLE)) return
  document.head.append(make("style", { id: STYLE }, CSS))
}
