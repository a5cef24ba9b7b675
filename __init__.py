"""Control Composer for ComfyUI: the list of its nodes, and nothing else."""

from __future__ import annotations

from pathlib import Path

# Before anything of the host's.
from . import device  # noqa: F401

# isort: split
import folder_paths
from comfy_api.latest import ComfyExtension, io

from .nodes import (
    acn_apply,
    acn_keyframes,
    acn_latents,
    acn_load,
    acn_reference,
    acn_weights,
    annotator_files,
    apply,
    compare_sets,
    convert,
    dataset,
    demo,
    download,
    evaluate,
    evaluation_files,
    hint_size,
    inspect,
    load,
    model,
    pose,
    pose_files,
    preprocess,
    preset,
    reference,
    replacements,
    save,
    schedule,
    sparse,
    train,
    union,
    weight,
)
from .page import routes

SECTIONS = (
    load,
    reference,
    model,
    sparse,
    apply,
    union,
    preset,
    weight,
    schedule,
    preprocess,
    hint_size,
    download,
    pose,
    pose_files,
    convert,
    inspect,
    evaluate,
    compare_sets,
    dataset,
    train,
    save,
    demo,
    replacements,
    acn_load,
    acn_reference,
    acn_apply,
    acn_weights,
    acn_keyframes,
    acn_latents,
)
WEB_DIRECTORY = "web"
DEMO_CONTROLS = Path(__file__).parent / "demo" / "weights" / "controlnet"


class ControlComposer(ComfyExtension):
    async def on_load(self) -> None:
        annotator_files.register_folder()
        evaluation_files.register_folder()
        folder_paths.add_model_folder_path("controlnet", str(DEMO_CONTROLS))
        await replacements.register()
        routes.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [node for section in SECTIONS for node in section.NODES]


async def comfy_entrypoint() -> ControlComposer:
    return ControlComposer()
