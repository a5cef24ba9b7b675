"""What the host makes of the pack when it starts."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[2]
PACK = "control-composer"
EXAMPLES = [
    "compare_sets",
    "demo_batches",
    "demo_block_weights",
    "demo_composed",
    "demo_control_modes",
    "demo_fidelity",
    "demo_hires",
    "demo_inspection",
    "demo_masks",
    "demo_one_control",
    "demo_pose",
    "demo_preprocessors",
    "demo_regions",
    "demo_schedules",
    "demo_sizing",
    "demo_training",
    "demo_two_controls",
    "sd15_adapters",
    "sd15_canny_depth",
    "sd15_inpaint",
    "sd15_pose_regions",
    "sd15_reference",
    "sd15_tile_upscale",
    "sdxl_lineart_weights",
    "sdxl_union",
]
# It needs networks that are not part of the pack, so nothing here can show what it makes.
WITHOUT_PICTURE = ["native_preprocessors"]


def test_the_import_is_silent(server: Any) -> None:
    lines = server.lines()
    started = lines[: next(i for i, line in enumerate(lines) if "To see the GUI go to" in line)]
    # host.py keeps its environment inside the checkout; what lies there is not ours.
    foreign = [line.replace(str(ROOT / ".host"), "") for line in started]
    ours = [line for line in foreign if PACK in line or "control_composer" in line or str(ROOT) in line]
    # The host's own table of import times is the only line that names us.
    assert len(ours) == 1, "\n".join(ours)
    assert "seconds: " in ours[0], ours[0]
    loud = [line for line in started if line.startswith(("[WARNING]", "[ERROR]")) or "Traceback" in line]
    assert not loud, "\n".join(loud)


def test_the_import_loads_nothing_heavy(script_environment: dict[str, str]) -> None:
    """Under half a second is measured, not asserted; what would break it is a library the host has not loaded by then."""
    script = """
import asyncio, importlib.util, json, sys
name = sys.argv.pop()
import comfy.options; comfy.options.enable_args_parsing()
import nodes, comfy_api.latest, comfy.sd, comfy.controlnet, comfy.samplers
import server, types
from aiohttp import web
from app.node_replace_manager import NodeReplaceManager
server.PromptServer.instance = types.SimpleNamespace(
    node_replace_manager=NodeReplaceManager(), routes=web.RouteTableDef(), add_on_prompt_handler=lambda _: None
)
before = set(sys.modules)
spec = importlib.util.spec_from_file_location(name.replace(".", "_x_"), name + "/__init__.py", submodule_search_locations=[name])
pack = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
async def start():
    extension = await pack.comfy_entrypoint()
    await extension.on_load()
    return [node.define_schema().node_id for node in await extension.get_node_list()]
ids = asyncio.run(start())
new = {module.split(".")[0] for module in set(sys.modules) - before if not module.startswith(spec.name)}
print(json.dumps({"ids": ids, "new": sorted(new - set(sys.stdlib_module_names))}))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error:::control_composer", "-c", script, "--cpu", str(ROOT)],
        env=script_environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "ControlComposerLoad" in found["ids"]
    assert found["new"] == [], "imported at the start: " + ", ".join(found["new"])


def test_the_page_gets_our_nodes_with_a_tooltip_on_everything(server: Any) -> None:
    ours = {name: info for name, info in server.object_info().items() if name.startswith("ControlComposer")}
    assert {
        "ControlComposerLoad",
        "ControlComposerApply",
        "ControlComposerResolutionWeights",
        "ControlComposerCanny",
        "ControlComposerDemoWorld",
        "ControlComposerDemoPrompt",
        "ControlComposerDemoScene",
    } <= set(ours)
    for name, info in ours.items():
        assert info["category"].startswith("Control Composer/"), name
        assert info["description"], name
        assert info["search_aliases"], name
        for section in ("required", "optional"):
            for field, specification in info["input"].get(section, {}).items():
                assert specification[1].get("tooltip"), f"{name}.{field}"
        assert len(info["output_tooltips"]) == len(info["output"])
        assert all(info["output_tooltips"]), name


def test_the_template_browser_lists_the_examples_with_thumbnails(server: Any) -> None:
    assert sorted(json.loads(server.get("/workflow_templates"))[PACK]) == sorted(EXAMPLES + WITHOUT_PICTURE)
    for name in EXAMPLES + WITHOUT_PICTURE:
        workflow = json.loads(server.get(f"/api/workflow_templates/{PACK}/{name}.json"))
        assert workflow["version"] == 0.4
    for name in EXAMPLES:
        thumbnail = Image.open(io.BytesIO(server.get(f"/api/workflow_templates/{PACK}/{name}.jpg")))
        assert thumbnail.format == "JPEG"
        assert min(thumbnail.size) >= 200


@pytest.mark.parametrize("name", EXAMPLES + WITHOUT_PICTURE)
def test_no_node_of_an_example_covers_another(name: str) -> None:
    workflow = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    title = 30  # height of the bar above a node's position
    boxes = [
        (node["id"], x, y - title, x + node["size"][0], y + node["size"][1])
        for node in workflow["nodes"]
        for x, y in [node["pos"]]
    ]
    for i, (a, left, top, right, bottom) in enumerate(boxes):
        for b, other_left, other_top, other_right, other_bottom in boxes[i + 1 :]:
            apart = right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
            assert apart, f"nodes {a} and {b}"
