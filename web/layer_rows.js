/** The layers of a Compose Controls as the graph holds them now, and the changes that its list makes to them. */

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { placesOf, sourceOf, valueOf } from "./graph.js"

const INPUT = "layers.layer"
const TOLD = "control_composer_layers"
const NEVER = 2
const BYPASS = 4
const IDLE_WORDS = { "all block weights are 0": "layersIdleWeights", "the mask is empty": "layersIdleMask" }

/** @returns {number[]} the slots of the layers' inputs that are connected. */
export function slotsOf(node) {
  return (node.inputs ?? []).flatMap((input, slot) => (input.name.startsWith(INPUT) && input.link != null ? [slot] : []))
}

/** Layers count from 1, as *solo* does: the input layers.layer0 has the first. */
export function numberOf(input) {
  return Number(input.name.slice(INPUT.length)) + 1
}

/**
 * What the list shows, from the graph; what only a run tells, from the last one.
 * @returns {{rows: object[], soloing: boolean}}
 */
export function layersOf(node) {
  const place = placeOf(node)
  const told = toldTo(node)
  const whole = valueOf(place, "strength").value
  const solo = soloOf(place)
  const rows = slotsOf(node).map((slot) => rowOf(place, slot, told))
  const soloing = rows.some((row) => solo.has(row.number))
  for (const row of rows) {
    row.solo = solo.has(row.number)
    const product = whole == null || row.strength == null ? row.told?.acts : row.strength * whole
    row.idle = idleOf(row, soloing, whole)
    row.acts = row.idle ? 0 : product
  }
  return { rows, soloing }
}

function rowOf(place, slot, told) {
  const input = place.node.inputs[slot]
  const number = numberOf(input)
  const source = sourceOf(place, slot)
  const near = place.node.getInputNode(slot)
  const run = told.find((each) => (source && each.origin ? each.origin === originOf(place, source) : each.number === number))
  const read = (name, known) => (source ? valueOf(source, name).value : null) ?? known
  const fed = (name, known) => (source ? source.node.inputs?.some((each) => each.name === name && each.link != null) : known)
  return {
    key: input.link,
    slot,
    number,
    source,
    told: run,
    title: source?.node.title || near?.title || run?.title || input.label || input.name.slice("layers.".length),
    skipped: !source && [NEVER, BYPASS].includes(near?.mode),
    strength: read("strength", run?.strength),
    enabled: read("enabled", run ? run.idle !== "off" : true),
    start: read("start_percent", run?.start),
    end: read("end_percent", run?.end),
    balance: read("uncond_strength", run?.uncond_strength) ?? 1,
    mask: fed("mask", run?.mask),
    schedule: fed("schedule", run?.schedule),
    weights: fed("weights", run?.weights),
    pictures: run?.pictures ?? 0,
    thumbnail: run?.thumbnail ? api.apiURL(`/view?${new URLSearchParams(run.thumbnail)}`) : "",
    editable: (name) => holderOf(source, name) !== null,
  }
}

/** The name of the words that say why a layer adds nothing; "" if it may add something. The order is that of the run. */
function idleOf(row, soloing, whole) {
  if (row.skipped) return "layersIdleNode"
  if (!row.enabled) return "layersIdleOff"
  if (soloing && !row.solo) return "layersIdleSolo"
  if (row.strength === 0) return "layersIdleStrength"
  if (whole === 0) return "layersIdleWhole"
  return IDLE_WORDS[row.told?.idle] ?? ""
}

/** The id of a node as the run tells it: within the graph of the Compose Controls; "" outside of that. */
function originOf(place, source) {
  const inside = source.path.length >= place.path.length
  return inside ? [...source.path.slice(place.path.length), source.node].map((node) => node.id).join(":") : ""
}

/** Around a node in several copies of a subgraph nothing is looked up: what is outside differs from copy to copy. */
function placeOf(node) {
  const places = placesOf(node)
  return places.length === 1 ? places[0] : { node, path: [] }
}

/** What the last run said of each layer; the page keeps it as it keeps pictures. */
function toldTo(node) {
  const texts = keptOf(node) ?? remembered(node)
  return texts.map((text) => JSON.parse(text))
}

function keptOf(node) {
  const root = !node.graph || node.graph === app.rootGraph
  return app.nodeOutputs?.[root ? String(node.id) : `${node.graph.id}:${node.id}`]?.[TOLD]
}

let runs = []

