"""Control Composer for ComfyUI: the list of its nodes, and nothing else."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io

from .nodes import (
    annotators,
    apply,
    demo,
    inspect,
    load,
    model,
    pose,
    preprocess,
    reference,
    schedule,
    sparse,
    union,
    weight,
)

SECTIONS = (load, reference, model, sparse, apply, union, weight, schedule, preprocess, pose, inspect, demo)
DEMO_CONTROLS = Path(__file__).parent / "demo" / "weights" / "controlnet"


class ControlComposer(ComfyExtension):
    async def on_load(self) -> None:
        folder_paths.add_model_folder_path(annotators.FOLDER, str(Path(folder_paths.models_dir) / annotators.FOLDER))
        folder_paths.add_model_folder_path("controlnet", str(DEMO_CONTROLS))

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [node for section in SECTIONS for node in section.NODES]


async def comfy_entrypoint() -> ControlComposer:
    return ControlComposer()
