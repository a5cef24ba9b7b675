"""The example workflows and the blueprints in the real page: found, opened, queued."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
PACK = "control-composer"
EXAMPLES = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
NEEDING = [name for name in EXAMPLES if not name.startswith("demo_")]
BLUEPRINTS = sorted(path.stem for path in (ROOT / "subgraphs").glob("*.json"))
FILES = ("ckpt_name", "control_net_name", "features_name")
"""Inputs that name a file which the pack does not bring."""
OURS = re.compile("control_composer_demo_")


@pytest.fixture(scope="module")
def page(open_page: Any) -> Iterator[Any]:
    with open_page() as opened:
        yield opened


def load_as_the_browser_does(page: Any, name: str) -> None:
    """What a click on a template's card does, without the cards."""
    page.js(
        "async ([pack, name]) => { const answer = await fetch(`/api/workflow_templates/${pack}/${name}.json`);"
        " await app.loadGraphData(await answer.json(), true, true, app.extensionManager.workflow.activeWorkflow, {openSource: 'template'}) }",
        [PACK, name],
    )


def plain(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs as either converter writes them: the page wraps a list that is no link, ours too."""
    return {
        name: value["__value__"] if isinstance(value, dict) and "__value__" in value else value
        for name, value in inputs.items()
    }


def test_the_template_browser_shows_ours_with_their_pictures_and_opens_one(page: Any) -> None:
    try:
        page.page.set_viewport_size({"width": 1600, "height": 1400})
        page.page.locator(".templates-tab-button").first.click()
        page.page.get_by_text(PACK, exact=True).first.click()
        waiting = set(EXAMPLES) - {"native_preprocessors"}
        end = time.monotonic() + 120
        while waiting and time.monotonic() < end:
            # A card loads its picture when it comes into view, and more cards come with the last one.
            waiting -= set(
                page.js(
                    """async names => {
                      const cards = [...document.querySelectorAll('[data-testid^=template-workflow-]')];
                      const name = card => card.dataset.testid.replace('template-workflow-', '');
                      const shown = card => [...card.querySelectorAll('img')].some(one => one.complete && one.naturalWidth >= 200);
                      (cards.find(card => names.includes(name(card)) && !shown(card)) ?? cards.at(-1))?.scrollIntoView({block: 'center'});
                      await new Promise(done => setTimeout(done, 60));
                      return cards.filter(shown).map(name);
                    }""",
                    list(waiting),
                )
            )
        assert not waiting
        page.page.locator('[data-testid="template-workflow-demo_pose"]').click()
        page.until("() => app.graph.nodes.some(node => node.type === 'ControlComposerEditPose')")
        assert page.missing() == []
        assert page.errors == []
    finally:
        page.page.set_viewport_size({"width": 1600, "height": 1000})


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_opens_and_means_what_its_file_says(page: Any, server: Any, name: str) -> None:
    load_as_the_browser_does(page, name)
    assert page.missing() == []
    page_says = page.prompt()
    file_says = server.example(name)
    assert {number: node["class_type"] for number, node in page_says.items()} == {
        number: node["class_type"] for number, node in file_says.items()
    }
    for number, node in page_says.items():
        expected = plain(file_says[number]["inputs"])
        found = plain(node["inputs"])
        # What came to a node since the file was saved has its default in the page.
        assert {input: found[input] for input in expected if input in found} == expected, f"{name}, {node}"
    assert page.errors == []


@pytest.mark.parametrize("name", NEEDING)
def test_the_note_names_each_file_that_has_to_be_there(server: Any, name: str) -> None:
    workflow = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    notes = "\n".join(node["widgets_values"][0] for node in workflow["nodes"] if "Note" in node["type"])
    needed = {
        str(node["inputs"][file])
        for node in server.example(name).values()
        for file in FILES
        if file in node["inputs"] and not OURS.match(str(node["inputs"][file]))
    }
    assert needed
    for file in needed:
        assert file.rsplit(".", 1)[0] in notes, f"{name}: {file}"


def test_three_open_where_nodes_are_elements_of_the_page(page: Any) -> None:
    page.draw_with("nodes")
    try:
        for name in ("demo_masks", "demo_batches", "sdxl_union"):
            load_as_the_browser_does(page, name)
            page.until("() => document.querySelectorAll('[data-node-id]').length > 0")
            assert page.missing() == []
        assert page.errors == []
    finally:
        page.draw_with("canvas")


def test_one_opens_in_korean(open_page: Any) -> None:
    with open_page(locale="ko") as page:
        load_as_the_browser_does(page, "demo_composed")
        assert page.missing() == []
        assert page.errors == []


def test_one_is_queued_and_its_pictures_obey_the_mask(page: Any, server: Any) -> None:
    load_as_the_browser_does(page, "demo_masks")
    page.js(
        "() => { for (const node of app.graph.nodes) for (const widget of node.widgets ?? []) {"
        " if (widget.name === 'steps') widget.value = 6; if (widget.name === 'batch_size') widget.value = 1; } }"
    )
    entry = page.queue()
    assert entry["status"]["completed"]
    titles = {str(node["id"]): node.get("title") for node in page.workflow()["nodes"]}
    made = {
        titles[number]: server.picture(output["images"][0]).astype(float)
        for number, output in entry["outputs"].items()
        if "images" in output
    }
    assert all(picture.std() > 10 for picture in made.values())
    both, masked = made["No masks"], made["Edges left, colours right"]
    assert np.abs(both - masked).mean() > 1
    assert page.errors == []


# ---- blueprints ----


def insert(page: Any, name: str) -> None:
    """Through the page's own search for nodes."""
    page.js("() => app.graph.clear()")
    field = page.page.locator("input[role=combobox]").first
    for _ in range(5):  # a page that is busy misses the second click
        page.page.mouse.dblclick(700, 600)
        if page.appears(field, 2):
            break
    field.fill(name.split(" (")[0])  # the page finds nothing for more than 32 letters
    page.page.locator("[data-testid=result-item], li[role=option]").filter(has_text=name).first.click()
    page.until("() => app.graph.nodes.length > 0")
    # A new node follows the mouse until it is put down; a click of the mouse may meet a widget of its own.
    page.js("() => app.canvas.finalizeGhostPlacement(false)")


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_is_listed_and_inserted(page: Any, server: Any, name: str) -> None:
    listed = json.loads(server.get("/global_subgraphs"))
    assert any(
        entry["name"] == name and entry["info"]["node_pack"] == f"custom_nodes.{PACK}" for entry in listed.values()
    )
    insert(page, name)
    assert page.js("() => app.graph.nodes.map(node => node.isSubgraphNode())") == [True]
    assert page.missing() == []
    assert page.errors == []


def test_the_blueprint_of_tiles_runs_with_the_colour_control_of_the_demo_world(page: Any, server: Any) -> None:
    insert(page, "Tile Upscale (Control Composer)")
    page.js(
        """() => {
          const blueprint = app.graph.nodes[0];
          const set = (node, name, value) => { node.widgets.find(widget => widget.name === name).value = value };
          const add = type => { const node = LiteGraph.createNode(type); app.graph.add(node); return node };
          const give = (from, output, input) => from.connect(output, blueprint, blueprint.inputs.findIndex(one => one.name === input));
          const world = add('ControlComposerDemoWorld'), words = add('ControlComposerDemoPrompt');
          world.connect(2, words, 0); set(words, 'text', 'a red star on a black ground');
          give(world, 0, 'model'); give(world, 1, 'vae'); give(words, 0, 'positive'); give(words, 0, 'negative');
          const scene = add('ControlComposerDemoScene'); set(scene, 'seed', 1); give(scene, 0, 'image');
          blueprint.connect(0, add('SaveImage'), 0);
          set(blueprint, 'tile control', 'control_composer_demo_colour.safetensors');
          for (const [name, value] of [['scale by', 1], ['halvings', 4], ['steps', 8], ['cfg', 1], ['denoise', 0.5]]) set(blueprint, name, value);
        }"""
    )
    entry = page.queue()
    assert entry["status"]["completed"]
    (output,) = [found for found in entry["outputs"].values() if found.get("images", [{}])[0].get("type") == "output"]
    picture = server.picture(output["images"][0]).astype(float)
    assert picture.shape == (128, 128, 3)
    red, green, _ = picture[90, 65]  # the star of this scene
    assert red > 2 * green
    assert page.errors == []
