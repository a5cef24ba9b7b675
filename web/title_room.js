/** Titles in full: the canvas counts less room beside a title than it leaves, which cuts off those of nodes that are no wider than it. */

import { app } from "../../scripts/app.js"

const PREFIX = "ControlComposer"
const ROOM = 24

app.registerExtension({
  name: "controlComposer.titleRoom",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith(PREFIX) || node.widgets?.some((widget) => widget.serialize !== false)) return
    const width = node.computeSize()[0] + ROOM
    if (node.size[0] < width) node.setSize([width, node.size[1]])
  },
})
