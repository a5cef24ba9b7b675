"""In place of Advanced-ControlNet's loaders."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..checkpoints.families import UNION_TYPES
from ..control import Control, ControlError
from ..control.keyframed import KeyframedControl, Keyframing
from ..residuals.timestep_keyframes import Timeline
from .acn_types import SparseMethod, number, schema, timesteps_input
from .load import ControlComposerLoad, load_source
from .sparse import at_frames

POOLED = ("_shuffle", "_shuffle_fp16")
"""Ends of the names of files that the host's loader, which that pack used, pools."""

UNION = dict(
    zip(
        (
            "openpose",
            "depth",
            "hed/pidi/scribble/ted",
            "canny/lineart/mlsd",
            "normal",
            "segment",
            "tile",
            "inpaint/outpaint",
        ),
        UNION_TYPES,
        strict=True,
    )
)
"""That pack's names of the types: ours."""


def file_input(name: str) -> io.Input:
    return io.Combo.Input(
        name, options=folder_paths.get_filename_list("controlnet"), tooltip="A file in one of the controlnet folders."
    )


def output() -> list[io.Output]:
    return [
        io.ControlNet.Output(
            "CONTROL_NET", display_name="CONTROL_NET", tooltip="For an Apply node, that pack's or a stock one."
        )
    ]


def loaded(name: str, model: Any = None, union_type: str = "auto") -> Control:
    """A file as the host's own loader would pool it. Raises CheckpointError."""
    path = Path(folder_paths.get_full_path_or_raise("controlnet", name))
    pooling = "on" if PurePath(name).stem.endswith(POOLED) else "auto"
    return Control.unbound(load_source(path, model, pooling, union_type)[0])


def keyframed(control: Control, timeline: Timeline | None) -> Control:
    return control if timeline is None else KeyframedControl(control, Keyframing(timeline))


class Loader(io.ComfyNode):
    """What these loaders share: a changed file is loaded anew."""

    @classmethod
    def fingerprint_inputs(cls, control_net_name: str, **_: Any) -> Any:
        return ControlComposerLoad.fingerprint_inputs(control_net_name)


class ControlComposerAcnLoader(Loader):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Loader",
            "Load Advanced ControlNet Model",
            "Load ControlNet",
            [file_input("control_net_name"), timesteps_input()],
            output(),
            ("ControlNetLoaderAdvanced",),
        )

    @classmethod
    def execute(cls, control_net_name: str, timestep_kf: Timeline | None = None) -> io.NodeOutput:
        return io.NodeOutput(keyframed(loaded(control_net_name), timestep_kf))


class ControlComposerAcnDiffLoader(Loader):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "DiffLoader",
            "Load Advanced ControlNet Model (diff)",
            "Load ControlNet",
            [
                io.Model.Input("model", tooltip="The model that the control will steer."),
                file_input("control_net_name"),
                timesteps_input(),
            ],
            output(),
            ("DiffControlNetLoaderAdvanced",),
        )

    @classmethod
    def execute(cls, model: Any, control_net_name: str, timestep_kf: Timeline | None = None) -> io.NodeOutput:
        return io.NodeOutput(keyframed(loaded(control_net_name, model), timestep_kf))


class ControlComposerAcnUnionLoader(Loader):
    @classmethod
    def define_schema(cls) -> io.Schema:
        types = io.Combo.Input(
            "control_type",
            options=[*UNION, "none"],
            default="none",
            tooltip="Which type of hint the network is to read; none: it is told no type.",
        )
        return schema(
            "UnionLoader",
            "Load ControlNet++ Model (Single)",
            "Load ControlNet",
            [file_input("control_net_name"), types],
            output(),
        )

    @classmethod
    def execute(cls, control_net_name: str, control_type: str = "none") -> io.NodeOutput:
        return io.NodeOutput(loaded(control_net_name, union_type=UNION.get(control_type, "auto")))


class ControlComposerAcnSparseLoader(Loader):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseLoader",
            "Load SparseCtrl Model",
            "Load ControlNet and Sparse Frames",
            [
                file_input("control_net_name"),
                io.Boolean.Input("use_motion", default=True, tooltip="Only on: the file's motion modules act."),
                number("motion_strength", 1.0, "Only 1 here.", optional=False),
                number("motion_scale", 1.0, "Only 1 here.", optional=False),
                SparseMethod.Input(
                    "sparse_method", optional=True, tooltip="Which frames the pictures are for; without, spread evenly."
                ),
                timesteps_input(),
                io.Combo.Input(
                    "context_aware",
                    options=["nearest_hint", "off"],
                    default="nearest_hint",
                    optional=True,
                    tooltip="Without effect here: frames count over the whole batch, and windows see those that lie in them.",
                ),
                *(number(f"sparse_{name}_mult", 1.0, "Only 1 here.") for name in ("hint", "nonhint", "mask")),
            ],
            output(),
        )

    @classmethod
    def execute(
        cls,
        control_net_name: str,
        use_motion: bool,
        motion_strength: float,
        motion_scale: float,
        sparse_method: str | None = None,
        timestep_kf: Timeline | None = None,
        context_aware: str = "nearest_hint",
        **multipliers: float,
    ) -> io.NodeOutput:
        changed = {"motion_strength": motion_strength, "motion_scale": motion_scale, **multipliers}
        found = [f"{name} {value:g}" for name, value in changed.items() if value != 1.0]
        found += [] if use_motion else ["use_motion off"]
        if found:
            raise ControlError(
                f"Load SparseCtrl Model (Control Composer) has {', '.join(found)}, but this pack runs a SparseCtrl as it was trained; set the numbers "
                "to 1 and use_motion on, and weaken the whole with the strength of the Apply node."
            )
        control = loaded(control_net_name)
        return io.NodeOutput(
            keyframed(control if sparse_method is None else at_frames(control, sparse_method), timestep_kf)
        )


class ControlComposerAcnSparseIndex(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        text = io.String.Input(
            "indexes", default="0", tooltip='One frame for each picture, such as "0, 8, -1"; -1 is the last.'
        )
        method = SparseMethod.Output(
            "SPARSE_METHOD", display_name="SPARSE_METHOD", tooltip="For Load SparseCtrl Model."
        )
        return schema("SparseIndex", "SparseCtrl Index Method", "Sparse Frames", [text], [method])

    @classmethod
    def execute(cls, indexes: str) -> io.NodeOutput:
        return io.NodeOutput(indexes)


class ControlComposerAcnSparseSpread(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        spread = io.Combo.Input(
            "spread",
            options=["uniform", "starting", "ending", "center"],
            tooltip="uniform: evenly from the first frame to the last. No other is here.",
        )
        method = SparseMethod.Output(
            "SPARSE_METHOD", display_name="SPARSE_METHOD", tooltip="For Load SparseCtrl Model."
        )
        return schema("SparseSpread", "SparseCtrl Spread Method", "Sparse Frames", [spread], [method])

    @classmethod
    def execute(cls, spread: str) -> io.NodeOutput:
        if spread != "uniform":
            raise ControlError(
                f"spread of SparseCtrl Spread Method (Control Composer) is {spread}, but this pack knows uniform only; name the frames in a SparseCtrl "
                "Index Method, such as 0, 1, 2."
            )
        return io.NodeOutput("spread")


NODES: list[type[io.ComfyNode]] = [
    ControlComposerAcnLoader,
    ControlComposerAcnDiffLoader,
    ControlComposerAcnUnionLoader,
    ControlComposerAcnSparseLoader,
    ControlComposerAcnSparseIndex,
    ControlComposerAcnSparseSpread,
]
