/** One bar per block: the element of the block-weight editor. It knows nothing of the page around it. */

import { numberOver } from "./block_field.js"
import { made, round, short } from "./block_parts.js"
import { fill } from "./words.js"

const STEP = 0.05
const FINE = 0.01
const PAGE = 0.25
const USUAL_TOP = 2
const MOVED = 3
const ROOM_FOR_NUMBERS = 14
const COLOURS = ["#3b9ddd", "#27a884", "#d9a21b", "#e0703c"]
const MIDDLE = "#a26bd9"
const BARE = "#8a8f98"
export const PRESETS = ["flat", "resolution", "soft", "coarse", "fine", "inverted", "reset"]
export const KINDS = ["sd1", "sdxl", "t2i"]

export class BlockBars {
  /**
   * @param {Record<string, string>} words
   * @param {{draw(weights: number[]): void, done(): void, write(values: string): void, choose(kind: string): void}} act
   *   `draw` while weights change, `done` when one change is complete.
   */
  constructor(words, act) {
    Object.assign(this, { words, act, weights: [], products: [], bars: [], at: 0, top: USUAL_TOP, answer: null, locked: "" })
    this.element = made("div", "", { role: "group", "aria-label": words.blockWeightsTitle })
    this.element.dataset.captureWheel = "true"
    this.head = made("div", "head")
    this.control = made("span", "control")
    this.kind = made("select", "kind", { "aria-label": words.blockWeightsKind })
    this.kind.append(...KINDS.map((kind) => new Option(words[`blockWeightsKind_${kind}`], kind)))
    this.kind.onchange = () => act.choose(this.kind.value)
    this.head.append(this.control, this.kind)
    this.presets = made("div", "presets", { role: "group", "aria-label": words.blockWeightsPresets })
    this.plot = made("div", "plot")
    this.status = made("div", "status", { role: "status", "aria-live": "polite" })
    this.element.append(this.head, this.presets, this.plot, this.status)
    for (const name of PRESETS) {
      const button = made("button", "preset", { type: "button", title: words[`blockWeightsPreset_${name}_tip`] })
      button.textContent = words[`blockWeightsPreset_${name}`]
      button.dataset.preset = name
      button.onclick = () => this.answer?.presets[name] && act.write(this.answer.presets[name])
      this.presets.append(button)
    }
    this.legend = made("span", "legend")
    this.legend.textContent = words.blockWeightsLegend
    this.presets.append(this.legend)
    this.listen()
    this.watch = new ResizeObserver(() => this.paint())
    this.watch.observe(this.plot)
  }

  get drawing() {
    return Boolean(this.stroke)
  }

  /** Shows an answer of page/weights.py. `locked`: why nothing can be changed here, or empty. */
  show(answer, locked = "") {
    this.answer = answer
    this.locked = locked
    this.products = answer.blocks.map((block) => (answer.chained ? block.product : null))
    if (!this.drawing) {
      this.weights = answer.blocks.map((block) => block.weight)
      this.top = topOf(this.weights, this.products)
    }
    const { control, kind } = answer
    this.kind.hidden = kind === "file" || Boolean(control)
    this.kind.value = KINDS.includes(kind) ? kind : "sd1"
    this.control.textContent = control
      ? fill(this.words.blockWeightsControl, { ...control, count: answer.fit?.count ?? answer.blocks.length })
      : this.words.blockWeightsNone
    this.control.title = this.control.textContent
    this.control.classList.toggle("control-composer-weights-quiet", !control)
    for (const button of this.presets.querySelectorAll("button")) button.disabled = Boolean(locked) || !answer.presets[button.dataset.preset]
    this.legend.hidden = !answer.chained
    this.build()
    this.paint()
    this.tell()
  }

  /** New bars where the blocks are others than before. */
  build() {
    const key = JSON.stringify(this.answer.blocks.map(({ name, cells, middle, level }) => [name, cells, middle, level]))
    if (key === this.built) return
    const focused = this.element.contains(document.activeElement) && document.activeElement.role === "slider"
    this.built = key
    this.bars = []
    this.plot.replaceChildren()
    let group = null
    this.answer.blocks.forEach((block, index) => {
      const same = group && group.level === block.level && group.middle === block.middle
      if (!same) {
        group = { level: block.level, middle: block.middle, bars: made("div", "bars"), element: made("div", "group"), count: 0 }
        group.element.style.setProperty("--cc-colour", colourOf(block))
        const label = made("div", "label", { "aria-hidden": "true" })
        label.append(Object.assign(document.createElement("span"), { textContent: block.middle ? this.words.blockWeightsMiddle : block.cells }))
        group.element.append(group.bars, label)
        this.plot.append(group.element)
      }
      group.element.style.flex = `${++group.count} 1 0`
      const bar = made("div", "bar", { role: "slider", "aria-orientation": "vertical", "aria-valuemin": "0" })
      bar.setAttribute("aria-label", block.cells ? fill(this.words.blockWeightsBlock, block) : block.name)
      bar.append(made("div", "fill"), made("div", "mark"), made("div", "number"))
      bar.dataset.index = index
      group.bars.append(bar)
      this.bars.push(bar)
    })
    this.at = Math.min(this.at, Math.max(0, this.bars.length - 1))
    if (focused) this.focus(this.at)
  }

