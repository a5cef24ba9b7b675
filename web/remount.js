/** In the page's own node renderer an element of a node that was made anew, by undo or by opening a file, in the place of the one before. */

import { app } from "../../scripts/app.js"

/**
 * The page keeps what it shows of a node as long as the node's id is the same, and with it the element of a node that is gone.
 * Does nothing where the element is shown already.
 * @param {string} name class of the element
 */
export function remount(node, element, name) {
  if (!LiteGraph.vueNodesMode || element.isConnected || node.graph !== app.canvas?.graph) return
  document.querySelector(`[data-node-id="${CSS.escape(String(node.id))}"] .${name}`)?.replaceWith(element)
}
