"""Menu section "load", beside the Load node: which frames of a video the pictures of a SparseCtrl are for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..control import Control, ControlError, ForeignControl, FrameIndices, SparseControl
from ..control.frame_indices import NODE, SPREAD


class ControlComposerSparseFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerSparseFrames",
            display_name="Sparse Frames",
            category="Control Composer/load",
            description="Says which frames of the video the pictures of a SparseCtrl are for. Without this node, or with spread, one picture is "
            "for the first frame and several are spread evenly from the first frame to the last.",
            search_aliases=[
                "sparsectrl",
                "sparse ctrl",
                "sparse index",
                "ACN_SparseCtrlIndexMethodNode",
                "ACN_SparseCtrlSpreadMethodNode",
                "sparsectrl spread method",
                "keyframes",
                "animatediff",
            ],
            inputs=[
                io.ControlNet.Input("control_net", tooltip="A SparseCtrl, from Load ControlNet (Control Composer)."),
                io.String.Input(
                    "frames",
                    default=SPREAD,
                    tooltip="One frame for each picture, in the order of the pictures: numbers counted from 0, or back from the end with -1 for the "
                    'last, and ranges. For example "0, 8, -1" or "0-3". "spread" divides the batch evenly. Frames count over the whole batch, '
                    "also in context windows. The batch setting of Apply Control has no effect on a SparseCtrl.",
                ),
            ],
            outputs=[
                io.ControlNet.Output(
                    "control_net",
                    display_name="control_net",
                    tooltip="The same control with these frames, for Apply Control.",
                )
            ],
        )

    @classmethod
    def execute(cls, control_net: Any, frames: str = SPREAD) -> io.NodeOutput:
        return io.NodeOutput(at_frames(control_net, frames))


def at_frames(control_net: Any, frames: str) -> Control:
    """A copy of a SparseCtrl's CONTROL_NET with its pictures on these frames. Raises ControlError."""
    source = control_net.network if isinstance(control_net, Control) else None
    if not isinstance(source, ForeignControl) or not isinstance(source.control, SparseControl):
        found = "a control of another node" if source is None else source.name
        raise ControlError(
            f"control_net of {NODE} is {found}, but a SparseCtrl from our Load node was expected; connect one, or remove this node, which other "
            "controls do not need."
        )
    twin: Control = control_net.copy()
    twin.network = replace(source, control=source.control.at(FrameIndices.parse(frames)))
    return twin


NODES: list[type[io.ComfyNode]] = [ControlComposerSparseFrames]