/** Asks the host for earlier runs of the workflow that was opened: it tells nothing anew of nodes whose results it has already. */
export async function remember(nodes) {
  if (nodes.every(keptOf)) return
  const found = await (await api.fetchApi("/history?max_items=10")).json()
  runs = Object.values(found).reverse()
}

function remembered(node) {
  const id = [...placeOf(node).path, node].map((each) => each.id).join(":")
  const ofThis = (run) => run.prompt?.[3]?.extra_pnginfo?.workflow?.id === app.rootGraph?.id
  return runs.filter(ofThis).map((run) => run.outputs?.[id]?.[TOLD]).find(Boolean) ?? []
}

function soloOf(place) {
  return new Set(String(valueOf(place, "solo").value ?? "").split(",").map((part) => Number.parseInt(part, 10)))
}

/** The widget that holds a value: the node's own, or that of a subgraph node through which it is set; null if another node gives it. */
function holderOf(source, name) {
  if (!source) return null
  const { node, path } = source
  const input = node.inputs?.find((each) => each.widget?.name === name && each.link != null)
  const link = input && (node.graph.getLink?.(input.link) ?? node.graph.links[input.link])
  const around = link?.originIsIoNode ? path.at(-1) : null
  if (input && !around) return null
  const outside = around?.inputs[link.origin_slot]
  if (outside?.link != null) return null
  const owner = around ?? node
  const widget = owner.widgets?.find((each) => each.name === (outside?.name ?? name))
  return widget ? { owner, widget } : null
}

function write(source, name, value) {
  const holder = holderOf(source, name)
  if (!holder) return
  const { owner, widget } = holder
  const before = widget.value
  widget.value = value
  widget.callback?.(value, app.canvas, owner)
  owner.onWidgetChanged?.(widget.name, value, before, widget)
  owner.graph?.incrementVersion?.()
}

/** Runs a change of the graph as one step of undo. */
function oneStep(change) {
  app.canvas.emitBeforeChange?.()
  try {
    change()
  } finally {
    app.canvas.emitAfterChange?.()
    app.canvas.setDirty(true, true)
  }
}

export function setStrength(row, value) {
  oneStep(() => write(row.source, "strength", value))
}

export function setEnabled(row, value) {
  oneStep(() => write(row.source, "enabled", value))
}

/** Whether the S buttons can write. */
export function soloEditable(node) {
  return holderOf(placeOf(node), "solo") !== null
}

/** @param {Iterable<number>} numbers of the layers that are to be soloed; none lets all act. */
export function setSolo(node, numbers) {
  oneStep(() => writeSolo(node, numbers))
}

function writeSolo(node, numbers) {
  write(placeOf(node), "solo", [...new Set(numbers)].sort((a, b) => a - b).join(", "))
}

/** Puts the layer in one place of the list into another; the links change inputs, and *solo* goes with them. */
export function move(node, from, to) {
  const slots = slotsOf(node)
  if (from === to || !(from in slots) || !(to in slots)) return
  oneStep(() => {
    const links = slots.map((slot) => node.inputs[slot].link)
    links.splice(to, 0, ...links.splice(from, 1))
    followLinks(node, () =>
      slots.forEach((slot, place) => {
        const link = node.graph.getLink?.(links[place]) ?? node.graph.links[links[place]]
        node.inputs[slot].link = links[place]
        link.target_slot = slot
        node.onConnectionsChange?.(LiteGraph.INPUT, slot, true, link, node.inputs[slot])
      }),
    )
    node.graph.incrementVersion?.()
  })
}

/** @returns {Map<number, number>} the link of each layer's number. */
export function linksOf(node) {
  return new Map(slotsOf(node).map((slot) => [numberOf(node.inputs[slot]), node.inputs[slot].link]))
}

function followLinks(node, change) {
  const before = linksOf(node)
  change()
  carrySolo(node, before)
}

/** Rewrites *solo* after links have changed inputs. A layer that was exchanged for another leaves its place soloed, one that is gone does not. */
export function carrySolo(node, before) {
  const solo = [...soloOf(placeOf(node))].filter((number) => before.has(number))
  if (!solo.length) return
  const now = linksOf(node)
  const known = new Set(before.values())
  const after = solo.flatMap((number) => {
    const [found] = [...now].find(([, link]) => link === before.get(number)) ?? []
    if (found) return [found]
    return now.has(number) && !known.has(now.get(number)) ? [number] : []
  })
  if (after.join() !== solo.join()) writeSolo(node, after)
}
