"""Pictures of the nodes as the page draws them, for the help pages and docs/nodes.md; looked at, they show what is cut off or laid askew.

    python host.py serve                                        in another terminal
    python host.py python benchmarks/draw_nodes.py [--server http://127.0.0.1:8188] [--only ControlComposerApply …]
    python host.py python benchmarks/draw_nodes.py --gallery
    python host.py python benchmarks/draw_nodes.py --workflow example_workflows/demo_composed.json [--renderer canvas]

Without more: web/docs/pictures/<node id>.webp of each node, in the dark theme at 100 %. --gallery: docs/page/<section>_<dark|light>.webp, all nodes of
a menu section beside each other in both themes, some of them zoomed out, and docs/nodes.md, the list of all nodes. --workflow: a workflow that was
run, with what its nodes show then. Needs Chromium (or CHROMIUM, a path). The server's settings stay as they are: the page is told others on the way.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "web" / "docs" / "pictures"
SHEETS = ROOT / "docs" / "page"
LIST = ROOT / "docs" / "nodes.md"
MENU = "Control Composer/"
THEMES = ("dark", "light")
RENDERERS = ("nodes", "canvas")
"""The page's elements ("Modern Node Design"), where curves can be seen, or its canvas."""

VIEW = (2400, 1700)
"""Pixels of the page. What is drawn keeps away from its bars."""
PLACE = {"left": 140, "top": 140, "right": VIEW[0] - 60, "bottom": VIEW[1] - 160, "gap": 60}
MARGIN = 9
"""Around a node: its slots stand over its edges."""
AT_ONCE = 30
ATTEMPTS = 5
"""How often nodes are laid again that have grown meanwhile."""
PATIENCE = 300
"""Seconds for the page to open."""
SHEET_WIDTH = 1500
SMALL = 0.5
NODES_OF_A_WORKFLOW = tuple(
    f"ControlComposer{name}"
    for name in (
        "Load",
        "Canny",
        "Layer",
        "Compose",
        "UnionLayer",
        "BlockWeights",
        "LevelWeights",
        "StrengthCurve",
        "StrengthKeyframes",
        "Fidelity",
        "Train",
        "Dataset",
    )
)
"""What is shown zoomed out."""
SETTINGS = {
    "Comfy.Locale": "en",
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.Persist": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.NodeBadge.NodeSourceBadgeMode": "None",
}

READY = (
    "() => window.app?.isGraphReady && window.LiteGraph?.registered_node_types?.ControlComposerApply"
    " && app.extensionManager?.setting"
)
ADD = """ids => {
  // The page remembers widgets by their node's number, also those of nodes that are gone.
  const last = Math.max(0, ...app.graph.nodes.map(node => Number(node.id)));
  app.graph.clear();
  app.graph.state.lastNodeId = last;
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [0, 0];
  ids.forEach((id, number) => {
    const node = LiteGraph.createNode(id);
    app.graph.add(node);
    // The page's elements keep the height of all widgets, though those behind "advanced" are not shown.
    const hidden = node.widgets?.some(widget => widget.advanced || widget.options?.advanced);
    if (LiteGraph.vueNodesMode && hidden) node.setSize([node.size[0], 1]);
    node.pos = [140 + (number % 5) * 430, 140 + Math.floor(number / 5) * 200];
  });
  app.canvas.setDirty(true, true);
}"""
BOUNDS = """() => app.graph.nodes.map(node => {
  const element = document.querySelector(`[data-node-id="${node.id}"]`);
  const title = LiteGraph.NODE_TITLE_HEIGHT;
  if (!element || !LiteGraph.vueNodesMode)
    return [node.pos[0], node.pos[1] - title, node.size[0], node.size[1] + title];
  const box = element.getBoundingClientRect();
  const scale = app.canvas.ds.scale;
  return [node.pos[0], node.pos[1] - title, box.width / scale, box.height / scale];
})"""
LAY = """([places, scale, shift]) => {
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [shift, shift];
  // A change of the theme brings the grid back.
  app.canvas.background_image = null;
  app.graph.nodes.forEach((node, number) => {
    const at = places[number];
    node.pos = at ? [at[0], at[1] + LiteGraph.NODE_TITLE_HEIGHT] : [9000, 9000];
  });
  app.canvas.setDirty(true, true);
}"""

RUN = """async () => {
  const known = Object.keys(await (await fetch("/history")).json());
  await app.queuePrompt(0, 1);
  while (Object.keys(await (await fetch("/history")).json()).every(id => known.includes(id)))
    await new Promise(done => setTimeout(done, 500));
}"""
SHOW = """([scale, right, down]) => {
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [right, down];
  app.canvas.setDirty(true, true);
}"""

