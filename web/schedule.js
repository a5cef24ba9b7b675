/** Under the schedule nodes: what their settings resolve to, at the steps of the sampler that they feed. */

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { ask } from "./ask.js"
import { chain } from "./chain.js"
import { placesOf, sourceOf, targetsOf, valueOf } from "./graph.js"
import { addPanel, brief, make, table } from "./panel.js"
import { fill, words } from "./words.js"

const NODES = ["ControlComposerStrengthCurve", "ControlComposerStrengthKeyframes", "ControlComposerImageStrengths"]
const WAIT = 120
const HEIGHT = 96
const LEFT = 30
const FARTHEST = 500
const shown = new Set()

app.registerExtension({
  name: "controlComposer.schedule",
  nodeCreated(node) {
    if (NODES.includes(node.comfyClass)) show(node)
  },
  setup() {
    // The page tells of every change that it keeps for undoing; typing is told by the widgets themselves.
    for (const event of ["graphChanged", "execution_success"]) api.addEventListener(event, () => shown.forEach((one) => one.soon()))
  },
})

function show(node) {
  const panel = addPanel(node, "control_composer_schedule", HEIGHT)
  const parts = {
    graph: make("div"),
    error: make("p", { class: "control-composer-panel-error", role: "status" }),
    caption: make("p"),
    which: make("select", { hidden: "" }),
    details: make("details", { hidden: "" }, make("summary"), make("div", { class: "control-composer-panel-scroll", tabindex: 0 })),
  }
  panel.inner.append(parts.graph, parts.error, parts.caption, parts.which, parts.details)
  const state = { node, parts, answer: null, asked: "", chosen: 0, timer: 0, width: 0 }
  const one = { soon: () => soon(state) }
  shown.add(one)
  for (const widget of node.widgets) if (widget !== panel.widget) chain(widget, "callback", one.soon)
  for (const name of ["onConnectionsChange", "onConfigure", "onAdded"]) chain(node, name, one.soon)
  chain(node, "onRemoved", () => {
    clearTimeout(state.timer)
    shown.delete(one)
  })
  new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width)
    if (width && width !== state.width) {
      state.width = width
      draw(state)
    }
  }).observe(parts.graph)
  parts.which.addEventListener("change", () => {
    state.chosen = parts.which.selectedIndex
    soon(state)
  })
  soon(state)
}

function soon(state) {
  clearTimeout(state.timer)
  state.timer = setTimeout(() => refresh(state), WAIT)
}

async function refresh(state) {
  const { node, parts } = state
  if (!node.graph) return
  const say = await words()
  const place = placesOf(node)[0]
  if (!place) return
  const linked = node.widgets.find((widget) => NODES.includes(node.comfyClass) && valueOf(place, widget.name).value === null)
  if (linked) {
    state.asked = ""
    return refuse(state, fill(say.scheduleLinked, { name: linked.label ?? linked.name }))
  }
  const samplers = samplersBehind(place)
  state.chosen = Math.min(state.chosen, Math.max(samplers.length - 1, 0))
  parts.which.hidden = samplers.length < 2
  parts.which.ariaLabel = say.scheduleWhich
  parts.which.replaceChildren(...samplers.map(({ node }) => make("option", {}, `${node.title} #${node.id}`)))
  parts.which.selectedIndex = state.chosen
  const sampler = samplers[state.chosen]
  const question = { chain: rowOf(place), ...(sampler ? told(sampler) : { sampler: null }) }
  const asked = JSON.stringify(question)
  if (asked === state.asked) return
  state.asked = asked
  try {
    const answer = await ask("schedule", question)
    if (state.asked !== asked) return // typed on meanwhile
    state.answer = answer
    parts.error.textContent = answer.refused ?? ""
    parts.graph.classList.remove("control-composer-panel-stale")
    explain(state, say)
    draw(state)
  } catch (error) {
    if (state.asked === asked) refuse(state, error.message)
  }
}

/** What was shown before stays, paler. */
function refuse(state, sentence) {
  state.parts.error.textContent = sentence
  state.parts.graph.classList.add("control-composer-panel-stale")
}

// -- The graph around --------------------------------------------------------------------------------------------------------------------------

const slotOf = (node, wanted) => (node.inputs ?? []).findIndex(wanted)
const source = (place, wanted) => {
  const slot = slotOf(place.node, wanted)
  return slot < 0 ? null : sourceOf(place, slot)
}
const named = (name) => (input) => input.name === name
const typed = (type) => (input) => input.type === type

