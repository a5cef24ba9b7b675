"""A real browser on the real page: Chromium under Playwright, opened anew for each file of tests."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

Renderer = Literal["canvas", "nodes"]
"""How the page draws nodes: on a canvas, or as elements of the page (its setting "Modern Node Design")."""

ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
LOAD_SECONDS = 120
NOT_OURS = (
    # The page asks for accounts and news outside of this machine, which these tests do not let through, and for files that a new user lacks.
    "ERR_BLOCKED_BY_CLIENT",
    "ERR_FAILED",
    "Failed to load resource",
    # It also asks for the size of each missing model that a workflow names an address of, which the host's own policy forbids here.
    "Content Security Policy",
    # The page says this of itself at each start.
    "ComfyApp graph accessed before initialization",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.server)
            item.add_marker(pytest.mark.browser)


def chromium() -> str:
    """The browser's program. Where there is none, skips; in CI fails, because there these tests must run."""
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        told = "no browser was found, but these tests drive one; install Debian's chromium or set CHROMIUM to a Chromium's path"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(told)
    return str(found)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """For a file at a time: while Playwright runs, no other test of the process can run a loop of asyncio."""
    program = chromium()
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, headless=True, args=list(ARGUMENTS))
        yield running
        running.close()


class Page:
    """The page of a server, opened anew, with what it said in its console."""

    def __init__(self, page: Any, server: Any) -> None:
        self.page = page
        self.server = server
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self.hear)

    def hear(self, message: Any) -> None:
        if message.type == "error" and not any(words in message.text for words in NOT_OURS):
            self.errors.append(message.text)

    def js(self, code: str, argument: Any = None) -> Any:
        """Evaluates a function, or an expression, in the page; `app` is the page's own."""
        return self.page.evaluate(code, argument)

    def until(self, code: str, argument: Any = None, seconds: float = 60) -> None:
        """Waits until a function of the page gives something true."""
        self.page.wait_for_function(code, arg=argument, timeout=seconds * 1000)

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

    def queue(self, seconds: float = 300) -> dict[str, Any]:
        """Queues the graph as its button would and waits for the end: the entry of the server's history."""
        before = set(self.history())
        self.js("async () => { await app.queuePrompt(0, 1) }")
        end = time.monotonic() + seconds
        while not set(self.history()) - before:  # `until` takes the promise of an async function for something true
            assert time.monotonic() < end, f"no end after {seconds} s"
            self.page.wait_for_timeout(100)
        (new,) = set(self.history()) - before
        entry: dict[str, Any] = self.history()[new]
        return entry

    def history(self) -> dict[str, Any]:
        found: dict[str, Any] = self.js("async () => await (await fetch('/history')).json()")
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
        self.page.wait_for_timeout(300)


@pytest.fixture(scope="module")
def open_page(browser: Any, server: Any) -> Callable[..., Any]:
    """`with open_page(renderer=…, locale=…, palette=…, on=server) as page`: the empty page, ready; the settings are the server's."""

    @contextmanager
    def opened(
        renderer: Renderer = "canvas",
        locale: str = "en",
        palette: str = "dark",
        on: Any = None,
        size: tuple[int, int] = (1600, 1000),
        before: Callable[[Any], None] | None = None,
    ) -> Iterator[Page]:
        """`before` is given the browser's context before it loads anything."""
        host = on or server
        settings = {
            "Comfy.VueNodes.Enabled": renderer == "nodes",
            "Comfy.Locale": locale,
            "Comfy.ColorPalette": palette,
            "Comfy.TutorialCompleted": True,
            "Comfy.Workflow.Persist": False,
        }
        host.post("/settings", settings)
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, locale="en-US")
        try:
            context.route(
                lambda address: not address.startswith((host.url, "data:", "blob:")),
                lambda route: route.abort("blockedbyclient"),
            )
            if before is not None:
                before(context)
            page = context.new_page()
            page.set_default_timeout(30_000)
            found = Page(page, host)
            page.goto(host.url, timeout=LOAD_SECONDS * 1000)
            found.until(
                "() => window.app?.isGraphReady && window.LiteGraph?.registered_node_types?.ControlComposerApply && app.extensionManager?.setting",
                seconds=LOAD_SECONDS,
            )
            page.wait_for_timeout(500)
            found.js("() => app.graph.clear()")
            yield found
        finally:
            context.close()

    return opened
