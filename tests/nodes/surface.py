"""Writes the public surface of the pack, loaded as the host loads it, as JSON to the file named by the first argument.

Run it with the host's interpreter; what it writes under "nodes" is the content of surface.json beside it.
"""

import asyncio
import importlib.util
import json
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ("control_net_name", "unet_name", "base_name", "features_name", "clip_name")
"""Inputs whose options are the files that are there."""


def load(name):
    """The way of ComfyUI's `load_custom_node`: the absolute path is the module's name."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def described(node):
    schema = node.define_schema()
    return {
        "inputs": [described_input(item) for item in schema.inputs],
        "outputs": [{"id": item.id, "type": item.get_io_type()} for item in schema.outputs],
    }


def described_input(item):
    found = {"id": item.id, "type": item.get_io_type(), "optional": bool(item.optional)}
    found["default"] = getattr(item, "default", None)
    if getattr(item, "options", None) and item.id not in FILES:
        found["options"] = [described_option(option) for option in item.options]
    template = getattr(item, "template", None)
    if template is not None:  # a growing input: its links are named "<id>.<prefix><number>"
        found["template"] = {name: getattr(template, name) for name in ("prefix", "min", "max")}
        found["template"]["type"] = template.input.get_io_type()
    return found


def described_option(option):
    """A text, or a choice with inputs of its own: their names are "<id>.<input>"."""
    if isinstance(option, str):
        return option
    return {"key": option.key, "inputs": [described_input(item) for item in option.inputs]}


def main():
    import comfy.options

    comfy.options.enable_args_parsing(False)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy_api.latest  # noqa: F401
    import server
    from aiohttp import web
    from app.node_replace_manager import NodeReplaceManager

    import nodes  # noqa: F401  ComfyUI's: what the host has loaded before it comes to packs

    # The part of the running server that packs are handed.
    server.PromptServer.instance = types.SimpleNamespace(
        node_replace_manager=NodeReplaceManager(),
        routes=web.RouteTableDef(),
        add_on_prompt_handler=lambda handler: None,
    )

    begin = time.perf_counter()
    module = load(str(ROOT).replace(".", "_x_"))
    seconds = time.perf_counter() - begin
    extension = asyncio.run(module.comfy_entrypoint())
    asyncio.run(extension.on_load())
    listed = asyncio.run(extension.get_node_list())

    import folder_paths

    documented = {
        node.define_schema().node_id: {
            "undocumented": [
                i.id for i in [*node.define_schema().inputs, *node.define_schema().outputs] if not i.tooltip
            ],
            "aliases": len(node.define_schema().search_aliases),
            "description": bool(node.define_schema().description),
            "category": node.define_schema().category,
        }
        for node in listed
    }
    for node in listed:
        node.GET_SCHEMA()  # the host's own validation
    result = {
        "nodes": {node.define_schema().node_id: described(node) for node in listed},
        "documented": documented,
        "seconds": seconds,
        "demo_controls": str(ROOT / "demo" / "weights" / "controlnet") in folder_paths.get_folder_paths("controlnet"),
    }
    Path(sys.argv[1]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
