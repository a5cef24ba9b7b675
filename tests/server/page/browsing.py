"""The page of a server in a browser, and what tests do with it: asking, waiting for a condition, queueing, undoing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

Renderer = Literal["canvas", "nodes"]
"""How the page draws nodes: on a canvas, or as elements of the page (its setting "Modern Node Design")."""

Found = TypeVar("Found")

TRACKER = "app.extensionManager.workflow.activeWorkflow.changeTracker"
NOT_OURS = (
    # The page asks for accounts and news outside of this machine, which these tests do not let through, and for files that a new user lacks.
    "ERR_NAME_NOT_RESOLVED",
    "ERR_FAILED",
    "Failed to load resource",
    # It also asks for the size of each missing model that a workflow names an address of, which the host's own policy forbids here.
    "Content Security Policy",
    # The page says this of itself at each start.
    "ComfyApp graph accessed before initialization",
)


class Page:
    """The page of a server, with what it said in its console."""

    def __init__(self, page: Any, server: Any) -> None:
        self.page = page
        self.server = server
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self.hear)

    def hear(self, message: Any) -> None:
        if message.type == "error" and not any(words in message.text for words in NOT_OURS):
            self.errors.append(message.text)

    # -- asking and waiting --

    def js(self, code: str, argument: Any = None) -> Any:
        """Evaluates a function, or an expression, in the page; `app` is the page's own."""
        return self.page.evaluate(code, argument)

    def until(self, code: str, argument: Any = None, seconds: float = 60) -> None:
        """Waits until a function of the page gives something true."""
        self.page.wait_for_function(code, arg=argument, timeout=seconds * 1000)

    def comes_to(self, read: Callable[[], Found], wanted: Found, seconds: float = 30) -> None:
        """Waits until `read` gives what is wanted."""
        end = time.monotonic() + seconds
        while (found := read()) != wanted and time.monotonic() < end:
            self.page.wait_for_timeout(30)
        assert found == wanted

    def appears(self, part: Any, seconds: float) -> bool:
        """Whether a part of the page is seen before the time is over."""
        end = time.monotonic() + seconds
        while not part.is_visible() and time.monotonic() < end:
            self.page.wait_for_timeout(30)
        return bool(part.is_visible())

    def steady(self, code: str, argument: Any = None) -> Any:
        """What a function of the page gives, as soon as it has given something, and the same, for some frames."""
        return self.js(
            f"""async argument => {{
              const read = {code}
              let before = '', same = 0, found
              while (same < 3) {{
                await new Promise(requestAnimationFrame)
                found = read(argument)
                const now = JSON.stringify(found)
                same = found && now === before ? same + 1 : 0
                before = now
              }}
              return found
            }}""",
            argument,
        )

    def still(self, selector: str) -> None:
        """Waits until what the selector names is there and stays where it is."""
        self.steady(
            "name => [...document.querySelectorAll(name)].map(one => Object.values(one.getBoundingClientRect().toJSON()).join()).join(' ')",
            selector,
        )

    # -- graphs --

    def load(self, workflow: dict[str, Any]) -> None:
        """Opens a workflow as dropping its file would."""
        self.js("async workflow => { await app.loadGraphData(workflow, true, true) }", workflow)

    def prompt(self) -> dict[str, Any]:
        """What the page would queue."""
        found: dict[str, Any] = self.js("async () => (await app.graphToPrompt()).output")
        return found

    def workflow(self) -> dict[str, Any]:
        """What the page would save."""
        found: dict[str, Any] = self.js("() => app.graph.serialize()")
        return found

    def missing(self) -> list[str]:
        """Types of nodes that the page does not know, in subgraphs too."""
        found: list[str] = self.js(
            "() => [...new Set([app.graph, ...app.graph.subgraphs.values()].flatMap(graph => graph.nodes)"
            ".filter(node => !node.isSubgraphNode?.() && !LiteGraph.registered_node_types[node.type] && !node.isVirtualNode)"
            ".map(node => node.type))]"
        )
        return found

    def replace_missing(self) -> None:
        """Takes what the page offers in place of the nodes that it does not know, with its own buttons; in English."""
        self.page.get_by_test_id("error-overlay-see-errors").click()
        self.page.get_by_test_id("error-group-swap-nodes").get_by_role("button", name="Replace All").click()

    def centre(self, scale: float = 1.0) -> None:
        """Brings the graph's upper left corner into view."""
        self.js(
            "scale => { const nodes = app.graph.nodes; const x = Math.min(...nodes.map(n => n.pos[0]));"
            " const y = Math.min(...nodes.map(n => n.pos[1])); app.canvas.ds.scale = scale;"
            " app.canvas.ds.offset = [-x + 120 / scale, -y + 120 / scale]; app.canvas.setDirty(true, true) }",
            scale,
        )
        self.steady("() => app.graph.nodes.map(node => [...node.size])")

    def draw_with(self, renderer: Renderer) -> None:
        """Changes the page's renderer, as its menu does."""
        self.js(
            "async on => { await app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on) }", renderer == "nodes"
        )
        self.until("on => LiteGraph.vueNodesMode === on", renderer == "nodes")

    # -- steps of undo --

    def steps(self) -> int:
        """How many steps could be undone."""
        found: int = self.js(f"() => {TRACKER}.undoQueue.length")
        return found

    def undo(self) -> None:
        """Ctrl+Z on the graph, until the page has the graph of before."""
        steps = self.steps()
        self.js("() => document.activeElement?.blur()")
        self.page.keyboard.press("Control+z")
        self.until(f"steps => {TRACKER}.undoQueue.length === steps - 1 && !{TRACKER}._restoringState", steps)

    # -- runs --

    def queue(self, seconds: float = 300) -> dict[str, Any]:
        """Queues the graph as its button would and waits for the end, of which the page has heard too: the entry of the server's history."""
        self.js(
            """() => {
              window.ended = new Set()
              for (const name of ['execution_success', 'execution_error', 'execution_interrupted'])
                window.comfyAPI.api.api.addEventListener(name, ({ detail }) => window.ended.add(detail.prompt_id), { once: true })
            }"""
        )
        with self.page.expect_response(
            lambda response: response.url.endswith("/prompt") and response.request.method == "POST"
        ) as sent:
            self.js("async () => { await app.queuePrompt(0, 1) }")
        assert sent.value.ok, sent.value.text()
        name = sent.value.json()["prompt_id"]
        self.until("name => window.ended.has(name)", name, seconds)
        history: dict[str, dict[str, Any]] = {}
        self.comes_to(lambda: bool(history.update(json.loads(self.server.get(f"/history/{name}"))) or history), True)
        return history[name]
