"""Workflows saved with each release open in this one and come to what they came to then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAVED = Path(__file__).resolve().parents[2] / "saved"
RELEASES = sorted(folder for folder in SAVED.iterdir() if folder.is_dir() and folder.name[0].isdigit())
FILES = [path for release in RELEASES for path in sorted(release.glob("*.json")) if not path.stem.endswith("_api")]


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def lost(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a prompt of then has and the one of now has not; inputs may have been added."""
    return [
        f"{node['class_type']} ({key}): {name} was {value!r}, is {now.get(key, {}).get('inputs', {}).get(name)!r}"
        for key, node in before.items()
        for name, value in {**node["inputs"], "class_type": node["class_type"]}.items()
        if {**now.get(key, {}).get("inputs", {}), "class_type": now.get(key, {}).get("class_type")}.get(name, KeyError)
        != value
    ]


def test_there_is_a_release_with_every_node_it_had() -> None:
    assert FILES and (SAVED / "0.1.0").is_dir()


def test_saved_workflows_come_to_the_same_prompt(open_page: Callable[..., Any]) -> None:
    with open_page() as page:
        for path in FILES:
            page.load(read(path))
            assert page.missing() == [], path.name
            before = read(path.with_name(f"{path.stem}_api.json"))
            assert before and lost(before, page.prompt()) == [], path.name
        assert page.errors == []


def test_saved_prompts_are_valid(server: Any) -> None:
    """Each input is still one of its node, and each choice one of its choices; files are not on this machine."""
    info = server.object_info()
    for path in FILES:
        for node in read(path.with_name(f"{path.stem}_api.json")).values():
            inputs = info[node["class_type"]]["input"]
            known = {**inputs.get("required", {}), **inputs.get("optional", {})}
            for name, value in node["inputs"].items():
                assert name.split(".")[0] in known, f"{path.name}: {node['class_type']} has no {name}"
                if name in known and known[name][0] == "COMBO" and not isinstance(value, list):
                    options = known[name][1].get("options", [])
                    assert value in options or not options or "." in str(value), (
                        f"{path.name}: {node['class_type']}.{name}"
                    )
