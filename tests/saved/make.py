"""Writes the workflows of this release: every node of the pack, with settings other than its defaults, as the page saves and as it queues them.

    python tests/saved/make.py URL FOLDER

URL is a running server with the pack, FOLDER a new one beside this file, named after the version. Playwright and a Chromium are needed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

BUILD = """
async kinds => {
  // A graph of its own: the page keeps the values of widgets by graph, node and name, also after it is cleared.
  await app.loadGraphData({
    id: crypto.randomUUID(), revision: 0, last_node_id: 0, last_link_id: 0,
    nodes: [], links: [], groups: [], config: {}, extra: {}, version: 0.4
  })
  const made = []
  const add = async kind => {
    const node = LiteGraph.createNode(kind)
    const place = app.graph.nodes.length
    node.pos = [60 + 420 * (place % 5), 60 + 460 * Math.floor(place / 5)]
    app.graph.add(node)
    await new Promise(done => setTimeout(done, 20))
    return node
  }
  const typed = type => String(type).split(',')
  // What has an output of a type: nodes of the host and of the demo first, since they need little themselves.
  const BEFORE = ['ControlComposerDemoWorld', 'ControlComposerDemoPrompt', 'ControlComposerDemoScene', 'EmptyLatentImage', 'SolidMask']
  const sources = Object.keys(LiteGraph.registered_node_types).filter(kind => kind.startsWith('ControlComposer'))
  const provider = async (type, consumer, depth) => {
    for (const node of made) {
      if (node.id >= consumer.id && consumer.id !== -1) continue
      const slot = (node.outputs ?? []).findIndex(output => typed(type).includes(output.type))
      if (slot >= 0) return [node, slot]
    }
    if (depth > 2) return null
    for (const kind of [...BEFORE, ...sources]) {
      const outputs = LiteGraph.registered_node_types[kind]?.nodeData?.outputs ?? []
      const slot = outputs.findIndex(output => typed(type).includes(output.type))
      if (slot < 0) continue
      const node = await add(kind)
      made.push(node)
      await connect(node, depth + 1)
      return [node, slot]
    }
    return null
  }
  const WIDGETS = ['INT', 'FLOAT', 'STRING', 'BOOLEAN', 'COMBO', 'CURVE', '*']
  const connect = async (node, depth) => {
    for (let slot = 0; slot < (node.inputs ?? []).length; slot++) {
      const input = node.inputs[slot]
      if (input.link != null || input.widget || WIDGETS.includes(input.type)) continue
      if (node.inputs.length > 30) break
      const found = await provider(input.type, depth ? { id: -1 } : node, depth)
      if (found && found[0] !== node) found[0].connect(found[1], node, slot)
      await new Promise(done => setTimeout(done, 5))
      // A growing input has a new slot after each link; two are enough.
      if (/[2-9]$/.test(input.name) && input.name.includes('.')) break
    }
  }
  const change = (node, done) => {
    for (const widget of [...(node.widgets ?? [])]) {
      if (done.has(widget.name)) continue
      done.add(widget.name)
      if (widget.serialize === false || widget.options?.serialize === false || widget.name === 'control_after_generate') continue
      const options = widget.options ?? {}
      let values = options.values
      if (typeof values === 'function') values = values(widget, node)
      let value = widget.value
      if (Array.isArray(values)) {
        const demo = values.find(name => String(name).startsWith('control_composer_demo'))
        if (!values.includes(value) || values.length < 2) { if (demo) value = demo; else continue }
        else value = demo ?? values[values.indexOf(value) === values.length - 1 ? 0 : values.length - 1]
      } else if (typeof value === 'boolean') value = !value
      else if (typeof value === 'number') {
        const step = options.step2 ?? (Number.isInteger(value) && (options.precision ?? 0) === 0 ? 1 : 0.01)
        const next = value + step
        value = options.max === undefined || next <= options.max ? next : value - step
        if (options.min !== undefined && value < options.min) value = options.min
        value = Math.round(value * 1e6) / 1e6
      } else if (typeof value === 'string' && /prefix|folder|title/.test(widget.name)) value += '_2'
      else continue
      widget.value = value
      widget.callback?.(value)
    }
  }
  for (const kind of kinds) {
    const node = made.find(one => one.type === kind) ?? await add(kind)
    if (!made.includes(node)) made.push(node)
    const changed = new Set()
    change(node, changed)
    // A choice with inputs of its own shows them now.
    await new Promise(done => setTimeout(done, 30))
    change(node, changed)
    await connect(node, 0)
  }
  await new Promise(done => setTimeout(done, 300))
  const workflow = app.graph.serialize()
  return { workflow, prompt: (await app.graphToPrompt()).output, kinds: app.graph.nodes.map(node => node.type) }
}
"""


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, headless=True, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_function("() => window.app?.isGraphReady && LiteGraph.registered_node_types.ControlComposerApply")
        page.wait_for_timeout(2000)
        sections: dict[str, list[str]] = page.evaluate(
            "() => { const found = {}; for (const [kind, node] of Object.entries(LiteGraph.registered_node_types))"
            " if (kind.startsWith('ControlComposer')) (found[node.category] ??= []).push(kind); return found }"
        )
        for category, kinds in sections.items():
            found = page.evaluate(BUILD, kinds)
            missing = set(kinds) - set(found["kinds"])
            assert not missing, missing
            name = re.sub(r"\W+", "_", category.split("/", 1)[1].lower())
            write(folder / f"{name}.json", found["workflow"])
            write(folder / f"{name}_api.json", found["prompt"])
        browser.close()


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