Box = tuple[float, float, float, float]
"""left, top, width, height"""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    nodes = nodes_of(options.server)
    if unknown := set(options.only or ()) - set(nodes):
        raise SystemExit(
            f"draw_nodes: {', '.join(sorted(unknown))} is no node of the server's; give ids as in ControlComposerApply."
        )
    chosen = [name for name in nodes if not options.only or name in options.only]
    with opened(options.server, options.renderer) as view:
        if options.workflow:
            for theme, picture in workflow(view, options.workflow).items():
                save(picture, SHEETS / f"{options.workflow.stem}_{theme}.webp")
        elif options.gallery:
            gallery(view, nodes, chosen)
        else:
            for name, picture in draw(view, chosen, [options.theme])[options.theme].items():
                save(picture, options.output / f"{name}.webp")
            print(f"{len(chosen)} pictures in {options.output}")


def gallery(view: Any, nodes: dict[str, dict[str, Any]], chosen: Sequence[str]) -> None:
    """The sheets and the list of docs/."""
    for theme, drawn in draw(view, chosen, THEMES).items():
        for section, names in sections(nodes).items():
            if there := [drawn[name] for name in names if name in drawn]:
                save(sheet(there), SHEETS / f"{file_of(section)}_{theme}.webp")
    some = [name for name in chosen if name in NODES_OF_A_WORKFLOW]
    for theme, drawn in draw(view, some, THEMES, SMALL).items():
        save(sheet(list(drawn.values())), SHEETS / f"zoomed_out_{theme}.webp")
    LIST.write_text(page(nodes), encoding="utf-8")
    print(f"sheets in {SHEETS}, list in {LIST}")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="address of a ComfyUI with this pack")
    parser.add_argument("--only", nargs="+", metavar="ID", help="ids of nodes; all without it")
    parser.add_argument("--output", type=Path, default=PICTURES, metavar="FOLDER", help="of the single pictures")
    parser.add_argument("--theme", choices=THEMES, default="dark")
    parser.add_argument("--renderer", choices=RENDERERS, default="nodes")
    parser.add_argument("--gallery", action="store_true", help="the sheets and the list of docs/ in their place")
    parser.add_argument("--workflow", type=Path, metavar="FILE", help="runs it and draws all of it")
    options = parser.parse_args(arguments)
    options.server = options.server.rstrip("/")
    return options


def nodes_of(server: str) -> dict[str, dict[str, Any]]:
    """The pack's nodes by id, in the order of its list."""
    try:
        with urllib.request.urlopen(f"{server}/object_info", timeout=60) as response:
            known: dict[str, dict[str, Any]] = json.load(response)
    except OSError as problem:
        raise SystemExit(
            f"draw_nodes: nothing answers at {server} ({problem}), but a ComfyUI with this pack was expected; start one with "
            "`python host.py serve`, or name another by --server."
        ) from None
    return {name: told for name, told in known.items() if told["category"].startswith(MENU)}