function plain(place) {
  const values = {}
  for (const widget of place.node.widgets ?? []) {
    if (widget.serialize !== false && !widget.name.startsWith("$$")) values[widget.name] = valueOf(place, widget.name).value ?? null
  }
  return { type: place.node.comfyClass ?? place.node.type, values }
}

/** The schedule nodes in the row that ends here, the first one first; null for one that is not ours. */
function rowOf(place) {
  const row = [plain(place)]
  let before = source(place, named("schedule"))
  while (before && row.length < FARTHEST) {
    if (!NODES.includes(before.node.comfyClass)) return [null, ...row]
    row.unshift(plain(before))
    before = source(before, named("schedule"))
  }
  return row
}

/** Nodes with steps, or that are given sigmas, which what comes out of here reaches, the nearest first. */
function samplersBehind(place) {
  const seen = new Set()
  const found = []
  let front = [place]
  while (front.length && seen.size < FARTHEST) {
    const next = []
    for (const one of front) {
      for (const slot of (one.node.outputs ?? []).keys()) {
        for (const target of targetsOf(one, slot)) {
          const key = [...target.path, target.node].map(({ id }) => id).join(":")
          if (seen.has(key)) continue
          seen.add(key)
          const samples = slotOf(target.node, named("sigmas")) >= 0 || target.node.widgets?.some(({ name }) => name === "steps")
          ;(samples ? found : next).push(target)
        }
      }
    }
    front = next
  }
  return found
}

function told(sampler) {
  const sigmas = source(sampler, named("sigmas"))
  const given = slotOf(sampler.node, named("sigmas")) >= 0
  return {
    sampler: plain(sampler),
    sigmas: sigmas && plain(sigmas),
    model: modelOf((given && sigmas && source(sigmas, typed("MODEL"))) || modelAt(sampler)),
    pictures: batchOf(sampler),
  }
}

function modelAt(sampler) {
  const guider = source(sampler, typed("GUIDER"))
  return source(sampler, typed("MODEL")) ?? (guider && source(guider, typed("MODEL")))
}

function modelOf(place) {
  const nodes = []
  for (; place && nodes.length < FARTHEST; place = source(place, typed("MODEL"))) nodes.push(plain(place))
  return nodes
}

/** Size of the batch, where an empty latent says it. */
function batchOf(sampler) {
  let place = source(sampler, typed("LATENT"))
  for (let steps = 0; place && steps < FARTHEST; steps++) {
    if (place.node.widgets?.some(({ name }) => name === "batch_size")) return valueOf(place, "batch_size").value ?? null
    if (/batch/i.test(place.node.type)) return null
    place = source(place, typed("LATENT"))
  }
  return null
}

// -- What is shown -----------------------------------------------------------------------------------------------------------------------------

function explain({ answer, parts }, say) {
  const { run, steps } = answer
  const row = answer.product.length > 0 || steps.some(({ own, strength }) => own !== strength && strength != null)
  const sentences = []
  if (answer.axis && run) {
    sentences.push(fill(run.scheduler ? say.scheduleRun : say.scheduleRunBare, run))
    const noise = { assumed: say.scheduleAssumed, world: say.scheduleWorld, file: fill(say.scheduleFile, run) }[run.noise]
    if (noise && steps.length) sentences.push(noise)
    if (!steps.length) sentences.push(say.scheduleNoNoise)
  }
  let text = sentences.join("; ")
  if (answer.axis && !run) text = say.scheduleNoSampler
  if (!answer.axis && answer.pictures) text = fill(answer.batch ? say.scheduleBatch : say.scheduleExample, { count: answer.pictures.length })
  if (row && answer.axis) text = `${text}; ${say.scheduleDots}`
  if (answer.broken) text = `${text} ${say.scheduleBroken}`
  parts.caption.textContent = text
  const [summary, scroll] = parts.details.children
  const rows = answer.axis
    ? steps.map((one) => [String(one.step), percent(one.percent), brief(one.own), ...(row ? [brief(one.strength)] : [])])
    : (answer.pictures ?? []).map((factor, number) => [String(number), brief(factor)])
  const head = answer.axis
    ? [say.scheduleStep, say.schedulePercent, row ? say.scheduleOwn : say.scheduleStrength, ...(row ? [say.scheduleAll] : [])]
    : [say.schedulePicture, say.scheduleStrength]
  summary.textContent = say.scheduleValues
  scroll.replaceChildren(table(head, rows))
  parts.details.hidden = !rows.length
  answer.title = say.scheduleTitle
  answer.told = described(answer, say)
}

