/** The list of layers as elements of the page. It knows nothing of the graph: it shows rows and says what was asked for. */

import { brief, button, element, icon, label, NAME } from "./layer_parts.js"
import { fill } from "./words.js"

const HEAD = 28
const ROW = 52
const EMPTY = 44

/** How high the list of so many layers is. */
export function heightOf(count) {
  return HEAD + (count ? count * ROW : EMPTY)
}

export class LayersPanel {
  /** @param {object} asked functions of a row: enable(row, value), solo(row), strength(row, value), move(from, to); and all(), show(row) */
  constructor(asked) {
    this.asked = asked
    this.rows = []
    this.items = new Map()
    this.words = {}
    this.count = element("span", "count")
    this.all = button("all", () => asked.all())
    this.heading = element("span", "heading")
    this.list = element("ul", "list", { role: "list" })
    this.empty = element("p", "empty")
    this.live = element("div", "live", { "aria-live": "polite", role: "status" })
    const head = element("div", "head", {}, this.heading, this.count, this.all)
    this.element = element("section", "", {}, head, this.list, this.empty, this.live)
    this.element.className = NAME
    for (const type of ["keydown", "keyup"]) this.element.addEventListener(type, (event) => this.keep(event))
  }

  /** The page's own keys (space pans, arrows move nodes) stay out of the list; undo, save and the like go on. */
  keep(event) {
    if (!event.ctrlKey && !event.metaKey && event.key !== "Escape") event.stopPropagation()
  }

  say(sentence, values) {
    this.live.textContent = fill(this.words[sentence] ?? "", values)
  }

  word(name, values = {}) {
    return fill(this.words[name] ?? "", values)
  }

  /** Shows the rows; an element with the focus keeps it, wherever its row goes. */
  show({ rows, soloing }, soloEditable, words) {
    this.words = words
    this.rows = rows
    this.soloEditable = soloEditable
    const focus = document.activeElement
    const held = this.list.contains(focus) ? focus : null
    this.heading.textContent = this.word("layersTitle")
    this.element.setAttribute("aria-label", this.word("layersTitle"))
    this.list.setAttribute("aria-label", this.word("layersTitle"))
    const acting = rows.filter((row) => !row.idle).length
    this.count.textContent = rows.length ? this.word("layersActing", { acting, total: rows.length }) : ""
    this.all.textContent = this.word("layersAll")
    this.all.title = this.word("layersAllHint")
    this.all.hidden = !soloing || !soloEditable
    this.empty.textContent = this.word("layersEmpty")
    this.empty.hidden = rows.length > 0
    for (const [key, item] of this.items) {
      if (rows.some((row) => row.key === key)) continue
      item.element.remove()
      this.items.delete(key)
    }
    rows.forEach((row, place) => {
      if (!this.items.has(row.key)) this.items.set(row.key, new Item(this))
      const item = this.items.get(row.key)
      item.show(row, place)
      if (this.list.children[place] !== item.element) this.list.insertBefore(item.element, this.list.children[place] ?? null)
    })
    this.element.style.minHeight = `${heightOf(rows.length)}px`
    if (held && held !== document.activeElement && this.list.contains(held)) held.focus({ preventScroll: true })
  }

  /** Moves a layer and says where it is now; `focus` is what has the focus afterwards. */
  move(from, to, focus) {
    if (to < 0 || to >= this.rows.length || to === from) return
    const { title, key } = this.rows[from]
    this.asked.move(from, to)
    this.say("layersMoved", { title, number: to + 1, total: this.rows.length })
    const item = this.items.get(key)
    const next = focus?.disabled ? item?.grip : focus
    next?.focus({ preventScroll: true })
  }
}

/** One layer. */
class Item {
  constructor(panel) {
    this.panel = panel
    const asked = panel.asked
    this.grip = button("grip", () => {})
    this.grip.append(icon("grip"))
    this.eye = button("eye", () => this.switch())
    this.picture = element("img", "picture", { alt: "", draggable: "false" })
    this.picture.addEventListener("error", () => this.thumbnail.classList.add("empty"))
    this.badge = element("span", "badge")
    this.thumbnail = element("span", "thumbnail", {}, icon("picture"), this.picture, this.badge)
    this.number = element("span", "number")
    this.title = button("title", () => asked.show(this.row))
    this.detail = element("span", "detail")
    const what = element("div", "what", {}, element("div", "line", {}, this.number, this.title), this.detail)
    this.strength = element("input", "strength", { type: "number", min: "0", max: "10", step: "0.05" })
    this.strength.addEventListener("change", () => this.type())
    this.strength.addEventListener("keydown", (event) => event.key === "Enter" && this.type())
    this.acts = element("span", "acts")
    const amount = element("div", "amount", {}, this.strength, this.acts)
    this.solo = button("solo", () => this.toggleSolo())
    this.solo.textContent = "S"
    this.up = button("up", () => panel.move(this.place, this.place - 1, this.up))
    this.down = button("down", () => panel.move(this.place, this.place + 1, this.down))
    this.up.append(icon("up"))
    this.down.append(icon("down"))
    const order = element("div", "order", {}, this.up, this.down)
    this.element = element("li", "row", { role: "listitem" })
    this.element.append(this.grip, this.eye, this.thumbnail, what, amount, this.solo, order)
    this.element.addEventListener("keydown", (event) => this.key(event))
    this.grip.addEventListener("pointerdown", (event) => this.drag(event))
  }