def sections(nodes: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Names by menu section, in the pack's order but with deprecated nodes last."""
    found: dict[str, list[str]] = {}
    for name, told in sorted(nodes.items(), key=lambda one: bool(one[1].get("deprecated"))):
        found.setdefault(told["category"].removeprefix(MENU), []).append(name)
    return found


def file_of(section: str) -> str:
    return section.replace("/", "_").replace(" ", "_")


def draw(
    view: Any, names: Sequence[str], themes: Sequence[str], scale: float = 1.0
) -> dict[str, dict[str, Image.Image]]:
    """Theme -> id -> picture of the node, placed alone with its defaults."""
    found: dict[str, dict[str, Image.Image]] = {theme: {} for theme in themes}
    waiting = list(names)
    shift = PLACE["left"] / scale - PLACE["left"]  # so that nothing comes below the page's bars
    while waiting:
        asked = waiting[:AT_ONCE]
        view.evaluate(ADD, asked)
        boxes = settled(view)
        for theme in themes:
            view.evaluate("theme => app.extensionManager.setting.set('Comfy.ColorPalette', theme)", theme)
            for _ in range(ATTEMPTS):
                places = laid(boxes)
                if not any(places):
                    raise SystemExit(f"draw_nodes: {asked[0]} is larger than the view of {VIEW[0]}x{VIEW[1]}.")
                view.evaluate(LAY, [places, scale, shift])
                before, boxes = boxes, settled(view)
                shot = Image.open(BytesIO(view.screenshot())).convert("RGB")
                if [box[2:] for box in boxes] == [box[2:] for box in before] and bounds(view) == boxes:
                    break
            for name, place, (left, top, width, height) in zip(asked, places, boxes, strict=True):
                if place is not None:
                    corners = (left, top, left + width, top + height)
                    edges = [
                        round((at + shift) * scale) + side * MARGIN
                        for at, side in zip(corners, (-1, -1, 1, 1), strict=True)
                    ]
                    found[theme][name] = shot.crop((edges[0], edges[1], edges[2], edges[3]))
        waiting = [name for name in waiting if name not in found[themes[0]]]
    return found


def workflow(view: Any, path: Path) -> dict[str, Image.Image]:
    """Theme -> a workflow after its run, as large as the view allows."""
    view.evaluate(
        "async graph => { await app.loadGraphData(graph, true, true) }", json.loads(path.read_text(encoding="utf-8"))
    )
    settled(view)
    view.evaluate(RUN)
    boxes = settled(view)
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    width, height = max(box[0] + box[2] for box in boxes) - left, max(box[1] + box[3] for box in boxes) - top
    scale = min(1.0, (PLACE["right"] - PLACE["left"]) / width, (PLACE["bottom"] - PLACE["top"]) / height)
    view.evaluate(SHOW, [scale, PLACE["left"] / scale - left, PLACE["top"] / scale - top])
    found = {}
    for theme in THEMES:
        view.evaluate("theme => app.extensionManager.setting.set('Comfy.ColorPalette', theme)", theme)
        settled(view)
        shot = Image.open(BytesIO(view.screenshot())).convert("RGB")
        edges = (PLACE["left"], PLACE["top"], PLACE["left"] + width * scale, PLACE["top"] + height * scale)
        found[theme] = shot.crop(
            (edges[0] - MARGIN, edges[1] - MARGIN, round(edges[2]) + MARGIN, round(edges[3]) + MARGIN)
        )
    return found


def laid(boxes: Sequence[Box]) -> list[tuple[float, float] | None]:
    """Where the upper left corners go, in columns; None for those that no place is left for."""
    left, top, widest = float(PLACE["left"]), float(PLACE["top"]), 0.0
    places: list[tuple[float, float] | None] = []
    for _, _, width, height in boxes:
        if top + height > PLACE["bottom"]:
            left, top, widest = left + widest + PLACE["gap"], float(PLACE["top"]), 0.0
        fits = left + width <= PLACE["right"] and top + height <= PLACE["bottom"]
        places.append((left, top) if fits else None)
        if fits:
            top, widest = top + height + PLACE["gap"], max(widest, width)
    return places


def bounds(view: Any) -> list[Box]:
    """Of every node with its title."""
    return [(box[0], box[1], box[2], box[3]) for box in view.evaluate(BOUNDS)]


def settled(view: Any, patience: float = 10.0) -> list[Box]:
    """The nodes' bounds, once they have stayed the same for a while: scripts add to nodes after they are made."""
    end, found, same = time.monotonic() + patience, bounds(view), 0
    while same < 2 and time.monotonic() < end:
        view.wait_for_timeout(350)
        before, found = found, bounds(view)
        same = same + 1 if found == before else 0
    return found


@contextmanager
def opened(server: str, renderer: str) -> Iterator[Any]:
    """The page of a server, empty."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if program is None:
        raise SystemExit(
            "draw_nodes: no browser was found, but Chromium was expected; install it, or set CHROMIUM to its path."
        )
    told = SETTINGS | {"Comfy.VueNodes.Enabled": renderer == "nodes"}

    def settings(route: Any) -> None:
        if route.request.method == "GET":
            route.fulfill(json=route.fetch().json() | told)
        else:
            route.fulfill(json={})

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": VIEW[0], "height": VIEW[1]}, locale="en-US")
        context.route(
            lambda address: not address.startswith((server, "data:", "blob:")),
            lambda route: route.abort("blockedbyclient"),
        )
        context.route(lambda address: address.startswith((f"{server}/api/settings", f"{server}/settings")), settings)
        view = context.new_page()
        view.set_default_timeout(PATIENCE * 1000)
        view.goto(server)
        view.wait_for_function(READY)
        view.wait_for_timeout(500)
        yield view
        browser.close()


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without loss it is smaller than with, since nodes are flat.
    picture.save(path, lossless=True, method=6)


def sheet(pictures: Sequence[Image.Image], width: int = SHEET_WIDTH) -> Image.Image:
    """Pictures in columns, each in the one that ends highest."""
    widest = max(picture.width for picture in pictures)
    columns = max(1, min(len(pictures), width // widest))
    ends, places = [0] * columns, []
    for picture in pictures:
        column = ends.index(min(ends))
        places.append((column * widest, ends[column]))
        ends[column] += picture.height
    page = Image.new("RGB", (columns * widest, max(ends)), pictures[0].getpixel((0, 0)))
    for picture, place in zip(pictures, places, strict=True):
        page.paste(picture, place)
    return page


def page(nodes: dict[str, dict[str, Any]]) -> str:
    """docs/nodes.md"""
    lines = [
        "# All nodes",
        "",
        "Every node of the pack by menu section, as the page draws it in its dark and its light theme, with what it does. Each name leads to the help page that the",
        "page shows too: select a node and press the ⓘ above it. This list and its pictures are made by `benchmarks/draw_nodes.py --gallery`.",
        "",
        "Some of them at half of their size: [dark](page/zoomed_out_dark.webp), [light](page/zoomed_out_light.webp). A workflow after its run, with the editors at work:",
        "[dark](page/demo_composed_dark.webp), [light](page/demo_composed_light.webp).",
    ]
    for section, names in sections(nodes).items():
        lines += ["", f"## {section}", ""]
        lines += [f"![{section}, {theme} theme](page/{file_of(section)}_{theme}.webp)" for theme in THEMES]
        lines += ["", "| node | what it does |", "|---|---|"]
        for name in names:
            told = " ".join(nodes[name]["description"].split()).replace("|", "\\|")
            title = nodes[name]["display_name"].removesuffix(" (Control Composer)")
            lines.append(f"| [{title}](../web/docs/{name}.md) | {told} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