  paint() {
    for (const line of this.plot.querySelectorAll(".control-composer-weights-line")) line.remove()
    const height = this.bars[0]?.offsetHeight ?? 0
    for (const value of [0, this.top / 4, this.top / 2, (3 * this.top) / 4, this.top]) {
      const line = made("div", "line")
      line.classList.toggle("control-composer-weights-one", value === 1)
      line.style.top = `${height * (1 - value / this.top)}px`
      line.append(Object.assign(document.createElement("span"), { textContent: short(value) }))
      this.plot.prepend(line)
    }
    this.element.classList.toggle("control-composer-weights-narrow", (this.bars[0]?.offsetWidth ?? 0) < ROOM_FOR_NUMBERS)
    this.element.classList.toggle("control-composer-weights-off", !this.open)
    this.bars.forEach((bar, index) => {
      const weight = this.weights[index]
      const product = this.products[index]
      const share = Math.max(0, Math.min(1, (weight ?? 0) / this.top))
      const [full, mark, number] = bar.children
      full.style.height = `${100 * share}%`
      mark.hidden = product == null
      mark.style.bottom = `${100 * Math.max(0, Math.min(1, (product ?? 0) / this.top))}%`
      number.textContent = weight == null ? "–" : short(weight)
      number.style.bottom = `calc(${100 * share}% + 1px)`
      bar.tabIndex = index === this.at ? 0 : -1
      bar.setAttribute("aria-valuemin", String(Math.min(0, weight ?? 0)))
      bar.setAttribute("aria-valuemax", String(this.top))
      bar.setAttribute("aria-valuenow", String(weight ?? 0))
      bar.setAttribute("aria-valuetext", this.words_of(index))
      bar.setAttribute("aria-disabled", String(!this.open))
    })
  }

  /** Whether bars can be changed: not where an unreadable text would be lost. */
  get open() {
    return !this.locked && this.weights.length > 0 && this.weights.every((weight) => weight != null)
  }

  words_of(index) {
    const weight = this.weights[index]
    if (weight == null) return "–"
    const product = this.products[index]
    return product == null ? String(round(weight)) : fill(this.words.blockWeightsProduct, { weight: round(weight), product: round(product) })
  }

  /** The line below: what is wrong, else the block under the pointer or the focus, else what can be done. */
  tell(index = this.near) {
    const { error, fit, notes } = this.answer
    this.status.replaceChildren()
    this.status.classList.toggle("control-composer-weights-wrong", Boolean(error))
    const block = this.answer.blocks[index]
    if (block && !error) {
      this.status.textContent = `${block.cells ? fill(this.words.blockWeightsBlock, block) : block.name}: ${this.words_of(index)}`
      return
    }
    if (fit) {
      const button = made("button", "fit", { type: "button" })
      button.textContent = fill(this.words.blockWeightsFit, { count: fit.count })
      button.onclick = () => this.act.write(fit.values)
      button.disabled = Boolean(this.locked)
      this.status.append(button, " ")
    }
    const said = error ?? (this.locked || notes.join(" ") || this.words.blockWeightsHow)
    this.status.append(Object.assign(document.createElement("span"), { textContent: said }))
    this.status.title = said
  }

  focus(index) {
    this.at = Math.max(0, Math.min(this.bars.length - 1, index))
    this.bars.forEach((bar, each) => (bar.tabIndex = each === this.at ? 0 : -1))
    this.bars[this.at]?.focus({ preventScroll: true })
  }

  change(index, value) {
    this.weights[index] = round(value)
    if (!this.drawing) this.top = topOf(this.weights, this.products)
  }