  show(row, place) {
    const word = (name, values) => this.panel.word(name, values)
    const { title } = row
    this.row = row
    this.place = place
    this.element.classList.toggle("idle", row.idle !== "")
    label(this.grip, word("layersDrag", { title }))
    if (this.eye.getAttribute("aria-pressed") !== String(row.enabled)) {
      this.eye.setAttribute("aria-pressed", String(row.enabled))
      this.eye.replaceChildren(icon(row.enabled ? "on" : "off"))
    }
    label(this.eye, word("layersEnabled", { title }))
    this.eye.disabled = !row.editable("enabled")
    this.showPicture()
    this.number.textContent = row.number
    this.title.textContent = title
    this.title.title = word("layersShow", { title })
    this.title.disabled = !row.source
    if (document.activeElement !== this.strength) this.strength.value = brief(row.strength)
    label(this.strength, word(row.editable("strength") ? "layersStrength" : "layersStrengthFed", { title }))
    this.strength.disabled = !row.editable("strength")
    this.acts.textContent = word("layersActs", { strength: brief(row.acts) })
    this.acts.title = word("layersActsHint")
    this.solo.setAttribute("aria-pressed", String(row.solo))
    label(this.solo, word("layersSolo", { title }))
    this.solo.disabled = !this.panel.soloEditable
    label(this.up, word("layersUp", { title }))
    label(this.down, word("layersDown", { title }))
    this.up.disabled = place === 0
    this.down.disabled = place === this.panel.rows.length - 1
    this.showDetail()
  }

  showPicture() {
    const { thumbnail, pictures } = this.row
    if (this.picture.getAttribute("src") !== thumbnail) {
      this.thumbnail.classList.toggle("empty", !thumbnail)
      if (thumbnail) this.picture.src = thumbnail
      else this.picture.removeAttribute("src")
    }
    this.badge.textContent = pictures > 1 ? pictures : ""
    this.thumbnail.title = this.panel.word(thumbnail ? "layersPictures" : "layersNoPicture", { count: pictures })
  }

  /** The second line: why it does nothing, when it acts, and what is connected to it. */
  showDetail() {
    const { row } = this
    const word = (name, values) => this.panel.word(name, values)
    const parts = []
    const percent = (value) => (value == null ? "?" : brief(value * 100))
    const range = word("layersRange", { start: percent(row.start), end: percent(row.end) })
    this.detail.title = row.idle ? `${word(row.idle)}; ${range}` : range
    if (row.idle) parts.push(icon("warning"), element("span", "why", {}, word(row.idle)))
    else parts.push(element("span", "range", {}, range))
    const balance = row.balance === 0 ? "layersConditional" : row.balance !== 1 ? "layersBalance" : ""
    for (const [name, text] of [
      ["mask", row.mask && word("layersMask")],
      ["schedule", row.schedule && word("layersSchedule")],
      ["weights", row.weights && word("layersWeights")],
      ["balance", balance && word(balance, { value: brief(row.balance) })],
    ]) {
      if (!text) continue
      const mark = icon(name)
      mark.removeAttribute("aria-hidden")
      mark.setAttribute("role", "img")
      label(mark, text)
      parts.push(mark)
    }
    this.detail.replaceChildren(...parts)
  }

  switch() {
    const value = !this.row.enabled
    this.panel.asked.enable(this.row, value)
    this.panel.say(value ? "layersNowOn" : "layersNowOff", this.row)
  }

  toggleSolo() {
    const solo = !this.row.solo
    this.panel.asked.solo(this.row)
    this.panel.say(solo ? "layersNowSolo" : "layersNoSolo", this.row)
  }

  type() {
    const typed = this.strength.valueAsNumber
    const value = Number.isFinite(typed) ? Math.min(10, Math.max(0, Math.round(typed * 100) / 100)) : this.row.strength
    this.strength.value = brief(value)
    if (value === this.row.strength) return
    this.panel.asked.strength(this.row, value)
    this.panel.say("layersNowStrength", { title: this.row.title, strength: brief(value) })
  }

  key(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key]
    if (!step || !(event.altKey || event.target === this.grip)) return
    event.preventDefault()
    event.stopPropagation()
    this.panel.move(this.place, this.place + step, document.activeElement)
  }

  /** Follows the pointer from the grip; a line shows where the row would come to lie. */
  drag(event) {
    if (event.button !== 0) return
    const { panel, grip } = this
    const list = panel.list
    const startY = event.clientY
    let target = null
    grip.setPointerCapture(event.pointerId)
    const clear = () => [...list.children].forEach((row) => row.classList.remove("before", "after"))
    const follow = (moved) => {
      if (Math.abs(moved.clientY - startY) < 4 && target === null) return
      this.element.classList.add("dragged")
      const middles = [...list.children].map((row) => row.getBoundingClientRect()).map((box) => box.top + box.height / 2)
      const above = middles.filter((middle, place) => place !== this.place && middle < moved.clientY).length
      target = above
      clear()
      if (target < this.place) list.children[target].classList.add("before")
      if (target > this.place) list.children[target].classList.add("after")
    }
    const end = (done) => {
      clear()
      this.element.classList.remove("dragged")
      for (const [type, heard] of heardWhileDragged) grip.removeEventListener(type, heard)
      if (done.type === "pointerup" && target !== null) panel.move(this.place, target, grip)
    }
    const escape = (pressed) => {
      if (pressed.key !== "Escape") return
      pressed.stopPropagation()
      end(pressed)
    }
    const heardWhileDragged = [
      ["pointermove", follow],
      ["pointerup", end],
      ["pointercancel", end],
      ["keydown", escape],
    ]
    for (const [type, heard] of heardWhileDragged) grip.addEventListener(type, heard)
    grip.focus({ preventScroll: true })
  }
}
