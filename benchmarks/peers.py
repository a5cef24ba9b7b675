"""Other packs to compare with, imported from their folder as the host imports packs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

APPLY = "ACN_AdvancedControlNetApply_v2"
SOFT = "ACN_ScaledSoftControlNetWeights"


class PeerError(RuntimeError):
    """A pack that cannot be compared with."""


def advanced_controlnet(folder: Path) -> dict[str, Any]:
    """The node classes of ComfyUI-Advanced-ControlNet in `folder`, by their ids. Raises PeerError where there are none."""
    import nodes  # ComfyUI's

    if not (folder / "__init__.py").is_file():
        raise PeerError(
            f"--advanced-controlnet {folder} has no __init__.py, but the folder of ComfyUI-Advanced-ControlNet was expected; "
            "clone github.com/Kosinkadink/ComfyUI-Advanced-ControlNet and give its folder."
        )
    loaded = asyncio.run(nodes.load_custom_node(str(folder.resolve())))
    missing = [name for name in (APPLY, SOFT) if name not in nodes.NODE_CLASS_MAPPINGS]
    if not loaded or missing:
        raise PeerError(
            f"--advanced-controlnet {folder} {'lacks ' + ', '.join(missing) if loaded else 'cannot be imported by this host'}, but a version "
            "with version 2 of its apply node was expected; read the log above, or update the folder."
        )
    return {name: nodes.NODE_CLASS_MAPPINGS[name] for name in (APPLY, SOFT)}
