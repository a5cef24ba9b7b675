"""A real browser on the real page: Chromium under Playwright, started anew for each file of tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from control_composer.tests.server.page.browsing import Page, Renderer

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"),
    # Nothing outside of this machine is there. A route of Playwright's for it would cost each of the page's many requests a detour.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
LOAD_SECONDS = 120


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


@pytest.fixture(scope="module")
def open_page(browser: Any, server: Any) -> Iterator[Callable[..., Any]]:
    """`with open_page(renderer=…, locale=…, palette=…) as page`: the empty page, ready; the settings are the server's.

    A file's next page of the same language, colours and size is the one before, emptied, in the renderer that is asked for: opening takes the page
    long. `before` is given the browser's context before it loads anything, and `fresh` says that opening is what the test is about; both open a page
    of their own. `ready` is a node that the page has to know.
    """
    kept: dict[tuple[str, str, tuple[int, int]], Page] = {}

    def load(settings: dict[str, Any], size: tuple[int, int], before: Callable[[Any], None] | None, ready: str) -> Page:
        server.post("/settings", settings)
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, locale="en-US")
        if before is not None:
            before(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        found = Page(page, server)
        page.goto(server.url, timeout=LOAD_SECONDS * 1000)
        found.until(
            "ready => window.app?.isGraphReady && window.LiteGraph?.registered_node_types?.[ready]"
            " && app.extensionManager?.workflow?.activeWorkflow && !app.extensionManager.spinner",
            ready,
            LOAD_SECONDS,
        )
        return found

    @contextmanager
    def opened(
        renderer: Renderer = "canvas",
        locale: str = "en",
        palette: str = "dark",
        size: tuple[int, int] = (1600, 1000),
        before: Callable[[Any], None] | None = None,
        ready: str = "ControlComposerApply",
        fresh: bool = False,
    ) -> Iterator[Page]:
        settings = {
            "Comfy.VueNodes.Enabled": renderer == "nodes",
            "Comfy.Locale": locale,
            "Comfy.ColorPalette": palette,
            "Comfy.TutorialCompleted": True,
            "Comfy.Workflow.Persist": False,
        }
        own = fresh or before is not None
        key = locale, palette, size
        again = None if own else kept.pop(key, None)
        found = again or load(settings, size, before, ready)
        try:
            found.js("() => app.graph.clear()")
            if again:
                found.draw_with(renderer)
                found.errors.clear()
            yield found
        except BaseException:
            own = True  # nobody knows what a failed test has left
            raise
        finally:
            if own or key in kept:
                found.page.context.close()
            else:
                kept[key] = found

    yield opened
    for page in kept.values():
        page.page.context.close()
