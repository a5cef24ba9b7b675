/** Ways through the graph as the host walks them when it queues: reroutes, bypassed and muted nodes, borders of subgraphs. */

import { app } from "../../scripts/app.js"

const NEVER = 2
const BYPASS = 4
const LONGEST = 500

/** A node in one instance of its graph: `path` are the subgraph nodes around it, the outermost first. */

/** @returns {{node, path}[]} the node in each instance of its graph. */
export function placesOf(node) {
  return pathsTo(node.graph).map((path) => ({ node, path }))
}

function pathsTo(graph, depth = 0) {
  if (!graph || graph === app.rootGraph || depth > 20) return [[]]
  const around = [app.rootGraph, ...app.rootGraph.subgraphs.values()].flatMap((each) => each.nodes)
  return around
    .filter((node) => node.subgraph?.id === graph.id)
    .flatMap((node) => pathsTo(node.graph, depth + 1).map((path) => [...path, node]))
}

/** @returns {{node, slot, path} | null} what gives the value of an input in the end; null for nothing. */
export function sourceOf({ node, path }, slot, steps = 0) {
  const link = linkOf(node.graph, node.inputs?.[slot]?.link)
  return link && steps < LONGEST ? originOf(node.graph, path, link, steps) : null
}

function originOf(graph, path, link, steps) {
  if (link.originIsIoNode) {
    const around = path.at(-1)
    return around ? sourceOf({ node: around, path: path.slice(0, -1) }, link.origin_slot, steps + 1) : null
  }
  const node = graph.getNodeById(link.origin_id)
  return node ? giverOf({ node, path }, link.origin_slot, steps) : null
}

function giverOf({ node, path }, slot, steps) {
  if (node.mode === NEVER) return null
  if (node.mode === BYPASS) {
    const through = bypassedInput(node, slot)
    return through < 0 ? null : sourceOf({ node, path }, through, steps + 1)
  }
  if (node.subgraph) {
    const inner = linksOf(node.subgraph, node.subgraph.outputNode.slots[slot]?.linkIds)[0]
    return inner ? originOf(node.subgraph, [...path, node], inner, steps + 1) : null
  }
  if (node.isVirtualNode && node.inputs?.length) {
    const elsewhere = node.resolveVirtualOutput?.(slot)
    if (elsewhere) return giverOf({ node: elsewhere.node, path }, elsewhere.slot, steps + 1)
    return sourceOf({ node, path }, slot, steps + 1)
  }
  return { node, slot, path }
}

/** @returns {{node, slot, path}[]} the inputs that get an output in the end. */
export function targetsOf({ node, path }, slot, steps = 0) {
  if (steps > LONGEST) return []
  return linksOf(node.graph, node.outputs?.[slot]?.links).flatMap((link) => takersOf(node.graph, path, link, steps))
}

function takersOf(graph, path, link, steps) {
  if (link.targetIsIoNode) {
    const around = path.at(-1)
    return around ? targetsOf({ node: around, path: path.slice(0, -1) }, link.target_slot, steps + 1) : []
  }
  const node = graph.getNodeById(link.target_id)
  const slot = link.target_slot
  if (!node || node.mode === NEVER) return []
  if (node.mode === BYPASS || (node.isVirtualNode && !node.subgraph)) {
    const through = (node.outputs ?? []).map((_, index) => index)
    const fed = node.mode === BYPASS ? through.filter((index) => bypassedInput(node, index) === slot) : through
    return fed.flatMap((index) => targetsOf({ node, path }, index, steps + 1))
  }
  if (node.subgraph) {
    const inner = linksOf(node.subgraph, node.subgraph.inputNode.slots[slot]?.linkIds)
    return inner.flatMap((each) => takersOf(node.subgraph, [...path, node], each, steps + 1))
  }
  return [{ node, slot, path }]
}

/** The input that a bypassed node passes on: the one beside the output if of its type, else the first of its type. */
function bypassedInput(node, slot) {
  const type = node.outputs[slot]?.type
  if (node.inputs?.[slot]?.type === type) return slot
  return (node.inputs ?? []).findIndex((input) => input.type === type)
}

/**
 * The value of a widget, or of what is connected in its place.
 * @returns {{value: unknown, own: boolean}} `value` null where only a run tells; `own` if the widget itself has it.
 */
export function valueOf({ node, path }, name) {
  const slot = (node.inputs ?? []).findIndex((input) => input.widget?.name === name && input.link != null)
  if (slot < 0) return { value: node.widgets?.find((widget) => widget.name === name)?.value, own: true }
  const link = linkOf(node.graph, node.inputs[slot].link)
  const around = link?.originIsIoNode ? path.at(-1) : null
  const outside = around?.inputs[link.origin_slot]
  if (outside && outside.link == null) {
    const widget = around.widgets?.find((each) => each.name === outside.name)
    return { value: widget?.value ?? null, own: false }
  }
  const found = sourceOf({ node, path }, slot)
  const primitive = /^Primitive/.test(found?.node.type ?? "")
  return { value: (primitive && found.node.widgets?.[0]?.value) ?? null, own: false }
}

function linkOf(graph, id) {
  return id == null ? null : (graph.getLink?.(id) ?? graph.links?.[id] ?? null)
}

function linksOf(graph, ids) {
  return (ids ?? []).map((id) => linkOf(graph, id)).filter(Boolean)
}
