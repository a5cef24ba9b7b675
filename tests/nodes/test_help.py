"""Every node has its page of help, which the page shows beside it: with a picture, each input and output, and what to do when something goes wrong."""

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from control_composer.preprocessors.annotators import ANNOTATORS

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "web" / "docs"
MOST_BYTES = 60_000
HEADINGS = ("When to use it", "What the numbers mean", "Typical values", "If something goes wrong")
AS_ON = re.compile(r"^- All else .* as on (.*)$", re.MULTILINE)
"""A page may leave inputs to those of the nodes that it names here."""
OURS = " (Control Composer)"


@pytest.fixture(scope="module")
def schemas(every_node: list[Any]) -> dict[str, Any]:
    return {schema.node_id: schema for schema in (node.define_schema() for node in every_node)}


def text_of(node: str) -> str:
    return (PAGES / f"{node}.md").read_text(encoding="utf-8")


def named(node: str, schemas: dict[str, Any]) -> set[str]:
    """What a page sets off as names of inputs and outputs."""
    text = text_of(node)
    found = {word for words in re.findall(r"\*{1,2}([^*\n]+)\*{1,2}|`([^`\n]+)`", text) for word in words if word}
    for others in AS_ON.findall(text):
        by_title = {title(schema): other for other, schema in schemas.items()}
        for other in re.findall(r"\*\*(.+?)\*\*", others):
            found |= named(by_title[other], schemas)
    return found


def title(schema: Any) -> str:
    return str(schema.display_name).removesuffix(OURS)


def test_every_node_has_a_page_and_every_page_a_node(schemas: dict[str, Any]) -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == set(schemas)


def test_pages_say_what_people_look_for(schemas: dict[str, Any]) -> None:
    for node, schema in schemas.items():
        text = text_of(node)
        assert text.startswith(f"# {title(schema)}\n"), node
        found = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert [heading for heading in found if heading in HEADINGS] == list(HEADINGS), node


def test_pages_name_every_input_and_output(schemas: dict[str, Any]) -> None:
    lacking = {}
    for node, schema in schemas.items():
        wanted = {item.id for item in schema.inputs} | {item.display_name or item.id for item in schema.outputs}
        if missing := wanted - named(node, schemas):
            lacking[node] = missing
    assert lacking == {}


def test_pictures_are_there_and_small(schemas: dict[str, Any]) -> None:
    used = set()
    for node in schemas:
        links = re.findall(r"!?\[[^]]*\]\(([^)]+)\)", text_of(node))
        assert f"pictures/{node}.webp" in links, node
        for link in links:
            # The page of help knows pictures beside it; other links would lead nowhere.
            assert link.startswith(("pictures/", "https://")), (node, link)
            if link.startswith("pictures/"):
                path = PAGES / link
                used.add(path)
                assert path.stat().st_size <= MOST_BYTES, link
                with Image.open(path) as picture:
                    assert min(picture.size) >= 60, link
    assert set((PAGES / "pictures").iterdir()) == used


def test_pages_speak_of_nodes_that_there_are(schemas: dict[str, Any]) -> None:
    """In a page of ours, what is set off in capitals is a node."""
    titles = {title(schema) for schema in schemas.values()}
    for node in schemas:
        for match in re.finditer(r"(?:Take|take|by|behind|Behind) \*([A-Z][^*\n]+)\*", text_of(node)):
            assert match[1] in titles, (node, match[1])


def test_downloads_say_their_terms() -> None:
    text = text_of("ControlComposerDownloadAnnotators")
    for annotator in ANNOTATORS:
        (line,) = (
            line for line in text.splitlines() if line.startswith("- ") and annotator.id in re.split(r"[ ,:]+", line)
        )
        assert line.endswith(f": {annotator.licence}; {annotator.commercial}."), annotator.id
