"""Workflows made with Advanced-ControlNet open where that pack is missing."""

from __future__ import annotations

from comfy_api.latest import io

from .acn_names import NODES as OLD


def replacements() -> list[io.NodeReplace]:
    """What the host has to know. Where versions named one input differently, each name is told: a workflow has one of them."""
    return [
        io.NodeReplace(
            new_node_id=old.new,
            old_node_id=old.id,
            old_widget_ids=list(old.widgets),
            input_mapping=[{"new_id": ours, "old_id": theirs} for theirs, ours in old.inputs.items()],
            output_mapping=[{"new_idx": index, "old_idx": index} for index in range(old.outputs)],
        )
        for old in OLD
    ]