  listen() {
    const { element, plot } = this
    plot.addEventListener("pointerdown", (event) => this.press(event))
    plot.addEventListener("pointermove", (event) => this.drag(event))
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) plot.addEventListener(end, () => this.release())
    plot.addEventListener("dblclick", (event) => this.indexAt(event) != null && this.type(this.indexAt(event)))
    plot.addEventListener("pointerleave", () => this.hover(null))
    plot.addEventListener("focusin", (event) => event.target.dataset.index && this.hover(Number(event.target.dataset.index)))
    plot.addEventListener("focusout", () => this.hover(null))
    plot.addEventListener("wheel", (event) => this.roll(event), { passive: false })
    element.addEventListener("keydown", (event) => event.target.role === "slider" && this.key(event))
    element.addEventListener("keyup", () => this.finish())
    element.addEventListener("focusout", () => this.finish())
  }

  hover(index) {
    this.near = index
    if (this.answer) this.tell()
  }

  /** The bar at a place of the screen, whatever the zoom. */
  indexAt(event) {
    const places = this.bars.map((bar) => bar.getBoundingClientRect())
    if (!places.length || event.clientY > places[0].bottom + 2) return null
    const distance = (place) => Math.max(place.left - event.clientX, event.clientX - place.right, 0)
    return places.reduce((best, place, index) => (distance(place) < distance(places[best]) ? index : best), 0)
  }

  weightAt(event) {
    const place = this.bars[0].getBoundingClientRect()
    const share = Math.max(0, Math.min(1, (place.bottom - event.clientY) / place.height))
    const step = event.shiftKey ? FINE : STEP
    return Math.round((share * this.top) / step) * step
  }

  press(event) {
    if (event.button !== 0 || event.target.tagName === "INPUT") return
    const index = this.indexAt(event)
    if (index == null) return
    event.preventDefault()
    this.focus(index)
    if (!this.open) return
    plotCapture(this.plot, event.pointerId)
    this.pressed = { index, x: event.clientX, y: event.clientY, value: this.weightAt(event) }
  }

  drag(event) {
    if (!this.pressed) return this.hover(this.indexAt(event))
    // A quick stroke comes in few events, each with the places between.
    const places = event.getCoalescedEvents?.() ?? []
    for (const place of places.length ? places : [event]) this.move(place)
    if (this.stroke) this.drawn()
  }

  move(place) {
    const { x, y, index: first, value: begun } = this.pressed
    if (!this.stroke && Math.hypot(place.clientX - x, place.clientY - y) < MOVED) return
    const index = this.indexAt({ clientX: place.clientX, clientY: 0 })
    const value = this.weightAt(place)
    const last = this.stroke ?? (index === first ? { index, value } : { index: first, value: begun })
    this.stroke = { index, value }
    this.element.classList.add("control-composer-weights-drawing")
    const way = Math.abs(index - last.index)
    for (let step = 0; step <= way; step++) {
      const share = way ? step / way : 1
      this.change(last.index + Math.sign(index - last.index) * step, last.value + (value - last.value) * share)
    }
    this.at = index
    this.near = index
  }

  drawn() {
    this.unfinished = true
    this.act.draw([...this.weights])
    this.paint()
    this.tell()
  }

  release() {
    this.pressed = null
    if (!this.stroke) return
    this.stroke = null
    this.element.classList.remove("control-composer-weights-drawing")
    this.focus(this.at)
    this.finish()
  }

  /** One change is complete. */
  finish() {
    if (!this.unfinished || this.drawing) return
    this.unfinished = false
    clearTimeout(this.rolling)
    this.act.done()
  }

  roll(event) {
    const index = this.indexAt(event)
    const amount = event.deltaY || event.deltaX
    if (!event.shiftKey || !this.open || index == null || !amount) return
    event.preventDefault()
    event.stopPropagation()
    this.change(index, Math.max(0, this.weights[index] - Math.sign(amount) * STEP))
    this.near = index
    this.drawn()
    clearTimeout(this.rolling)
    this.rolling = setTimeout(() => this.finish(), 400)
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return this.finish()
    const index = Number(event.target.dataset.index)
    const move = { ArrowLeft: index - 1, ArrowRight: index + 1 }[event.key]
    const now = this.weights[index] ?? 0
    const step = event.shiftKey ? FINE : STEP
    const value = {
      ArrowUp: now + step,
      ArrowDown: now - step,
      PageUp: now + PAGE,
      PageDown: now - PAGE,
      Home: 0,
      End: USUAL_TOP,
    }[event.key]
    const types = event.key === "Enter" || event.key === "F2" || /^[0-9.,-]$/.test(event.key)
    // These would delete the node.
    const swallowed = event.key === "Delete" || event.key === "Backspace"
    if (move == null && value == null && !types && !swallowed) return
    event.preventDefault()
    event.stopPropagation()
    if (move != null) this.focus(move)
    else if (value != null && this.open) {
      this.change(index, value < 0 && now >= 0 ? 0 : value)
      this.drawn()
    } else if (types) this.type(index, event.key.length === 1 ? event.key : null)
  }

  /** A field for a number over a bar. */
  type(index, begun = null) {
    if (!this.open) return
    this.release()
    this.finish()
    const bar = this.bars[index]
    const told = {
      label: fill(this.words.blockWeightsType, { name: bar.getAttribute("aria-label") }),
      share: Math.max(0, Math.min(1, this.weights[index] / this.top)),
      value: String(round(this.weights[index])),
      begun,
    }
    numberOver(bar, this.plot, told, (number, back) => {
      if (number != null && round(number) !== this.weights[index]) {
        this.change(index, number)
        this.drawn()
        this.finish()
      }
      if (back) this.focus(index)
    })
  }

  remove() {
    this.watch.disconnect()
    clearTimeout(this.rolling)
  }
}

function plotCapture(plot, pointer) {
  try {
    plot.setPointerCapture(pointer)
  } catch {
    // A pointer that is gone already.
  }
}

function colourOf(block) {
  if (block.middle) return MIDDLE
  return block.level == null ? BARE : COLOURS[Math.min(block.level, COLOURS.length - 1)]
}

/** 2, or the next even number above all that is shown. */
function topOf(...lists) {
  return Math.max(USUAL_TOP, ...lists.flat().map((value) => 2 * Math.ceil((value ?? 0) / 2 - 1e-9)))
}