const percent = (share) => (share == null ? "–" : `${(100 * share).toFixed(1)} %`)

/** The graph in words. */
function described({ title, axis, line, steps, pictures }, say) {
  const values = axis ? steps.map(({ own, strength }) => brief(strength ?? own)) : (pictures ?? []).map((one) => brief(one))
  const heights = line.map(([, height]) => height)
  const course = heights.length
    ? fill(say.scheduleDescribed, { first: brief(heights[0]), last: brief(heights.at(-1)), low: brief(Math.min(...heights)), high: brief(Math.max(...heights)) })
    : ""
  const at = values.length ? (axis ? fill(say.scheduleSteps, { values: values.join(", ") }) : `${say.schedulePicture}: ${values.join(", ")}`) : ""
  return [`${title}.`, course, at].filter(Boolean).join(" ")
}

function draw({ answer, parts, width }) {
  if (!answer || !width) return
  const bars = answer.axis ? [] : (answer.pictures ?? [])
  const heights = [0, 1, ...bars, ...[answer.line, answer.product, answer.marks].flat().map(([, height]) => height)]
  for (const { strength } of answer.steps) if (strength != null) heights.push(strength)
  const low = Math.min(...heights)
  const high = Math.max(...heights)
  const x = (place) => (LEFT + place * (width - LEFT - 8)).toFixed(1)
  const y = (height) => (8 + ((high - height) / (high - low)) * (HEIGHT - 26)).toFixed(1)
  const path = (line, more) =>
    line.length ? [make("path", { d: `M${line.map(([place, height]) => `${x(place)},${y(height)}`).join("L")}`, fill: "none", stroke: "currentColor", ...more })] : []
  const levels = [...new Set([low, 0, 1, high])]
  const label = (text, at, anchor, height) =>
    make("text", { x: at, y: height, "text-anchor": anchor, "font-size": 10, fill: "currentColor", opacity: 0.8 }, text)
  const content = [
    ...levels.map((level) => make("line", { x1: x(0), x2: x(1), y1: y(level), y2: y(level), stroke: "currentColor", opacity: level ? 0.15 : 0.4 })),
    ...spread(levels, y).map((level) => label(brief(level), LEFT - 5, "end", Number(y(level)) + 3.5)),
  ]
  if (answer.axis) {
    const row = answer.product.length > 0
    content.push(
      label(answer.axis === "step" ? `${answer.run ? 1 : 0}` : "0 %", x(0), "start", HEIGHT - 2),
      label(answer.axis === "step" ? `${answer.run?.steps ?? 1}` : "100 %", x(1), "end", HEIGHT - 2),
      ...path(answer.line, { "stroke-width": 1.5, opacity: row ? 0.5 : 0.9, "stroke-dasharray": row ? "4 3" : null }),
      ...path(answer.product, { "stroke-width": 1.5, opacity: 0.9 }),
    )
    for (const { place, own, strength } of answer.steps) {
      const height = strength ?? own
      if (place == null || height == null) continue
      content.push(make("line", { x1: x(place), x2: x(place), y1: y(0), y2: y(height), stroke: "#3b9eff", opacity: 0.6 }))
      content.push(make("circle", { cx: x(place), cy: y(height), r: 2.5, fill: "#3b9eff" }))
    }
    for (const [place, height] of answer.marks) {
      content.push(make("rect", { x: x(place) - 3, y: y(height) - 3, width: 6, height: 6, transform: `rotate(45 ${x(place)} ${y(height)})`, fill: "#f5a524" }))
    }
  }
  for (const [number, factor] of bars.entries()) {
    const [from, to] = [number, number + 1].map((one) => Number(x(one / bars.length)))
    const [top, bottom] = [y(Math.max(factor, 0)), y(Math.min(factor, 0))]
    content.push(make("rect", { x: from + 1, y: top, width: Math.max(to - from - 2, 0.5), height: Math.max(bottom - top, 0.8), fill: "#3b9eff" }))
    if (to - from > 12) content.push(label(String(number), (from + to) / 2, "middle", HEIGHT - 2))
  }
  parts.graph.replaceChildren(make("svg", { role: "img", "aria-label": answer.told, width, height: HEIGHT }, make("title", {}, answer.told), ...content))
}

/** Levels whose labels do not cover each other: the outermost win. */
function spread(levels, y) {
  const kept = []
  for (const level of [...levels].sort((a, b) => Math.abs(b) - Math.abs(a))) {
    if (kept.every((other) => Math.abs(y(other) - y(level)) > 11)) kept.push(level)
  }
  return kept
}
